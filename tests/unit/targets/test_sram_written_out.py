"""Operators that the SRAM machine runs in parts (`write-out-operators`), on the emulator against ONNX Runtime."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.unit.passes.test_recurrent_lines import recurrent_model, values_of
from tests.unit.targets.sram_models import Runner, model_of, reference, relative_error, segment_of

from gimlet.dialects.onnx import OnnxOp
from gimlet.passes.write_out_operators import WriteOutOperatorsPass

KINDS = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.int32): TensorProto.INT32,
}
DYNAMIC, SIZES = 5, (2, 5, 7)
"""The size that is left open in tests of dynamic shapes, and its bounds."""


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def check(
    op: str,
    *given: np.ndarray,
    opset: int = 17,
    dynamic: bool = False,
    weights: Mapping[int, np.ndarray] | None = None,
    **attributes: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Compares one node with ONNX Runtime's; inputs behind those given are constants."""
    values = {f"x{index}": value for index, value in enumerate(given)}
    constants = {f"x{index}": value for index, value in (weights or {}).items()}
    names = [f"x{index}" for index in range(len(given) + len(constants))]
    node = helper.make_node(op, names, ["y"], name="op", **attributes)
    shapes: dict[str, tuple[int, Sequence[int | str]]] = {
        name: (KINDS[value.dtype], ["n" if dynamic and size == DYNAMIC else size for size in value.shape])
        for name, value in values.items()
    }
    model = model_of([node], shapes, ["y"], constants, opset)
    segment = segment_of(model, {"n": SIZES} if dynamic else None, passes=[WriteOutOperatorsPass()])
    assert op not in [each.op_type for each in segment.op.walk() if isinstance(each, OnnxOp)]
    (found,), (expected,) = Runner(segment, "fp32")(**values), reference(model, **values)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    if found.dtype == np.float32:
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(found[~finite], expected[~finite])
        assert relative_error(found[finite], expected[finite]) <= 1e-5
    else:
        np.testing.assert_array_equal(found, expected)
    return found, expected


EQUATIONS = [
    ("bqhd,bkhd->bhqk", [(5, 3, 2, 7), (5, 11, 2, 7)]),
    ("bhqk,bkhd->bqhd", [(1, 2, 5, 11), (1, 11, 2, 7)]),
    ("bsd,dhk->bshk", [(1, 5, 7), (7, 3, 2)]),
    ("bshk,hkd->bsd", [(5, 3, 2, 7), (2, 7, 11)]),
    ("nctv,vw->nctw", [(5, 3, 2, 7), (7, 11)]),
    ("nkctv,kvw->nctw", [(5, 3, 2, 1, 7), (3, 7, 11)]),
    ("bchw,cd->bdhw", [(5, 3, 2, 7), (3, 11)]),
    ("bhcd,bhdef->bcef", [(5, 3, 2, 7), (5, 3, 7, 2, 3)]),
    ("ij,jk", [(5, 3), (3, 7)]),
    ("b a, c b", [(5, 3), (2, 5)]),
    ("ij->ji", [(5, 3)]),
    ("ijk->j", [(2, 5, 3)]),
    ("ij->", [(5, 3)]),
    ("i,i->", [(5,), (5,)]),
    ("i,j->ij", [(5,), (3,)]),
    ("a,ab->b", [(5,), (5, 3)]),
    ("bnd,nd->bn", [(5, 3, 7), (3, 7)]),
    ("bacd,baef->bacf", [(5, 3, 2, 7), (5, 3, 11, 2)]),
    ("abc,acd->abd", [(5, 1, 3), (5, 3, 1)]),
    ("b...d,d->b...", [(5, 3, 2, 7), (7,)]),
    ("...ij,...jk", [(5, 3, 2), (5, 2, 7)]),
    ("bij,bjk,kl->bil", [(5, 3, 2), (5, 2, 7), (7, 3)]),
    ("abc,abd,ae->cde", [(5, 3, 2), (5, 3, 7), (5, 2)]),
    ("ii->i", [(5, 5)]),
    ("bii->b", [(3, 5, 5)]),
]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS, ids=[equation for equation, _ in EQUATIONS])
def test_einsum(equation: str, shapes: Sequence[Sequence[int]], dynamic: bool):
    check("Einsum", *(normal(*shape) for shape in shapes), equation=equation, dynamic=dynamic)


WIDE = np.concatenate([normal(97) * np.float32(20), normal(61), normal(53) * np.float32(1e-4), np.zeros(1, np.float32)])
BETWEEN = np.concatenate([np.linspace(-1, 1, 61, dtype=np.float32), normal(47) * np.float32(1e-4)])


@pytest.mark.parametrize(
    ("op", "values"),
    [
        ("Acos", BETWEEN),
        ("Acosh", np.concatenate([1 + np.abs(WIDE), np.float32([1, 1.0001, 1e30])])),
        ("Asin", BETWEEN),
        ("Asinh", np.concatenate([WIDE, np.float32([1e30, -1e30, 1e-30])])),
        ("Atan", np.concatenate([WIDE, np.float32([1e30, -1e30, np.inf, -np.inf])])),
        ("Atanh", np.concatenate([BETWEEN[1:60], BETWEEN[61:]])),
        ("Sinh", WIDE),
    ],
)
def test_elementary_functions_are_exact_to_a_part_in_a_million(op: str, values: np.ndarray):
    found, expected = check(op, values, opset=22)
    close = np.abs(found.astype(np.float64) - expected) <= 1e-6 * np.abs(expected) + 1e-44
    assert (close | (found == expected)).all(), [values[~close], found[~close], expected[~close]]


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axes", [[1], [0, -1], []])
@pytest.mark.parametrize("op", ["ReduceL1", "ReduceLogSum", "ReduceLogSumExp"])
def test_reductions(op: str, axes: list[int], keep: int):
    given = np.abs(normal(5, 3, 7)) * np.float32(1 if op == "ReduceLogSum" else 90)
    attributes = {"axes": axes} if axes else {}
    check(op, given, keepdims=keep, dynamic=True, **attributes)
    weights = {1: np.array(axes, np.int64)} if axes else None
    check(op, given, keepdims=keep, dynamic=True, opset=18, weights=weights)


def test_a_sum_of_powers_that_are_all_nothing_or_infinite():
    given = np.float32([[-np.inf, -np.inf, -np.inf], [1, np.inf, 2], [3, -np.inf, 90]])
    found, expected = check("ReduceLogSumExp", given, axes=[1])
    assert np.isinf(expected).sum() == 2
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("mode", ["edge", "reflect", "wrap"])
def test_padding_with_what_is_there(mode: str, dynamic: bool):
    pads = np.array([0, 0, 2, 1, 0, 0, 1, 3])
    check("Pad", normal(1, 3, 5, 7), mode=mode, weights={1: pads}, opset=19, dynamic=dynamic)


def test_padding_of_some_axes_and_paddings_of_one_shape():
    weights = {1: np.array([1, 2]), 2: np.float32(0), 3: np.array([-1])}
    check("Pad", normal(3, 5), mode="reflect", weights=weights, opset=19)
    check("Pad", normal(3, 5), mode="reflect", weights=weights | {1: np.array([2, 1])}, opset=19)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_hot(axis: int, dynamic: bool):
    given = np.array([[0, 3, -1], [2, -4, 1], [9, 3, 3], [1, 1, 0], [0, 0, 2]])
    check("OneHot", given, weights={1: np.array(7), 2: np.float32([-1, 2])}, axis=axis, dynamic=dynamic)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_hardmax(axis: int, dynamic: bool):
    check("Hardmax", np.round(normal(5, 3, 7)), axis=axis, dynamic=dynamic)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_local_response_normalization(size: int):
    check("LRN", normal(5, 7, 3, 2), size=size, alpha=0.1, beta=0.6, bias=1.5, dynamic=True)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_norms(p: int):
    check("LpPool", normal(5, 3, 7, 11), p=p, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1], dynamic=True)
    check("GlobalLpPool", normal(5, 3, 7, 11), p=p, dynamic=True)
    if p < 3:
        check("LpNormalization", np.maximum(normal(5, 3, 7), np.float32(0)), p=p, axis=1, dynamic=True)


@pytest.mark.parametrize("which", [(1, 1), (1, 0), (0, 1)])
def test_infinities(which: tuple[int, int]):
    given = np.float32([1, -np.inf, np.inf, np.nan, 3.4e38, -3.4e38, 0])
    check("IsInf", given, opset=20, detect_positive=which[0], detect_negative=which[1])


def test_parts_that_have_no_such_type_at_an_opset_are_not_written():
    """Pow takes bfloat16 since opset 15."""
    node = helper.make_node("LRN", ["x"], ["y"], size=3)
    model = model_of([node], {"x": (TensorProto.BFLOAT16, [2, 5, 3])}, ["y"], opset=13)
    segment = segment_of(model, passes=[WriteOutOperatorsPass()])
    assert [each.op_type for each in segment.op.walk() if isinstance(each, OnnxOp)] == ["LRN"]


@pytest.mark.parametrize("dynamic", [False, True])
def test_space_to_depth(dynamic: bool):
    check("SpaceToDepth", normal(5, 3, 4, 6), blocksize=2, dynamic=dynamic)
    check("SpaceToDepth", normal(1, 3, 6, 9), blocksize=3, dynamic=dynamic)


def test_space_to_depth_of_any_size():
    node = helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=2)
    model = model_of([node], {"x": (TensorProto.FLOAT, ["n", 3, "h", "w"])}, ["y"])
    bounds = {"n": (1, 1, 3), "h": (2, 6, 16), "w": (2, 10, 16)}
    segment = segment_of(model, bounds, passes=[WriteOutOperatorsPass()])
    for shape in ((1, 3, 4, 6), (2, 3, 10, 2)):
        (found,), (expected,) = Runner(segment, "fp32")(x=normal(*shape)), reference(model, x=normal(*shape))
        np.testing.assert_array_equal(found, expected)


NOTHING = np.zeros(0, np.float32)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("mode", "transform", "scales"),
    [
        ("linear", "half_pixel", [2, 2]),
        ("linear", "asymmetric", [1.7, 0.6]),
        ("cubic", "half_pixel", [2, 3]),
        ("nearest", "half_pixel", [1.7, 0.6]),
        ("nearest", "asymmetric", [3, 2.5]),
    ],
)
def test_resizing_by_scales(mode: str, transform: str, scales: list[float], dynamic: bool):
    weights = {1: NOTHING, 2: np.float32([1, 1, *scales])}
    how = {"mode": mode, "coordinate_transformation_mode": transform}
    check("Resize", normal(5, 3, 7, 2), weights=weights, dynamic=dynamic, **how)


@pytest.mark.parametrize(
    ("mode", "transform", "sizes"),
    [
        ("linear", "align_corners", [11, 4]),
        ("linear", "align_corners", [1, 3]),
        ("linear", "pytorch_half_pixel", [1, 13]),
        ("linear", "half_pixel", [3, 5]),
        ("cubic", "align_corners", [4, 11]),
        ("nearest", "align_corners", [9, 4]),
    ],
)
def test_resizing_to_sizes(mode: str, transform: str, sizes: list[int]):
    weights = {1: NOTHING, 2: NOTHING, 3: np.array([1, 3, *sizes])}
    check("Resize", normal(1, 3, 7, 2), weights=weights, mode=mode, coordinate_transformation_mode=transform)


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_resizing_to_the_nearest(rounding: str):
    weights = {1: NOTHING, 2: np.float32([1, 1, 2.5, 0.5])}
    check("Resize", normal(1, 2, 7, 10), weights=weights, mode="nearest", nearest_mode=rounding)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_resizing_of_sizes_that_are_left_open(mode: str):
    weights = {1: NOTHING, 2: np.float32([1, 1, 2, 3])}
    check("Resize", normal(1, 2, 5, 7), weights=weights, mode=mode, dynamic=True)


def test_shrink():
    check("Shrink", normal(5, 7), lambd=0.5, bias=0.25)


@pytest.mark.parametrize(("op", "direction"), [("LSTM", "bidirectional"), ("GRU", "forward"), ("RNN", "reverse")])
def test_recurrent_operators(op: str, direction: str):
    model = recurrent_model(op, 3, direction, batch="n")
    segment = segment_of(model, {"n": (1, 2, 4)}, passes=[WriteOutOperatorsPass()])
    values = values_of(model)
    for found, expected in zip(Runner(segment, "fp32")(**values), reference(model, **values), strict=True):
        assert found.shape == expected.shape
        assert relative_error(found, expected) <= 1e-5


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_sampling_at_places(mode: str, padding: str):
    given = normal(5, 3, 4, 7), normal(5, 2, 3, 2) * np.float32(1.5)
    check("GridSample", *given, mode=mode, padding_mode=padding, dynamic=mode == "bilinear", align_corners=1)


def test_a_deformed_convolution():
    """ONNX Runtime's own kernel has no CPU form at every opset: 19 has."""
    shapes = (5, 2, 6, 7), (4, 2, 3, 2), (5, 12, 3, 3), (4,), (5, 6, 3, 3)
    check(
        "DeformConv",
        *(normal(*shape) for shape in shapes),
        opset=19,
        strides=[2, 2],
        kernel_shape=[3, 2],
        pads=[1, 0, 0, 0],
    )


@pytest.mark.parametrize("how", [{"onesided": 1}, {"inverse": 1}])
def test_transforms_of_signals(how: dict[str, int]):
    check("DFT", normal(5, 12, 3, 1), axis=1, **how)


def test_transforms_of_frames():
    check("STFT", normal(2, 40, 1), weights={1: np.array(5), 2: np.hanning(16).astype(np.float32)})


@pytest.mark.parametrize("dynamic", [False, True])
def test_sequences_the_other_way_round(dynamic: bool):
    check("ReverseSequence", normal(5, 3, 2), np.array([1, 5, 3]), dynamic=dynamic)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_where_the_largest_integer_is(op: str, dynamic: bool):
    given = np.round(normal(3, 5, 7)).astype(np.int32)
    check(op, given, axis=1, keepdims=0, select_last_index=int(dynamic), dynamic=dynamic)


@pytest.mark.parametrize("rows", [1, 4])
def test_repeats_that_are_computed(rows: int):
    """As PyTorch's exporter writes what is repeated for each sequence of a batch."""
    nodes = [
        helper.make_node("Shape", ["x"], ["n"], end=1),
        helper.make_node("Concat", ["n", "once"], ["repeats"], axis=0),
        helper.make_node("Tile", ["table", "repeats"], ["y"]),
    ]
    weights = {"once": np.array([1]), "table": normal(rows, 7)}
    model = model_of(nodes, {"x": (TensorProto.FLOAT, ["n", 3])}, ["y"], weights)
    segment = segment_of(model, {"n": SIZES})
    (found,) = Runner(segment, "fp32")(x=normal(5, 3))
    np.testing.assert_array_equal(found, np.tile(weights["table"], (5, 1)))
