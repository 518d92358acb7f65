"""Rules that the library `onnx-shape-inference` 0.4 lacks, added to its registry.

Integer tensors that hold shapes are followed element by element: a `symbolic value` is a list of integers and symbolic
dimensions. A name by itself is at least 1; what depends on data is spelled `name - 1` (`data_dims`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import onnx_ir as ir
from onnx_shape_inference import ShapeInferenceContext, registry

from gimlet.passes.attention_shapes import attention, group_query_attention, multi_head_attention
from gimlet.passes.contrib_shapes import DOMAIN, extend_with_contrib
from gimlet.passes.data_dims import DATA_RULES
from gimlet.passes.ml_shapes import extend_with_ml
from gimlet.passes.nchwc_shapes import extend_with_nchwc
from gimlet.passes.shape_fallback import extend_with_fallback
from gimlet.passes.window_shapes import unpooled, windows

Rule: TypeAlias = Callable[[ShapeInferenceContext, ir.Node], None]
Elements: TypeAlias = list[int | ir.SymbolicDim]
WINDOWED = ("AveragePool", "Conv", "ConvInteger", "LpPool", "MaxPool", "QLinearConv")
"""Operators that slide a window over all dimensions of their first operand but two."""
_MOST_ELEMENTS = 64
# Exporters spell "up to the end" as a number that no dimension reaches.
_FAR_END = 1 << 28
# Sums and products of names that stand for dimensions of inputs: the library's own are `_d0`, `_d1`, ….
_POSITIVE = re.compile(r"(?:[A-Za-z]\w*|\d+)(?: ?[*+] ?(?:[A-Za-z]\w*|\d+))*")


@cache
def extend_library() -> None:
    """Lets each rule run after the library's own for the same operator, or around it. Done once a process."""
    registry.collect()
    for op_type, rule in _RULES.items():
        for version in registry.version_boundaries("", op_type) or (1,):
            registry.register("", op_type, version)(_after(registry.get("", op_type, version), rule))
    for op_type in WINDOWED:
        for version in registry.version_boundaries("", op_type):
            registry.register("", op_type, version)(windows(registry.get("", op_type, version)))
    for op_type, rule in DATA_RULES.items():
        for version in registry.version_boundaries("", op_type):
            registry.register("", op_type, version)(_after(registry.get("", op_type, version), rule))
    extend_with_contrib()
    for op_type, rule in _MICROSOFT.items():
        registry.register(DOMAIN, op_type, 1)(_after(registry.get(DOMAIN, op_type, 1), rule))
    extend_with_nchwc()
    extend_with_ml()
    extend_with_fallback()


def _after(infer: Rule | None, rule: Rule) -> Rule:
    def both(ctx: ShapeInferenceContext, node: ir.Node) -> None:
        if infer is not None:
            infer(ctx, node)
        rule(ctx, node)

    return both


def _elements(ctx: ShapeInferenceContext, node: ir.Node, index: int) -> Elements | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return ctx.get_symbolic_value(value) if value is not None else None


def _cast_like(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """CastLike passes the elements of a shape on, as Cast does."""
    elements = _elements(ctx, node, 0)
    if elements is not None:
        ctx.set_symbolic_value(node.outputs[0], elements)


def _constant_of_shape(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """The dimensions of ConstantOfShape are the elements of its input; their number is known even if they are not."""
    dims = _elements(ctx, node, 0)
    count = _static_size(node.inputs[0])
    if dims is None and count is not None:
        dims = [ctx.new_symbolic_dim() for _ in range(count)]
    if dims is None:
        return
    output = node.outputs[0]
    ctx.set_shape(output, ir.Shape(dims))
    attribute = node.attributes.get("value")
    fill = attribute.as_tensor().numpy().item() if attribute is not None else 0.0
    if isinstance(fill, int) and len(dims) == 1 and isinstance(dims[0], int) and dims[0] <= _MOST_ELEMENTS:
        ctx.set_symbolic_value(output, [fill] * dims[0])


def _concat(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """Rows of numbers below each other, as TensorFlow writes paddings: the library follows vectors only."""
    axis = node.attributes.get("axis")
    parts = [_elements(ctx, node, index) for index in range(len(node.inputs))]
    known = [part for part in parts if part is not None]
    if axis is not None and axis.as_int() == 0 and len(known) == len(parts):
        elements = [element for part in known for element in part]
        if len(elements) <= _MOST_ELEMENTS:
            ctx.set_symbolic_value(node.outputs[0], elements)


def _pad(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """Pad by amounts that are computed from dimensions: the library takes constants only."""
    data, output = node.inputs[0], node.outputs[0]
    amounts = _elements(ctx, node, 1)
    if data is None or data.shape is None or amounts is None:
        return
    axes = _integers(ctx, node, 3) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    places = range(len(data.shape)) if axes is None else [axis % len(data.shape) for axis in axes]
    if len(amounts) != 2 * len(places):
        return
    dims = list(data.shape)
    for index, axis in enumerate(places):
        dims[axis] = dims[axis] + amounts[index] + amounts[index + len(places)]
    output.shape = ir.Shape([ctx.simplify_dim(dim) for dim in dims])


def _mod(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """The rest of a shift by a known size, as PyTorch's exporter writes `roll`, which slices there."""
    left, right, fmod = _elements(ctx, node, 0), _elements(ctx, node, 1), node.attributes.get("fmod")
    if not left or not right or (fmod is not None and fmod.as_int()) or len(left) != len(right):
        return
    pairs = [(a, b) for a, b in zip(left, right, strict=True) if isinstance(a, int) and isinstance(b, int) and b]
    if len(pairs) == len(left):
        ctx.set_symbolic_value(node.outputs[0], [a % b for a, b in pairs])


def _expand(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """Expand of a vector of known elements, or of one."""
    elements, count = _elements(ctx, node, 0), _static_size(node.outputs[0])
    if elements and count is not None and count <= _MOST_ELEMENTS and count % len(elements) == 0:
        ctx.set_symbolic_value(node.outputs[0], elements * (count // len(elements)))


def _slice(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """A Slice up to a number takes so many elements, or as many as there are: the library takes the number as it is."""
    data, output = node.inputs[0], node.outputs[0]
    starts, ends = _integers(ctx, node, 1), _integers(ctx, node, 2)
    if data is None or data.shape is None or output.shape is None or starts is None or ends is None:
        return
    axes, steps = _integers(ctx, node, 3) or list(range(len(starts))), _integers(ctx, node, 4) or [1] * len(starts)
    dims = list(output.shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=False):
        dim = data.shape[axis]
        if isinstance(dim, ir.SymbolicDim) and dim.value is not None and start >= 0 and end >= 0 and step > 0:
            dims[axis] = _taken(dim.value, start, end, step)
    output.shape = ir.Shape(dims)


def _taken(dim: str, start: int, end: int, step: int) -> int | ir.SymbolicDim:
    """How many elements of a dimension a slice takes, all numbers as they are given."""
    if end <= start:
        return 0
    if (start, end) == (0, 1):
        return 1
    stop = f"({dim})" if end >= _FAR_END else f"Min({dim}, {end})"
    count = stop if not start else f"Max(0, {stop} - {start})"
    return ir.SymbolicDim(count if step == 1 else f"floor(({count} + {step - 1})/{step})")


def _integers(ctx: ShapeInferenceContext, node: ir.Node, index: int) -> list[int] | None:
    elements = _elements(ctx, node, index)
    numbers = [element for element in elements or () if isinstance(element, int)]
    return numbers if elements is not None and len(numbers) == len(elements) else None


def _static_size(value: ir.Value | None) -> int | None:
    """The number of elements of a vector, None where it is not known."""
    if value is None or value.shape is None or len(value.shape) != 1:
        return None
    return size if isinstance(size := value.shape[0], int) else None


def _if(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """The result of an If is of unknown shape if that of one branch is: the library takes the other's."""
    branches = [node.attributes[name].as_graph().outputs for name in ("then_branch", "else_branch")]
    for output, *made in zip(node.outputs, *branches, strict=False):
        if isinstance(output.type, ir.TensorType) and any(value.shape is None for value in made):
            output.shape = None


def _equal(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """Equal of shapes, where no dimension is negative, and those of inputs are at least 1."""
    pairs = _broadcast(_elements(ctx, node, 0), _elements(ctx, node, 1))
    found = [_is_equal(left, right) for left, right in pairs or ()]
    known = [int(equal) for equal in found if equal is not None]
    if found and len(known) == len(found):
        ctx.set_symbolic_value(node.outputs[0], [*known])


def _is_equal(left: int | ir.SymbolicDim, right: int | ir.SymbolicDim) -> bool | None:
    if isinstance(left, int) and isinstance(right, int):
        return left == right
    if isinstance(left, ir.SymbolicDim) and isinstance(right, ir.SymbolicDim):
        return True if left.value is not None and left.value == right.value else None
    number, dim = (left, right) if isinstance(left, int) else (right, left)
    if not isinstance(number, int) or not isinstance(dim, ir.SymbolicDim):
        return None
    return False if number < 0 or (number == 0 and _POSITIVE.fullmatch(dim.value or "")) else None


def _where(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """Where on shapes, with a condition that is known."""
    condition = _elements(ctx, node, 0) or _constant_condition(node.inputs[0])
    left, right = _elements(ctx, node, 1), _elements(ctx, node, 2)
    chosen = _broadcast(left, right)
    picked = _broadcast(condition, list(range(len(chosen)))) if chosen is not None else None
    if chosen is None or picked is None or len(picked) != len(chosen):
        return
    ctx.set_symbolic_value(node.outputs[0], [chosen[i][0 if keep else 1] for i, (keep, _) in enumerate(picked)])


def _constant_condition(value: ir.Value | None) -> Elements | None:
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    if tensor is None or len(tensor.shape) > 1 or tensor.size > _MOST_ELEMENTS:
        return None
    return [int(item) for item in tensor.numpy().ravel()]


def _broadcast(
    left: Elements | None, right: Elements | None
) -> list[tuple[int | ir.SymbolicDim, int | ir.SymbolicDim]] | None:
    """Pairs of elements; one that is alone goes with all of the other side. None if they do not fit."""
    if not left or not right or (len(left) != len(right) and 1 not in (len(left), len(right))):
        return None
    count = max(len(left), len(right))
    return list(zip(left * (count // len(left)), right * (count // len(right)), strict=True))


def _split(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """Lengths that are computed are what is known of them, and not equal ones, as the library has it."""
    lengths = node.inputs[1] if len(node.inputs) > 1 else None
    data = node.inputs[0]
    if lengths is None or ir.convenience.get_const_tensor(lengths) is not None or data is None or data.shape is None:
        return
    given = node.attributes.get("axis")
    axis = given.as_int() if given is not None else 0
    known = ctx.get_symbolic_value(lengths) or []
    for index, output in enumerate(node.outputs):
        dims = list(data.shape)
        dims[axis] = known[index] if index < len(known) else ir.SymbolicDim(None)
        output.shape = ir.Shape(dims)


_MICROSOFT: dict[str, Rule] = {
    "GroupQueryAttention": group_query_attention,
    "MultiHeadAttention": multi_head_attention,
}
_RULES: dict[str, Rule] = {
    "Attention": attention,
    "CastLike": _cast_like,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Equal": _equal,
    "Expand": _expand,
    "If": _if,
    "MaxUnpool": unpooled,
    "Mod": _mod,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
    "Where": _where,
}
