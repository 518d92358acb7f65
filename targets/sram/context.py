"""The ops among which one is priced: what it adds to a program depends on those around it.

Alone an op waits for all that it reads and stores all that it makes. In a segment it is fused behind a product, or its
weights go into the arrays while others still work, or it needs what is converted already. So ops are priced in *runs*
of neighbours, each one program: a kernel costs by how much it makes that longer, and the ops that it computes share
this as they share its operations. What is hidden under others, a view of what is there and what is only fused costs
next to nothing then, a view that has to be copied what its copy adds, and the ops of a run together what its program
takes, but for the few ops before it that it begins with.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf, prod

from xdsl.ir import Operation, SSAValue

from gimlet.dialects.onnx import OnnxOp, shape_of
from gimlet.dialects.onnx.work import work_of
from gimlet.dialects.sram.tiles import TILES
from gimlet.passes.state_pairs import IN_PLACE
from gimlet.runtime.sram.ordering import transfers
from gimlet.targets.one_op import is_constant, signature_of
from gimlet.targets.sram.codegen import Generated

_LONGEST_RUN = 32
"""Longer ones are no nearer to whole segments, and fewer are alike."""
_OPS_BEFORE = 4


@dataclass(frozen=True)
class Run:
    """Neighbours that are priced in one program, which begins with the ops `before` them."""

    before: tuple[OnnxOp, ...]
    ops: tuple[OnnxOp, ...]


def runs(ops: Sequence[OnnxOp], sizes: Mapping[str, int], most_weights: float = inf) -> Iterator[Run]:
    """Cuts ops in their order into runs, where the fewest elements cross: so runs of layers that are alike are alike.

    A run of several ops has at most `most_weights` elements of weights: what is read from LPDDR is placement's to say.
    """
    readers = _last_readers(ops)
    weights = [_weights_of(op) for op in ops]
    first = 0
    while first < len(ops):
        end = _end_of_run(ops, first, readers, sizes)
        held = list(accumulate(weights[first:end]))
        end = first + max(1, bisect_right(held, most_weights))
        yield Run(tuple(ops[max(0, first - _OPS_BEFORE) : first]), tuple(ops[first:end]))
        first = end


def _last_readers(ops: Sequence[OnnxOp]) -> dict[SSAValue, int]:
    """The last of the ops that reads each value."""
    return {value: index for index, op in enumerate(ops) for value in op.operands}


def _end_of_run(ops: Sequence[OnnxOp], first: int, readers: Mapping[SSAValue, int], sizes: Mapping[str, int]) -> int:
    """Where the run from `first` on ends: in its second half behind the op after which the fewest bytes cross."""
    if len(ops) - first <= _LONGEST_RUN:
        return len(ops)
    crossing = [0] * _LONGEST_RUN
    for index in range(_LONGEST_RUN):
        for value in ops[first + index].results:
            for behind in range(index, min(_LONGEST_RUN, readers.get(value, 0) - first)):
                crossing[behind] += _elements(value, sizes)
    half = _LONGEST_RUN // 2
    least = min(crossing[half:])
    return first + 1 + max(index for index in range(half, _LONGEST_RUN) if crossing[index] == least)


def _weights_of(op: OnnxOp) -> int:
    """How many elements the constants have that an op reads."""
    constants = (value for value in op.operands if isinstance(value.owner, Operation) and is_constant(value.owner))
    return sum(_elements(value, {}) for value in constants)


def _elements(value: SSAValue, sizes: Mapping[str, int]) -> int:
    """How many elements a value has, a dimension that is not known counted as one."""
    dims = shape_of(value) or ()
    return prod(dim.evaluate(sizes) for dim in dims if dim is not None and dim.symbols <= sizes.keys())


@dataclass(frozen=True)
class Added:
    """What an op adds to a program: seconds, bytes of weights, and bytes of the other tensors that its kernels use."""

    seconds: float = 0.0
    weight_bytes: int = 0
    activation_bytes: int = 0


def added_by(generated: Generated, sizes: Mapping[str, int]) -> dict[OnnxOp, Added]:
    """What each op adds to a program that has kernels for it.

    Ops that share a kernel share its cycles as they share its operations; its weights are the first one's.
    """
    program, clock_hz = generated.program, generated.program.machine.clock_hz
    tensors = {tensor.name: tensor for tensor in program.tensors}
    seconds: dict[OnnxOp, float] = {}
    weights: dict[OnnxOp, set[str]] = {}
    others: dict[OnnxOp, set[str]] = {}
    for kernel, time in zip(program.kernels, generated.timing.kernels, strict=True):
        ops = generated.ops_of[kernel.name]
        flops = [work_of(op).at(sizes).flops for op in ops] if len(ops) > 1 else []
        parts = flops if any(flops) else [1.0] * len(ops)
        used = {each.access.tensor for each in transfers(kernel)}
        held = {name for name in used if tensors[name].role == "weight"}
        weights.setdefault(ops[0], set()).update(held)
        for op, part in zip(ops, parts, strict=True):
            seconds[op] = seconds.get(op, 0.0) + time.cycles / clock_hz * part / sum(parts)
            others.setdefault(op, set()).update(used - held)

    def capacity(names: set[str]) -> int:
        return sum(tensors[name].capacity_bytes for name in names)

    return {op: Added(seconds[op], capacity(weights.get(op, set())), capacity(others[op])) for op in seconds}


def signature_of_op(op: OnnxOp) -> Hashable:
    """What decides the program of one op, that it changes a state where it lies and its tiles included."""
    return signature_of(op), IN_PLACE in op.attributes, op.attributes.get(TILES)


def signature_of_ops(ops: Sequence[OnnxOp]) -> Hashable:
    """What decides the program of several ops: each of them, what reads what, and what leaves."""
    inside = set[Operation](ops)
    numbers: dict[SSAValue, int] = {}
    found: list[Hashable] = []
    for op in ops:
        reads = tuple(numbers.setdefault(value, len(numbers)) for value in op.operands)
        for result in op.results:
            numbers[result] = len(numbers)
        leaves = tuple(any(use.operation not in inside for use in result.uses) for result in op.results)
        found.append((signature_of_op(op), reads, leaves))
    return tuple(found)
