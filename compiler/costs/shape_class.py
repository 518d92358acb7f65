"""What decides how long ops take together, as a text: operators, attributes, how they are wired, types and sizes.

Two sets of ops with one text are one shape class: they are timed once. Values of weights are not in it, nor are names;
integer constants are, because they are shapes, axes and indices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from xdsl.dialects.builtin import AnyFloat
from xdsl.ir import Attribute, Operation, OpResult, SSAValue

from gimlet.compiler.placement.reading.graph import outer_uses
from gimlet.dialects.onnx import OnnxOp, parts_of
from gimlet.dialects.onnx.types import dims_of, element_of
from gimlet.dialects.onnx.values import constant_value
from gimlet.dialects.onnx.verify import opset_in_force
from gimlet.passes.entry import is_constant

_SHORTEST_BY_TYPE = 2
"""Float constants of fewer values are told apart by them: an exponent of 2 is a square."""


def shape_class(ops: Sequence[Operation], results: Sequence[SSAValue], sizes: Mapping[str, int]) -> str:
    """The shape class of ops that yield `results`, with symbolic dimensions at `sizes`."""
    numbers: dict[SSAValue, str] = {}
    lines: list[str] = []
    for op in ops:
        operands = [_operand(value, numbers, sizes) for value in outer_uses(op)]
        for value in op.results:
            numbers[value] = f"%{len(numbers)}"
        types = ", ".join(_type(value.type, sizes) for value in op.results)
        lines.append(f"{_operator(op)} ({', '.join(operands)}) -> {types}")
    lines.append("yield " + ", ".join(numbers.get(value, "?") for value in results))
    return "\n".join(lines)


def digest(*texts: str) -> str:
    """A hash of texts, 32 hexadecimal digits."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]


def _operator(op: Operation) -> str:
    opset = opset_in_force(op, op.domain) if isinstance(op, OnnxOp) else None
    properties = " ".join(sorted(f"{name}={value}" for name, value in op.properties.items()))
    function = parts_of(op)
    bodies = [*op.regions, *([] if function is None else [function.body])]
    regions = " ".join(digest(str(region)) for region in bodies)
    return f"{op.name} {opset} {properties} {regions}"


def _operand(value: SSAValue, numbers: dict[SSAValue, str], sizes: Mapping[str, int]) -> str:
    if not isinstance(value, OpResult) or not is_constant(value.op):
        return f"{numbers.setdefault(value, f'%{len(numbers)}')}: {_type(value.type, sizes)}"
    known = constant_value(value, None, 64)
    element = element_of(value.type)
    floating = element is not None and isinstance(element.type, AnyFloat)
    if known is None or (floating and known.size >= _SHORTEST_BY_TYPE):
        return f"weight: {_type(value.type, sizes)}"
    return f"{np.asarray(known).tolist()}: {_type(value.type, sizes)}"


def _type(type_: Attribute, sizes: Mapping[str, int]) -> str:
    dims, element = dims_of(type_), element_of(type_)
    if dims is None or element is None:
        return str(type_)
    shape = "x".join(f"{dim.evaluate(sizes)}{'' if dim.is_constant else '?'}" for dim in dims)
    return f"{shape}x{element.onnx}"
