"""Rotary embeddings of neighbours, with heads behind positions, as both of each pair, and in half precision."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.passes.fusion_cases import Writer, fused, imported, run

from gimlet.compiler.pipeline import run_passes
from gimlet.dialects.onnx.exporter import export_module
from gimlet.passes.fuse_rotary import FuseRotaryPass

FAR = 1 << 62


def paired(write: Writer, x: str, size: int, pairs: bool) -> tuple[str, str]:
    """Both of each pair of the last of four dimensions."""
    if pairs:
        return write("Slice", x, [0], [FAR], [3], [2]), write("Slice", x, [1], [FAR], [3], [2])
    return write("Slice", x, [0], [size // 2], [3]), write("Slice", x, [size // 2], [FAR], [3])


def joined(write: Writer, first: str, second: str, size: int, pairs: bool) -> str:
    if not pairs:
        return write("Concat", first, second, axis=-1)
    columns = [write("Unsqueeze", part, [-1]) for part in (first, second)]
    return write("Reshape", write("Concat", *columns, axis=-1), [0, 0, 0, size])


def angles(write: Writer, size: int, heads_axis: int, pairs: bool, repeated: bool, how: str) -> list[str]:
    """Cosines and sines for x, of angles [batch, positions, size / 2]."""
    found: list[str] = []
    for kind in ("Cos", "Sin"):
        value = write("Unsqueeze", write(kind, "angles"), [heads_axis])
        if repeated and pairs:
            column = write("Unsqueeze", value, [4])
            twice = (
                write("Expand", column, [1, 1, 1, 1, 2]) if how == "expand" else write("Concat", column, column, axis=4)
            )
            value = write("Reshape", twice, [0, 0, 0, size])
        elif repeated:
            value = write("Concat", value, value, axis=-1)
        found.append(value)
    return found


def rotation(write: Writer, size: int, heads_axis: int, pairs: bool, repeated: bool, how: str = "expand") -> str:
    cos, sin = angles(write, size, heads_axis, pairs, repeated, how)
    first, second = paired(write, "x", size, pairs)
    if repeated:
        turned = joined(write, write("Neg", second), first, size, pairs)
        return write("Add", write("Mul", "x", cos), write("Mul", turned, sin))
    real = write("Sub", write("Mul", first, cos), write("Mul", second, sin))
    imaginary = write("Add", write("Mul", second, cos), write("Mul", first, sin))
    return joined(write, real, imaginary, size, pairs)


FORMS = st.fixed_dictionaries(
    {
        "heads_axis": st.sampled_from([1, 2]),
        "pairs": st.booleans(),
        "repeated": st.booleans(),
        "how": st.sampled_from(["expand", "concat"]),
    }
)


def sizes_of(heads_axis: int, batch: int, positions: int, half: int) -> dict[str, Sequence[int]]:
    x = (2, 3, positions, 2 * half) if heads_axis == 1 else (2, positions, 3, 2 * half)
    return {"x": x, "angles": (batch, positions, half)}


@settings(max_examples=20, deadline=None)
@given(form=FORMS, batch=st.sampled_from([1, 2]), positions=st.integers(1, 4), half=st.integers(1, 3))
def test_every_form_is_found(form: dict[str, object], batch: int, positions: int, half: int):
    write = Writer()
    result = rotation(write, 2 * half, **form)  # pyright: ignore[reportArgumentType]
    shapes = sizes_of(int(form["heads_axis"] == 2) + 1, batch, positions, half)
    left = fused(write.model(dict(shapes), result), shapes)
    assert left.count("RotaryEmbedding") == 1
    assert "Neg" not in left
    assert "Add" not in left


@settings(max_examples=10, deadline=None)
@given(form=FORMS)
def test_the_parts_compute_the_same_bits(form: dict[str, object]):
    write = Writer()
    result = rotation(write, 6, **form)  # pyright: ignore[reportArgumentType]
    shapes = sizes_of(int(form["heads_axis"] == 2) + 1, 2, 4, 3)
    model = write.model(dict(shapes), result, 18)
    module, ctx = imported(model)
    run_passes(module, ctx, [FuseRotaryPass(keep_parts=True)])
    assert "onnx.RotaryEmbedding" in str(module)
    run_passes(module, ctx, ["restore-parts", "dce"])
    generator = np.random.default_rng(0)
    inputs = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    np.testing.assert_array_equal(run(ir.to_proto(export_module(module, ctx)), inputs), run(model, inputs))


@pytest.mark.parametrize("pairs", [True, False])
def test_half_precision(pairs: bool):
    write = Writer(np.float16)
    shapes = sizes_of(1, 2, 4, 3)
    model = write.model(dict(shapes), rotation(write, 6, 1, pairs, repeated=True))
    assert fused(model, shapes, tolerance=3e-3).count("RotaryEmbedding") == 1


@pytest.mark.parametrize(
    "wrong",
    ["neighbours of halves", "sine for cosine", "minus for plus", "pairs from the second on", "halves of cosines"],
)
def test_a_near_miss_is_left(wrong: str):
    """One thing is wrong in each, and nothing is rewritten that computes something else."""
    write = Writer()
    shapes = sizes_of(1, 2, 4, 3)
    cos, sin = angles(write, 6, 1, pairs=wrong != "halves of cosines", repeated=True, how="expand")
    first, second = paired(write, "x", 6, pairs=True)
    if wrong == "neighbours of halves":
        first, second = paired(write, "x", 6, pairs=False)
    elif wrong == "pairs from the second on":
        first, second = second, first
    turned = joined(write, write("Neg", second), first, 6, pairs=True)
    if wrong == "sine for cosine":
        half_cos, half_sin = angles(write, 6, 1, pairs=True, repeated=False, how="")
        real = write("Sub", write("Mul", first, half_cos), write("Mul", second, half_sin))
        imaginary = write("Add", write("Mul", second, half_sin), write("Mul", first, half_cos))
        result = joined(write, real, imaginary, 6, pairs=True)
    else:
        last = "Sub" if wrong == "minus for plus" else "Add"
        result = write(last, write("Mul", "x", cos), write("Mul", turned, sin))
    assert "RotaryEmbedding" not in fused(write.model(dict(shapes), result), shapes)
