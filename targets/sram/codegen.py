"""From a segment to a program: lowering, the choice of how many chiplets, addresses, and the checks of the runtime."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from xdsl.ir import SSAValue

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp
from gimlet.passes.sram_home_weights import Homes
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.binding import bind
from gimlet.runtime.sram.cycles import Timing, time_program
from gimlet.runtime.sram.dealing import Dealing
from gimlet.runtime.sram.formats import stored_bytes
from gimlet.runtime.sram.machine import Machine
from gimlet.runtime.sram.program import REGISTER_PREFIX, UNPLACED, Binding, Dim, Fill, Map, Program
from gimlet.runtime.sram.verify import verify
from gimlet.targets.api import DimBound
from gimlet.targets.sram.builder import Bounds, ProgramBuilder, RefusedError
from gimlet.targets.sram.constants import Array, Constant
from gimlet.targets.sram.expression import emit_elementwise
from gimlet.targets.sram.layout import rows_by_columns
from gimlet.targets.sram.levels import completed
from gimlet.targets.sram.lowering import Lowering, element_type, shape_of
from gimlet.targets.sram.precision import MATRIX_TYPES, MX_ERROR_BUDGET, resident_bytes
from gimlet.targets.sram.rules import RULES
from gimlet.targets.sram.states import State, layout_of, states_of
from gimlet.targets.sram.turns import on_chiplets
from gimlet.targets.sram.views import View

RESIDENT_SHARES = (15 / 16, 3 / 4, 1 / 2, 1 / 4, 0)
"""The parts of a core's SRAM that resident weights may take, tried until all activations fit beside them."""
_MORE_CHIPLETS = (0, 1)
"""On how many more chiplets in turn than could hold all weights: not all cores of one have as many blocks."""
_MUCH = 3 / 4
"""The part of a chiplet's SRAM from which on weights may be too many for one."""
_PAGE_ROWS = 4
"""Rows of the array in a page of shared SRAM."""


@dataclass(frozen=True)
class Work:
    """What to generate code for: values that are given, values that are wanted, and their names at the edge.

    `keeps_views` leaves results that are views of other tensors where they are: then there is no output to bind.
    `mx_budget` is the relative error that MXINT8 may add (precision.py). Inputs and outputs called `in_lpddr` are in
    LPDDR, even if SRAM has room for them.
    """

    name: str
    inputs: Sequence[tuple[str, SSAValue]]
    outputs: Sequence[tuple[str, SSAValue]]
    ctx: GimletContext | None
    bounds: Mapping[str, DimBound]
    keeps_views: bool = False
    mx_budget: float = MX_ERROR_BUDGET
    in_lpddr: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Generated:
    """A program, how to read the values of each of its weights, and its time with dimensions at their optimum.

    `flops` are the operations of matrix products by element type of their operands. `in_parts` says that there are
    products in parts (stages.py), `by_columns` that tensors of more than a few rows are dealt by columns (layout.py).
    `demand` are the bytes of weights that may be resident, one copy of each. `ops_of` are the ops that each kernel
    computes, by its name.
    """

    program: Program
    readers: Mapping[str, Callable[[], Array]]
    timing: Timing
    flops: Mapping[str, float]
    in_parts: bool = False
    by_columns: bool = False
    demand: int = 0
    ops_of: Mapping[str, Sequence[OnnxOp]] = field(default_factory=dict[str, Sequence[OnnxOp]])


def generate(work: Work, machine: Machine, fmt: str) -> Generated:
    """The fastest of the programs for a chiplet, a card and all cards, and for the chiplets of a card in turn.

    RefusedError where there is none.
    """
    found: Generated | None = None
    refusal: RefusedError | None = None
    for cores in sorted({machine.cores_per_chiplet, machine.cores_per_card, machine.cores}):
        try:
            candidate = generate_on(work, machine, fmt, cores)
        except RefusedError as error:
            refusal = error
            continue
        if found is None or candidate.timing.cycles < found.timing.cycles:
            found = candidate
    if found is None:
        raise refusal or RefusedError("the machine has no cores")
    if not _may_take_turns(found, machine):
        return found
    for more in _MORE_CHIPLETS:
        try:
            candidate = generate_on(work, machine, fmt, machine.cores_per_card, more)
        except RefusedError:
            continue
        found = min(found, candidate, key=lambda each: each.timing.cycles)
    return found


def first_program(work: Work, machine: Machine, fmt: str) -> Program:
    """The first program of those that `generate` compares: where all that is asked is whether there is one.

    RefusedError where there is none.
    """
    refusal: RefusedError | None = None
    for cores in sorted({machine.cores_per_chiplet, machine.cores_per_card, machine.cores}):
        for share in RESIDENT_SHARES:
            try:
                unplaced, _ = kernels_for(work, machine, fmt, cores, int(machine.sram_bytes_per_core * share))
                program = completed(unplaced)
                verify(program)
            except RefusedError as error:
                refusal = error
                continue
            return program
    raise refusal or RefusedError("the machine has no cores")


def _may_take_turns(found: Generated, machine: Machine) -> bool:
    """Whether chiplets of a card in turn may be quicker: one has no room for all weights, but reads them in less time.

    All chiplets together have several times the bandwidth, so that only short kernels are quicker on one.
    """
    cores, program = machine.cores_per_chiplet, found.program
    if machine.chiplets == machine.cards or found.demand < _MUCH * cores * machine.sram_bytes_per_core:
        return False
    streamed = any(tensor.role == "weight" and tensor.space == "lpddr" for tensor in program.tensors)
    reading = found.demand / (cores * machine.sram_bytes_per_cycle)
    return (streamed or program.cores > cores) and reading < found.timing.cycles


def generate_on(work: Work, machine: Machine, fmt: str, cores: int, turns: int | None = None) -> Generated:
    """The program for the first `cores` cores, the fastest of those tried, chiplets in turn with `turns`.

    RefusedError where there is none.
    """
    found: Generated | None = None
    refusal: RefusedError | None = None
    # What is left is for tiles and activations; where that is too little, fewer weights are resident, or none.
    for share in RESIDENT_SHARES:
        try:
            room = int(machine.sram_bytes_per_core * share)
            candidate = _best_of_variants(work, machine, fmt, cores, room, turns=turns)
        except RefusedError as error:
            refusal = error
            continue
        if found is None or candidate.timing.cycles < found.timing.cycles:
            found = candidate
        if not _spills(candidate.program, work.in_lpddr):
            break
    if found is None:
        raise refusal or RefusedError("the machine has no cores")
    return found


def _best_of_variants(
    work: Work, machine: Machine, fmt: str, cores: int, room: int, turns: int | None = None
) -> Generated:
    """The program with products in parts, and with columns dealt, where that is quicker."""
    found = generate_for(work, machine, fmt, cores, room, turns=turns)
    others: list[Generated] = []
    if found.in_parts:
        others.append(generate_for(work, machine, fmt, cores, room, parts=False, turns=turns))
    if found.by_columns:
        others.append(generate_for(work, machine, fmt, cores, room, columns=False))
    return min([*others, found], key=lambda each: each.timing.cycles)


def _spills(program: Program, meant: frozenset[str]) -> bool:
    """Whether SRAM has no room for all activations, but for what is `meant` to be in LPDDR."""
    there = {each.tensor for each in (*program.inputs, *program.outputs) if each.name in meant}
    return any(
        tensor.space == "lpddr" and tensor.role != "weight" and tensor.name not in there for tensor in program.tensors
    )


def generate_for(
    work: Work,
    machine: Machine,
    fmt: str,
    cores: int,
    room: int = 0,
    parts: bool = True,
    columns: bool = True,
    turns: int | None = None,
) -> Generated:
    """The program for the first `cores` cores of the machine, with at most `room` bytes of weights resident in each.

    Products are computed in parts (stages.py) only if `parts`, and columns of many rows dealt (layout.py) only if
    `columns`. With `turns` chiplets have ops in turn (turns.py), without each has a part of every kernel.
    """
    unplaced, lowering = kernels_for(work, machine, fmt, cores, room, parts, columns and turns is None, turns)
    program = completed(unplaced)
    verify(program)
    timing = time_program(bind(program, {dim.name: dim.optimum for dim in program.dims}))
    return Generated(
        program,
        lowering.weights.readers,
        timing,
        lowering.product_flops,
        in_parts=bool(lowering.halves),
        by_columns=bool(lowering.builder.by_columns),
        demand=resident_bytes(lowering.product_types),
        ops_of=lowering.builder.ops_of,
    )


def kernels_for(
    work: Work,
    machine: Machine,
    fmt: str,
    cores: int,
    room: int = 0,
    parts: bool = True,
    columns: bool = True,
    turns: int | None = None,
) -> tuple[Program, Lowering]:
    """The kernels of `generate_for`, without addresses, and what was found out about the ops on the way."""
    bounds = Bounds(
        {name: bound.optimum for name, bound in work.bounds.items()},
        {name: bound.maximum for name, bound in work.bounds.items()},
        {name: bound.minimum for name, bound in work.bounds.items()},
    )
    dealing = Dealing(cores, cores // machine.cores_per_chiplet)
    by_columns = frozenset[int]()
    if columns:
        results, given = ([value for _, value in side] for side in (work.outputs, work.inputs))
        by_columns = rows_by_columns(results, given, machine, dealing, bounds, fmt, room)
    homes = Homes(dealing.group, room, dealing.parts)
    builder = ProgramBuilder(machine, bounds, dealing, homes, by_columns)
    lowering = Lowering(builder, fmt, work.ctx, RULES, work.mx_budget, parts, turns)
    states = states_of((value for _, value in work.outputs), (value for _, value in work.inputs))
    inputs = _inputs(work, lowering, {state.before: (op, state) for op, state in states.items()})
    _move_to_lpddr(builder, inputs, work.in_lpddr)
    stored = _in_place(lowering, states)

    def leaves(value: SSAValue) -> None:
        if value not in stored and not (work.keeps_views and isinstance(lowering.get(value), View | Constant)):
            stored[value] = _output(lowering, value)

    lowering.run([value for _, value in work.outputs], [value for _, value in work.inputs], leaves)
    for _, value in work.outputs:
        leaves(value)
    outputs = [Binding(name, stored[value]) for name, value in work.outputs if value in stored]
    _move_to_lpddr(builder, outputs, work.in_lpddr)
    program = _program(work, builder, fmt, inputs, outputs)
    return on_chiplets(program) if turns is not None else program, lowering


def _inputs(work: Work, lowering: Lowering, changed: Mapping[SSAValue, tuple[OnnxOp, State]]) -> list[Binding]:
    """Declares the tensors of inputs; those that are `changed` by an op are states."""
    inputs: list[Binding] = []
    for name, value in work.inputs:
        try:
            dtype, shape = element_type(value), _declared(shape_of(value), work.bounds)
        except RefusedError:
            # Fatal only if code reads it: an input that only says a shape may be of any kind.
            continue
        role = "state" if value in changed else "input"
        layout = layout_of(*changed[value], lowering.bounds) if value in changed else None
        room = shape if layout is None else layout[0]
        tensor = lowering.builder.tensor(dtype, room, role, f"in{len(inputs)}")
        lowering.values[value] = View.whole(tensor, dtype, room)
        if layout is not None:
            growth = layout[1]
            lowering.builder.tensors[tensor] = replace(lowering.builder.tensors[tensor], growth=growth)
            lowering.values[value] = View.whole(tensor, dtype, room).slice(growth.dim, 0, growth.before)
        inputs.append(Binding(name, tensor))
    return inputs


def _move_to_lpddr(builder: ProgramBuilder, bindings: Iterable[Binding], names: Container[str]) -> None:
    for binding in bindings:
        if binding.name in names:
            builder.tensors[binding.tensor] = replace(builder.tensors[binding.tensor], space="lpddr")


def _in_place(lowering: Lowering, states: Mapping[OnnxOp, State]) -> dict[SSAValue, str]:
    """The tensors that the next values of `states` share with the values before; tells `lowering` which ops do so."""
    stored: dict[SSAValue, str] = {}
    for op, state in states.items():
        view = lowering.values.get(state.before)
        if isinstance(view, View):
            stored[state.after] = view.tensor
            lowering.in_place.add(op)
    return stored


def _declared(shape: Sequence[Expr], bounds: Mapping[str, DimBound]) -> tuple[Expr, ...]:
    for dim in shape:
        for symbol in sorted(dim.symbols):
            if symbol not in bounds:
                raise RefusedError(f"dimension {symbol} has no bounds")
            if symbol.startswith(REGISTER_PREFIX):
                raise RefusedError(f"dimension {symbol} has the name of one of the machine's registers")
    return tuple(shape)


def _output(lowering: Lowering, value: SSAValue) -> str:
    """The tensor of a result: the one that it is in, if it has that for itself, or a new one."""
    builder = lowering.builder
    dtype, shape = element_type(value), shape_of(value)
    found = lowering.get(value)
    if isinstance(found, View) and found.is_whole and found.dtype == dtype:
        tensor = builder.tensors[found.tensor]
        if tensor.role == "temporary":
            builder.tensors[found.tensor] = replace(tensor, role="output", shape=shape)
            return found.tensor
    tensor_name = builder.tensor(dtype, shape, "output")
    target = View.whole(tensor_name, dtype, shape)
    if isinstance(found, Constant):
        found = lowering.weights.view(found, found.dtype)
    if isinstance(found, View):
        emit_elementwise(builder, found.expand(shape), target, "copy")
    else:
        lowering.emit(found, target)
    return tensor_name


def _program(
    work: Work, builder: ProgramBuilder, fmt: str, inputs: Sequence[Binding], outputs: Sequence[Binding]
) -> Program:
    """What was generated, without addresses."""
    machine = builder.machine
    # Small pages, so that a vector is on more than one core.
    page = stored_bytes(MATRIX_TYPES[fmt], (_PAGE_ROWS, machine.matrix_rows))
    symbols = _symbols(builder)
    for symbol in sorted(symbols - work.bounds.keys()):
        raise RefusedError(f"dimension {symbol} has no bounds")
    return Program(
        name=work.name,
        machine=machine,
        format=fmt,
        cores=builder.whole.cores,
        page_bytes=page,
        local_bytes=UNPLACED,
        dims=tuple(
            Dim(name, bound.minimum, bound.optimum, bound.maximum)
            for name, bound in sorted(work.bounds.items())
            if name in symbols
        ),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        tensors=tuple(builder.tensors.values()),
        kernels=tuple(builder.kernels),
        parts=builder.whole.parts,
    )


def _symbols(builder: ProgramBuilder) -> set[str]:
    """The dimensions that the program depends on."""
    found: set[str] = set()
    for tensor in builder.tensors.values():
        for dim in tensor.shape:
            found |= dim.symbols
        if tensor.growth is not None:
            found |= tensor.growth.before.symbols | tensor.growth.after.symbols
    for kernel in builder.kernels:
        for each in kernel.grid:
            found |= each.extent.symbols
        for statement in kernel.statements():
            if isinstance(statement, Fill) and isinstance(statement.value, Expr):
                found |= statement.value.symbols
            elif isinstance(statement, Map):
                for operand in statement.operands:
                    found |= operand.symbols if isinstance(operand, Expr) else set()
    return {name for name in found if not name.startswith(REGISTER_PREFIX)}
