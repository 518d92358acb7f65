"""A model of one operation, as targets probe their frameworks with: does this op, with these types, parse and build?

Names and symbols are canonical (`x0`, `y0`, `d0`), so that two operations that differ only there give one model, and
values of weights (in the weight store, or more than 16 floats) are not the model's own: ones for floats, so that scales
are positive, zeros for the rest. What a framework must know when it compiles (shapes, axes, small scales) is constant
in the model too.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from xdsl.dialects.builtin import AnyFloat, TensorType
from xdsl.ir import Block, Operation, OpResult, SSAValue

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import InitializerOp, OnnxOp, set_value_name, value_name
from gimlet.dialects.onnx.exporter import export_block
from gimlet.dialects.onnx.proto import to_proto
from gimlet.dialects.onnx.types import AnyType, dtype_of, shape_of
from gimlet.dialects.onnx.verify import opset_in_force
from gimlet.runtime.expr import Expr

LARGEST_CONSTANT = 16 << 20
"""Weights of more bytes are inputs of the model, which frameworks accept where weights are that large."""
_MOST_FLOATS_THAT_DECIDE = 16
_WEIGHT = "weight"


@dataclass(frozen=True)
class OneOpModel:
    """The model, and the dimensions of each of its inputs, None where unknown."""

    data: bytes
    inputs: dict[str, tuple[Expr | None, ...] | None]


def read_from_outside(op: Operation) -> Iterator[SSAValue]:
    """The values that an operation and the operations nested in it read and do not make, each once, in order."""
    seen: set[SSAValue] = set()
    inside = {value for nested in op.walk() for value in _made_by(nested)}
    for nested in op.walk():
        for operand in nested.operands:
            if operand not in inside and operand not in seen:
                seen.add(operand)
                yield operand


def _made_by(op: Operation) -> Iterator[SSAValue]:
    yield from op.results
    for region in op.regions:
        for block in region.blocks:
            yield from block.args


def signature_of(op: OnnxOp) -> Hashable:
    """What decides an operation's one-op model: operations with equal signatures have equal models."""
    if op.regions:
        return id(op)
    operands = tuple((value.type, _constant_of(value)) for value in op.operands)
    opset = opset_in_force(op, op.domain)
    return (op.name, opset, frozenset(op.properties.items()), operands, tuple(result.type for result in op.results))


def _constant_of(value: SSAValue) -> Hashable:
    """An inline constant itself, whether a value is a weight, or None for what is known when running only.

    An inline tensor of many floats is a weight too: the biases of a model's layers do not make each layer new.
    """
    if not isinstance(value, OpResult) or not isinstance(value.op, OnnxOp):
        return None
    if isinstance(value.op, InitializerOp):
        return _WEIGHT if _has_many_floats(value) else value.op.properties.get("value", _WEIGHT)
    return tuple(sorted(value.op.properties.items())) if is_constant(value.op) else None


def is_part_of_model(value: SSAValue) -> bool:
    """Whether a value is a constant that a signature has in it: neither a weight nor known when running only."""
    found = _constant_of(value)
    return found is not None and found != _WEIGHT


def _has_many_floats(value: SSAValue) -> bool:
    type_ = value.type
    return (
        isinstance(type_, TensorType)
        and isinstance(type_.element_type, AnyFloat)
        and math.prod(type_.get_shape()) > _MOST_FLOATS_THAT_DECIDE
    )


def signature_text(op: OnnxOp) -> str:
    """The signature as a text that is the same in every process, to keep answers by on disk."""
    if op.regions:
        return hashlib.sha256(one_op_model(op).data).hexdigest()
    opset = opset_in_force(op, op.domain)
    properties = sorted(f"{name}={value}" for name, value in op.properties.items())
    operands = [f"{value.type} {_constant_of(value)}" for value in op.operands]
    return "\n".join([f"{op.name} {opset}", *properties, *operands, *(str(result.type) for result in op.results)])


def is_constant(op: Operation) -> bool:
    """Whether an operation is a constant, which goes wherever its reader goes."""
    return isinstance(op, InitializerOp) or (isinstance(op, OnnxOp) and op.op_type == "Constant" and not op.domain)


def untyped_refusal(op: OnnxOp) -> str | None:
    """Why nothing can be asked about an op: a value of it has no type, which only the model could say."""
    untyped = next((value for value in (*op.operands, *op.results) if isinstance(value.type, AnyType)), None)
    if untyped is None:
        return None
    maker = untyped.owner if isinstance(untyped.owner, OnnxOp) else op
    operator = ".".join(filter(None, (maker.domain, maker.op_type)))
    return (
        f"the type of {value_name(untyped)!r} is not known: no rule says what {operator} makes; "
        "state it in the model (value_info)"
    )


def one_op_model(op: OnnxOp) -> OneOpModel:
    """The model of one operation. InputError where it has values that no ONNX model can hold."""
    ctx = GimletContext()
    block = Block()
    mapped: dict[SSAValue, SSAValue] = {}
    inputs: list[tuple[str, SSAValue]] = []
    for value in read_from_outside(op):
        constant = _clone_constant(value, ctx)
        if constant is not None:
            block.add_op(constant)
            mapped[value] = constant.results[0]
            set_value_name(constant.results[0], f"v{len(mapped)}")
        else:
            argument = block.insert_arg(value.type, len(block.args))
            mapped[value] = argument
            set_value_name(argument, f"x{len(inputs)}")
            inputs.append((f"x{len(inputs)}", argument))
    clone = op.clone(value_mapper=mapped)
    _fill_inner_weights(clone, ctx)
    block.add_op(clone)
    outputs = [(f"y{index}", result) for index, result in enumerate(clone.results)]
    for name, result in outputs:
        set_value_name(result, name)
    opsets = _opsets(op)
    model = export_block(block, inputs, outputs, opsets, ctx, "probe")
    _canonical(model)
    data = to_proto(model).SerializeToString(deterministic=True)
    return OneOpModel(data, {name: shape_of(value) for name, value in inputs})


def _opsets(op: OnnxOp) -> dict[str, int]:
    domains = {nested.domain for nested in op.walk() if isinstance(nested, OnnxOp)} | {""}
    found: dict[str, int] = {}
    for domain in domains:
        version = opset_in_force(op, domain)
        own = op.since_version if domain == op.domain else 0
        # An op that stands for others may be newer than its module.
        found[domain] = max(version, own) if version is not None else own or 21
    return found


def _clone_constant(value: SSAValue, ctx: GimletContext) -> OnnxOp | None:
    if not isinstance(value, OpResult) or not isinstance(value.op, OnnxOp):
        return None
    source = value.op
    if not isinstance(source, InitializerOp):
        return source.clone() if is_constant(source) else None
    if source.key is None and not _has_many_floats(value):
        return source.clone()
    shape, dtype = _weight_shape(value), dtype_of(value.type)
    if int(np.prod(shape, dtype=np.int64)) * dtype.itemsize > LARGEST_CONSTANT or dtype.hasobject:
        return None
    return InitializerOp.from_key(ctx.weights.add(source.key or _WEIGHT, _fill(shape, dtype)), value.type)


def _fill_inner_weights(op: OnnxOp, ctx: GimletContext) -> None:
    """Gives the weights of an operation's regions stand-ins in `ctx`."""
    for nested in op.walk():
        if isinstance(nested, InitializerOp) and nested.key is not None and nested.key not in ctx.weights:
            value = nested.results[0]
            ctx.weights.add(nested.key, _fill(_weight_shape(value), dtype_of(value.type)))


def _weight_shape(value: SSAValue) -> list[int]:
    return [dim.as_int() for dim in shape_of(value) or () if dim is not None]


def _fill(shape: list[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.hasobject:
        return np.full(shape, "", dtype)
    fill = np.ones if dtype.kind in "fV" and "int" not in dtype.name else np.zeros
    return fill(shape, dtype)


def _canonical(model: ir.Model) -> None:
    """Gives inner values, nodes and symbolic dimensions names that depend only on their order."""
    graph = model.graph
    named = {*graph.inputs, *graph.outputs, *graph.initializers.values()}
    symbols: dict[str, str] = {}
    inner = 0
    for value in (*graph.inputs, *graph.initializers.values(), *_inner_values(graph), *graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape([_canonical_dim(dim, symbols) for dim in value.shape])
        if value not in named and value.name:
            value.name = f"z{inner}"
            inner += 1
    for node in graph.all_nodes():
        node.name = ""
        node.metadata_props.clear()


def _canonical_dim(dim: int | ir.SymbolicDim, symbols: dict[str, str]) -> int | str | None:
    if isinstance(dim, int):
        return dim
    return None if dim.value is None else symbols.setdefault(dim.value, f"d{len(symbols)}")


def _inner_values(graph: ir.Graph) -> Iterator[ir.Value]:
    """The results of nodes and the arguments of subgraphs."""
    for node in graph:
        for attribute in node.attributes.values():
            graphs = [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else []
            for inner in graphs:
                yield from inner.inputs
                yield from _inner_values(inner)
        yield from node.outputs
