"""What can be said of a program beside its instructions: how long each tensor is needed, and who works on which items.

Passes write it into the IR for whoever reads it, and the verifier of `sram.program` checks that it is still true.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from gimlet.runtime.sram.faults import MachineError
from gimlet.runtime.sram.memory import overlaps
from gimlet.runtime.sram.ordering import transfers
from gimlet.runtime.sram.program import REGISTER_PREFIX, Kernel, Program


@dataclass(frozen=True)
class Life:
    """The first and last kernel that need a tensor, by number. −1 is before the first, their count after the last."""

    first: int
    last: int

    def overlaps(self, other: Life) -> bool:
        """Whether both are needed at some time."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class NamedLife:
    """A life by the names of its kernels, None at the begin and the end of the program."""

    first: str | None
    last: str | None

    def __str__(self) -> str:
        first = "begin" if self.first is None else f'"{self.first}"'
        last = "end" if self.last is None else f'"{self.last}"'
        return f"{first} to {last}"


@dataclass(frozen=True)
class Dealt:
    """How many items a kernel has with dimensions at their optimum, and at most on a chiplet, and on a core."""

    items: int
    chiplet: int
    core: int

    def __str__(self) -> str:
        return f"{self.items} items, {self.chiplet} a chiplet, {self.core} a core"


def verify_annotations(program: Program, life_of: Mapping[str, NamedLife], dealt_of: Mapping[str, Dealt]) -> None:
    """Raises MachineError for what is said of a tensor or kernel and is not so, or two that need the same memory."""
    needed = lives(program) if life_of else {}
    for name, said in life_of.items():
        true = named(needed[name], program)
        if said != true:
            raise MachineError(f"tensor {name} is said to live from {said}, its kernels need it from {true}")
    sharing = overlaps(program) if life_of else {}
    for name, others in sharing.items():
        for other in others:
            if name in life_of and other in life_of and needed[name].overlaps(needed[other]):
                raise MachineError(f"tensors {name} and {other} have the same memory while both are needed")
    for kernel in program.kernels:
        said_dealt, true_dealt = dealt_of.get(kernel.name), dealt(kernel, program)
        if said_dealt is not None and said_dealt != true_dealt:
            raise MachineError(f"kernel {kernel.name} is said to have {said_dealt}, its grid has {true_dealt}")


def lives(program: Program) -> dict[str, Life]:
    """The life of each tensor: what is given begins before the program, what is left ends after it.

    One that no kernel uses lives as long as the program.
    """
    found: dict[str, Life] = {}
    for index, kernel in enumerate(program.kernels):
        for transfer in transfers(kernel):
            name = transfer.access.tensor
            found[name] = Life(found[name].first if name in found else index, index)
    before, behind = -1, len(program.kernels)
    for tensor in program.tensors:
        life = found.get(tensor.name, Life(before, behind))
        first = before if tensor.role in ("input", "state", "weight") else life.first
        last = behind if tensor.role in ("output", "state", "weight") else life.last
        found[tensor.name] = Life(first, last)
    return found


def named(life: Life, program: Program) -> NamedLife:
    """A life by the names of its kernels."""
    first = program.kernels[life.first].name if life.first >= 0 else None
    last = program.kernels[life.last].name if life.last < len(program.kernels) else None
    return NamedLife(first, last)


def dealt(kernel: Kernel, program: Program) -> Dealt:
    """Who works on a kernel's items."""
    known = {dim.name: dim.optimum for dim in program.dims}
    items = 1
    for each in kernel.grid:
        extent = max(0, each.extent.evaluate(known))
        items *= ceil(extent / each.step)
        known[f"{REGISTER_PREFIX}{each.name}.size"] = min(extent, each.step)
    if not items:
        return Dealt(0, 0, 0)
    dealing = program.dealing_on(kernel.chiplet)
    run = dealing.run(items)
    return Dealt(items, min(items, run), ceil(run / dealing.group))
