"""Puts what is new of a state into it as it lies, not into a state that was turned around for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType, i64
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from gimlet.dialects.onnx import InitializerOp, OnnxOp, dims_of, ops, opset_in_force, tensor_type
from gimlet.passes.entry import entry_function
from gimlet.passes.match import is_read_once, made_by
from gimlet.passes.state_pairs import state_pairs
from gimlet.runtime.expr import ONE, Expr


@dataclass(frozen=True)
class ScatterStatesPass(ModulePass):
    """Makes one ScatterElements of a state that is transposed, changed by a ScatterND, and transposed back.

    ```mlir
    func.func @main(%at: tensor<1x1xi64>, %x: tensor<2x1x4xf32>, %past: tensor<2x8x4xf32> {placement.state = "past"})
        -> (tensor<2x8x4xf32> {placement.state = "past"}) {
      %turned = onnx.Transpose(%past) {perm = [1, 0, 2]} : (tensor<2x8x4xf32>) -> tensor<8x2x4xf32>
      %new = onnx.Transpose(%x) {perm = [1, 0, 2]} : (tensor<2x1x4xf32>) -> tensor<1x2x4xf32>
      %changed = onnx.ScatterND(%turned, %at, %new)
          : (tensor<8x2x4xf32>, tensor<1x1xi64>, tensor<1x2x4xf32>) -> tensor<8x2x4xf32>
      %present = onnx.Transpose(%changed) {perm = [1, 0, 2]} : (tensor<8x2x4xf32>) -> tensor<2x8x4xf32>
      func.return %present : tensor<2x8x4xf32>
    }
    ```

    ```mlir
    func.func @main(%at: tensor<1x1xi64>, %x: tensor<2x1x4xf32>, %past: tensor<2x8x4xf32> {placement.state = "past"})
        -> (tensor<2x8x4xf32> {placement.state = "past"}) {
      %0 = onnx.initializer {value = dense<[1, -1, 1]> : tensor<3xi64>} : tensor<3xi64>
      %1 = onnx.Reshape(%at, %0) : (tensor<1x1xi64>, tensor<3xi64>) -> tensor<1x1x1xi64>
      %2 = onnx.initializer {value = dense<[2, 1, 4]> : tensor<3xi64>} : tensor<3xi64>
      %3 = onnx.Expand(%1, %2) : (tensor<1x1x1xi64>, tensor<3xi64>) -> tensor<2x1x4xi64>
      %present = onnx.ScatterElements(%past, %3, %x) {axis = 1}
          : (tensor<2x8x4xf32>, tensor<2x1x4xi64>, tensor<2x1x4xf32>) -> tensor<2x8x4xf32>
      func.return %present : tensor<2x8x4xf32>
    }
    ```

    That is how exporters write an assignment along a dimension that is not the first. As one op on the state it can be
    done in place (`mark-in-place`), and nothing of the state is copied. No value changes by a bit.

    Each state gets positions of its own, so that layers on several devices do not hand them on element by element.

    It must not act where something else reads the state or what is between, or where positions are not one a row.

    Requires the types that infer-shapes gives. Without states it changes nothing.
    """

    name = "scatter-states"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        function = entry_function(op)
        found = [each for pair in state_pairs(function) if (each := _update(pair.argument, pair.result)) is not None]
        for update in found:
            _rewrite(update)


@dataclass(frozen=True)
class _Update:
    """A state that is turned by `perm`, changed, and turned back by the last op."""

    state: SSAValue
    scatter: OnnxOp
    back: OnnxOp
    perm: Sequence[int]


def _update(state: SSAValue, result: SSAValue) -> _Update | None:
    back = made_by(result, "Transpose")
    scatter = made_by(back.operands[0], "ScatterND") if back is not None else None
    turned = made_by(scatter.operands[0], "Transpose") if scatter is not None else None
    if back is None or scatter is None or turned is None or turned.operands[0] is not state:
        return None
    if not all(map(is_read_once, (state, turned.results[0], scatter.results[0]))):
        return None
    perm, where = turned.attr("perm"), dims_of(scatter.operands[1])
    if perm is None or back.attr("perm") != _inverse(perm) or scatter.attr("reduction", "none") != "none":
        return None
    if where is None or len(where) != 2 or where[1] != ONE or dims_of(scatter.operands[2]) is None:
        return None
    return _Update(state, scatter, back, perm)


def _inverse(perm: Sequence[int]) -> list[int]:
    return sorted(range(len(perm)), key=lambda axis: perm[axis])


def _rewrite(update: _Update) -> None:
    scatter, back, axis = update.scatter, update.back.results[0], update.perm[0]
    turned, indices, updates = scatter.operands
    opset = opset_in_force(scatter, "")
    made: list[Operation] = []
    new = _turned_back(updates, update.perm, opset, made)
    positions = _positions(indices, axis, new, opset, made)
    changed = ops.ScatterElements.make([update.state, positions, new], [back.type], {"axis": axis}, opset=opset)
    changed.location = scatter.location
    changed.results[0].name_hint = back.name_hint
    Rewriter.insert_op([*made, changed], InsertPoint.before(scatter))
    back.replace_all_uses_with(changed.results[0])
    for value in (back, scatter.results[0], turned, updates):
        if isinstance(value.owner, OnnxOp) and not list(value.uses):
            Rewriter.erase_op(value.owner)


def _turned_back(updates: SSAValue, perm: Sequence[int], opset: int | None, made: list[Operation]) -> SSAValue:
    """The updates in the order of the state's dimensions; an op that this takes is added to `made`."""
    turned = made_by(updates, "Transpose")
    if turned is not None and turned.attr("perm") == list(perm):
        return turned.operands[0]
    inverse, dims = _inverse(perm), dims_of(updates) or ()
    type_ = _with_dims(updates, [dims[axis] for axis in inverse])
    made.append(ops.Transpose.make([updates], [type_], {"perm": inverse}, opset=opset))
    return made[-1].results[0]


def _positions(indices: SSAValue, axis: int, new: SSAValue, opset: int | None, made: list[Operation]) -> SSAValue:
    """The position of each element of `new` along `axis`, where that of each row is known."""
    dims = dims_of(new) or ()
    row = [ONE] * len(dims)
    row[axis] = dims[axis]
    shape = InitializerOp.from_array(np.array([-1 if at == axis else 1 for at in range(len(dims))]))
    reshape = ops.Reshape.make([indices, shape], [_with_dims(indices, row)], opset=opset)
    if all(dim.is_constant for dim in dims):
        sizes: Operation = InitializerOp.from_array(np.array([dim.as_int() for dim in dims]))
    else:
        sizes = ops.Shape.make([new], [tensor_type(i64, [len(dims)])], opset=opset)
    expand = ops.Expand.make([reshape, sizes], [_with_dims(indices, dims)], opset=opset)
    made += [shape, reshape, sizes, expand]
    return expand.results[0]


def _with_dims(value: SSAValue, dims: Sequence[Expr]) -> Attribute:
    """The type of a tensor with other dimensions."""
    if not isinstance(value.type, TensorType):
        raise TypeError("what is scattered is a tensor")
    return tensor_type(value.type.element_type, dims)
