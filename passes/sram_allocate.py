"""Gives every tensor its address: temporaries share shared SRAM over time, weights stay where there is room left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.sram.annotations import Life, lives, named
from gimlet.dialects.sram.assembly import assemble, rewrite
from gimlet.dialects.sram.ops import ProgramOp
from gimlet.passes.refusal import RefusedError
from gimlet.runtime.sram.formats import stored_bytes
from gimlet.runtime.sram.ordering import transfers
from gimlet.runtime.sram.program import EVERYWHERE, UNPLACED, Program, Tensor

_LINE = 512
_FILE_LINE = 64


def allocated(program: Program) -> Program:
    """The program with the tensors that are used, each with a space, an address and a capacity.

    RefusedError if they do not fit, or if it is not known yet what of a core's SRAM is private.
    """
    if program.local_bytes == UNPLACED:
        raise RefusedError("its private bytes are not known: run sram-home-weights first")
    used = {each.access.tensor for kernel in program.kernels for each in transfers(kernel)}
    kept = [_sized(each, program) for each in program.tensors if each.name in used or each.role != "weight"]
    needed, limits = lives(program), {"sram": program.shared_bytes, "lpddr": program.machine.lpddr_bytes}
    spaces = {name: _Space(size) for name, size in limits.items()}
    placed = {tensor.name: tensor for tensor in kept if tensor.space == "core"}
    chosen = [tensor for tensor in kept if tensor.name not in placed]
    for tensor in sorted(chosen, key=lambda each: (each.role == "weight", -each.capacity_bytes, each.name)):
        found = _place(tensor, needed[tensor.name], spaces, program.parts)
        if found is None:
            total, sram, lpddr = sum(each.capacity_bytes for each in kept), limits["sram"], limits["lpddr"]
            raise RefusedError(f"its tensors take {total} bytes, the device has {sram} of SRAM and {lpddr} of LPDDR")
        placed[tensor.name] = found
    return replace(program, tensors=_in_file([placed[tensor.name] for tensor in kept]))


def _sized(tensor: Tensor, program: Program) -> Tensor:
    """The tensor with the bytes that it takes with every dimension at its maximum, or its optimum if that is more."""
    maximum, optimum = ({each.name: getattr(each, size) for each in program.dims} for size in ("maximum", "optimum"))
    most = tuple(max(0, dim.evaluate(maximum), dim.evaluate(optimum)) for dim in tensor.shape)
    size = stored_bytes(tensor.dtype, most) if prod(most) else 0
    dealing = program.dealing_on(tensor.chiplet)
    unit = tensor.unit(prod(most), dealing.parts)
    if tensor.width or tensor.role == "weight" or unit == 1 or not size:
        return replace(tensor, capacity_bytes=size)
    # Every chiplet has as much room as the one with most rows. Of a weight's thousands of rows one does not count.
    rows = dealing.parts * dealing.run(prod(most) // unit)
    return replace(tensor, capacity_bytes=max(size, stored_bytes(tensor.dtype, (rows, unit))))


class _Space:
    """A memory, and who is where in it and when. Tensors begin at whole lines, on each chiplet if it is shared SRAM."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken: list[tuple[int, int, Life, Tensor]] = []

    def take(self, tensor: Tensor, life: Life, parts: int) -> int | None:
        """The lowest address with room for a tensor for a whole life, which is then taken; None if there is none."""
        address, size = 0, tensor.reach_bytes(parts)
        for begin, end, other, there in self.taken:
            if begin < address + size and address < end and other.overlaps(life) and there.meets(tensor):
                address = -(-end // _LINE) * _LINE
        if address + size > self.size:
            return None
        self.taken.append((address, address + size, life, tensor))
        self.taken.sort(key=lambda each: each[0])
        return address


def _place(tensor: Tensor, life: Life, spaces: Mapping[str, _Space], parts: int) -> Tensor | None:
    """The tensor in shared SRAM if that has room for it and it is not meant for LPDDR, else there; None if nowhere.

    One on a chiplet that has no room for it goes to another one.
    """
    chiplets = [tensor.chiplet, *(each for each in range(parts) if each != tensor.chiplet)]
    for chiplet in chiplets[: 1 if tensor.chiplet == EVERYWHERE else parts] if tensor.space != "lpddr" else ():
        here = replace(tensor, space="sram", chiplet=chiplet)
        address = spaces["sram"].take(here, life, parts)
        if address is not None:
            return replace(here, address=address)
    there = replace(tensor, space="lpddr", chiplet=EVERYWHERE)
    address = spaces["lpddr"].take(there, life, parts)
    return None if address is None else replace(there, address=address)


def _in_file(tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """The tensors, weights with their place in the weights file, one after the other."""
    placed: list[Tensor] = []
    offset = 0
    for tensor in tensors:
        if tensor.role != "weight":
            placed.append(tensor)
            continue
        placed.append(replace(tensor, offset=offset))
        offset += -(-tensor.capacity_bytes // _FILE_LINE) * _FILE_LINE
    return tuple(placed)


@dataclass(frozen=True)
class SramAllocatePass(ModulePass):
    """Gives every tensor a space, an address and a place in the weights file, and says from when to when it is needed.

    Before:

    ```mlir
    sram.program @p as "fp32" on 4 attributes {page_bytes = 64, local_bytes = 512, parts = 2, machine = {chiplets = 2, cores = 4}, dims = {}, inputs = {x = @x}, outputs = {y = @y}} {
      sram.tensor @x : "f32" <[64]> in "sram" {role = "input"}
      sram.tensor @w : "f32" <[64]> in "sram" {role = "weight"}
      sram.tensor @t : "f32" <[64]> in "sram" {role = "temporary"}
      sram.tensor @y : "f32" <[64]> in "sram" {role = "output"}
      sram.kernel @first [] attributes {sources = ["Relu"]} {
        %a = sram.tile "a" : "f32" [64] at 0 depth 1
        sram.load %a from <@x[64] at [0] by [[64 along 0]]>
        sram.map "relu" %a = %a by <tile>
        sram.store %a to <@t[64] at [0] by [[64 along 0]]>
      }
      sram.kernel @second [] attributes {sources = ["Add"]} {
        %b = sram.tile "b" : "f32" [64] at 0 depth 1
        %c = sram.tile "c" : "f32" [64] at 256 depth 1
        sram.load %b from <@t[64] at [0] by [[64 along 0]]>
        sram.load %c from <@w[64] at [0] by [[64 along 0]]>
        sram.map "add" %b = %b, %c by <tile, tile>
        sram.store %b to <@y[64] at [0] by [[64 along 0]]>
      }
    }
    ```

    After `sram-allocate`:

    ```mlir
    sram.program @p as "fp32" on 4 attributes {page_bytes = 64, local_bytes = 512, parts = 2, machine = {chiplets = 2, cores = 4}, dims = {}, inputs = {x = @x}, outputs = {y = @y}} {
      sram.tensor @x : "f32" <[64]> in "sram" at 512 {capacity_bytes = 256, role = "input", life = #sram.life<begin to "first">}
      sram.tensor @w : "f32" <[64]> in "sram" at 1024 {capacity_bytes = 256, role = "weight", offset = 0, life = #sram.life<begin to end>}
      sram.tensor @t : "f32" <[64]> in "sram" at 0 {capacity_bytes = 256, role = "temporary", life = #sram.life<"first" to "second">}
      sram.tensor @y : "f32" <[64]> in "sram" at 512 {capacity_bytes = 256, role = "output", life = #sram.life<"second" to end>}
      sram.kernel @first [] attributes {sources = ["Relu"]} {
        %a = sram.tile "a" : "f32" [64] at 0 depth 1
        sram.load %a from <@x[64] at [0] by [[64 along 0]]>
        sram.map "relu" %a = %a by <tile>
        sram.store %a to <@t[64] at [0] by [[64 along 0]]>
      }
      sram.kernel @second [] attributes {sources = ["Add"]} {
        %b = sram.tile "b" : "f32" [64] at 0 depth 1
        %c = sram.tile "c" : "f32" [64] at 256 depth 1
        sram.load %b from <@t[64] at [0] by [[64 along 0]]>
        sram.load %c from <@w[64] at [0] by [[64 along 0]]>
        sram.map "add" %b = %b, %c by <tile, tile>
        sram.store %b to <@y[64] at [0] by [[64 along 0]]>
      }
    }
    ```

    Tensors whose lives, counted in kernels, do not overlap may lie in the same place; sizes are those at the maximum of
    every dimension. The largest choose first, weights after all others. What does not fit goes to LPDDR: activations
    spill, weights are streamed from there by the loads of the kernels that use them. It does not move blocks of
    resident weights. Weights that no kernel reads go. It fails where LPDDR has no room either. Requires `local_bytes`
    and that blocks have addresses (`sram-home-weights`); ensures that every tensor has one.
    """  # noqa: E501 - IR

    name = "sram-allocate"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        for each in [each for each in op.walk() if isinstance(each, ProgramOp)]:
            try:
                program = allocated(assemble(each))
            except RefusedError as refusal:
                raise PassFailedException(f"{each.sym_name.data}: {refusal}") from None
            needed = lives(program)
            rewrite(each, program, lives={name: named(life, program) for name, life in needed.items()})
