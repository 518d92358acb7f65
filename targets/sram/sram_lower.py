"""From operations, and the tiles of their products, to kernels."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from gimlet.dialects.sram.assembly import disassemble
from gimlet.targets.sram.functions import functions_in, lowered, variant_of


@dataclass(frozen=True)
class SramLowerPass(ModulePass):
    """Puts a program of kernels, without addresses, in place of a function of ONNX operations.

    Before:

    ```mlir
    func.func @main(%x: tensor<4x8xf32>) -> tensor<4x16xf32> attributes {sram.machine = {chiplets = 1, cores = 2, matrix_columns = 8}} {
      %w = onnx.initializer {value = dense<0.5> : tensor<8x16xf32>} : tensor<8x16xf32>
      %a = onnx.MatMul(%x, %w) : (tensor<4x8xf32>, tensor<8x16xf32>) -> tensor<4x16xf32>
      %y = onnx.Relu(%a) : (tensor<4x16xf32>) -> tensor<4x16xf32>
      func.return %y : tensor<4x16xf32>
    }
    ```

    After `sram-lower{cores=2}`:

    ```mlir
    sram.program @main as "fp32" on 2 attributes {page_bytes = 1024, machine = {chiplets = 1, cores = 2, matrix_columns = 8}, dims = {}, inputs = {x = @in0}, outputs = {y = @t1}} {
      sram.tensor @in0 : "f32" <[4, 8]> in "sram" {role = "input"}
      sram.tensor @t1 : "f32" <[4, 16]> in "sram" {role = "output"}
      sram.tensor @w0 : "f32" <[2, 1, 8, 8]> in "core" {role = "weight", block = 64}
      sram.kernel @matmul_0 [#sram.range<i0 = 0 to 16 step 8>] attributes {sources = ["MatMul", "Relu"]} {
        %v0 = sram.tile "v0" : "f32" [8, 8] depth 0
        %v1 = sram.tile "v1" : "f32" [4, 8] depth 2
        %v2 = sram.tile "v2" : "f32" [4, 8] depth 3
        %v3 = sram.tile "v3" : "f32" [4, 8] depth 1
        sram.loop <i1 = 0 to 8 step 8> {
          sram.load %v0 from <@w0[2, 8, 8] at ["r.i0.index", 0, 0] by [["r.i1.size" along 2], ["r.i0.size" along 1]]>
          sram.loop <i2 = 0 to 4 step 4> {
            sram.load %v2 from <@in0[4, 8] at ["r.i2", "r.i1"] by [["r.i2.size" along 0], ["r.i1.size" along 1]]>
            sram.matmul %v1, %v2, %v0 hold "rhs" {begins = "i1"}
            sram.map "relu" %v3 = %v1 by <tile>
            sram.store %v3 to <@t1[4, 16] at ["r.i2", "r.i0"] by [["r.i2.size" along 0], ["r.i0.size" along 1]]>
          }
        }
      }
    }
    ```

    The function's attribute `sram.machine` has the figures of the machine, as that of a program; those of the reference
    part are taken for the others. Products have the tiles that their ops say (`sram-choose-tiles`), and where one says
    none, those that code generation chooses. `format` is that of products, `cores` how many are used, and `room` how
    many bytes of resident weights each may have: by default what the tiles were chosen for, else fp32, all cores, and
    15/16 of their SRAM. It does not act on functions without a body. It fails where an operation has no lowering, and
    where tiles are not of its product or the machine cannot have them. Requires shapes, and the range of each dimension
    (`onnx.dim_bounds`); ensures a program for the passes from `sram-place-tiles` on.
    """  # noqa: E501 - IR

    name = "sram-lower"

    format: str | None = None
    cores: int | None = None
    room: int | None = None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions_in(op):
            machine, variant = variant_of(function, self.format, self.cores, self.room)
            program, _ = lowered(op, function, ctx, machine, variant)
            Rewriter.replace_op(function, disassemble(program))
