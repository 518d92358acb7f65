"""What ONNX Runtime makes of ops among their neighbours, their kernels' work, and what must hold for their costs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tests.unit.targets.host_ops import HOST, KIND, Node, one_op, ops_of, weight
from xdsl.ir import Operation

from gimlet.dialects.onnx import OnnxOp
from gimlet.targets.api import HardwareKind
from gimlet.targets.onnxruntime.amounts import missed, product
from gimlet.targets.onnxruntime.features import features, has_kernel_model
from gimlet.targets.onnxruntime.host_model import SERIAL_S, host_figures, host_seconds
from gimlet.targets.onnxruntime.layout import blocked_convolution, fused_into, is_blocked, is_fused_away
from gimlet.targets.onnxruntime.movement import transposed
from gimlet.targets.onnxruntime.quantized import is_integer_product
from gimlet.targets.onnxruntime.target import OnnxRuntimeTarget

SAME = {"pads": [1, 1, 1, 1]}


def convolutions(filters: int = 32, channels: int = 16, **attributes: Any) -> dict[str, OnnxOp]:
    nodes: list[Node] = [
        ("Conv", ("x", "w"), "a", SAME | attributes),
        ("Relu", ("a",), "b", {}),
        ("Conv", ("b", "v"), "c", {}),
    ]
    group = attributes.get("group", 1)
    weights = weight("w", filters, channels // group, 3, 3), weight("v", 8, filters, 1, 1)
    return ops_of(nodes, [1, channels, 24, 24], *weights)


@pytest.mark.parametrize(
    ("filters", "channels", "group", "kind"),
    [
        (32, 3, 1, "first"),
        (32, 16, 1, "full"),
        (32, 32, 32, "depthwise"),
        (24, 24, 24, "depthwise"),
        (18, 18, 18, None),
        (64, 32, 32, None),
        (64, 64, 4, "full"),
        (32, 32, 4, None),
        (32, 18, 1, None),
    ],
)
def test_which_convolutions_work_in_blocks(filters: int, channels: int, group: int, kind: str | None):
    ops = convolutions(filters, channels, group=group)
    assert blocked_convolution(ops["a"], {}) == kind
    assert is_blocked(ops["a"].results[0], {}) == (kind is not None)
    assert is_blocked(ops["b"].results[0], {}) == (kind is not None)


def test_between_convolutions_nothing_is_reordered():
    together = convolutions()
    alone = ops_of([("Conv", ("x", "w"), "a", SAME)], [1, 16, 24, 24], weight("w", 32, 16, 3, 3))
    moved = 2 * 4 * 16 * 24 * 24
    assert features(together["a"], {})["reorder.bytes"] == moved
    assert features(alone["a"], {})["reorder.bytes"] == moved + 2 * 4 * 32 * 24 * 24
    assert features(alone["a"], {})["call"] == 3
    assert "reorder.bytes" not in features(together["b"], {}, cut=True)


def test_what_convolutions_take_on():
    nodes: list[Node] = [
        ("Conv", ("x", "w"), "a", SAME),
        ("BatchNormalization", ("a", "s", "s", "s", "s"), "b", {}),
        ("Conv", ("x", "w"), "c", SAME),
        ("Add", ("b", "c"), "d", {}),
        ("Relu", ("d",), "e", {}),
        ("Exp", ("e",), "f", {}),
        ("Relu", ("f",), "g", {}),
    ]
    ops = ops_of(nodes, [1, 16, 8, 8], weight("w", 16, 16, 3, 3), weight("s", 16))
    into = {name: fused_into(op, {}) for name, op in ops.items()}
    assert into["b"] is ops["a"]
    assert into["d"] in (ops["b"], ops["c"])
    assert into["e"] is ops["d"]
    assert [into[name] for name in ("a", "c", "f", "g")] == [None] * 4
    target = OnnxRuntimeTarget()
    assert target.fusable(ops["d"], ops["e"])
    assert not target.fusable(ops["f"], ops["g"])


def test_a_result_that_others_read_too_is_not_fused_into():
    nodes: list[Node] = [
        ("Conv", ("x", "w"), "a", SAME),
        ("Relu", ("a",), "b", {}),
        ("Exp", ("a",), "c", {}),
    ]
    ops = ops_of(nodes, [1, 16, 8, 8], weight("w", 16, 16, 3, 3))
    assert not is_fused_away(ops["b"], {})


def test_a_bias_belongs_to_its_product():
    nodes: list[Node] = [
        ("MatMul", ("x", "w"), "a", {}),
        ("Add", ("a", "b"), "c", {}),
        ("Add", ("c", "x"), "d", {}),
    ]
    ops = ops_of(nodes, [1, 8, 32], weight("w", 32, 32), weight("b", 32))
    assert [is_fused_away(ops[name], {}) for name in "acd"] == [False, True, False]


def test_activations_that_are_written_out_are_one_kernel():
    two, half, one = weight("two"), weight("half"), weight("one")
    gelu: list[Node] = [
        ("Div", ("x", "two"), "a", {}),
        ("Erf", ("a",), "b", {}),
        ("Add", ("b", "one"), "c", {}),
        ("Mul", ("x", "c"), "d", {}),
        ("Mul", ("d", "half"), "e", {}),
        ("Sigmoid", ("e",), "f", {}),
        ("Mul", ("e", "f"), "g", {}),
    ]
    ops = ops_of(gelu, [64, 64], two, half, one)
    assert [name for name, op in ops.items() if not is_fused_away(op, {})] == ["b", "f"]


@pytest.mark.parametrize("centred", [True, False])
def test_a_normalisation_that_is_written_out_is_one_kernel(centred: bool):
    """The residual before it and what follows it are not part of it."""
    first: list[Node] = [("Add", ("x", "x"), "r", {})]
    if centred:
        first += [("ReduceMean", ("r", "axes"), "m", {}), ("Sub", ("r", "m"), "s", {})]
    value = "s" if centred else "r"
    nodes: list[Node] = [
        *first,
        ("Pow", (value, "two"), "q", {}),
        ("ReduceMean", ("q", "axes"), "v", {}),
        ("Add", ("v", "eps"), "e", {}),
        ("Sqrt", ("e",), "root", {}),
        ("Div", (value, "root"), "n", {}),
        ("Mul", ("n", "scale"), "y", {}),
        ("Exp", ("y",), "z", {}),
    ]
    axes = numpy_helper.from_array(np.array([-1], np.int64), "axes")
    ops = ops_of(nodes, [1, 8, 32], axes, weight("two"), weight("eps"), weight("scale", 32))
    assert [name for name, op in ops.items() if not is_fused_away(op, {})] == ["r", "root", "z"]
    assert features(ops["root"], {})["norm.values"] == 8 * 32
    assert "norm.values" not in features(ops["r"], {})


def test_a_long_chain_is_looked_at_quickly():
    """Each op is asked about once, and looks no further than a convolution's tail reaches."""
    nodes: list[Node] = [("Add", (f"t{i}" if i else "x", f"t{i}" if i else "x"), f"t{i + 1}", {}) for i in range(1500)]
    ops = ops_of(nodes, [1, 16, 4, 4])
    assert all(features(op, {})["call"] == 1 for op in ops.values())


def test_work_of_a_product():
    found = product(13, 64, 20, 3, constant=False)
    assert found["gemm.flops"] == 2 * 3 * 13 * 32 * 64
    assert found["gemm.passes"] == 3 * 2 * 32 * 64
    assert found["gemm.right.bytes"] == found["gemm.packed"] == 4 * 3 * 64 * 20


def test_work_of_a_convolution():
    found = features(convolutions(40, 17)["a"], {})
    assert found["conv.columns.values"] == 24 * 24 * 9 * 17
    assert found["conv.columns.rows"] == 24 * 9 * 17
    blocked = features(convolutions(80, 16)["a"], {})
    assert blocked["conv.full.flops"] == 2 * 24 * 24 * 9 * 16 * 80
    assert blocked["conv.full.passes"] == 24 * 24 * 9 * 16 * 2


def convolution(shape: Sequence[int], filters: int, kernel: Sequence[int], **attributes: Any) -> dict[str, float]:
    channels = shape[1] // attributes.get("group", 1)
    weights = weight("w", filters, channels, *kernel)
    return features(ops_of([("Conv", ("x", "w"), "a", attributes)], shape, weights)["a"], {})


def test_convolutions_that_are_not_in_blocks_write_their_windows_out():
    line = convolution([2, 32, 100], 32, [5], group=32)
    assert line["conv.columns.values"] == line["conv.row.values"] == 2 * 32 * 96 * 5
    assert (line["conv.columns.rows"], line["conv.plain.calls"]) == (2 * 32 * 5, 64)
    several = convolution([1, 16, 20, 20], 32, [3, 3], group=16)
    assert several["gemm.packed"] == 4 * several["conv.columns.values"] == 4 * 16 * 18 * 18 * 9
    apart = convolution([1, 6, 9, 9, 9], 6, [3, 3, 3], group=6, strides=[2, 2, 2])
    assert apart["conv.columns.strided.values"] == 6 * 4**3 * 27
    assert not any("columns" in name for name in convolution([1, 18, 20, 20], 8, [1, 1]))


def test_a_depthwise_convolution_fills_its_last_block():
    found = convolution([1, 24, 20, 20], 24, [3, 3], group=24)
    assert found["conv.depthwise.flops"] == 2 * 18 * 18 * 9 * 32


def recurrent(op: str, batch: int, hidden: int) -> dict[str, float]:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    weights = weight("w", 1, gates * hidden, 8), weight("r", 1, gates * hidden, hidden)
    ops = ops_of([(op, ("x", "w", "r"), "y", {"hidden_size": hidden})], [10, batch, 8], *weights)
    return features(ops["y"], {})


def test_each_step_reads_the_weights_of_the_state():
    one = recurrent("LSTM", 1, 256)
    assert one["recurrent.row.bytes"] == 10 * 4 * 4 * 256 * 256
    assert "recurrent.row.bytes" not in recurrent("LSTM", 4, 256)
    assert "recurrent.packed" not in one
    assert recurrent("RNN", 4, 256)["recurrent.packed"] == 4 * (256 * 8 + 10 * 256 * 256)


def test_what_no_cache_keeps_comes_from_main_memory_in_each_step():
    assert "dram.recurrent" not in recurrent("LSTM", 1, 1024)
    assert 0.8 < recurrent("LSTM", 1, 2048)["dram.recurrent"] / (10 * 4 * 4 * 2048**2) < 1


@given(amount=st.floats(0, 1e9), more=st.floats(0, 1e8))
def test_more_bytes_in_turn_miss_more(amount: float, more: float):
    assert 0 <= missed(amount) <= amount
    assert missed(amount + more) >= missed(amount)


@pytest.mark.parametrize(
    ("dims", "perm", "kind"),
    [
        ((2, 30, 40), (0, 2, 1), "transpose.single.values"),
        ((1, 30, 40, 3), (0, 3, 1, 2), "transpose.single.values"),
        ((20, 30, 40), (2, 1, 0), "transpose.any.values"),
        ((4, 20, 30, 8), (0, 2, 1, 3), "transpose.single.runs"),
        ((4, 2, 3, 5, 8), (3, 1, 0, 2, 4), "transpose.any.runs"),
    ],
)
def test_how_a_transpose_goes_through_memory(dims: tuple[int, ...], perm: tuple[int, ...], kind: str):
    run = dims[-1] if kind.endswith("runs") else 1
    assert {name: amount for name, amount in transposed(dims, perm).items() if amount} == {kind: np.prod(dims) / run}


@pytest.mark.parametrize(
    ("dims", "perm", "varying", "name", "expected"),
    [
        pytest.param((1024, 1024), (1, 0), (), "single.far", True, id="rows in the same few sets"),
        pytest.param((1024, 1040), (1, 0), (), "single.far", False, id="rows in many sets"),
        pytest.param((1024, 1024), (1, 0), (1,), "single.far", False, id="a stride that varies"),
        pytest.param((40000, 320), (1, 0), (), "single.far", True, id="more rows than a cache has lines"),
        pytest.param((3000, 3000), (1, 0), (), "single.far", True, id="more pages than a processor remembers"),
        pytest.param((60000, 16), (1, 0), (), "single.far", False, id="lines that are fetched ahead"),
        pytest.param((64, 300, 200), (2, 1, 0), (), "any.far", True, id="no single dimension moves"),
        pytest.param((3, 9000), (1, 0), (), "single.narrow", True, id="rows of three"),
        pytest.param((3, 9000), (1, 0), (0,), "single.narrow", False, id="three rows for now"),
        pytest.param((9000, 3), (1, 0), (), "single.narrow", False, id="columns of three"),
    ],
)
def test_what_a_transpose_finds_near(
    dims: tuple[int, ...], perm: tuple[int, ...], varying: Sequence[int], name: str, expected: bool
):
    found = transposed(dims, perm, frozenset(varying))
    assert found.get(f"transpose.{name}.values", 0.0) == expected * np.prod(dims)


def test_a_dimension_of_one_moves_for_nothing():
    assert transposed((1, 8, 1, 4), (2, 1, 0, 3)) == {}


def rare(op: str, shape: Sequence[int], *names: str, **attributes: Any) -> dict[str, float]:
    """One op's work; `names` are of its other inputs."""
    constants = {
        "rows": np.array([0], np.int64),
        "middle": np.array([1], np.int64),
        "columns": np.array([2], np.int64),
    }
    weights = [numpy_helper.from_array(constants[name], name) for name in names if name]
    return features(ops_of([(op, ("x", *names), "y", attributes)], shape, *weights)["y"], {})


def test_a_softmax_along_another_axis_is_between_transposes():
    assert "transpose.single.values" not in rare("Softmax", [4, 20, 30])
    between = rare("Softmax", [4, 20, 30], axis=1)
    assert (between["transpose.single.values"], between["softmax.rows"]) == (2 * 4 * 20 * 30, 4 * 30)


@pytest.mark.parametrize(("axes", "place"), [("rows", "first"), ("middle", "between"), ("columns", "last")])
def test_what_a_reduction_takes_depends_on_where_its_axes_are(axes: str, place: str):
    """Also where all dimensions are alike."""
    assert rare("ReduceSum", [20, 20, 20], axes)[f"reduce.sum.{place}.values"] == 8000
    assert rare("ReduceL2", [20, 20, 20], axes)[f"reduce.each.{place}.values"] == 8000
    assert rare("ReduceSum", [1, 20, 20], "middle")["reduce.each.between.values"] == 400


def test_reductions_over_rows_in_the_same_few_sets_are_far():
    assert rare("ReduceMax", [1, 1024, 32, 32], "middle")["reduce.far.values"] == 1 << 20
    assert "reduce.far.values" not in rare("ReduceMax", [1, 1024, 33, 31], "middle")
    assert "reduce.far.values" not in rare("ReduceMax", [1024, 1, 1024], "columns")


def test_what_is_made_of_weights_alone_costs_nothing():
    """ONNX Runtime transposes the weights once, and packs them."""
    nodes: list[Node] = [("Transpose", ("w",), "t", {"perm": [1, 0]}), ("MatMul", ("x", "t"), "y", {})]
    ops = ops_of(nodes, [5, 20], weight("w", 30, 20))
    plain = ops_of([("MatMul", ("x", "w"), "y", {})], [5, 20], weight("w", 20, 30))
    assert features(ops["t"], {}) == {}
    assert features(ops["y"], {}) == features(plain["y"], {})


HALVES = [
    ("Add", ("x", "x"), "a", {}),
    ("Mul", ("a", "w"), "b", {}),
    ("Transpose", ("b",), "c", {}),
    ("Exp", ("c",), "d", {}),
    ("Log", ("c",), "e", {}),
]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (TensorProto.FLOAT, (0, 0, 0, 0, 0)),
        # x once, then what Transpose reads; then for two readers of one value a half each, and what they give.
        (TensorProto.FLOAT16, (1, 1, 0, 1.5, 1.5)),
    ],
)
def test_what_is_computed_in_float32_is_cast_where_it_comes_from_elsewhere(dtype: int, expected: Sequence[float]):
    ops = ops_of(HALVES, [30, 20], weight("w", 30, 20), dtype=dtype)
    assert [features(op, {}).get("cast.values", 0.0) for op in ops.values()] == [600 * part for part in expected]


@pytest.mark.parametrize(
    ("kind", "dtype", "times"),
    [
        ("MatMul", TensorProto.FLOAT, 1),
        ("MatMul", TensorProto.BFLOAT16, 2),
        # Rows of a table are copied as they are.
        ("Gather", TensorProto.BFLOAT16, 1),
    ],
)
def test_weights_of_what_is_computed_in_float32_are_kept_in_it(kind: str, dtype: int, times: int):
    rows, columns = 640, 512
    nodes: list[Node] = [("MatMul", ("x", "w"), "y", {})]
    if kind == "Gather":
        nodes = [("Cast", ("x",), "i", {"to": TensorProto.INT64}), ("Gather", ("w", "i"), "y", {})]
    op = ops_of(nodes, [1, rows], weight("w", rows, columns), dtype=dtype)["y"]
    stored = rows * columns * (4 if dtype == TensorProto.FLOAT else 2)
    cost = OnnxRuntimeTarget().op_cost(op, HOST, "fp32", {})
    assert cost.weight_bytes == pytest.approx(times * stored, rel=0.01)
    assert features(op, {}).get("weights", 0) == (times * stored if kind == "MatMul" else 0)


def test_in_bfloat16_each_result_is_rounded():
    ops = ops_of(HALVES[:2], [30, 20], weight("w", 30, 20), dtype=TensorProto.BFLOAT16)
    assert [features(op, {})["cast.values"] for op in ops.values()] == [1200, 1200]


@pytest.mark.parametrize(
    ("where", "rounded", "scale", "kind"),
    [
        ("asymmetric", "floor", 2.0, "nearest.repeated"),
        ("half_pixel", "floor", 2.0, "nearest"),
        ("asymmetric", "round_prefer_floor", 2.0, "nearest"),
        ("asymmetric", "floor", 3.0, "nearest"),
    ],
)
def test_an_image_whose_values_are_repeated_has_a_kernel_of_its_own(where: str, rounded: str, scale: float, kind: str):
    scales = numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "s")
    settings = {"mode": "nearest", "coordinate_transformation_mode": where, "nearest_mode": rounded}
    ops = ops_of([("Resize", ("x", "", "s"), "y", settings)], [1, 3, 8, 8], scales)
    assert features(ops["y"], {})[f"resize.{kind}.values"] == 3 * (8 * scale) ** 2


def test_only_pools_of_full_blocks_work_in_blocks():
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    assert rare("MaxPool", [1, 32, 8, 8], **window)["pool.blocked.values"] == 32 * 64
    assert rare("MaxPool", [1, 24, 8, 8], **window)["pool.most.values"] == 24 * (64 + 32)


@pytest.mark.parametrize(
    ("mode", "where", "scales", "blocked"),
    [
        ("linear", "half_pixel", "twice", True),
        ("linear", "half_pixel", "half more", False),
        ("nearest", "asymmetric", "twice", True),
        ("nearest", "half_pixel", "twice", False),
        ("cubic", "half_pixel", "twice", False),
    ],
)
def test_which_images_are_resized_in_blocks(mode: str, where: str, scales: str, blocked: bool):
    sizes = numpy_helper.from_array(np.array([1, 1, *[2.0 if scales == "twice" else 1.5] * 2], np.float32), "s")
    nodes: list[Node] = [
        ("Conv", ("x", "w"), "a", {}),
        ("Resize", ("a", "", "s"), "b", {"mode": mode, "coordinate_transformation_mode": where}),
    ]
    ops = ops_of(nodes, [1, 16, 8, 8], weight("w", 16, 16, 1, 1), sizes)
    assert is_blocked(ops["b"].results[0], {}) == blocked


def test_each_value_that_topk_keeps_goes_through_a_heap():
    graph = helper.make_graph(
        [helper.make_node("TopK", ["x", "k"], ["y", "i"], axis=-1)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 100])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, 3])],
        [numpy_helper.from_array(np.array([3], np.int64), "k")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert features(one_op(model), {})["topk.kept.values"] == 5 * 3 * 2


def quantized(*, again: bool) -> dict[str, OnnxOp]:
    """A product between Q/DQ pairs, and without the last QuantizeLinear if not `again`."""
    nodes: list[Node] = [
        ("QuantizeLinear", ("x", "s", "z"), "q", {}),
        ("DequantizeLinear", ("q", "s", "z"), "d", {}),
        ("DequantizeLinear", ("w", "s", "z"), "e", {}),
        ("MatMul", ("d", "e"), "y", {}),
        ("QuantizeLinear", ("y", "s", "z"), "p", {}) if again else ("Exp", ("y",), "p", {}),
    ]
    scale, zero = np.float32(0.1), np.int8(0)
    weights = {"s": np.array(scale), "z": np.array(zero), "w": np.ones((32, 48), np.int8)}
    return ops_of(nodes, [16, 32], *(numpy_helper.from_array(array, name) for name, array in weights.items()))


@pytest.mark.parametrize("again", [True, False])
def test_a_product_between_pairs_is_one_of_integers(again: bool):
    ops = quantized(again=again)
    found = {name: features(op, {}) for name, op in ops.items()}
    assert found["y"]["integer.flops"] == 2 * 16 * 32 * 48
    assert "gemm.flops" not in found["y"]
    assert found["d"] == found["e"] == {}
    assert found["q"]
    assert bool(found["p"]) != again


def test_a_convolution_that_is_not_quantized_again_is_in_floats():
    ops = quantized(again=False)
    assert is_integer_product(ops["y"])
    nodes: list[Node] = [
        ("DequantizeLinear", ("w", "s"), "e", {}),
        ("Conv", ("x", "e"), "y", {}),
        ("QuantizeLinear", ("y", "s"), "p", {}),
    ]
    weights = {"s": np.array(np.float32(0.1)), "w": np.ones((16, 16, 1, 1), np.int8)}
    half = ops_of(nodes, [1, 16, 4, 4], *(numpy_helper.from_array(array, name) for name, array in weights.items()))
    assert not is_integer_product(half["y"])
    assert features(half["p"], {})


def test_weights_come_from_where_all_of_them_fit():
    op = convolutions()["a"]
    assert "cache.weights" not in features(op, {})
    assert features(op, {}, 2 << 20)["cache.weights"] == features(op, {})["weights"]
    assert features(op, {}, 1 << 30)["dram.weights"] == features(op, {})["weights"]


def test_every_figure_is_used_and_none_is_negative():
    assert all(seconds >= 0 for seconds in host_figures().seconds.values())
    for op in convolutions().values():
        assert features(op, {}).keys() <= host_figures().seconds.keys()


def test_products_without_a_model_are_left_to_the_roofline():
    ops = ops_of(
        [("MatMul", ("x", "w"), "a", {}), ("Einsum", ("a", "w"), "b", {"equation": "ij,jk->ik"})],
        [8, 8],
        weight("w", 8, 8),
    )
    assert has_kernel_model(ops["a"])
    assert not has_kernel_model(ops["b"])
    assert OnnxRuntimeTarget().op_cost(ops["b"], HOST, "fp32", {}).seconds > KIND.kernel_overhead_s


def test_a_fused_op_costs_nothing_in_the_segment_and_something_without():
    ops = convolutions()
    target = OnnxRuntimeTarget()
    together = target.estimate(list(ops.values()), HOST, "fp32", {}).seconds
    apart = sum(target.op_cost(op, HOST, "fp32", {}).seconds for op in ops.values()) + KIND.segment_overhead_s
    assert target.op_cost(ops["b"], HOST, "fp32", {}).seconds > 0
    assert together == pytest.approx(apart - target.op_cost(ops["b"], HOST, "fp32", {}).seconds)
    assert target.fusion_saving(ops["a"], ops["b"], HOST, 1) == float("inf")
    assert target.fusion_saving(ops["b"], ops["c"], HOST, 1) == 0.0


def test_energy_is_that_of_a_busy_processor():
    cost = OnnxRuntimeTarget().op_cost(convolutions()["a"], HOST, "fp32", {})
    assert cost.joules == pytest.approx(10.0 * cost.seconds)


NETWORKS: dict[str, Callable[[], dict[str, OnnxOp]]] = {
    "image": lambda: ops_of(
        [
            ("Conv", ("x", "w"), "a", SAME),
            ("Sigmoid", ("a",), "b", {}),
            ("Mul", ("a", "b"), "c", {}),
            ("MaxPool", ("c",), "d", {"kernel_shape": [2, 2]}),
            ("Conv", ("d", "v"), "e", {"group": 32}),
            ("Pad", ("e", "p"), "f", {}),
            ("Transpose", ("f",), "g", {"perm": [0, 2, 3, 1]}),
            ("ReduceMean", ("g",), "h", {}),
        ],
        ["n", 3, 64, 64],
        weight("w", 32, 3, 3, 3),
        weight("v", 32, 1, 3, 3),
        numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "p"),
    ),
    "rare": lambda: ops_of(
        [
            ("LSTM", ("x", "w", "r"), "a", {"hidden_size": 320}),
            ("Softmax", ("x",), "b", {"axis": 1}),
            ("Transpose", ("b",), "c", {"perm": [2, 1, 0]}),
            ("ReduceMax", ("x", "one"), "d", {}),
            ("CumSum", ("x", "one"), "e", {}),
            ("ArgMax", ("x",), "g", {"axis": 0}),
        ],
        ["n", "t", 64],
        weight("w", 1, 1280, 64),
        weight("r", 1, 1280, 320),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
    ),
    "text": lambda: ops_of(
        [
            ("LayerNormalization", ("x", "s"), "a", {}),
            ("MatMul", ("a", "w"), "b", {}),
            ("Add", ("b", "s"), "c", {}),
            ("Gelu", ("c",), "d", {}),
            ("Softmax", ("d",), "e", {}),
            ("Transpose", ("e",), "f", {"perm": [0, 2, 1]}),
            ("MatMul", ("e", "f"), "g", {}),
            ("Concat", ("d", "a"), "h", {"axis": 2}),
            ("Erf", ("h",), "i", {}),
        ],
        ["n", "t", 64],
        weight("w", 64, 64),
        weight("s", 64),
    ),
}


def seconds(ops: dict[str, OnnxOp], kind: HardwareKind, sizes: dict[str, int]) -> list[float]:
    return [host_seconds(features(op, sizes, cut=True), kind) for op in ops.values()]


@pytest.mark.parametrize("name", NETWORKS)
@given(data=st.data())
def test_larger_is_never_quicker(name: str, data: st.DataObject):
    ops = networks.setdefault(name, NETWORKS[name]())
    size = st.integers(1, 600)
    small = {"n": data.draw(size), "t": data.draw(size)}
    large = {dim: value + data.draw(st.integers(0, 50)) for dim, value in small.items()}
    for before, after in zip(seconds(ops, KIND, small), seconds(ops, KIND, large), strict=True):
        assert after >= before * (1 - 1e-9)


@pytest.mark.parametrize("name", NETWORKS)
@given(scale=st.floats(1, 10), part=st.sampled_from(["fp32", "vector", "cache", "dram"]))
def test_a_better_processor_is_never_slower(name: str, scale: float, part: str):
    ops = networks.setdefault(name, NETWORKS[name]())
    peak = {figure: rate * (scale if figure == part else 1) for figure, rate in KIND.peak.items()}
    memory = tuple(
        replace(level, bandwidth=level.bandwidth * (scale if level.name == part else 1)) for level in KIND.memory
    )
    better = replace(KIND, peak=peak, memory=memory)
    sizes = {"n": 4, "t": 100}
    for before, after in zip(seconds(ops, KIND, sizes), seconds(ops, better, sizes), strict=True):
        assert after <= before * (1 + 1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_segment_never_costs_more_than_its_ops(name: str):
    ops: list[Operation] = list(networks.setdefault(name, NETWORKS[name]()).values())
    target, sizes = OnnxRuntimeTarget(), {"n": 2, "t": 50}
    parts = sum(target.op_cost(op, HOST, "fp32", sizes).seconds for op in ops)
    assert target.estimate(ops, HOST, "fp32", sizes).seconds <= parts + KIND.segment_overhead_s


def test_short_ops_stay_on_one_core():
    work = {"gemm.flops": 1.0}
    one = host_seconds(work, KIND) / 1.0
    long = {"gemm.flops": 2 * SERIAL_S / one}
    assert host_seconds(long, KIND) == pytest.approx(1.5 * SERIAL_S)


networks: dict[str, dict[str, OnnxOp]] = {}
