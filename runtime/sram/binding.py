"""A program at one set of sizes: every expression over the symbolic dimensions becomes an integer.

What remains are the registers. A position is `base + Σ moves[range] · index` with one integer per dimension, and a size
is an integer or an expression over `r.*.size`. Both the emulator and the cycle model work on this form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.formats import stored_bytes
from gimlet.runtime.sram.program import (
    REGISTER_PREFIX,
    Access,
    Fill,
    Gather,
    Instruction,
    Iota,
    Kernel,
    Load,
    Loop,
    Map,
    Operand,
    Program,
    Range,
    Scatter,
    Statement,
    Store,
    Tensor,
    Tile,
)

Size = int | Expr
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class BoundRange:
    """A range whose extent depends at most on the sizes of ranges around it."""

    name: str
    extent: Size
    step: int

    def steps(self, sizes: Mapping[str, int]) -> tuple[int, int]:
        """How many steps are full, and the size of one more at the end (0 if there is none)."""
        return divmod(max(0, evaluate(self.extent, sizes)), self.step)


@dataclass(frozen=True)
class BoundAxis:
    dim: int
    step: int
    size: Size


@dataclass(frozen=True)
class BoundAccess:
    """An access in integers: `moves` says how far one step of a range moves the position in each dimension."""

    tensor: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    base: tuple[int, ...]
    moves: Mapping[str, tuple[int, ...]]
    axes: tuple[tuple[BoundAxis, ...], ...]
    fill: float | None


@dataclass(frozen=True)
class Step:
    """An instruction with what was bound of it: `index` is its number within the kernel."""

    index: int
    instruction: Instruction
    access: BoundAccess | None = None
    sizes: tuple[Size, ...] = ()
    operands: tuple[str | int | float, ...] = ()
    base: int = 0
    moves: Mapping[str, int] | None = None


@dataclass(frozen=True)
class BoundLoop:
    range: BoundRange
    body: tuple[BoundStatement, ...]


BoundStatement = Step | BoundLoop


@dataclass(frozen=True)
class BoundKernel:
    """A kernel in integers. `counts` bounds the steps of every range from above, those of loops included."""

    kernel: Kernel
    grid: tuple[BoundRange, ...]
    tiles: Mapping[str, Tile]
    body: tuple[BoundStatement, ...]
    counts: Mapping[str, int]
    largest: Mapping[str, int]
    """For each register `r.*.size` the largest value that it takes."""

    @property
    def items(self) -> int:
        """How many independent items the grid has."""
        total = 1
        for each in self.grid:
            total *= self.counts[each.name]
        return total


@dataclass(frozen=True)
class BoundProgram:
    """A program at one set of sizes."""

    program: Program
    sizes: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    kernels: tuple[BoundKernel, ...]
    given: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    left: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    """The shape of what is there of each state that grows, before a run and after it."""


def evaluate(size: Size, registers: Mapping[str, int]) -> int:
    """The value of a size, given the registers `r.*.size`."""
    return size if isinstance(size, int) else size.evaluate(registers)


def affine(expr: Expr, ranges: Mapping[str, Range]) -> tuple[Expr, dict[str, Expr]]:
    """Splits a position into what is fixed and what one step of each range adds, both over symbolic dimensions.

    InputError if it is not affine in the registers `r.X` and `r.X.index`, or uses one that is not in `ranges`.
    """
    fixed = Expr.const(0)
    moves: dict[str, Expr] = {}
    for monomial, coefficient in expr.terms:
        factor = Expr.const(coefficient)
        register = ""
        for atom, power in monomial:
            symbols = frozenset({atom}) if isinstance(atom, str) else atom.left.symbols | atom.right.symbols
            if not any(symbol.startswith(REGISTER_PREFIX) for symbol in symbols):
                factor = factor * Expr({((atom, power),): 1})
            elif not isinstance(atom, str) or power != 1 or register:
                raise InputError(f"position {expr} is not affine in the registers")
            else:
                register = atom
        if not register:
            fixed = fixed + factor
            continue
        name = register[len(REGISTER_PREFIX) :].removesuffix(".index")
        if name not in ranges:
            raise InputError(f"position {expr} uses {register}, which no range around it defines")
        step = 1 if register.endswith(".index") else ranges[name].step
        moves[name] = moves.get(name, Expr.const(0)) + factor * step
    return fixed, moves


def bind(program: Program, sizes: Mapping[str, int]) -> BoundProgram:
    """The program at `sizes`. InputError for a dimension that is missing or out of the program's bounds."""
    for dim in program.dims:
        size = sizes.get(dim.name)
        if size is None:
            raise InputError(f"dimension {dim.name!r} has no size", where=program.name)
        if not dim.minimum <= size <= dim.maximum:
            raise InputError(
                f"dimension {dim.name!r} is {size}, this program was compiled for {dim.minimum} to {dim.maximum}",
                where=program.name,
                hint=f"compile with --bind {dim.name}=MIN:OPT:MAX that includes it",
            )
    known = {dim.name: sizes[dim.name] for dim in program.dims}
    shapes = {tensor.name: _tensor_shape(tensor, known, program) for tensor in program.tensors}
    given, left = _filled(program, known)
    binder = _Binder(known)
    kernels = tuple(binder.kernel(kernel) for kernel in program.kernels)
    return BoundProgram(program, known, shapes, kernels, given, left)


def _filled(program: Program, sizes: Mapping[str, int]) -> tuple[Shapes, Shapes]:
    """What is there of states that grow, before a run and after it. InputError for more than there is room for."""
    given: Shapes = {}
    left: Shapes = {}
    for tensor in program.tensors:
        growth = tensor.growth
        if growth is None:
            continue
        for found, size in ((given, growth.before), (left, growth.after)):
            shape = growth.filled(tensor.shape, size)
            found[tensor.name] = tuple(dim.evaluate(sizes) for dim in shape)
        before, after = (found[tensor.name][growth.dim] for found in (given, left))
        room = tensor.shape[growth.dim].evaluate(sizes)
        if not 0 <= before <= after <= room:
            raise InputError(
                f"state {tensor.name} would grow from {before} to {after} in dimension {growth.dim}, "
                f"and has room for {room}",
                where=program.name,
            )
    return given, left


def _tensor_shape(tensor: Tensor, sizes: Mapping[str, int], program: Program) -> tuple[int, ...]:
    shape = tuple(dim.evaluate(sizes) for dim in tensor.shape)
    if min(shape, default=0) < 0:
        raise InputError(f"tensor {tensor.name} has shape {list(shape)} at these sizes", where=program.name)
    size = stored_bytes(tensor.dtype, shape)
    if size > tensor.capacity_bytes:
        raise InputError(
            f"tensor {tensor.name} takes {size} bytes at these sizes, {tensor.capacity_bytes} are allocated",
            where=program.name,
        )
    return shape


class _Binder:
    """Binds kernels at one set of sizes, and remembers what it has evaluated."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self.constants = {name: Expr.const(size) for name, size in sizes.items()}
        self.bound: dict[Expr, Size] = {}
        self.ranges: dict[str, Range] = {}
        self.counts: dict[str, int] = {}
        self.largest: dict[str, int] = {}
        self.instructions = 0

    def size(self, expr: Expr) -> Size:
        if expr not in self.bound:
            value = expr.substitute(self.constants)
            self.bound[expr] = value.as_int() if value.is_constant else value
        return self.bound[expr]

    def kernel(self, kernel: Kernel) -> BoundKernel:
        self.ranges, self.counts, self.largest, self.instructions = {}, {}, {}, 0
        grid = tuple(self.enter(each) for each in kernel.grid)
        body = tuple(self.statement(statement) for statement in kernel.body)
        return BoundKernel(kernel, grid, {tile.name: tile for tile in kernel.tiles}, body, self.counts, self.largest)

    def enter(self, each: Range) -> BoundRange:
        bound = BoundRange(each.name, self.size(each.extent), each.step)
        full, tail = bound.steps(self.largest)
        self.ranges[each.name] = each
        self.counts[each.name] = full + (tail > 0)
        self.largest[f"{REGISTER_PREFIX}{each.name}.size"] = each.step if full else tail
        return bound

    def statement(self, statement: Statement) -> BoundStatement:
        if isinstance(statement, Loop):
            over = self.enter(statement.range)
            return BoundLoop(over, tuple(self.statement(each) for each in statement.body))
        index = self.instructions
        self.instructions += 1
        match statement:
            case Load() | Gather() | Store() | Scatter():
                return Step(index, statement, access=self.access(statement.access))
            case Fill(sizes=sizes, value=value):
                return Step(index, statement, sizes=tuple(map(self.size, sizes)), operands=(self.operand(value),))
            case Iota(sizes=sizes, start=start):
                base, moves = self.position(start)
                return Step(index, statement, sizes=tuple(map(self.size, sizes)), base=base, moves=moves)
            case Map(operands=operands):
                return Step(index, statement, operands=tuple(map(self.operand, operands)))
            case _:
                return Step(index, statement)

    def operand(self, operand: Operand) -> str | int | float:
        return operand.evaluate(self.sizes) if isinstance(operand, Expr) else operand

    def position(self, expr: Expr) -> tuple[int, dict[str, int]]:
        fixed, moves = affine(expr, self.ranges)
        return fixed.evaluate(self.sizes), {name: move.evaluate(self.sizes) for name, move in moves.items()}

    def access(self, access: Access) -> BoundAccess:
        shape = tuple(dim.evaluate(self.sizes) for dim in access.shape)
        strides = [1] * len(shape)
        for dim in range(len(shape) - 2, -1, -1):
            strides[dim] = strides[dim + 1] * shape[dim + 1]
        moves: dict[str, list[int]] = {}
        base: list[int] = []
        for dim, start in enumerate(access.start):
            fixed, steps = self.position(start)
            base.append(fixed)
            for name, step in steps.items():
                moves.setdefault(name, [0] * len(shape))[dim] = step
        return BoundAccess(
            tensor=access.tensor,
            shape=shape,
            strides=tuple(strides),
            base=tuple(base),
            moves={name: tuple(steps) for name, steps in moves.items() if any(steps)},
            axes=tuple(
                tuple(BoundAxis(axis.dim, axis.step, self.size(axis.size)) for axis in group) for group in access.axes
            ),
            fill=access.fill,
        )
