"""What ONNX Runtime's optimiser makes of an op among its neighbours: fused away, or computed in blocks of channels.

The CPU provider fuses elementwise ops into convolutions and products, recognises a few activations by their pattern,
and keeps images in blocks of 16 channels (NCHWc) between the convolutions that can work so. This module says which of
these holds for an op, from the op's place in the IR alone; it follows `nchwc_transformer.cc` and the fusions in
`core/optimizer` of ONNX Runtime 1.32 as far as they decide how long something takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.types import dims_of, element_of
from gimlet.dialects.onnx.work import is_weight
from gimlet.dialects.onnx.work_formulas import VIEWS

BLOCK = 16
"""Channels in a block, with AVX-512."""
ALIGNED = 4
"""Images of a multiple of so many channels are brought into blocks, the last of which may not be full."""
Sizes = Mapping[str, int]

_ACTIVATIONS = frozenset({"Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid"})
POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
_UNARY_BLOCKED = frozenset({"Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid", "BatchNormalization"})
_ANY = 64
_TAKEN = _ACTIVATIONS | {"BatchNormalization", "Add", "Mul"}
_NORMALIZING = frozenset({"ReduceMean", "Pow", "Add", "Sub", "Mul", "Div", "Reciprocal"})
_LONGEST_TAIL = 4
"""Ops behind a convolution that its kernel may compute."""
_LONGEST_HEAD = 4
"""Ops from the first of a written-out normalisation to its Sqrt, less one."""
_FARTHEST = 10
"""Ops that are looked through for the convolution that decides a value's layout."""
_KEPT = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
"""Ops that are not computed at load, though all that they read is known."""
_POINTWISE = frozenset({"Add", "Mul", "Sub", "Div"})


def any_size(op: OnnxOp) -> Sizes:
    """One size for all dimensions of an op's values: for what does not depend on them."""
    values = [*op.operands, *op.results]
    return dict.fromkeys((symbol for value in values for dim in dims_of(value) or () for symbol in dim.symbols), _ANY)


def shape(value: SSAValue | None, sizes: Sizes) -> tuple[int, ...] | None:
    """A value's dimensions at `sizes`; None where they are not known."""
    dims = None if value is None else dims_of(value)
    if dims is None or any(not dim.symbols <= sizes.keys() for dim in dims):
        return None
    return tuple(dim.evaluate(sizes) for dim in dims)


def count(value: SSAValue | None, sizes: Sizes) -> int:
    """A value's number of elements; 0 where that is not known."""
    dims = shape(value, sizes)
    return 0 if dims is None else prod(dims)


def producer(value: SSAValue | None) -> OnnxOp | None:
    """The op that makes a value, looking through Identity."""
    while value is not None and isinstance(value.owner, OnnxOp):
        if value.owner.op_type != "Identity":
            return value.owner
        value = value.owner.inputs[0]
    return None


def consumers(value: SSAValue) -> Iterator[OnnxOp | None]:
    """The ops that use a value, looking through Identity; None for what is no ONNX op, such as the end of a graph."""
    for use in value.uses:
        user = use.operation
        if isinstance(user, OnnxOp) and user.op_type == "Identity":
            yield from consumers(user.results[0])
        else:
            yield user if isinstance(user, OnnxOp) else None


def only_consumer(value: SSAValue) -> OnnxOp | None:
    """The one op that uses a value, or None where there are several or none."""
    users = list(consumers(value))
    return users[0] if len(users) == 1 else None


def is_known(value: SSAValue, depth: int = _FARTHEST) -> bool:
    """Whether a value is a weight, or what ONNX Runtime makes of weights alone when it loads a model."""
    maker = value.owner
    return is_weight(value) or (isinstance(maker, OnnxOp) and is_folded(maker, depth - 1))


def is_folded(op: OnnxOp, depth: int = _FARTHEST) -> bool:
    """Whether an op is computed when a model is loaded, for all that it reads is known then."""
    if depth <= 0 or op.regions or op.op_type in _KEPT or not op.operands:
        return False
    return all(value is None or is_known(value, depth) for value in op.inputs)


def blocked_convolution(op: OnnxOp, sizes: Sizes) -> str | None:
    """How a convolution computes in blocks: `first` (of plain images), `depthwise`, `point`, `full`, or None."""
    weight = shape(op.input_at(1), sizes)
    if op.op_type != "Conv" or weight is None or len(weight) != 4 or not is_known(op.input_at(1) or op.results[0]):
        return None
    group = op.attr("group", 1)
    filters, channels = weight[0], weight[1]
    if group > 1:
        if channels == 1 and filters == group:
            return "depthwise" if filters % ALIGNED == 0 else None
        return "full" if channels % BLOCK == 0 and (filters // group) % BLOCK == 0 else None
    if channels < BLOCK:
        return "first"
    if channels % ALIGNED:
        return None
    strides = op.attr("strides", [1, 1])
    return "point" if prod(weight[2:]) == 1 and all(stride == 1 for stride in strides) else "full"


def is_blocked(value: SSAValue | None, sizes: Sizes, depth: int = _FARTHEST) -> bool:
    """Whether a value is in blocks of channels where it is made."""
    op = producer(value)
    if op is None or depth == 0:
        return False
    if op.op_type == "Conv":
        return blocked_convolution(op, sizes) is not None
    inputs = [item for item in op.inputs if item is not None]
    if op.op_type in POOLS:
        dims = shape(op.results[0], sizes)
        return dims is not None and len(dims) == 4 and dims[1] % BLOCK == 0 and _is_single(op.results[0])
    if op.op_type in ("Resize", "Upsample") and not _repeats(op, sizes):
        return False
    if op.op_type in _UNARY_BLOCKED or op.op_type in ("Resize", "Upsample"):
        return bool(inputs) and is_blocked(inputs[0], sizes, depth - 1)
    if op.op_type in _POINTWISE:
        shapes = {shape(item, sizes) for item in inputs}
        return len(shapes) == 1 and all(is_blocked(item, sizes, depth - 1) for item in inputs)
    if op.op_type == "Concat":
        dims = [shape(item, sizes) for item in inputs]
        aligned = all(dim is not None and len(dim) == 4 and dim[1] % BLOCK == 0 for dim in dims)
        return aligned and op.attr("axis", 0) == 1 and all(is_blocked(item, sizes, depth - 1) for item in inputs)
    return False


def _is_single(value: SSAValue) -> bool:
    """Whether a value is of float32."""
    element = element_of(value.type)
    return element is not None and element.bits == 32


def _repeats(op: OnnxOp, sizes: Sizes) -> bool:
    """Whether an image is enlarged in whole numbers, in a way that has a kernel for blocks."""
    source, result = shape(op.input_at(0), sizes), shape(op.results[0], sizes)
    if not source or not result or any(full % max(own, 1) for own, full in zip(source, result, strict=True)):
        return False
    where = op.attr("coordinate_transformation_mode", "half_pixel" if op.op_type == "Resize" else "asymmetric")
    if op.attr("mode", "nearest") == "linear":
        return where in ("half_pixel", "align_corners", "asymmetric")
    return op.attr("mode", "nearest") == "nearest" and where == "asymmetric"


def takes_blocked(op: OnnxOp | None, sizes: Sizes) -> bool:
    """Whether an op reads blocks of channels where they are there."""
    if op is None:
        return False
    if op.op_type == "Conv":
        return blocked_convolution(op, sizes) not in (None, "first")
    return is_blocked(op.results[0], sizes)


def is_fused_away(op: OnnxOp, sizes: Sizes) -> bool:
    """Whether the op is computed by a neighbour's kernel: a convolution's, a product's, or that of a known pattern."""
    return fused_into(op, sizes) is not None or _in_activation(op) or _in_normalization(op)


def fused_into(op: OnnxOp, sizes: Sizes) -> OnnxOp | None:
    """The producer in whose kernel an op is computed, and without which it would be one of its own."""
    found = _into_convolution(op, sizes) or _into_product(op)
    if found is not None or op.op_type != "Mul":
        return found
    return next((maker for maker in _makers(op) if maker.op_type == "Sigmoid" and _scales_itself(op, maker)), None)


def _into_convolution(op: OnnxOp, sizes: Sizes, depth: int = _LONGEST_TAIL) -> OnnxOp | None:
    if depth == 0 or op.op_type not in _TAKEN:
        return None
    for value in op.inputs[:2]:
        maker = producer(value)
        if value is None or maker is None or only_consumer(maker.results[0]) is not op:
            continue
        root = _convolution_behind(maker, sizes, depth)
        if root is not None and _takes(root, op, value, maker, sizes):
            return maker
    return None


def _convolution_behind(op: OnnxOp, sizes: Sizes, depth: int) -> OnnxOp | None:
    """The convolution whose kernel computes `op`, where there is one."""
    if op.op_type == "Conv":
        return op
    maker = _into_convolution(op, sizes, depth - 1)
    return None if maker is None else _convolution_behind(maker, sizes, depth - 1)


def _takes(root: OnnxOp, op: OnnxOp, value: SSAValue, maker: OnnxOp, sizes: Sizes) -> bool:
    """Whether the convolution `root` takes an op on too; `maker`, which is `root` or in it, makes `value` for it."""
    if op.op_type == "BatchNormalization":
        return True
    if op.op_type in _ACTIVATIONS:
        return maker.op_type not in _ACTIVATIONS
    if maker is root and _per_channel(op, value, sizes):
        return True
    # Of two convolutions one takes the sum; it reads what the other has written.
    return op.op_type == "Add" and maker.op_type not in _ACTIVATIONS and is_blocked(op.results[0], sizes)


def _per_channel(op: OnnxOp, value: SSAValue, sizes: Sizes) -> bool:
    other = op.inputs[1] if op.inputs[0] is value else op.inputs[0]
    dims, result = shape(other, sizes), shape(op.results[0], sizes)
    if other is None or dims is None or result is None or not is_known(other) or len(dims) < 3:
        return False
    return prod(dims) == result[1] and dims[-1] == 1


def _into_product(op: OnnxOp) -> OnnxOp | None:
    """The product whose bias an addition is: the two become a Gemm."""
    if op.op_type != "Add":
        return None
    for value, other in (op.inputs[:2], op.inputs[1::-1]):
        maker = producer(value)
        dims = None if other is None else dims_of(other)
        if maker is not None and maker.op_type == "MatMul" and other is not None and is_known(other) and dims:
            weight = maker.input_at(1)
            if len(dims) == 1 and weight is not None and is_known(weight) and only_consumer(maker.results[0]) is op:
                return maker
    return None


def _in_activation(op: OnnxOp) -> bool:
    """The parts of x·½·(1 + erf(x/√2)) around Erf, which stands for them."""
    after = only_consumer(op.results[0]) if op.results else None
    if op.op_type in ("Div", "Mul") and after is not None and after.op_type == "Erf":
        return True
    makers = [maker for value in op.inputs if (maker := producer(value)) is not None]
    if op.op_type == "Add":
        return any(maker.op_type == "Erf" for maker in makers)
    if op.op_type != "Mul":
        return False
    return any(_closes_gelu(maker) for maker in makers) or any(
        maker.op_type == "Mul" and any(_closes_gelu(inner) for inner in _makers(maker)) and _has_constant(op)
        for maker in makers
    )


def _scales_itself(op: OnnxOp, sigmoid: OnnxOp) -> bool:
    """Whether a product is x·σ(x)."""
    return bool(set(sigmoid.inputs) & set(op.inputs))


def _makers(op: OnnxOp) -> list[OnnxOp]:
    return [maker for value in op.inputs if (maker := producer(value)) is not None]


def _closes_gelu(op: OnnxOp) -> bool:
    return op.op_type == "Add" and any(maker.op_type == "Erf" for maker in _makers(op))


def _has_constant(op: OnnxOp) -> bool:
    return any(value is not None and is_known(value) for value in op.inputs)


def _in_normalization(op: OnnxOp) -> bool:
    """The parts of a normalisation that is written out, but for the Sqrt that stands for it."""
    if op.op_type not in _NORMALIZING:
        return False
    near = [*_roots_after(op, _LONGEST_HEAD), *_roots_before(op)]
    return any(op in normalization_parts(root) for root in near)


def _roots_after(op: OnnxOp, depth: int) -> Iterator[OnnxOp]:
    for user in consumers(op.results[0]):
        if user is not None and user.op_type == "Sqrt":
            yield user
        elif user is not None and depth and user.op_type in _NORMALIZING:
            yield from _roots_after(user, depth - 1)


def _roots_before(op: OnnxOp, depth: int = _LONGEST_TAIL) -> Iterator[OnnxOp]:
    for maker in _makers(op):
        if maker.op_type == "Sqrt":
            yield maker
        elif depth and maker.op_type in ("Div", "Mul", "Reciprocal"):
            yield from _roots_before(maker, depth - 1)


def normalization_parts(root: OnnxOp) -> list[OnnxOp]:
    """What one kernel computes with a Sqrt: (x − mean(x)) / sqrt(mean of squares + ε) · scale + bias, or without mean.

    Nothing where the Sqrt is not of an epsilon added to a mean of squares.
    """
    added = producer(root.inputs[0])
    mean = None if added is None or added.op_type != "Add" else next(iter(_makers(added)), None)
    square = None if mean is None or mean.op_type != "ReduceMean" else producer(mean.inputs[0])
    if added is None or mean is None or square is None or square.op_type not in ("Pow", "Mul"):
        return []
    parts = [added, mean, square]
    centred = producer(square.inputs[0])
    if centred is not None and centred.op_type == "Sub":
        parts += [centred, *(maker for maker in _makers(centred) if maker.op_type == "ReduceMean")]
    last = only_consumer(root.results[0])
    for wanted in (("Div", "Reciprocal"), ("Mul",), ("Mul", "Add"), ("Add",)):
        if last is None or last.op_type not in wanted:
            break
        parts.append(last)
        last = only_consumer(last.results[0])
    return parts


def normalized(root: OnnxOp) -> SSAValue | None:
    """The value that a normalisation around a Sqrt normalises, None where there is none."""
    parts = normalization_parts(root)
    return parts[1].inputs[0] if parts else None


def is_view(op: OnnxOp) -> bool:
    """Whether an op only changes what memory means."""
    return op.op_type in VIEWS
