"""The node that stands for grouped experts, as `com.microsoft.MoE` (see `experts`)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor

from gimlet.compiler.frontends.experts import DOMAIN, OPERATOR
from gimlet.runtime.errors import InputError

_MICROSOFT: Final = "com.microsoft"
_PASSED_ON: Final = ("activation_type", "activation_alpha", "activation_beta", "swiglu_limit")
_INPUTS: Final = 7
_SAME: Final = frozenset({"Cast", "CastLike", "Identity"})


class _Arranged(TorchTensor):
    """A weight whose elements are those of a view of a PyTorch tensor, in another shape. Copied only when read."""

    def __init__(self, view: torch.Tensor, shape: tuple[int, ...], name: str | None) -> None:
        super().__init__(view, name=name)
        self._arranged = ir.Shape(shape)

    @property
    def shape(self) -> ir.Shape:
        return self._arranged

    def numpy(self) -> np.ndarray[Any, Any]:
        return super().numpy().reshape(self._arranged.numpy())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        del copy
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)


def lower_experts(model: ir.Model) -> None:
    """Replaces every node that `experts_as_one_op` made by `MoE`, and drops the domain of those."""
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        if (node.domain, node.op_type) == (DOMAIN, OPERATOR):
            _Lowering(model, node).run()
    model.graph.opset_imports.pop(DOMAIN, None)
    model.opset_imports.pop(DOMAIN, None)


class _Lowering:
    def __init__(self, model: ir.Model, node: ir.Node) -> None:
        self.graph = model.graph
        self.node = node
        self.made: list[ir.Node] = []

    def run(self) -> None:
        given = [*self.node.inputs, None]
        hidden, index, weights, first, first_bias, second, second_bias = given[:_INPUTS]
        if hidden is None or index is None or weights is None or first is None or second is None:
            raise InputError("experts without parameters", where=f"node {self.node.name!r}")
        experts, dtype = _dim(first, 0), hidden.dtype
        logits = _chosen_by_softmax(index, weights)
        router, total = (logits, None) if logits is not None else self.encoded(index, weights, experts)
        if router.dtype != dtype:
            router = self.add("Cast", [router], dtype, router.shape, to=int(dtype or ir.DataType.FLOAT))
        gated = self.node.attributes["activation_type"].as_string() in ("swiglu", "geglu")
        inputs = [
            hidden,
            router,
            self.arranged(first, interleave=gated and not self.flag("interleaved"), transpose=self.flag("transposed")),
            first_bias and self.arranged(first_bias, interleave=gated and not self.flag("interleaved")),
            self.arranged(second, transpose=self.flag("transposed")),
            second_bias,
        ]
        attributes: dict[str, Any] = {
            name: self.node.attributes[name].value for name in _PASSED_ON if name in self.node.attributes
        }
        output = self.add(
            "MoE",
            inputs,
            dtype,
            hidden.shape,
            domain=_MICROSOFT,
            k=_dim(index, -1),
            normalize_routing_weights=1,
            **attributes,
            **({"swiglu_fusion": 1} if gated else {}),
        )
        if total is not None:
            if total.dtype != dtype:
                total = self.add("Cast", [total], dtype, total.shape, to=int(dtype or ir.DataType.FLOAT))
            output = self.add("Mul", [output, total], dtype, hidden.shape)
        self.replace(output)

    def flag(self, name: str) -> bool:
        return bool(self.node.attributes[name].as_int())

    def add(self, op_type: str, inputs: list[Any], dtype: Any, shape: Any, domain: str = "", **attributes: Any) -> Any:
        """A new node's only output. It says that it comes from where the experts come from."""
        node = ir.node(op_type, inputs, attributes, domain=domain, metadata_props=dict(self.node.metadata_props))
        node.name = f"{self.node.name}_{op_type}_{len(self.made)}"
        value = node.outputs[0]
        value.name = f"{self.node.outputs[0].name}_{len(self.made)}"
        value.dtype, value.shape = dtype, None if shape is None else ir.Shape(list(shape))
        self.made.append(node)
        return value

    def constant(self, array: np.ndarray[Any, Any]) -> ir.Value:
        tensor = ir.tensor(array)
        return self.add("Constant", [], tensor.dtype, tensor.shape, value=tensor)

    def encoded(self, index: ir.Value, weights: ir.Value, experts: int) -> tuple[ir.Value, ir.Value]:
        """Logits that choose the experts `index` with weights in the ratio of `weights`, and the sum of these."""
        tokens = None if index.shape is None else index.shape[0]
        numpy_type = (weights.dtype or ir.DataType.FLOAT).numpy()
        start = self.constant(np.array([0], np.int64))
        end = self.constant(np.array([1], np.int64))
        shape = self.add("Shape", [index], ir.DataType.INT64, [2])
        rows = self.add("Slice", [shape, start, end], ir.DataType.INT64, [1])
        columns = self.constant(np.array([experts], np.int64))
        size = self.add("Concat", [rows, columns], ir.DataType.INT64, [2], axis=0)
        nothing = self.constant(np.array(-np.inf, numpy_type))
        empty = self.add("Expand", [nothing, size], weights.dtype, [tokens, experts])
        logarithms = self.add("Log", [weights], weights.dtype, weights.shape)
        logits = self.add("ScatterElements", [empty, index, logarithms], weights.dtype, [tokens, experts], axis=1)
        axes = self.constant(np.array([-1], np.int64))
        return logits, self.add("ReduceSum", [weights, axes], weights.dtype, [tokens, 1], keepdims=1)

    def arranged(self, weight: ir.Value, *, interleave: bool = False, transpose: bool = False) -> ir.Value:
        """A weight of all experts as `MoE` has it: [experts, outputs, inputs], with gates and values in turns."""
        if not interleave and not transpose:
            return weight
        view: Any = getattr(weight.const_value, "raw", None)
        if not isinstance(view, torch.Tensor):
            raise InputError(f"{weight.name!r} is computed, so that its layout cannot be changed", where="experts")
        if transpose:
            view = view.transpose(1, 2)
        shape = tuple(view.shape)
        if interleave:
            view = view.unflatten(1, (2, shape[1] // 2)).transpose(1, 2)
        name = f"{weight.name}.{'interleaved' if interleave else 'transposed'}"
        value = ir.Value(name=name, shape=ir.Shape(shape), type=weight.type)
        value.const_value = _Arranged(view, shape, name)
        self.graph.register_initializer(value)
        return value

    def replace(self, output: ir.Value) -> None:
        old = self.node.outputs[0]
        output.name = old.name
        self.graph.insert_before(self.node, self.made)
        old.replace_all_uses_with(output, replace_graph_outputs=True)
        unused = [value for value in self.node.inputs if value is not None]
        self.graph.remove(self.node, safe=True)
        for value in unused:
            if value.is_initializer() and not value.uses() and value.name:
                del self.graph.initializers[value.name]


def _dim(value: ir.Value, axis: int) -> int:
    dim = None if value.shape is None else value.shape[axis]
    if not isinstance(dim, int):
        raise InputError(f"dimension {axis} of {value.name!r} is not known", where="experts")
    return dim


def _source(value: ir.Value | None) -> ir.Node | None:
    """The node that makes a value, casts apart."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in _SAME:
        value = node.inputs[0]
        node = None if value is None else value.producer()
    return node


def _made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = _source(value)
    return node if node is not None and node.op_type == op_type else None


def _over_last_axis(softmax: ir.Node) -> bool:
    value = softmax.inputs[0]
    axis = softmax.attributes["axis"].as_int() if "axis" in softmax.attributes else -1
    rank = None if value is None or value.shape is None else value.shape.rank()
    return axis == -1 or (rank is not None and axis == rank - 1)


def _chosen_by_softmax(index: ir.Value, weights: ir.Value) -> ir.Value | None:
    """The logits of which `weights` are the softmax of the largest, whose places are `index`; None if they are not."""
    top = _made_by(index, "TopK")
    if top is None:
        return None
    if (softmax := _made_by(weights, "Softmax")) is not None:
        same = _source(softmax.inputs[0]) is top and _over_last_axis(softmax)
        return top.inputs[0] if same else None
    division, softmax = _made_by(weights, "Div"), _made_by(top.inputs[0], "Softmax")
    if division is None or softmax is None or not _over_last_axis(softmax):
        return None
    total = _made_by(division.inputs[1], "ReduceSum")
    if total is None or _source(division.inputs[0]) is not top or _source(total.inputs[0]) is not top:
        return None
    return softmax.inputs[0]
