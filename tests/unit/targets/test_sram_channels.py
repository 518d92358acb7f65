"""Feature maps with channels last, and depthwise convolutions as rows times patches: what they compute and move."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.unit.targets.sram_models import Runner, model_of, reference, relative_error, segment_of
from tests.unit.targets.test_sram_ops import F, normal

from gimlet.runtime.expr import Expr
from gimlet.targets.sram.views import View


def shape(*sizes: int) -> tuple[Expr, ...]:
    return tuple(Expr.const(size) for size in sizes)


def test_order_is_that_of_the_tensor():
    view = View.whole("t", "f32", shape(2, 3, 4, 5))
    assert view.order == (0, 1, 2, 3)
    assert view.transpose((0, 3, 1, 2)).order == (0, 2, 3, 1)
    assert View.whole("t", "f32", shape(1, 3, 4, 5)).transpose((0, 3, 1, 2)).order == (0, 2, 3, 1)


def block(groups: int, kernel: int, **attributes: Any):
    """A mobile network's block: a product of rows, a depthwise convolution, and what is added and pooled behind it."""
    weights = {
        "a": normal(96, 64, 1, 1),
        "b": normal(96),
        "w": normal(96, 96 // groups, kernel, kernel),
        "c": normal(64, 96, 1, 1),
    }
    nodes = [
        helper.make_node("Conv", ["x", "a", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["d"], group=groups, pads=[kernel // 2] * 4, **attributes),
        helper.make_node("Sigmoid", ["d"], ["s"]),
        helper.make_node("Conv", ["s", "c"], ["e"]),
        helper.make_node("MaxPool", ["e"], ["p"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Concat", ["e", "p"], ["y"], axis=1),
    ]
    return weights, nodes


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("groups", [96, 12])
@pytest.mark.parametrize(
    ("kernel", "attributes"), [(3, {}), (5, {"strides": [2, 2]}), (3, {"dilations": [2, 2], "strides": [1, 2]})]
)
def test_blocks_of_convolutions(batch: int, groups: int, kernel: int, attributes: dict[str, Any]):
    weights, nodes = block(groups, kernel, **attributes)
    model = model_of(nodes, {"x": (F, (batch, 64, 13, 11))}, ["y"], weights)
    x = {"x": normal(batch, 64, 13, 11)}
    runner = Runner(segment_of(model), "fp32")
    assert relative_error(runner(**x)[0], reference(model, **x)[0]) < 5e-6


def test_depthwise_convolutions_wait_for_one_load():
    """A load for each kernel position took 3,900 cycles, of which the vector unit multiplied for 1,490."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=120, pads=[2] * 4)
    model = model_of([node], {"x": (F, (1, 120, 28, 28))}, ["y"], {"w": normal(120, 1, 5, 5)})
    assert Runner(segment_of(model), "fp32").artifact.facts["cycles"] < 1000


@pytest.mark.parametrize("behind", ["Reshape", "GatherElements", "ScatterElements"])
def test_what_takes_elements_in_order_gets_a_map_in_order(behind: str):
    """Elements of a group of channels are not one walk where channels lie last: they are copied into ONNX's order."""
    inputs = {
        "Reshape": ["m", "groups"],
        "GatherElements": ["m", "at"],
        "ScatterElements": ["m", "at", "new"],
    }
    weights = {
        "w": normal(24, 16, 3, 3),
        "groups": np.array([0, 6, -1]),
        "at": np.random.default_rng(0).permuted(np.tile(np.arange(9), (1, 24, 7, 1)), axis=3),
        "new": normal(1, 24, 7, 9),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], pads=[1] * 4),
        helper.make_node("Relu", ["h"], ["m"]),
        helper.make_node(behind, inputs[behind], ["g"], **({} if behind == "Reshape" else {"axis": 3})),
        helper.make_node("Tanh", ["g"], ["t"]),
        helper.make_node("Neg", ["m"], ["n"]),
    ]
    used = {"w": weights["w"]} | {name: weights[name] for name in inputs[behind][1:]}
    model = model_of(nodes, {"x": (F, (1, 16, 7, 9))}, ["t", "n"], used)
    x = {"x": normal(1, 16, 7, 9)}
    for found, expected in zip(Runner(segment_of(model), "fp32")(**x), reference(model, **x), strict=True):
        assert relative_error(found, expected) < 5e-6


def test_maps_between_convolutions_stay_on_their_chiplets():
    """With channels first what crosses between chiplets is most of every patch."""
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["h"], pads=[1] * 4),
        helper.make_node("Conv", ["h", "w"], ["y"], pads=[1] * 4),
    ]
    weights = {"v": normal(128, 128, 3, 3), "w": normal(128, 128, 3, 3)}
    segment = segment_of(model_of(nodes, {"x": (F, (1, 128, 28, 28))}, ["y"], weights))
    program = Runner(segment, "fp32").executor.program
    inner = [tensor for tensor in program.tensors if tensor.role == "temporary" and len(tensor.shape) == 4]
    assert inner
    assert all(tensor.shape[-1] == Expr.const(128) for tensor in inner)


def test_a_mean_over_positions_is_as_exact_as_with_channels_first():
    """It was 8·10⁻⁷ off where the emulator summed in the order in which numpy finds the tile in memory."""
    weights = {"a": normal(32, 16, 1, 1), "w": normal(32, 1, 3, 3)}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["d"], group=32, pads=[1] * 4),
        helper.make_node("ReduceMean", ["d"], ["y"], axes=[2, 3]),
    ]
    model = model_of(nodes, {"x": (F, [1, 16, 40, 80])}, ["y"], weights)
    x = normal(1, 16, 40, 80)
    assert relative_error(Runner(segment_of(model), "fp32")(x=x)[0], reference(model, x=x)[0]) < 3e-7


def test_a_mean_over_positions_is_one_kernel():
    """Its parts are divided before they are added: no second kernel waits for the sum."""
    model = model_of([helper.make_node("GlobalAveragePool", ["x"], ["y"])], {"x": (F, [1, 16, 40, 80])}, ["y"])
    runner = Runner(segment_of(model), "fp32")
    x = normal(1, 16, 40, 80)
    assert [kernel.name for kernel in runner.executor.program.kernels] == ["reduce_sum_0"]
    # The reference adds 3,200 float32 numbers in a row, which is less exact.
    exact = x.astype(np.float64).mean((2, 3), keepdims=True)
    assert relative_error(runner(x=x)[0], exact) < 3e-7


@pytest.mark.parametrize("axis", [0, 2])
def test_rows_are_gathered_of_a_table_that_repeats_its_elements(axis: int):
    """As a graph network's features, spread over channels and then taken edge by edge."""
    nodes = [
        helper.make_node("Unsqueeze", ["x", "one"], ["u"]),
        helper.make_node("Expand", ["u", "sizes"], ["table"]),
        helper.make_node("Gather", ["table", "at"], ["y"], axis=axis),
    ]
    weights = {"one": np.array([1]), "sizes": np.array([30, 5, 8])}
    inputs = {"x": normal(30, 8), "at": np.array([7, 0, 7, 3, 1, 2, 2])}
    model = model_of(nodes, {"x": (F, (30, 8)), "at": (TensorProto.INT64, (7,))}, ["y"], weights)
    (found,) = Runner(segment_of(model), "fp32")(**inputs)
    np.testing.assert_array_equal(found, np.take(np.tile(inputs["x"][:, None], (1, 5, 1)), inputs["at"], axis))
