"""What no program can beat: a lower bound of a segment's cycles, from shapes in the IR and figures of the machine.

It knows nothing of programs, kernels and tiles, so that the cycle model can be checked against it. Each resource alone
needs as many cycles as it takes for the least that has to go through it:

- *compute*: the operations of matrix products, all arrays at their peak in the fastest format that is allowed, of 8-bit
  integers where those are multiplied (and the vector units, which may take a part of a product of one row: verify.py);
- *sram*: every weight of a product and every result of the segment, once, all cores' SRAM together;
- *lpddr*: the weights that SRAM has no room for, once;
- *network*: nothing. One chiplet can compute anything by itself, so no byte has to cross, little sense as it makes.

`tight_bound_of` is a second bound, higher and still proven, of machines whose array holds the weights:

- An array has one tile. While a tile goes in, nothing is multiplied, and a weight in the array serves at most all rows
  of its product: P multiply-adds of M rows keep the arrays busy for P·(bytes of a weight / (M · SRAM bytes a cycle) +
  row_cycles / (rows · columns)) cycles together. With two tiles the longer of the two counts instead of both.
- A core that multiplies puts a tile in first, the largest that it uses at the latest before it multiplies with that: a
  product of P multiply-adds takes the core with most of them max(latency, t · bytes of a weight / SRAM bytes a cycle) +
  P / cores · row_cycles / t cycles, with the best t of elements in a tile.
- The vector units can take a part of a product of one row, a multiply-add in two passes of a lane: best that for which
  the arrays take longest.
- Nothing is multiplied before the first operand has come through the network, and nothing ends before the last result
  has: arrays have all cycles but the last latency, to multiply all but the first one too.
- What every product makes is stored, and loaded by the next one: a chain takes a store's and a load's latency for each.
  A row that lies on several chiplets (there are fewer rows than chiplets) crosses between them once, unless one of them
  has the whole product: then it takes what the units of that one need for all weights but those in its arrays.
- A program may keep to one chiplet, or use them all: the lower of both is the bound. So may each of its products.
- An array that holds weights is full only where a product has as much depth and as many columns: with less of them a
  row that streams multiplies with a part of it.
- A convolution of one image that is given has its channels in order on the chiplets, unless they are few rows: each
  result needs those of several, so that on all chiplets something crosses. What it reads is read from SRAM and written
  to tiles, what it makes is read from tiles and written. Padding is nothing (bound_convolution.py): no program has to
  multiply with zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod, sqrt

from xdsl.ir import Operation, SSAValue

from gimlet.dialects.onnx import OnnxOp, dims_of
from gimlet.dialects.onnx.types import element_bits
from gimlet.dialects.onnx.work import is_weight, work_of
from gimlet.passes.state_pairs import IN_PLACE
from gimlet.runtime.sram.formats import MX_BLOCK
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.sram.bound_convolution import least_of
from gimlet.targets.sram.quantized import INTEGER_PRODUCTS, is_integer_product
from gimlet.targets.sram.states import changes_in_place

_LEAST_BYTES: Mapping[str, float] = {"fp32": 4.0, "bf16": 2.0, "mxint8": (MX_BLOCK + 1) / MX_BLOCK}
_TYPES: Mapping[str, str] = {"fp32": "f32", "bf16": "bf16", "mxint8": "mxint8"}
_VECTOR_PASSES = 2
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Attention", *INTEGER_PRODUCTS})


@dataclass(frozen=True)
class Bound:
    """Cycles that each resource needs at least."""

    compute: float
    sram: float
    lpddr: float
    network: float = 0.0

    @property
    def cycles(self) -> float:
        return max(self.compute, self.sram, self.lpddr, self.network)


def bound_of(
    ops: Iterable[OnnxOp], results: Sequence[SSAValue], machine: Machine, fmt: str, sizes: Mapping[str, int]
) -> Bound:
    """The bound for `ops` that make `results`, products computed in no faster format than `fmt`."""
    ops = list(ops)
    cycles, weights, inside = 0.0, set[SSAValue](), set[Operation](ops)
    plain = machine.flops(_TYPES[fmt]) / machine.clock_hz
    by_vector = 2.0 * machine.cores * machine.vector_lanes / _VECTOR_PASSES
    for op in ops:
        # Grouped convolutions may run on the vector unit.
        if op.op_type not in _PRODUCTS or op.attr("group", 1) != 1:
            continue
        flops = work_of(op).flops.evaluate(sizes)
        integers = "i8" in machine.row_cycles and is_integer_product(op, inside)
        by_array = max(plain, machine.flops("i8") / machine.clock_hz) if integers else plain
        cycles += flops / (by_array + (by_vector if _one_row(op, flops, sizes) else 0.0))
        if op.op_type not in INTEGER_PRODUCTS:
            weights |= {value for value in op.inputs[1:2] if value is not None and is_weight(value)}
    least = _LEAST_BYTES[fmt]
    weight_bytes = sum(_elements(value, sizes) for value in weights) * least
    written = (_written(value) for value in results)
    result_bytes = sum(_elements(value, sizes) * element_bits(value.type) / 8 for value in written)
    return Bound(
        compute=cycles,
        sram=(weight_bytes + result_bytes) / (machine.cores * machine.sram_bytes_per_cycle),
        lpddr=max(0.0, weight_bytes - machine.sram_bytes) / machine.lpddr_bytes_per_cycle,
    )


def tight_bound_of(
    ops: Sequence[OnnxOp], results: Sequence[SSAValue], machine: Machine, fmt: str, sizes: Mapping[str, int]
) -> float:
    """Cycles that `ops` need at least, products of what comes from an input. 0 where the array holds no weights.

    Ungrouped convolutions are taken for products on the arrays.
    """
    products = [op for op in ops if _is_product(op, sizes) and is_weight(op.inputs[1] or op.results[0])]
    if not products or machine.dataflow != "rhs":
        return 0.0
    found: list[float] = []
    for chiplets in {1, machine.chiplets}:
        part = replace(machine, chiplets=chiplets, cores=machine.cores_per_chiplet * chiplets)
        plain = bound_of(ops, results, part, fmt, sizes)
        latency = float(min(part.network_latency_cycles, part.lpddr_latency_cycles))
        moved = max(plain.sram + _moved(products, part, sizes), plain.lpddr) + latency
        busy = max(_busy(products, part, fmt, sizes, latency), _largest_tile(products, part, fmt, sizes, latency))
        found.append(max(plain.cycles, moved, busy, _path(products, part, fmt, sizes)))
    return min(found)


def _is_product(op: OnnxOp, sizes: Mapping[str, int]) -> bool:
    return op.op_type in ("MatMul", "Gemm") or least_of(op, sizes) is not None


def _moved(products: Sequence[OnnxOp], machine: Machine, sizes: Mapping[str, int]) -> float:
    """How long all SRAM takes for what a convolution reads and makes.

    Only of a single one: what a second one reads may be what the first has made, in the same tile.
    """
    least = least_of(products[0], sizes) if len(products) == 1 else None
    if least is None:
        return 0.0
    result = products[0].results[0]
    size = 2 * least.input_bytes + _elements(result, sizes) * element_bits(result.type) / 8
    return size / (machine.cores * machine.sram_bytes_per_cycle)


def _multiply_adds(op: OnnxOp, sizes: Mapping[str, int]) -> float:
    least = least_of(op, sizes)
    return work_of(op).flops.evaluate(sizes) / 2 if least is None else float(least.multiply_adds)


def _area(op: OnnxOp, machine: Machine, sizes: Mapping[str, int]) -> int:
    """The elements of an array that a row of the product multiplies with at most."""
    least, weight = least_of(op, sizes), dims_of(op.inputs[1]) if op.inputs[1] is not None else None
    if least is not None:
        depth, columns = least.depth, least.outputs
    else:
        depth, columns = (dim.evaluate(sizes) for dim in (weight or ())[-2:])
        if op.op_type == "Gemm" and op.attr("transB", 0):
            depth, columns = columns, depth
    return max(1, min(machine.matrix_rows, depth) * min(machine.matrix_columns, columns))


def _path(products: Sequence[OnnxOp], machine: Machine, fmt: str, sizes: Mapping[str, int]) -> float:
    """The latencies along the longest chain of products."""
    longest: dict[Operation, float] = {}
    for op in products:
        flops, weight = work_of(op).flops.evaluate(sizes), _elements(op.inputs[1], sizes)
        crosses = machine.chiplets > 1 and flops < 2 * weight * machine.chiplets
        apart = min(machine.die_latency_cycles, _on_one_chiplet(weight, machine, fmt)) if crosses else 0
        before = [longest[each] for each in _products_before(op, frozenset(longest))]
        least = least_of(op, sizes)
        if least is not None:
            # Fewer rows than chiplets are dealt by columns, and others may be where matrix products have as many.
            spread = least.rows > machine.chiplets > 1 == len(products) and _is_given(op)
            apart = machine.die_latency_cycles if spread else 0
        own = 2 * machine.network_latency_cycles + apart
        longest[op] = own + max((each + machine.semaphore_cycles for each in before), default=0.0)
    return max(longest.values())


def _is_given(op: OnnxOp) -> bool:
    """Whether an op reads an input, which lies as ONNX says."""
    return not isinstance(op.operands[0].owner, OnnxOp)


def _on_one_chiplet(weight: int, machine: Machine, fmt: str) -> float:
    """How long one chiplet takes for a row, once that is there: an array has its first tile by then, and no other."""
    waiting = weight / machine.cores_per_chiplet - machine.array_tiles * machine.matrix_rows * machine.matrix_columns
    element = _LEAST_BYTES[fmt] / machine.sram_bytes_per_cycle
    by_vector = 1 / max(_VECTOR_PASSES / machine.vector_lanes, element)
    return max(0.0, waiting / (1 / element + by_vector))


def _products_before(op: OnnxOp, products: frozenset[Operation]) -> set[Operation]:
    """The products whose results reach an op without another product between."""
    found, seen = set[Operation](), set[Operation]()
    pending = [value.owner for value in op.operands]
    while pending:
        owner = pending.pop()
        if not isinstance(owner, Operation) or owner in seen:
            continue
        seen.add(owner)
        if owner in products:
            found.add(owner)
        else:
            pending += [value.owner for value in owner.operands]
    return found


def _busy(products: Sequence[OnnxOp], machine: Machine, fmt: str, sizes: Mapping[str, int], latency: float) -> float:
    """How long the arrays take, with what the vector units may do for them."""
    work: list[tuple[float, float, float, bool]] = []
    for op in products:
        count = _multiply_adds(op, sizes)
        rows_at_once = machine.row_cycles[_TYPES[fmt]] / _area(op, machine, sizes)
        flops = work_of(op).flops.evaluate(sizes)
        hold = 2 * _LEAST_BYTES[fmt] * _elements(op.inputs[1], sizes) / flops / machine.sram_bytes_per_cycle
        each = max(hold, rows_at_once) if machine.array_tiles > 1 else hold + rows_at_once
        work.append((each, rows_at_once, count, _one_row(op, flops, sizes)))
    total, most = sum(each[2] for each in work), max(each[0] for each in work)
    low, high = 2 * latency, 2 * latency + most * total / machine.cores
    while high - low > 0.5:
        middle = (low + high) / 2
        enough = _fits(sorted(work, reverse=True), machine, middle, latency)
        low, high = (low, middle) if enough else (middle, high)
    return low


def _largest_tile(
    products: Sequence[OnnxOp], machine: Machine, fmt: str, sizes: Mapping[str, int], latency: float
) -> float:
    """How long a product of several rows takes the core that multiplies most, with one tile in its array."""
    if machine.array_tiles > 1:
        return 0.0
    found = 0.0
    element = _LEAST_BYTES[fmt] / machine.sram_bytes_per_cycle
    for op in products:
        flops = work_of(op).flops.evaluate(sizes)
        if _one_row(op, flops, sizes):
            continue
        area = float(_area(op, machine, sizes))
        work = _multiply_adds(op, sizes) / machine.cores * machine.row_cycles[_TYPES[fmt]]
        # The time falls up to the tile that is in when the first row comes, and has one minimum from there on.
        tiles = [min(area, each) for each in (area, latency / element, sqrt(work / element)) if each > 0]
        best = min(max(latency, tile * element) + work / tile for tile in tiles)
        found = max(found, best + latency)
    return found


def _fits(work: Sequence[tuple[float, float, float, bool]], machine: Machine, cycles: float, latency: float) -> bool:
    """Whether `work` can end in time, what takes longest first.

    Of each product: cycles of an array for a multiply-add, those of them in which it multiplies, how many there are,
    and whether it is of one row.
    """
    by_vector = machine.cores * (cycles - 2 * latency) * machine.vector_lanes / _VECTOR_PASSES
    busy = multiplying = 0.0
    for each, rows_at_once, count, one_row in work:
        taken = min(count, by_vector) if one_row else 0.0
        by_vector -= taken
        busy += each * (count - taken)
        multiplying += rows_at_once * (count - taken)
    return busy <= machine.cores * (cycles - latency) and multiplying <= machine.cores * (cycles - 2 * latency)


def _written(value: SSAValue) -> SSAValue:
    """What has to be written for a result: of a state that is changed where it lies only what is new."""
    op = value.owner
    if not isinstance(op, OnnxOp) or IN_PLACE not in op.attributes or not changes_in_place(op):
        return value
    return op.operands[1] if op.op_type in ("Concat", "TensorScatter") else op.operands[2]


def _one_row(op: OnnxOp, flops: float, sizes: Mapping[str, int]) -> bool:
    """Whether a product's weights are used once each."""
    return op.op_type in ("MatMul", "Gemm") and flops <= 2 * _elements(op.inputs[1], sizes)


def _elements(value: SSAValue | None, sizes: Mapping[str, int]) -> int:
    return prod(dim.evaluate(sizes) for dim in (None if value is None else dims_of(value)) or ())
