"""Fusions in half precision: norms that are computed in float32 between casts, and activations in 16 bits."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from tests.unit.passes.fusion_cases import FLOAT, Writer, fused, imported, kinds

HALF = 10
"""ONNX's number of float16."""
SHAPES: dict[str, Sequence[int]] = {"x": (2, 4, 8), "s": (8,), "b": (8,)}


def narrow_norm(write: Writer, *, layer: bool, flip: bool = False) -> str:
    """A norm as transformers has it: float32 from the input to the quotient, which is cast and then scaled."""
    wide = write("Cast", "x", to=FLOAT)
    if layer:
        wide = write("Sub", wide, write("ReduceMean", wide, [-1]))
    square = write("Pow", wide, "two")
    root = write("Sqrt", write("Add", write("ReduceMean", square, [-1]), "epsilon"))
    quotient = write("Div", wide, root) if flip else write("Mul", wide, write("Reciprocal", root))
    narrow = write("Cast", quotient, to=HALF)
    return write("Mul", *((narrow, "s") if flip else ("s", narrow)))


def half_writer() -> Writer:
    """float16, with the constants of a norm in float32."""
    write = Writer(np.float16)
    single = Writer()
    for name, value in (("two", 2.0), ("epsilon", 1e-5)):
        single.constant(value)
        write.constants.append(single.constants[-1])
        write.constants[-1].name = name
    return write


@pytest.mark.parametrize("flip", [True, False])
def test_a_norm_between_casts_takes_and_gives_half_precision(flip: bool):
    write = half_writer()
    model = write.model({"x": ["n", 4, 8], "s": [8]}, narrow_norm(write, layer=False, flip=flip))
    assert fused(model, {"x": (2, 4, 8), "s": (8,)}, tolerance=2e-3) == ["RMSNormalization"]


def test_a_layer_norm_between_casts_takes_its_bias():
    write = half_writer()
    model = write.model(dict(SHAPES), write("Add", narrow_norm(write, layer=True), "b"))
    assert fused(model, SHAPES, tolerance=2e-3) == ["LayerNormalization"]


def test_what_others_read_of_the_widened_input_stays():
    write = half_writer()
    normed = narrow_norm(write, layer=False)
    again = write("Cast", write("Neg", write("Cast", "x", to=FLOAT)), to=HALF)
    model = write.model({"x": [2, 4, 8], "s": [8]}, write("Add", normed, again))
    left = fused(model, {"x": (2, 4, 8), "s": (8,)}, tolerance=2e-3)
    assert left.count("RMSNormalization") == left.count("Neg") == 1


def test_a_quotient_that_is_cast_to_another_type_is_scaled_behind():
    """Of a float32 input that is rounded before it is scaled, no operator has the rounding: it is scaled behind."""
    write = Writer()
    root = write("Sqrt", write("Add", write("ReduceMean", write("Mul", "x", "x"), [-1]), 1e-5))
    narrow = write("Cast", write("Div", "x", root), to=HALF)
    result = write("Cast", write("Mul", narrow, write("Cast", "s", to=HALF)), to=FLOAT)
    model = write.model({"x": [2, 4, 8], "s": [8]}, result)
    left = fused(model, {"x": (2, 4, 8), "s": (8,)})
    assert left == ["RMSNormalization", "Cast", "Cast", "Mul", "Cast"]


def test_a_norm_wholly_in_half_precision():
    write = Writer(np.float16)
    root = write("Sqrt", write("Add", write("ReduceMean", write("Mul", "x", "x"), [-1]), 1e-3))
    model = write.model({"x": [2, 4, 8], "s": [8]}, write("Mul", write("Div", "x", root), "s"))
    assert fused(model, {"x": (2, 4, 8), "s": (8,)}, tolerance=5e-3) == ["RMSNormalization"]


@pytest.mark.parametrize("tanh", [True, False])
def test_gelu_with_constants_of_sixteen_bits(tanh: bool):
    write = Writer(np.float16)
    if tanh:
        cubic = write("Add", "x", write("Mul", 0.044715, write("Pow", "x", 3.0)))
        curve = write("Tanh", write("Mul", cubic, math.sqrt(2 / math.pi)))
    else:
        curve = write("Erf", write("Div", "x", math.sqrt(2)))
    result = write("Mul", write("Mul", 0.5, "x"), write("Add", curve, 1.0))
    assert fused(write.model({"x": [3, 8]}, result), {"x": (3, 8)}, tolerance=5e-3) == ["Gelu"]


@pytest.mark.parametrize("inside", [0.69, 0.72])
def test_a_constant_that_the_type_tells_apart_is_another_one(inside: float):
    write = Writer(np.float16)
    curve = write("Add", write("Erf", write("Mul", "x", inside)), 1.0)
    module, _ = imported(write.model({"x": [8]}, write("Mul", write("Mul", "x", 0.5), curve)))
    assert "Gelu" not in kinds(module)
    assert "Gelu" not in fused(write.model({"x": [8]}, write("Mul", write("Mul", "x", 0.5), curve)), {"x": (8,)})


def test_swish_in_half_precision():
    write = Writer(np.float16)
    result = write("Mul", "x", write("Sigmoid", write("Mul", 1.702, "x")))
    assert fused(write.model({"x": [8]}, result), {"x": (8,)}, tolerance=5e-3) == ["Swish"]
