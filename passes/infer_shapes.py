"""Gives every value its type, with dimensions in terms of the inputs'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter
from xdsl.utils.exceptions import PassFailedException, VerifyException

from gimlet.dialects.onnx import onnx_type, shape_of
from gimlet.passes.dim_ranges import largest, read_ranges, write_ranges
from gimlet.passes.entry import describe, entry_function
from gimlet.passes.symbolic_shapes import analyse_shapes
from gimlet.runtime.expr import Expr


@dataclass(frozen=True)
class InferShapesPass(ModulePass):
    """Infers the type of every value in @main, with dimensions as expressions over the inputs' dimensions.

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
      func.func @main(%x: tensor<?x?xf32, #onnx.dims<"batch", "width">>) -> !onnx.any {
        %xx = onnx.Concat v13(%x, %x) {axis = 1}
            : (tensor<?x?xf32, #onnx.dims<"batch", "width">>, tensor<?x?xf32, #onnx.dims<"batch", "width">>)
            -> !onnx.any
        %shape = onnx.Shape v15(%xx) : (!onnx.any) -> !onnx.any
        func.return %shape : !onnx.any
      }
    }
    ```

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
      func.func @main(%x: tensor<?x?xf32, #onnx.dims<"batch", "width">>) -> tensor<2xi64> {
        %xx = onnx.Concat v13(%x, %x) {axis = 1}
            : (tensor<?x?xf32, #onnx.dims<"batch", "width">>, tensor<?x?xf32, #onnx.dims<"batch", "width">>)
            -> tensor<?x?xf32, #onnx.dims<"batch", "2*width">>
        %shape = onnx.Shape v15(%xx) : (tensor<?x?xf32, #onnx.dims<"batch", "2*width">>) -> tensor<2xi64>
        func.return %shape : tensor<2xi64>
      }
    }
    ```

    Sizes that the model states are kept. A dimension that depends on data, such as how many elements NonZero finds, is
    a symbol of its own, with a range from 0 to its largest in `onnx.dim_bounds`, at which costs are taken, where those
    of the inputs are known; where nothing limits it, it stays `?`, and so does all that follows from it. The results of
    an operator without a rule keep the types that they have. Weights are not read.

    It must not act where a type that it finds does not fit the operator that reads the value: it fails and names it.

    Requires: nothing. Ensures: the function's type and its subgraphs' arguments fit their values.
    """

    name = "infer-shapes"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        function = entry_function(op)
        analysis = analyse_shapes(op, function)
        types = analysis.types
        retyped: dict[Operation, None] = {}
        for value, type_ in types.items():
            # The function's own arguments are given, not inferred.
            if value.type == type_ or (isinstance(value.owner, Block) and value.owner is function.body.block):
                continue
            if onnx_type(value.type) != onnx_type(type_):
                retyped.update(dict.fromkeys(use.operation for use in value.uses))
                if isinstance(value.owner, Operation):
                    retyped[value.owner] = None
            Rewriter.replace_value_with_new_type(value, type_)
        function.update_function_type()
        for reader in retyped:
            _check(reader)
        _record_limits(op, function, analysis.limits)


def _record_limits(module: ModuleOp, function: FuncOp, limits: Mapping[str, Expr]) -> None:
    """Gives dimensions that depend on data their ranges, and takes them from those that are gone.

    A range that was narrowed stays narrow.
    """
    inputs = {name for argument in function.args for dim in shape_of(argument) or () if dim for name in dim.symbols}
    known = read_ranges(module)
    ranges = {name: found for name, found in known.items() if name in inputs}
    for name, limit in limits.items():
        most = largest(limit, ranges)
        if most is not None:
            low, best, high = known.get(name, (0, most, most))
            ranges[name] = (min(low, most), min(best, most), min(high, most))
    if ranges != known:
        write_ranges(module, ranges)


def _check(op: Operation) -> None:
    """What was not known when the model was imported may not fit the operator that reads it."""
    try:
        op.verify(verify_nested_ops=False)
    except VerifyException as error:
        reason = error.__cause__ or error
        raise PassFailedException(f"{describe(op)}: {str(reason).partition(chr(10))[0]}") from None
