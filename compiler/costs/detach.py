"""A set of ops copied out of a module as one segment, to build and time without touching the module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, OpResult, Region, SSAValue

from gimlet.compiler.placement.reading.graph import outer_uses
from gimlet.dialects.onnx import functions_of
from gimlet.dialects.onnx.names import assign_names, set_value_name, value_name
from gimlet.dialects.placement import DEVICE, FORMAT, SEGMENT_HINT, SegmentOp, YieldOp
from gimlet.passes.entry import is_constant


@dataclass(frozen=True)
class DetachedSegment:
    """A segment in a module of its own, and the original values of its inputs and outputs."""

    module: ModuleOp
    op: SegmentOp
    inputs: tuple[SSAValue, ...]
    outputs: tuple[SSAValue, ...]


def detach(ops: Sequence[Operation], device: str, fmt: str, results: Sequence[SSAValue] = ()) -> DetachedSegment:
    """Copies `ops`, which stand in one block in their order there, into a segment with the constants that they use.

    Its outputs are `results`, by default every value that something outside of `ops` uses.
    """
    inside = set(ops)
    body = Block()
    copies: dict[SSAValue, SSAValue] = {}
    inputs: list[SSAValue] = []
    for op in ops:
        for value in outer_uses(op):
            if value in copies or value.owner in inside:
                continue
            if isinstance(value, OpResult) and is_constant(value.op):
                clone = value.op.clone()
                body.add_op(clone)
                copies[value] = clone.results[value.index]
            else:
                copies[value] = body.insert_arg(value.type, len(body.args))
                inputs.append(value)
            copies[value].name_hint = value.name_hint
        clone = op.clone(value_mapper=copies)
        for key in (DEVICE, FORMAT, SEGMENT_HINT):
            clone.attributes.pop(key, None)
        body.add_op(clone)
        for before, after in zip(op.results, clone.results, strict=True):
            copies[before] = after
            after.name_hint = before.name_hint
    outputs = tuple(results) or tuple(value for op in ops for value in op.results if _used_outside(value, inside))
    body.add_op(YieldOp([copies[value] for value in outputs]))
    return _wrapped(body, device, fmt, tuple(inputs), outputs, functions_of(ops))


def _used_outside(value: SSAValue, inside: set[Operation]) -> bool:
    for use in value.uses:
        user: Operation | None = use.operation
        while user is not None and user not in inside:
            user = user.parent_op()
        if user is None:
            return True
    return False


def _wrapped(
    body: Block,
    device: str,
    fmt: str,
    inputs: tuple[SSAValue, ...],
    outputs: tuple[SSAValue, ...],
    functions: Sequence[FuncOp],
) -> DetachedSegment:
    for index, argument in enumerate(body.args):
        if argument.name_hint is None:
            set_value_name(argument, f"input_{index}")
    yielded = body.last_op
    results = () if yielded is None else tuple(yielded.operands)
    region = Region(body)
    placeholder = SegmentOp("timed", device, fmt, region, [""] * len(body.args), [""] * len(results))
    assign_names(placeholder)
    arg_names, res_names = [value_name(arg) for arg in body.args], [value_name(value) for value in results]
    region = placeholder.detach_region(0)
    op = SegmentOp("timed", device, fmt, region, arg_names, res_names)
    module = ModuleOp([op, *(function.clone() for function in functions)])
    return DetachedSegment(module, op, inputs, outputs)
