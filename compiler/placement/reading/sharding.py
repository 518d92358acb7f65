"""How the ops of a module are split over a group of n devices: tensor parallelism, op by op.

A value is *whole* on every member, or *split*: each member has an equal part of one of its axes. What an op makes of
its operands' layouts:

- a product with weights: of a whole operand the columns of the weights are split, and so is the last axis of the
  result; of an operand that is split in its last axis the rows are, and the result is added up (all-reduce): the two
  halves of a perceptron, or of attention's projections, cost one all-reduce;
- a product of two computed operands, and attention: split where both operands are split in an axis that they share as
  a batch (heads);
- element by element, softmax and norms: as the operands, unless it works along the split axis; whole operands are cut,
  which costs nothing;
- reshapes and transposes move the axis;
- a mixture of experts: each member has some of the experts, and the result is added up.

Where a reader needs a value whole that could have been split, its maker does a part and then an all-gather (or the
whole, where that takes less: `GroupPlan.costs`). Nothing is chosen by the solver: the splits are the same wherever the
rest of the module is, and a split value that leaves the group is put together then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from xdsl.ir import Operation, SSAValue

from gimlet.compiler.placement.reading.collectives import Collectives
from gimlet.compiler.placement.reading.graph import ModuleGraph
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.types import dims_of
from gimlet.dialects.onnx.work import is_weight, work_of

Layout = int | None
"""The axis that a value is split in, None where it is whole."""

_ALONG_AXIS = {"Softmax": "axis", "LogSoftmax": "axis", "LayerNormalization": "axis", "RMSNormalization": "axis"}
_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv"})


@dataclass(frozen=True)
class Share:
    """An op's part on one member: of its work and of its weights, and the bytes that are put together or added up."""

    work: float = 1.0
    weights: float = 1.0
    gathered: int = 0
    reduced: int = 0

    def collective_s(self, collectives: Collectives) -> float:
        """What its collectives take."""
        gather = collectives.all_gather_s(self.gathered) if self.gathered else 0.0
        return gather + (collectives.all_reduce_s(self.reduced) if self.reduced else 0.0)


@dataclass
class Sharding:
    """The shares of all ops of a graph over `members` devices, and the layout of every value."""

    graph: ModuleGraph
    members: int
    layout: dict[SSAValue, Layout] = field(default_factory=dict[SSAValue, Layout])
    shares: dict[Operation, Share] = field(default_factory=dict[Operation, Share])

    def __post_init__(self) -> None:
        """Layouts forward, again with those whole that a reader needs whole, until none is left."""
        whole: set[SSAValue] = set()
        while True:
            self.layout, self.shares = {}, {}
            needed: set[SSAValue] = set()
            for unit in self.graph.units:
                for op in unit.ops:
                    needed |= self._place(op, whole)
            if needed <= whole:
                return
            whole |= needed

    def _place(self, op: Operation, whole: set[SSAValue]) -> set[SSAValue]:
        """Notes the share and the layouts of one op; the operands that it needs whole and that are split."""
        found = self._split(op) if isinstance(op, OnnxOp) and len(op.results) else None
        if found is None:
            self.shares[op] = Share()
            self.layout |= dict.fromkeys(op.results)
            return {value for value in _read(op) if self.layout.get(value) is not None}
        axis, share = found
        result = op.results[0]
        if axis is not None and result in whole:
            share = Share(share.work, share.weights, gathered=self.graph.size_bytes(result), reduced=share.reduced)
            axis = None
        self.shares[op] = share
        self.layout |= dict.fromkeys(op.results, axis)
        return set()

    def _split(self, op: OnnxOp) -> tuple[Layout, Share] | None:
        """The layout of the result and the share of an op that can work on parts; None where every member does all."""
        part = 1.0 / self.members
        if op.op_type == "MoE" and not self._any_split(op):
            return None, Share(part, part, reduced=self.graph.size_bytes(op.results[0]))
        if op.domain:
            return None
        if op.op_type in _PRODUCTS and op.input_at(1) is not None and is_weight(op.operands[1]):
            return self._weighted(op, part)
        if op.op_type == "MatMul":
            return self._batched(op, part)
        if op.op_type == "Attention":
            return self._attention(op, part)
        axis = self._moved(op)
        return None if axis is None else (axis, Share(part, 1.0))

    def _any_split(self, op: Operation) -> bool:
        return any(self.layout.get(value) is not None for value in op.operands)

    def _weighted(self, op: OnnxOp, part: float) -> tuple[Layout, Share] | None:
        x, y = op.operands[0], op.results[0]
        inner, outer = (1, 1) if op.op_type == "Conv" else (_rank(x) - 1, _rank(y) - 1)
        if int(op.attr("group", 1)) != 1 or op.attr("transA", 0) or len(dims_of(op.operands[1]) or ()) < 2:
            return None
        layout = self.layout.get(x)
        if layout is None:
            return (outer, Share(part, part)) if self._divides(y, outer) else None
        if layout == inner:
            return None, Share(part, part, reduced=self.graph.size_bytes(y))
        return None

    def _batched(self, op: OnnxOp, part: float) -> tuple[Layout, Share] | None:
        """A product of two computed operands whose batch axis is split in both."""
        left, right = op.operands[0], op.operands[1]
        axis = self.layout.get(left)
        same = axis is not None and axis == self.layout.get(right) and _rank(left) == _rank(right)
        if axis is None or not same or axis >= _rank(left) - 2:
            return None
        return axis, Share(part, 1.0)

    def _attention(self, op: OnnxOp, part: float) -> tuple[Layout, Share] | None:
        """Heads: axis 1 of four, or the last of three. A mask is whole, and has no heads of its own or is cut."""
        axis = self.layout.get(op.operands[0])
        heads = 1 if _rank(op.operands[0]) == 4 else _rank(op.operands[0]) - 1
        if axis != heads or any(self.layout.get(value) != heads for value in op.operands[1:3]) or len(op.results) != 1:
            return None
        return axis, Share(part, 1.0)

    def _moved(self, op: OnnxOp) -> Layout:
        """The axis of the result of an op that makes its parts of the operands' parts; None where there is no such."""
        if not self._any_split(op):
            return None
        x, y = op.operands[0], op.results[0]
        axis = self.layout.get(x)
        if op.op_type == "Transpose" and axis is not None:
            perm = list(op.attr("perm") or range(_rank(x))[::-1])
            return perm.index(axis)
        if op.op_type == "Reshape" and axis is not None:
            return self._reshaped(x, y, axis)
        if op.op_type in _ALONG_AXIS and axis is not None:
            along = int(op.attr(_ALONG_AXIS[op.op_type], -1)) % _rank(x)
            return axis if axis < along or (axis > along and op.op_type in ("Softmax", "LogSoftmax")) else None
        return self._elementwise(op)

    def _elementwise(self, op: OnnxOp) -> Layout:
        """The split axis, counted from the end, where all operands that are split are so in the same one."""
        rank = _rank(op.results[0])
        if work_of(op).op_class not in ("vector", "view") or rank == 0 or op.op_type in _NOT_ELEMENTWISE:
            return None
        found = {rank - _rank(value) + axis for value in op.operands if (axis := self.layout.get(value)) is not None}
        shapes = [_sizes(value, self.graph.sizes) for value in (*op.operands, op.results[0])]
        wide = [shape for value, shape in zip(op.operands, shapes, strict=False) if self.layout.get(value) is not None]
        if len(found) != 1 or any(shape != shapes[-1][rank - len(shape) :] for shape in wide):
            return None
        return found.pop()

    def _reshaped(self, x: SSAValue, y: SSAValue, axis: int) -> Layout:
        before, after = _sizes(x, self.graph.sizes), _sizes(y, self.graph.sizes)
        for index in range(len(after)):
            if prod(after[:index]) == prod(before[:axis]) and after[index] > 1 and after[index] % self.members == 0:
                return index
        return None

    def _divides(self, value: SSAValue, axis: int) -> bool:
        sizes = _sizes(value, self.graph.sizes)
        return 0 <= axis < len(sizes) and sizes[axis] > 0 and sizes[axis] % self.members == 0


_NOT_ELEMENTWISE = frozenset(
    {
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Pad",
        "Resize",
        "Slice",
        "Split",
        "Squeeze",
    }
    | {"Tile", "TopK", "Unsqueeze", "Where", "CumSum", "ArgMax", "ArgMin", "ScatterND", "RotaryEmbedding"}
    | {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "GlobalAveragePool"}
    | {"AveragePool", "MaxPool", "InstanceNormalization", "GroupNormalization", "BatchNormalization"}
)


def _read(op: Operation) -> Sequence[SSAValue]:
    inner = [value for region in op.regions for nested in region.walk() for value in nested.operands]
    return [*op.operands, *inner]


def _rank(value: SSAValue) -> int:
    return len(dims_of(value) or ())


def _sizes(value: SSAValue, sizes: Mapping[str, int]) -> list[int]:
    return [dim.evaluate(sizes) for dim in dims_of(value) or ()]
