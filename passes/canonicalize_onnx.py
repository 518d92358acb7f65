"""Brings ONNX operations to one of the several forms that mean the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import OpResult, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from gimlet.dialects.onnx import InitializerOp, OnnxOp, constant_value, dims_of, ops, opset_in_force, value_name
from gimlet.dialects.onnx.attributes import WeightAttr, ints_attr, tensor_attr
from gimlet.dialects.onnx.types import element_of, tensor_type
from gimlet.passes.entry import entry_function
from gimlet.passes.sequence_lists import read_directly
from gimlet.passes.sequence_split import split_at_once
from gimlet.runtime.expr import Expr


@dataclass(frozen=True)
class CanonicalizeOnnxPass(ModulePass):
    """Removes operations in @main that change nothing, and makes constants and shapes plain.

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
      func.func @main(%x: tensor<?x4x6xf32, #onnx.dims<"batch", "", "">>) -> tensor<?x24xf32, #onnx.dims<"batch", "">> {
        %a = onnx.Cast v13(%x) {to = 1}
            : (tensor<?x4x6xf32, #onnx.dims<"batch", "", "">>) -> tensor<?x4x6xf32, #onnx.dims<"batch", "", "">>
        %batch = onnx.Shape v15(%x) {end = 1} : (tensor<?x4x6xf32, #onnx.dims<"batch", "", "">>) -> tensor<1xi64>
        %rest = onnx.Constant v13 {value_ints = [24]} : tensor<1xi64>
        %shape = onnx.Concat v13(%batch, %rest) {axis = 0} : (tensor<1xi64>, tensor<1xi64>) -> tensor<2xi64>
        %y = onnx.Reshape v14(%a, %shape)
            : (tensor<?x4x6xf32, #onnx.dims<"batch", "", "">>, tensor<2xi64>)
            -> tensor<?x24xf32, #onnx.dims<"batch", "">>
        func.return %y : tensor<?x24xf32, #onnx.dims<"batch", "">>
      }
    }
    ```

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
      func.func @main(%x: tensor<?x4x6xf32, #onnx.dims<"batch", "", "">>) -> tensor<?x24xf32, #onnx.dims<"batch", "">> {
        %batch = onnx.Shape v15(%x) {end = 1} : (tensor<?x4x6xf32, #onnx.dims<"batch", "", "">>) -> tensor<1xi64>
        %rest = onnx.initializer {value = dense<24> : tensor<1xi64>} : tensor<1xi64>
        %shape = onnx.Concat v13(%batch, %rest) {axis = 0} : (tensor<1xi64>, tensor<1xi64>) -> tensor<2xi64>
        %y_shape = onnx.initializer {value = dense<[0, 24]> : tensor<2xi64>} : tensor<2xi64>
        %y = onnx.Reshape v14(%x, %y_shape)
            : (tensor<?x4x6xf32, #onnx.dims<"batch", "", "">>, tensor<2xi64>)
            -> tensor<?x24xf32, #onnx.dims<"batch", "">>
        func.return %y : tensor<?x24xf32, #onnx.dims<"batch", "">>
      }
    }
    ```

    Constants become initializers. Identity, Dropout outside training, casts, reshapes, slices, tiles and transposes
    that change nothing are removed, two transposes become one, and so does one between two reshapes that only flatten
    and unflatten. An If whose condition is constant becomes its branch, a sequence of known parts a Split, and what is
    read from a sequence of known elements those elements. The computed shape of a Reshape or Expand becomes a constant
    where 0, 1 and −1 can say what is dynamic. Range gets scalars where it was given vectors of one element. No value
    changes by a bit.

    Requires: the types that infer-shapes gives; what has none is left as it is. Ensures: no onnx.Constant of a tensor.
    """

    name = "canonicalize-onnx"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        function = entry_function(op)
        for nested in list(function.walk()):
            # What was in the branch of an If that is gone has no parent any more.
            if isinstance(nested, OnnxOp) and nested.parent is not None and not nested.domain:
                _RULES.get(nested.op_type, _leave)(nested)
        function.update_function_type()


def _leave(op: OnnxOp) -> None:
    """No rule for this operator."""


def _replace(op: OnnxOp, value: SSAValue) -> None:
    """Lets what reads an operation's first result read `value`, which is the same, and erases the operation."""
    type_ = op.results[0].type
    if isinstance(value, OpResult) and dims_of(value) is None and dims_of(type_) is not None:
        value = Rewriter.replace_value_with_new_type(value, type_)
    op.results[0].replace_all_uses_with(value)
    op.detach()
    op.erase()


def _insert_shape(op: OnnxOp, shape: list[int]) -> SSAValue:
    constant = InitializerOp.from_array(np.array(shape, dtype=np.int64), f"{value_name(op.results[0])}_shape")
    Rewriter.insert_op(constant, InsertPoint.before(op))
    return constant.results[0]


def _same_type(op: OnnxOp) -> bool:
    """Whether the first input and the only result are of one type, with all dimensions known."""
    return len(op.results) == 1 and op.operands[0].type == op.results[0].type and dims_of(op.results[0]) is not None


def _constant(op: OnnxOp) -> None:
    attribute = op.properties.get("value")
    if isinstance(attribute, WeightAttr):
        made = InitializerOp.from_key(attribute.key.data, attribute.type)
    elif (value := constant_value(op.results[0])) is not None:
        made = InitializerOp.create(
            properties={"value": tensor_attr(value)}, result_types=[tensor_attr(value).type], location=op.location
        )
    else:
        return
    Rewriter.insert_op(made, InsertPoint.before(op))
    _replace(op, made.results[0])


def _identity(op: OnnxOp) -> None:
    _replace(op, op.operands[0])


def _dropout(op: OnnxOp) -> None:
    if len(op.results) > 1 and op.results[1].first_use is not None:
        return
    training = op.input_at(2)
    value = constant_value(training) if training is not None else None
    # Up to version 6 an attribute says whether the model is being trained, from 12 on an input, between them nothing.
    in_training = (op.since_version < 7 and not op.attr("is_test", 0)) or (
        training is not None and (value is None or bool(value))
    )
    if not in_training:
        _replace(op, op.operands[0])


def _cast(op: OnnxOp) -> None:
    element = element_of(op.results[0].type)
    if element is not None and element_of(op.operands[0].type) == element:
        _replace(op, op.operands[0])


def _cast_like(op: OnnxOp) -> None:
    cast = plain_cast(op)
    if cast is not None:
        _cast(cast)


def plain_cast(op: OnnxOp) -> OnnxOp | None:
    """Replaces a CastLike by the Cast to the type that its second input has; None if that is not known."""
    element = element_of(op.operands[1].type)
    if element is None:
        return None
    attributes = {"to": element.code, "saturate": op.properties.get("saturate")}
    cast = ops.Cast.make(op.operands[:1], op.result_types, attributes, opset=opset_in_force(op, ""))
    cast.location = op.location
    Rewriter.insert_op(cast, InsertPoint.before(op))
    _replace(op, cast.results[0])
    return cast


def _same_elements(op: OnnxOp) -> None:
    """For operators that keep elements in their order: with the same shape, nothing has changed."""
    if _same_type(op):
        _replace(op, op.operands[0])


def _slice(op: OnnxOp) -> None:
    steps = op.input_at(4)
    values = constant_value(steps) if steps is not None else np.ones(1)
    if _same_type(op) and values is not None and bool((values == 1).all()):
        _replace(op, op.operands[0])


def _if(op: OnnxOp) -> None:
    condition = constant_value(op.operands[0])
    if condition is None:
        return
    block = op.subgraphs["then_branch" if condition else "else_branch"].block
    *inner, terminator = block.ops
    for child in inner:
        child.detach()
        Rewriter.insert_op(child, InsertPoint.before(op))
    for result, value in zip(op.outputs, terminator.operands, strict=True):
        if result is not None:
            result.replace_all_uses_with(value)
    op.detach()
    op.erase()


def _concat(op: OnnxOp) -> None:
    if len(op.operands) == 1:
        _replace(op, op.operands[0])


def _reshape(op: OnnxOp) -> None:
    if _same_type(op):
        _replace(op, op.operands[0])
    elif (matrix := _transposed_matrix(op)) is not None:
        Rewriter.insert_op(matrix, InsertPoint.before(op))
        _replace(op, matrix.results[0])
    elif len(op.operands) == 2 and constant_value(op.operands[1]) is None:
        target = _reshape_target(dims_of(op.operands[0]), dims_of(op.results[0]))
        if target is not None:
            op.operands[1] = _insert_shape(op, target)
            op.properties.pop("allowzero", None)


def _transposed_matrix(op: OnnxOp) -> OnnxOp | None:
    """The Transpose that does what three operations do: flatten all dimensions but two, swap these, and unflatten."""
    swap = _producer(op.operands[0], ops.Transpose)
    flatten = _producer(swap.operands[0], ops.Reshape) if swap is not None and swap.attr("perm") == [0, 2, 1] else None
    if flatten is None:
        return None
    source, flat, result = (dims_of(value) for value in (flatten.operands[0], flatten.results[0], op.results[0]))
    if source is None or flat is None or result is None or len(source) < 3:
        return None
    if flat[-2:] != source[-2:] or result != (*source[:-2], source[-1], source[-2]):
        return None
    perm = [*range(len(source) - 2), len(source) - 1, len(source) - 2]
    made = ops.Transpose.make(flatten.operands[:1], op.result_types, {"perm": perm}, opset=opset_in_force(op, ""))
    made.location = op.location
    return made


def _producer(value: SSAValue, cls: type[OnnxOp]) -> OnnxOp | None:
    return value.op if isinstance(value, OpResult) and isinstance(value.op, cls) else None


def _reshape_target(source: tuple[Expr, ...] | None, result: tuple[Expr, ...] | None) -> list[int] | None:
    """A constant that reshapes `source` to `result`: 0 copies a dimension, one −1 is what is left. None if none can."""
    if source is None or result is None:
        return None
    target: list[int] = []
    for index, dim in enumerate(result):
        if dim.is_constant:
            target.append(dim.as_int())
        else:
            target.append(0 if index < len(source) and source[index] == dim else -1)
    return target if target.count(-1) <= 1 and all(dim.as_int() for dim in result if dim.is_constant) else None


def _expand(op: OnnxOp) -> None:
    if _same_type(op):
        _replace(op, op.operands[0])
        return
    source, result = dims_of(op.operands[0]), dims_of(op.results[0])
    if source is None or result is None or constant_value(op.operands[1]) is not None:
        return
    # 1 keeps a dimension as it is.
    aligned = (Expr.const(1),) * (len(result) - len(source)) + source
    if all(dim == own or dim.is_constant for dim, own in zip(result, aligned, strict=True)):
        target = [1 if dim == own else dim.as_int() for dim, own in zip(result, aligned, strict=True)]
        op.operands[1] = _insert_shape(op, target)


def _range(op: OnnxOp) -> None:
    """Scalars where a body of ONNX's own functions gives vectors of one element, which ONNX Runtime refuses."""
    for index, value in enumerate(op.operands):
        dims, element = dims_of(value), element_of(value.type)
        if element is None or not dims or any(dim != Expr.const(1) for dim in dims):
            continue
        shape = InitializerOp.from_array(np.array([], dtype=np.int64), f"{value_name(value)}_scalar")
        scalar = ops.Reshape.make([value, shape], [tensor_type(element.type, ())], opset=opset_in_force(op, ""))
        scalar.location = op.location
        Rewriter.insert_op([shape, scalar], InsertPoint.before(op))
        op.operands[index] = scalar.results[0]


def _transpose(op: OnnxOp) -> None:
    dims = dims_of(op.operands[0])
    perm = op.attr("perm", list(range(len(dims)))[::-1] if dims is not None else None)
    if not _permutes(perm):
        return
    source = op.operands[0]
    before = _producer(source, ops.Transpose)
    first = before.attr("perm") if before is not None else None
    if before is not None and _permutes(first) and len(first) == len(perm):
        perm = [first[axis] for axis in perm]
        source = before.operands[0]
        op.operands[0] = source
        op.properties["perm"] = ints_attr(perm)
    if perm == sorted(perm):
        _replace(op, source)


def _permutes(perm: list[int] | None) -> TypeGuard[list[int]]:
    """Whether it is known, and has each axis once: a model of unknown ranks may say otherwise."""
    return perm is not None and sorted(perm) == list(range(len(perm)))


_RULES: dict[str, Callable[[OnnxOp], None]] = {
    "Cast": _cast,
    "CastLike": _cast_like,
    "Concat": _concat,
    "ConcatFromSequence": read_directly,
    "Constant": _constant,
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _same_elements,
    "Identity": _identity,
    "If": _if,
    "Range": _range,
    "Reshape": _reshape,
    "Slice": _slice,
    "SequenceAt": read_directly,
    "SequenceLength": read_directly,
    "SplitToSequence": split_at_once,
    "Squeeze": _same_elements,
    "Tile": _same_elements,
    "Transpose": _transpose,
    "Unsqueeze": _same_elements,
}
