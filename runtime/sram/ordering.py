"""Which kernels a transfer has to come after: a kernel is done when all its items and the kernels before it are.

A load comes after the kernels that write its tensor. A store comes after those that use a tensor whose memory it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gimlet.runtime.sram.memory import overlaps
from gimlet.runtime.sram.program import Gather, Kernel, Load, Loop, Program, Statement, Store

Transfer = Load | Gather | Store


def transfers(kernel: Kernel) -> Iterator[Transfer]:
    """The DMA transfers of a kernel in order."""
    for statement in kernel.statements():
        if isinstance(statement, Load | Gather | Store):
            yield statement


@dataclass
class Order:
    """What has to be done before a transfer of the next kernel, as kernels are added in the program's order.

    Sets of kernels are integers, a bit for each.
    """

    shared: Mapping[str, Sequence[str]]
    numbers: dict[str, int] = field(default_factory=dict[str, int])
    covered: list[int] = field(default_factory=list[int])
    writers: dict[str, int] = field(default_factory=dict[str, int])
    users: dict[str, int] = field(default_factory=dict[str, int])

    def needed(self, transfer: Transfer) -> int:
        """The kernels that have to be done before the transfer."""
        tensor = transfer.access.tensor
        if not isinstance(transfer, Store):
            return self.writers.get(tensor, 0)
        found = self.writers.get(tensor, 0) if transfer.adds else 0
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
            if isinstance(transfer, Store):
                self.writers[tensor] = self.writers.get(tensor, 0) | bit
        self.numbers[kernel.name] = len(self.covered)
        self.covered.append(covered)


def synchronised(program: Program) -> Program:
    """The program with every transfer after the kernels that it has to come after, and no others."""
    order, kernels = Order(overlaps(program)), list[Kernel]()
    for kernel in program.kernels:
        body = with_waits(kernel.body, lambda transfer: order.fewest(order.needed(transfer)))
        kernels.append(replace(kernel, body=body))
        order.add(kernels[-1])
    return replace(program, kernels=tuple(kernels))


def one_after_another(kernels: Sequence[Kernel]) -> tuple[Kernel, ...]:
    """The kernels with every transfer after the kernel before, as a barrier between them would have it."""
    found: list[Kernel] = []
    for kernel in kernels:
        before = (found[-1].name,) if found else ()
        found.append(replace(kernel, body=with_waits(kernel.body, lambda _, before=before: before)))
    return tuple(found)


def with_waits(body: Sequence[Statement], after: Callable[[Transfer], tuple[str, ...]]) -> tuple[Statement, ...]:
    """The statements with `after` of each transfer in place of what it came after."""
    found: list[Statement] = []
    for statement in body:
        if isinstance(statement, Loop):
            found.append(replace(statement, body=with_waits(statement.body, after)))
        elif isinstance(statement, Load | Gather | Store):
            found.append(replace(statement, after=after(statement)))
        else:
            found.append(statement)
    return tuple(found)
