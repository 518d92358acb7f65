"""How much of each kind of work ONNX Runtime's CPU kernels do for an op: what the host's costs are fitted to.

`features(op, sizes)` maps names of figures to amounts; seconds are the sum of amount times figure
(`gimlet.targets.onnxruntime.host_model`). A name is the kernel and what it counts:

- `.flops`: operations, with channels and columns padded to the width of registers, for that is what is computed;
- `.passes`: values that are loaded once for a whole set of registers: inputs of a convolution for each 64 filters, the
  right side of a product for each 12 rows;
- `.bytes`: bytes moved. Those of an op that does not fit into the second-level cache count as `cache.bytes` too, those
  of one that does not fit into the last level as `dram.bytes` too; likewise `weights`;
- `.values`: elements that a function is computed of; `.rows` and `.runs`: stretches of elements worked on one by one;
- `call`, `view`: kernels launched, and those that only change what memory means.

Every amount grows with every dimension, so costs do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import prod

from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.values import constant_value
from gimlet.dialects.onnx.work_formulas import FORMULAS
from gimlet.targets.onnxruntime.amounts import (
    CACHE_BYTES,
    FILTERS,
    Features,
    added,
    bytes_of,
    missed,
    moves,
    padded_to,
    product,
    results_of,
    size_of,
    weights_of,
)
from gimlet.targets.onnxruntime.halves import casts, held_bytes
from gimlet.targets.onnxruntime.layout import (
    BLOCK,
    POOLS,
    Sizes,
    blocked_convolution,
    consumers,
    count,
    fused_into,
    is_blocked,
    is_folded,
    is_fused_away,
    is_known,
    is_view,
    normalized,
    shape,
    takes_blocked,
)
from gimlet.targets.onnxruntime.movement import (
    Kernel,
    boxes,
    chosen,
    copies,
    gathered,
    global_pool,
    pool,
    reduction,
    resize,
    scattered,
    softmax,
    transpose,
    value_by_value,
)
from gimlet.targets.onnxruntime.quantized import integer_product, is_absorbed, is_integer_product


def features(op: OnnxOp, sizes: Sizes, resident_bytes: float | None = None, *, cut: bool = False) -> Features:
    """The work of an op among its neighbours; nothing for what a neighbour's kernel computes.

    `resident_bytes` are the weights of everything that runs in turn with the op, by default its own. `cut` gives what
    its producer's kernel computes as work of its own, as where the two are in different segments.
    """
    if is_folded(op):
        return {}
    if is_view(op):
        return {} if op.op_type == "Constant" else {"view": 1.0}
    if is_absorbed(op):
        return {}
    if is_fused_away(op, sizes) and not (cut and fused_into(op, sizes) is not None):
        return casts(op, sizes)
    if is_integer_product(op):
        return {"call": 1.0, **{name: amount for name, amount in integer_product(op, sizes).items() if amount}}
    found = Counter({"call": 1.0})
    found.update(_KERNELS.get(op.op_type, _elementwise)(op, sizes))
    own = sum(held_bytes(value) for value in op.inputs if value is not None and is_known(value))
    found.update(weights_of(op, own, sizes, resident_bytes))
    found.update(_reorders(op, sizes))
    found.update(casts(op, sizes))
    return {name: float(amount) for name, amount in found.items() if amount}


def has_kernel_model(op: OnnxOp) -> bool:
    """Whether the op's kernel is one of those here: not what has a body, nor products in other operators."""
    if op.regions or op.domain not in ("", "com.microsoft"):
        return False
    name = op.op_type
    own = FORMULAS.get(f"{op.domain}.{name}")
    heavy = own or FORMULAS.get(name)
    return (name in _KERNELS and own is None) or heavy is None or heavy[0] not in ("matrix", "conv", "depthwise")


_REORDERING = frozenset({"Conv", *POOLS})


def _reorders(op: OnnxOp, sizes: Sizes) -> Features:
    """Images brought into blocks of channels before an op, and out of them behind it."""
    found: list[Features] = []
    source, result = op.input_at(0), op.results[0]
    if op.op_type in _REORDERING and takes_blocked(op, sizes) and source is not None and not is_blocked(source, sizes):
        readers = [user for user in consumers(source) if user is not None and user.op_type in _REORDERING]
        share = 1.0 / max(sum(takes_blocked(user, sizes) for user in readers), 1)
        found += [moves("reorder", 2 * share * size_of(source, sizes)), {"call": share}]
    if is_blocked(result, sizes) and not all(takes_blocked(user, sizes) for user in consumers(result)):
        found += [moves("reorder", 2 * size_of(result, sizes)), {"call": 1.0}]
    return added(*found)


def _conv(op: OnnxOp, sizes: Sizes) -> Features:
    x, w, y = shape(op.input_at(0), sizes), shape(op.input_at(1), sizes), shape(op.results[0], sizes)
    if x is None or w is None or y is None:
        return _elementwise(op, sizes)
    kind = blocked_convolution(op, sizes)
    if kind is None:
        return _plain_conv(op, x, w, y)
    pixels, window, group = prod(y[2:]) * y[0], prod(w[2:]), int(op.attr("group", 1))
    moved = moves(f"conv.{kind}", sum(bytes_of(op, sizes)))
    if kind == "depthwise":
        filters = padded_to(w[0], BLOCK)
        rows = 1.0 * y[0] * y[2] * w[2] * filters / BLOCK
        return {"conv.depthwise.flops": 2.0 * pixels * window * filters, "conv.depthwise.rows": rows, **moved}
    inner = w[1] if kind == "first" else padded_to(w[1], 4)
    filters = padded_to(w[0] // group, BLOCK)
    return {
        f"conv.{kind}.flops": 2.0 * pixels * window * inner * filters * group,
        f"conv.{kind}.passes": 1.0 * pixels * window * inner * -(-filters // FILTERS) * group,
        **moved,
    }


def _plain_conv(op: OnnxOp, x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...]) -> Features:
    """Each image and group: the windows written out as the columns of a matrix, then its product with the filters.

    The columns are copied row by row of the result, value by value where windows are a stride apart. A single point
    needs none. With one filter a group its product is a pass over them; with more they are packed first.
    """
    group, strides = int(op.attr("group", 1)), op.attr("strides", [1])
    pixels, window, filters, batch = prod(y[2:]), prod(w[2:]), w[0] // int(op.attr("group", 1)), x[0] * group
    inner = window * w[1]
    found = product(filters, inner, pixels, batch, constant=False)
    if filters == 1:
        found = {"conv.row.values": 1.0 * pixels * inner * batch}
    found.pop("gemm.calls", None)
    if window > 1 or any(stride > 1 for stride in strides):
        kind = "columns" if strides[-1] == 1 else "columns.strided"
        found[f"conv.{kind}.values"] = 1.0 * pixels * inner * batch
        found["conv.columns.rows"] = 1.0 * prod(y[2:-1]) * inner * batch
    return added(found, {"conv.plain.calls": float(batch)}, moves("conv.plain", 4.0 * (prod(x) + prod(y))))


def _conv_transpose(op: OnnxOp, sizes: Sizes) -> Features:
    """A product with all filters, whose columns are then added up where they overlap."""
    x, w = shape(op.input_at(0), sizes), shape(op.input_at(1), sizes)
    if x is None or w is None:
        return _elementwise(op, sizes)
    group = int(op.attr("group", 1))
    pixels, columns = prod(x[2:]), prod(w[1:])
    found = product(columns, w[0] // group, pixels, x[0] * group, constant=True)
    spread = 4.0 * x[0] * pixels * columns * group
    return added(found, moves("conv.transposed", spread + 4.0 * results_of(op, sizes)))


def _matmul(op: OnnxOp, sizes: Sizes) -> Features:
    a, b, y = shape(op.input_at(0), sizes), shape(op.input_at(1), sizes), shape(op.results[0], sizes)
    right = op.input_at(1)
    if not a or not b or y is None or right is None:
        return _elementwise(op, sizes)
    k = a[-2] if op.op_type == "Gemm" and op.attr("transA", 0) else a[-1]
    n = y[-1] if y and len(b) > 1 else 1
    constant = is_known(right)
    batch = 1 if constant or len(y) < 3 else prod(y[:-2])
    return product(prod(y) // max(n * batch, 1), k, n, batch, constant=constant)


def _recurrent(op: OnnxOp, sizes: Sizes) -> Features:
    """The inputs of all steps as one product, then a product with the state in each step.

    Each step reads all weights of the state: a single row is as quick as they come, several compute meanwhile. What
    the last level of cache does not keep of them until the next step comes from main memory. RNN packs its weights
    in every run, those of the state in every step, where it multiplies several rows by them.
    """
    x, w, r = (shape(op.input_at(index), sizes) for index in range(3))
    if x is None or w is None or r is None:
        return _elementwise(op, sizes)
    steps, batch, passes = x[0], x[1], x[0] * w[0]
    state, simple = 4.0 * r[1] * r[2], op.op_type == "RNN"
    each = {"recurrent.row.bytes": state}
    if batch > 1:
        each = product(batch, r[2], r[1], constant=True)
        del each["gemm.bytes"], each["gemm.calls"]
    each["dram.recurrent"] = missed(state)
    each["recurrent.steps"] = 2.0 if op.op_type == "GRU" else 1.0
    each["recurrent.simple.values" if simple else "recurrent.values"] = 1.0 * batch * r[1]
    found = [
        {name: amount * passes for name, amount in each.items()},
        {name: amount * w[0] for name, amount in product(steps * batch, w[2], w[1], constant=True).items()},
    ]
    if simple:
        packed = 4.0 * w[1] * w[2] * (steps * batch > 1) + state * steps * (batch > 1)
        found.append({"recurrent.packed": packed * w[0]})
    return added(*found)


_FUNCTIONS: Mapping[str, str] = {
    **dict.fromkeys(("Div", "Reciprocal"), "divided"),
    **dict.fromkeys(("Sqrt", "HardSwish", "Floor", "Ceil", "Round", "Softsign"), "stepwise"),
    **dict.fromkeys(("Sigmoid", "Tanh", "Swish", "QuickGelu"), "exponential"),
    **dict.fromkeys(("Exp",), "power"),
    **dict.fromkeys(("Erf", "Gelu", "FastGelu", "BiasGelu"), "error"),
    **dict.fromkeys(("Sin", "Cos", "Log", "Atan", "Asin", "Acos", "Elu", "Selu", "Celu"), "scalar"),
    **dict.fromkeys(("Sinh", "Cosh", "Tan", "Asinh", "Acosh", "Atanh"), "scalar.wide"),
    **dict.fromkeys(("Pow", "Mod"), "library"),
    **dict.fromkeys(("Softplus", "Mish"), "library.log"),
}


def _elementwise(op: OnnxOp, sizes: Sizes) -> Features:
    kind = _FUNCTIONS.get(op.op_type, "simple")
    if op.op_type == "Pow" and _is_square(op):
        kind = "simple"
    values = float(sum(count(value, sizes) for value in op.outputs if value is not None))
    turns = max(len(op.inputs) - 1, 1) if op.op_type in ("Max", "Min", "Sum", "Mean") else 1
    return {
        **moves("elementwise", turns * sum(bytes_of(op, sizes))),
        f"elementwise.{kind}.values": values,
        "elementwise.rows": float(_broadcast_rows(op, sizes)),
    }


def _is_square(op: OnnxOp) -> bool:
    exponent = op.input_at(1)
    known = None if exponent is None else constant_value(exponent, None, 1)
    return known is not None and known.size == 1 and float(known.reshape(-1)[0]) in (2.0, 3.0)


def _broadcast_rows(op: OnnxOp, sizes: Sizes) -> int:
    """How many stretches of elements an op works on one by one because an operand is broadcast."""
    result = shape(op.results[0], sizes)
    if result is None:
        return 0
    rows = 0
    for value in op.inputs:
        dims = shape(value, sizes)
        if dims is None or dims == result or prod(dims) == 1 or len(dims) > len(result):
            continue
        aligned = (1,) * (len(result) - len(dims)) + dims
        rows = max(rows, prod(result) // max(_run(aligned, result), 1))
    return rows


def _run(own: tuple[int, ...], full: tuple[int, ...]) -> int:
    """How many elements in a row an operand has all of, or has one for."""
    run = 1
    repeated = own[-1:] != full[-1:]
    for mine, size in zip(reversed(own), reversed(full), strict=True):
        if size != 1 and (mine != size) != repeated:
            break
        run *= size
    return run


def _along_last(kernel: str) -> Kernel:
    """A normalisation: every value, and every row of the last dimension."""

    def measure(op: OnnxOp, sizes: Sizes) -> Features:
        return _by_rows(kernel, op.inputs[0], sizes)

    return measure


def _over_images(op: OnnxOp, sizes: Sizes) -> Features:
    """Every channel of every image by itself."""
    dims = shape(op.inputs[0], sizes) or (1, 1)
    return {
        "norm.image.values": float(prod(dims)),
        "norm.rows": float(prod(dims[:2])),
        **moves("elementwise", 8.0 * prod(dims)),
    }


def _by_rows(kernel: str, value: SSAValue | None, sizes: Sizes) -> Features:
    dims = shape(value, sizes) or (1,)
    rows = prod(dims[:-1])
    return {
        f"{kernel}.values": float(prod(dims)),
        f"{kernel}.rows": float(rows),
        **moves("elementwise", 8.0 * prod(dims)),
    }


def _attention(op: OnnxOp, sizes: Sizes) -> Features:
    """Both products of each head and the softmax between them, unfused; Attention of the default domain.

    Keys and values are copied behind those of the past, and what has its heads side by side is transposed first. A
    mask is copied to where the scores are added to it.
    """
    q, k, v = (shape(op.input_at(index), sizes) for index in range(3))
    if not q or not k or not v:
        return _elementwise(op, sizes)
    found = [moves("copy", 2.0 * size_of(value, sizes)) for value in _rearranged(op, sizes)]
    q, k, v = (_by_heads(dims, int(op.attr(name, 1))) for dims, name in zip((q, k, v), _HEADS, strict=True))
    past = shape(op.input_at(4), sizes)
    positions, heads = k[2] + (past[2] if past else 0), q[0] * q[1]
    scores = float(heads * q[2] * positions)
    found.append({"softmax.values": scores, "softmax.rows": float(heads * q[2]), **moves("elementwise", 8.0 * scores)})
    if op.input_at(3) is not None:
        found.append({"attention.masked.values": scores})
    return added(*found, *_head_products(heads, q[2], positions, (q[3], v[3])))


def _head_products(heads: int, queries: int, positions: int, widths: tuple[int, int]) -> list[Features]:
    """Of each head: queries by keys of the first width, their weights by values of the second."""
    if queries == 1:
        values = float(heads * positions * sum(widths))
        return [
            {"attention.row.values": values, "attention.row.calls": 2.0 * heads},
            moves("attention", 4.0 * values),
        ]
    return [
        product(queries, widths[0], positions, heads, constant=False),
        product(queries, positions, widths[1], heads, constant=False),
    ]


def _rearranged(op: OnnxOp, sizes: Sizes) -> list[SSAValue]:
    """What Attention copies besides its scores: the caches that it gives, and rows whose heads are taken apart."""
    caches = [value for value in op.outputs[1:3] if value is not None]
    if op.input_at(4) is None:
        caches = []
    rows = [value for value in (*op.inputs[:3], op.results[0]) if value is not None]
    apart = [value for value in rows if len(dims := shape(value, sizes) or ()) == 3 and dims[1] > 1]
    return caches + apart


_HEADS = ("q_num_heads", "kv_num_heads", "kv_num_heads")


def _by_heads(dims: tuple[int, ...], heads: int) -> tuple[int, ...]:
    """[batch, heads, positions, size] of a value that may have its heads side by side."""
    return dims if len(dims) == 4 else (dims[0], heads, dims[1], dims[2] // heads)


def _rotary(op: OnnxOp, sizes: Sizes) -> Features:
    """Each head of each position is turned by itself: a row, also where heads are side by side."""
    dims = shape(op.input_at(0), sizes)
    if not dims:
        return _elementwise(op, sizes)
    heads = 1 if len(dims) == 4 else max(int(op.attr("num_heads", 0)), 1)
    return {
        "rotary.values": float(prod(dims)),
        "rotary.rows": float(prod(dims[:-1]) * heads),
        **moves("elementwise", 8.0 * prod(dims)),
    }


def _packed_product(op: OnnxOp, sizes: Sizes) -> Features:
    """A product with weights of a few bits (MatMulNBits).

    `accuracy_level` 4 computes in 8-bit integers. Else weights of 4 bits are unpacked in registers for one row; for
    several, and those of 8 bits always, they are written out as float32 in every run before a product in float32.
    """
    x = shape(op.input_at(0), sizes)
    if not x:
        return _elementwise(op, sizes)
    k, n, bits = int(op.attr("K", 1)), int(op.attr("N", 1)), int(op.attr("bits", 4))
    rows, values = prod(x) // max(k, 1), 1.0 * k * n
    kernel = f"packed.{bits}"
    if int(op.attr("accuracy_level", 0)) == 4:
        return {f"{kernel}.integer.flops": 2.0 * rows * values, f"{kernel}.integer.values": values}
    if rows == 1 and bits == 4:
        return {f"{kernel}.row.values": values}
    return added(
        {f"{kernel}.unpacked.values": values, **moves("unpacked", 4.0 * values)},
        product(rows, k, n, constant=True),
    )


def _experts(op: OnnxOp, sizes: Sizes) -> Features:
    """Of the experts that tokens probably reach, two products each and the function between, over their tokens."""
    x, first, second = (shape(op.input_at(index), sizes) for index in (0, 2, 4))
    if not x or not first or not second:
        return _elementwise(op, sizes)
    tokens, experts, chosen = prod(x[:-1]), first[0], int(op.attr("k", 1))
    reached = experts * (1.0 - (1.0 - min(chosen / experts, 1.0)) ** tokens)
    each = prod(first[1:]) + prod(second[1:])
    rows = max(tokens * chosen / reached, 1.0)
    width = prod(first[1:]) // max(x[-1], 1)
    return {
        "expert.flops": 2.0 * each * reached * (rows if rows > 1 else 0.0),
        "expert.calls": reached,
        "expert.read.weights": 4.0 * each * reached,
        "dram.weights": 4.0 * each * reached if 4.0 * each * experts > CACHE_BYTES else 0.0,
        "elementwise.exponential.values": rows * reached * width,
        **moves("elementwise", 8.0 * rows * reached * (width + x[-1])),
    }


def _sqrt(op: OnnxOp, sizes: Sizes) -> Features:
    """A Sqrt that stands for a normalisation which is written out, else itself."""
    value = normalized(op)
    return _elementwise(op, sizes) if value is None else _by_rows("norm", value, sizes)


def _cast(op: OnnxOp, sizes: Sizes) -> Features:
    return {"cast.values": results_of(op, sizes), **moves("elementwise", sum(bytes_of(op, sizes)))}


def _all(kernel: Kernel, names: str) -> dict[str, Kernel]:
    return dict.fromkeys(names.split(), kernel)


_KERNELS: Mapping[str, Kernel] = {
    **_all(_conv, "Conv"),
    **_all(_conv_transpose, "ConvTranspose"),
    **_all(_matmul, "MatMul Gemm FusedMatMul"),
    **_all(_recurrent, "LSTM GRU RNN"),
    **_all(softmax, "Softmax LogSoftmax"),
    **_all(_along_last("norm"), "LayerNormalization GroupNormalization LpNormalization"),
    **_all(_over_images, "InstanceNormalization"),
    **_all(_along_last("norm"), "SkipLayerNormalization"),
    **_all(_along_last("norm.square"), "RMSNormalization SimplifiedLayerNormalization"),
    **_all(_along_last("norm.square"), "SkipSimplifiedLayerNormalization"),
    **_all(_attention, "Attention"),
    **_all(_rotary, "RotaryEmbedding"),
    **_all(_packed_product, "MatMulNBits"),
    **_all(_experts, "MoE"),
    **_all(_sqrt, "Sqrt"),
    **_all(reduction, "ReduceMean ReduceSum ReduceMax ReduceMin ReduceL1 ReduceL2 ReduceProd ReduceSumSquare"),
    **_all(reduction, "ArgMax ArgMin ReduceLogSumExp ReduceLogSum"),
    **_all(chosen, "TopK"),
    **_all(transpose, "Transpose"),
    **_all(copies, "Concat Split Slice Gather Pad Expand Tile"),
    **_all(gathered, "GatherND"),
    **_all(scattered, "ScatterND ScatterElements"),
    **_all(_cast, "Cast CastLike"),
    **_all(pool, "MaxPool AveragePool LpPool"),
    **_all(global_pool, "GlobalAveragePool GlobalMaxPool"),
    **_all(resize, "Resize Upsample"),
    **_all(
        value_by_value, "GatherElements OneHot CumSum LRN GridSample PRelu DepthToSpace SpaceToDepth Where Sign Trilu"
    ),
    **_all(value_by_value, "QuantizeLinear DequantizeLinear DynamicQuantizeLinear"),
    **_all(boxes, "NonMaxSuppression"),
    **_all(integer_product, "MatMulInteger ConvInteger QLinearMatMul QLinearConv"),
}
