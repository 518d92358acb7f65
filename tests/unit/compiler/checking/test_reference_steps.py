"""A reference step by step: another model than the bundle's is refused by what its outputs are."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pytest

from gimlet.compiler.checking.reference import Reference
from gimlet.compiler.checking.reference_steps import ReferenceSteps
from gimlet.runtime.errors import InputError
from gimlet.runtime.manifest import Manifest, Port


class Fake:
    """A reference with outputs of these names, whose run gives `count` arrays."""

    def __init__(self, names: list[str], count: int) -> None:
        self.output_names, self.count = names, count

    def restart(self) -> None:
        pass

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        return [np.zeros(1)] * self.count


class OneOutput:
    outputs = (Port("y", "y"),)
    states = ()
    signature = None


def step(names: list[str], count: int) -> dict[str, Any]:
    steps = ReferenceSteps(cast("Reference", Fake(names, count)), cast("Manifest", OneOutput()), {})
    return steps.step({})


def test_the_outputs_of_another_model_are_refused():
    assert list(step(["y"], 1)) == ["y"]
    with pytest.raises(InputError, match="has no output 'y', which the bundle has") as refused:
        step(["z"], 1)
    assert "is it the model that the bundle was compiled from" in (refused.value.hint or "")
    with pytest.raises(InputError, match="has 2 outputs, and the bundle names 1"):
        step(["y"], 2)
