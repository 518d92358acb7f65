"""Gives large operators that the model has itself their definition in simpler ones, for targets that lack them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import onnx
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, UnitAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region
from xdsl.passes import ModulePass
from xdsl.transforms.common_subexpression_elimination import cse
from xdsl.transforms.dead_code_elimination import dce
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OPSETS, OWN, AnyType, OnnxOp, has_parts
from gimlet.passes.canonicalize_onnx import CanonicalizeOnnxPass
from gimlet.passes.contrib_bodies import BODIES, written_body
from gimlet.passes.decompose_functions import body_of, call_body
from gimlet.passes.entry import ENTRY, entry_function, return_of
from gimlet.passes.fold_constants import FoldConstantsPass
from gimlet.passes.infer_shapes import InferShapesPass
from gimlet.passes.inline_functions import InlineFunctionsPass
from gimlet.passes.large_ops import LargeOps
from gimlet.passes.plain_bodies import PLAIN, READING, Known, read_constants
from gimlet.passes.restore_parts import restore

_DEFINED = frozenset(
    {"Attention", "Celu", "Gelu", "GroupNormalization", "HardSwish", "LayerNormalization", "MeanVarianceNormalization"}
    | {"Mish", "RMSNormalization", "RotaryEmbedding", "Swish"}
)
"""Large operators that ONNX defines by a function, and that one framework or another lacks."""


@dataclass(frozen=True)
class WriteOutOperatorsPass(ModulePass):
    """Replaces large operators by what ONNX defines them to be, and those of com.microsoft by what they compute.

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 17 : i64, com.microsoft = 1 : i64}} {
      func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
        %y = onnx.com.microsoft.QuickGelu(%x) {alpha = 2.0} : (tensor<4xf32>) -> tensor<4xf32> loc("act")
        func.return %y : tensor<4xf32>
      }
    }
    ```

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 17 : i64, com.microsoft = 1 : i64}} {
      func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
        %act$.initializer.0_output = onnx.initializer {value = dense<2.000000e+00> : tensor<f32>} : tensor<f32>
        %act$.Mul.1_output = onnx.Mul(%act$.initializer.0_output, %x) : (tensor<f32>, tensor<4xf32>) -> tensor<4xf32> loc("act/Mul.1")
        %act$.Sigmoid.2_output = onnx.Sigmoid(%act$.Mul.1_output) : (tensor<4xf32>) -> tensor<4xf32> loc("act/Sigmoid.2")
        %y = onnx.Mul(%x, %act$.Sigmoid.2_output) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("act/Mul.3")
        func.return %y : tensor<4xf32>
      }
    }
    ```

    With `keep_parts` the operator stays, names a function with what is above (`onnx.parts`), and is marked as the
    model's own (`onnx.own`): a target that does not refuse it takes it as it is.

    It does not act on operators that stand for others already, that have no definition here, or where their definition
    needs a shape that is not known, an older operator, or gives other types. Results differ in rounding.

    Requires: the types that infer-shapes gives. Ensures: nothing.
    """  # noqa: E501 - IR

    name = "write-out-operators"

    keep_parts: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if not isinstance(ctx, GimletContext):
            raise PassFailedException("write-out-operators needs gimlet's context")
        large = LargeOps(op, keep_parts=True)
        made: dict[Hashable, FuncOp | None] = {}
        for nested in list(entry_function(op).walk()):
            if not isinstance(nested, OnnxOp) or not _is_defined(nested):
                continue
            constants = read_constants(nested, ctx)
            key = _signature(nested, constants)
            if key not in made:
                made[key] = _definition(nested, constants, op, ctx, large.opset)
            function = made[key]
            if function is None:
                continue
            if self.keep_parts:
                large.name_parts(nested, function.clone())
                nested.attributes[OWN] = UnitAttr()
            else:
                restore(nested, function)


def _is_defined(op: OnnxOp) -> bool:
    if has_parts(op) or not isinstance(op.parent_op(), FuncOp) or any(isinstance(v.type, AnyType) for v in op.operands):
        return False
    if op.domain:
        return op.domain == "com.microsoft" and op.op_type in BODIES
    return op.op_type in _DEFINED or op.op_type in PLAIN or op.op_type in READING


def _signature(op: OnnxOp, known: Known) -> Hashable:
    same = tuple(op.inputs.index(value) for value in op.inputs)
    types = tuple(None if value is None else value.type for value in (*op.inputs, *op.outputs))
    attributes = tuple(sorted((name, str(value)) for name, value in op.onnx_attributes().items()))
    values = tuple(None if each is None else (each.shape, each.tobytes()) for each in known)
    return op.domain, op.op_type, op.since_version, attributes, types, same, values


def _definition(op: OnnxOp, known: Known, module: ModuleOp, ctx: GimletContext, opset: int) -> FuncOp | None:
    """A function of what `op` reads that computes what it does; None where there is none."""
    body = body_of(op, opset) if not op.domain and op.op_type in _DEFINED else written_body(op, opset, known)
    if body is None or not opset:
        return None
    block = Block(arg_types=[value.type for value in op.operands])
    copy = op.clone()
    copy.operands = block.args
    block.add_ops([copy, ReturnOp(*copy.results)])
    types = [value.type for value in op.operands], [value.type for value in op.results]
    alone = ModuleOp([FuncOp(ENTRY, types, Region(block))], attributes={OPSETS: module.attributes[OPSETS]})
    if not _is_written(alone, copy, body, ctx, opset):
        return None
    last = return_of(entry_function(alone).body.block)
    if [value.type for value in last.operands] != types[1]:
        return None
    return FuncOp("parts", types, entry_function(alone).detach_region(0), "private")


def _is_written(alone: ModuleOp, op: OnnxOp, body: onnx.FunctionProto, ctx: GimletContext, opset: int) -> bool:
    """Puts a body in the place of the only operation of a module, and simplifies it. False where that fails."""
    try:
        call_body(alone, op, body, "0", opset)
        InlineFunctionsPass().apply(ctx, alone)
        InferShapesPass().apply(ctx, alone)
        FoldConstantsPass().apply(ctx, alone)
        CanonicalizeOnnxPass().apply(ctx, alone)
        cse(alone)
        dce(alone)
        InferShapesPass().apply(ctx, alone)
    except PassFailedException:
        return False
    for nested in entry_function(alone).walk():
        for result in nested.results:
            if isinstance(result.type, AnyType):
                return False
            result.name_hint = None
    return True
