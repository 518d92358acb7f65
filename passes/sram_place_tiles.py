"""Gives the tiles of each kernel their addresses in the private part of a core's SRAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from gimlet.dialects.sram.assembly import assemble, rewrite
from gimlet.dialects.sram.ops import ProgramOp
from gimlet.runtime.sram.program import UNPLACED, Kernel, Program, Tile
from gimlet.runtime.sram.verify import tile_bytes

_LINE = 64


def tiles_placed(program: Program) -> Program:
    """The program with the tiles of each kernel one after the other, from address 0 on."""
    return replace(program, kernels=tuple(_placed(kernel) for kernel in program.kernels))


def private_bytes(kernels: Sequence[Kernel]) -> int:
    """What the tiles of the largest kernel take of each core's SRAM. Nothing while they have no address."""
    ends = [tile.address + tile_bytes(tile) for kernel in kernels for tile in kernel.tiles if tile.address != UNPLACED]
    return -(-max(ends, default=0) // _LINE) * _LINE


def _placed(kernel: Kernel) -> Kernel:
    tiles: list[Tile] = []
    end = 0
    for tile in kernel.tiles:
        tiles.append(replace(tile, address=end))
        end += -(-tile_bytes(tile) // _LINE) * _LINE
    return replace(kernel, tiles=tuple(tiles))


@dataclass(frozen=True)
class SramPlaceTilesPass(ModulePass):
    """Puts the tiles of each kernel one after the other into the private part of every core's SRAM.

    Before:

    ```mlir
    sram.program @p as "fp32" on 4 attributes {page_bytes = 64, parts = 2, machine = {chiplets = 2, cores = 4}, dims = {}, inputs = {x = @x}, outputs = {y = @y}} {
      sram.tensor @x : "f32" <[4, 32]> in "sram" {role = "input"}
      sram.tensor @y : "f32" <[4, 32]> in "sram" {role = "output"}
      sram.kernel @map [#sram.range<m = 0 to 4 step 1>] attributes {sources = ["Relu"]} {
        %a = sram.tile "a" : "f32" [1, 32] depth 2
        %b = sram.tile "b" : "f32" [1, 32] depth 1
        sram.load %a from <@x[4, 32] at ["r.m", 0] by [[1 along 0], [32 along 1]]>
        sram.map "relu" %b = %a by <tile>
        sram.store %b to <@y[4, 32] at ["r.m", 0] by [[1 along 0], [32 along 1]]>
      }
    }
    ```

    After `sram-place-tiles`:

    ```mlir
    sram.program @p as "fp32" on 4 attributes {page_bytes = 64, parts = 2, machine = {chiplets = 2, cores = 4}, dims = {}, inputs = {x = @x}, outputs = {y = @y}} {
      sram.tensor @x : "f32" <[4, 32]> in "sram" {role = "input"}
      sram.tensor @y : "f32" <[4, 32]> in "sram" {role = "output"}
      sram.kernel @map [#sram.range<m = 0 to 4 step 1>] attributes {sources = ["Relu"]} {
        %a = sram.tile "a" : "f32" [1, 32] at 0 depth 2
        %b = sram.tile "b" : "f32" [1, 32] at 256 depth 1
        sram.load %a from <@x[4, 32] at ["r.m", 0] by [[1 along 0], [32 along 1]]>
        sram.map "relu" %b = %a by <tile>
        sram.store %b to <@y[4, 32] at ["r.m", 0] by [[1 along 0], [32 along 1]]>
      }
    }
    ```

    It acts on every kernel by itself: the tiles of all kernels begin at address 0, for `sram-separate-tiles` to move
    apart. A window (depth 0) gets an address and takes no memory. Requires nothing; ensures that every tile has an
    address at a whole line of 64 bytes, and that no two of a kernel overlap.
    """  # noqa: E501 - IR

    name = "sram-place-tiles"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        for program in [each for each in op.walk() if isinstance(each, ProgramOp)]:
            rewrite(program, tiles_placed(assemble(program)))
