"""Fusions and decompositions: the same numbers before and after, over every way to write the same function."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.unit.passes.fusion_cases import FLOAT, OPSET, Writer, fused, imported, kinds, run
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.exceptions import PassFailedException

from gimlet.compiler.pipeline import load_pass, run_passes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.exporter import export_module
from gimlet.passes.decompose_functions import DecomposeFunctionsPass
from gimlet.passes.fuse_attention import FuseAttentionPass
from gimlet.passes.upgrade_opset import UpgradeOpsetPass


def multiplied(write: Writer, factors: Sequence[str | float], flips: Sequence[bool]) -> str:
    """The product of factors, each on the left or on the right of what is there already."""
    value = factors[0]
    for factor, flip in zip(factors[1:], flips, strict=True):
        value = write("Mul", *((factor, value) if flip else (value, factor)))
    return str(value)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(3)), flips=st.lists(st.booleans(), min_size=2, max_size=2), tanh=st.booleans())
def test_gelu_is_found_in_any_order(order: list[int], flips: list[bool], tanh: bool):
    write = Writer()
    if tanh:
        cube = write("Pow", "x", 3.0) if flips[0] else write("Mul", write("Mul", "x", "x"), "x")
        inner = write("Mul", write("Add", "x", write("Mul", cube, 0.044715)), math.sqrt(2 / math.pi))
    else:
        inner = write("Div", "x", math.sqrt(2)) if flips[0] else write("Mul", math.sqrt(0.5), "x")
    curve = write("Add", *((1.0, "c") if flips[1] else ("c", 1.0)))
    write.nodes.insert(-1, helper.make_node("Tanh" if tanh else "Erf", [inner], ["c"]))
    parts: list[str | float] = ["x", 0.5, curve]
    result = multiplied(write, [parts[index] for index in order], flips)
    assert fused(write.model({"x": ["n", 8]}, result), {"x": (3, 8)}) == ["Gelu"]


@pytest.mark.parametrize(
    ("half", "one", "inside"), [(0.49, 1.0, math.sqrt(0.5)), (0.5, 1.1, math.sqrt(0.5)), (0.5, 1.0, 0.7)]
)
def test_gelu_of_other_constants_is_none(half: float, one: float, inside: float):
    write = Writer()
    curve = write("Add", write("Erf", write("Mul", "x", inside)), one)
    result = write("Mul", write("Mul", "x", half), curve)
    assert "Gelu" not in fused(write.model({"x": [4]}, result), {"x": (4,)})


@pytest.mark.parametrize("opset", [19, 20])
def test_gelu_needs_its_opset(opset: int):
    write = Writer()
    curve = write("Add", write("Erf", write("Div", "x", math.sqrt(2))), 1.0)
    model = write.model({"x": [4]}, write("Mul", write("Mul", "x", 0.5), curve), opset)
    assert ("Gelu" in fused(model, {"x": (4,)})) == (opset == 20)


def test_what_somebody_else_reads_stays():
    write = Writer()
    curve = write("Add", write("Erf", write("Div", "x", math.sqrt(2))), 1.0)
    gelu = write("Mul", write("Mul", "x", 0.5), curve)
    assert "Gelu" not in fused(write.model({"x": [4]}, write("Add", gelu, curve)), {"x": (4,)})


@pytest.mark.parametrize("alpha", [1.0, 1.702])
def test_swish_with_its_alpha(alpha: float):
    write = Writer()
    gate = write("Sigmoid", "x" if alpha == 1.0 else write("Mul", "x", alpha))
    up = write("Mul", write("Mul", "x", gate), "u")
    found = fused(write.model({"x": [4], "u": [4]}, up), {"x": (4,), "u": (4,)})
    assert found == ["Swish", "Mul"]


def normalised(write: Writer, order: Sequence[int], *, layer: bool, reciprocal: bool, axes: Sequence[int]) -> str:
    x = write("Sub", "x", write("ReduceMean", "x", axes)) if layer else "x"
    square = write("Mul", x, x) if reciprocal else write("Pow", x, 2.0)
    root = write("Sqrt", write("Add", 1e-5, write("ReduceMean", square, axes)))
    if not reciprocal:
        return write("Mul", write("Div", x, root), "s")
    parts = [x, write("Reciprocal", root), "s"]
    return write("Mul", write("Mul", parts[order[0]], parts[order[1]]), parts[order[2]])


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(3)), layer=st.booleans(), reciprocal=st.booleans(), bias=st.booleans())
def test_normalisations_are_found(order: list[int], layer: bool, reciprocal: bool, bias: bool):
    write = Writer()
    result = normalised(write, order, layer=layer, reciprocal=reciprocal, axes=[-1])
    if bias:
        result = write("Add", result, "b")
    inputs = {"x": ["n", 4, 8], "s": [8], "b": [8]}
    expected = ["LayerNormalization"] if layer else ["RMSNormalization", *(["Add"] if bias else [])]
    shapes = {"x": (2, 4, 8), "s": (8,), "b": (8,)}
    if not bias:
        inputs.pop("b")
        shapes.pop("b")
    assert fused(write.model(inputs, result), shapes) == expected


@pytest.mark.parametrize(
    ("axes", "shape", "found"),
    [([-1], [8], True), ([2], [8], True), ([-2, -1], [4, 8], True), ([1], [4, 1], False), ([-1], [1, 8], True)],
)
def test_a_normalisation_is_over_the_last_axes(axes: list[int], shape: list[int], found: bool):
    write = Writer()
    result = normalised(write, [0, 1, 2], layer=True, reciprocal=False, axes=axes)
    model = write.model({"x": ["n", 4, 8], "s": shape}, result)
    # What has another shape than a scale is multiplied behind it.
    wanted = ["LayerNormalization", *(["Mul"] if len(shape) != len(axes) else [])]
    assert (fused(model, {"x": (2, 4, 8), "s": shape}) == wanted) == found


def attention(write: Writer, scaled: str, mask: str | None, perm: Sequence[int], axis: int = -1) -> str:
    query, keys = "q", write("Transpose", "k", perm=perm)
    if scaled == "both":
        query, keys = write("Mul", query, 0.5), write("Mul", keys, 0.5)
    scores = write("MatMul", query, keys)
    if scaled == "scores":
        scores = write("Div", scores, 4.0)
    if mask is not None:
        scores = write("Add", scores, mask)
    return write("MatMul", write("Softmax", scores, axis=axis), "v")


@pytest.mark.parametrize("scaled", ["scores", "both", "no"])
@pytest.mark.parametrize("mask", [None, (1, 1, 3, 5), (3, 5), (2, 4, 3, 5)])
def test_attention_is_found(scaled: str, mask: tuple[int, ...] | None):
    write = Writer()
    result = attention(write, scaled, None if mask is None else "m", [0, 1, 3, 2])
    shapes: dict[str, Sequence[int]] = {"q": (2, 4, 3, 6), "k": (2, 4, 5, 6), "v": (2, 4, 5, 6)}
    shapes |= {} if mask is None else {"m": mask}
    assert fused(write.model(dict(shapes), result), shapes) == ["Attention"]


@pytest.mark.parametrize(("fill", "found"), [(-math.inf, True), (-3.4e38, True), (-1e4, False), (0.5, False)])
@pytest.mark.parametrize("swapped", [True, False])
def test_a_mask_that_chooses(swapped: bool, fill: float, found: bool):
    """Of -10,000 the scores would not vanish beside it: a row that is masked throughout would come out otherwise."""
    write = Writer()
    scores = write("MatMul", "q", write("Transpose", "k", perm=[0, 1, 3, 2]))
    branches = (fill, scores) if swapped else (scores, fill)
    masked = write("Where", write("Greater", "m", -9.0 if not swapped else 9.0), *branches)
    shapes = {"q": (2, 4, 3, 6), "k": (2, 4, 5, 6), "v": (2, 4, 5, 6), "m": (3, 5)}
    result = write("MatMul", write("Softmax", masked, axis=-1), "v")
    assert ("Attention" in fused(write.model(dict(shapes), result), shapes)) == found


def test_a_row_that_is_masked_throughout_is_as_it_was():
    write = Writer()
    scores = write("MatMul", "q", write("Transpose", "k", perm=[0, 1, 3, 2]))
    masked = write("Where", write("Greater", "m", 9.0), scores, -3.4e38)
    shapes = {"q": (2, 4, 3, 6), "k": (2, 4, 5, 6), "v": (2, 4, 5, 6), "m": (3, 5)}
    assert "Attention" in fused(
        write.model(dict(shapes), write("MatMul", write("Softmax", masked, axis=-1), "v")), shapes
    )


def test_one_head_of_keys_for_all_queries():
    write = Writer()
    result = attention(write, "scores", "m", [0, 1, 3, 2])
    shapes = {"q": (2, 4, 3, 6), "k": (2, 1, 5, 6), "v": (2, 1, 5, 6), "m": (3, 5)}
    assert fused(write.model(dict(shapes), result), shapes) == ["Attention"]


@pytest.mark.parametrize("opset", [23, 24])
@pytest.mark.parametrize("masked", [True, False])
def test_scores_are_capped_before_they_are_masked(masked: bool, opset: int):
    write = Writer()
    scores = write("Mul", write("MatMul", "q", write("Transpose", "k", perm=[0, 1, 3, 2])), 0.5)
    scores = write("Mul", write("Tanh", write("Div", scores, 0.7)), 0.7)
    scores = write("Add", scores, "m") if masked else scores
    result = write("MatMul", write("Softmax", scores, axis=-1), "v")
    shapes: dict[str, Sequence[int]] = {"q": (2, 4, 3, 6), "k": (2, 4, 5, 6), "v": (2, 4, 5, 6)}
    shapes |= {"m": (2, 1, 3, 5)} if masked else {}
    assert fused(write.model(dict(shapes), result, opset), shapes) == ["Attention"]


@pytest.mark.parametrize("wrong", ["mask inside", "negative", "read twice"])
def test_other_caps_are_left(wrong: str):
    write = Writer()
    product = write("MatMul", "q", write("Transpose", "k", perm=[0, 1, 3, 2]))
    scores = write("Add", product, "m") if wrong == "mask inside" else product
    cap = -2.0 if wrong == "negative" else 2.0
    scores = write("Mul", write("Tanh", write("Div", scores, 2.0)), cap)
    scores = write("Add", scores, product if wrong == "read twice" else "m")
    result = write("MatMul", write("Softmax", scores, axis=-1), "v")
    shapes = {"q": (2, 4, 3, 6), "k": (2, 4, 5, 6), "v": (2, 4, 5, 6), "m": (2, 1, 3, 5)}
    if wrong == "read twice":
        shapes.pop("m")
    assert "Attention" not in fused(write.model(dict(shapes), result), shapes)


def repeated(write: Writer, value: str, heads: int, times: int, size: int) -> str:
    """Each head several times in a row, as transformers' repeat_kv is exported."""
    spread = write("Expand", write("Unsqueeze", value, [2]), [1, 1, times, 1, 1])
    return write("Reshape", spread, [0, heads * times, -1, size])


@pytest.mark.parametrize(("heads", "times"), [(2, 2), (1, 4), (4, 1)])
def test_heads_that_are_repeated_for_groups_of_queries_are_taken_once(heads: int, times: int):
    write = Writer()
    keys = write("Transpose", repeated(write, "k", heads, times, 6), perm=[0, 1, 3, 2])
    weights = write("Softmax", write("Mul", write("MatMul", "q", keys), 0.5), axis=-1)
    result = write("MatMul", weights, repeated(write, "v", heads, times, 6))
    shapes = {"q": (2, 4, 3, 6), "k": (2, heads, 5, 6), "v": (2, heads, 5, 6)}
    assert fused(write.model(dict(shapes), result), shapes) == ["Attention"]


def guarded(write: Writer, masked: float) -> str:
    """torch's scaled_dot_product_attention with a boolean mask, and zeros where a row is masked altogether."""
    mask = write("Where", write("Greater", "m", 0.0), 0.0, masked)
    scores = write("Add", write("MatMul", "q", write("Transpose", "k", perm=[0, 1, 3, 2])), mask)
    weights = write("Softmax", scores, axis=-1)
    return write("MatMul", write("Where", write("IsNaN", weights), 0.0, weights), "v")


@pytest.mark.parametrize(("masked", "found"), [(-3.4e38, True), (-math.inf, False)])
def test_a_guard_against_rows_that_are_masked_altogether(masked: float, found: bool):
    write = Writer()
    shapes = {"q": (2, 4, 3, 6), "k": (2, 4, 5, 6), "v": (2, 4, 5, 6), "m": (2, 1, 3, 5)}
    left = fused(write.model(dict(shapes), guarded(write, masked)), shapes)
    assert ("Attention" in left, "IsNaN" in left) == (found, not found)


@pytest.mark.parametrize("mask", [(2, 1, 1, 5), (1, 5), (1, 4, 3, 1)])
def test_a_mask_for_all_queries_or_keys_is_taken_where_parts_are_kept(mask: Sequence[int]):
    write = Writer()
    result = attention(write, "scores", "m", [0, 1, 3, 2])
    shapes = {"q": (2, 4, 3, 6), "k": (2, 4, 5, 6), "v": (2, 4, 5, 6), "m": mask}
    module, ctx = imported(write.model(dict(shapes), result))
    run_passes(module, ctx, [FuseAttentionPass(keep_parts=True)])
    assert "Attention" in kinds(module)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_attention_of_half_precision_with_its_softmax_in_float32(kind: int):
    write = Writer()
    write.constants.append(helper.make_tensor("scale", kind, [], [0.25]))
    scores = write("Mul", write("MatMul", "q", write("Transpose", "k", perm=[0, 1, 3, 2])), "scale")
    weights = write("Cast", write("Softmax", write("Cast", scores, to=FLOAT), axis=-1), to=kind)
    model = write.model({"q": (2, 4, 3, 6), "k": (2, 4, 5, 6), "v": (2, 4, 5, 6)}, write("MatMul", weights, "v"))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    module, ctx = imported(model)
    run_passes(module, ctx, ["fuse-attention", "dce"])
    (made,) = (op for op in module.walk() if isinstance(op, OnnxOp))
    assert (made.op_type, made.attr("softmax_precision"), made.attr("scale")) == ("Attention", FLOAT, 0.25)


def test_keys_that_lie_otherwise_are_turned():
    write = Writer()
    result = attention(write, "scores", None, [0, 2, 3, 1])
    shapes = {"q": (2, 4, 3, 6), "k": (2, 5, 4, 6), "v": (2, 4, 5, 6)}
    assert fused(write.model(dict(shapes), result), shapes) == ["Attention"]


@pytest.mark.parametrize(
    ("axis", "shapes"),
    [
        (2, {"q": (2, 4, 5, 6), "k": (2, 4, 5, 6), "v": (2, 4, 5, 6)}),
        (-1, {"q": (2, 4, 3, 6), "k": (1, 4, 5, 6), "v": (2, 4, 5, 6)}),
        (-1, {"q": (2, 4, 3, 6), "k": (2, 4, 5, 6), "v": (2, 4, 5, 6), "m": (1, 1, 3, 1)}),
        (-1, {"q": (2, 4, 3, 6), "k": (2, 4, 5, 6), "v": (2, 4, 5, 6), "m": (2, 1, 1, 5)}),
    ],
)
def test_what_is_not_attention_is_left(axis: int, shapes: dict[str, Sequence[int]]):
    write = Writer()
    result = attention(write, "scores", "m" if "m" in shapes else None, [0, 1, 3, 2], axis)
    assert "Attention" not in fused(write.model(dict(shapes), result), shapes)


def whole_models() -> dict[str, Callable[[Writer], tuple[str, dict[str, Sequence[int]]]]]:
    heads = {"q": (2, 4, 3, 6), "k": (2, 4, 5, 6), "v": (2, 4, 5, 6)}
    return {
        "Gelu": lambda write: (write("Gelu", "x", approximate="tanh"), {"x": (2, 8)}),
        "Swish": lambda write: (write("Swish", "x", alpha=1.5), {"x": (2, 8)}),
        "LayerNormalization": lambda write: (
            write("LayerNormalization", "x", "s", "b", axis=-1, epsilon=1e-3),
            {"x": (2, 3, 8), "s": (8,), "b": (8,)},
        ),
        "RMSNormalization": lambda write: (write("RMSNormalization", "x", "s"), {"x": (2, 3, 8), "s": (8,)}),
        "Attention": lambda write: (write("Attention", "q", "k", "v", scale=0.3), heads),
        "HardSwish": lambda write: (write("HardSwish", "x"), {"x": (2, 8)}),
    }


@pytest.mark.parametrize("name", list(whole_models()))
def test_an_operator_is_what_its_body_says(name: str):
    write = Writer()
    result, shapes = whole_models()[name](write)
    model = write.model(dict(shapes), result, 23 if name == "Attention" else OPSET)
    module, ctx = imported(model)
    run_passes(module, ctx, [DecomposeFunctionsPass(names=(name,)), *map(call, ("infer-shapes", "fold-constants"))])
    assert name not in kinds(module)
    generator = np.random.default_rng(1)
    inputs = {key: generator.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    after = ir.to_proto(export_module(module, ctx))
    np.testing.assert_allclose(run(after, inputs), run(model, inputs), rtol=2e-5, atol=2e-5)


def call(name: str) -> Any:
    return load_pass(name)()


def test_an_operator_without_a_body_is_left():
    write = Writer()
    module, ctx = imported(write.model({"x": [4]}, write("Tanh", "x")))
    run_passes(module, ctx, [DecomposeFunctionsPass(names=("Tanh",))])
    assert kinds(module) == ["Tanh"]


def upgraded(model: onnx.ModelProto, to: int = OPSET) -> tuple[ModuleOp, GimletContext]:
    module, ctx = imported(model)
    UpgradeOpsetPass(to=to).apply(ctx, module)
    module.verify()
    return module, ctx


@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp"])
def test_axes_become_an_input(kind: str):
    write = Writer()
    model = write.model({"x": [2, 3, 4]}, write(kind, "x", axes=[1], keepdims=0), 13)
    module, ctx = upgraded(model)
    x = np.random.default_rng(0).random((2, 3, 4), np.float32)
    np.testing.assert_array_equal(run(ir.to_proto(export_module(module, ctx)), {"x": x}), run(model, {"x": x}))


@pytest.mark.parametrize(
    ("op_type", "attributes", "opset", "reason"),
    [
        ("GridSample", {"mode": "bilinear"}, 16, "means something else since opset 20"),
        ("AveragePool", {"kernel_shape": [2, 2], "ceil_mode": 1}, 17, "means something else since opset 19"),
        ("Resize", {"coordinate_transformation_mode": "tf_half_pixel_for_nn"}, 11, "else since opset 13"),
    ],
)
def test_an_operator_of_another_meaning_is_named(op_type: str, attributes: dict[str, Any], opset: int, reason: str):
    write = Writer()
    inputs = {"x": [1, 1, 4, 4]}
    inputs |= {"GridSample": {"g": [1, 4, 4, 2]}, "Resize": {"r": [8], "s": [4]}}.get(op_type, {})
    model = write.model(inputs, write(op_type, *inputs, **attributes), opset)
    with pytest.raises(PassFailedException, match=reason):
        upgraded(model)


def test_an_opset_below_11_is_refused():
    write = Writer()
    with pytest.raises(PassFailedException, match="knows opsets 11 to 26, not 10 to 24"):
        upgraded(write.model({"x": [4]}, write("Relu", "x"), 10))


def test_operators_of_opset_11_compute_the_same():
    write = Writer()
    spread = write("Unsqueeze", write("Softmax", "x", axis=2), axes=[0])
    halves = helper.make_node("Split", [spread], ["left", "right"], axis=3, split=[1, 3])
    write.nodes.append(halves)
    total = write("ReduceSum", write("Mul", write("Squeeze", "left", axes=[0]), "x"), axes=[-1], keepdims=0)
    model = write.model({"x": [2, 3, 4]}, write("Dropout", total, ratio=0.3), 11)
    module, ctx = upgraded(model)
    x = np.random.default_rng(0).random((2, 3, 4), np.float32)
    np.testing.assert_array_equal(run(ir.to_proto(export_module(module, ctx)), {"x": x}), run(model, {"x": x}))


@pytest.mark.parametrize("axis", [{}, {"axis": 0}])
def test_an_old_softmax_over_several_dimensions_is_refused(axis: dict[str, int]):
    write = Writer()
    with pytest.raises(PassFailedException, match=r"Softmax.*means something else since opset 13"):
        upgraded(write.model({"x": [2, 3, 4]}, write("Softmax", "x", **axis), 11))


def test_a_newer_model_is_left():
    write = Writer()
    module, _ = upgraded(write.model({"x": [4]}, write("Relu", "x"), 24), to=20)
    assert '"" = 24' in str(module)
