"""Rules for products of 8-bit integers, and for the scale that DynamicQuantizeLinear chooses.

Sums are exact. What is scaled and rounded behind them is so in the order of ONNX Runtime, so that its results are the
same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.expr import ONE, ZERO, Expr, ceildiv
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.constants import Array, Constant
from gimlet.targets.sram.expression import Argument
from gimlet.targets.sram.integers import Operand, Placed, as_it_is, define_integers, product_of_integers
from gimlet.targets.sram.lowering import Lowering, Rule, element_type, shape_of, vector_type
from gimlet.targets.sram.products import product_of
from gimlet.targets.sram.rules_elementwise import present, result
from gimlet.targets.sram.rules_quantize import to_integers
from gimlet.targets.sram.rules_shape import reshaped
from gimlet.targets.sram.views import Counter, Shape, View

_PIECE, _LEAST_PIECE = 4096, 256
"""Elements of a piece whose smallest and largest one item finds: at most, and where there are cores enough."""
_STEPS = 255.0
"""From the smallest to the largest integer of 8 bits."""


def _matmul_integer(lowering: Lowering, op: OnnxOp) -> None:
    value = result(op)
    left, right = (Operand(present(op, index), op.input_at(index + 2)) for index in (0, 1))
    found, shape = product_of_integers(lowering, op, left, right)
    lowering.define(value, _seen_as(lowering, found, shape, value))


def _qlinear_matmul(lowering: Lowering, op: OnnxOp) -> None:
    value = result(op)
    left, right = (Operand(present(op, index), op.input_at(index + 2)) for index in (0, 3))
    found, shape = product_of_integers(lowering, op, left, right)
    factors: list[tuple[SSAValue, Placed]] = [(present(op, 1), _row), (present(op, 4), as_it_is)]
    found = requantized(lowering, op, found, factors, (6, 7), shape)
    define_integers(lowering, value, _seen_as(lowering, found, shape, value))


def _row(view: View) -> View:
    return view.unsqueeze(1)


def requantized(
    lowering: Lowering,
    op: OnnxOp,
    found: Argument,
    factors: Sequence[tuple[SSAValue, Placed]],
    to: tuple[int, int],
    shape: Shape,
) -> Argument:
    """Sums of integers times the scales of both operands over that of the result, as integers again.

    `to` are the numbers of the inputs that are the result's scale and zero point.
    """
    scale = scaled_by(lowering, factors, present(op, to[0]))
    real = lowering.node("mul", (lowering.node("copy", (found,), shape), scale), shape)
    given = op.input_at(to[1])
    zero: Argument = 0.0 if given is None else lowering.argument(given)
    if isinstance(zero, int | float):
        zero = float(zero)
    elif given is not None:
        zero = lowering.node("copy", (zero,), shape_of(given))
    return to_integers(lowering, real, zero, shape, element_type(result(op)))


def scaled_by(
    lowering: Lowering, factors: Sequence[tuple[SSAValue, Placed]], divisor: SSAValue | None = None
) -> Argument:
    """The product of scales, over another: a number or constant where they are known, rounded as f32 each time."""
    known = [lowering.known(value) for value, _ in factors]
    below = None if divisor is None else lowering.known(divisor)
    vectors = [index for index, array in enumerate(known) if array is None or array.size != 1]
    if all(array is not None for array in known) and len(vectors) <= 1 and (divisor is None or below is not None):
        arrays = [np.asarray(array, np.float32) for array in known]
        scale = arrays[0]
        for each in arrays[1:]:
            scale = scale * each
        scale = scale if below is None else scale / np.asarray(below, np.float32)
        if scale.size == 1:
            return float(scale.reshape(-1)[0])
        return _constant(lowering, scale, factors[vectors[0]])
    found: Argument = 1.0
    for value, placed in factors:
        factor = _as_f32(lowering, value, placed)
        found = factor if found == 1.0 else lowering.node("mul", (found, factor), shape_of(value))
    if divisor is None:
        return found
    return lowering.node("div", (found, _as_f32(lowering, divisor, as_it_is)), shape_of(divisor))


def _constant(lowering: Lowering, scale: Array, factor: tuple[SSAValue, Placed]) -> View:
    """Scales as a constant, placed as one of the factors is."""

    def read() -> Array:
        return scale

    key = f"scale/{scale.tobytes().hex()}"
    view = lowering.weights.view(Constant(key, "f32", scale.shape, read), "f32")
    return factor[1](view) if len(view.shape) == 1 else view


def _as_f32(lowering: Lowering, value: SSAValue, placed: Placed) -> Argument:
    argument = lowering.argument(value)
    if isinstance(argument, int | float):
        return float(argument)
    view = lowering.converted(lowering.view(value), "f32")
    return placed(view) if len(view.shape) == 1 and view.shape != (ONE,) else view


def _seen_as(lowering: Lowering, found: Argument, shape: Shape, value: SSAValue) -> Argument:
    """A product of vectors, which was one of matrices, in the shape of the result."""
    if shape == shape_of(value):
        return found
    return reshaped(lowering, lowering.computed(found, shape, element_type(value)), shape_of(value))


def _dynamic_quantize(lowering: Lowering, op: OnnxOp) -> None:
    """Integers from 0 to 255 for numbers from the smallest to the largest of all, zero among them."""
    source = present(op, 0)
    shape = shape_of(source)
    if vector_type(source) != "f32" or any(size.is_constant and not size.as_int() for size in shape):
        raise RefusedError(f"{op.op_type} of {vector_type(source)} {list(map(str, shape))} is not generated")
    view = lowering.converted(lowering.view(source), "f32")
    scale, zero = _range_of(lowering, reshaped(lowering, view, (product_of(shape),)))
    for index, found in ((1, scale), (2, zero)):
        lowering.define(op.outputs[index], reshaped(lowering, found, ()))
    real = lowering.node("div", (view, scale), shape)
    point = lowering.node("copy", (zero,), zero.shape)
    define_integers(lowering, result(op), to_integers(lowering, real, point, shape, "ui8"))


def _range_of(lowering: Lowering, flat: View) -> tuple[View, View]:
    """The scale (f32) and zero point (ui8) for all elements of a vector: each core sees a piece, one all ends."""
    builder = lowering.builder
    (length,) = flat.shape
    piece = min(_PIECE, max(_LEAST_PIECE, -(-builder.bounds.best(length) // builder.cores)))
    pieces = ceildiv(length, Expr.const(piece))
    ends = {"min": builder.temporary("f32", (pieces,)), "max": builder.temporary("f32", (pieces,))}
    with builder.kernel("range_of_pieces") as kernel:
        part = kernel.range(length, piece)
        tile = kernel.load(flat, (part.start,), ((Counter(0, part.size),),), (piece,), repeated=True)
        for function, end in ends.items():
            kernel.store(end, (part.index,), ((Counter(0, ONE),),), kernel.reduce(function, tile, [0]))
    scale, zero = builder.temporary("f32", (ONE,)), builder.temporary("ui8", (ONE,))
    most = min(_PIECE, builder.bounds.most(pieces))
    with builder.kernel("range") as kernel:
        kernel.range(ONE, 1)
        found = {function: kernel.fill("f32", (ONE,), (1,), 0.0) for function in ends}
        with kernel.loop(pieces, most) as each:
            for function, end in ends.items():
                tile = kernel.load(end, (each.start,), ((Counter(0, each.size),),), (most,), repeated=True)
                kernel.map(function, [found[function], kernel.reduce(function, tile, [0])], into=found[function])
        low, high = found["min"], found["max"]
        step = kernel.map("div", [kernel.map("sub", [high, low]), _STEPS])
        step = kernel.map("select", [kernel.map("equal", [high, low], "i1"), 1.0, step])
        point = kernel.map("sub", [0.0, kernel.map("div", [low, step])])
        point = kernel.map("min", [kernel.map("max", [point, 0.0]), _STEPS])
        kernel.store(scale, (ZERO,), ((Counter(0, ONE),),), step)
        kernel.store(zero, (ZERO,), ((Counter(0, ONE),),), kernel.map("round", [point]))
    return scale, zero


RULES: dict[str, Rule] = {
    "DynamicQuantizeLinear": _dynamic_quantize,
    "MatMulInteger": _matmul_integer,
    "QLinearMatMul": _qlinear_matmul,
}
