"""Makes transfers of a program wait for the kernels that they have to come after."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.sram.assembly import assemble, rewrite
from gimlet.dialects.sram.ops import ProgramOp
from gimlet.runtime.sram.ordering import synchronised
from gimlet.runtime.sram.program import UNPLACED


@dataclass(frozen=True)
class SramSynchronisePass(ModulePass):
    """Gives every transfer the kernels that it comes after: who wrote what it reads, or used the memory that it takes.

    Before:

    ```mlir
    sram.program @p as "fp32" on 1 attributes {page_bytes = 64, local_bytes = 512, machine = {chiplets = 1, cores = 1}, dims = {}, inputs = {x = @x}, outputs = {y = @y}} {
      sram.tensor @x : "f32" <[8]> in "sram" at 0 {capacity_bytes = 32, role = "input"}
      sram.tensor @t : "f32" <[8]> in "sram" at 512 {capacity_bytes = 32, role = "temporary"}
      sram.tensor @y : "f32" <[8]> in "sram" at 0 {capacity_bytes = 32, role = "output"}
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

    After `sram-synchronise`:

    ```mlir
    sram.program @p as "fp32" on 1 attributes {page_bytes = 64, local_bytes = 512, machine = {chiplets = 1, cores = 1}, dims = {}, inputs = {x = @x}, outputs = {y = @y}} {
      sram.tensor @x : "f32" <[8]> in "sram" at 0 {capacity_bytes = 32, role = "input"}
      sram.tensor @t : "f32" <[8]> in "sram" at 512 {capacity_bytes = 32, role = "temporary"}
      sram.tensor @y : "f32" <[8]> in "sram" at 0 {capacity_bytes = 32, role = "output"}
      sram.kernel @first [] attributes {sources = []} {
        %a = sram.tile "a" : "f32" [8] at 0 depth 2
        sram.load %a from <@x[8] at [0] by [[8 along 0]]>
        sram.store %a to <@t[8] at [0] by [[8 along 0]]>
      }
      sram.kernel @second [] attributes {sources = []} {
        %b = sram.tile "b" : "f32" [8] at 64 depth 1
        sram.load %b from <@t[8] at [0] by [[8 along 0]]> {after = ["first"]}
        sram.store %b to <@y[8] at [0] by [[8 along 0]]> {after = ["first"]}
      }
    }
    ```

    It does not act on loads of inputs and weights. Requires that every tensor has its address; ensures that no core
    depends on how fast another one is, which `gimlet.runtime.sram.verify` checks.
    """  # noqa: E501 - IR

    name = "sram-synchronise"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        for program in [each for each in op.walk() if isinstance(each, ProgramOp)]:
            placed = assemble(program)
            if any(tensor.address == UNPLACED for tensor in placed.tensors):
                raise PassFailedException(f"{placed.name}: its tensors have no address: run sram-allocate first")
            rewrite(program, synchronised(placed))
