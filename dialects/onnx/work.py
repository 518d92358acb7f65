"""What an ONNX op has to do, on any hardware: operations, bytes read and written, bytes of weights.

`work_of(op)` gives expressions over the symbolic dimensions. The conventions:

- A multiply-add counts as two operations. Elementwise functions count as `ELEMENT_FLOPS` says: additions, comparisons
  and the like are one, functions that processors compute by a polynomial are its length, rounded.
- `bytes_read` is everything that one run reads, weights too. What an op does not touch is not counted: Gather reads the
  rows that it is asked for, Slice what it keeps, MoE the experts that tokens are sent to.
- `weight_bytes` is what has to be resident: all of the constants that the op uses, read or not.
- Attention is counted dense: a causal mask does not halve it, as in PyTorch's FlopCounterMode.
- Views (Reshape, Squeeze, Shape, …) and constants cost nothing.
- An operator without a formula counts one operation for each value that it writes, and reads all of its inputs.

Where a shape or a trip count is not known, `known` is False and the figures are a lower bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import reduce

from xdsl.dialects.builtin import AnyFloat, ComplexType
from xdsl.ir import Operation, OpResult, Region, SSAValue

from gimlet.dialects.onnx.extra_ops import InitializerOp, YieldOp
from gimlet.dialects.onnx.op import OnnxOp
from gimlet.dialects.onnx.types import dims_of, element_of
from gimlet.dialects.onnx.values import constant_value
from gimlet.dialects.onnx.work_formulas import (
    DATA,
    ELEMENT_FLOPS,
    PARTIAL,
    VIEWS,
    ZERO,
    OpClass,
    UnknownShapeError,
    View,
    formula_of,
    known_dims,
    product,
)
from gimlet.runtime.expr import Expr, maximum

__all__ = ["ELEMENT_FLOPS", "NOTHING", "Amounts", "OpClass", "Volume", "Work", "is_weight", "work_of"]

ENDLESS = 1 << 30
"""A Loop with at least this trip count is a `while` whose end nobody wrote down."""


@dataclass(frozen=True)
class Volume:
    """Something that is read, written, resident as weights, and read from weights (a part of `read`)."""

    read: Expr = ZERO
    written: Expr = ZERO
    weights: Expr = ZERO
    weight_read: Expr = ZERO


@dataclass(frozen=True)
class Amounts:
    """Work in numbers: operations, and bytes as `Volume` has them."""

    flops: float
    bytes_read: float
    bytes_written: float
    weight_bytes: float
    weight_read: float

    @property
    def activation_bytes(self) -> float:
        """Bytes read and written that are not weights."""
        return self.bytes_read - self.weight_read + self.bytes_written


@dataclass(frozen=True)
class Work:
    """What an op has to do: operations and bytes as expressions over the symbolic dimensions (see the module).

    The bytes are those of the IR's types. `values` counts the floating-point values among them and `fixed` has the
    bytes of everything else, so that `at` can tell the bytes in another format; without them all bytes are float32.
    """

    flops: Expr
    bytes_read: Expr
    bytes_written: Expr
    weight_bytes: Expr
    op_class: OpClass = "vector"
    known: bool = True
    weight_read: Expr | None = None
    values: Volume | None = None
    fixed: Volume = Volume()

    def at(self, sizes: Mapping[str, int], bits: float | None = None) -> Amounts:
        """The numbers with dimensions at `sizes`, no floating-point value taking more than `bits` where that is given.

        A value that the IR has in fewer bits keeps them. InputError names a dimension that `sizes` lacks.
        """
        weight_read = self.weight_bytes if self.weight_read is None else self.weight_read
        own = _evaluated(Volume(self.bytes_read, self.bytes_written, self.weight_bytes, weight_read), sizes)
        flops = float(self.flops.evaluate(sizes))
        if bits is None:
            return Amounts(flops, *(float(amount) for amount in own))
        if self.values is None:
            return Amounts(flops, *(amount * min(bits, 32) / 32 for amount in own))
        parts = zip(own, _evaluated(self.values, sizes), _evaluated(self.fixed, sizes), strict=True)
        return Amounts(flops, *(rest + min(count * bits / 8, total - rest) for total, count, rest in parts))

    def __add__(self, other: Work) -> Work:
        return _joined(self, other, lambda a, b: a + b)

    def scaled(self, times: Expr) -> Work:
        """The same work done `times` over. The weights are there once."""
        repeated = _joined(self, self, lambda a, _: a * times)
        return replace(
            repeated,
            weight_bytes=self.weight_bytes,
            values=self.values and repeated.values and replace(repeated.values, weights=self.values.weights),
            fixed=replace(repeated.fixed, weights=self.fixed.weights),
        )


NOTHING = Work(ZERO, ZERO, ZERO, ZERO, "view", values=Volume())
"""The work of a view."""


def work_of(op: Operation) -> Work:
    """What `op` has to do. An op that is not ONNX's has nothing to do; see the module for the conventions."""
    if not isinstance(op, OnnxOp) or isinstance(op, InitializerOp | YieldOp):
        return NOTHING
    try:
        if op.subgraphs:
            return _control_flow(op)
        if op.op_type in VIEWS:
            return NOTHING
        return _leaf(View(op))
    except UnknownShapeError:
        return Work(ZERO, ZERO, ZERO, ZERO, "data" if op.op_type in DATA else "vector", known=False, values=Volume())


def is_weight(value: SSAValue) -> bool:
    """Whether the value is a constant of the model: an initializer's or a Constant's result."""
    return isinstance(value, OpResult) and (
        isinstance(value.op, InitializerOp) or (isinstance(value.op, OnnxOp) and value.op.op_type == "Constant")
    )


def _leaf(op: View) -> Work:
    op_class, flops = formula_of(op)
    partial = PARTIAL[op.op.op_type](op) if op.op.op_type in PARTIAL else {}
    tally = _Tally()
    for index, value in enumerate(op.inputs):
        if value is None:
            continue
        count = product(known_dims(value))
        read = partial.get(index, count)
        tally.add(value, {_READ: read, _WEIGHTS: count, _WEIGHT_READ: read} if is_weight(value) else {_READ: read})
    for value in op.outputs:
        if value is not None:
            tally.add(value, {_WRITTEN: partial.get(-1, product(known_dims(value)))})
    read, written, weights, weight_read = tally.bytes
    values, fixed = Volume(*tally.values), Volume(*tally.fixed)
    return Work(flops, read, written, weights, op_class, True, weight_read, values, fixed)


_READ, _WRITTEN, _WEIGHTS, _WEIGHT_READ = range(len(fields(Volume)))


class _Tally:
    """Sums in the order of `Volume`'s fields: all bytes, floating-point values, and the bytes of everything else."""

    def __init__(self) -> None:
        self.bytes, self.values, self.fixed = ([ZERO] * len(fields(Volume)) for _ in range(3))

    def add(self, value: SSAValue, counts: Mapping[int, Expr]) -> None:
        element = element_of(value.type)
        if element is None:
            raise UnknownShapeError(f"the type of {value.type} is not known")
        parts = 2 if isinstance(element.type, ComplexType) else 1
        floating = parts == 2 or isinstance(element.type, AnyFloat)
        for place, count in counts.items():
            size = _bytes(count, element.bits)
            self.bytes[place] = self.bytes[place] + size
            if floating:
                self.values[place] = self.values[place] + count * parts
            else:
                self.fixed[place] = self.fixed[place] + size


def _bytes(count: Expr, bits: int) -> Expr:
    return count * (bits // 8) if bits % 8 == 0 else (count * bits + 7) // 8


def _control_flow(op: OnnxOp) -> Work:
    bodies = [_region(region) for region in op.subgraphs.values()]
    if op.op_type == "If":
        return reduce(lambda a, b: _joined(a, b, maximum), bodies)
    body = reduce(lambda a, b: a + b, bodies)
    times = _trip_count(op)
    scaled = body.scaled(Expr.const(1) if times is None else times)
    return scaled if times is not None else _joined(scaled, _UNKNOWN, lambda a, _: a)


_UNKNOWN = Work(ZERO, ZERO, ZERO, ZERO, "view", known=False, values=Volume())


def _region(region: Region) -> Work:
    return reduce(lambda a, b: a + b, (work_of(op) for block in region.blocks for op in block.ops), NOTHING)


def runs_unknown_times(op: Operation) -> bool:
    """Whether an operation has a body of which its work counts one run, since how many there are is not known."""
    return isinstance(op, OnnxOp) and op.op_type in ("Loop", "Scan") and _trip_count(op) is None


def _trip_count(op: OnnxOp) -> Expr | None:
    """How often the body runs: what Loop is told, the length that Scan scans; None where that is not known."""
    if op.op_type == "Loop":
        limit = op.input_at(0)
        value = None if limit is None else constant_value(limit, None, 1)
        count = ENDLESS if value is None or not value.size else int(value.reshape(-1)[0])
        return None if count >= ENDLESS else Expr.const(max(count, 0))
    if op.op_type == "Scan":
        position = len(op.inputs) - int(op.attr("num_scan_inputs", 1))
        first = op.input_at(position) if position >= 0 else None
        dims = None if first is None else dims_of(first)
        axis = int((op.attr("scan_input_axes") or [0])[0])
        return dims[axis] if dims is not None and -len(dims) <= axis < len(dims) else None
    return None


_ORDER = ("matrix", "conv", "depthwise", "vector", "data", "view")
_Join = Callable[[Expr, Expr], Expr]


def _combine(a: Volume, b: Volume, join: _Join) -> Volume:
    return Volume(*(join(getattr(a, f.name), getattr(b, f.name)) for f in fields(Volume)))


def _evaluated(volume: Volume, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(getattr(volume, f.name).evaluate(sizes) for f in fields(Volume))


def _joined(a: Work, b: Work, join: _Join) -> Work:
    """Two works as one, figure by figure. Its class is that of a part that uses the matrix unit, if there is one."""
    values = None if a.values is None or b.values is None else _combine(a.values, b.values, join)
    a_read = a.weight_bytes if a.weight_read is None else a.weight_read
    b_read = b.weight_bytes if b.weight_read is None else b.weight_read
    return Work(
        flops=join(a.flops, b.flops),
        bytes_read=join(a.bytes_read, b.bytes_read),
        bytes_written=join(a.bytes_written, b.bytes_written),
        weight_bytes=join(a.weight_bytes, b.weight_bytes),
        op_class=a.op_class if _ORDER.index(a.op_class) <= _ORDER.index(b.op_class) else b.op_class,
        known=a.known and b.known,
        weight_read=join(a_read, b_read),
        values=values,
        fixed=_combine(a.fixed, b.fixed, join),
    )
