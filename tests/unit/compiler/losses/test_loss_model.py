"""What formats lose: measured op by op, shared along stretches, and checked as a whole."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.unit.compiler.losses.conftest import MODEL
from xdsl.ir import Operation

from gimlet.compiler.losses.evaluator import relative_error
from gimlet.compiler.losses.model import MOST_ALIKE, SETS, LossModel
from gimlet.compiler.placement.model.problem import DeviceSpec, Node, Option, Place, Problem
from gimlet.compiler.placement.model.schedule import loss_of
from gimlet.runtime.errors import InputError, UsageError
from gimlet.targets.api import Rounding

Make = Callable[..., LossModel]


def problem_of(model: LossModel) -> Problem:
    options = {place: Option(1.0) for place in range(len(model.sites))}
    return Problem(
        (DeviceSpec("box"),),
        tuple(Place(0, "rounds", site.format) for site in model.sites),
        tuple(Node(unit.name, unit.op_type, dict(options)) for unit in model.graph.units),
        (),
        {},
    )


def numpy_outputs(model: LossModel, round_products: bool) -> np.ndarray:
    import ml_dtypes

    (x,) = model.runs[0].arguments.values()
    for n in range(8):
        w = model.ctx.weights[f"w{n}"].array()
        if round_products:
            x, w = x.astype(ml_dtypes.bfloat16).astype(np.float32), w.astype(ml_dtypes.bfloat16).astype(np.float32)
        product = x @ w
        if round_products:
            product = product.astype(ml_dtypes.bfloat16).astype(np.float32)
        x = np.tanh(product)
    return x


def test_the_run_is_the_models_and_its_roundings_are_where_the_device_has_them(losses: Make):
    model = losses()
    run = model.runs[0]
    np.testing.assert_allclose(run.values[run.outputs[0]], numpy_outputs(model, False), rtol=1e-4, atol=1e-6)
    place = [1 if unit.op_type == "MatMul" else 0 for unit in model.graph.units]
    roundings = _all(model, 1)
    expected = relative_error(numpy_outputs(model, True), numpy_outputs(model, False))
    assert run.loss(roundings) == pytest.approx(expected, rel=0.05)
    assert run.final_loss(roundings) == pytest.approx(run.loss(roundings), rel=1e-6)
    assert model.loss_of(place) >= run.loss(roundings) * (1 - 1e-6)


def test_losses_of_ops_add_up_to_that_of_all_by_their_squares(losses: Make):
    model = losses()
    problem = model.with_losses(problem_of(model))
    for place in (1, 2):
        products = [place] * len(problem.nodes)
        assert loss_of(problem, products) == pytest.approx(model.runs[0].loss(_all(model, place)), rel=0.5)
    assert all(node.options[0].loss == 0 for node in problem.nodes)
    assert all(node.options[1].loss == 0 for node in problem.nodes if node.op_type == "Tanh")
    ratio = problem.nodes[-2].options[1].loss / problem.nodes[-2].options[2].loss
    assert 4 < ratio < 16  # bf16 has three bits less than fp16.


def _all(model: LossModel, place: int) -> dict[Operation, Rounding]:
    return {op: r for n in range(len(model.graph.units)) for op, r in model.roundings(n, place).items()}


def test_a_product_and_what_follows_share_their_loss(losses: Make):
    apart, together = losses(), losses(("MatMul", "Tanh"))
    products = apart.with_losses(problem_of(apart))
    pairs = together.with_losses(problem_of(together))
    for index in range(0, 16, 2):
        pair = [pairs.nodes[index + offset].options[1].loss for offset in (0, 1)]
        assert all(pair)
        assert math.hypot(*pair) == pytest.approx(products.nodes[index].options[1].loss, rel=0.9)


def test_of_ops_that_are_alike_some_are_measured(losses: Make):
    model = losses()
    problem = model.with_losses(problem_of(model))
    assert model.measured == 2 * MOST_ALIKE
    found = [node.options[1].loss for node in problem.nodes if node.op_type == "MatMul"]
    assert sum(loss == max(found) for loss in found) >= 8 - MOST_ALIKE


def test_a_format_that_values_do_not_survive_is_refused(losses: Make):
    model = losses(scale=1e5)
    problem = model.with_losses(problem_of(model))
    assert problem.nodes[0].refusals == {2: "its values are not finite in fp16"}
    assert 1 in problem.nodes[0].options


def test_a_few_outputs_are_checked_on_more_inputs(losses: Make):
    assert len(losses().runs) == SETS[0]
    text = """
    builtin.module attributes {onnx.opsets = {"" = 21 : i64}} {
      func.func @main(%x: tensor<1x64xf32>) -> tensor<1xf32> {
        %w = onnx.initializer {key = "w0"} : tensor<64x64xf32>
        %a = onnx.MatMul(%x, %w) : (tensor<1x64xf32>, tensor<64x64xf32>) -> tensor<1x64xf32>
        %axes = onnx.initializer {value = dense<1> : tensor<1xi64>} : tensor<1xi64>
        %y = onnx.ReduceMean(%a, %axes) {keepdims = 0} : (tensor<1x64xf32>, tensor<1xi64>) -> tensor<1xf32>
        func.return %y : tensor<1xf32>
      }
    }
    """
    assert len(losses(text=text).runs) == SETS[1]


def test_large_operators_lose_what_their_parts_do(losses: Make):
    text = """
    builtin.module attributes {onnx.opsets = {"" = 13 : i64}} {
      func.func @main(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
        %w = onnx.initializer {key = "w0"} : tensor<64x64xf32>
        %a = onnx.MatMul(%x, %w) : (tensor<4x64xf32>, tensor<64x64xf32>) -> tensor<4x64xf32>
        %y = onnx.Swish(%a) {onnx.parts = @parts.Swish.1} : (tensor<4x64xf32>) -> tensor<4x64xf32> loc("act")
        func.return %y : tensor<4x64xf32>
      }
      func.func private @parts.Swish.1(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
        %gate = onnx.Sigmoid(%x) : (tensor<4x64xf32>) -> tensor<4x64xf32>
        %y = onnx.Mul(%x, %gate) : (tensor<4x64xf32>, tensor<4x64xf32>) -> tensor<4x64xf32>
        func.return %y : tensor<4x64xf32>
      }
    }
    """
    model = losses(("Mul",), text=text)
    problem = model.with_losses(problem_of(model))
    assert [node.op_type for node in problem.nodes] == ["MatMul", "Swish"]
    assert problem.nodes[0].options[1].loss == 0.0
    assert problem.nodes[1].options[1].loss == pytest.approx(2e-3, rel=0.5)
    assert model.loss_of((1, 1)) >= problem.nodes[1].options[1].loss


def test_inputs_that_are_given_are_measured_on(losses: Make):
    zeros = np.zeros((4, 64), np.float32)
    model = losses(inputs={"x0": zeros})
    assert len(model.runs) == 1
    assert model.inputs_text == "the inputs given"
    assert model.loss_of([1] * len(model.graph.units)) == 0.0


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"y": np.zeros(1, np.float32)}, UsageError, "input 'x0' is not given.*those given are: y"),
        ({"x0": np.zeros((4, 64), np.int64)}, InputError, "'x0' is int64"),
        ({"x0": np.zeros((4, 63), np.float32)}, InputError, r"'x0' is float32 \[4, 63\], not x0: float32\[4, 64\]"),
        ({"x0": np.zeros((4, 64, 1), np.float32)}, InputError, r"'x0' is float32 \[4, 64, 1\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(losses: Make, inputs: dict[str, np.ndarray], error: type, message: str):
    model = losses(inputs=inputs)
    with pytest.raises(error, match=f"(?s){message}"):
        model.loss_of([1] * len(model.graph.units))


def test_weights_without_values_are_refused_by_name(losses: Make):
    model = losses()
    model.ctx.weights.add_meta("nowhere", np.dtype(np.float32), (64, 64))
    for unit in model.graph.units[:1]:
        owner = unit.ops[0].operands[1].owner
        owner.properties["key"] = replace(owner.properties["key"], data="nowhere")
    with pytest.raises(InputError, match="measured with the weights"):
        model.with_losses(problem_of(model))


def test_a_model_without_floating_point_outputs_is_refused(losses: Make):
    text = """
    builtin.module attributes {onnx.opsets = {"" = 21 : i64}} {
      func.func @main(%x: tensor<4x64xf32>) -> tensor<4xi64> {
        %w = onnx.initializer {key = "w0"} : tensor<64x64xf32>
        %a = onnx.MatMul(%x, %w) : (tensor<4x64xf32>, tensor<64x64xf32>) -> tensor<4x64xf32>
        %y = onnx.ArgMax(%a) {axis = 1, keepdims = 0} : (tensor<4x64xf32>) -> tensor<4xi64>
        func.return %y : tensor<4xi64>
      }
    }
    """
    model = losses(text=text)
    with pytest.raises(UsageError, match="no floating-point output"):
        model.with_losses(problem_of(model))


def test_relative_error():
    ones = np.ones(4, np.float32)
    assert relative_error(1.1 * ones, ones) == pytest.approx(0.1, rel=1e-6)
    assert relative_error(ones * np.nan, ones) == float("inf")
    assert relative_error(ones, 0 * ones) == float("inf")
    assert relative_error(0 * ones, 0 * ones) == 0.0
    assert relative_error(np.ones(3), ones) == float("inf")


def test_a_second_compile_measures_nothing(losses: Make, tmp_path: Path):
    first = losses(cache=tmp_path)
    problem, place = first.with_losses(problem_of(first)), [1] * len(first.graph.units)
    total, inputs = first.loss_of(place), first.inputs_text
    assert first.measured
    again = losses(cache=tmp_path)
    assert again.with_losses(problem_of(again)) == problem
    assert (again.loss_of(place), again.inputs_text) == (total, inputs)
    assert again.measured == 0
    assert "runs" not in vars(again)


@pytest.mark.parametrize("change", ["weights", "inputs", "seed", "operator", "unreadable"])
def test_what_a_loss_hangs_on_is_measured_again(losses: Make, tmp_path: Path, change: str):
    first = losses(cache=tmp_path)
    first.with_losses(problem_of(first))
    inputs = {"x0": np.ones((4, 64), np.float32)}
    more = {
        "weights": {"scale": 0.2},
        "inputs": {"inputs": inputs},
        "seed": {"seed": 1},
        "operator": {"text": MODEL.replace("Tanh", "Sigmoid")},
    }
    again = losses(cache=tmp_path, **more.get(change, {}))
    if change == "unreadable":
        for file in (tmp_path / "losses").iterdir():
            file.write_text("{")
    again.with_losses(problem_of(again))
    assert again.measured == first.measured


def test_other_roundings_are_measured_besides(losses: Make, tmp_path: Path):
    first = losses(cache=tmp_path)
    first.with_losses(problem_of(first))
    more = losses(("MatMul", "Tanh"), cache=tmp_path)
    more.with_losses(problem_of(more))
    assert more.measured
    for rounded in (("MatMul",), ("MatMul", "Tanh")):
        again = losses(rounded, cache=tmp_path)
        again.with_losses(problem_of(again))
        assert again.measured == 0
