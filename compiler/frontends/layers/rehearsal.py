"""Runs a model once without its numbers, to see that layers that look alike do the same.

A trace of the first and the last layer says nothing of those between: a list of the program that is indexed with the
layer's number, or a counter, may make one of them other. Here all are run, in shapes alone, and each operation is noted
with what it is given. That takes a few milliseconds a layer, where tracing takes a hundred times that.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from gimlet.compiler.frontends.experts import experts_as_one_op
from gimlet.compiler.frontends.layers.marks import NotRepeatedError, Repeat
from gimlet.compiler.frontends.quiet import quiet_torch

_PLAIN = (str, int, float, complex, bool, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)
# What a model may raise that reads numbers where there are none. The whole trace that follows has its own say.
_ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError)


def rehearse(model: torch.nn.Module, repeats: Sequence[Repeat], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """NotRepeatedError where a layer of a group does not do what the first does, or the model cannot be run so."""
    leaves, spec = _pytree.tree_flatten((tuple(args), dict(kwargs)))
    strange = next((leaf for leaf in leaves if not isinstance(leaf, (torch.Tensor, *_PLAIN))), None)
    if strange is not None:
        raise NotRepeatedError(f"the model is given a {type(strange).__name__}")
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    given = [fake.from_tensor(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    fake_args, fake_kwargs = _pytree.tree_unflatten(given, spec)
    recorder = _Recorder()
    try:
        with (
            quiet_torch(),
            torch.no_grad(),
            experts_as_one_op(model),
            _as_before(model),
            fake,
            recorder,
            _noted(repeats, recorder),
        ):
            model(*fake_args, **fake_kwargs)
    except _ERRORS as error:
        # A branch or a loop (`torch.cond`) is compiled when it runs, and what failed there would fail again in a trace.
        torch.compiler.reset()
        raise NotRepeatedError(f"it does not run without numbers ({type(error).__name__})") from error
    for repeat in repeats:
        first = recorder.notes.get(repeat.name(repeat.first))
        for place in repeat.group.places[1:]:
            if first is None or recorder.notes.get(repeat.name(place)) != first:
                raise NotRepeatedError(f"{repeat.name(place)}: it does not do what {repeat.name(repeat.first)} does")


class _Recorder(TorchDispatchMode):
    """Notes the operations of the layer that is run, if one is: what it is, and of each argument what it is."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: dict[str, list[Any]] = {}
        self.layer: str | None = None
        self.known: dict[int, str] = {}
        # Tensors that are let go leave their identity to others.
        self.kept: list[torch.Tensor] = []

    def enter(self, name: str, layer: torch.nn.Module) -> None:
        """Begins to note the operations of a layer, whose weights are noted by their names in it."""
        self.layer = name
        self.notes.setdefault(name, []).append("call")
        self.known = {id(tensor): path for path, tensor in (*layer.named_parameters(), *layer.named_buffers())}
        self.kept = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if self.layer is not None:
            note = (str(func), tuple(map(self._noted, _pytree.tree_leaves((args, kwargs or {})))))
            self.notes[self.layer].append(note)
            for tensor in _pytree.tree_leaves(made):
                if isinstance(tensor, torch.Tensor):
                    self.known.setdefault(id(tensor), f"made {len(self.known)}")
                    self.kept.append(tensor)
        return made

    def _noted(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return repr(value)
        return self.known.get(id(value), "given"), value.dtype, tuple(value.shape)


@contextmanager
def _noted(repeats: Sequence[Repeat], recorder: _Recorder) -> Generator[None]:
    def run(name: str, layer: torch.nn.Module, forward: Any, /, *args: Any, **kwargs: Any) -> Any:
        recorder.enter(name, layer)
        try:
            return forward(*args, **kwargs)
        finally:
            recorder.layer = None

    with ExitStack() as stack:
        for repeat in repeats:
            for place in repeat.group.places:
                layer = repeat.layers[place]
                layer.forward = partial(run, repeat.name(place), layer, layer.forward)
                stack.callback(delattr, layer, "forward")
        yield


@contextmanager
def _as_before(model: torch.nn.Module) -> Generator[None]:
    """Modules are in evaluation mode while this lasts, and keep nothing of it: neither the mode nor an attribute."""
    held: list[dict[str, Any]] = [vars(module) for module in model.modules()]
    held += [values[name] for values in list(held) for name in ("_parameters", "_buffers")]
    before = [(values, dict(values)) for values in held]
    try:
        model.eval()
        yield
    finally:
        for values, kept in before:
            values.clear()
            values.update(kept)
