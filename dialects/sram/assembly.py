"""Between the text and the program: `assemble` makes the runtime's program of the dialect's ops, `disassemble` the ops.

Disassembling what was assembled gives the same ops, and the other way round: nothing is left out in either form, but
for what the ops say beside the program (annotations.py), which `rewrite` keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    DictionaryAttr,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    SymbolRefAttr,
    f64,
    i64,
)
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.rewriter import Rewriter
from xdsl.utils.exceptions import VerifyException

from gimlet.dialects.sram.annotations import Dealt, NamedLife
from gimlet.dialects.sram.attributes import (
    AccessAttr,
    DealtAttr,
    GrowthAttr,
    LifeAttr,
    OperandsAttr,
    RangeAttr,
    SizesAttr,
    TileType,
    ValueAttr,
)
from gimlet.dialects.sram.ops import (
    AddOp,
    FillOp,
    GatherOp,
    IotaOp,
    KernelOp,
    LoadOp,
    LoopOp,
    MapOp,
    MatmulOp,
    ProgramOp,
    ReduceOp,
    ScatterOp,
    StoreOp,
    TensorOp,
    TileOp,
)
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.machine import Machine
from gimlet.runtime.sram.program import (
    EVERYWHERE,
    HELD,
    ROLES,
    UNPLACED,
    Binding,
    Dim,
    Fill,
    Gather,
    Iota,
    Kernel,
    Load,
    Loop,
    Map,
    Matmul,
    Operand,
    Program,
    Reduce,
    Scatter,
    Statement,
    Store,
    Tensor,
    Tile,
    Transfer,
)

_SPACES = ("sram", "lpddr", "core")


def assemble(op: ProgramOp) -> Program:
    """The program that the ops spell. VerifyException for an op that has no place there."""
    tensors: list[Tensor] = []
    kernels: list[Kernel] = []
    for each in op.body.block.ops:
        if isinstance(each, TensorOp):
            tensors.append(_tensor(each))
        elif isinstance(each, KernelOp):
            kernels.append(_kernel(each))
        else:
            raise VerifyException(f"a program holds tensors and kernels, not '{each.name}'")
    return Program(
        name=op.sym_name.data,
        machine=machine_of(op.machine),
        format=op.number_format.data,
        cores=_int(op.cores),
        page_bytes=_int(op.page_bytes),
        local_bytes=_optional(op.local_bytes, UNPLACED),
        parts=_optional(op.parts, 1),
        dims=tuple(Dim(name, *_ints(value, 3)) for name, value in op.dims.data.items()),
        inputs=_bindings(op.inputs),
        outputs=_bindings(op.outputs),
        tensors=tuple(tensors),
        kernels=tuple(kernels),
    )


def machine_of(figures: DictionaryAttr) -> Machine:
    """The machine with these figures. InputError for one of the wrong type or size."""
    return Machine.from_options({name: _figure(value) for name, value in figures.data.items()})


def _int(attribute: Attribute) -> int:
    return cast(IntegerAttr[Any], attribute).value.data


def _optional(attribute: Attribute | None, otherwise: int) -> int:
    return otherwise if attribute is None else _int(attribute)


def _ints(attribute: Attribute, count: int) -> tuple[int, ...]:
    if not isinstance(attribute, DenseArrayBase) or len(attribute.get_values()) != count:
        raise VerifyException(f"expected {count} integers, not {attribute}")
    return tuple(int(value) for value in attribute.get_values())


def _figure(attribute: Attribute) -> object:
    match attribute:
        case IntegerAttr():
            return _int(attribute)
        case FloatAttr():
            return float(attribute.value.data)
        case StringAttr():
            return attribute.data
        case DictionaryAttr():
            return {name: _figure(value) for name, value in attribute.data.items()}
        case _:
            raise VerifyException(f"{attribute} is not a figure of a machine")


def _bindings(attribute: DictionaryAttr) -> tuple[Binding, ...]:
    found: list[Binding] = []
    for name, value in attribute.data.items():
        if not isinstance(value, SymbolRefAttr):
            raise VerifyException(f"{name} must be bound to a tensor, not to {value}")
        found.append(Binding(name, value.string_value()))
    return tuple(found)


def _tensor(op: TensorOp) -> Tensor:
    if op.space.data not in _SPACES or op.role.data not in ROLES:
        raise VerifyException(f"tensor {op.sym_name.data} is {op.role.data} in {op.space.data}, which does not exist")
    return Tensor(
        name=op.sym_name.data,
        dtype=op.dtype.data,
        shape=op.shape.data,
        space=op.space.data,
        address=_optional(op.address, UNPLACED),
        capacity_bytes=_optional(op.capacity_bytes, 0),
        role=op.role.data,
        offset=_optional(op.offset, -1),
        block=_optional(op.block, 0),
        first=_optional(op.first, 0),
        copies=_optional(op.copies, 1),
        together=_optional(op.together, 0),
        width=_optional(op.width, 0),
        chiplet=_optional(op.chiplet, EVERYWHERE),
        growth=None if op.growth is None else op.growth.data,
    )


def _kernel(op: KernelOp) -> Kernel:
    tiles: dict[SSAValue, Tile] = {}
    for each in op.body.block.ops:
        if isinstance(each, TileOp):
            shape = tuple(int(size) for size in each.shape.get_values())
            address = _optional(each.address, UNPLACED)
            tiles[each.result] = Tile(each.tile_name.data, each.dtype.data, shape, _int(each.depth), address)
    body = [each for each in op.body.block.ops if not isinstance(each, TileOp)]
    return Kernel(
        name=op.sym_name.data,
        grid=tuple(each.data for each in op.grid),
        tiles=tuple(tiles.values()),
        body=tuple(_statement(each, tiles) for each in body),
        sources=tuple(each.data for each in op.sources),
        first=_optional(op.first, 0),
        chiplet=_optional(op.chiplet, EVERYWHERE),
    )


def _statement(op: Operation, tiles: Mapping[SSAValue, Tile]) -> Statement:
    def name(value: SSAValue) -> str:
        if value not in tiles:
            raise VerifyException(f"'{op.name}' uses a tile that its kernel does not declare")
        return tiles[value].name

    match op:
        case LoopOp():
            return Loop(op.range.data, tuple(_statement(each, tiles) for each in op.body.block.ops))
        case LoadOp():
            return Load(name(op.tile), op.access.data, _names(op.after))
        case GatherOp():
            return Gather(name(op.tile), op.access.data, name(op.indices), _int(op.axis), _names(op.after))
        case StoreOp():
            return Store(op.access.data, name(op.tile), after=_names(op.after))
        case AddOp():
            return Store(op.access.data, name(op.tile), adds=True, after=_names(op.after))
        case ScatterOp():
            function = "" if op.function is None else op.function.data
            return Scatter(op.access.data, name(op.tile), name(op.indices), _int(op.axis), _names(op.after), function)
        case FillOp():
            return Fill(name(op.tile), op.sizes.data, op.value.data)
        case IotaOp():
            start = op.start.data
            if isinstance(start, float):
                raise VerifyException("sram.iota counts from an integer")
            return Iota(name(op.tile), op.sizes.data, _int(op.axis), Expr.of(start), _int(op.step))
        case MatmulOp():
            held = op.stationary.data
            if held not in HELD:
                raise VerifyException(f"a product holds {', '.join(HELD)}, not {held}")
            begins = "" if op.begins is None else op.begins.data
            return Matmul(name(op.accumulator), name(op.lhs), name(op.rhs), held, begins)
        case MapOp():
            sources = iter(op.sources)
            operands = tuple(name(next(sources)) if isinstance(each, str) else each for each in op.operands_.data)
            parameters = () if op.parameters is None else tuple(_real(each.data) for each in op.parameters)
            return Map(op.function.data, name(op.tile), operands, parameters)
        case ReduceOp():
            axes = tuple(int(axis) for axis in op.axes.get_values())
            return Reduce(op.function.data, name(op.tile), name(op.source), axes)
        case _:
            raise VerifyException(f"'{op.name}' is not an instruction of the machine")


def _names(attribute: ArrayAttr[StringAttr] | None) -> tuple[str, ...]:
    return () if attribute is None else tuple(each.data for each in attribute)


def _real(value: float | Expr) -> float:
    if isinstance(value, Expr):
        raise VerifyException(f"the parameter {value} of a vector function must be a number")
    return float(value)


def disassemble(program: Program) -> ProgramOp:
    """The ops that spell a program."""
    machine = {name: _figure_attr(value) for name, value in _figures(program.machine).items()}
    dims = {dim.name: DenseArrayBase.from_list(i64, [dim.minimum, dim.optimum, dim.maximum]) for dim in program.dims}
    ops: list[Operation] = [_tensor_op(tensor) for tensor in program.tensors]
    ops += [_kernel_op(kernel) for kernel in program.kernels]
    return ProgramOp.create(
        properties={
            "sym_name": StringAttr(program.name),
            "format": StringAttr(program.format),
            "cores": _int_attr(program.cores),
            "page_bytes": _int_attr(program.page_bytes),
            **({"local_bytes": _int_attr(program.local_bytes)} if program.local_bytes != UNPLACED else {}),
            **({"parts": _int_attr(program.parts)} if program.parts > 1 else {}),
            "machine": DictionaryAttr(machine),
            "dims": DictionaryAttr(dims),
            "inputs": DictionaryAttr({each.name: SymbolRefAttr(each.tensor) for each in program.inputs}),
            "outputs": DictionaryAttr({each.name: SymbolRefAttr(each.tensor) for each in program.outputs}),
        },
        regions=[Region(Block(ops))],
    )


def _figures(machine: Machine) -> dict[str, Any]:
    """The cores of a machine, and what differs from the figures that are taken where nothing is said."""
    usual = Machine().to_json()
    figures = machine.to_json().items()
    return {name: value for name, value in figures if value != usual[name] or name in ("chiplets", "cores")}


def rewrite(
    op: ProgramOp,
    program: Program,
    lives: Mapping[str, NamedLife] | None = None,
    dealt: Mapping[str, Dealt] | None = None,
) -> None:
    """Puts `program` in place of what the ops spell. What is said of tensors and kernels stays, or is said anew.

    The machine stays as it is spelled.
    """
    new = disassemble(program)
    new.machine = op.machine
    new.attributes |= op.attributes
    said_lives, said_dealt = annotations_of(op)
    said_lives, said_dealt = {**said_lives, **(lives or {})}, {**said_dealt, **(dealt or {})}
    for each in new.body.block.ops:
        if isinstance(each, TensorOp) and each.sym_name.data in said_lives:
            each.life = LifeAttr(said_lives[each.sym_name.data])
        elif isinstance(each, KernelOp) and each.sym_name.data in said_dealt:
            each.dealt = DealtAttr(said_dealt[each.sym_name.data])
    Rewriter.replace_op(op, new)


def annotations_of(op: ProgramOp) -> tuple[dict[str, NamedLife], dict[str, Dealt]]:
    """What the ops say beside the program: the lives of tensors, and how items are dealt, by name."""
    tensors = [each for each in op.body.block.ops if isinstance(each, TensorOp)]
    kernels = [each for each in op.body.block.ops if isinstance(each, KernelOp)]
    lives = {each.sym_name.data: each.life.data for each in tensors if each.life is not None}
    return lives, {each.sym_name.data: each.dealt.data for each in kernels if each.dealt is not None}


def _int_attr(value: int) -> IntegerAttr[Any]:
    return IntegerAttr(value, i64)


def _figure_attr(value: object) -> Attribute:
    if isinstance(value, Mapping):
        table = cast(Mapping[str, object], value)
        return DictionaryAttr({name: _figure_attr(each) for name, each in table.items()})
    if isinstance(value, int):
        return _int_attr(value)
    if isinstance(value, str):
        return StringAttr(value)
    return FloatAttr(cast(float, value), f64)


def _tensor_op(tensor: Tensor) -> TensorOp:
    properties: dict[str, Attribute] = {
        "sym_name": StringAttr(tensor.name),
        "dtype": StringAttr(tensor.dtype),
        "shape": SizesAttr(tensor.shape),
        "space": StringAttr(tensor.space),
    }
    if tensor.address != UNPLACED:
        properties |= {"address": _int_attr(tensor.address), "capacity_bytes": _int_attr(tensor.capacity_bytes)}
    properties["role"] = StringAttr(tensor.role)
    if tensor.offset >= 0:
        properties["offset"] = _int_attr(tensor.offset)
    if tensor.block:
        properties["block"] = _int_attr(tensor.block)
    if tensor.first:
        properties["first"] = _int_attr(tensor.first)
    if tensor.chiplet != EVERYWHERE:
        properties["chiplet"] = _int_attr(tensor.chiplet)
    if tensor.width:
        properties["width"] = _int_attr(tensor.width)
    if tensor.copies != 1:
        properties["copies"] = _int_attr(tensor.copies)
    if tensor.together:
        properties["together"] = _int_attr(tensor.together)
    if tensor.growth is not None:
        properties["growth"] = GrowthAttr(tensor.growth)
    return TensorOp.create(properties=properties)


def _kernel_op(kernel: Kernel) -> KernelOp:
    block = Block()
    tiles: dict[str, SSAValue] = {}
    for tile in kernel.tiles:
        op = TileOp.create(
            properties={
                "tile_name": StringAttr(tile.name),
                "dtype": StringAttr(tile.dtype),
                "shape": DenseArrayBase.from_list(i64, tile.shape),
                **({"address": _int_attr(tile.address)} if tile.address != UNPLACED else {}),
                "depth": _int_attr(tile.depth),
            },
            result_types=[TileType()],
        )
        op.result.name_hint = tile.name
        tiles[tile.name] = op.result
        block.add_op(op)
    block.add_ops([_statement_op(statement, tiles) for statement in kernel.body])
    return KernelOp.create(
        properties={
            "sym_name": StringAttr(kernel.name),
            "grid": ArrayAttr([RangeAttr(each) for each in kernel.grid]),
            "sources": ArrayAttr([StringAttr(each) for each in kernel.sources]),
            **({"first": _int_attr(kernel.first)} if kernel.first else {}),
            **({"chiplet": _int_attr(kernel.chiplet)} if kernel.chiplet != EVERYWHERE else {}),
        },
        regions=[Region(block)],
    )


def _statement_op(statement: Statement, tiles: Mapping[str, SSAValue]) -> Operation:
    match statement:
        case Loop(range=over, body=body):
            ops = [_statement_op(each, tiles) for each in body]
            return LoopOp.create(properties={"range": RangeAttr(over)}, regions=[Region(Block(ops))])
        case Load(tile=tile):
            return LoadOp.create(operands=[tiles[tile]], properties=_transfer(statement))
        case Gather(tile=tile, indices=indices, axis=axis):
            properties = {**_transfer(statement), "axis": _int_attr(axis)}
            return GatherOp.create(operands=[tiles[tile], tiles[indices]], properties=properties)
        case Store(tile=tile, adds=adds):
            kind = AddOp if adds else StoreOp
            return kind.create(operands=[tiles[tile]], properties=_transfer(statement))
        case Scatter(tile=tile, indices=indices, axis=axis, function=function):
            properties = {**_transfer(statement), "axis": _int_attr(axis)}
            if function:
                properties["function"] = StringAttr(function)
            return ScatterOp.create(operands=[tiles[tile], tiles[indices]], properties=properties)
        case Fill(tile=tile, sizes=sizes, value=value):
            properties = {"sizes": SizesAttr(sizes), "value": ValueAttr(value)}
            return FillOp.create(operands=[tiles[tile]], properties=properties)
        case Iota(tile=tile, sizes=sizes, axis=axis, start=start, step=step):
            first = start.as_int() if start.is_constant else start
            properties = {"sizes": SizesAttr(sizes), "axis": _int_attr(axis)}
            properties |= {"start": ValueAttr(first), "step": _int_attr(step)}
            return IotaOp.create(operands=[tiles[tile]], properties=properties)
        case Matmul(accumulator=accumulator, lhs=lhs, rhs=rhs, stationary=stationary, begins=begins):
            operands = [tiles[accumulator], tiles[lhs], tiles[rhs]]
            held: dict[str, Attribute] = {"stationary": StringAttr(stationary)}
            if begins:
                held["begins"] = StringAttr(begins)
            return MatmulOp.create(operands=operands, properties=held)
        case Map():
            return _map_op(statement, tiles)
        case Reduce(function=function, tile=tile, source=source, axes=axes):
            properties = {"function": StringAttr(function), "axes": DenseArrayBase.from_list(i64, axes)}
            return ReduceOp.create(operands=[tiles[tile], tiles[source]], properties=properties)


def _transfer(transfer: Transfer) -> dict[str, Attribute]:
    properties: dict[str, Attribute] = {"access": AccessAttr(transfer.access)}
    if transfer.after:
        properties["after"] = ArrayAttr([StringAttr(each) for each in transfer.after])
    return properties


def _map_op(statement: Map, tiles: Mapping[str, SSAValue]) -> MapOp:
    properties: dict[str, Attribute] = {
        "function": StringAttr(statement.function),
        "arguments": OperandsAttr(_placeholders(statement.operands)),
    }
    if statement.parameters:
        properties["parameters"] = ArrayAttr([ValueAttr(value) for value in statement.parameters])
    sources = [tiles[each] for each in statement.operands if isinstance(each, str)]
    return MapOp.create(operands=[tiles[statement.tile], *sources], properties=properties)


def _placeholders(operands: Sequence[Operand]) -> tuple[Operand, ...]:
    return tuple("tile" if isinstance(each, str) else each for each in operands)
