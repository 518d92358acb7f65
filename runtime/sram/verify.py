"""What must hold of a program before the machine runs it: names, addresses, unit sizes, element types.

Everything here is static: it holds for all sizes within the program's bounds. What depends on values and on sizes (an
access outside its tensor, a read before its write, two writers) is the emulator's to find.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import prod

from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.binding import affine
from gimlet.runtime.sram.dealing import Dealing
from gimlet.runtime.sram.faults import MachineError, Place
from gimlet.runtime.sram.formats import CARRIERS, FLOATS, SUMS, stored_bytes
from gimlet.runtime.sram.functions import FUNCTIONS, REDUCTIONS, UPDATES
from gimlet.runtime.sram.growing import check_growth, leaves_past
from gimlet.runtime.sram.memory import overlaps
from gimlet.runtime.sram.ordering import Order, transfers
from gimlet.runtime.sram.program import (
    EVERYWHERE,
    REGISTER_PREFIX,
    UNPLACED,
    Access,
    Fill,
    Gather,
    Instruction,
    Iota,
    Kernel,
    Load,
    Loop,
    Map,
    Matmul,
    Program,
    Range,
    Reduce,
    Scatter,
    Statement,
    Store,
    Tensor,
    Tile,
    Transfer,
    read_tiles,
    written_tile,
)

_MOST_ELEMENTS = 1 << 48


def verify(program: Program, complete: bool = True) -> None:
    """Raises MachineError, with the place, for the first rule that the program breaks.

    Unless it is `complete`, tensors and tiles may be unplaced, and transfers need not wait for each other as they must:
    code generation adds that last.
    """
    if not 0 < program.cores <= program.machine.cores:
        raise MachineError(f"uses {program.cores} cores of a machine with {program.machine.cores}")
    if program.parts < 1 or program.cores % program.parts:
        raise MachineError(f"{program.cores} cores do not divide into {program.parts} groups")
    local = 0 if program.local_bytes == UNPLACED and not complete else program.local_bytes
    if program.page_bytes <= 0 or not 0 <= local <= program.machine.sram_bytes_per_core:
        raise MachineError(
            f"{program.local_bytes} private bytes and pages of {program.page_bytes} do not divide a core's "
            f"{program.machine.sram_bytes_per_core} bytes of SRAM"
        )
    _unique("dimension", (dim.name for dim in program.dims))
    for dim in program.dims:
        if dim.name.startswith(REGISTER_PREFIX):
            raise MachineError(f"dimension {dim.name} has a register's name")
        if not 0 <= dim.minimum <= dim.optimum <= dim.maximum:
            raise MachineError(f"dimension {dim.name} has bounds {dim.minimum}, {dim.optimum}, {dim.maximum}")
    _unique("tensor", (tensor.name for tensor in program.tensors))
    _unique("kernel", (kernel.name for kernel in program.kernels))
    tensors = {tensor.name: tensor for tensor in program.tensors}
    dims = frozenset(dim.name for dim in program.dims)
    for tensor in program.tensors:
        _verify_tensor(tensor, program, dims)
    _verify_residents(program)
    for binding in (*program.inputs, *program.outputs):
        if binding.tensor not in tensors:
            raise MachineError(f"{binding.name} is tensor {binding.tensor}, which does not exist")
    _verify_states(program)
    for kernel in program.kernels:
        _KernelCheck(kernel, program, tensors, dims).run()
    if complete:
        _verify_placed(program)
        _verify_order(program)


def _verify_placed(program: Program) -> None:
    for tensor in program.tensors:
        if tensor.address == UNPLACED:
            raise MachineError(f"tensor {tensor.name} has no address")
    for kernel in program.kernels:
        for tile in kernel.tiles:
            if tile.address == UNPLACED:
                raise MachineError(f"tile {tile.name} of kernel {kernel.name} has no address")


def _verify_order(program: Program) -> None:
    """Raises MachineError for a transfer that another may overtake. To wait in vain is the emulator's to find."""
    order, names = Order(overlaps(program)), [kernel.name for kernel in program.kernels]
    for kernel in program.kernels:
        for transfer in transfers(kernel):
            for name in transfer.after:
                if name not in names:
                    raise MachineError(f"kernel {kernel.name} comes after {name}, which does not exist")
            missing = order.needed(transfer, kernel) & ~order.reach(transfer.after)
            if missing:
                other, tensor = names[missing.bit_length() - 1], transfer.access.tensor
                raise MachineError(f"kernel {kernel.name} does not wait for {other} before it moves tensor {tensor}")
        order.add(kernel)


def _unique(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise MachineError(f"{what} {name} is there twice")
        seen.add(name)


def _disjoint(taken: list[tuple[int, int, str]]) -> None:
    """Raises MachineError for the first two of (begin, end, name) that share a byte."""
    taken.sort()
    for (_, end, first), (start, _, second) in pairwise(taken):
        if start < end:
            raise MachineError(f"{first} and {second} overlap")


def _verify_residents(program: Program) -> None:
    """Raises MachineError for two tensors that have blocks at the same addresses of one core."""
    by_core: dict[int, list[tuple[int, int, str]]] = {}
    tensors = [each for each in program.tensors if each.space == "core" and each.address >= 0]
    places = {tensor.chiplet for tensor in tensors} - {EVERYWHERE} or {0}
    for tensor in tensors:
        dealing = program.dealing_on(tensor.chiplet)
        each, group = stored_bytes(tensor.dtype, (tensor.block,)), dealing.group
        # Runs are alike: of what is everywhere each of the chiplets that have more stands for all.
        for place in places if tensor.chiplet == EVERYWHERE else {tensor.chiplet}:
            for block in range(run_of(tensor, dealing)):
                begin, core = tensor.address + block // group * each, (tensor.first + block) % group
                by_core.setdefault(place * group + core, []).append((begin, begin + each, tensor.name))
    for taken in by_core.values():
        _disjoint(taken)


def _verify_states(program: Program) -> None:
    """Raises MachineError for a state that is not both an input and an output, or whose memory something else takes."""
    shared = overlaps(program)
    ends = [{binding.tensor for binding in bindings} for bindings in (program.inputs, program.outputs)]
    for tensor in program.tensors:
        if tensor.role != "state":
            continue
        if not all(tensor.name in names for names in ends):
            raise MachineError(f"state {tensor.name} is not both an input and an output")
        if shared[tensor.name]:
            raise MachineError(f"state {tensor.name} shares its memory with {shared[tensor.name][0]}")


def _verify_tensor(tensor: Tensor, program: Program, dims: frozenset[str]) -> None:
    if tensor.dtype not in CARRIERS:
        raise MachineError(f"tensor {tensor.name} has elements of {tensor.dtype}, which the machine does not know")
    fixed = [dim.as_int() for dim in tensor.shape if dim.is_constant]
    if any(size < 0 for size in fixed) or prod(fixed) > _MOST_ELEMENTS:
        raise MachineError(f"tensor {tensor.name} has a shape of {', '.join(map(str, tensor.shape))}")
    if tensor.width < 0:
        raise MachineError(f"tensor {tensor.name} has rows of {tensor.width} elements")
    if tensor.copies < 1:
        raise MachineError(f"tensor {tensor.name} has {tensor.copies} copies of its blocks")
    if not 0 <= tensor.first < program.dealing.group:
        raise MachineError(f"tensor {tensor.name} begins on core {tensor.first} of {program.dealing.group}")
    if (tensor.space == "core") != (tensor.block > 0) or (tensor.block and tensor.role != "weight"):
        raise MachineError(
            f"tensor {tensor.name} has blocks of {tensor.block} elements: weights in space core have them"
        )
    if tensor.role == "weight" and not all(dim.is_constant for dim in tensor.shape):
        raise MachineError(f"weight {tensor.name} has a shape that is not fixed")
    if tensor.together < 0 or (tensor.together and blocks_of(tensor) % tensor.together):
        raise MachineError(f"tensor {tensor.name} has {blocks_of(tensor)} blocks, not runs of {tensor.together}")
    limits = {"sram": program.shared_bytes, "lpddr": program.machine.lpddr_bytes, "core": program.private_limit}
    limit = limits[tensor.space]
    if not EVERYWHERE <= tensor.chiplet < program.parts:
        raise MachineError(f"tensor {tensor.name} is on chiplet {tensor.chiplet} of {program.parts}")
    own, everywhere = own_bytes(tensor, program.dealing_on(tensor.chiplet)), tensor.reach_bytes(program.parts)
    end = tensor.address + (own if tensor.space == "core" else everywhere)
    if tensor.address != UNPLACED and not 0 <= tensor.address <= end <= limit:
        raise MachineError(f"tensor {tensor.name} ends at byte {end} of {limit} in {tensor.space}")
    for dim in tensor.shape:
        if not dim.symbols <= dims:
            raise MachineError(f"tensor {tensor.name} has dimension {dim}, which the program does not declare")
    check_growth(tensor, dims)
    fixed = tuple(dim.as_int() for dim in tensor.shape if dim.is_constant)
    needed = stored_bytes(tensor.dtype, fixed) if tensor.role == "weight" and tensor.address != UNPLACED else 0
    if needed > tensor.capacity_bytes:
        raise MachineError(f"weight {tensor.name} does not fit its {tensor.capacity_bytes} bytes")


class _KernelCheck:
    """The rules of one kernel."""

    def __init__(self, kernel: Kernel, program: Program, tensors: dict[str, Tensor], dims: frozenset[str]) -> None:
        self.kernel = kernel
        self.program = program
        self.machine = program.machine
        self.tensors = tensors
        self.dims = dims
        self.tiles = {tile.name: tile for tile in kernel.tiles}
        self.index = 0
        self.opcode = "kernel"

    def fail(self, message: str) -> MachineError:
        return MachineError(message, Place(self.kernel.name, self.index, self.opcode))

    def run(self) -> None:
        if not 0 <= self.kernel.first < self.program.dealing.group:
            raise self.fail(f"begins on core {self.kernel.first} of {self.program.dealing.group}")
        if not EVERYWHERE <= self.kernel.chiplet < self.program.parts:
            raise self.fail(f"is on chiplet {self.kernel.chiplet} of {self.program.parts}")
        _unique(f"kernel {self.kernel.name}: tile", (tile.name for tile in self.kernel.tiles))
        self.check_tiles()
        scope: dict[str, Range] = {}
        for each in self.kernel.grid:
            self.enter(each, scope)
        loaded: set[str] = set()
        stored: set[str] = set()
        changed: set[str] = set()
        seen = set(scope)
        self.check_body(self.kernel.body, scope, seen)
        for statement in self.kernel.statements():
            if isinstance(statement, Load | Gather):
                loaded.add(statement.access.tensor)
            elif isinstance(statement, Store):
                stored.add(statement.access.tensor)
            elif isinstance(statement, Scatter):
                changed.add(statement.access.tensor)
        for name in sorted(loaded & (stored | changed)):
            raise self.fail(f"loads and stores tensor {name}: items of a kernel are not ordered")
        for name in sorted(stored & changed):
            raise self.fail(f"stores tensor {name} and changes it: items of a kernel are not ordered")
        for name in sorted(stored | changed):
            role, grows = self.tensors[name].role, self.tensors[name].growth is not None
            if role in ("input", "weight"):
                raise self.fail(f"stores to tensor {name}, which is an {role}")
            if role == "state" and name in stored and not grows:
                raise self.fail(f"stores to tensor {name}, which is a state: it can only be changed")
            if grows and name in changed:
                raise self.fail(f"changes tensor {name}, which is a state that grows: what was there stays")

    def check_tiles(self) -> None:
        limit = self.program.private_limit
        resident = [each for each in self.tensors.values() if each.space == "core" and each.address != UNPLACED]
        floor = min((tensor.address for tensor in resident), default=limit)
        taken = [(floor, limit, "resident weights")]
        for tile in self.kernel.tiles:
            absurd = prod(tile.shape) * max(tile.depth, 1) > _MOST_ELEMENTS
            if tile.dtype not in CARRIERS or tile.depth < 0 or min(tile.shape, default=1) < 1 or absurd:
                raise self.fail(f"tile {tile.name} is {tile.depth} x {tile.dtype} {list(tile.shape)}")
            if tile.address == UNPLACED:
                continue
            end = tile.address + tile_bytes(tile)
            if not 0 <= tile.address <= end <= limit:
                raise self.fail(f"tile {tile.name} ends at byte {end} of {limit} private ones")
            if tile.depth:
                taken.append((tile.address, end, tile.name))
        try:
            _disjoint(taken)
        except MachineError as error:
            raise self.fail(error.message) from None

    def enter(self, each: Range, scope: dict[str, Range]) -> None:
        if each.step < 1:
            raise self.fail(f"range {each.name} has step {each.step}")
        self.check_size(each.extent, scope)
        scope[each.name] = each

    def check_body(self, body: Sequence[Statement], scope: dict[str, Range], seen: set[str]) -> None:
        for statement in body:
            if isinstance(statement, Loop):
                if statement.range.name in seen:
                    raise self.fail(f"range {statement.range.name} is there twice")
                seen.add(statement.range.name)
                inner = dict(scope)
                self.enter(statement.range, inner)
                self.check_body(statement.body, inner, seen)
                continue
            self.opcode = type(statement).__name__.lower()
            self.check(statement, scope)
            self.index += 1
        self.opcode = "kernel"

    def check_size(self, size: object, scope: dict[str, Range]) -> None:
        """Checks an expression over symbolic dimensions and size registers; anything else has nothing to check."""
        sizes = {f"{REGISTER_PREFIX}{name}.size" for name in scope}
        unknown = size.symbols - self.dims - sizes if isinstance(size, Expr) else frozenset[str]()
        if unknown:
            raise self.fail(f"size {size} uses {', '.join(sorted(unknown))}")

    def tile(self, name: str, rank: int | None = None) -> Tile:
        if name not in self.tiles:
            raise self.fail(f"tile {name} does not exist")
        tile = self.tiles[name]
        if rank is not None and len(tile.shape) != rank:
            raise self.fail(f"tile {name} has rank {len(tile.shape)}, not {rank}")
        return tile

    def check(self, instruction: Instruction, scope: dict[str, Range]) -> None:
        written = written_tile(instruction)
        for name in (*read_tiles(instruction), *([written] if written else [])):
            tile = self.tile(name)
            limit = self.machine.vector_elements
            if not isinstance(instruction, Transfer | Matmul) and prod(tile.shape) > limit:
                raise self.fail(f"tile {name} has {prod(tile.shape)} elements, the vector unit takes {limit}")
        match instruction:
            case Load(tile=name, access=access) | Store(tile=name, access=access):
                self.check_access(access, self.tile(name, len(access.axes)), scope)
                self.check_place(instruction)
            case Gather():
                self.check_computed(instruction, "gathers", scope)
            case Scatter():
                self.check_computed(instruction, "scatters", scope)
                self.check_place(instruction)
            case Matmul():
                self.check_matmul(instruction, scope)
            case Map():
                self.check_map(instruction)
            case Reduce(function=function, tile=name, source=source, axes=axes):
                rank = len(self.tile(source).shape)
                if function not in REDUCTIONS or not all(0 <= axis < rank for axis in axes):
                    raise self.fail(f"there is no reduction {function} over {list(axes)} of {rank} dimensions")
                if self.tile(name, rank).dtype == "mxint8":
                    raise self.fail("the vector unit writes mxint8 by copy alone")
            case Fill(tile=name, sizes=sizes, value=value):
                self.tile(name, len(sizes))
                self.check_size(value, {})
                for size in sizes:
                    self.check_size(size, scope)
            case Iota(tile=name, sizes=sizes, axis=axis, start=start):
                if not 0 <= axis < len(self.tile(name, len(sizes)).shape):
                    raise self.fail(f"counts along dimension {axis} of {len(sizes)}")
                for size in sizes:
                    self.check_size(size, scope)
                self.check_position(start, scope)

    def check_position(self, position: Expr, scope: dict[str, Range]) -> None:
        try:
            parts = affine(position, scope)
        except InputError as error:
            raise self.fail(error.message) from None
        for part in (parts[0], *parts[1].values()):
            if not part.symbols <= self.dims:
                raise self.fail(f"position {position} uses {', '.join(sorted(part.symbols - self.dims))}")

    def check_access(self, access: Access, tile: Tile, scope: dict[str, Range]) -> None:
        if access.tensor not in self.tensors:
            raise self.fail(f"tensor {access.tensor} does not exist")
        tensor = self.tensors[access.tensor]
        if tensor.dtype != tile.dtype:
            raise self.fail(f"moves {tensor.dtype} of tensor {tensor.name} to or from {tile.dtype} of tile {tile.name}")
        if len(access.start) != len(access.shape) or len(access.axes) != len(tile.shape):
            raise self.fail(f"the access to tensor {tensor.name} has not one start and one counter a dimension")
        for start in access.start:
            self.check_position(start, scope)
        for dim in access.shape:
            self.check_size(dim, {})
        for axis in (axis for group in access.axes for axis in group):
            if not -1 <= axis.dim < len(access.shape):
                raise self.fail(f"dimension {axis.dim} of tensor {tensor.name} does not exist")
            self.check_size(axis.size, scope)

    def check_place(self, instruction: Load | Store | Scatter) -> None:
        """What the two kinds of tiles may be moved from and to."""
        access, tile = instruction.access, self.tile(instruction.tile)
        window = tile.depth == 0
        space = self.tensors[access.tensor].space
        if isinstance(instruction, Store | Scatter):
            if access.fill is not None:
                raise self.fail("a store has no fill")
            if window or space == "core":
                raise self.fail(f"stores tile {tile.name} to tensor {access.tensor}: blocks of a core are read only")
            if isinstance(instruction, Store) and instruction.adds and tile.dtype not in SUMS.values():
                raise self.fail(f"adds {tile.dtype} to tensor {access.tensor}: only f32 and i32 are added")
            if isinstance(instruction, Store) and self.tensors[access.tensor].growth is not None:
                self.check_behind(instruction)
        elif window and (space != "core" or access.fill is not None):
            raise self.fail(f"window {tile.name} is on tensor {access.tensor}, which has no blocks")
        elif space == "core" and not window:
            raise self.fail(f"loads blocks of tensor {access.tensor} into tile {tile.name}, which is no window")

    def check_behind(self, store: Store) -> None:
        """What is stored to a state that grows is behind what was there."""
        tensor = self.tensors[store.access.tensor]
        if store.adds:
            raise self.fail(f"adds to tensor {tensor.name}, which is a state that grows")
        if not leaves_past(store.access, tensor):
            raise self.fail(f"stores to tensor {tensor.name}, and not behind what a run finds there")

    def check_computed(self, transfer: Gather | Scatter, what: str, scope: dict[str, Range]) -> None:
        """The rules of a transfer, called `what`, whose positions along one dimension are in a tile."""
        self.check_access(transfer.access, self.tile(transfer.tile, len(transfer.access.axes)), scope)
        if not 0 <= transfer.axis < len(transfer.access.axes) or len(transfer.access.axes[transfer.axis]) != 1:
            raise self.fail(f"{what} along dimension {transfer.axis} of the tile, which has not one counter")
        dim = transfer.access.axes[transfer.axis][0].dim
        if sum(axis.dim == dim for group in transfer.access.axes for axis in group) != 1 or dim < 0:
            raise self.fail(f"{what} along dimension {dim}, which has not one counter")
        if self.tile(transfer.indices, 1).dtype not in ("i64", "i32"):
            raise self.fail(f"{what} with indices that are not i32 or i64")
        if not isinstance(transfer, Scatter):
            return
        dtype = self.tile(transfer.tile).dtype
        if dtype == "mxint8":
            raise self.fail("scatters elements that share an exponent")
        if transfer.function and (transfer.function not in UPDATES or dtype not in SUMS.values()):
            raise self.fail(f"scatters {dtype} by {transfer.function}: f32 and i32 are, by {', '.join(UPDATES)}")

    def check_matmul(self, matmul: Matmul, scope: dict[str, Range]) -> None:
        lhs, rhs = self.tile(matmul.lhs, 2), self.tile(matmul.rhs, 2)
        accumulator = self.tile(matmul.accumulator, 2)
        if lhs.dtype != rhs.dtype or lhs.dtype not in self.machine.row_cycles:
            raise self.fail(f"the matrix unit does not multiply {lhs.dtype} by {rhs.dtype}")
        if accumulator.dtype != SUMS.get(lhs.dtype):
            raise self.fail(f"the matrix unit does not accumulate {lhs.dtype} in {accumulator.dtype}")
        (height, depth), width = lhs.shape, rhs.shape[1]
        depth = max(depth, rhs.shape[0])
        if matmul.begins and matmul.begins not in scope.keys() - {each.name for each in self.kernel.grid}:
            raise self.fail(f"begins in loop {matmul.begins}, which is not around it")
        if matmul.stationary == "nothing":
            if height > 1 or depth * width > self.machine.vector_elements:
                raise self.fail(
                    f"multiplies {height} rows by {depth} x {width} on the vector unit, "
                    f"which takes one by {self.machine.vector_elements} elements"
                )
            return
        held = {"lhs": (depth, height), "rhs": (depth, width), "accumulator": (height, width)}[matmul.stationary]
        streamed = {"lhs": width, "rhs": height, "accumulator": depth}[matmul.stationary]
        rows, columns, stream = self.machine.matrix_rows, self.machine.matrix_columns, self.machine.matrix_stream
        if held[0] > rows or held[1] > columns or streamed > stream:
            raise self.fail(
                f"holds {held[0]} x {held[1]} and streams {streamed} rows, "
                f"the unit takes {rows} x {columns} and {stream}"
            )

    def check_map(self, instruction: Map) -> None:
        function = FUNCTIONS.get(instruction.function)
        if function is None:
            raise self.fail(f"there is no function {instruction.function}")
        operands, parameters = len(instruction.operands), len(instruction.parameters)
        if operands != function.arity or parameters != function.parameters:
            raise self.fail(f"{instruction.function} does not take {operands} operands and {parameters} parameters")
        names = [operand for operand in instruction.operands if isinstance(operand, str)]
        if not names:
            raise self.fail(f"{instruction.function} reads no tile")
        target = self.tile(instruction.tile)
        tiles = [self.tile(name, len(target.shape)) for name in names]
        for operand in instruction.operands:
            self.check_size(operand, {})
        if target.dtype == "mxint8" and function.kind != "copy":
            raise self.fail("the vector unit writes mxint8 by copy alone")
        if not _types_agree(function.kind, target.dtype, [tile.dtype for tile in tiles], instruction):
            types = ", ".join(tile.dtype for tile in tiles)
            raise self.fail(f"{instruction.function} does not take {types} to {target.dtype}")


def _types_agree(kind: str, target: str, sources: list[str], instruction: Map) -> bool:
    if kind == "copy":
        return True
    if kind == "logic":
        return target == "i1" and all(source == "i1" for source in sources)
    if kind == "test":
        return target == "i1" and (len(set(sources)) == 1 or all(source in FLOATS for source in sources))
    if kind == "select" and isinstance(instruction.operands[0], str):
        condition, *sources = sources
        if condition != "i1":
            return False
    everything = [target, *sources]
    if all(dtype in FLOATS for dtype in everything):
        return True
    return kind != "float" and len(set(everything)) == 1


def run_of(tensor: Tensor, dealing: Dealing) -> int:
    """How many of a tensor's blocks the first group of cores has."""
    return dealing.run(blocks_of(tensor) * tensor.copies) if tensor.block else 0


def blocks_of(tensor: Tensor) -> int:
    """How many blocks a tensor has, one copy of it."""
    return -(-prod(dim.as_int() for dim in tensor.shape) // tensor.block) if tensor.block else 0


def own_bytes(tensor: Tensor, dealing: Dealing) -> int:
    """The private bytes that a tensor's blocks take on the core that has most of them."""
    return -(-run_of(tensor, dealing) // dealing.group) * stored_bytes(tensor.dtype, (tensor.block,))


def tile_bytes(tile: Tile) -> int:
    """The private bytes that a tile takes, all copies together."""
    return stored_bytes(tile.dtype, tile.shape) * tile.depth
