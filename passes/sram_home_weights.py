"""Gives every block of resident weights the core that it stays on, and that core the items that multiply with it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.sram.annotations import dealt
from gimlet.dialects.sram.assembly import assemble, rewrite
from gimlet.dialects.sram.ops import ProgramOp
from gimlet.passes.refusal import RefusedError
from gimlet.passes.sram_place_tiles import private_bytes
from gimlet.runtime.sram.formats import stored_bytes
from gimlet.runtime.sram.program import EVERYWHERE, UNPLACED, Kernel, Load, Program, Tensor
from gimlet.runtime.sram.verify import own_bytes, run_of


class Homes:
    """The private bytes of every core of a group that resident weights have taken so far, out of `room` bytes each.

    What is everywhere takes the same of all groups: each has a run of the blocks of a tensor (dealing.py), or all of
    them. What is on one `chiplet` takes it of that alone.
    """

    def __init__(self, cores: int, room: int, chiplets: int = 1) -> None:
        self._taken = np.zeros((chiplets, cores), np.int64)
        self._limit = room
        self.chiplet = EVERYWHERE
        self.demand = 0.0
        """What one copy of all weights that may be resident takes of a core."""
        self.products = 1
        """How many products those weights are of."""

    @property
    def room(self) -> int:
        """Bytes that every core has left, of the chiplet if one is named."""
        taken = self._taken if self.chiplet == EVERYWHERE else self._taken[self.chiplet]
        return self._limit - int(taken.max())

    def spare(self, size: float) -> int:
        """Bytes of a core for more copies of weights of `size`: their part of what one copy of all weights leaves.

        Half of that goes by size, half in equal parts: few weights need many copies where they have many rows.
        """
        left = self._limit - self.demand
        return int(left * (size / self.demand + 1 / self.products) / 2) if left > 0 < self.demand else 0

    def take(self, blocks: int, block_bytes: int) -> tuple[int, int]:
        """The core of block 0 of a run and the address of the blocks on every core; block b goes b cores further.

        Blocks have one address on all cores: the run begins where that is lowest, and where least is left free below.
        """
        here = slice(None) if self.chiplet == EVERYWHERE else slice(self.chiplet, self.chiplet + 1)
        taken = self._taken[here].max(axis=0)
        cores = len(taken)
        if blocks >= cores:
            first = 0
        else:
            windows = np.lib.stride_tricks.sliding_window_view(np.tile(taken, 2)[: cores + blocks - 1], blocks)
            address = windows.max(axis=1)
            first = int(np.lexsort((-windows.sum(axis=1), address))[0])
        used = (first + np.arange(min(blocks, cores))) % cores
        begin = int(taken[used].max())
        self._taken[here, used] = begin + -(-blocks // cores) * block_bytes
        return first, begin


def homes_of(program: Program) -> dict[str, tuple[int, int]]:
    """The core of the first block of each resident weight, and its address behind the tiles; in the tensors' order."""
    homes = Homes(program.dealing.group, program.machine.sram_bytes_per_core, program.parts)
    found: dict[str, tuple[int, int]] = {}
    for tensor in program.tensors:
        if tensor.space == "core":
            homes.chiplet, run = tensor.chiplet, run_of(tensor, program.dealing_on(tensor.chiplet))
            found[tensor.name] = homes.take(run, stored_bytes(tensor.dtype, (tensor.block,)))
    return found


def resident_bytes(program: Program) -> int:
    """What resident weights take of the core that has most of them."""
    homes = homes_of(program)
    resident = [tensor for tensor in program.tensors if tensor.name in homes]
    return max(
        (homes[each.name][1] + own_bytes(each, program.dealing_on(each.chiplet)) for each in resident), default=0
    )


def weights_homed(program: Program) -> Program:
    """The program with blocks of weights behind the tiles, and items on the cores whose blocks they multiply with.

    RefusedError where tiles have no address yet, or tiles and blocks do not fit a core.
    """
    if any(tile.address == UNPLACED for kernel in program.kernels for tile in kernel.tiles):
        raise RefusedError("its tiles have no address: run sram-place-tiles first")
    homes, tiles = homes_of(program), private_bytes(program.kernels)
    local, limit = tiles + resident_bytes(program), program.machine.sram_bytes_per_core
    if local > limit:
        raise RefusedError(f"tiles and resident weights take {local} bytes of a core's {limit}")
    return replace(
        program,
        local_bytes=local,
        tensors=tuple(_at(tensor, homes, tiles) for tensor in program.tensors),
        kernels=tuple(_beside(kernel, homes) for kernel in program.kernels),
    )


def _at(tensor: Tensor, homes: dict[str, tuple[int, int]], tiles: int) -> Tensor:
    if tensor.name not in homes:
        return tensor
    first, address = homes[tensor.name]
    capacity = stored_bytes(tensor.dtype, tuple(dim.as_int() for dim in tensor.shape))
    return replace(tensor, first=first, address=tiles + address, capacity_bytes=capacity)


def _beside(kernel: Kernel, homes: dict[str, tuple[int, int]]) -> Kernel:
    """The kernel, its items dealt from the core on where the first block of what its windows are on lies."""
    for statement in kernel.statements():
        if isinstance(statement, Load) and statement.access.tensor in homes:
            return replace(kernel, first=homes[statement.access.tensor][0])
    return kernel


@dataclass(frozen=True)
class SramHomeWeightsPass(ModulePass):
    """Puts every block of resident weights on one core, behind its tiles, and deals items to the cores of their blocks.

    Before:

    ```mlir
    sram.program @p as "fp32" on 4 attributes {page_bytes = 64, parts = 2, machine = {chiplets = 2, cores = 4}, dims = {}, inputs = {x = @x}, outputs = {y = @y}} {
      sram.tensor @x : "f32" <[4, 8]> in "sram" {role = "input"}
      sram.tensor @v : "f32" <[1, 8, 8]> in "core" {role = "weight", block = 64}
      sram.tensor @w : "f32" <[2, 8, 8]> in "core" {role = "weight", block = 64}
      sram.tensor @y : "f32" <[4, 16]> in "sram" {role = "output"}
      sram.kernel @matmul [#sram.range<n = 0 to 16 step 8>] attributes {sources = ["MatMul"]} {
        %a = sram.tile "a" : "f32" [4, 8] at 0 depth 2
        %b = sram.tile "b" : "f32" [8, 8] at 256 depth 0
        %c = sram.tile "c" : "f32" [4, 8] at 256 depth 2
        sram.loop <k = 0 to 8 step 8> {
          sram.load %a from <@x[4, 8] at [0, "r.k"] by [[4 along 0], [8 along 1]]>
          sram.load %b from <@w[2, 8, 8] at ["r.n.index", 0, 0] by [[8 along 2], [8 along 1]]>
          sram.matmul %c, %a, %b hold "rhs" {begins = "k"}
        }
        sram.store %c to <@y[4, 16] at [0, "r.n"] by [[4 along 0], [8 along 1]]>
      }
    }
    ```

    After `sram-home-weights`:

    ```mlir
    sram.program @p as "fp32" on 4 attributes {page_bytes = 64, local_bytes = 768, parts = 2, machine = {chiplets = 2, cores = 4}, dims = {}, inputs = {x = @x}, outputs = {y = @y}} {
      sram.tensor @x : "f32" <[4, 8]> in "sram" {role = "input"}
      sram.tensor @v : "f32" <[1, 8, 8]> in "core" at 512 {capacity_bytes = 256, role = "weight", block = 64}
      sram.tensor @w : "f32" <[2, 8, 8]> in "core" at 512 {capacity_bytes = 512, role = "weight", block = 64, first = 1}
      sram.tensor @y : "f32" <[4, 16]> in "sram" {role = "output"}
      sram.kernel @matmul [#sram.range<n = 0 to 16 step 8>] attributes {sources = ["MatMul"], first = 1, dealt = #sram.dealt<2 items, 1 a chiplet, 1 a core>} {
        %a = sram.tile "a" : "f32" [4, 8] at 0 depth 2
        %b = sram.tile "b" : "f32" [8, 8] at 256 depth 0
        %c = sram.tile "c" : "f32" [4, 8] at 256 depth 2
        sram.loop <k = 0 to 8 step 8> {
          sram.load %a from <@x[4, 8] at [0, "r.k"] by [[4 along 0], [8 along 1]]>
          sram.load %b from <@w[2, 8, 8] at ["r.n.index", 0, 0] by [[8 along 2], [8 along 1]]>
          sram.matmul %c, %a, %b hold "rhs" {begins = "k"}
        }
        sram.store %c to <@y[4, 16] at [0, "r.n"] by [[4 along 0], [8 along 1]]>
      }
    }
    ```

    Of each kernel it says how its items are dealt, with dimensions at their optimum. It fails where tiles and blocks
    do not fit a core's SRAM. Requires that tiles have addresses; ensures that blocks have, and that `local_bytes` is
    what both take.
    """  # noqa: E501 - IR

    name = "sram-home-weights"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        for each in [each for each in op.walk() if isinstance(each, ProgramOp)]:
            try:
                program = weights_homed(assemble(each))
            except RefusedError as refusal:
                raise PassFailedException(f"{each.sym_name.data}: {refusal}") from None
            rewrite(each, program, dealt={kernel.name: dealt(kernel, program) for kernel in program.kernels})
