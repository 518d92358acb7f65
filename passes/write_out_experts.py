"""Writes mixtures of experts (com.microsoft's MoE) out, for targets that have no such operator.

Where many tokens may come, every expert computes every token. A step of a decoder has few, and reads only the weights
of the experts that they chose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region, SSAValue
from xdsl.passes import ModulePass

from gimlet.dialects.onnx import InitializerOp, OnnxOp, dims_of, has_parts, tensor_type
from gimlet.dialects.onnx.ops import OPERATORS
from gimlet.dialects.onnx.types import element_by_dtype, element_of
from gimlet.passes.dim_ranges import Range, largest, read_ranges
from gimlet.passes.entry import entry_function
from gimlet.passes.large_ops import LargeOps
from gimlet.passes.restore_parts import restore
from gimlet.runtime.expr import Expr

_OLDEST_OPSET = 13
_EXPERTS = ("com.microsoft", "MoE")
_GATED = ("swiglu", "geglu")
_FAR_END = 1 << 40
_PASSES = 3
"""Over a weight that is gathered: it is read, written as a copy, and read by the product."""
Dims = Sequence[Expr | int]


@dataclass(frozen=True)
class WriteOutExpertsPass(ModulePass):
    """Writes MoE out: every expert computes every token, and what the router did not choose is multiplied by 0.

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 17 : i64, "com.microsoft" = 1 : i64}} {
      func.func @main(%x: tensor<?x8xf32, #onnx.dims<"n", "">>, %router: tensor<?x4xf32, #onnx.dims<"n", "">>,
                      %up: tensor<4x16x8xf32>, %down: tensor<4x8x16xf32>) -> tensor<?x8xf32, #onnx.dims<"n", "">> {
        %y = onnx.com.microsoft.MoE(%x, %router, %up, _, %down) {activation_type = "relu", k = 2}
            : (tensor<?x8xf32, #onnx.dims<"n", "">>, tensor<?x4xf32, #onnx.dims<"n", "">>, tensor<4x16x8xf32>,
               tensor<4x8x16xf32>) -> tensor<?x8xf32, #onnx.dims<"n", "">> loc("moe")
        func.return %y : tensor<?x8xf32, #onnx.dims<"n", "">>
      }
    }
    ```

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 17 : i64, com.microsoft = 1 : i64}} {
      func.func @main(%x: tensor<?x8xf32, #onnx.dims<"n", "">>, %router: tensor<?x4xf32, #onnx.dims<"n", "">>, %up: tensor<4x16x8xf32>, %down: tensor<4x8x16xf32>) -> tensor<?x8xf32, #onnx.dims<"n", "">> {
        %moe$.Softmax.0_output = onnx.Softmax(%router) {axis = -1} : (tensor<?x4xf32, #onnx.dims<"n", "">>) -> tensor<?x4xf32, #onnx.dims<"n", "">> loc("moe/Softmax.0")
        %moe$.initializer.1_output = onnx.initializer {value = dense<2> : tensor<1xi64>} : tensor<1xi64>
        %moe$.TopK.2_output, %moe$.TopK.2_output_1 = onnx.TopK v11(%moe$.Softmax.0_output, %moe$.initializer.1_output) {axis = -1} : (tensor<?x4xf32, #onnx.dims<"n", "">>, tensor<1xi64>) -> (tensor<?x2xf32, #onnx.dims<"n", "">>, tensor<?x2xi64, #onnx.dims<"n", "">>) loc("moe/TopK.2")
        %moe$.initializer.3_output = onnx.initializer {value = dense<0> : tensor<1xi64>} : tensor<1xi64>
        %moe$.Unsqueeze.4_output = onnx.Unsqueeze v13(%x, %moe$.initializer.3_output) : (tensor<?x8xf32, #onnx.dims<"n", "">>, tensor<1xi64>) -> tensor<1x?x8xf32, #onnx.dims<"", "n", "">> loc("moe/Unsqueeze.4")
        %moe$.Transpose.5_output = onnx.Transpose v13(%up) {perm = [0, 2, 1]} : (tensor<4x16x8xf32>) -> tensor<4x8x16xf32> loc("moe/Transpose.5")
        %moe$.MatMul.6_output = onnx.MatMul(%moe$.Unsqueeze.4_output, %moe$.Transpose.5_output) : (tensor<1x?x8xf32, #onnx.dims<"", "n", "">>, tensor<4x8x16xf32>) -> tensor<4x?x16xf32, #onnx.dims<"", "n", "">> loc("moe/MatMul.6")
        %moe$.Relu.7_output = onnx.Relu(%moe$.MatMul.6_output) : (tensor<4x?x16xf32, #onnx.dims<"", "n", "">>) -> tensor<4x?x16xf32, #onnx.dims<"", "n", "">> loc("moe/Relu.7")
        %moe$.Transpose.8_output = onnx.Transpose v13(%down) {perm = [0, 2, 1]} : (tensor<4x8x16xf32>) -> tensor<4x16x8xf32> loc("moe/Transpose.8")
        %moe$.MatMul.9_output = onnx.MatMul(%moe$.Relu.7_output, %moe$.Transpose.8_output) : (tensor<4x?x16xf32, #onnx.dims<"", "n", "">>, tensor<4x16x8xf32>) -> tensor<4x?x8xf32, #onnx.dims<"", "n", "">> loc("moe/MatMul.9")
        %moe$.Sub.10_output = onnx.Sub(%moe$.Softmax.0_output, %moe$.Softmax.0_output) : (tensor<?x4xf32, #onnx.dims<"n", "">>, tensor<?x4xf32, #onnx.dims<"n", "">>) -> tensor<?x4xf32, #onnx.dims<"n", "">> loc("moe/Sub.10")
        %moe$.ScatterElements.11_output = onnx.ScatterElements v16(%moe$.Sub.10_output, %moe$.TopK.2_output_1, %moe$.TopK.2_output) {axis = 1} : (tensor<?x4xf32, #onnx.dims<"n", "">>, tensor<?x2xi64, #onnx.dims<"n", "">>, tensor<?x2xf32, #onnx.dims<"n", "">>) -> tensor<?x4xf32, #onnx.dims<"n", "">> loc("moe/ScatterElements.11")
        %moe$.Transpose.12_output = onnx.Transpose v13(%moe$.ScatterElements.11_output) {perm = [1, 0]} : (tensor<?x4xf32, #onnx.dims<"n", "">>) -> tensor<4x?xf32, #onnx.dims<"", "n">> loc("moe/Transpose.12")
        %moe$.initializer.13_output = onnx.initializer {value = dense<2> : tensor<1xi64>} : tensor<1xi64>
        %moe$.Unsqueeze.14_output = onnx.Unsqueeze v13(%moe$.Transpose.12_output, %moe$.initializer.13_output) : (tensor<4x?xf32, #onnx.dims<"", "n">>, tensor<1xi64>) -> tensor<4x?x1xf32, #onnx.dims<"", "n", "">> loc("moe/Unsqueeze.14")
        %moe$.Mul.15_output = onnx.Mul(%moe$.MatMul.9_output, %moe$.Unsqueeze.14_output) : (tensor<4x?x8xf32, #onnx.dims<"", "n", "">>, tensor<4x?x1xf32, #onnx.dims<"", "n", "">>) -> tensor<4x?x8xf32, #onnx.dims<"", "n", "">> loc("moe/Mul.15")
        %moe$.initializer.16_output = onnx.initializer {value = dense<0> : tensor<1xi64>} : tensor<1xi64>
        %y = onnx.ReduceSum(%moe$.Mul.15_output, %moe$.initializer.16_output) {keepdims = 0} : (tensor<4x?x8xf32, #onnx.dims<"", "n", "">>, tensor<1xi64>) -> tensor<?x8xf32, #onnx.dims<"n", "">> loc("moe/ReduceSum.17")
        func.return %y : tensor<?x8xf32, #onnx.dims<"n", "">>
      }
    }
    ```

    That takes E/k times the operations, and reads all E experts, which many tokens touch anyway. Where T tokens come at
    most (their number is known, or has a range in `onnx.dim_bounds`) and 3 T k ≤ E, the weights of the T k chosen
    experts are gathered, and no other is read. Results differ in rounding. With `keep_parts` the operator stays, and names a function with what is above (`onnx.parts`): a target
    that has the operator takes it whole, as ONNX Runtime does.

    It does not act below opset 13, on a sparse mixer, or where a shape that it needs is not known, or is not that of the result.

    Requires: the types that infer-shapes gives. Ensures: nothing.
    """  # noqa: E501 - IR

    name = "write-out-experts"

    keep_parts: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        large, ranges = LargeOps(op, keep_parts=True), read_ranges(op)
        if large.opset < _OLDEST_OPSET:
            return
        for nested in list(entry_function(op).walk()):
            if not isinstance(nested, OnnxOp) or (nested.domain, nested.op_type) != _EXPERTS or has_parts(nested):
                continue
            function = _written_out(nested, large.opset, ranges)
            if function is None:
                continue
            if self.keep_parts:
                large.name_parts(nested, function)
            else:
                restore(nested, function)


def _written_out(op: OnnxOp, opset: int, ranges: Mapping[str, Range]) -> FuncOp | None:
    """A function of what `op` takes that computes what `op` does; None where it cannot be written."""
    given = [value for value in op.inputs if value is not None]
    known = all(dims_of(value) is not None and element_of(value.type) is not None for value in given)
    known = known and all(dim.is_constant for value in given[2:] for dim in dims_of(value) or ())
    if not known or op.attr("use_sparse_mixer", 0) or len(given) != len(set(given)):
        return None
    block = Block(arg_types=[value.type for value in given])
    values = dict(zip(given, block.args, strict=True))
    inputs = [None if value is None else values[value] for value in op.inputs]
    inputs += [None] * (8 - len(inputs))
    result = _Experts(op, block, opset).run(inputs, ranges)
    if result.type != op.results[0].type:
        return None
    block.add_op(ReturnOp(result))
    return FuncOp("parts", ([value.type for value in given], [result.type]), Region(block), "private")


class _Experts:
    """Adds the operations of one mixture to a block. Shapes: T tokens, E experts, k chosen by each token."""

    def __init__(self, op: OnnxOp, block: Block, opset: int) -> None:
        self.op = op
        self.block = block
        self.opset = opset
        self.count = int(op.attr("k", 1))
        element = element_of(op.results[0].type)
        if element is None:
            raise TypeError("the result of a MoE is a tensor")
        self.element = element

    def run(self, inputs: Sequence[SSAValue | None], ranges: Mapping[str, Range]) -> SSAValue:
        hidden, router, first, first_bias, second, second_bias, third, third_bias = inputs
        if hidden is None or router is None or first is None or second is None:
            raise TypeError("a MoE has tokens, a router and two weights")
        dims, (tokens, experts) = _dims(hidden), _dims(router)
        width = _dims(second)[1]
        rows = hidden
        if len(dims) > 2:
            rows = self.add("Reshape", [hidden, self.integers([-1, width.as_int()])], [tokens, width])
        most = largest(tokens, ranges)
        few = most is not None and _PASSES * most * self.count <= experts.as_int()
        chances, weights, places = self.routed(router, tokens, experts)
        picked = places if few else None
        rows = self.unsqueezed(self.unsqueezed(rows, 1), 1) if few else self.unsqueezed(rows, 0)
        inner = self.product(rows, first, first_bias, picked)
        beside = None if third is None else self.product(rows, third, third_bias, picked)
        outputs = self.product(self.activated(inner, beside), second, second_bias, picked)
        if few:
            gates = self.unsqueezed(self.unsqueezed(weights, 2), 2)
        else:
            gates = self.unsqueezed(self.transposed(self.gates(chances, weights, places), [1, 0]), 2)
        gated = self.add("Mul", [outputs, gates], _dims(outputs))
        over = [1, 2] if few else [0]
        total = self.add("ReduceSum", [gated, self.integers(over)], [tokens, width], {"keepdims": 0})
        if len(dims) == 2:
            return total
        shape = self.add("Shape", [hidden], [len(dims)], element="int64")
        return self.add("Reshape", [total, shape], dims)

    def routed(self, router: SSAValue, tokens: Expr, experts: Expr) -> tuple[SSAValue, SSAValue, SSAValue]:
        """[T, E]: the chances of all experts; and [T, k]: the weights of those that are chosen, and which they are."""
        chances = self.add("Softmax", [router], [tokens, experts], {"axis": -1})
        top = OPERATORS["", "TopK"].make(
            [chances, self.integers([self.count])],
            [self.type([tokens, self.count]), tensor_type(_element("int64"), [tokens, self.count])],
            {"axis": -1},
            opset=self.opset,
        )
        self.block.add_op(top)
        weights, places = top.results
        if self.op.attr("normalize_routing_weights", 0):
            total = self.add("ReduceSum", [weights, self.integers([-1])], [tokens, 1], {"keepdims": 1})
            weights = self.add("Div", [weights, total], [tokens, self.count])
        return chances, weights, places

    def gates(self, chances: SSAValue, weights: SSAValue, places: SSAValue) -> SSAValue:
        """[T, E]: the weight of each expert for each token, 0 for those that were not chosen."""
        nothing = self.add("Sub", [chances, chances], _dims(chances))
        return self.add("ScatterElements", [nothing, places, weights], _dims(chances), {"axis": 1})

    def product(self, rows: SSAValue, weight: SSAValue, bias: SSAValue | None, places: SSAValue | None) -> SSAValue:
        """[E, T, outputs] of [1 or E, T, inputs] and [E, outputs, inputs].

        With `places` [T, k] of the chosen experts it is [T, k, 1, outputs] of [T, 1 or k, 1, inputs].
        """
        matrices = self.picked(self.transposed(weight, [0, 2, 1]), places)
        *outer, _, outputs = _dims(matrices)
        result = self.add("MatMul", [rows, matrices], [*outer, _dims(rows)[-2], outputs])
        if bias is None:
            return result
        return self.add("Add", [result, self.unsqueezed(self.picked(bias, places), len(outer))], _dims(result))

    def picked(self, of_experts: SSAValue, places: SSAValue | None) -> SSAValue:
        """What the chosen experts have of [E, ...]: [T, k, ...]; of all of them without `places`."""
        if places is None:
            return of_experts
        return self.add("Gather", [of_experts, places], [*_dims(places), *_dims(of_experts)[1:]], {"axis": 0})

    def activated(self, inner: SSAValue, beside: SSAValue | None) -> SSAValue:
        kind = str(self.op.attr("activation_type", "relu"))
        if kind not in _GATED:
            found = self.plain(kind, inner)
            return found if beside is None else self.add("Mul", [found, beside], _dims(found))
        gate, up = (inner, beside) if beside is not None else self.halves(inner)
        if kind == "geglu":
            return self.add("Mul", [self.plain("gelu", gate), up], _dims(gate))
        return self.swiglu(gate, up)

    def swiglu(self, gate: SSAValue, up: SSAValue) -> SSAValue:
        dims, limit = _dims(gate), self.op.attr("swiglu_limit", float("inf"))
        late = bool(self.op.attr("swiglu_limit_after_activation", 0))
        bounded = np.isfinite(limit)
        if bounded:
            up = self.add("Clip", [up, self.scalar(-limit), self.scalar(limit)], dims)
            gate = gate if late else self.add("Min", [gate, self.scalar(limit)], dims)
        scaled = self.add("Mul", [gate, self.scalar(self.op.attr("activation_alpha", 1.0))], dims)
        gate = self.add("Mul", [gate, self.add("Sigmoid", [scaled], dims)], dims)
        if bounded and late:
            gate = self.add("Min", [gate, self.scalar(limit)], dims)
        up = self.add("Add", [up, self.scalar(self.op.attr("activation_beta", 0.0))], dims)
        return self.add("Mul", [gate, up], dims)

    def halves(self, inner: SSAValue) -> tuple[SSAValue, SSAValue]:
        """The gates and the values that they gate, which stand in turns, or one behind the other."""
        *outer, both = _dims(inner)
        size = Expr.const(both.as_int() // 2)
        if int(self.op.attr("swiglu_fusion", 0)) == 1:
            bounds = [(0, _FAR_END, 2), (1, _FAR_END, 2)]
        else:
            bounds = [(0, size.as_int(), 1), (size.as_int(), _FAR_END, 1)]
        first, second = (
            self.add("Slice", [inner, *(self.integers([n]) for n in (start, end, -1, step))], [*outer, size])
            for start, end, step in bounds
        )
        return first, second

    def plain(self, kind: str, value: SSAValue) -> SSAValue:
        dims = _dims(value)
        if kind == "relu":
            return self.add("Relu", [value], dims)
        if kind == "silu":
            return self.add("Mul", [value, self.add("Sigmoid", [value], dims)], dims)
        if kind != "gelu":
            return value
        # The approximation by tanh, which ONNX Runtime's kernel computes.
        square = self.add("Mul", [value, value], dims)
        cubic = self.add("Mul", [self.add("Mul", [square, value], dims), self.scalar(0.044715)], dims)
        inside = self.add("Mul", [self.add("Add", [value, cubic], dims), self.scalar(np.sqrt(2 / np.pi))], dims)
        curve = self.add("Add", [self.add("Tanh", [inside], dims), self.scalar(1.0)], dims)
        return self.add("Mul", [self.add("Mul", [value, self.scalar(0.5)], dims), curve], dims)

    def transposed(self, value: SSAValue, perm: Sequence[int]) -> SSAValue:
        dims = _dims(value)
        return self.add("Transpose", [value], [dims[axis] for axis in perm], {"perm": list(perm)})

    def unsqueezed(self, value: SSAValue, axis: int) -> SSAValue:
        dims = list(_dims(value))
        return self.add("Unsqueeze", [value, self.integers([axis])], [*dims[:axis], Expr.const(1), *dims[axis:]])

    def integers(self, values: Sequence[int]) -> SSAValue:
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float) -> SSAValue:
        return self.constant(np.array(value, self.element.dtype))

    def constant(self, array: np.ndarray[Any, Any]) -> SSAValue:
        made = InitializerOp.from_array(array)
        self.block.add_op(made)
        return made.results[0]

    def type(self, dims: Dims) -> Any:
        return tensor_type(self.element.type, list(dims))

    def add(
        self,
        op_type: str,
        inputs: Sequence[SSAValue],
        dims: Dims,
        attributes: Mapping[str, Any] | None = None,
        element: str = "",
    ) -> SSAValue:
        type_ = tensor_type(_element(element), list(dims)) if element else self.type(dims)
        made = OPERATORS["", op_type].make(inputs, [type_], attributes, opset=self.opset)
        self.block.add_op(made)
        return made.results[0]


def _dims(value: SSAValue) -> tuple[Expr, ...]:
    dims = dims_of(value)
    if dims is None:
        raise TypeError("the shapes of a mixture are known")
    return dims


def _element(dtype: str) -> Any:
    return element_by_dtype(dtype).type
