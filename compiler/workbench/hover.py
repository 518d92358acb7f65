"""What an editor shows of a place in a text of IR: types and shapes, costs, and what an operator does."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping

from xdsl.ir import BlockArgument, Operation, OpResult, SSAValue

from gimlet.compiler.bounds import read_bounds
from gimlet.compiler.workbench.index import IrIndex
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.types import shape_of
from gimlet.dialects.onnx.work import work_of
from gimlet.runtime.errors import InputError
from gimlet.runtime.units import bytes_text
from gimlet.targets.api import DimBound

_LONGEST = 2000


def hover_text(index: IrIndex, offset: int) -> str | None:
    """Markdown about what is at an offset; None where there is nothing to say."""
    bounds = _bounds(index)
    value = index.value_at(offset)
    if value is not None:
        return "\n\n".join(_about_value(value, bounds))
    token = index.token(offset)
    if token is not None and token[1].startswith("@"):
        return _about_symbol(index, token[1][1:].strip('"'))
    dimension = index.dimension_at(offset)
    if dimension is not None:
        bound = bounds.get(dimension)
        return f"dimension `{dimension}`: " + (_range(bound) if bound else "no bounds are given")
    op = index.op_at(offset)
    if token is None or op is None or token[1] != op[1].name:
        return None
    return "\n\n".join(_about_op(op[1], bounds))


def _bounds(index: IrIndex) -> dict[str, DimBound]:
    try:
        return read_bounds(index.module) if index.module else {}
    except InputError:
        return {}


def _range(bound: DimBound) -> str:
    return f"{bound.minimum} to {bound.maximum}, placed at {bound.optimum}"


def _about_value(value: SSAValue, bounds: Mapping[str, DimBound]) -> Iterator[str]:
    yield f"```mlir\n{value.type}\n```"
    shape = shape_of(value)
    if shape is not None:
        dims = ["?" if dim is None else str(dim) for dim in shape]
        yield f"shape {' × '.join(dims) or 'of one value'}"
        symbols = sorted({name for dim in shape if dim is not None for name in dim.symbols})
        yield from (f"- `{name}`: {_range(bounds[name])}" for name in symbols if name in bounds)
    if isinstance(value, OpResult):
        yield f"result {value.index} of `{value.op.name}`"
        yield from _costs(value.op, bounds)
    elif isinstance(value, BlockArgument):
        yield f"argument {value.index}"


def _about_symbol(index: IrIndex, name: str) -> str | None:
    found = index.definition_of_symbol(name)
    if found is None:
        return None
    op = index.op_at(found[0])
    start = op[0][0] if op else found[0]
    line = index.text[start : index.text.find("\n", start) % (len(index.text) + 1)]
    return f"```mlir\n{line.strip()}\n```"


def _about_op(op: Operation, bounds: Mapping[str, DimBound]) -> Iterator[str]:
    yield f"**{op.name}**" + (f" v{op.since_version}" if isinstance(op, OnnxOp) else "")
    yield from _costs(op, bounds)
    device = op.attributes.get("placement.device")
    if device is not None:
        yield f"runs on {device}"
    text = _operator_text(op) if isinstance(op, OnnxOp) else inspect.cleandoc(type(op).__doc__ or "")
    if text:
        yield text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _costs(op: Operation, bounds: Mapping[str, DimBound]) -> Iterator[str]:
    """What the op has to do, as expressions, and in numbers where its dimensions have bounds."""
    if not isinstance(op, OnnxOp):
        return
    work = work_of(op)
    if not work.known:
        return
    fields = {
        "FLOPs": work.flops,
        "bytes read": work.bytes_read,
        "bytes written": work.bytes_written,
        "weight bytes": work.weight_bytes,
    }
    lines = ["| cost | |" + " at optimum |" * bool(bounds), "|---|---|" + "---|" * bool(bounds)]
    sizes = {name: bound.optimum for name, bound in bounds.items()}
    for name, expression in fields.items():
        number = expression.evaluate(sizes) if expression.symbols <= sizes.keys() else None
        shown = "?" if number is None else f"{number:,}" if name == "FLOPs" else bytes_text(number)
        lines.append(f"| {name} | `{expression}` |" + f" {shown} |" * bool(bounds))
    yield "\n".join(lines)


def _operator_text(op: OnnxOp) -> str:
    """The operator's own documentation, as its schema has it; its inputs and outputs where it has none."""
    import onnx

    try:
        schema = onnx.defs.get_schema(op.op_type, op.since_version, op.domain)
    except onnx.defs.SchemaError:
        return ""
    lines = [textwrap.dedent(schema.doc or "").strip()]
    for title, values in (("inputs", schema.inputs), ("outputs", schema.outputs)):
        lines.append(f"{title}:\n" + "\n".join(f"- `{v.name}`: {_one_line(v.description)}" for v in values))
    return "\n\n".join(line for line in lines if line)


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
