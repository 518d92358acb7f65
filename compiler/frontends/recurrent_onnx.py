"""What recurrent operators of PyTorch are in ONNX, and the layout of their weights there (see `recurrent`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor

_WEIGHTS: Final = (1, 2, 3)


@dataclass(frozen=True, eq=False)
class Recurrent:
    """An operator of ONNX: PyTorch's gates in ONNX's order, and its attributes, with lists for one direction."""

    name: str
    gates: tuple[int, ...]
    attributes: Mapping[str, Any]


LSTM: Final = Recurrent("LSTM", (0, 3, 1, 2), {})
GRU: Final = Recurrent("GRU", (1, 0, 2), {"linear_before_reset": 1})
RNN_TANH: Final = Recurrent("RNN", (0,), {"activations": ["Tanh"]})
RNN_RELU: Final = Recurrent("RNN", (0,), {"activations": ["Relu"]})


def translation(kind: Recurrent) -> Callable[..., Any]:
    """A function that writes the operators of all layers, as PyTorch's exporter takes it."""

    def translated(
        steps: Any,
        hx: Any,
        params: Sequence[Any],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        del dropout, train
        # The stubs know tensors and numbers of Python, not the values that PyTorch's exporter records.
        op: Any = import_module("onnxscript").opset18
        before = list(hx) if kind is LSTM else [hx]
        directions = 2 if bidirectional else 1
        stride = directions * (4 if has_biases else 2)
        values = op.Transpose(steps, perm=[1, 0, 2]) if batch_first else steps
        last: list[Any] = []
        for layer in range(num_layers):
            own = params[layer * stride : (layer + 1) * stride]
            first = [_of_layer(op, state, layer, directions, num_layers) for state in before]
            values, *states = _layer(op, kind, values, first, own, directions)
            last.append(states)
        ends = [op.Concat(*states, axis=0) if num_layers > 1 else states[0] for states in zip(*last, strict=True)]
        return op.Transpose(values, perm=[1, 0, 2]) if batch_first else values, *ends

    return translated


def arrange_weights(model: ir.Model) -> None:
    """Puts weights together from PyTorch's when they are written, so that no run has to."""
    operators = {kind.name for kind in (LSTM, GRU, RNN_TANH)}
    for node in list(model.graph.all_nodes()):
        if node.op_type not in operators or node.domain:
            continue
        for index in _WEIGHTS:
            value = node.inputs[index]
            parts = None if value is None or value.is_initializer() else _parts(value)
            if value is None or parts is None:
                continue
            made = ir.Value(name=f"{value.name}.arranged", shape=value.shape, type=value.type)
            made.const_value = _tensor(parts, made)
            model.graph.register_initializer(made)
            node.replace_input_with(index, made)


def _tensor(parts: Callable[[], torch.Tensor], value: ir.Value) -> ir.TensorProtocol:
    with torch.no_grad():
        made = parts()
    if made.is_meta:
        return TorchTensor(made, name=value.name)
    shape = ir.Shape(tuple(made.shape))
    tensor = TorchTensor(made)
    return ir.LazyTensor(lambda: TorchTensor(parts()), dtype=tensor.dtype, shape=shape, name=value.name)


def _parts(value: ir.Value) -> Callable[[], torch.Tensor] | None:
    """What puts a value together from parameters of PyTorch; None where it is computed otherwise."""
    raw: Any = getattr(value.const_value, "raw", None)
    if isinstance(raw, torch.Tensor):
        return lambda: raw
    node = value.producer()
    if node is None:
        return None
    count = len(node.inputs) if node.op_type == "Concat" else 1
    given = [None if source is None else _parts(source) for source in node.inputs[:count]]
    found = [part for part in given if part is not None]
    if len(found) < count:
        return None
    if node.op_type == "Concat":
        axis = node.attributes["axis"].as_int()
        return lambda: torch.cat([part() for part in found], axis)
    numbers = _numbers(node.inputs[1]) if len(node.inputs) > 1 else None
    if numbers is None:
        return None
    return _steps(node.op_type, found[0], numbers)


def _steps(operator: str, part: Callable[[], torch.Tensor], numbers: list[int]) -> Callable[[], torch.Tensor] | None:
    match operator:
        case "Reshape":
            return lambda: part().reshape(numbers)
        case "Gather":
            return lambda: part()[numbers]
        case "Unsqueeze":
            return lambda: part().unsqueeze(numbers[0])
        case _:
            return None


def _numbers(value: ir.Value | None) -> list[int] | None:
    node = None if value is None else value.producer()
    if node is None or "value_ints" not in node.attributes:
        return None
    return list(node.attributes["value_ints"].as_ints())


def _of_layer(op: Any, state: Any, layer: int, directions: int, layers: int) -> Any:
    """[directions, batch, hidden] of a state [layers * directions, batch, hidden]."""
    if layers == 1:
        return state
    start, end = layer * directions, (layer + 1) * directions
    return op.Slice(state, _ints(op, start), _ints(op, end), _ints(op, 0))


def _layer(
    op: Any, kind: Recurrent, values: Any, before: Sequence[Any], parameters: Sequence[Any], directions: int
) -> tuple[Any, ...]:
    """[steps, batch, directions * hidden] and the last states of one layer, for [steps, batch, features]."""
    count = len(parameters) // directions
    sides = [[_gates_in_order(op, kind, p) for p in parameters[i * count : (i + 1) * count]] for i in range(directions)]
    inputs, hidden, *biases = (_side_by_side(op, of_sides) for of_sides in zip(*sides, strict=True))
    attributes = {
        key: value * directions if isinstance(value, list) else value for key, value in kind.attributes.items()
    }
    outputs = getattr(op, kind.name)(
        values,
        inputs,
        hidden,
        op.Concat(*biases, axis=1) if biases else None,
        None,
        *before,
        hidden_size=parameters[1].shape[-1],
        direction="bidirectional" if directions == 2 else "forward",
        **attributes,
    )
    steps, *states = outputs
    if directions == 1:
        return op.Squeeze(steps, _ints(op, 1)), *states
    return op.Reshape(op.Transpose(steps, perm=[0, 2, 1, 3]), _ints(op, 0, 0, -1)), *states


def _gates_in_order(op: Any, kind: Recurrent, parameter: Any) -> Any:
    """A weight [gates * hidden, features], or a bias [gates * hidden], with its gates in ONNX's order."""
    if len(kind.gates) == 1:
        return parameter
    size, *rest = parameter.shape
    parts = op.Reshape(parameter, _ints(op, len(kind.gates), size // len(kind.gates), *rest))
    return op.Reshape(op.Gather(parts, _ints(op, *kind.gates), axis=0), _ints(op, size, *rest))


def _side_by_side(op: Any, parameters: Sequence[Any]) -> Any:
    """[directions, …] of a parameter of each direction."""
    rows = [op.Unsqueeze(parameter, _ints(op, 0)) for parameter in parameters]
    return op.Concat(*rows, axis=0) if len(rows) > 1 else rows[0]


def _ints(op: Any, *values: int) -> Any:
    return op.Constant(value_ints=list(values))
