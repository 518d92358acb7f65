"""Operators on the SRAM machine against ONNX Runtime: each as a program of its own, run on the emulator."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.unit.targets.sram_models import Runner, model_of, reference, relative_error, segment_of

F, I, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL  # noqa: E741
KINDS = {np.dtype(np.float32): F, np.dtype(np.int64): I, np.dtype(np.bool_): B, np.dtype(np.int32): TensorProto.INT32}
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def check(
    op: str,
    inputs: list[Any],
    weights: dict[int, np.ndarray] | None = None,
    opset: int = 17,
    outputs: int = 1,
    tolerance: float = 2e-6,
    domain: str = "",
    **attributes: Any,
) -> None:
    """Compares one node, whose inputs at the positions in `weights` are constants and None is absent."""
    weights = weights or {}
    count = max([len(inputs), *(position + 1 for position in weights)])
    given = iter(inputs)
    names, values, constants = [], {}, {}
    for position in range(count):
        if position in weights:
            names.append(f"w{position}")
            constants[f"w{position}"] = weights[position]
            continue
        value = next(given)
        names.append("" if value is None else f"x{position}")
        if value is not None:
            values[f"x{position}"] = value
    results = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(op, names, results, name=op, domain=domain, **attributes)
    typed = {name: (KINDS[value.dtype], value.shape) for name, value in values.items()}
    model = model_of([node], typed, results, constants, opset)
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    for found, expected in zip(Runner(segment_of(model), "fp32")(**values), reference(model, **values), strict=True):
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        if expected.dtype != np.float32:
            np.testing.assert_array_equal(found, expected)
        else:
            np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
            assert relative_error(np.nan_to_num(found), np.nan_to_num(expected)) <= tolerance


@pytest.mark.parametrize(
    "op",
    [
        *("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSwish", "Identity", "Neg", "Reciprocal", "Relu", "Round"),
        *("Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Tan", "Tanh", "Cosh"),
    ],
)
def test_functions(op):
    check(op, [normal(3, 5, 7)], tolerance=1e-5)


@pytest.mark.parametrize("op", ["Log", "Sqrt"])
def test_functions_of_positive_numbers(op):
    check(op, [np.abs(normal(40)) + np.float32(0.1)])


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Celu", {"alpha": 0.7}),
        ("Elu", {"alpha": 0.5}),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
        ("LeakyRelu", {"alpha": 0.2}),
        ("Mish", {"opset": 18}),
        ("Selu", {}),
        ("ThresholdedRelu", {"alpha": 0.3}),
    ],
)
def test_functions_with_parameters(op, attributes):
    check(op, [normal(3, 50)], tolerance=1e-5, **attributes)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate):
    check("Gelu", [normal(5, 20)], opset=20, approximate=approximate, tolerance=1e-5)


@pytest.mark.parametrize("op", ["Gelu", "FastGelu"])
def test_gelus_of_onnx_runtime(op):
    check(op, [normal(5, 20)], domain="com.microsoft", tolerance=1e-4)


@pytest.mark.parametrize(
    "op", ["Add", "Div", "Mul", "Sub", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]
)
@given(data=st.data())
@settings(max_examples=6, deadline=None)
def test_two_operands_are_broadcast(op, data):
    dims = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    left = [data.draw(st.sampled_from([1, dim])) for dim in dims]
    right = [data.draw(st.sampled_from([1, dim])) for dim in dims][data.draw(st.integers(0, len(dims) - 1)) :]
    check(op, [np.round(normal(*left)), np.round(normal(*right)) + np.float32(0.5 if op == "Div" else 0)])


@pytest.mark.parametrize("op", ["And", "Or", "Xor"])
def test_logic(op):
    check(op, [RNG.random((4, 5)) > 0.5, RNG.random((5,)) > 0.5])


@pytest.mark.parametrize(
    ("op", "low"), [("Add", -9), ("Sub", -9), ("Mul", -9), ("Div", 1), ("Max", -9), ("Less", -9), ("Mod", 1)]
)
def test_integers(op, low):
    check(op, [RNG.integers(-9, 9, (4, 6)), RNG.integers(low, 9, (6,))])


@pytest.mark.parametrize("op", ["Max", "Mean", "Min", "Sum"])
@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_operands(op, count):
    check(op, [normal(3, 4) for _ in range(count)])


@pytest.mark.parametrize("exponent", [2.0, 0.5, 3.0, -1.0])
def test_powers_of_a_constant(exponent):
    check("Pow", [np.abs(normal(4, 5))], {1: np.array(exponent, np.float32)}, tolerance=1e-5)


def test_a_power_of_integers_of_another_type():
    check("Pow", [normal(4, 5)], {1: np.array(2, np.int64)})


@pytest.mark.parametrize("limits", [{}, {1: np.array(-0.5, np.float32)}, {2: np.array(0.5, np.float32)}])
def test_clip(limits):
    inputs = [normal(4, 5), None] if 2 in limits and 1 not in limits else [normal(4, 5)]
    check("Clip", inputs, limits)


def test_where_takes_numbers():
    check("Where", [RNG.random((4, 1)) > 0.5, normal(4, 5)], {2: np.array(-1e9, np.float32)})


@pytest.mark.parametrize(
    ("source", "to"), [(np.float32, I), (np.int64, F), (np.bool_, F), (np.float32, B), (np.bool_, I), (np.int32, I)]
)
def test_casts(source, to):
    check("Cast", [(RNG.standard_normal((4, 5)) * 3).astype(source)], to=to)


def test_prelu():
    check("PRelu", [normal(2, 3, 4), normal(3, 1)])


def test_batch_normalization():
    vectors = {1: normal(3), 2: normal(3), 3: normal(3), 4: np.abs(normal(3)) + np.float32(0.1)}
    check("BatchNormalization", [normal(2, 3, 4, 5)], vectors, tolerance=1e-5)


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("offset", [None, -1, 2])
def test_trilu(upper, offset):
    check("Trilu", [normal(2, 4, 5)], {} if offset is None else {1: np.array(offset, np.int64)}, upper=upper)


@given(
    left=st.lists(st.integers(1, 3), max_size=2),
    m=st.integers(1, 70),
    k=st.integers(1, 130),
    n=st.integers(1, 70),
    constant=st.booleans(),
    batched=st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_matmul(left, m, k, n, constant, batched):
    right = normal(*([*left[-1:], k, n] if batched else [k, n]))
    check("MatMul", [normal(*left, m, k)] + ([] if constant else [right]), {1: right} if constant else {})


@pytest.mark.parametrize("shapes", [((7,), (7, 5)), ((3, 7), (7,)), ((2, 3, 7), (7,)), ((1, 4, 6), (5, 6, 3))])
def test_matmul_of_vectors_and_broadcasts(shapes):
    check("MatMul", [normal(*shape) for shape in shapes])


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize(("a", "b"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_gemm(constant, a, b):
    x = normal(70, 30) if a else normal(30, 70)
    w = normal(20, 70) if b else normal(70, 20)
    weights = {1: w, 2: normal(20)} if constant else {2: normal(1, 20)}
    check("Gemm", [x] if constant else [x, w], weights, transA=a, transB=b, alpha=0.5, beta=2.0)


@st.composite
def convolutions(draw):
    rank = draw(st.sampled_from([1, 2]))
    groups = draw(st.sampled_from([1, 1, 2]))
    channels, outputs = groups * draw(st.integers(1, 40)), groups * draw(st.integers(1, 40))
    kernel = [draw(st.integers(1, 4)) for _ in range(rank)]
    attributes = {
        "group": groups,
        "strides": [draw(st.integers(1, 3)) for _ in range(rank)],
        "dilations": [draw(st.integers(1, 2)) for _ in range(rank)],
        "pads": [draw(st.integers(0, 2)) for _ in range(2 * rank)],
    }
    sizes = [draw(st.integers(1, 12)) + (k - 1) * 2 for k in kernel]
    return (draw(st.integers(1, 2)), channels, *sizes), (outputs, channels // groups, *kernel), attributes


@given(convolutions())
@settings(max_examples=30, deadline=None)
def test_conv(case):
    source, kernel, attributes = case
    check("Conv", [normal(*source)], {1: normal(*kernel), 2: normal(kernel[0])}, tolerance=1e-5, **attributes)


@pytest.mark.parametrize(("channels", "multiplier"), [(8, 1), (6, 2)])
def test_depthwise_conv(channels, multiplier):
    weight = normal(channels * multiplier, 1, 3, 5)
    check("Conv", [normal(2, channels, 9, 11)], {1: weight}, group=channels, pads=[1, 2, 1, 2], strides=[2, 1])


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_conv_with_automatic_padding(auto_pad):
    check("Conv", [normal(1, 5, 9, 10)], {1: normal(7, 5, 3, 4)}, auto_pad=auto_pad, strides=[2, 2])


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("kernel", "stride", "pads", "more"), [(2, 2, 0, 0), (3, 2, 1, 1), (4, 2, 1, 0), (3, 1, 0, 0)])
def test_conv_transpose(groups, kernel, stride, pads, more):
    attributes = {"group": groups, "strides": [stride] * 2, "pads": [pads] * 4, "output_padding": [more] * 2}
    weight = normal(6, 8 // groups, kernel, kernel)
    check("ConvTranspose", [normal(1, 6, 5, 7)], {1: weight, 2: normal(8)}, tolerance=1e-5, **attributes)


@pytest.mark.parametrize("axes", [[1], [-1], [0, 2], [0, 1, 2], []])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(
    "op", ["ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceL2", "ReduceProd", "ReduceSumSquare"]
)
def test_reductions(op, axes, keepdims):
    attributes: dict[str, Any] = {"keepdims": keepdims}
    if op == "ReduceSum":
        check(op, [normal(5, 6, 7)], {1: np.array(axes, np.int64)} if axes else {}, tolerance=1e-5, **attributes)
    else:
        check(op, [normal(5, 6, 7)], tolerance=1e-5, **({**attributes, "axes": axes} if axes else attributes))


@pytest.mark.parametrize("shape", [(1, 4096), (3, 700), (2, 2, 1500)])
def test_a_long_sum_is_shared_by_items(shape):
    check("ReduceMean", [normal(*shape)], tolerance=1e-5, axes=[-1])


def test_a_reduction_of_integers():
    check("ReduceSum", [RNG.integers(-5, 5, (4, 6))], {1: ints(1)})


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pools(op):
    check(op, [normal(2, 5, 9, 20)], tolerance=1e-5)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(("axis", "opset"), [(-1, 17), (1, 17), (1, 11)])
def test_softmax(op, axis, opset):
    check(op, [normal(3, 5, 11)], opset=opset, axis=axis, tolerance=1e-5)


def test_softmax_of_rows_that_do_not_fit_a_core():
    check("Softmax", [normal(2, 20000)], axis=-1, tolerance=1e-5)
    check("LogSoftmax", [normal(2, 20000)], axis=-1, tolerance=1e-5)


@pytest.mark.parametrize("axis", [-1, 1])
def test_layer_normalization(axis):
    shape = (7,) if axis == -1 else (5, 7)
    check("LayerNormalization", [normal(3, 5, 7)], {1: normal(*shape), 2: normal(*shape)}, axis=axis, tolerance=1e-5)


def test_layer_normalization_of_rows_that_do_not_fit_a_core():
    check("LayerNormalization", [normal(2, 20000)], {1: normal(20000)}, tolerance=1e-5)


def test_instance_normalization():
    check("InstanceNormalization", [normal(2, 3, 5, 6)], {1: normal(3), 2: normal(3)}, tolerance=1e-5)


@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize("include", [0, 1])
def test_average_pool(ceil_mode, include):
    attributes = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1], "ceil_mode": ceil_mode}
    check("AveragePool", [normal(1, 3, 8, 9)], count_include_pad=include, tolerance=1e-5, **attributes)


def test_max_pool():
    check("MaxPool", [normal(1, 3, 8, 9)], kernel_shape=[3, 3], strides=[2, 1], pads=[1, 1, 1, 1], dilations=[1, 2])


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_transpose(data):
    dims = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=5))
    check("Transpose", [normal(*dims)], perm=data.draw(st.permutations(range(len(dims)))))


@pytest.mark.parametrize(
    ("op", "weights", "attributes"),
    [
        ("Reshape", {1: ints(6, 20)}, {}),
        ("Reshape", {1: ints(0, -1)}, {}),
        ("Flatten", {}, {"axis": 2}),
        ("Squeeze", {1: ints(1)}, {}),
        ("Unsqueeze", {1: ints(0, 3)}, {}),
        ("Expand", {1: ints(2, 1, 3, 4, 1)}, {}),
        ("Slice", {1: ints(1, 0), 2: ints(3, 100), 3: ints(2, 3), 4: ints(1, 2)}, {}),
        ("Slice", {1: ints(-1), 2: ints(-100), 3: ints(3), 4: ints(-2)}, {}),
        ("Tile", {1: ints(2, 1, 3, 1)}, {}),
        ("Pad", {1: ints(0, 1, 2, 0, 1, 0, 0, 3)}, {}),
        ("Pad", {1: ints(0, 0, -1, 0, 0, 0, -1, 0), 2: np.array(2.5, np.float32)}, {}),
        ("Gather", {1: ints(2, 0, 1, 1)}, {"axis": 2}),
        ("Gather", {1: np.array(-1, np.int64)}, {"axis": 3}),
        ("Gather", {1: ints(1, 2, 3)}, {"axis": 2}),
    ],
)
def test_what_moves_elements(op, weights, attributes):
    check(op, [normal(6, 1, 4, 5)], weights, **attributes)


def test_split_and_concat():
    check("Split", [normal(4, 9, 3)], {1: ints(2, 3, 4)}, outputs=3, axis=1)
    check("Concat", [normal(4, 2, 3), normal(4, 5, 3), normal(4, 1, 3)], axis=1)
    check("Concat", [normal(4, 2)], {1: normal(4, 3)}, axis=-1)


@pytest.mark.parametrize("sizes", [(2, 0), (0, 2), (3, 0, 1, 0), (0, 0)])
def test_concat_of_parts_that_may_be_empty(sizes: tuple[int, ...]):
    values = {f"x{index}": normal(4, size, 3) for index, size in enumerate(sizes)}
    node = helper.make_node("Concat", list(values), ["y"], axis=1)
    model = model_of([node], {name: (F, (4, name, 3)) for name in values}, ["y"])
    segment = segment_of(model, dict.fromkeys(values, (0, 1, 8)))
    np.testing.assert_array_equal(Runner(segment, "fp32")(**values)[0], np.concatenate([*values.values()], axis=1))


def test_gather_at_computed_positions():
    check("Gather", [normal(9, 5), RNG.integers(-9, 9, (3, 4))], axis=0)
    check("Gather", [normal(4, 1, 5), np.zeros((2, 3), np.int64)], axis=1)
    check("GatherElements", [normal(6, 5), RNG.integers(-6, 6, (4, 5))], axis=0)
    check("GatherND", [normal(6, 5, 4), RNG.integers(0, 5, (3, 2, 2))])
    check("GatherND", [normal(6, 5), np.array([2, -1])])


@pytest.mark.parametrize("factor", [2, 3])
def test_resize_to_the_nearest(factor):
    scales = np.array([1, 1, factor, factor], np.float32)
    check(
        "Resize", [normal(1, 2, 3, 4), None], {2: scales}, mode="nearest", coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode):
    check("DepthToSpace", [normal(1, 12, 3, 4)], blocksize=2, mode=mode)


@pytest.mark.parametrize("masked", ["no", "float", "bool", "causal"])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
def test_attention(masked, heads):
    query, keys = heads
    q, k, v = normal(2, query, 5, 8), normal(2, keys, 5, 8), normal(2, keys, 5, 8)
    mask = {"float": normal(5, 5), "bool": np.tril(np.ones((5, 5), np.bool_))}.get(masked)
    inputs = [q, k, v] + ([] if mask is None else [mask])
    check("Attention", inputs, opset=23, tolerance=1e-5, is_causal=int(masked == "causal"))


def test_attention_with_a_cache():
    shapes = ((1, 4, 2, 8), (1, 2, 2, 8), (1, 2, 2, 8), (1, 2, 6, 8), (1, 2, 6, 8))
    q, k, v, past_k, past_v = (normal(*shape) for shape in shapes)
    check("Attention", [q, k, v, None, past_k, past_v], opset=23, outputs=3, tolerance=1e-5, is_causal=1)


def test_attention_of_heads_side_by_side():
    inputs = [normal(2, 5, 32), normal(2, 7, 16), normal(2, 7, 16)]
    check("Attention", inputs, opset=23, tolerance=1e-5, q_num_heads=4, kv_num_heads=2, softcap=3.0, scale=0.3)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("turned", [0, 4])
def test_rotary_embedding(interleaved, turned):
    half = (turned or 8) // 2
    inputs = [normal(2, 3, 5, 8), normal(2, 5, half), normal(2, 5, half)]
    check("RotaryEmbedding", inputs, opset=23, interleaved=interleaved, rotary_embedding_dim=turned)


def test_rms_normalization():
    check("RMSNormalization", [normal(2, 5, 24), normal(24)], opset=23, tolerance=1e-5)


@pytest.mark.parametrize("shape", [(1, 1024), (2, 3, 2048), (1, 4099), (1, 3, 683)])
@pytest.mark.parametrize("kind", ["RMSNormalization", "LayerNormalization"])
def test_long_rows_that_many_cores_normalise(kind: str, shape: tuple[int, ...]):
    axis = 1 if len(shape) > 2 and shape[-1] < 1024 else -1
    size = shape[axis:] if axis > 0 else shape[-1:]
    weights = {1: normal(*size)} | ({2: normal(*size)} if kind == "LayerNormalization" else {})
    check(kind, [normal(*shape)], weights, opset=23, tolerance=1e-5, axis=axis)


@pytest.mark.parametrize(
    ("kind", "shape", "together"),
    [
        ("RMSNormalization", (1, 1024), True),
        ("RMSNormalization", (1, 1023), False),
        ("RMSNormalization", (257, 1024), False),
        ("LayerNormalization", (1, 1024), False),
        ("LayerNormalization", (1, 2048), True),
    ],
)
def test_few_long_rows_are_normalised_by_many_cores(kind: str, shape: tuple[int, int], together: bool):
    """What one core does of a row of 4,096 in 2,999 cycles: many take 605."""
    node = helper.make_node(kind, ["x", "w"], ["y"])
    model = model_of([node], {"x": (F, shape)}, ["y"], {"w": normal(shape[1])}, opset=23)
    kernels = [each.name for each in Runner(segment_of(model), "fp32").executor.program.kernels]
    assert any(each.startswith("reduce_sum") for each in kernels) == together
    assert any(each.startswith("normalize") for each in kernels) != together


def test_swish():
    check("Swish", [normal(4, 5)], opset=24, alpha=1.5, tolerance=1e-5)
