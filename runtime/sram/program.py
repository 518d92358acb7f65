"""What a program of the SRAM machine is. docs/sram.md has the machine, the semantics and the timing on one page.

A program is a list of *kernels*, which every core runs one after the other. A kernel is the instruction stream that
all cores run (one program, many data): its grid is a set of independent *items*, which are dealt to the cores
(dealing.py), of one chiplet or of all, and a core takes its items in order. Cores do not wait for each other between
kernels: a transfer names the kernels that it comes `after`, and starts when their semaphores have counted all their
items.

What differs between items, and between the iterations of the loops inside one, are *registers*: a range
`m = 0 to seq step 64` defines `r.m` (the position: 0, 64, …), `r.m.size` (64, or what is left at the end) and
`r.m.index` (0, 1, …). Positions in memory are affine in registers, sizes come from `r.*.size`, and both may use the
segment's symbolic dimensions, so that one program serves every shape within its bounds.

Memory: *tensors* live in the SRAM of all cores together (a part on each chiplet, dealt in pages), in LPDDR, or in
blocks on the cores that use them, at static addresses. *Tiles* live in the private part of a core's SRAM, at static
addresses too, `depth` copies each so that one is filled while another is used. Loads and stores move tiles between the
two; matrix and vector instructions see tiles only. A tile of depth 0 is a *window*: it has no memory, a load of it
moves nothing, and the units read the elements of a block where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.dealing import Array, Dealing
from gimlet.runtime.sram.machine import Machine

SCHEMA = 6
REGISTER_PREFIX = "r."
UNPLACED = -1
"""The address of what code generation has not placed yet. No program with one runs."""
EVERYWHERE = -1
"""The chiplet of what is dealt to all chiplets."""

Space = Literal["sram", "lpddr", "core"]
Role = Literal["input", "output", "weight", "temporary", "state"]
ROLES: tuple[Role, ...] = get_args(Role)
Held = Literal["lhs", "rhs", "accumulator", "nothing"]
"""The operand of a matrix product that the array holds; `nothing` if the vector unit multiplies."""
HELD: tuple[Held, ...] = get_args(Held)
Operand = str | int | float | Expr
"""What a vector instruction reads: a tile by name, a number, or an expression over the symbolic dimensions."""


@dataclass(frozen=True)
class Dim:
    """A symbolic dimension and the range that the program was compiled for, placed and timed at the optimum."""

    name: str
    minimum: int
    optimum: int
    maximum: int


@dataclass(frozen=True)
class Growth:
    """How much of a state is there: the first `before` positions along dimension `dim`, after a run the first `after`.

    A run stores what is new between the two, and leaves what was there.
    """

    dim: int
    before: Expr
    after: Expr

    def filled(self, shape: tuple[Expr, ...], size: Expr) -> tuple[Expr, ...]:
        """The state's shape with `size` positions filled."""
        return (*shape[: self.dim], size, *shape[self.dim + 1 :])


@dataclass(frozen=True)
class Tensor:
    """A tensor in shared SRAM or LPDDR, row-major, at byte `address` of its space. Until it has one, `sram` is a wish.

    `capacity_bytes` is what its memory is allocated for: its size with every dimension at its maximum. The bytes of a
    weight begin at `offset` of the program's weights file. A weight in space `core` lies in blocks of `block` elements,
    dealt from core `first` of each group on, the blocks of a core one after the other from byte `address` of its
    private part. There are `copies` of the blocks, dealt one copy of all after the other, or of `together` blocks each
    time. A `state` is an input and an output: what a run leaves in it is what the next one finds. One with a `growth`
    has the shape of its capacity, of which input and output are a part.

    Shared SRAM has a run of a tensor on each chiplet: of whole rows where there are more of those than chiplets, else
    of elements; with a `width` of its columns, of which a row has so many: that suits few rows of many columns. A
    tensor on one `chiplet` is whole there, or all its blocks are; its address is counted as others' are, that of a byte
    being as many times as far as there are chiplets (`reach_bytes`).
    """

    name: str
    dtype: str
    shape: tuple[Expr, ...]
    space: Space
    address: int
    capacity_bytes: int
    role: Role = "temporary"
    offset: int = -1
    block: int = 0
    first: int = 0
    copies: int = 1
    width: int = 0
    chiplet: int = EVERYWHERE
    together: int = 0
    growth: Growth | None = None

    def unit(self, elements: int, parts: int) -> int:
        """What stays together of so many elements that are dealt to `parts` groups: a row, or one element."""
        row = self.shape[-1].as_int() if self.shape and self.shape[-1].is_constant else 1
        return row if row and elements // row > parts else 1

    def places_of(self, block: Array | int, blocks: int, copy: int) -> Array | int:
        """Where a copy of each of `blocks` blocks is among all copies, in the order in which they are dealt."""
        together = self.together or blocks
        return (block // together * self.copies + copy) * together + block % together

    def reach_bytes(self, parts: int) -> int:
        """How many addresses of its space the tensor takes: those of all `parts` chiplets, if it is on one."""
        return self.capacity_bytes * (parts if self.space == "sram" and self.chiplet != EVERYWHERE else 1)

    def meets(self, other: Tensor) -> bool:
        """Whether both have a part on one chiplet."""
        return EVERYWHERE in (self.chiplet, other.chiplet) or self.chiplet == other.chiplet


@dataclass(frozen=True)
class Range:
    """`name` = 0 to `extent` in steps of `step`; see the module's docstring for the registers it defines."""

    name: str
    extent: Expr
    step: int

    @property
    def start(self) -> Expr:
        return Expr.symbol(f"{REGISTER_PREFIX}{self.name}")

    @property
    def size(self) -> Expr:
        return Expr.symbol(f"{REGISTER_PREFIX}{self.name}.size")

    @property
    def index(self) -> Expr:
        return Expr.symbol(f"{REGISTER_PREFIX}{self.name}.index")


@dataclass(frozen=True)
class Axis:
    """A counter of a DMA transfer: `size` positions, `step` apart along dimension `dim`; −1 repeats one position."""

    dim: int
    step: int
    size: Expr


@dataclass(frozen=True)
class Access:
    """The elements of a tensor that a DMA transfer visits, and how they are laid out in the tile.

    The tensor is seen row-major with `shape` (as many elements as it has). An element's position along dimension d is
    `start[d]` plus step times counter for every axis of that dimension. `axes` has one entry per dimension of the
    tile: its counters, the last one fastest. Positions outside the tensor are a fault, unless `fill` gives the value
    that they read as (padding); nothing may be stored there.
    """

    tensor: str
    shape: tuple[Expr, ...]
    start: tuple[Expr, ...]
    axes: tuple[tuple[Axis, ...], ...]
    fill: float | None = None


@dataclass(frozen=True)
class Tile:
    """A buffer in each core's private SRAM: at most `shape` elements, `depth` copies from byte `address`.

    A depth of 0 makes it a window on the core's own blocks of a tensor.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    depth: int = 1
    address: int = 0


@dataclass(frozen=True)
class Load:
    """DMA from a tensor into a tile of the same element type. Cores that load the same elements share one read.

    It waits, where the elements are, until the kernels in `after` are done.
    """

    tile: str
    access: Access
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gather:
    """A load whose positions along dimension `axis` of the tile are multiplied out from a tile of indices.

    That dimension must have one counter; it visits `start + step * indices[i]` instead of `start + step * i`.
    """

    tile: str
    access: Access
    indices: str
    axis: int
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Store:
    """DMA from a tile into a tensor of the same element type. No element may be written twice in one kernel.

    With `adds` the tile (f32) is added to what is there, in the order of the items, the first of which finds zero: then
    several may add to one element. That is how items that share a sum put their parts together.
    """

    access: Access
    tile: str
    adds: bool = False
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scatter:
    """A DMA from a tile whose positions along dimension `axis` of the tile are multiplied out from a tile of indices.

    It changes elements that were written before, in the order of the tile: of two at one position the later one stays.
    With a `function` (`add`, `max`, `min` or `mul`, of f32 or i32) an element becomes that of itself and what comes.
    That dimension must have one counter, as in a `Gather`. Items of a kernel may not change the same element.
    """

    access: Access
    tile: str
    indices: str
    axis: int
    after: tuple[str, ...] = ()
    function: str = ""

    @property
    def adds(self) -> bool:
        """Whether what is there is read before it is written."""
        return bool(self.function)


@dataclass(frozen=True)
class Fill:
    """Vector unit: every element of the tile becomes `value`."""

    tile: str
    sizes: tuple[Expr, ...]
    value: int | float | Expr


@dataclass(frozen=True)
class Iota:
    """Vector unit: element i along `axis` of the tile becomes `start + step * i`; the other dimensions repeat it."""

    tile: str
    sizes: tuple[Expr, ...]
    axis: int
    start: Expr
    step: int = 1


@dataclass(frozen=True)
class Matmul:
    """Matrix unit: `accumulator[I, J] += lhs[I, K] · rhs[K, J]`, accumulated in f32 (i32 for i8).

    The `stationary` operand is held in the array: it is at most `matrix_rows` by `matrix_columns` along K and its
    other dimension, and the other operand streams through, at most `matrix_stream` rows an instruction. With the
    accumulator held (I by J), both operands stream along K. With `nothing` held it is the vector unit that multiplies.
    In the first step of the loop `begins` the accumulator is taken to be zero, whatever it holds.
    """

    accumulator: str
    lhs: str
    rhs: str
    stationary: Held
    begins: str = ""


@dataclass(frozen=True)
class Map:
    """Vector unit: the function of the operands, element by element, with operands of size 1 repeated.

    Computed in f32 for floats, and rounded to the tile's element type when it is written. To `mxint8` only the
    function `copy`, which shares exponents along the tile's last dimension.
    """

    function: str
    tile: str
    operands: tuple[Operand, ...]
    parameters: tuple[float, ...] = ()


@dataclass(frozen=True)
class Reduce:
    """Vector unit: `sum`, `max`, `min` or `prod` over dimensions of a tile, which keep size 1."""

    function: str
    tile: str
    source: str
    axes: tuple[int, ...]


Transfer = Load | Gather | Store | Scatter
Instruction = Transfer | Fill | Iota | Matmul | Map | Reduce


@dataclass(frozen=True)
class Loop:
    """A hardware loop of one core: the body once for each step of the range."""

    range: Range
    body: tuple[Statement, ...]


Statement = Instruction | Loop


@dataclass(frozen=True)
class Kernel:
    """One instruction stream over a grid of items. `sources` are the ONNX nodes that it computes.

    Items are dealt from core `first` of each group on, or of the group of one `chiplet` alone. The kernel is done when
    what all its items store has landed, and when the kernels that it waits for are done.
    """

    name: str
    grid: tuple[Range, ...]
    tiles: tuple[Tile, ...]
    body: tuple[Statement, ...]
    sources: tuple[str, ...] = ()
    first: int = 0
    chiplet: int = EVERYWHERE

    def statements(self) -> Iterator[Statement]:
        """Every loop and instruction in the order they are written, a loop before its body."""
        return walk(self.body)


@dataclass(frozen=True)
class Binding:
    """An input or output of the segment, and the tensor that it is."""

    name: str
    tensor: str


@dataclass(frozen=True)
class Program:
    """Everything the machine needs to run one segment. `local_bytes` of each core's SRAM are private, the rest shared.

    `cores` is how many cores, from core 0, the program uses, in `parts` groups. Each group has its part of every tensor
    in shared SRAM, dealt over its cores in pages of `page_bytes`. `format` is the number format of its matrix products.
    While it is generated, tensors and tiles may be `UNPLACED`, and so may `local_bytes`.
    """

    name: str
    machine: Machine
    format: str
    cores: int
    page_bytes: int
    local_bytes: int
    dims: tuple[Dim, ...]
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    tensors: tuple[Tensor, ...]
    kernels: tuple[Kernel, ...]
    parts: int = 1

    @property
    def dealing(self) -> Dealing:
        """Who has what of what is everywhere."""
        return Dealing(self.cores, self.parts)

    def dealing_on(self, chiplet: int) -> Dealing:
        """Who has what of what is on one chiplet, or everywhere."""
        if chiplet == EVERYWHERE:
            return self.dealing
        group = self.dealing.group
        return Dealing(group, 1, chiplet * group)

    @property
    def private_limit(self) -> int:
        """Where the private part of a core's SRAM ends: all of it until `local_bytes` is known."""
        return self.machine.sram_bytes_per_core if self.local_bytes == UNPLACED else self.local_bytes

    @property
    def shared_bytes(self) -> int:
        """The capacity of shared SRAM: whole pages in what the cores' private parts leave."""
        pages = (self.machine.sram_bytes_per_core - self.local_bytes) // self.page_bytes
        return self.cores * pages * self.page_bytes

    def tensor(self, name: str) -> Tensor:
        """The tensor called `name`. KeyError if there is none."""
        for each in self.tensors:
            if each.name == name:
                return each
        raise KeyError(name)


def walk(body: tuple[Statement, ...]) -> Iterator[Statement]:
    """Every loop and instruction of a body in order, a loop before what it repeats."""
    for statement in body:
        yield statement
        if isinstance(statement, Loop):
            yield from walk(statement.body)


def written_tile(instruction: Instruction) -> str | None:
    """The tile that an instruction writes, None for what leaves tiles."""
    if isinstance(instruction, Store | Scatter):
        return None
    return instruction.accumulator if isinstance(instruction, Matmul) else instruction.tile


def read_tiles(instruction: Instruction) -> tuple[str, ...]:
    """The tiles that an instruction reads, an accumulator included."""
    match instruction:
        case Store():
            return (instruction.tile,)
        case Gather():
            return (instruction.indices,)
        case Scatter():
            return (instruction.tile, instruction.indices)
        case Matmul(lhs=lhs, rhs=rhs, accumulator=accumulator):
            return (lhs, rhs, accumulator)
        case Map():
            return tuple(operand for operand in instruction.operands if isinstance(operand, str))
        case Reduce():
            return (instruction.source,)
        case _:
            return ()
