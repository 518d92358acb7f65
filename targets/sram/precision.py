"""Which products of a segment are computed in which number format.

`bf16` and `mxint8` name the fastest format that a segment may use, not the only one: rounding errors of products in
series add up, and they cost nothing where a product is small. What was measured on PP-OCRv4, MiniLM and SmolLM2
(docs/sram.md has the figures):

- f32: convolutions to a single position, which scale whole feature maps (the squeeze-and-excite gates of a mobile
  network caused most of its error), and products of a depth below the array's rows, whose weights are next to nothing.
- f32: what a router chooses experts by: the choice jumps where its logits are close.
- mxint8: products with weights, from the one with the most operations down, as long as the errors that they are
  expected to add (as independent ones do: by their squares) stay within the budget of the segment.
- bf16: everything else, attention's products of two computed operands among it.
- i8: products of 8-bit integers, in every format (quantized.py).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from math import prod

from xdsl.ir import Operation, OpResult, SSAValue

from gimlet.dialects.onnx import OnnxOp, dims_of
from gimlet.dialects.onnx.work import is_weight, work_of
from gimlet.runtime.expr import ONE
from gimlet.runtime.sram.formats import stored_bytes
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.sram.quantized import EVERYTHING, INTEGER_PRODUCTS, dequantized_operands, is_integer_product

MX_ERROR_BUDGET = 0.02
"""The relative error (L2) that MXINT8 may add to a segment, unless the hardware file's options say otherwise."""

_PRODUCT_ERROR = 0.01
_CONVOLUTION_ERROR = 0.03
_EXPERTS_ERROR = 0.02
_LEAST_DEPTH = 128

MATRIX_TYPES: Mapping[str, str] = {"fp32": "f32", "bf16": "bf16", "mxint8": "mxint8"}
"""The number formats of the target, and the element type of matrix operands in each."""


def product_types(
    ops: Sequence[OnnxOp],
    fmt: str,
    machine: Machine,
    sizes: Mapping[str, int],
    mx_budget: float = MX_ERROR_BUDGET,
    inside: Container[Operation] = (),
) -> dict[OnnxOp, str]:
    """The element type of the operands of every product with weights or of integers among `ops`.

    Dimensions are at `sizes`. `mx_budget` is the error that MXINT8 may add; from 1 on there is no limit. `inside` are
    the ops of the segment, where `ops` are not all of them.
    """
    fastest = MATRIX_TYPES[fmt]
    types: dict[OnnxOp, str] = {}
    routers = _routers(ops)
    candidates: list[tuple[float, int, OnnxOp]] = []
    inside = inside or set[Operation](ops)
    for index, op in enumerate(ops):
        if "i8" in machine.row_cycles and is_integer_product(op, inside):
            types[op] = "i8"
            continue
        shape = weight_shape(op)
        if shape is None:
            continue
        depth = prod(shape[1:]) if op.op_type in _CONVOLUTIONS else shape[0]
        if fastest == "f32" or depth < machine.matrix_rows or _is_gate(op) or op in routers:
            types[op] = "f32"
            continue
        types[op] = "bf16"
        if fastest == "mxint8" and depth >= _LEAST_DEPTH:
            candidates.append((-float(work_of(op).flops.evaluate(sizes)), index, op))
    error = 0.0
    for _, _, op in sorted(candidates, key=lambda each: each[:2]):
        added = _ERRORS.get(op.op_type, _PRODUCT_ERROR) ** 2
        if mx_budget >= 1 or error + added <= mx_budget**2 * (1 + 1e-9):
            types[op] = "mxint8"
            error += added
    return types


def product_flops(
    ops: Sequence[OnnxOp], types: Mapping[OnnxOp, str], other: str, sizes: Mapping[str, int]
) -> dict[str, float]:
    """The operations of all products by element type; those without weights, which `types` lacks, are in `other`."""
    flops: dict[str, float] = {}
    for op in ops:
        if (work := work_of(op)).op_class in ("conv", "matrix"):
            dtype = types.get(op, other)
            flops[dtype] = flops.get(dtype, 0.0) + work.flops.evaluate(sizes)
    return dict(sorted(flops.items()))


def resident_bytes(types: Mapping[OnnxOp, str]) -> int:
    """What the weights of products take together, each in its type.

    Convolutions of integers and depthwise ones are no products of patches (patch_rows.py): theirs are not resident.
    """
    total = 0
    for op, dtype in types.items():
        if op.op_type in _CONVOLUTIONS and dtype == "i8":
            continue
        shape = integer_weight_shape(op) if dtype == "i8" else weight_shape(op)
        depthwise = op.op_type in _CONVOLUTIONS and shape is not None and shape[1] == 1 < op.attr("group", 1)
        if shape is not None and not depthwise:
            rows, columns = (shape[0], prod(shape[1:])) if op.op_type in _CONVOLUTIONS else (shape[1], shape[0])
            total += stored_bytes(dtype, (rows, columns))
    return total


_CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "ConvTranspose", "QLinearConv"})
_ERRORS = {**dict.fromkeys(_CONVOLUTIONS, _CONVOLUTION_ERROR), "MoE": _EXPERTS_ERROR}


def weight_shape(op: OnnxOp) -> tuple[int, ...] | None:
    """The shape of a product's weights as [depth, columns], of a convolution's as [outputs, channels, ...]."""
    if op.op_type == "MoE" and op.domain == "com.microsoft":
        return _expert_shape(op)
    if op.domain or op.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    found = None if op.input_at(1) is None else weight_of(op.inputs[1])
    dims = None if found is None else dims_of(found[0])
    if found is None or dims is None:
        return None
    shape = tuple(dim.as_int() for dim in dims)
    if found[1]:
        shape = (shape[1], shape[0])
    if op.op_type == "ConvTranspose":
        groups = int(op.attr("group", 1))
        return (shape[1] * groups, shape[0] // groups, *shape[2:])
    if op.op_type == "Gemm" and op.attr("transB", 0):
        return (shape[1], shape[0])
    return shape if op.op_type == "Conv" or len(shape) == 2 else None


def integer_weight_shape(op: OnnxOp) -> tuple[int, ...] | None:
    """The shape [depth, columns] of the constant integers that a matrix product multiplies; None where none are."""
    if op.op_type in INTEGER_PRODUCTS:
        value, turned = op.inputs[INTEGER_PRODUCTS[op.op_type][1]], False
    else:
        found = dequantized_operands(op, EVERYTHING)
        value, turned = (None, False) if found is None else (found[1].value, found[1].turned)
    dims = None if value is None or not is_weight(value) else dims_of(value)
    if dims is None or len(dims) != 2:
        return None
    shape = (dims[0].as_int(), dims[1].as_int())
    return shape[::-1] if turned != bool(op.op_type == "Gemm" and op.attr("transB", 0)) else shape


def _expert_shape(op: OnnxOp) -> tuple[int, ...] | None:
    """The smaller depth of the layers of experts, and the columns of the first."""
    first, second = (dims_of(value) if value is not None else None for value in (op.input_at(2), op.input_at(4)))
    if first is None or second is None:
        return None
    return (min(first[2].as_int(), second[2].as_int()), first[1].as_int())


def weight_of(value: SSAValue | None) -> tuple[SSAValue, bool] | None:
    """The constant that an operand of a product is, and whether it is a matrix that is transposed first.

    An output layer that shares its weights with the embedding is the transpose of a constant.
    """
    if value is None:
        return None
    if is_weight(value):
        return value, False
    turn = value.owner
    if not isinstance(turn, OnnxOp) or turn.op_type != "Transpose" or turn.domain:
        return None
    turned = turn.inputs[0]
    if turned is None or not is_weight(turned) or list(turn.attr("perm") or (1, 0)) != [1, 0]:
        return None
    return turned, True


def _routers(ops: Sequence[OnnxOp]) -> set[Operation]:
    """The products that routers of experts are made of, other products apart."""
    pending = [op.input_at(1) for op in ops if op.op_type == "MoE"]
    found: set[Operation] = set()
    seen: set[Operation] = set()
    while pending:
        value = pending.pop()
        maker = value.owner if isinstance(value, OpResult) else None
        if not isinstance(maker, OnnxOp) or maker in seen:
            continue
        seen.add(maker)
        if work_of(maker).op_class in ("conv", "matrix"):
            found.add(maker)
        else:
            pending += maker.inputs
    return found


def _is_gate(op: OnnxOp) -> bool:
    """Whether a convolution has one output position for each channel."""
    dims = dims_of(op.results[0])
    return op.op_type in _CONVOLUTIONS and dims is not None and all(dim == ONE for dim in dims[2:])
