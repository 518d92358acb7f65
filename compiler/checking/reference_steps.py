"""A reference that goes on from what it has left: what a program that keeps its states is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gimlet.compiler.checking.reference import OTHER_MODEL, Arrays, Reference
from gimlet.runtime.errors import InputError
from gimlet.runtime.manifest import Manifest

STEPS: Final = 3
"""How many runs a program with states is compared over: the first reads zeros, the others what was written."""


class ReferenceSteps:
    """Runs a reference step by step. `states` are its own, by the names of the model's inputs."""

    def __init__(self, reference: Reference, manifest: Manifest, states: Arrays) -> None:
        self.states = states
        self._reference = reference
        self._manifest = manifest
        reference.restart()

    def step(self, inputs: Arrays) -> dict[str, Any]:
        """All outputs by name, those among them that are states too. InputError where they cannot be told apart."""
        found = self._reference.run(self._in_order({**inputs, **self.states}))
        names = self._output_names()
        if len(names) != len(found):
            message = f"has {len(found)} outputs, and the bundle names {len(names)}"
            raise InputError(message, where="the reference", hint=OTHER_MODEL)
        outputs = dict(zip(names, found, strict=True))
        missing = [port.name for port in self._manifest.outputs if port.name not in outputs]
        if missing:
            message = f"has no output {missing[0]!r}, which the bundle has"
            raise InputError(message, where="the reference", hint=OTHER_MODEL)
        # A state that is no output is a buffer of the reference, which keeps it itself.
        kept = [state for state in self._manifest.states if state.result not in outputs]
        outputs |= {state.result: self._reference.kept(state.name) for state in kept}
        self.states = {state.name: outputs[state.result] for state in self._manifest.states}
        return outputs

    def _in_order(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs in the order of the model, which the traced call has."""
        signature = self._manifest.signature
        order = list(arrays) if signature is None else list(signature.inputs())
        return {name: arrays[name] for name in order if name in arrays}

    def _output_names(self) -> list[str]:
        names = self._reference.output_names
        signature = self._manifest.signature
        if names is not None:
            return names
        return [] if signature is None else list(signature.outputs())
