"""The levels below kernels: from tensors and tiles without addresses to a program that runs.

Each level is the function behind the pass of that name, which `gimlet-opt` runs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gimlet.passes.sram_allocate import allocated
from gimlet.passes.sram_home_weights import weights_homed
from gimlet.passes.sram_place_tiles import tiles_placed
from gimlet.passes.sram_separate_tiles import tiles_apart
from gimlet.runtime.sram.ordering import synchronised
from gimlet.runtime.sram.program import Program

LEVELS: Mapping[str, Callable[[Program], Program]] = {
    "sram-place-tiles": tiles_placed,
    "sram-separate-tiles": tiles_apart,
    "sram-home-weights": weights_homed,
    "sram-allocate": allocated,
    "sram-synchronise": synchronised,
}
"""In the order in which they run."""


def completed(program: Program) -> Program:
    """The program after all levels. RefusedError where it does not fit the machine."""
    for level in LEVELS.values():
        program = level(program)
    return program
