"""Control flow, functions and sparse weights to the end: compiled, run, and explained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.onnx_suite.stages import run_onnxruntime
from tests.unit.dialects.test_onnx_structures import captured_values, functions, sparse_initializer

import gimlet

CONTROL_FLOW = "control flow is one unit, with all that is in its bodies: outer (6 ops inside)"


@pytest.mark.parametrize(
    ("build", "bind", "feeds", "notes"),
    [
        (
            captured_values,
            {"n": "1:3:8"},
            {"s": np.zeros(2, np.float32), "rows": np.arange(6, dtype=np.float32).reshape(3, 2)},
            [CONTROL_FLOW],
        ),
        (functions, {}, {"x": np.array([-2, -1, 0, 3], np.float32)}, []),
        (sparse_initializer, {}, {"x": np.ones((3, 4), np.float32)}, []),
    ],
)
def test_a_bundle_computes_what_the_model_does(
    build: Callable[[], onnx.ModelProto], bind: dict[str, Any], feeds: dict[str, Any], notes: list[str], tmp_path: Path
):
    model = build()
    bundle = gimlet.compile(model, output=tmp_path / "m.gimlet", bind=bind)
    with gimlet.load(bundle.path) as program:
        found = program(**feeds)
    expected = run_onnxruntime(model, feeds)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert bundle.placement is not None
    assert bundle.placement.explain()["summary"]["notes"] == notes
