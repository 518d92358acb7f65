"""Says of every op what it has to do: operations, bytes, weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from gimlet.dialects.onnx import InitializerOp, OnnxOp, YieldOp
from gimlet.dialects.onnx.work import work_of
from gimlet.dialects.placement import COST, CostAttr


@dataclass(frozen=True)
class AnnotateCostsPass(ModulePass):
    """Attaches to every op the operations it takes and the bytes it moves, over the symbolic dimensions.

    ```mlir
    func.func @main(%x: tensor<?x64xf32, #onnx.dims<"batch", "">>) -> tensor<?x10xf32, #onnx.dims<"batch", "">> {
      %w = onnx.initializer {key = "w"} : tensor<64x10xf32>
      %y = onnx.MatMul(%x, %w) : (tensor<?x64xf32, #onnx.dims<"batch", "">>, tensor<64x10xf32>)
          -> tensor<?x10xf32, #onnx.dims<"batch", "">>
      func.return %y : tensor<?x10xf32, #onnx.dims<"batch", "">>
    }
    ```

    ```mlir
    func.func @main(%x: tensor<?x64xf32, #onnx.dims<"batch", "">>) -> tensor<?x10xf32, #onnx.dims<"batch", "">> {
      %w = onnx.initializer {key = "w"} : tensor<64x10xf32>
      %y = onnx.MatMul(%x, %w) {placement.cost = #placement.cost<
              flops = "1280*batch", bytes_read = "256*batch + 2560", bytes_written = "40*batch", weight_bytes = "2560">}
          : (tensor<?x64xf32, #onnx.dims<"batch", "">>, tensor<64x10xf32>)
          -> tensor<?x10xf32, #onnx.dims<"batch", "">>
      func.return %y : tensor<?x10xf32, #onnx.dims<"batch", "">>
    }
    ```

    The figures are those of `gimlet.dialects.onnx.work`: `bytes_read` has the weights that are read, `weight_bytes` the
    weights that are resident. The ops of a subgraph count in the op that holds it and get no attribute of their own.
    An op with an unknown shape or trip count gets none either, and loses one that it had: no figure is better than a
    wrong one. Constants have no cost.

    Requires shapes (infer-shapes). Ensures that a `placement.cost` fits the op as it is now.
    """

    name = "annotate-costs"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        for inner in _outer_ops(op):
            work = work_of(inner)
            if work.known:
                inner.attributes[COST] = CostAttr.of(work.flops, work.bytes_read, work.bytes_written, work.weight_bytes)
            else:
                inner.attributes.pop(COST, None)


def _outer_ops(op: Operation) -> Iterator[OnnxOp]:
    """The ONNX ops inside `op` that do something and are in no other one's subgraph."""
    for region in op.regions:
        for block in region.blocks:
            for inner in block.ops:
                if not isinstance(inner, OnnxOp):
                    yield from _outer_ops(inner)
                elif not isinstance(inner, InitializerOp | YieldOp) and inner.op_type != "Constant":
                    yield inner
