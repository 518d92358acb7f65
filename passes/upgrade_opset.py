"""Writes a model for a newer opset, so that it may use the operators that came later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.onnx import InitializerOp, OnnxOp, schema_table, shape_of
from gimlet.dialects.onnx.attributes import int_attr, python_value
from gimlet.dialects.onnx.exporter import read_opsets
from gimlet.dialects.onnx.extra_ops import CustomOp, YieldOp
from gimlet.dialects.onnx.importer import FUNCTION
from gimlet.dialects.onnx.op import SINCE_VERSION
from gimlet.dialects.onnx.schema import OpSchema
from gimlet.dialects.onnx.verify import OPSETS
from gimlet.passes.entry import describe

OLDEST, NEWEST = 11, 26


@dataclass(frozen=True)
class UpgradeOpsetPass(ModulePass):
    """Rewrites every operation of ONNX's default domain for a newer opset.

    Before:

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
      func.func @main(%x: tensor<4x8xf32>) -> (tensor<4x4xf32>, tensor<4x4xf32>) {
        %m = onnx.ReduceMean v13(%x) {axes = [-1], keepdims = 1} : (tensor<4x8xf32>) -> tensor<4x1xf32>
        %c = onnx.Sub(%x, %m) : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
        %a, %b = onnx.Split v13(%c) {axis = 1} : (tensor<4x8xf32>) -> (tensor<4x4xf32>, tensor<4x4xf32>)
        func.return %a, %b : tensor<4x4xf32>, tensor<4x4xf32>
      }
    }
    ```

    After `upgrade-opset{to=24}`:

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 24 : i64}} {
      func.func @main(%x: tensor<4x8xf32>) -> (tensor<4x4xf32>, tensor<4x4xf32>) {
        %axes = onnx.initializer {value = dense<-1> : tensor<1xi64>} : tensor<1xi64>
        %m = onnx.ReduceMean(%x, %axes) {keepdims = 1} : (tensor<4x8xf32>, tensor<1xi64>) -> tensor<4x1xf32>
        %c = onnx.Sub(%x, %m) : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
        %a, %b = onnx.Split(%c) {axis = 1, num_outputs = 2} : (tensor<4x8xf32>) -> (tensor<4x4xf32>, tensor<4x4xf32>)
        func.return %a, %b : tensor<4x4xf32>, tensor<4x4xf32>
      }
    }
    ```

    No value changes. It does nothing where the model is for that opset or a newer one. It fails, and names the first
    operation, where the meaning of one has changed in a way that has no rule here; and for opsets below 11. Functions
    of the model have opsets of their own: inline them first.

    Requires: inline-functions. Ensures: the module imports opset `to` at least.
    """

    name = "upgrade-opset"

    to: int = 23

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        opsets = read_opsets(op)
        now = opsets.get("")
        if now is None or now >= self.to:
            return
        if now < OLDEST or self.to > NEWEST:
            raise PassFailedException(f"upgrade-opset knows opsets {OLDEST} to {NEWEST}, not {now} to {self.to}")
        every = list(op.walk())
        if any(FUNCTION in nested.attributes for nested in every):
            raise PassFailedException("the model has functions of its own, with their own opsets: inline them first")
        operators = [nested for nested in every if isinstance(nested, OnnxOp)]
        for nested in operators:
            if (reason := refusal(nested, self.to)) is not None:
                raise PassFailedException(f"{describe(nested)}: {reason}")
        for nested in operators:
            upgrade(nested, self.to)
        opsets[""] = self.to
        op.attributes[OPSETS] = DictionaryAttr({name: int_attr(opsets[name]) for name in sorted(opsets)})


def refusal(op: OnnxOp, opset: int) -> str | None:
    """Why an operation cannot be written for a newer opset, None if it can."""
    schema = _newer(op, opset)
    if schema is None:
        return None
    since, changed = op.since_version, _CHANGED.get(op.op_type)
    if changed is not None and since < changed[0] <= schema.since_version and changed[1](op):
        return f"the operator means something else since opset {changed[0]}"
    unknown = set(op.onnx_attributes()) - set(schema.attributes) - {_MOVED.get(op.op_type)}
    return f"version {schema.since_version} has no attribute {min(unknown)!r}" if unknown else None


def upgrade(op: OnnxOp, opset: int) -> None:
    """Writes an operation that `refusal` lets pass for a newer opset."""
    schema = _newer(op, opset)
    if schema is None:
        return
    moved = _MOVED.get(op.op_type)
    if op.op_type == "Dropout":  # Its ratio matters in training only.
        op.properties.pop("ratio", None)
    elif moved is not None and moved not in schema.attributes:
        _as_input(op, moved)
    if op.op_type in _SOFTMAX and op.since_version < _SOFTMAX_AXIS:
        op.properties["axis"] = int_attr(-1)
    if op.op_type == "Split" and op.since_version < _SPLIT_COUNT <= schema.since_version and len(op.operands) == 1:
        op.properties["num_outputs"] = int_attr(len(op.results))
    if schema is schema_table().newest(op.domain, op.op_type):
        op.properties.pop(SINCE_VERSION, None)
    else:
        op.properties[SINCE_VERSION] = int_attr(schema.since_version)


def _newer(op: OnnxOp, opset: int) -> OpSchema | None:
    """The schema in force at `opset`, if it is a newer one than the operation's."""
    if op.domain or isinstance(op, InitializerOp | CustomOp | YieldOp):
        return None
    schema = schema_table().in_force(op.domain, op.op_type, opset)
    return schema if schema is not None and schema.since_version > op.since_version else None


def _as_input(op: OnnxOp, name: str) -> None:
    """Makes an attribute of integers the second input, which it is in newer versions."""
    value = op.properties.pop(name, None)
    if value is None:
        return
    constant = InitializerOp.from_array(np.array(python_value(value), dtype=np.int64), name)
    Rewriter.insert_op(constant, InsertPoint.before(op))
    op.operands = [*op.operands, constant.results[0]]


def _flattens(op: OnnxOp) -> bool:
    """Whether an old Softmax is over more than the last dimension: it took all from `axis` on as one."""
    dims, axis = shape_of(op.operands[0]), op.attr("axis", 1)
    return axis != -1 and (dims is None or axis != len(dims) - 1)


def _always(op: OnnxOp) -> bool:
    del op
    return True


_SPLIT_COUNT, _SOFTMAX_AXIS = 18, 13
_SOFTMAX = frozenset({"Hardmax", "LogSoftmax", "Softmax"})
_REDUCTIONS = frozenset(
    f"Reduce{name}" for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
)
# The opset since which an operator means something else, and for which operations: ONNX's changelog.
_CHANGED: dict[str, tuple[int, Callable[[OnnxOp], bool]]] = {
    "AveragePool": (19, lambda op: bool(op.attr("ceil_mode", 0))),
    "BatchNormalization": (14, lambda op: len(op.results) > 1),
    "DFT": (20, _always),
    "GridSample": (20, _always),
    "GroupNormalization": (21, _always),
    "Dropout": (12, lambda op: len(op.results) > 1),
    "Resize": (13, lambda op: op.attr("coordinate_transformation_mode") == "tf_half_pixel_for_nn"),
    "RoiAlign": (16, lambda op: "coordinate_transformation_mode" not in op.properties),
    **dict.fromkeys(_SOFTMAX, (_SOFTMAX_AXIS, _flattens)),
}
# Attributes that have become the second input.
_MOVED: dict[str, str] = {
    **dict.fromkeys((*_REDUCTIONS, "Squeeze", "Unsqueeze"), "axes"),
    "Dropout": "ratio",
    "Split": "split",
}
