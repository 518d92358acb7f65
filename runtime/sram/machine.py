"""The machine that a program is for: a grid of cores with SRAM, a matrix, a vector and a DMA unit each.

The instruction set is this project's own (docs/sram.md); the figures come from the hardware file. Every program
carries the machine that it was compiled for, so that running and timing it need nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import ceil
from types import MappingProxyType
from typing import Any, Literal, get_args

from gimlet.runtime.errors import InputError

Stationary = Literal["lhs", "rhs", "accumulator"]
"""The operand of a matrix product that the array holds while the others stream through."""

_LATENCIES = frozenset(
    {
        "array_hold_cycles",
        "array_drain_cycles",
        "issue_cycles",
        "lpddr_latency_cycles",
        "network_latency_cycles",
        "die_latency_s",
        "card_latency_s",
        "semaphore_cycles",
    }
)
_MOST_CORES = 1 << 20
"""Code generation, the emulator and the cycle model each keep something for every core."""


def _row_cycles() -> Mapping[str, float]:
    # Bit-serial over the significand: 8 bits take 8 cycles; bf16 is read in two passes, f32 in 9 of 8 bits by 8.
    return MappingProxyType({"mxint8": 8.0, "i8": 8.0, "bf16": 16.0, "f32": 72.0})


@dataclass(frozen=True)
class Machine:
    """The figures that code generation, the emulator's checks and the cycle model need.

    A *row* is one vector of `matrix_rows` elements that streams through the array against the tile of
    `matrix_rows` by `matrix_columns` that it holds; `row_cycles` says for each number format how long one takes.
    Bandwidths in bytes per cycle belong to one core, those in bytes per second to what their name says. All counts and
    LPDDR are those of all `cards` together; what a card sends to the others, or receives, is `card_bytes_per_s`.

    Putting a tile into the array takes what SRAM needs for its bytes and at least `array_hold_cycles`, whatever its
    size (a systolic array shifts it in, a row a cycle); the last result leaves it `array_drain_cycles` after the last
    row went in. With two `array_tiles` the next tile is put in beside the one in use. `dataflow` is the operand that
    code generation holds in the array: the weights (`rhs`), the inputs (`lhs`) or the results (`accumulator`).
    """

    cards: int = 1
    chiplets: int = 8
    cores: int = 2048
    clock_hz: float = 1.2e9
    sram_bytes_per_core: int = 1 << 20
    sram_bytes_per_cycle: int = 61
    matrix_rows: int = 64
    matrix_columns: int = 64
    matrix_stream: int = 256
    array_tiles: int = 1
    array_hold_cycles: int = 0
    array_drain_cycles: int = 0
    dataflow: Stationary = "rhs"
    row_cycles: Mapping[str, float] = field(default_factory=_row_cycles, hash=False)
    vector_lanes: int = 64
    vector_elements: int = 65536
    issue_cycles: int = 4
    lpddr_bytes: int = 256 * 10**9
    lpddr_bytes_per_s: float = 0.4e12
    lpddr_latency_cycles: int = 240
    network_bytes_per_cycle: int = 61
    network_latency_cycles: int = 60
    die_bytes_per_s: float = 1e12
    die_latency_s: float = 115e-9
    card_bytes_per_s: float = 512e9
    card_latency_s: float = 115e-9
    semaphore_cycles: int = 8

    def __post_init__(self) -> None:
        for name, value in self.figures().items():
            if name in _LATENCIES and value < 0:
                raise InputError(f"{name} of an SRAM machine must not be negative, it is {value}")
            if name not in (*_LATENCIES, "row_cycles", "dataflow") and not value > 0:
                raise InputError(f"{name} of an SRAM machine must be positive, not {value}")
        if self.dataflow not in get_args(Stationary):
            raise InputError(f"dataflow of an SRAM machine is lhs, rhs or accumulator, not {self.dataflow!r}")
        if self.cores > _MOST_CORES:
            raise InputError(f"an SRAM machine has at most {_MOST_CORES} cores, not {self.cores}")
        if self.cores % self.chiplets:
            raise InputError(f"{self.cores} cores do not divide over {self.chiplets} chiplets")
        if self.chiplets % self.cards:
            raise InputError(f"{self.chiplets} chiplets do not divide over {self.cards} cards")
        if "f32" not in self.row_cycles or min(self.row_cycles.values()) <= 0:
            raise InputError("row_cycles of an SRAM machine needs f32, and every figure positive")

    @property
    def sram_bytes(self) -> int:
        """All cores' SRAM together."""
        return self.cores * self.sram_bytes_per_core

    @property
    def lpddr_bytes_per_cycle(self) -> float:
        """The whole card's, over all cores."""
        return self.lpddr_bytes_per_s / self.clock_hz

    @property
    def die_bytes_per_cycle(self) -> float:
        """What one chiplet sends to, or receives from, the others."""
        return self.die_bytes_per_s / self.clock_hz

    @property
    def die_latency_cycles(self) -> int:
        """What a message to another chiplet takes beyond one that stays."""
        return ceil(self.die_latency_s * self.clock_hz)

    @property
    def card_bytes_per_cycle(self) -> float:
        """What one card sends to, or receives from, the others."""
        return self.card_bytes_per_s / self.clock_hz

    @property
    def card_latency_cycles(self) -> int:
        """What a message to another card takes beyond one to another chiplet."""
        return ceil(self.card_latency_s * self.clock_hz)

    @property
    def cores_per_card(self) -> int:
        return self.cores // self.cards

    @property
    def cores_per_chiplet(self) -> int:
        return self.cores // self.chiplets

    def flops(self, dtype: str) -> float:
        """Peak operations per second of all matrix units in a format, a multiply-add counted as two."""
        return 2.0 * self.cores * self.matrix_rows * self.matrix_columns * self.clock_hz / self.row_cycles[dtype]

    def to_json(self) -> dict[str, Any]:
        """The figures by name, as a program stores them."""
        return {**self.figures(), "row_cycles": dict(sorted(self.row_cycles.items()))}

    def figures(self) -> dict[str, Any]:
        """The figures by name, in the order they are declared."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @staticmethod
    def systolic(rows: int, columns: int, dataflow: Stationary) -> Machine:
        """One plain systolic array of one-cycle int8 cells, with memory that never holds it up.

        A held tile is shifted in, a row a cycle; operands enter skewed, so that the last result leaves
        `rows + columns - 2` cycles after the last row of the streamed operand went in at the first corner.
        """
        plenty = 1 << 48
        return Machine(
            chiplets=1,
            cores=1,
            sram_bytes_per_core=plenty,
            sram_bytes_per_cycle=plenty,
            matrix_rows=rows,
            matrix_columns=columns,
            matrix_stream=1 << 20,
            array_hold_cycles=rows,
            array_drain_cycles=rows + columns - 2,
            dataflow=dataflow,
            row_cycles=MappingProxyType({"f32": 1.0, "i8": 1.0}),
            issue_cycles=0,
            network_bytes_per_cycle=plenty,
            network_latency_cycles=0,
            die_latency_s=0.0,
            semaphore_cycles=0,
        )

    @staticmethod
    def from_options(options: Mapping[str, Any]) -> Machine:
        """A machine from the `[options]` table of a hardware file, defaults where it is silent.

        Keys that are not this machine's are left to whoever they belong to. InputError for a figure of the wrong type.
        """
        chosen: dict[str, Any] = {}
        for name, default in Machine().figures().items():
            if name not in options:
                continue
            value = options[name]
            if name == "row_cycles":
                if not isinstance(value, Mapping):
                    raise InputError("row_cycles of an SRAM machine must be a table of formats")
                chosen[name] = MappingProxyType({str(key): _number(name, number) for key, number in value.items()})
            elif isinstance(default, str):
                chosen[name] = value
            elif isinstance(default, int):
                if not isinstance(value, int) or isinstance(value, bool):
                    raise InputError(f"{name} of an SRAM machine must be an integer, not {value!r}")
                chosen[name] = value
            else:
                chosen[name] = _number(name, value)
        return Machine(**chosen)


def _number(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"{name} of an SRAM machine must be a number, not {value!r}")
    return float(value)
