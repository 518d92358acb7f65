"""Which inputs and outputs are one state: from what the user says to `placement.state` on arguments and results.

`{"past": "present"}` says that what the output `present` is, the input `past` is in the next run. An input is named as
the program names it, by the beginning that several have in common (`past` for `past.0.key` and all others), or by the
module's parameter; an output by its name, by such a beginning, or by where it stands in what the module returns (`1`
for the second item of a tuple, `past` for a key, `1.past` for both).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from xdsl.dialects.builtin import ModuleOp, StringAttr, SymbolRefAttr, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.utils.exceptions import PassFailedException

from gimlet.compiler.lowering import target_of
from gimlet.compiler.signature_ir import read_signature
from gimlet.dialects.onnx import declared_name, value_name
from gimlet.dialects.onnx.types import dims_of, element_of
from gimlet.dialects.placement import DEVICE, FORMAT, TARGET
from gimlet.passes.entry import entry_function, return_of
from gimlet.passes.outline_segments import DEFAULT_FORMAT
from gimlet.passes.state_pairs import IN_PLACE, StatePair, mark_states, state_pairs
from gimlet.runtime.errors import InputError, UsageError
from gimlet.runtime.signature import Series, Signature, Table, Tree, leaves
from gimlet.runtime.tensors import symbol_of
from gimlet.targets.api import Topology

WHERE = "--state"


def add_states(module: ModuleOp, asked: Sequence[tuple[str, str]]) -> None:
    """Marks the states that are asked for in a module that is not split, besides those that it has.

    UsageError for a name that no input or output has, for an input or output that is asked for twice, and where as many
    inputs as outputs are not named. InputError for a state of the module's own that is half of one.
    """
    function = entry_function(module)
    try:
        state_pairs(function)
    except PassFailedException as error:
        raise InputError(str(error)) from error
    if not asked:
        return
    inputs, outputs = _names(function)
    signature = read_signature(module)
    pairs: list[tuple[str, int, int]] = []
    for name, result in asked:
        taken, made = _inputs(name, inputs, signature), _outputs(result, outputs, signature)
        if len(taken) != len(made):
            counts = f"{name} is {len(taken)} inputs, and {result} is {len(made)} outputs"
            raise UsageError(f"{counts}: a state is one of each", where=f"{WHERE} {name}={result}")
        pairs += [(i, inputs.index(i), outputs.index(o)) for i, o in zip(taken, made, strict=True)]
    for kind, names in (("input", [inputs[p[1]] for p in pairs]), ("output", [outputs[p[2]] for p in pairs])):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UsageError(f"the {kind} {twice!r} is in two states", where=WHERE)
    mark_states(function, pairs)


def check_states(module: ModuleOp) -> None:
    """InputError for a state whose output could not be its input in the next run: another type or shape."""
    for pair in state_pairs(entry_function(module)):
        _check(pair)


def _check(pair: StatePair) -> None:
    where = f"state {pair.name!r}"
    before, after = pair.argument.type, pair.result.type
    if not isinstance(before, TensorType) or element_of(before) is None:
        raise InputError(f"is no tensor: {before}", where=where)
    if element_of(before) != element_of(after):
        raise InputError(f"the input is {before}, and the output {after}: the element types differ", where=where)
    old, new = dims_of(before), dims_of(after)
    if old is None or new is None or len(old) != len(new):
        raise InputError(f"the input is {before}, and the output {after}: the ranks differ", where=where)
    for axis, (dim, becomes) in enumerate(zip(old, new, strict=True)):
        if dim == becomes or (symbol_of(dim) is not None and becomes.symbols):
            continue
        message = f"dimension {axis} is {dim} in the input and {becomes} in the output"
        raise InputError(f"{message}: what a run leaves does not fit the next", where=where)


def _names(function: FuncOp) -> tuple[list[str], list[str]]:
    arguments = function.arg_attrs or ()
    inputs = [value_name(value) for value in function.args]
    for index, attributes in enumerate(arguments):
        inputs[index] = declared_name(attributes) or inputs[index]
    results = list(function.res_attrs or ())
    count = len(return_of(function.body.block).operands)
    outputs = [
        (declared_name(results[index]) if index < len(results) else "") or f"output_{index}" for index in range(count)
    ]
    return inputs, outputs


def _inputs(name: str, known: Sequence[str], signature: Signature | None) -> list[str]:
    if name in known:
        return [name]
    trees: dict[str, Tree] = {}
    if signature is not None:
        trees = dict(zip(signature.parameters, signature.args, strict=True))
        trees |= {str(key): tree for key, tree in zip(signature.kwargs.keys, signature.kwargs.items, strict=True)}
    found = list(leaves(trees[name])) if name in trees else _beginning(name, known)
    if not found:
        raise UsageError(f"there is no input {name!r}", where=WHERE, hint=f"the inputs are: {', '.join(known)}")
    return found


def _outputs(name: str, known: Sequence[str], signature: Signature | None) -> list[str]:
    if name in known:
        return [name]
    tree = None if signature is None else _part(signature.result, name.split("."))
    found = _beginning(name, known) if tree is None else list(leaves(tree))
    if not found:
        raise UsageError(f"there is no output {name!r}", where=WHERE, hint=f"the outputs are: {', '.join(known)}")
    return found


def _part(tree: Tree, path: Sequence[str]) -> Tree | None:
    if not path:
        return tree
    if isinstance(tree, Series):
        index = int(path[0]) if path[0].isdigit() else len(tree.items)
        return _part(tree.items[index], path[1:]) if index < len(tree.items) else None
    keys = [str(key) for key in tree.keys] if isinstance(tree, Table) else []
    return _part(tree.items[keys.index(path[0])], path[1:]) if isinstance(tree, Table) and path[0] in keys else None


def _beginning(name: str, known: Sequence[str]) -> list[str]:
    """The names that begin with `name` and go on with something that parts names are joined with."""
    pattern = re.compile(re.escape(name) + r"[._/\[:-]")
    return [each for each in known if pattern.match(each)]


def keep_marks(module: ModuleOp, topology: Topology) -> None:
    """Takes `placement.in_place` from ops that were placed where their target does not update in place."""
    for op in entry_function(module).body.block.ops:
        device, fmt, name = (op.attributes.get(key) for key in (DEVICE, FORMAT, TARGET))
        if IN_PLACE not in op.attributes or not isinstance(device, SymbolRefAttr):
            continue
        number_format = fmt.data if isinstance(fmt, StringAttr) else DEFAULT_FORMAT
        target = target_of(
            topology.device(device.string_value()), number_format, name.data if isinstance(name, StringAttr) else ""
        )
        if not target.updates_in_place(op):
            del op.attributes[IN_PLACE]
