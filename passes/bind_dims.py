"""Fixes symbolic dimensions to sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import DictionaryAttr, FunctionType, ModuleOp, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, ParametrizedAttribute, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.onnx.types import shape_of, tensor_type
from gimlet.runtime.expr import Expr

_BOUNDS = "onnx.dim_bounds"


@dataclass(frozen=True)
class BindDimsPass(ModulePass):
    """Replaces symbolic dimensions by sizes in every type of the module, and simplifies what depends on them.

    Before:

    ```mlir
    func.func @main(%x: tensor<?x?xf32, #onnx.dims<"batch", "width">>) -> tensor<?xf32, #onnx.dims<"batch*width">> {
      %shape = onnx.initializer {value = dense<-1> : tensor<1xi64>} : tensor<1xi64>
      %y = onnx.Reshape(%x, %shape) : (tensor<?x?xf32, #onnx.dims<"batch", "width">>, tensor<1xi64>) -> tensor<?xf32, #onnx.dims<"batch*width">>
      func.return %y : tensor<?xf32, #onnx.dims<"batch*width">>
    }
    ```

    After `bind-dims{names="batch" sizes=4}`:

    ```mlir
    func.func @main(%x: tensor<4x?xf32, #onnx.dims<"", "width">>) -> tensor<?xf32, #onnx.dims<"4*width">> {
      %shape = onnx.initializer {value = dense<-1> : tensor<1xi64>} : tensor<1xi64>
      %y = onnx.Reshape(%x, %shape) : (tensor<4x?xf32, #onnx.dims<"", "width">>, tensor<1xi64>) -> tensor<?xf32, #onnx.dims<"4*width">>
      func.return %y : tensor<?xf32, #onnx.dims<"4*width">>
    }
    ```

    It does not act on dimensions that it is not given. Requires sizes of at least 0; ensures that no bound of a fixed
    dimension is left in the module.
    """  # noqa: E501 - IR

    name = "bind-dims"

    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        if len(self.names) != len(self.sizes):
            raise PassFailedException(f"bind-dims got {len(self.names)} names and {len(self.sizes)} sizes")
        if any(size < 0 for size in self.sizes):
            raise PassFailedException("bind-dims needs sizes of at least 0")
        binder = _Binder(dict(zip(self.names, map(Expr.const, self.sizes), strict=True)))
        for nested in op.walk():
            if isinstance(nested, FuncOp):
                nested.function_type = FunctionType.from_lists(
                    [binder.bind(type_) for type_ in nested.function_type.inputs],
                    [binder.bind(type_) for type_ in nested.function_type.outputs],
                )
            for value in (
                *nested.results,
                *(arg for region in nested.regions for b in region.blocks for arg in b.args),
            ):
                binder.retype(value)
        _drop_bounds(op, self.names)


class _Binder:
    """Types with dimensions replaced, each computed once."""

    def __init__(self, sizes: Mapping[str, Expr]) -> None:
        self.sizes = sizes
        self.known: dict[Attribute, Attribute] = {}

    def bind(self, type_: Attribute) -> Attribute:
        if type_ not in self.known:
            self.known[type_] = self._bind(type_)
        return self.known[type_]

    def _bind(self, type_: Attribute) -> Attribute:
        if isinstance(type_, TensorType):
            shape = shape_of(type_)
            if shape is None or not any(dim is not None and dim.symbols & self.sizes.keys() for dim in shape):
                return type_
            bound = [None if dim is None else dim.substitute(self.sizes) for dim in shape]
            return tensor_type(type_.element_type, bound)
        if isinstance(type_, ParametrizedAttribute) and type_.parameters:
            return type_.new([self.bind(parameter) for parameter in type_.parameters])
        return type_

    def retype(self, value: SSAValue) -> None:
        bound = self.bind(value.type)
        if bound is not value.type:
            Rewriter.replace_value_with_new_type(value, bound)


def _drop_bounds(module: ModuleOp, names: tuple[str, ...]) -> None:
    bounds = module.attributes.get(_BOUNDS)
    if not isinstance(bounds, DictionaryAttr):
        return
    kept = {name: bound for name, bound in bounds.data.items() if name not in names}
    if kept:
        module.attributes[_BOUNDS] = DictionaryAttr(kept)
    else:
        del module.attributes[_BOUNDS]
