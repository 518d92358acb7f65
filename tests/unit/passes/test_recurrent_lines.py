"""LSTM, GRU and RNN written out in other operators, against ONNX Runtime's kernels."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession
from tests.unit.passes.test_einsum_lines import operators, written_out

from gimlet.passes.recurrent_lines import MOST_STEPS

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
Values = dict[str, np.ndarray[Any, Any]]


def recurrent_model(
    op: str,
    steps: int | str,
    direction: str = "forward",
    *,
    batch: int | str = 2,
    hidden: int = 4,
    layout: int = 0,
    given: tuple[str, ...] = ("bias", "states"),
    **attributes: Any,
) -> onnx.ModelProto:
    """One node of 3 features, with some of a bias, states, peepholes and lengths."""
    ways, gates = DIRECTIONS[direction], GATES[op]
    generator = np.random.default_rng(0)
    shapes = {"W": [ways, gates * hidden, 3], "R": [ways, gates * hidden, hidden]}
    names = ["X", "W", "R", "", ""]
    if "bias" in given:
        names[3], shapes["B"] = "B", [ways, 2 * gates * hidden]
    state = [batch, ways, hidden] if layout else [ways, batch, hidden]
    inputs = {"X": [batch, steps, 3] if layout else [steps, batch, 3]}
    inputs |= {name: state for name in ("h", "c")[: 2 if op == "LSTM" else 1] if "states" in given}
    names += [name if name in inputs else "" for name in ("h", "c")]
    if "peepholes" in given:
        names, shapes["P"] = [*names, "P"], [ways, 3 * hidden]
    if "lengths" in given:
        names[4] = "lengths"
    while not names[-1]:
        names.pop()
    weights = {name: generator.standard_normal(shape).astype(np.float32) / 2 for name, shape in shapes.items()}
    results = ["y", "last", "cell"][: 3 if op == "LSTM" else 2]
    node = helper.make_node(
        op, names, results, "op", hidden_size=hidden, direction=direction, layout=layout, **attributes
    )
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    if "lengths" in given:
        values.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, [batch]))
    graph = helper.make_graph(
        [node],
        "alone",
        values,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in results],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def values_of(model: onnx.ModelProto, batch: int = 2) -> Values:
    generator = np.random.default_rng(1)
    shapes = {each.name: [d.dim_value or batch for d in each.type.tensor_type.shape.dim] for each in model.graph.input}
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def run(model: onnx.ModelProto, values: Values) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(each) for each in InferenceSession(model.SerializeToString()).run(None, dict(values))]


def check(op: str, steps: int, direction: str, batch: int | str, layout: int, **how: Any) -> None:
    """ONNX Runtime has no kernel with the batch first: there its other one gets the same sequences turned round."""
    model = recurrent_model(op, steps, direction, batch=batch, layout=layout, **how)
    module, after = written_out(model)
    assert op not in operators(module)
    values = values_of(model)
    found = run(after, values)
    if layout:
        model = recurrent_model(op, steps, direction, batch=batch, **how)
        values = {name: np.ascontiguousarray(value.swapaxes(0, 1)) for name, value in values.items()}
    expected = run(model, values)
    if layout:
        expected = [expected[0].transpose(2, 0, 1, 3), *(each.swapaxes(0, 1) for each in expected[1:])]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@given(data=st.data())
@settings(max_examples=6, deadline=None)
def test_it_computes_what_the_kernels_do(data: st.DataObject):
    op = data.draw(st.sampled_from(sorted(GATES)))
    how: dict[str, Any] = {"clip": 0.4} if data.draw(st.booleans()) else {}
    given = data.draw(st.sets(st.sampled_from(["bias", "states", *(["peepholes"] if op == "LSTM" else [])])))
    direction = data.draw(st.sampled_from(sorted(DIRECTIONS)))
    if op == "GRU":
        how["linear_before_reset"] = data.draw(st.integers(0, 1))
    if data.draw(st.booleans()):
        names = st.sampled_from(["Relu", "Sigmoid", "Tanh", "Softsign"])
        count = {"LSTM": 3, "GRU": 2, "RNN": 1}[op] * DIRECTIONS[direction]
        how["activations"] = data.draw(st.lists(names, min_size=count, max_size=count))
    hidden, batch = data.draw(st.integers(1, 5)), data.draw(st.sampled_from([1, 2, "n"]))
    layout, steps = data.draw(st.integers(0, 1)), data.draw(st.integers(1, 4))
    check(op, steps, direction, batch, layout, hidden=hidden, given=tuple(given), **how)


@pytest.mark.parametrize("direction", sorted(DIRECTIONS))
@pytest.mark.parametrize("op", sorted(GATES))
def test_directions_from_given_states(op: str, direction: str):
    check(op, 3, direction, "n", 0)


@pytest.mark.parametrize(
    ("steps", "how"),
    [
        ("n", {}),
        (MOST_STEPS + 1, {}),
        (MOST_STEPS, {"direction": "bidirectional"}),
        (3, {"given": ("bias", "lengths")}),
        (3, {"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_alpha": [0.2]}),
        (3, {"activations": ["Sigmoid", "Elu", "Tanh"]}),
        (3, {"input_forget": 1}),
    ],
)
def test_other_cases_are_left(steps: int | str, how: dict[str, Any]):
    module, _ = written_out(recurrent_model("LSTM", steps, **how))
    assert "LSTM" in operators(module)
