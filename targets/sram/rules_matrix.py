"""Rules for matrix products and convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.expr import ONE, Expr
from gimlet.runtime.sram.formats import MX_BLOCK
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.channels import Windows, are_last, crosses, pays_for_patches
from gimlet.targets.sram.constants import Array, Constant
from gimlet.targets.sram.convolution import Convolution, Geometry, geometry_of, padded_view
from gimlet.targets.sram.depthwise import LONGEST_FILTER, Depthwise, Filters
from gimlet.targets.sram.expression import Argument, Product, products_of
from gimlet.targets.sram.lowering import Lowering, Rule, shape_of, vector_type
from gimlet.targets.sram.mapping import Sizes
from gimlet.targets.sram.patch_rows import quickest
from gimlet.targets.sram.precision import weight_of
from gimlet.targets.sram.products import MatrixProduct, WeightMatrix, broadcast, multiply, product_of
from gimlet.targets.sram.rules_elementwise import present, result
from gimlet.targets.sram.rules_shape import reshaped
from gimlet.targets.sram.stages import parts_of
from gimlet.targets.sram.trial import converts_tiles
from gimlet.targets.sram.views import Shape, View

MOST_OUTPUTS_PER_GROUP = 4


def _floats(op: OnnxOp) -> None:
    """The matrix unit takes floats. RefusedError for a product of anything else."""
    if vector_type(result(op)) != "f32":
        raise RefusedError(f"{op.op_type} of {vector_type(result(op))} is not generated")


def _matmul(lowering: Lowering, op: OnnxOp) -> None:
    _floats(op)
    left, right, value = present(op, 0), present(op, 1), result(op)
    product = _product(lowering, op, left, right)
    shape = shape_of(value)
    if product.shape == shape:
        lowering.define(value, product)
    else:
        lowering.define(value, reshaped(lowering, lowering.computed(product, product.shape, "f32"), shape))


def _product(lowering: Lowering, op: OnnxOp, left: SSAValue, right: SSAValue) -> Product:
    """The product as numpy.matmul defines it, vectors as matrices of one row or column."""
    found = weight_of(right)
    constant = lowering.get(right if found is None else found[0])
    if found is None and isinstance(constant, Constant):  # Integers that are dequantized.
        found = right, False
    if found is not None and isinstance(constant, Constant) and len(constant.shape) == 2 and 0 not in constant.shape:
        weights = WeightMatrix(lowering.weights, constant, lowering.product_type(op), transposed=found[1])
        lhs = _as_matrix(_streamed(lowering, op, left, weights), row=True)
        parts = parts_of(lowering, op, left, lhs, weights.depth, weights.columns)
        return multiply(lowering, op, lhs, weights, lhs.shape[:-2], parts)
    dtype = lowering.activation_type
    lhs = _as_matrix(lowering.operand(left, dtype), row=True)
    rhs = _as_matrix(lowering.operand(right, dtype), row=False)
    return multiply(lowering, op, lhs, rhs, broadcast(lhs.shape[:-2], rhs.shape[:-2]))


def _as_matrix(view: View, row: bool) -> View:
    if len(view.shape) > 1:
        return view
    return view.unsqueeze(0 if row else 1)


def _gemm(lowering: Lowering, op: OnnxOp) -> None:
    _floats(op)
    left, right = present(op, 0), present(op, 1)
    constant = lowering.get(right)
    turned = bool(op.attr("transB", 0))
    transposed = bool(op.attr("transA", 0))
    if isinstance(constant, Constant) and 0 not in constant.shape:
        weights = WeightMatrix(lowering.weights, constant, lowering.product_type(op), turned)
        streams = _turned(lowering, left, weights.dtype) if transposed else _streamed(lowering, op, left, weights)
        product = multiply(lowering, op, streams, weights, ())
    else:
        dtype = lowering.activation_type
        lhs = _turned(lowering, left, dtype) if transposed else lowering.operand(left, dtype)
        rhs = lowering.operand(right, dtype)
        product = multiply(lowering, op, lhs, rhs.transpose((1, 0)) if turned else rhs, ())
    define_biased(lowering, op, product)


def define_biased(lowering: Lowering, op: OnnxOp, found: Argument) -> None:
    """Makes the result of a Gemm its product times alpha, and its bias times beta added."""
    value = result(op)
    shape = shape_of(value)
    alpha, beta = float(op.attr("alpha", 1.0)), float(op.attr("beta", 1.0))
    if alpha != 1.0:
        found = lowering.node("mul", (found, alpha), shape)
    bias = op.input_at(2)
    if bias is not None and beta != 0.0:
        added = lowering.argument(bias)
        if beta != 1.0:
            added = (
                added * beta if isinstance(added, int | float) else lowering.node("mul", (added, beta), shape_of(bias))
            )
        found = lowering.node("add", (found, added), shape)
    lowering.define(value, found)


def _streamed(lowering: Lowering, op: OnnxOp, value: SSAValue, weights: WeightMatrix) -> View:
    """What streams against weights: converted tile by tile, or once before, whichever takes less time."""
    dtype, builder, shape = weights.dtype, lowering.builder, shape_of(value)
    if dtype == "f32" or vector_type(value) != "f32" or isinstance(lowering.get(value), Constant):
        return lowering.operand(value, dtype)
    if given := lowering.plan.next(op).given:
        return lowering.view(value) if given[0].loaded == "f32" else lowering.operand(value, dtype)
    rows = lowering.bounds.best(product_of(shape[:-1]))
    fixed = lowering.bounds.fixed(product_of(shape[:-1]))
    by_columns = builder.width((*shape[:-1], Expr.const(weights.columns))) > 0
    sizes = Sizes(1, rows, weights.depth, weights.columns, "f32", dtype, True, False, fixed, by_columns)
    readers = max(1, len(lowering.readers.get(value, ())))
    behind = _conversion(lowering, value, dtype)
    if converts_tiles(builder.machine, builder.dealing, sizes, builder.homes, readers, behind):
        return lowering.view(value)
    return lowering.operand(value, dtype)


def _conversion(lowering: Lowering, value: SSAValue, dtype: str) -> float | None:
    """The cycles that the product takes more which makes a value if it converts it. None where no product can."""
    found = lowering.get(value)
    if isinstance(found, View | Constant):
        return None
    last = next(reversed(products_of(found)), None)
    if not isinstance(last, MatrixProduct) or last.sums != "f32" or last.shape != shape_of(value):
        return None
    return last.conversion(found, dtype)


def _turned(lowering: Lowering, value: SSAValue, dtype: str) -> View:
    """A matrix transposed, then converted: MXINT8 shares exponents along the last dimension."""
    return lowering.converted(lowering.view(value).transpose((1, 0)), dtype)


def constant_weight(lowering: Lowering, value: SSAValue, op: OnnxOp) -> Constant:
    """The weights of a convolution. RefusedError where they are computed."""
    found = lowering.get(value)
    if not isinstance(found, Constant):
        raise RefusedError(f"the weights of {op.op_type} are computed, they must be constant")
    return found


def _conv(lowering: Lowering, op: OnnxOp) -> None:
    source, value = present(op, 0), result(op)
    weight = constant_weight(lowering, present(op, 1), op)
    sizes, shape = shape_of(source), shape_of(value)
    geometry = geometry_of(op, weight.shape[2:], sizes[2:], shape[2:])
    groups = int(op.attr("group", 1))
    found: Argument = convolve(lowering, op, None, weight, groups, geometry, shape)
    define_with_bias(lowering, op, found, value)


def define_with_bias(lowering: Lowering, op: OnnxOp, found: Argument, value: SSAValue) -> None:
    """Makes the result of a convolution its product with the bias of each channel added."""
    bias, shape = op.input_at(2), shape_of(value)
    if bias is not None:
        found = lowering.node("add", (found, channel_vector(lowering, bias, len(shape))), shape)
    lowering.define(value, found)


def channel_vector(lowering: Lowering, bias: SSAValue, rank: int) -> View:
    """A vector beside a value of `rank` dimensions, the second of which it is along."""
    view = lowering.view(bias)
    for _ in range(rank - 2):
        view = view.unsqueeze(len(view.shape))
    return view


def convolve(
    lowering: Lowering,
    op: OnnxOp,
    view: View | None,
    weight: Constant,
    groups: int,
    geometry: Geometry,
    shape: Shape,
) -> Argument:
    """The convolution of the op's input, or of `view` in its place, on the unit that suits it."""
    source = present(op, 0)
    if weight.shape[1] == 1 and groups > 1 and weight.shape[0] // groups <= MOST_OUTPUTS_PER_GROUP:
        return _depthwise(lowering, view or lowering.view(source), weight, groups, geometry, shape)
    dtype = lowering.product_type(op)
    if dtype == "mxint8" and weight.shape[1] % MX_BLOCK and groups > 1:
        dtype = lowering.activation_type
    there = view or lowering.get(source)
    patches = prod(lowering.bounds.best(size) for size in (shape[0], *shape[2:])) * prod(weight.shape[1:])
    wanted = "f32" if dtype == "mxint8" else dtype
    if groups == 1 and isinstance(there, View) and pays_for_patches(lowering.builder, there, patches, wanted):
        loaded = view = lowering.turned(there, wanted)
    elif isinstance(there, View) and (there, dtype) not in lowering.packed:
        loaded = there
    elif dtype == "mxint8":
        loaded = view or lowering.view(source)
    else:
        loaded = lowering.operand(source, dtype) if view is None else lowering.converted(view, dtype)
    return quickest(Convolution(lowering, loaded, False, weight, groups, geometry, dtype, shape, op, None))


def _depthwise(
    lowering: Lowering, view: View, weight: Constant, groups: int, geometry: Geometry, shape: Shape
) -> Product:
    rank = len(geometry.kernel)
    multiplier = weight.shape[0] // groups
    length, builder = prod(geometry.kernel), lowering.builder
    windows = Windows(shape, geometry.kernel, geometry.strides[0], geometry.dilations[0])
    if are_last(builder, view, 2 + rank) and crosses(builder, windows, copied=True):
        turned = builder.temporary(view.dtype, view.shape)
        lowering.emit(view, turned, "turn")
        view = turned
    if length <= LONGEST_FILTER:
        rows = weight.derived("filters", (weight.shape[0], length), lambda array: array.reshape(-1, length))
        source = padded_view(lowering, view, range(2, 2 + rank))
        filters = lowering.weights.view(rows, "f32")
        return Filters(lowering, source, filters, multiplier, geometry, shape)
    if multiplier > 1:
        view = repeated_channels(lowering, view, multiplier)
    flat = weight.derived("depthwise", (weight.shape[0], *weight.shape[2:]), lambda array: array[:, 0])
    held = lowering.weights.view(flat, "f32").rigid()
    return Depthwise(lowering, padded_view(lowering, view, range(2, 2 + rank)), held, geometry, shape)


def repeated_channels(lowering: Lowering, view: View, times: int) -> View:
    """Each channel `times` in a row, in memory."""
    wide = view.unsqueeze(2)
    wide = wide.expand((*view.shape[:2], Expr.const(times), *view.shape[2:]))
    return reshaped(lowering, wide, (view.shape[0], view.shape[1] * times, *view.shape[2:]))


def _conv_transpose(lowering: Lowering, op: OnnxOp) -> None:
    """A transposed convolution is a convolution of the input with zeros between its elements, filters turned round."""
    source, value = present(op, 0), result(op)
    weight = constant_weight(lowering, present(op, 1), op)
    sizes, shape = shape_of(source), shape_of(value)
    rank = len(sizes) - 2
    groups, kernel = int(op.attr("group", 1)), weight.shape[2:]
    strides = tuple(op.attr("strides") or (1,) * rank)
    dilations = tuple(op.attr("dilations") or (1,) * rank)
    if op.attr("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or op.attr("output_shape"):
        raise RefusedError("ConvTranspose is generated with explicit pads only")
    pads = op.attr("pads") or [0] * (2 * rank)
    spread = _spread(lowering, lowering.view(source), strides)
    inputs, outputs = weight.shape[0] // groups, weight.shape[1]

    def turn(array: Array) -> Array:
        grouped = array.reshape(groups, inputs, outputs, *kernel)
        turned = np.flip(grouped, axis=tuple(range(3, 3 + rank)))
        return turned.swapaxes(1, 2).reshape(groups * outputs, inputs, *kernel)

    turned = weight.derived(f"turned/{groups}", (groups * outputs, inputs, *kernel), turn)
    before = tuple(
        Expr.const((size - 1) * dilation - pad)
        for size, dilation, pad in zip(kernel, dilations, pads[:rank], strict=True)
    )
    geometry = Geometry(tuple(kernel), (1,) * rank, dilations, before)
    found: Argument = convolve(lowering, op, spread, turned, groups, geometry, shape)
    define_with_bias(lowering, op, found, value)


def _spread(lowering: Lowering, view: View, strides: Sequence[int]) -> View:
    """The elements of a view `strides` apart in each spatial dimension, zeros between and after them."""
    if all(stride == 1 for stride in strides):
        return view
    wide: list[Expr] = list(view.shape[:2])
    for size, stride in zip(view.shape[2:], strides, strict=True):
        wide += [size, Expr.const(stride)]
    target = lowering.builder.temporary("f32", tuple(wide))
    place = target
    for dim in range(len(strides)):
        place = place.slice(3 + 2 * dim, 0, ONE)
    source = view
    for dim in range(len(strides)):
        source = source.unsqueeze(3 + 2 * dim)
    lowering.emit(source, place, "spread")
    for dim, stride in enumerate(strides):
        if stride == 1:
            continue
        zeros = target
        for earlier in range(dim):
            zeros = zeros.slice(3 + 2 * earlier, 0, ONE)
        zeros = zeros.slice(3 + 2 * dim, 1, Expr.const(stride - 1))
        lowering.emit(0.0, zeros, "zeros")
    flat = (*view.shape[:2], *(size * stride for size, stride in zip(view.shape[2:], strides, strict=True)))
    return reshaped(lowering, target, flat)


RULES: dict[str, Rule] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
