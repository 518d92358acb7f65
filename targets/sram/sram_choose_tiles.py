"""The first decision of code generation: the tiles of every product, written beside the operation."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from gimlet.targets.sram.functions import CHOSEN_FOR, functions_in, lowered, variant_of
from gimlet.targets.sram.tiling import write_tiles


@dataclass(frozen=True)
class SramChooseTilesPass(ModulePass):
    """Writes beside each operation how its products are cut into tiles and spread over the cores.

    Before:

    ```mlir
    func.func @main(%x: tensor<4x8xf32>) -> tensor<4x16xf32> attributes {sram.machine = {chiplets = 1, cores = 2, matrix_columns = 8}} {
      %w = onnx.initializer {value = dense<0.5> : tensor<8x16xf32>} : tensor<8x16xf32>
      %a = onnx.MatMul(%x, %w) : (tensor<4x8xf32>, tensor<8x16xf32>) -> tensor<4x16xf32>
      %y = onnx.Relu(%a) : (tensor<4x16xf32>) -> tensor<4x16xf32>
      func.return %y : tensor<4x16xf32>
    }
    ```

    After `sram-choose-tiles`:

    ```mlir
    func.func @main(%x: tensor<4x8xf32>) -> tensor<4x16xf32> attributes {sram.machine = {chiplets = 1, cores = 2, matrix_columns = 8}, sram.chosen_for = {format = "fp32", cores = 2, room = 983040}} {
      %w = onnx.initializer {value = dense<0.5> : tensor<8x16xf32>} : tensor<8x16xf32>
      %a = onnx.MatMul(%x, %w) {sram.tiles = [#sram.tiles<[4, 8, 16] "f32" by [4, 8, 8], groups 1 of 1, resident 1, held 4 rows, buffers 3>]} : (tensor<4x8xf32>, tensor<8x16xf32>) -> tensor<4x16xf32>
      %y = onnx.Relu(%a) : (tensor<4x16xf32>) -> tensor<4x16xf32>
      func.return %y : tensor<4x16xf32>
    }
    ```

    It chooses for the machine of the function's attribute `sram.machine`, and for `format`, `cores` and `room`, which
    `sram-lower` has too; what they are it writes into the function's attribute `sram.chosen_for`. Of each product the
    quickest tiles are taken, each after those before it, whose weights are on the cores already. It does not change
    tiles that an operation says already, and does not act on functions without a body; products on the vector unit
    (depthwise convolutions) and experts that are fetched have none. It fails where `sram-lower` does. Requires what that
    requires; ensures that `sram-lower` makes the same kernels that it would make without it.
    """  # noqa: E501 - IR

    name = "sram-choose-tiles"

    format: str | None = None
    cores: int | None = None
    room: int | None = None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions_in(op):
            machine, variant = variant_of(function, self.format, self.cores, self.room)
            _, found = lowered(op, function, ctx, machine, variant)
            write_tiles(found.plan.chosen)
            function.attributes[CHOSEN_FOR] = variant.attribute()
