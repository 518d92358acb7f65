"""The stored form of a program: one JSON object, `schema` 6, with positional lists where text would repeat itself.

Sizes and positions are integers where they are constant and the text of an expression where not. Reading trusts
nothing: whatever has the wrong form is an `InputError` that says where; what a program means is `verify`'s to check.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.machine import Machine
from gimlet.runtime.sram.program import (
    EVERYWHERE,
    HELD,
    ROLES,
    SCHEMA,
    Access,
    Axis,
    Binding,
    Dim,
    Fill,
    Gather,
    Growth,
    Iota,
    Kernel,
    Load,
    Loop,
    Map,
    Matmul,
    Operand,
    Program,
    Range,
    Reduce,
    Scatter,
    Statement,
    Store,
    Tensor,
    Tile,
)

Value = TypeVar("Value")

_OLDEST = 4
"""The schema from which on a program is read: what later ones added is what an older one had everywhere, or not."""


def dumps(program: Program) -> str:
    """The stored form. The same program gives the same text."""
    return json.dumps(_program(program), separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"


def loads(text: str) -> Program:
    """The program that `dumps` stored. InputError, with the place, for anything else."""
    try:
        data: object = json.loads(text)
    except ValueError as error:
        raise InputError(f"a program of the SRAM machine is JSON, this is not: {error}") from None
    return _read_program(data)


def _expr(expr: Expr) -> int | str:
    return expr.as_int() if expr.is_constant else str(expr)


def _exprs(exprs: tuple[Expr, ...]) -> list[int | str]:
    return [_expr(expr) for expr in exprs]


def _number(value: float) -> Any:
    return value if math.isfinite(value) else {"f": str(value)}


def _operand(operand: Operand) -> Any:
    if isinstance(operand, Expr):
        return {"e": str(operand)}
    return operand if isinstance(operand, str) else _number(operand)


def _access(access: Access) -> list[Any]:
    axes = [[[axis.dim, axis.step, _expr(axis.size)] for axis in group] for group in access.axes]
    head = [access.tensor, _exprs(access.shape), _exprs(access.start), axes]
    return head if access.fill is None else [*head, _number(access.fill)]


def _range(each: Range) -> list[Any]:
    return [each.name, _expr(each.extent), each.step]


def _statement(statement: Statement) -> list[Any]:
    match statement:
        case Loop(range=over, body=body):
            return ["loop", _range(over), [_statement(each) for each in body]]
        case Load(tile=tile, access=access, after=after):
            return ["load", tile, _access(access), list(after)]
        case Gather(tile=tile, access=access, indices=indices, axis=axis, after=after):
            return ["gather", tile, _access(access), indices, axis, list(after)]
        case Store(access=access, tile=tile, adds=adds, after=after):
            return ["add" if adds else "store", _access(access), tile, list(after)]
        case Scatter(access=access, tile=tile, indices=indices, axis=axis, after=after, function=function):
            return ["scatter", _access(access), tile, indices, axis, list(after), *([function] if function else [])]
        case Fill(tile=tile, sizes=sizes, value=value):
            return ["fill", tile, _exprs(sizes), _operand(value)]
        case Iota(tile=tile, sizes=sizes, axis=axis, start=start, step=step):
            return ["iota", tile, _exprs(sizes), axis, _expr(start), step]
        case Matmul(accumulator=accumulator, lhs=lhs, rhs=rhs, stationary=stationary, begins=begins):
            return ["matmul", accumulator, lhs, rhs, stationary, begins]
        case Map(function=function, tile=tile, operands=operands, parameters=parameters):
            return ["map", function, tile, [_operand(each) for each in operands], [_number(p) for p in parameters]]
        case Reduce(function=function, tile=tile, source=source, axes=axes):
            return ["reduce", function, tile, source, list(axes)]


def _kernel(kernel: Kernel) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "sources": list(kernel.sources),
        "grid": [_range(each) for each in kernel.grid],
        "tiles": [[t.name, t.dtype, list(t.shape), t.depth, t.address] for t in kernel.tiles],
        "body": [_statement(each) for each in kernel.body],
        **({"first": kernel.first} if kernel.first else {}),
        **({"chiplet": kernel.chiplet} if kernel.chiplet != EVERYWHERE else {}),
    }


def _tensor(t: Tensor) -> list[Any]:
    place = [t.space, t.address, t.capacity_bytes, t.role, t.offset]
    rest: list[Any] = [t.chiplet, t.together] if t.together else [] if t.chiplet == EVERYWHERE else [t.chiplet]
    if t.growth is not None:
        rest = [t.chiplet, t.together, [t.growth.dim, _expr(t.growth.before), _expr(t.growth.after)]]
    return [t.name, t.dtype, _exprs(t.shape), *place, t.block, t.first, t.copies, t.width, *rest]


def _program(program: Program) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "name": program.name,
        "machine": program.machine.to_json(),
        "format": program.format,
        "cores": program.cores,
        "parts": program.parts,
        "page_bytes": program.page_bytes,
        "local_bytes": program.local_bytes,
        "dims": [[d.name, d.minimum, d.optimum, d.maximum] for d in program.dims],
        "inputs": [[b.name, b.tensor] for b in program.inputs],
        "outputs": [[b.name, b.tensor] for b in program.outputs],
        "tensors": [_tensor(tensor) for tensor in program.tensors],
        "kernels": [_kernel(kernel) for kernel in program.kernels],
    }


def _wrong(what: str, value: object) -> InputError:
    text = repr(value)
    return InputError(f"a program of the SRAM machine has {text[:80]} where {what} belongs")


def _read_int(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong("an integer", value)
    return value


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        raise _wrong("a name", value)
    return value


def _read_choice(value: object, *choices: str) -> Any:
    if value not in choices:
        raise _wrong(f"one of {', '.join(choices)}", value)
    return value


def _read_list(value: object, lengths: tuple[int, ...] = ()) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong("a list", value)
    items = cast(list[Any], value)
    if lengths and len(items) not in lengths:
        raise _wrong(f"a list of {' or '.join(map(str, lengths))}", value)
    return items


def _read_all(value: object, read: Callable[[object], Value]) -> tuple[Value, ...]:
    return tuple(read(each) for each in _read_list(value))


def _read_object(value: object, keys: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict) or any(key not in value for key in keys):
        raise _wrong(f"an object with {', '.join(keys)}", value)
    return cast(dict[str, Any], value)


def _read_expr(value: object) -> Expr:
    if isinstance(value, str):
        return Expr.parse(value)
    return Expr.const(_read_int(value))


def _read_number(value: object) -> int | float:
    if isinstance(value, dict):
        text = _read_object(cast(object, value), ("f",))["f"]
        return float(_read_choice(text, "inf", "-inf", "nan"))
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong("a number", value)
    return value


def _read_operand(value: object) -> Operand:
    if isinstance(value, str):
        return value
    return _read_value(value)


def _read_value(value: object) -> int | float | Expr:
    if isinstance(value, dict) and "e" in value:
        return Expr.parse(_read_text(cast(dict[str, object], value)["e"]))
    return _read_number(value)


def _read_axis(value: object) -> Axis:
    dim, step, size = _read_list(value, (3,))
    return Axis(_read_int(dim), _read_int(step), _read_expr(size))


def _read_access(value: object) -> Access:
    tensor, shape, start, axes, *fill = _read_list(value, (4, 5))
    return Access(
        tensor=_read_text(tensor),
        shape=_read_all(shape, _read_expr),
        start=_read_all(start, _read_expr),
        axes=_read_all(axes, lambda group: _read_all(group, _read_axis)),
        fill=float(_read_number(fill[0])) if fill else None,
    )


def _read_range(value: object) -> Range:
    name, extent, step = _read_list(value, (3,))
    return Range(_read_text(name), _read_expr(extent), _read_int(step))


def _read_statement(value: object) -> Statement:
    items = _read_list(value)
    opcode, fields = (items[0], items[1:]) if items else ("", items)
    if not isinstance(opcode, str) or len(fields) not in _FIELDS.get(opcode, ()):
        raise _wrong("an instruction", value)
    match opcode:
        case "loop":
            return Loop(_read_range(fields[0]), _read_all(fields[1], _read_statement))
        case "load":
            return Load(_read_text(fields[0]), _read_access(fields[1]), _read_all(fields[2], _read_text))
        case "gather":
            tile, access, indices = _read_text(fields[0]), _read_access(fields[1]), _read_text(fields[2])
            return Gather(tile, access, indices, _read_int(fields[3]), _read_all(fields[4], _read_text))
        case "store" | "add":
            access, tile = _read_access(fields[0]), _read_text(fields[1])
            return Store(access, tile, opcode == "add", _read_all(fields[2], _read_text))
        case "scatter":
            access, tile, indices = _read_access(fields[0]), _read_text(fields[1]), _read_text(fields[2])
            function = _read_text(fields[5]) if len(fields) > 5 else ""
            return Scatter(access, tile, indices, _read_int(fields[3]), _read_all(fields[4], _read_text), function)
        case "fill":
            return Fill(_read_text(fields[0]), _read_all(fields[1], _read_expr), _read_value(fields[2]))
        case "iota":
            sizes = _read_all(fields[1], _read_expr)
            return Iota(_read_text(fields[0]), sizes, _read_int(fields[2]), _read_expr(fields[3]), _read_int(fields[4]))
        case "matmul":
            accumulator, lhs, rhs = (_read_text(field) for field in fields[:3])
            held = _read_choice(fields[3], *HELD)
            return Matmul(accumulator, lhs, rhs, held, _read_text(fields[4]))
        case "map":
            parameters = tuple(float(number) for number in _read_all(fields[3], _read_number))
            return Map(_read_text(fields[0]), _read_text(fields[1]), _read_all(fields[2], _read_operand), parameters)
        case _:
            function, tile, source = (_read_text(field) for field in fields[:3])
            return Reduce(function, tile, source, _read_all(fields[3], _read_int))


_FIELDS: dict[str, tuple[int, ...]] = {
    "loop": (2,),
    "load": (3,),
    "gather": (5,),
    "store": (3,),
    "add": (3,),
    "scatter": (5, 6),
    "fill": (3,),
    "iota": (5,),
    "matmul": (5,),
    "map": (4,),
    "reduce": (4,),
}


def _read_tile(value: object) -> Tile:
    name, dtype, shape, depth, address = _read_list(value, (5,))
    return Tile(_read_text(name), _read_text(dtype), _read_all(shape, _read_int), _read_int(depth), _read_int(address))


def _read_kernel(value: object) -> Kernel:
    data = _read_object(value, ("name", "sources", "grid", "tiles", "body"))
    return Kernel(
        name=_read_text(data["name"]),
        grid=_read_all(data["grid"], _read_range),
        tiles=_read_all(data["tiles"], _read_tile),
        body=_read_all(data["body"], _read_statement),
        sources=_read_all(data["sources"], _read_text),
        first=_read_int(data.get("first", 0)),
        chiplet=_read_int(data.get("chiplet", EVERYWHERE)),
    )


def _read_tensor(value: object) -> Tensor:
    name, dtype, shape, space, address, capacity, role, offset, *blocks = _read_list(value, (12, 13, 14, 15))
    return Tensor(
        name=_read_text(name),
        dtype=_read_text(dtype),
        shape=_read_all(shape, _read_expr),
        space=_read_choice(space, "sram", "lpddr", "core"),
        address=_read_int(address),
        capacity_bytes=_read_int(capacity),
        role=_read_choice(role, *ROLES),
        offset=_read_int(offset),
        block=_read_int(blocks[0]),
        first=_read_int(blocks[1]),
        copies=_read_int(blocks[2]),
        width=_read_int(blocks[3]),
        chiplet=_read_int(blocks[4]) if len(blocks) > 4 else EVERYWHERE,
        together=_read_int(blocks[5]) if len(blocks) > 5 else 0,
        growth=_read_growth(blocks[6]) if len(blocks) > 6 else None,
    )


def _read_growth(value: object) -> Growth:
    dim, before, after = _read_list(value, (3,))
    return Growth(_read_int(dim), _read_expr(before), _read_expr(after))


def _read_dim(value: object) -> Dim:
    name, *bounds = _read_list(value, (4,))
    return Dim(_read_text(name), *(_read_int(bound) for bound in bounds))


def _read_binding(value: object) -> Binding:
    name, tensor = _read_list(value, (2,))
    return Binding(_read_text(name), _read_text(tensor))


def _read_program(value: object) -> Program:
    data = _read_object(value, ("schema",))
    if data["schema"] not in range(_OLDEST, SCHEMA + 1):
        raise InputError(
            f"this program has schema {data['schema']!r}, this runtime reads {_OLDEST} to {SCHEMA}",
            hint="compile the bundle again, or install the gimlet that wrote it",
        )
    _read_object(data, ("name", "machine", "format", "cores", "page_bytes", "local_bytes", "dims"))
    _read_object(data, ("inputs", "outputs", "tensors", "kernels"))
    return Program(
        name=_read_text(data["name"]),
        machine=Machine.from_options(_read_object(data["machine"], ())),
        format=_read_text(data["format"]),
        cores=_read_int(data["cores"]),
        page_bytes=_read_int(data["page_bytes"]),
        local_bytes=_read_int(data["local_bytes"]),
        dims=_read_all(data["dims"], _read_dim),
        inputs=_read_all(data["inputs"], _read_binding),
        outputs=_read_all(data["outputs"], _read_binding),
        tensors=_read_all(data["tensors"], _read_tensor),
        kernels=_read_all(data["kernels"], _read_kernel),
        parts=_read_int(data.get("parts", 1)),
    )
