"""Normalisations as several exporters write them."""

import pytest
from tests.unit.passes.fusion_cases import Writer, fused, imported, kinds
from tests.unit.passes.test_fusions_near_misses import bare, folded

from gimlet.compiler.pipeline import FUSE, run_passes


@pytest.mark.parametrize("reciprocal", [False, True])
@pytest.mark.parametrize("centred", [False, True])
def test_what_nothing_scales(centred: bool, reciprocal: bool):
    write = Writer()
    x = write("Sub", "x", write("ReduceMean", "x", [-1])) if centred else "x"
    root = write("Sqrt", write("Add", write("ReduceMean", write("Mul", x, x), [-1]), 1e-5))
    result = write("Mul", x, write("Reciprocal", root)) if reciprocal else write("Div", x, root)
    # What is multiplied later has another shape than a scale, as in the gated norms of Mamba-2.
    result = write("Mul", write("Reshape", result, [0, 16]), "s")
    norm = "LayerNormalization" if centred else "RMSNormalization"
    shapes = {"x": ("n", 2, 8), "s": (16,)}
    assert fused(write.model(shapes, result), {"x": (3, 2, 8), "s": (16,)}) == [norm, "Reshape", "Mul"]


@pytest.mark.parametrize("flip", [False, True])
def test_tensorflow_s_form(flip: bool):
    write = Writer()
    result, shapes = folded(write)
    if flip:
        write.nodes[-1].input.reverse()
    assert fused(write.model(shapes, result), shapes) == ["LayerNormalization"]


@pytest.mark.parametrize(("width", "found"), [(8, True), (1 << 20, True), ((1 << 20) + 1, False), ("n", False)])
def test_a_scale_of_an_absurd_size_or_one_that_is_not_known_is_not_made(width: int | str, found: bool):
    write = Writer()
    result, _ = bare(write)
    module, ctx = imported(write.model({"x": (2, width)}, result))
    run_passes(module, ctx, FUSE)
    assert ("RMSNormalization" in kinds(module)) == found
