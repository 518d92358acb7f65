"""In which form a target runs a large operator that stands for several operations (`gimlet.dialects.onnx.parts`).

A target takes *whole* the operators that it names (`Target.large_operators`) and does not refuse, and those of the
model's own that it does not refuse. Every other one is what its parts are, to that target: refused if one of them is,
priced as their segment, and emitted as them. So is the portable form, which every target's results are compared with,
but for the model's own operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from xdsl.dialects.builtin import DictionaryAttr, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.transforms.common_subexpression_elimination import cse

from gimlet.dialects.onnx import (
    OPSETS,
    InitializerOp,
    OnnxOp,
    assign_names,
    functions_of,
    has_parts,
    is_own,
    large_ops,
    parts_of,
)
from gimlet.dialects.onnx.attributes import int_attr
from gimlet.dialects.onnx.parts import module_of
from gimlet.dialects.placement import SegmentOp
from gimlet.passes.entry import is_constant
from gimlet.passes.plain_bodies import why_unwritten
from gimlet.passes.restore_parts import restore
from gimlet.passes.upgrade_opset import refusal, upgrade
from gimlet.targets.api import Cost, Device, Reason, SegmentContext, Target


def is_whole(target: Target, op: Operation, device: Device, fmt: str) -> bool:
    """Whether a target runs an operation as itself, and not as the parts that it stands for."""
    if not has_parts(op):
        return True
    return _is_asked(op, target.large_operators(device)) and target.refuses(op, device, fmt) is None


def _is_asked(op: Operation, named: frozenset[str]) -> bool:
    """Whether a target is asked about an operation as it is."""
    return not has_parts(op) or is_own(op) or (isinstance(op, OnnxOp) and op.op_type in named)


def refusals(target: Target, ops: Sequence[Operation], device: Device, fmt: str) -> list[Reason | None]:
    """For each op why the target does not run it, in whichever form; None where it does."""
    named = target.large_operators(device)
    asked = [op for op in ops if _is_asked(op, named)]
    answers = dict(zip(asked, target.refuses_all(asked, device, fmt), strict=True))
    in_parts = {op: _parts(op) for op in ops if has_parts(op) and (op not in answers or answers[op] is not None)}
    parts = list(dict.fromkeys(part for body in in_parts.values() for part in body))
    of_parts = dict(zip(parts, target.refuses_all(parts, device, fmt), strict=True))
    for op, body in in_parts.items():
        reason = next((of_parts[part] for part in body if of_parts[part] is not None), None)
        own = answers.get(op)
        if reason is not None and is_own(op) and own is not None:
            answers[op] = replace(own, message=f"{own.message}; in parts: {reason.message}")
        else:
            answers[op] = None if reason is None else replace(reason, message=f"{reason.message} (a part of it)")
    return [_with_case(op, answers[op]) for op in ops]


def _with_case(op: Operation, reason: Reason | None) -> Reason | None:
    """The reason with the cases in which the operator would be written out, where this is none of them."""
    if reason is None or has_parts(op) or not isinstance(op, OnnxOp):
        return reason
    only = why_unwritten(op)
    if only is None:
        return reason
    return replace(reason, message=f"{reason.message}; it is written out in other operators only {only}")


def op_costs(
    target: Target, ops: Sequence[Operation], device: Device, fmt: str, sizes: Mapping[str, int]
) -> list[Cost]:
    """What each op costs in the form that the target runs: the parts as one segment, its launch not included."""
    whole = [op for op in ops if is_whole(target, op, device, fmt)]
    known = dict(zip(whole, target.op_costs(whole, device, fmt, sizes), strict=True))
    return [known[op] if op in known else _cost_in_parts(target, op, device, fmt, sizes) for op in ops]


def _cost_in_parts(target: Target, op: Operation, device: Device, fmt: str, sizes: Mapping[str, int]) -> Cost:
    function = parts_of(op)
    if function is not None:
        function = _with_constants(function, op)
        _fold(function)
    cost = target.estimate(_inside(function), device, fmt, sizes)
    return replace(cost, seconds=max(cost.seconds - target.segment_overhead_s(device), 0.0))


def portable_form(
    segment: SegmentContext, target: Target | None = None, device: Device | None = None
) -> SegmentContext:
    """The segment with the parts of every large operator in its place that the model does not have itself.

    With a target, also of the model's own that it takes in parts, so that those are what the portable form checks.
    """
    if target is None or device is None:
        return _formed(segment, is_own)
    return _formed(segment, lambda op: is_own(op) and is_whole(target, op, device, segment.op.format))


@dataclass(frozen=True)
class TargetForm:
    """A segment as its target emits it, and whether large operators are left in it."""

    context: SegmentContext
    has_whole: bool


def target_form(segment: SegmentContext, target: Target, device: Device) -> TargetForm:
    """The segment with the large operators that the target takes whole, and the parts of the others.

    Where those are newer than the module's opset, all of the segment is written for theirs. Where an operation of it
    cannot be, only parts are left.
    """
    formed = _formed(segment, lambda op: is_whole(target, op, device, segment.op.format))
    return TargetForm(formed, any(True for _ in large_ops(formed.op)))


def _parts(op: Operation) -> list[Operation]:
    """What an operation stands for: of the model's own with its constants, which decide what a target can do."""
    function = parts_of(op)
    if function is not None and is_own(op):
        function = _with_constants(function, op)
    return _inside(function)


def _inside(function: FuncOp | None) -> list[Operation]:
    """The operations of parts, without constants."""
    ops = () if function is None else function.body.block.ops
    return [op for op in ops if isinstance(op, OnnxOp) and not is_constant(op)]


def _fold(function: FuncOp) -> None:
    """What follows from stored weights alone becomes a weight, as frameworks compute it once, when they load a model.

    Its value is not known here: only its type is asked for.
    """
    for op in list(function.body.block.ops):
        owners = [operand.owner for operand in op.operands]
        stored = any(isinstance(owner, InitializerOp) and owner.key is not None for owner in owners)
        constant = all(isinstance(owner, Operation) and is_constant(owner) for owner in owners)
        if stored and constant and isinstance(op, OnnxOp) and not op.regions:
            folded = [InitializerOp.from_key(f"{op.op_type} of weights", result.type) for result in op.results]
            Rewriter.replace_op(op, folded, [each.results[0] for each in folded])


def _with_constants(function: FuncOp, op: Operation) -> FuncOp:
    """A copy of the parts of `op` in a module of its own, in which those of its operands that are constants are."""
    owners = [operand.owner for operand in op.operands]
    known = {index: owner for index, owner in enumerate(owners) if isinstance(owner, Operation) and is_constant(owner)}
    module, copy = module_of(op), function.clone()
    ModuleOp([copy], attributes={} if module is None else dict(module.attributes))
    block = copy.body.block
    for index, owner in known.items():
        constant = owner.clone()
        Rewriter.insert_op(constant, InsertPoint.at_start(block))
        block.args[index].replace_all_uses_with(constant.results[owner.results.index(op.operands[index])])
    return copy


def _formed(segment: SegmentContext, is_kept: Callable[[Operation], bool]) -> SegmentContext:
    """A copy of the segment with the parts of the large operators that are not kept; itself where it has none."""
    if not any(True for _ in large_ops(segment.op)):
        return segment
    module = module_of(segment.op)
    op = segment.op.clone()
    # A module of its own: what looks for opsets and functions climbs to it.
    ModuleOp(
        [op, *(function.clone() for function in functions_of([segment.op]))],
        attributes={} if module is None else dict(module.attributes),
    )
    _restore([large for large in large_ops(op) if not is_kept(large)])
    opsets = dict(segment.opsets)
    needed = max((large.since_version for large in large_ops(op) if isinstance(large, OnnxOp)), default=0)
    if needed > opsets.get("", 0):
        if _upgraded(op, needed):
            opsets[""] = needed
        else:
            _restore(list(large_ops(op)))
    op.attributes[OPSETS] = DictionaryAttr({name: int_attr(opsets[name]) for name in sorted(opsets)})
    cse(op)
    assign_names(op)
    return replace(segment, op=op, opsets=opsets)


def _restore(ops: Iterable[Operation]) -> None:
    for op in ops:
        function = parts_of(op)
        if isinstance(op, OnnxOp) and function is not None:
            restore(op, function)


def _upgraded(segment: SegmentOp, opset: int) -> bool:
    """Writes a segment for a newer opset. False, and nothing done, where an operation means something else there."""
    operators = [op for op in segment.walk() if isinstance(op, OnnxOp)]
    if any(refusal(op, opset) is not None for op in operators):
        return False
    for op in operators:
        upgrade(op, opset)
    return True
