"""The ways in which IR can be made smaller, each as a list of edits of a module.

An edit is a function that changes the module, or leaves it as it is where it does not apply any more. Edits of one list
can be made in any selection, from the last to the first. Whether the result is still IR, and still shows what is looked
for, is for the reducer to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseIntOrFPElementsAttr,
    DictionaryAttr,
    ModuleOp,
    SymbolRefAttr,
    UnknownLoc,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.traits import IsTerminator

Edit = Callable[[], object]


def erase_ops(module: ModuleOp) -> list[Edit]:
    """Erases an operation. What uses its results gets an earlier value of the same type: an operand of it, an argument
    or result in the same block, else a new argument of the function."""
    called = _referenced(module)
    return [partial(_erase, op, called) for op in module.walk() if op is not module and not op.has_trait(IsTerminator)]


def hoist_regions(module: ModuleOp) -> list[Edit]:
    """Puts a region without arguments in place of the operation that it is in, as a branch in place of its `If`."""
    return [
        partial(_hoist, op, index)
        for op in module.walk()
        if op is not module and op.results
        for index in range(len(op.regions))
    ]


def bypass_operands(module: ModuleOp) -> list[Edit]:
    """Makes an operand the first value of its type in the block, so that what is between is not needed."""
    return [
        partial(_bypass, op, index)
        for op in module.walk()
        for index, value in enumerate(op.operands)
        if isinstance(value.owner, Operation)
    ]


def drop_outputs(module: ModuleOp) -> list[Edit]:
    """Returns one value less from a function that is not called."""
    called = _referenced(module)
    return [
        partial(_drop_output, function, end, index)
        for function in _functions(module, called)
        for end in [function.get_return_op()]
        if end is not None
        for index in range(len(end.operands))
    ]


def drop_arguments(module: ModuleOp) -> list[Edit]:
    """Takes an argument that is not used from a function that is not called."""
    called = _referenced(module)
    return [
        partial(_drop_argument, function, index)
        for function in _functions(module, called)
        for index in range(len(function.args))
    ]


def drop_attributes(module: ModuleOp) -> list[Edit]:
    """Takes an attribute, a property or the location from an operation."""
    found: list[Edit] = []
    for op in module.walk():
        found += [partial(op.properties.pop, key, None) for key in op.properties]
        found += [partial(op.attributes.pop, key, None) for key in op.attributes]
        if not isinstance(op.location, UnknownLoc):
            found.append(partial(_drop_location, op))
    return found


def simplify_attributes(module: ModuleOp) -> list[Edit]:
    """Makes a tensor of one value all over, and a list one item long."""
    return [
        partial(holder.__setitem__, key, smaller)
        for op in module.walk()
        for holder in (op.properties, op.attributes)
        for key, value in holder.items()
        for smaller in [_smaller(value)]
        if smaller is not None
    ]


EDITS: Final = (
    erase_ops,
    hoist_regions,
    drop_outputs,
    drop_arguments,
    bypass_operands,
    drop_attributes,
    simplify_attributes,
)
"""All kinds of edits, in the order in which they are worth trying."""


def _erase(op: Operation, called: frozenset[str]) -> None:
    if op.parent is None or any(not _replace(result, op, called) for result in op.results):
        return
    op.detach()
    op.erase()


def _replace(result: SSAValue, op: Operation, called: frozenset[str]) -> bool:
    """Whether every use of the result could be given another value of its type."""
    if result.first_use is None:
        return True
    other = next((value for value in _earlier(op) if value.type == result.type), None)
    if other is None:
        other = _new_argument(op, result.type, called)
    if other is None:
        return False
    result.replace_all_uses_with(other)
    return True


def _earlier(op: Operation) -> Iterator[SSAValue]:
    """The values that are defined before `op` in its block, those that it uses first."""
    yield from op.operands
    block = op.parent
    if block is None:
        return
    yield from block.args
    before = op.prev_op
    # The nearest are enough: to look through the whole of a long block for each op takes quadratic time.
    for _ in range(16):
        if before is None:
            return
        yield from before.results
        before = before.prev_op


def _new_argument(op: Operation, kind: Attribute, called: frozenset[str]) -> SSAValue | None:
    function = op.parent_op()
    while function is not None and not isinstance(function, FuncOp):
        function = function.parent_op()
    if function is None or function.sym_name.data in called or len(function.body.blocks) != 1:
        return None
    block = function.body.block
    made = block.insert_arg(kind, len(block.args))
    # It has no attributes, so those of the others have to go.
    function.arg_attrs = None
    function.update_function_type()
    return made


def _hoist(op: Operation, index: int) -> None:
    region = op.regions[index]
    if op.parent is None or len(region.blocks) != 1 or region.block.args or region.block.last_op is None:
        return
    end = region.block.last_op
    if [value.type for value in end.operands] != [result.type for result in op.results]:
        return
    values = list(end.operands)
    end.detach()
    end.erase()
    Rewriter.inline_block(region.block, InsertPoint.before(op))
    for result, value in zip(op.results, values, strict=True):
        result.replace_all_uses_with(value)
    op.detach()
    op.erase()


def _bypass(op: Operation, index: int) -> None:
    value, block = op.operands[index], op.parent
    if block is None:
        return
    first = next((arg for arg in block.args if arg.type == value.type), None)
    if first is not None:
        op.operands[index] = first


def _functions(module: ModuleOp, called: frozenset[str]) -> list[FuncOp]:
    return [
        op
        for op in module.walk()
        if isinstance(op, FuncOp) and op.sym_name.data not in called and len(op.body.blocks) == 1
    ]


def _drop_output(function: FuncOp, end: ReturnOp, index: int) -> None:
    values = [value for position, value in enumerate(end.operands) if position != index]
    end.operands = values
    function.res_attrs = _without(function.res_attrs, index)
    function.update_function_type()


def _drop_argument(function: FuncOp, index: int) -> None:
    argument = function.args[index]
    if argument.first_use is not None:
        return
    function.body.block.erase_arg(argument)
    function.arg_attrs = _without(function.arg_attrs, index)
    function.update_function_type()


def _without(entries: ArrayAttr[DictionaryAttr] | None, index: int) -> ArrayAttr[DictionaryAttr] | None:
    """Attributes of arguments or results without those at `index`."""
    if entries is None or index >= len(entries.data):
        return None
    return ArrayAttr(entry for position, entry in enumerate(entries.data) if position != index)


def _drop_location(op: Operation) -> None:
    op.location = UnknownLoc()


def _smaller(value: Attribute) -> Attribute | None:
    if isinstance(value, DenseIntOrFPElementsAttr) and not value.is_splat():
        first: Any = next(iter(value.iter_values()))
        return DenseIntOrFPElementsAttr.from_list(value.type, [first])
    if isinstance(value, ArrayAttr) and len(value.data) > 1:
        return ArrayAttr(value.data[:1])
    return None


def _referenced(module: ModuleOp) -> frozenset[str]:
    """The symbols that something refers to: functions and segments of those names keep their signatures."""
    return frozenset(
        attribute.root_reference.data
        for op in module.walk()
        for attribute in (*op.properties.values(), *op.attributes.values())
        if isinstance(attribute, SymbolRefAttr)
    )
