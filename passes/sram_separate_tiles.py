"""Keeps the tiles of neighbouring kernels apart, so that a core can begin one while it is still at the one before."""

from __future__ import annotations

from dataclasses import dataclass, replace

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from gimlet.dialects.sram.assembly import assemble, rewrite
from gimlet.dialects.sram.ops import ProgramOp
from gimlet.passes.sram_home_weights import resident_bytes
from gimlet.passes.sram_place_tiles import private_bytes
from gimlet.runtime.sram.program import UNPLACED, Kernel, Program

_SHARE = 16
"""The part of the SRAM without weights that the tiles of neighbouring kernels may take more: one in so many."""


def tiles_apart(program: Program, room: int | None = None) -> Program:
    """The program with the tiles of every second kernel behind those of the others, if that takes at most `room` more.

    `room` is in bytes of each core's SRAM; by default a part of what resident weights leave of it. Where both do not
    fit before the blocks of resident weights, nothing is moved.
    """
    if room is None:
        room = (program.machine.sram_bytes_per_core - resident_bytes(program)) // _SHARE
    even, odd = private_bytes(program.kernels[::2]), private_bytes(program.kernels[1::2])
    blocks = [each.address for each in program.tensors if each.space == "core" and each.address != UNPLACED]
    if min(even, odd) > room or even + odd > min(blocks, default=program.private_limit):
        return program
    kernels = (_moved(kernel, even if index % 2 else 0) for index, kernel in enumerate(program.kernels))
    return replace(program, kernels=tuple(kernels))


def _moved(kernel: Kernel, distance: int) -> Kernel:
    return replace(kernel, tiles=tuple(replace(tile, address=tile.address + distance) for tile in kernel.tiles))


@dataclass(frozen=True)
class SramSeparateTilesPass(ModulePass):
    """Moves the tiles of every second kernel of a program behind those of the others.

    Before:

    ```mlir
    sram.program @p as "fp32" on 1 attributes {page_bytes = 64, local_bytes = 512, machine = {chiplets = 1, cores = 1}, dims = {}, inputs = {x = @x}, outputs = {y = @y}} {
      sram.tensor @x : "f32" <[8]> in "sram" at 0 {capacity_bytes = 32, role = "input"}
      sram.tensor @t : "f32" <[8]> in "sram" at 512 {capacity_bytes = 32, role = "temporary"}
      sram.tensor @y : "f32" <[8]> in "sram" at 1024 {capacity_bytes = 32, role = "output"}
      sram.kernel @first [] attributes {sources = []} {
        %a = sram.tile "a" : "f32" [8] at 0 depth 2
        sram.load %a from <@x[8] at [0] by [[8 along 0]]>
        sram.store %a to <@t[8] at [0] by [[8 along 0]]>
      }
      sram.kernel @second [] attributes {sources = []} {
        %b = sram.tile "b" : "f32" [8] at 0 depth 1
        sram.load %b from <@t[8] at [0] by [[8 along 0]]>
        sram.store %b to <@y[8] at [0] by [[8 along 0]]>
      }
    }
    ```

    After `sram-separate-tiles{room=128}`:

    ```mlir
    sram.program @p as "fp32" on 1 attributes {page_bytes = 64, local_bytes = 512, machine = {chiplets = 1, cores = 1}, dims = {}, inputs = {x = @x}, outputs = {y = @y}} {
      sram.tensor @x : "f32" <[8]> in "sram" at 0 {capacity_bytes = 32, role = "input"}
      sram.tensor @t : "f32" <[8]> in "sram" at 512 {capacity_bytes = 32, role = "temporary"}
      sram.tensor @y : "f32" <[8]> in "sram" at 1024 {capacity_bytes = 32, role = "output"}
      sram.kernel @first [] attributes {sources = []} {
        %a = sram.tile "a" : "f32" [8] at 0 depth 2
        sram.load %a from <@x[8] at [0] by [[8 along 0]]>
        sram.store %a to <@t[8] at [0] by [[8 along 0]]>
      }
      sram.kernel @second [] attributes {sources = []} {
        %b = sram.tile "b" : "f32" [8] at 64 depth 1
        sram.load %b from <@t[8] at [0] by [[8 along 0]]>
        sram.store %b to <@y[8] at [0] by [[8 along 0]]>
      }
    }
    ```

    It does not act where that takes more than `room` bytes of each core's SRAM, by default a sixteenth of what resident
    weights leave, or where both do not fit the private part of it, before the blocks of resident weights. Requires that
    tiles have addresses; ensures nothing else.
    """  # noqa: E501 - IR

    name = "sram-separate-tiles"

    room: int | None = None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        for program in [each for each in op.walk() if isinstance(each, ProgramOp)]:
            rewrite(program, tiles_apart(assemble(program), self.room))
