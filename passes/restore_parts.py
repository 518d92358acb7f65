"""Puts back the operations that large operators stand for."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from gimlet.dialects.onnx import InitializerOp, OnnxOp, functions_of, large_ops, node_name, parts_of, set_value_name
from gimlet.dialects.onnx.names import named_location, proposed_name


@dataclass(frozen=True)
class RestorePartsPass(ModulePass):
    """Replaces the operators that stand for others (`onnx.parts`) by these, and removes the functions that held them.

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
      func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
        %y = onnx.Swish(%x) {onnx.parts = @parts.Swish.1} : (tensor<4xf32>) -> tensor<4xf32> loc("act")
        func.return %y : tensor<4xf32>
      }
      func.func private @parts.Swish.1(%x: tensor<4xf32>) -> tensor<4xf32> {
        %gate = onnx.Sigmoid(%x) : (tensor<4xf32>) -> tensor<4xf32>
        %y = onnx.Mul(%x, %gate) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
        func.return %y : tensor<4xf32>
      }
    }
    ```

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
      func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
        %act$.Sigmoid.0_output = onnx.Sigmoid(%x) : (tensor<4xf32>) -> tensor<4xf32> loc("act/Sigmoid.0")
        %y = onnx.Mul(%x, %act$.Sigmoid.0_output) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("act/Mul.1")
        func.return %y : tensor<4xf32>
      }
    }
    ```

    The numbers are those of the model. It does not act on operators that the model has itself.

    Requires: nothing. Ensures: no operation has `onnx.parts`.
    """

    name = "restore-parts"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        functions = functions_of([op])
        for large in list(large_ops(op)):
            function = parts_of(large)
            if isinstance(large, OnnxOp) and function is not None:
                restore(large, function)
        for function in functions:
            Rewriter.erase_op(function, safe_erase=False)


def restore(op: OnnxOp, function: FuncOp) -> list[Operation]:
    """Puts the operations of `function`, which `op` stands for, in its place, and returns them."""
    prefix = node_name(op) or proposed_name(op.results[0])
    block = function.body.block
    values: dict[SSAValue, SSAValue] = dict(zip(block.args, op.operands, strict=True))
    *body, last = block.ops
    copies = [part.clone(values) for part in body]
    for index, copy in enumerate(copies):
        # Frameworks refuse two nodes of one name.
        name = f"{prefix}/{copy.op_type if isinstance(copy, OnnxOp) else copy.name}.{index}"
        if not isinstance(copy, InitializerOp):
            copy.location = named_location(name)
        for result in copy.results:
            set_value_name(result, f"{name}_output")
    Rewriter.insert_op(copies, InsertPoint.before(op))
    for old, given in zip(op.results, last.operands, strict=True):
        values[given].name_hint = old.name_hint
        old.replace_all_uses_with(values[given])
    op.detach()
    op.erase()
    return copies
