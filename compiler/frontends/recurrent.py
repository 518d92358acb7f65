"""LSTM, GRU and RNN modules as one operator of ONNX for each layer, for sequences of any length.

To know the shapes that a recurrent operator yields, PyTorch computes it step by step, in shapes alone: the longer the
example, the longer that takes, and its length is fixed then. While a model is traced, `traced_whole` gives these shapes
at once. PyTorch's exporter would compute them again, and writes an RNN out step by step: `recurrent_as_one_op` gives
the operators names that it does not know, and `recurrent_translations` says what they are in ONNX.

An LSTM with a projection has no operator in ONNX. It is written out, with every other LSTM of its model, for the length
of the example.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch._C import DispatchKey
from torch._decomp import decomposition_table
from torch._subclasses.fake_tensor import is_fake
from torch.export import ExportedProgram

from gimlet.compiler.frontends.mutation import copied, rebuilt
from gimlet.compiler.frontends.quiet import quiet_torch
from gimlet.compiler.frontends.recurrent_onnx import GRU, LSTM, RNN_RELU, RNN_TANH, Recurrent, translation

_ARGUMENTS: Final = (
    "Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, bool bidirectional, bool batch_first"
)


@dataclass(frozen=True, eq=False)
class _Kind:
    """A recurrent operator of PyTorch, `aten` by name, and what it is in ONNX."""

    aten: str
    onnx: Recurrent

    @property
    def states(self) -> int:
        """How many states go from step to step."""
        return 2 if self.onnx is LSTM else 1

    @property
    def packet(self) -> Any:
        return getattr(torch.ops.aten, self.aten).input

    @property
    def whole(self) -> Any:
        """The operator as the exporter gets it."""
        return getattr(torch.ops.gimlet, self.aten).default


_KINDS: Final = (_Kind("lstm", LSTM), _Kind("gru", GRU), _Kind("rnn_tanh", RNN_TANH), _Kind("rnn_relu", RNN_RELU))
_library = torch.library.Library("gimlet", "FRAGMENT")
for _kind in _KINDS:
    _states = "Tensor[] hx" if _kind.states == 2 else "Tensor hx"
    _types = ", ".join(["Tensor"] * (1 + _kind.states))
    _library.define(f"{_kind.aten}(Tensor input, {_states}, {_ARGUMENTS}) -> ({_types})")


@contextmanager
def traced_whole() -> Generator[None, None, None]:
    """Within it, a recurrent operator that is computed in shapes alone does not go step by step."""
    keys = (DispatchKey.CompositeImplicitAutograd, DispatchKey.Autograd)
    before = {kind: dict(kind.packet.py_kernels) for kind in _KINDS}
    try:
        for kind in _KINDS:
            kernels = {key: _kernel(kind, kind.packet.py_kernels[key]) for key in keys}
            _set_kernels(kind, before[kind] | kernels)
        yield
    finally:
        for kind in _KINDS:
            _set_kernels(kind, before[kind])


def recurrent_as_one_op(program: ExportedProgram) -> ExportedProgram:
    """The program with recurrent operators by their names here. A program without any is returned as it is."""
    packets = {kind.packet: kind for kind in _KINDS}
    found = [node for node in program.graph.nodes if node.target in packets]
    if any(_is_projected(node.args) for node in found):
        lstm = torch.ops.aten.lstm.input
        with quiet_torch(), torch.no_grad():
            program = program.run_decompositions({lstm: decomposition_table[lstm]})
        found = [node for node in program.graph.nodes if node.target in packets]
    if not found:
        return program
    module = copied(program)
    for node in module.graph.nodes:
        if node.target in packets:
            node.target = packets[node.target].whole
    return rebuilt(program, module)


def recurrent_translations() -> dict[Any, Callable[..., Any]]:
    """The translation of each of these operators to ONNX."""
    return {kind.whole: translation(kind.onnx) for kind in _KINDS}


def _set_kernels(kind: _Kind, kernels: dict[Any, Any]) -> None:
    packet = kind.packet
    packet.py_kernels.clear()
    packet.py_kernels.update(kernels)
    packet._dispatch_cache.clear()


def _kernel(kind: _Kind, original: Callable[..., Any]) -> Callable[..., Any]:
    def computed(*args: Any) -> Any:
        return original(*args) if _is_projected(args) or not is_fake(args[0]) else _shapes(kind, *args)

    return computed


def _is_projected(args: Sequence[Any]) -> bool:
    """Whether the arguments are those of an LSTM with a projection: five parameters a layer and direction, or three."""
    parameters, has_biases = args[2], args[3]
    layers, bidirectional = args[4], args[7]
    return len(parameters) > (4 if has_biases else 2) * layers * (2 if bidirectional else 1)


def _shapes(kind: _Kind, steps: torch.Tensor, before: Any, *rest: Any) -> tuple[torch.Tensor, ...]:
    """Tensors of the shapes that the operator yields: its outputs, and its last states."""
    bidirectional = rest[5]
    states: list[torch.Tensor] = list(before) if kind.states == 2 else [before]
    width = states[0].shape[-1] * (2 if bidirectional else 1)
    return steps.new_empty([*steps.shape[:-1], width]), *(torch.empty_like(state) for state in states)


for _kind in _KINDS:
    torch.library.register_fake(f"gimlet::{_kind.aten}", partial(_shapes, _kind), lib=_library)
