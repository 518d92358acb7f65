"""The level above all others: makes the kernels of a function of ONNX operations."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx.exporter import function_inputs, function_outputs
from gimlet.dialects.sram.assembly import disassemble, machine_of
from gimlet.passes.dim_ranges import read_ranges
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.api import DimBound
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.codegen import RESIDENT_SHARES, Work, kernels_for
from gimlet.targets.sram.precision import MATRIX_TYPES

MACHINE = "sram.machine"


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
      sram.kernel @matmul_0 [#sram.range<i0 = 0 to 16 step 8>] attributes {sources = ["Relu"]} {
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
    part are taken for the others. `format` is that of products, `cores` how many are used (all by default), and `room`
    how many bytes of resident weights each may have (15/16 of its SRAM by default). The compiler makes programs for
    several of both, and takes the quickest: this is one of them. It does not act on functions without a body. It fails
    where an operation has no lowering. Requires shapes, and the range of each dimension (`onnx.dim_bounds`); ensures a
    program for the passes from `sram-place-tiles` on.
    """  # noqa: E501 - IR

    name = "sram-lower"

    format: str = "fp32"
    cores: int | None = None
    room: int | None = None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        bounds = {name: DimBound(*sizes) for name, sizes in read_ranges(op).items()}
        for function in [each for each in op.walk() if isinstance(each, FuncOp) and not each.is_declaration]:
            name, figures = function.sym_name.data, function.attributes.get(MACHINE)
            machine = machine_of(figures) if isinstance(figures, DictionaryAttr) else Machine()
            work = Work(
                name=name,
                inputs=function_inputs(function),
                outputs=function_outputs(function),
                ctx=ctx if isinstance(ctx, GimletContext) else None,
                bounds=bounds,
            )
            if self.format not in MATRIX_TYPES:
                raise PassFailedException(f"{name}: products are in {', '.join(MATRIX_TYPES)}, not in {self.format}")
            cores = machine.cores if self.cores is None else self.cores
            if not 0 < cores <= machine.cores or cores % machine.cores_per_chiplet:
                raise PassFailedException(
                    f"{name}: {cores} of {machine.cores} cores are not whole chiplets of {machine.cores_per_chiplet}"
                )
            room = int(machine.sram_bytes_per_core * RESIDENT_SHARES[0]) if self.room is None else self.room
            try:
                program, _ = kernels_for(work, machine, self.format, cores, room)
            except RefusedError as refusal:
                raise PassFailedException(f"{name}: {refusal}") from None
            Rewriter.replace_op(function, disassemble(program))
