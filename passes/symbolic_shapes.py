"""Shapes and integer values of a function in terms of its inputs' dimensions, by the library `onnx-shape-inference`.

The function is exported without its weights and inferred there, and what was found is translated back: where the
library says `floor(g0/2 - 1/2) + 1` over names of its kind, the result is an `Expr` over ours. It takes about 0.1 ms an
operation, and reads no weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_shape_inference import (
    SYM_DATA_KEY,
    OpUsageError,
    ShapeInferenceError,
    infer_symbolic_shapes,
)
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Operation, SSAValue

from gimlet.dialects.onnx import AnyType, OnnxOp, shape_of, value_name
from gimlet.dialects.onnx.exporter import export_without_weights, read_opsets
from gimlet.dialects.onnx.ir_types import type_from_ir
from gimlet.dialects.onnx.symbolic import SymbolTable
from gimlet.passes.data_dims import LIMITS, TOP_LEVEL
from gimlet.passes.dim_ranges import read_ranges
from gimlet.passes.entry import describe, is_constant
from gimlet.passes.shape_rules import WINDOWED, extend_library
from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import ONE, Expr

# A domain that the library knows nothing of, for nodes on which it fails.
_OPAQUE_DOMAIN = "gimlet.opaque"
_MOST_FAILURES = 32
# A node, its domain, and the types and shapes of values that it makes or gives to its bodies.
_Given = tuple[ir.Node, str, list[tuple[ir.Value, ir.TypeProtocol | None, ir.Shape | None]]]


@dataclass(frozen=True)
class ShapeAnalysis:
    """What is known of a function's values.

    `types` has a type for each value; its dynamic dimensions are expressions over the dimensions of the function's
    inputs and those that depend on data, or unknown. `limits` has the upper limits of the latter. `integers` has the
    elements of small integer tensors, such as the shape that a Reshape is given, where at least one is known; None
    stands for one that is not.
    """

    types: dict[SSAValue, Attribute]
    integers: dict[SSAValue, tuple[Expr | None, ...]]
    limits: dict[str, Expr]


def analyse_shapes(module: ModuleOp, function: FuncOp, *, stated: bool = True) -> ShapeAnalysis:
    """Infers the types of all values of a function, from its arguments and constants alone where `stated` is False.

    Else sizes that the model states for results are taken. InputError if an operation cannot be valid for any shapes.
    """
    opsets = read_opsets(module)
    model, values = export_without_weights(function, opsets)
    table = SymbolTable({name for name, (low, _, _) in read_ranges(module).items() if low == 0})
    inputs = {name for argument in function.args for dim in shape_of(argument) or () if dim for name in dim.symbols}
    for value, exported in values.items():
        is_given = stated or isinstance(value.owner, Block) or is_constant(value.owner)
        exported.shape = _spelled_shape(value, inputs, table) if is_given else None
    _infer(model)
    for op in function.body.block.ops:
        _check_sizes(op, values)
    limits = _limits(values, inputs, table)
    types = {value: _merged(value, exported, inputs, table, stated) for value, exported in values.items()}
    integers = {value: found for value, exported in values.items() if (found := _integers(exported, table))}
    return ShapeAnalysis(types, integers, limits)


def _check_sizes(op: Operation, values: Mapping[SSAValue, ir.Value]) -> None:
    """InputError where an operation that certainly runs gives a tensor fewer than no elements along a dimension.

    None where a window is larger than what it slides over is too few: ONNX Runtime computes one element, or fails.
    """
    slid = slid_over(op)
    source = values[slid].shape if slid is not None and slid in values else None
    for result in op.results:
        shape = values[result].shape if result in values else None
        for axis, dim in enumerate(shape or ()):
            over = source[axis] if source is not None and 2 <= axis < len(source) else None
            least = 1 if isinstance(over, int) and over > 0 else 0
            if isinstance(dim, int) and dim < least:
                raise InputError(
                    f"{describe(op)}: dimension {axis} of {value_name(result)!r} would be {dim}",
                    hint="its input is too small for it, or --bind makes it so",
                )


def slid_over(op: Operation) -> SSAValue | None:
    """The value over which an operation slides a window, along all dimensions but two; None for other operations."""
    return op.operands[0] if isinstance(op, OnnxOp) and op.op_type in WINDOWED else None


def _spelled_shape(value: SSAValue, inputs: set[str], table: SymbolTable) -> ir.Shape | None:
    """A value's shape in names that the library can read. What is not in terms of the inputs is left to infer."""
    known = shape_of(value)
    if known is None:
        return None
    dims: list[int | str | None] = []
    for dim in known:
        if dim is None or not dim.symbols <= inputs:
            dims.append(None)
        else:
            dims.append(dim.as_int() if dim.is_constant else table.spell(dim))
    return ir.Shape(dims)


def _infer(model: ir.Model) -> None:
    """Infers in place.

    The library takes what a Loop carries for a tensor where the body does not say what it is. Where it is a sequence,
    that is undone, the body is told, and all is inferred again; a Loop inside of it may want that in its turn.
    """
    extend_library()
    loops = [node for node in model.graph.all_nodes() if node.domain == "" and node.op_type == "Loop"]
    for loop in loops:
        if len(loop.inputs) > 1 and loop.inputs[1] is None:
            # The condition may be left out; the library fails without it.
            loop.replace_input_with(1, ir.val("always", ir.DataType.BOOL, []))
    given = _given(model) if loops else []
    carried: dict[ir.Value, ir.TypeProtocol | None] = {}
    while True:
        _infer_types(model)
        found = {inner: outer.type for loop in loops for inner, outer in _carried_as_tensors(loop)}
        if not found.keys() - carried.keys():
            return
        carried |= found
        for node, domain, types in given:
            node.domain = domain
            for value, type_, shape in types:
                value.type, value.shape = type_, shape
        for inner, type_ in carried.items():
            inner.type, inner.shape = type_, None


def _given(model: ir.Model) -> list[_Given]:
    """What the model says of each node, what it makes and what its bodies are given."""
    found: list[_Given] = []
    for node in model.graph.all_nodes():
        bodies = [body for attribute in node.attributes.values() for body in _graphs(attribute)]
        values = [*node.outputs, *(argument for body in bodies for argument in body.inputs)]
        found.append((node, node.domain, [(value, value.type, value.shape) for value in values]))
    return found


def _graphs(attribute: ir.Attr) -> Sequence[ir.Graph]:
    return [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else []


def _carried_as_tensors(loop: ir.Node) -> list[tuple[ir.Value, ir.Value]]:
    """What the body has as a tensor and gets as something else, with what it gets."""
    pairs = zip(loop.attributes["body"].as_graph().inputs[2:], loop.inputs[2:], strict=False)
    return [
        (inner, outer)
        for inner, outer in pairs
        if outer is not None
        and not isinstance(outer.type, ir.TensorType | None)
        and isinstance(inner.type, ir.TensorType)
    ]


def _infer_types(model: ir.Model) -> None:
    """An operation on which the library fails keeps the types that the model gives it."""
    nodes = {f"inner{index}": node for index, node in enumerate(model.graph.all_nodes())}
    for name, node in nodes.items():
        node.name = name
    nodes |= {f"{TOP_LEVEL}{index}": node for index, node in enumerate(model.graph)}
    for name, node in nodes.items():
        node.name = name
    for _ in range(_MOST_FAILURES):
        try:
            infer_symbolic_shapes(model, warn_on_missing=False)
        except ShapeInferenceError as error:
            node = nodes.get(error.node_name or "")
        except OpUsageError as error:
            node = error.node
        else:
            return
        if node is None:
            return
        node.domain = _OPAQUE_DOMAIN


def _merged(value: SSAValue, exported: ir.Value, inputs: set[str], table: SymbolTable, stated: bool) -> Attribute:
    known_shape = shape_of(value)
    if exported.type is None or not (isinstance(exported.type, ir.TensorType) or isinstance(value.type, AnyType)):
        return value.type
    if exported.shape is None:
        return value.type if known_shape is not None else type_from_ir(exported.type, None)
    inferred: list[Expr | None] = [_dimension(dim, table) for dim in exported.shape]
    if stated and known_shape is not None and len(known_shape) == len(inferred):
        # A size that the model states holds even where the inference found only an expression.
        inferred = [
            known if known is not None and (found is None or known.is_constant) and known.symbols <= inputs else found
            for known, found in zip(known_shape, inferred, strict=True)
        ]
    return type_from_ir(exported.type, inferred)


def _limits(values: Mapping[SSAValue, ir.Value], inputs: set[str], table: SymbolTable) -> dict[str, Expr]:
    """The limits of the dimensions that depend on data, which get names after the first value that has each.

    The table knows them from then on.
    """
    limits: dict[str, Expr] = {}
    for value, exported in values.items():
        for axis, (symbol, limit) in json.loads(exported.metadata_props.get(LIMITS, "{}")).items():
            if symbol in table.expressions:
                continue
            name = f"{value_name(value)}_d{axis}"
            while name in inputs or name in limits:
                name += "_"
            table.expressions[symbol] = Expr.symbol(name) + ONE
            found = table.parse(limit)
            if found is None:
                del table.expressions[symbol]
            else:
                limits[name] = found
    return limits


def _dimension(dim: int | ir.SymbolicDim, table: SymbolTable) -> Expr | None:
    if isinstance(dim, int):
        return Expr.const(dim) if dim >= 0 else None
    return table.parse(dim.value) if dim.value else None


def _integers(exported: ir.Value, table: SymbolTable) -> tuple[Expr | None, ...]:
    """The elements that the library found for a value that a node makes."""
    text = exported.metadata_props.get(SYM_DATA_KEY)
    if text is None:
        return ()
    found = tuple(Expr.const(item) if isinstance(item, int) else table.parse(item) for item in json.loads(text))
    return found if any(item is not None for item in found) else ()
