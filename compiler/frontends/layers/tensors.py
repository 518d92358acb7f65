"""The parameters and buffers of a module as values of the graph that it was converted to."""

from __future__ import annotations

from itertools import chain
from typing import Final

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor, from_torch_dtype

_MOST_BYTES: Final = 1024


class Tensors:
    """Found by what they are, not by their names: a tied weight has several, of which the graph knows one."""

    def __init__(self, graph: ir.Graph, source: torch.nn.Module) -> None:
        self._graph = graph
        self._names: dict[int, list[str]] = {}
        for name, tensor in _all(source):
            self._names.setdefault(id(tensor), []).append(name)
        self._known = {name for names in self._names.values() for name in names}

    def exchange(self, first: torch.nn.Module, other: torch.nn.Module) -> list[tuple[ir.Value, ir.Value]]:
        """The values of one layer's tensors that the graph has, each with that of a layer that is like it."""
        tensors = zip(_all(first), _all(other), strict=True)
        pairs = [(self._value(one), another) for (_, one), (_, another) in tensors]
        return [(value, self._value(another) or self._make(another)) for value, another in pairs if value is not None]

    def same_constant(self, one: ir.Value, other: ir.Value) -> bool:
        """Whether both are small constants that the code of a layer has, of the same type, shape and elements."""
        first, second = self._in_code(one), self._in_code(other)
        if first is None or second is None or (first.dtype, first.shape) != (second.dtype, second.shape):
            return False
        return first.tobytes() == second.tobytes()

    def _in_code(self, value: ir.Value) -> ir.TensorProtocol | None:
        if not value.is_initializer() or value.is_graph_input() or value.name in self._known:
            return None
        tensor = value.const_value
        return tensor if tensor is not None and tensor.nbytes <= _MOST_BYTES else None

    def _value(self, tensor: torch.Tensor) -> ir.Value | None:
        known = (self._graph.initializers.get(name) for name in self._names[id(tensor)])
        return next((value for value in known if value is not None), None)

    def _make(self, tensor: torch.Tensor) -> ir.Value:
        name = self._names[id(tensor)][0]
        data = TorchTensor(tensor.detach(), name=name)
        type_ = ir.TensorType(from_torch_dtype(tensor.dtype))
        value = ir.Value(name=name, shape=ir.Shape(list(tensor.shape)), type=type_, const_value=data)
        self._graph.register_initializer(value)
        return value


def _all(module: torch.nn.Module) -> chain[tuple[str, torch.Tensor]]:
    return chain(module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
