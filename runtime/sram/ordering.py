"""Which kernels a transfer has to come after: a kernel is done when all its items and the kernels before it are.

A load comes after the kernels that write what it reads. A store comes after those that use a tensor whose memory it
takes, and one that adds to what is there, or changes it, after those that write or read that. Where that is known for
all sizes, what a transfer reads or writes is a box of its tensor; else it is taken to be all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.memory import overlaps
from gimlet.runtime.sram.program import (
    REGISTER_PREFIX,
    Gather,
    Kernel,
    Loop,
    Program,
    Range,
    Scatter,
    Statement,
    Store,
    Transfer,
)


@dataclass(frozen=True)
class Box:
    """The first and last position that a transfer may visit along each dimension of a tensor seen with `shape`."""

    shape: tuple[Expr, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]

    def meets(self, other: Box | None) -> bool:
        """Whether there may be an element in both: where shapes are not alike, that is not known."""
        if other is None or self.shape != other.shape:
            return True
        sides = zip(self.low, self.high, other.low, other.high, strict=True)
        return all(low <= end and begin <= high for low, high, begin, end in sides)


def box(transfer: Transfer, kernel: Kernel) -> Box | None:
    """What a transfer of a kernel may visit, in all items and iterations; None where that depends on sizes or data."""
    access = transfer.access
    if isinstance(transfer, Gather | Scatter):
        return None
    first, last = _ends(tuple(ranges(kernel)))
    axes = [axis for group in access.axes for axis in group if axis.dim >= 0]
    known = {symbol for value in (*access.start, *(axis.size for axis in axes)) for symbol in value.symbols}
    if not known <= first.keys() or any(axis.step < 0 for axis in axes):
        return None
    if any(factor < 0 for value in access.start for monomial, factor in value.terms if monomial):
        return None
    low = [start.evaluate(first) for start in access.start]
    high = [start.evaluate(last) for start in access.start]
    for axis in axes:
        high[axis.dim] += axis.step * (axis.size.evaluate(last) - 1)
    return Box(access.shape, tuple(low), tuple(high))


@lru_cache(maxsize=1024)
def _ends(ranges: tuple[Range, ...]) -> tuple[dict[str, int], dict[str, int]]:
    """The registers in the first and in the last step of all ranges, but for those whose extents are not known."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for each in ranges:
        if not each.extent.symbols <= last.keys():
            continue
        most = each.extent.evaluate(last)
        count = -(-most // each.step)
        register = f"{REGISTER_PREFIX}{each.name}"
        first |= {register: 0, f"{register}.index": 0, f"{register}.size": min(each.step, most)}
        last |= {register: (count - 1) * each.step, f"{register}.index": count - 1}
        last[f"{register}.size"] = min(each.step, most)
    return first, last


def ranges(kernel: Kernel) -> Iterator[Range]:
    """The ranges of a kernel's grid, then of its loops, the outer ones first."""
    yield from kernel.grid
    pending = list(kernel.body)
    while pending:
        statement = pending.pop()
        if isinstance(statement, Loop):
            yield statement.range
            pending += statement.body


def transfers(kernel: Kernel) -> Iterator[Transfer]:
    """The DMA transfers of a kernel in order."""
    for statement in kernel.statements():
        if isinstance(statement, Transfer):
            yield statement


@dataclass
class Order:
    """What has to be done before a transfer of the next kernel, as kernels are added in the program's order.

    Sets of kernels are integers, a bit for each. Of the `writers` and `readers` of a tensor the boxes are known too.
    """

    shared: Mapping[str, Sequence[str]]
    numbers: dict[str, int] = field(default_factory=dict[str, int])
    covered: list[int] = field(default_factory=list[int])
    users: dict[str, int] = field(default_factory=dict[str, int])
    writers: dict[str, list[tuple[int, Box | None]]] = field(default_factory=dict[str, list[tuple[int, Box | None]]])
    readers: dict[str, list[tuple[int, Box | None]]] = field(default_factory=dict[str, list[tuple[int, Box | None]]])

    def needed(self, transfer: Transfer, kernel: Kernel) -> int:
        """The kernels that have to be done before the transfer of `kernel`."""
        tensor, visited = transfer.access.tensor, box(transfer, kernel)
        if not isinstance(transfer, Store | Scatter):
            return _meeting(self.writers.get(tensor, ()), visited)
        found = 0
        if isinstance(transfer, Scatter) or transfer.adds:
            found = _meeting([*self.writers.get(tensor, ()), *self.readers.get(tensor, ())], visited)
        for other in self.shared.get(tensor, ()):
            found |= self.users.get(other, 0)
        return found

    def reach(self, names: Sequence[str]) -> int:
        """The kernels that are done when those called `names` are. One that is not before the next kernel has none."""
        found = 0
        for name in names:
            if name in self.numbers:
                found |= self.covered[self.numbers[name]]
        return found

    def fewest(self, needed: int) -> tuple[str, ...]:
        """Kernels to wait for so that all `needed` ones are done, the latest first."""
        names, chosen = list(self.numbers), []
        while needed:
            last = needed.bit_length() - 1
            chosen.append(names[last])
            needed &= ~self.covered[last]
        return tuple(chosen)

    def add(self, kernel: Kernel) -> None:
        """Takes a kernel as the next one."""
        bit = 1 << len(self.covered)
        covered = bit
        for transfer in transfers(kernel):
            covered |= self.reach(transfer.after)
            tensor = transfer.access.tensor
            self.users[tensor] = self.users.get(tensor, 0) | bit
            used = self.writers if isinstance(transfer, Store | Scatter) else self.readers
            used.setdefault(tensor, []).append((bit, box(transfer, kernel)))
        self.numbers[kernel.name] = len(self.covered)
        self.covered.append(covered)


def _meeting(users: Iterable[tuple[int, Box | None]], visited: Box | None) -> int:
    """The kernels whose boxes meet another one."""
    found = 0
    for bit, used in users:
        if not found & bit and (visited is None or visited.meets(used)):
            found |= bit
    return found


def synchronised(program: Program) -> Program:
    """The program with every transfer after the kernels that it has to come after, and no others."""
    order, kernels = Order(overlaps(program)), list[Kernel]()
    for kernel in program.kernels:
        body = with_waits(kernel.body, lambda transfer, kernel=kernel: order.fewest(order.needed(transfer, kernel)))
        kernels.append(replace(kernel, body=body))
        order.add(kernels[-1])
    return replace(program, kernels=tuple(kernels))


def with_waits(body: Sequence[Statement], after: Callable[[Transfer], tuple[str, ...]]) -> tuple[Statement, ...]:
    """The statements with `after` of each transfer in place of what it came after."""
    found: list[Statement] = []
    for statement in body:
        if isinstance(statement, Loop):
            found.append(replace(statement, body=with_waits(statement.body, after)))
        elif isinstance(statement, Transfer):
            found.append(replace(statement, after=after(statement)))
        else:
            found.append(statement)
    return tuple(found)
