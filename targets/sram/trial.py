"""The mapping of a product that the cycle model finds quickest, of those that look best in closed form.

The closed form (mapping.py) knows no queues: it is off by up to a third where a core has little to do. So the kernel of
each of the best mappings is made, alone, and timed as the program will be.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from math import ceil, inf

from gimlet.passes.sram_home_weights import Homes
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.binding import bind
from gimlet.runtime.sram.cycles import time_program
from gimlet.runtime.sram.dealing import Dealing
from gimlet.runtime.sram.formats import SUMS, stored_bytes
from gimlet.runtime.sram.machine import Machine
from gimlet.runtime.sram.program import UNPLACED, Program
from gimlet.targets.sram.builder import Bounds, ProgramBuilder, RefusedError
from gimlet.targets.sram.constants import Array, Constant, Weights
from gimlet.targets.sram.expression import emit_elementwise
from gimlet.targets.sram.levels import completed
from gimlet.targets.sram.mapping import (
    QUANTIZE_PASSES,
    Mapping,
    Sizes,
    best,
    columns_of_chiplet,
    cycles,
    largest_steps,
    weight_bytes,
    width_for_chiplets,
)
from gimlet.targets.sram.product_kernel import ProductKernel
from gimlet.targets.sram.views import View

_CANDIDATES = 12
_NEAR = 1.4
"""How far above the best a mapping may be in closed form and still be tried."""
_PAGE_BYTES = 256


def quickest(machine: Machine, dealing: Dealing, sizes: Sizes, room: int, spare: int) -> Mapping:
    """The quickest mapping of a product. `room` and `spare` are what a core has left for weights (mapping.py)."""
    return _tried(machine, dealing, sizes, room, spare)[0]


def cycles_of(machine: Machine, dealing: Dealing, sizes: Sizes, room: int, spare: int) -> float:
    """The cycles of a product alone with its quickest mapping."""
    array = array_for(machine, dealing, sizes, room, spare)
    return _tried(array, dealing, sizes, room, spare)[1]


def array_for(machine: Machine, dealing: Dealing, sizes: Sizes, room: int, spare: int) -> Machine:
    """The machine with arrays as wide as tiles should be: all of it, or to end where the columns of a chiplet do."""
    width = width_for_chiplets(dealing, sizes, largest_steps(machine).columns)
    if not width or machine.dataflow != "rhs":
        return machine
    found: list[tuple[float, Machine]] = []
    for each in (machine, replace(machine, matrix_columns=width)):
        looks_best = best(each, dealing, sizes, room, spare, _CANDIDATES)[0]
        found.append((cycles(each, dealing, sizes, looks_best), each))
    return min(found, key=lambda each: each[0])[1]


def converts_tiles(
    machine: Machine, dealing: Dealing, sizes: Sizes, homes: Homes, readers: int, behind: float | None = None
) -> bool:
    """Whether tiles of f32 are better converted in every item than once before, which `readers` products share.

    `behind` is what the conversion adds to what makes the rows, None where a kernel of its own converts them.
    """
    before = replace(sizes, lhs=sizes.held)
    spare = homes.spare(weight_bytes(sizes) / dealing.cores)
    inside, outside = (cycles_of(machine, dealing, each, homes.room, spare) for each in (sizes, before))
    if behind is not None:
        return inside <= outside + behind
    elements = ceil(sizes.batch * sizes.rows * sizes.depth / dealing.cores)
    loaded, stored = stored_bytes(sizes.lhs, (elements,)), stored_bytes(sizes.held, (elements,))
    port, sram = machine.network_bytes_per_cycle, machine.sram_bytes_per_cycle
    vector = max((loaded + stored) / sram, QUANTIZE_PASSES * elements / machine.vector_lanes)
    alone = loaded / port + vector + stored / port + 2 * machine.network_latency_cycles + machine.semaphore_cycles
    return inside <= outside + alone / readers


@lru_cache(maxsize=4096)
def _tried(machine: Machine, dealing: Dealing, sizes: Sizes, room: int, spare: int) -> tuple[Mapping, float]:
    """The quickest mapping and its cycles, with those in closed form of what stands behind the product."""
    candidates = best(machine, dealing, sizes, room, spare, _CANDIDATES)
    expected = [cycles(machine, dealing, sizes, each) for each in candidates]
    alone = replace(sizes, fused=False)
    found: list[tuple[float, int]] = []
    for index, mapping in enumerate(candidates):
        if expected[index] <= _NEAR * expected[0]:
            time = timed(machine, dealing, sizes, mapping, room)
            behind = 0.0 if sizes.made else expected[index] - cycles(machine, dealing, alone, mapping)
            found.append((inf if time is None else time + behind, index))
    time, index = min(found)
    return candidates[index], expected[index] if time == inf else time


def timed(machine: Machine, dealing: Dealing, sizes: Sizes, mapping: Mapping, room: int) -> int | None:
    """The cycles of a product alone, with no more behind it than the conversion of its result.

    None where its tensors or tiles do not fit.
    """
    bounds = Bounds({}, {}, {})
    by_columns = frozenset({sizes.rows} if sizes.by_columns else ())
    builder = ProgramBuilder(machine, bounds, dealing, Homes(dealing.group, room), by_columns)
    batch = (Expr.const(sizes.batch),) if sizes.batch > 1 else ()
    rows, depth, columns = (Expr.const(size) for size in (sizes.rows, sizes.depth, sizes.columns))
    lhs, output = (*batch, rows, depth), (*batch, rows, columns)
    given = View.whole(builder.tensor(sizes.lhs, lhs, "input"), sizes.lhs, lhs)
    sums = SUMS[sizes.held]
    result = View.whole(builder.tensor(sizes.made or sums, output, "output"), sizes.made or sums, output)
    apart = bool(sizes.made) and mapping.splits > 1
    made = builder.temporary(sums, output) if apart else result
    steps, kept = largest_steps(machine), 0
    if sizes.weights:
        kept = columns_of_chiplet(dealing, sizes, steps.columns)
        held = _packed(builder, sizes, mapping, builder.tensors[made.tensor].width > 0, kept)
    else:
        other = (*batch, depth, columns)
        held = View.whole(builder.tensor(sizes.held, other, "input"), sizes.held, other)
    kernel = ProductKernel(
        builder, given, held, made, sizes.weights, mapping, steps, begins=True, adds=mapping.splits > 1, kept=kept
    )
    try:
        kernel.emit(made, made, {})
        if apart:
            emit_elementwise(builder, made, result)
        return cycles_alone(builder)
    except RefusedError:
        return None


def cycles_alone(builder: ProgramBuilder) -> int:
    """The cycles of the kernels so far, whose sizes are all fixed. RefusedError where tensors or tiles do not fit."""
    dealing = builder.dealing
    program = Program(
        name="trial",
        machine=builder.machine,
        format="fp32",
        cores=dealing.cores,
        page_bytes=_PAGE_BYTES,
        local_bytes=UNPLACED,
        dims=(),
        inputs=(),
        outputs=(),
        tensors=tuple(builder.tensors.values()),
        kernels=tuple(builder.kernels),
        parts=dealing.parts,
    )
    return time_program(bind(completed(program), {})).cycles


def _packed(builder: ProgramBuilder, sizes: Sizes, mapping: Mapping, by_columns: bool, kept: int) -> View:
    """Weights as the product packs them, without values."""
    steps = largest_steps(builder.machine)
    width, deep = min(steps.columns, sizes.columns), min(steps.depth, sizes.depth)
    run = kept or sizes.columns
    shape = (ceil(sizes.columns / run) * ceil(run / width), mapping.splits * mapping.tiles, width, deep)

    def read() -> Array:
        raise RefusedError("a trial has no values")

    weights, constant = Weights(builder), Constant("weights", "f32", shape, read)
    if mapping.resident:
        together = mapping.splits if by_columns and mapping.replicas > 1 else 0
        return weights.resident(constant, sizes.held, mapping.tiles * width * deep, mapping.replicas, together)
    return weights.view(constant, sizes.held)
