"""Which arguments and results of @main are states: what a run leaves in the result, the next finds in the argument.

Until the model is split, a state is a pair of an argument and a result that both have `placement.state = "name"`. So
everything before sees a function of tensors. `keep-states` puts the state in their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, BlockArgument, Operation, SSAValue
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.types import dims_of, element_of
from gimlet.passes.dim_ranges import Range, largest
from gimlet.passes.entry import return_of

STATE: Final = "placement.state"
IN_PLACE: Final = "placement.in_place"
"""On an op: its result is where its first operand was."""


@dataclass(frozen=True)
class StatePair:
    """A state by its name, and the numbers of the argument and the result that it is."""

    name: str
    argument_index: int
    result_index: int
    argument: BlockArgument
    result: SSAValue


def mark_states(function: FuncOp, pairs: Sequence[tuple[str, int, int]]) -> None:
    """Notes states on the function, each a name, the number of an argument and that of a result."""
    if not pairs:
        return
    function.arg_attrs = _marked(function.arg_attrs, len(function.args), {a: name for name, a, _ in pairs})
    results = len(return_of(function.body.block).operands)
    function.res_attrs = _marked(function.res_attrs, results, {r: name for name, _, r in pairs})


def _marked(
    attributes: ArrayAttr[DictionaryAttr] | None, count: int, names: Mapping[int, str]
) -> ArrayAttr[DictionaryAttr]:
    known = [dict(each.data) for each in attributes] if attributes is not None else [{} for _ in range(count)]
    for index, name in names.items():
        known[index][STATE] = StringAttr(name)
    return ArrayAttr([DictionaryAttr(each) for each in known])


def state_pairs(function: FuncOp) -> list[StatePair]:
    """The states of the entry function, in the order of its arguments.

    PassFailedException for a state that has an argument and no result, or a result and no argument.
    """
    arguments, results = _named(function.arg_attrs), _named(function.res_attrs)
    for name in arguments.keys() ^ results.keys():
        kind = "an argument" if name in arguments else "a result"
        raise PassFailedException(f"state {name!r} is {kind} of @main only: it needs one of each")
    operands = return_of(function.body.block).operands
    return [
        StatePair(name, index, results[name], function.args[index], operands[results[name]])
        for name, index in arguments.items()
    ]


def _named(attributes: ArrayAttr[DictionaryAttr] | None) -> dict[str, int]:
    found: dict[str, int] = {}
    for index, each in enumerate(attributes or ()):
        name = each.data.get(STATE)
        if isinstance(name, StringAttr):
            found[name.data] = index
    return found


def capacity_of(type_: Attribute, ranges: Mapping[str, Range]) -> tuple[int, ...] | None:
    """The largest sizes of a tensor; None where one of them is not known."""
    dims = dims_of(type_)
    sizes = [] if dims is None else [size for dim in dims if (size := largest(dim, ranges)) is not None]
    return tuple(sizes) if dims is not None and len(sizes) == len(dims) else None


def held_bytes(pair: StatePair, ranges: Mapping[str, Range]) -> int:
    """The memory that the largest content of a state takes; 0 where that is not known."""
    capacity, element = capacity_of(pair.argument.type, ranges), element_of(pair.argument.type)
    if capacity is None or element is None:
        return 0
    return -(-prod(capacity) * element.bits // 8)


def is_read_by_alone(value: SSAValue, op: Operation) -> bool:
    """Whether an op reads the elements of a value as its first operand, and no other does: the sizes any may read."""
    others = [use for use in value.uses if not _reads_sizes(use.operation)]
    return len(others) == 1 and others[0].operation is op and others[0].index == 0


def is_read_for_sizes(value: SSAValue) -> bool:
    """Whether all that reads a value reads its sizes."""
    return all(_reads_sizes(use.operation) for use in value.uses)


def _reads_sizes(op: Operation) -> bool:
    return isinstance(op, OnnxOp) and not op.domain and op.op_type in ("Shape", "Size")


def update_of(pair: StatePair) -> Operation | None:
    """The op that was found to write the state where it is (`mark-in-place`), if there is one."""
    maker = pair.result.owner
    return maker if isinstance(maker, Operation) and IN_PLACE in maker.attributes else None
