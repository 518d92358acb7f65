"""How a traced module is called, as the signature that a manifest carries (`gimlet.runtime.signature`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import dropwhile
from typing import Any, cast

import onnx_ir as ir
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.utils._pytree import TreeSpec

from gimlet.compiler.frontends.complex_numbers import complex_type
from gimlet.compiler.frontends.mutation import copied, rebuilt
from gimlet.runtime.errors import InputError
from gimlet.runtime.signature import (
    Constant,
    Series,
    Signature,
    Table,
    TensorLeaf,
    Tree,
)


def signature_of(program: ExportedProgram, model: ir.Model) -> Signature:
    """The signature of a program that was converted to `model`, whose outputs become unique and named by their keys.

    An output that stands in a dict or a record gets its path from there as its name, `past.0.key`.
    """
    inputs, outputs = iter(model.graph.inputs), iter(list(model.graph.outputs))
    numbers = _complex_numbers(program)
    given = [spec.arg for spec in program.graph_signature.input_specs if spec.kind == InputKind.USER_INPUT]
    returns = [spec.arg for spec in program.graph_signature.output_specs if spec.kind == OutputKind.USER_OUTPUT]
    arguments = [_leaf(argument, inputs, numbers) for argument in given]
    results = [_leaf(argument, outputs, numbers) for argument in returns]
    if next(inputs, None) is not None or next(outputs, None) is not None:
        raise InputError("the program has inputs or outputs that the traced module does not have")
    called, returned = program.call_spec.in_spec, program.call_spec.out_spec
    if called is None or returned is None:
        raise InputError("the program does not say how it is called", hint="export it again")
    args_spec, kwargs_spec = called.children()
    leaves = iter(arguments)
    args = [_tree(spec, leaves) for spec in args_spec.children()]
    kwargs = cast(Table, _tree(kwargs_spec, leaves))
    values = {value.name: value for value in model.graph.outputs}
    result = _tree(returned, iter(results))
    renamed = _rename(result, values, {value.name for value in model.graph.inputs})
    _make_unique(model.graph)
    return Signature(_parameters(program, len(args)), tuple(args), kwargs, renamed)


def _complex_numbers(program: ExportedProgram) -> dict[str, str]:
    """The element type of each value of the traced program that is of complex numbers, and of pairs in the graph's."""
    types = {node.name: complex_type(node) for node in program.graph.nodes}
    return {name: str(found).removeprefix("torch.") for name, found in types.items() if found is not None}


def _leaf(argument: Any, values: Iterator[ir.Value], numbers: Mapping[str, str]) -> Tree:
    """A constant, or the next of the graph's values."""
    if isinstance(argument, ConstantArgument):
        return Constant(argument.value)
    value = next(values, None)
    if value is None or value.name is None:
        raise InputError("the traced module has inputs or outputs that the program does not have")
    return TensorLeaf(value.name, numbers.get(argument.name))


def _parameters(program: ExportedProgram, count: int) -> tuple[str, ...]:
    """The names of the positional arguments. Those after the last that has a name are called by their place."""
    called = program.module_call_graph[0].signature if program.module_call_graph else None
    names = list((called.forward_arg_names if called else None) or ())[:count]
    return (*names, *(f"args[{index}]" for index in range(len(names), count)))


def _tree(spec: TreeSpec, leaves: Iterator[Tree]) -> Tree:
    if spec.is_leaf():
        return next(leaves)
    items = tuple(_tree(child, leaves) for child in spec.children())
    keys, absent = _keys(spec)
    if keys and len(keys) == len(items):
        nothing = [Constant(None)] * len(absent)
        return Table("dict" if spec.type is dict else "record", (*keys, *absent), (*items, *nothing))
    if spec.type is dict:
        return Table("dict", (), ())
    return Series("list" if spec.type is list else "tuple", items)


def _keys(spec: TreeSpec) -> tuple[list[str | int], list[str | int]]:
    """The keys of a dict or record's items, and of what a dataclass has as None; none where there are no keys.

    PyTorch's context of a dict is its keys, that of a dataclass two lists of names: of its items, and of its Nones.
    """
    context: Any = spec.context
    if _are_keys(context):
        return list(context), []
    if isinstance(context, list | tuple) and all(_are_keys(part) for part in cast(list[Any], context)):
        parts = cast(Sequence[Sequence[str | int]], context)
        return list(parts[0]) if parts else [], [key for part in parts[1:] for key in part]
    return [], []


def _are_keys(context: Any) -> bool:
    return isinstance(context, list | tuple) and all(isinstance(key, str | int) for key in cast(list[Any], context))


def _rename(tree: Tree, values: dict[str | None, ir.Value], taken: set[str | None], path: tuple[str, ...] = ()) -> Tree:
    if isinstance(tree, TensorLeaf):
        return _renamed_leaf(tree, values, taken, path)
    if isinstance(tree, Series):
        items = [_rename(item, values, taken, (*path, str(index))) for index, item in enumerate(tree.items)]
        return Series(tree.kind, tuple(items))
    if isinstance(tree, Table):
        pairs = zip(tree.keys, tree.items, strict=True)
        items = [_rename(item, values, taken, (*path, str(key))) for key, item in pairs]
        return Table(tree.kind, tree.keys, tuple(items))
    return tree


def _renamed_leaf(
    leaf: TensorLeaf, values: dict[str | None, ir.Value], taken: set[str | None], path: tuple[str, ...]
) -> TensorLeaf:
    keyed = list(dropwhile(str.isdigit, path))
    value, name = values[leaf.name], ".".join(keyed)
    if keyed and value.name == leaf.name and value.name not in taken and name not in taken:
        value.name = name
        taken.add(name)
    return TensorLeaf(value.name or leaf.name, leaf.numbers)


def _make_unique(graph: ir.Graph) -> None:
    """Leaves out an output that another one is already: the signature names it twice instead."""
    unique = list(dict.fromkeys(graph.outputs))
    if len(unique) < len(graph.outputs):
        graph.outputs.clear()
        graph.outputs.extend(unique)


def without_constant_outputs(program: ExportedProgram) -> ExportedProgram:
    """The program with None for each number or text that it returns, which PyTorch's ONNX exporter does not take."""
    specs = program.graph_signature.output_specs
    if all(not isinstance(spec.arg, ConstantArgument) or spec.arg.value is None for spec in specs):
        return program
    module = copied(program)
    output = module.graph.output_node()
    items = cast(Sequence[Any], output.args[0])
    constant = [isinstance(spec.arg, ConstantArgument) for spec in specs]
    output.args = (tuple(None if skip else item for skip, item in zip(constant, items, strict=True)),)
    nothing = ConstantArgument(name="", value=None)
    kept = [replace(spec, arg=nothing) if skip else spec for skip, spec in zip(constant, specs, strict=True)]
    return rebuilt(program, module, output_specs=kept)
