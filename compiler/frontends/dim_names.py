"""The names of dynamic dimensions: from the `Dim`s that a module was traced with to the shapes of the ONNX model.

PyTorch calls dimensions `s72` and keeps what they are equal to, `2*s72`. Where the `dynamic_shapes` of the trace name
the dimension, or one that it is derived from, all shapes are written in these names.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast

import onnx_ir as ir
import torch
from torch.export import ExportedProgram
from torch.utils import _pytree

from gimlet.compiler.frontends.inputs import input_names, input_sizes

_SYMBOL: Final = re.compile(r"[A-Za-z_]\w*")


def name_dimensions(program: ExportedProgram, model: ir.Model, module: Any, dynamic_shapes: Any) -> None:
    """Gives the dimensions of a converted program the names that `dynamic_shapes`, in any of torch's forms, has.

    Where an input has only what is derived from a dimension, `2*half`, that is the dimension, called after the input
    (`x_d0`), and `half` becomes `x_d0//2` everywhere.
    """
    names = _names(program, module, dynamic_shapes)
    whole = _derived(program, names)
    if not names:
        return
    known: dict[str, ir.SymbolicDim] = {}
    for value in _values(model.graph):
        if value.shape is None or value.shape.frozen:
            continue
        for axis, dim in enumerate(value.shape):
            text = dim.value if isinstance(dim, ir.SymbolicDim) else None
            if text is None:
                continue
            if text not in known:
                renamed = whole.get(text) or _SYMBOL.sub(lambda match: names.get(match[0], match[0]), text)
                known[text] = ir.SymbolicDim(renamed)
            value.shape[axis] = known[text]


def _derived(program: ExportedProgram, names: dict[str, str]) -> dict[str, str]:
    """Names for what inputs have instead of the dimension it is derived from, which `names` then says by them."""
    sizes = input_sizes(program)
    dims = [(index, axis, size) for index, shape in enumerate(sizes) for axis, size in enumerate(shape)]
    exprs = [(index, axis, size.node.expr) for index, axis, size in dims if isinstance(size, torch.SymInt)]
    plain = {str(expr) for _, _, expr in exprs if expr.is_Symbol}
    inputs = input_names(program)
    found: dict[str, str] = {}
    for index, axis, expr in exprs:
        symbols = list(expr.free_symbols)
        if len(symbols) != 1 or str(symbols[0]) in plain:
            continue
        factor = expr.coeff(symbols[0])
        if not factor.is_Integer or not (rest := expr - factor * symbols[0]).is_Integer:
            continue
        name = found.setdefault(str(expr), f"{inputs[index]}_d{axis}")
        names[str(symbols[0])] = f"(({name} - {rest})//{factor})" if rest else f"({name}//{factor})"
        plain.add(str(symbols[0]))
    return found


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in ir.traversal.RecursiveGraphIterator(graph):
        yield from node.outputs
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from attribute.as_graph().inputs


def _names(program: ExportedProgram, module: Any, dynamic_shapes: Any) -> dict[str, str]:
    """The name of each of PyTorch's symbols that has one."""
    args, kwargs = program.example_inputs or ((), {})
    if hasattr(dynamic_shapes, "dynamic_shapes"):
        dynamic_shapes = dynamic_shapes.dynamic_shapes(module, args, kwargs)
    if not dynamic_shapes:
        return {}
    arguments = _arguments(module, args, kwargs)
    shapes: Any = dynamic_shapes
    if not isinstance(shapes, Mapping):
        shapes = dict(zip(arguments, cast(Iterable[Any], dynamic_shapes), strict=False))
    axes = [found for name, value in arguments.items() for found in _axes(value, shapes.get(name))]
    names: dict[str, str] = {}
    for sizes, named in zip(input_sizes(program), axes, strict=False):
        for axis, dim in _items(named):
            size = sizes[axis] if axis < len(sizes) else None
            symbols = size.node.expr.free_symbols if isinstance(size, torch.SymInt) else ()
            root = getattr(dim, "root", dim)
            if len(symbols) == 1 and hasattr(root, "__name__"):
                names.setdefault(str(next(iter(symbols))), root.__name__)
    return names


def _arguments(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by the names of the module's parameters, those of `**kwargs` by their own."""
    signature = inspect.signature(module.forward if isinstance(module, torch.nn.Module) else module)
    found: dict[str, Any] = {}
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            found |= value
        else:
            found[name] = value
    return found


def _axes(value: Any, shapes: Any) -> Iterator[Any]:
    """For each tensor in a nest of containers, what the same place of `shapes` has."""
    if isinstance(value, torch.Tensor):
        yield shapes
        return
    items = _children(value)
    given: list[Any] = [None] * len(items)
    if isinstance(shapes, Mapping):
        named = cast(Mapping[Any, Any], shapes)
        given = [named.get(key) for key in value] if isinstance(value, Mapping) else _children(named)
    elif shapes is not None:
        given = _children(shapes)
    for item, part in zip(items, given, strict=False):
        yield from _axes(item, part)


def _children(value: Any) -> list[Any]:
    """What a container holds; nothing for anything else."""
    found = _pytree.tree_leaves(value, is_leaf=lambda each: each is not value)
    return [] if len(found) == 1 and found[0] is value else found


def _items(axes: Any) -> list[tuple[int, Any]]:
    if isinstance(axes, Mapping):
        return list(cast(Mapping[int, Any], axes).items())
    return list(enumerate(cast(list[Any], axes))) if isinstance(axes, list | tuple) else []
