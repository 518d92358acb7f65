"""Writes operators out by the bodies that ONNX defines them by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir
from onnx import defs, helper
from xdsl.context import Context
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import CustomOp, OnnxOp, shape_of
from gimlet.dialects.onnx.attributes import int_attr
from gimlet.dialects.onnx.exporter import read_opsets
from gimlet.dialects.onnx.importer import FUNCTION, import_model
from gimlet.dialects.onnx.ir_types import attribute_to_ir
from gimlet.dialects.onnx.types import element_of
from gimlet.dialects.onnx.verify import OPSETS
from gimlet.passes.entry import describe, entry_function
from gimlet.passes.inline_functions import InlineFunctionsPass
from gimlet.passes.upgrade_opset import refusal, upgrade

_DOMAIN = "gimlet.body"


@dataclass(frozen=True)
class DecomposeFunctionsPass(ModulePass):
    """Replaces the operators called `names` by what ONNX defines them to be, in terms of simpler operators.

    Before:

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 24 : i64}} {
      func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
        %y = onnx.Swish(%x) {alpha = 2.0} : (tensor<4xf32>) -> tensor<4xf32> loc("act")
        func.return %y : tensor<4xf32>
      }
    }
    ```

    After `decompose-functions{names="Swish"}`:

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 24 : i64}} {
      func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
        %act$.Alpha = onnx.Constant v24 {value_float = 2.0} : !onnx.any
        %act$.AlphaCast = onnx.CastLike v24(%act$.Alpha, %x) : (!onnx.any, tensor<4xf32>) -> !onnx.any
        %act$.AlphaMulX = onnx.Mul(%act$.AlphaCast, %x) : (!onnx.any, tensor<4xf32>) -> !onnx.any
        %act$.SigmoidAlphaMulX = onnx.Sigmoid(%act$.AlphaMulX) : (!onnx.any) -> !onnx.any
        %y = onnx.Mul(%x, %act$.SigmoidAlphaMulX) : (tensor<4xf32>, !onnx.any) -> tensor<4xf32>
        func.return %y : tensor<4xf32>
      }
    }
    ```

    Bodies that depend on types and attributes (LayerNormalization, Attention) are built for the operation at hand. It
    does not act on operators without a body, nor where an absent output stands before one that is read. It fails, and
    names the operation, where a body's operators mean something else at the module's opset.

    Requires: the types that infer-shapes gives. Ensures: none of `names` that has a body is left in @main. Values in
    between have no type yet (infer-shapes).
    """

    name = "decompose-functions"

    names: tuple[str, ...] = ()

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if not isinstance(ctx, GimletContext):
            raise PassFailedException("decompose-functions needs gimlet's context")
        opset = read_opsets(op).get("", 1)
        found = [
            nested
            for nested in entry_function(op).walk()
            if isinstance(nested, OnnxOp) and nested.op_type in self.names and not nested.domain
        ]
        for index, nested in enumerate(found):
            body = body_of(nested, opset)
            if body is not None:
                call_body(op, nested, body, str(index), opset)
        InlineFunctionsPass().apply(ctx, op)


def body_of(op: OnnxOp, opset: int) -> onnx.FunctionProto | None:
    """The function that ONNX defines an operation by, for the newest opset up to `opset` that has one; else None."""
    if not defs.has(op.op_type, op.since_version, op.domain):
        return None
    # onnx's stubs leave out what makes function bodies.
    schema: Any = defs.get_schema(op.op_type, op.since_version, op.domain)
    plain = [version for version in schema.function_opset_versions if version <= opset]
    dependent = [version for version in schema.context_dependent_function_opset_versions if version <= opset]
    function = onnx.FunctionProto()
    if plain:
        function.ParseFromString(schema.get_function_with_opset_version(max(plain)))
    elif dependent:
        node = helper.make_node(op.op_type, _names(op.inputs, "x"), _names(op.outputs, "y"))
        node.attribute.extend(
            ir.serde.serialize_attribute(attribute_to_ir(name, value)) for name, value in op.onnx_attributes().items()
        )
        types = [_type_proto(value).SerializeToString() for value in op.inputs]
        function.ParseFromString(
            schema.get_context_dependent_function_with_opset_version(max(dependent), node.SerializeToString(), types)
        )
    # A body does not make the optional outputs that the operation lacks.
    del function.output[len(op.outputs) :]
    made = {name for node in function.node for name in node.output}
    return function if (plain or dependent) and made.issuperset(function.output) else None


def _names(values: tuple[SSAValue | None, ...], prefix: str) -> list[str]:
    return ["" if value is None else f"{prefix}{index}" for index, value in enumerate(values)]


def _type_proto(value: SSAValue | None) -> onnx.TypeProto:
    element = element_of(value.type) if value is not None else None
    if value is None or element is None:
        return onnx.TypeProto()
    dims = shape_of(value)
    shape = None if dims is None else [dim.as_int() if dim is not None and dim.is_constant else None for dim in dims]
    return helper.make_tensor_type_proto(element.code, shape)


def call_body(module: ModuleOp, op: OnnxOp, body: onnx.FunctionProto, overload: str, opset: int) -> None:
    """Replaces an operation by a call of a new function of the module, which InlineFunctionsPass then inlines.

    PassFailedException where an operator of the body means something else at `opset`.
    """
    function = _imported(body, op.op_type, overload)
    for nested in function.walk():
        if isinstance(nested, OnnxOp):
            if (reason := refusal(nested, opset)) is not None:
                raise PassFailedException(f"{describe(op)}: {nested.op_type} in its body: {reason}")
            upgrade(nested, opset)
    function.attributes[OPSETS] = DictionaryAttr({"": int_attr(opset)})
    module.body.block.add_op(function)
    attributes: dict[str, Any] = {name: op.attr(name) for name in body.attribute}
    call = CustomOp.make_custom(
        _DOMAIN,
        op.op_type,
        op.inputs,
        [None if value is None else value.type for value in op.outputs],
        {name: value for name, value in attributes.items() if value is not None},
        overload=overload,
    )
    call.location = op.location
    Rewriter.insert_op(call, InsertPoint.before(op))
    for old, new in zip(op.results, call.results, strict=True):
        new.name_hint = old.name_hint
        old.replace_all_uses_with(new)
    op.detach()
    op.erase()


def _imported(body: onnx.FunctionProto, op_type: str, overload: str) -> FuncOp:
    """The function as a private function of a module of its own, out of which it is taken."""
    body.domain, body.name, body.overload = _DOMAIN, op_type, overload
    graph = helper.make_graph([], "empty", [], [])
    model = helper.make_model(graph, functions=[body], opset_imports=list(body.opset_import))
    imported = import_model(ir.from_proto(model), GimletContext())
    function = next(op for op in imported.body.block.ops if FUNCTION in op.attributes)
    function.detach()
    if not isinstance(function, FuncOp):
        raise TypeError("a function is imported as a func.func")
    return function
