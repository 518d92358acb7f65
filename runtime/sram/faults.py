"""What the machine does when a program is wrong: it stops, and says where."""

from __future__ import annotations

from dataclasses import dataclass

from gimlet.runtime.errors import InputError


@dataclass(frozen=True)
class Place:
    """Where a program was when it stopped. The instruction is counted within its kernel, loops not counted.

    `cycle` is when the cycle model starts the instruction for the first time, -1 where nobody asked it.
    """

    kernel: str
    instruction: int
    opcode: str
    core: int = 0
    address: int | None = None
    cycle: int = -1

    def __str__(self) -> str:
        text = f"kernel {self.kernel}, instruction {self.instruction} ({self.opcode}), core {self.core}"
        text += f", cycle {self.cycle}" if self.cycle >= 0 else ""
        return text if self.address is None else f"{text}, address {self.address:#x}"


_PROGRAM = "the program is wrong, not the input: report it with the bundle"
_DATA = "a position that an input gives is outside: an index that is too large, or a cache of a fixed size that is full"


class MachineError(InputError):
    """A program did something that the machine does not do.

    It is the compiler's fault, which wrote the program; but for a position that the program computes from data
    (`from_data`), which may be the user's.
    """

    def __init__(self, message: str, place: Place | None = None, *, from_data: bool = False) -> None:
        super().__init__(message, where=None if place is None else str(place), hint=_DATA if from_data else _PROGRAM)
        self.from_data = from_data
        self.place = place
