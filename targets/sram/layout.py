"""Whether chiplets share the rows or the columns of what a segment computes.

With rows dealt to chiplets, every chiplet multiplies with all weights: it has a copy of its own, or loads them. With
columns dealt, a chiplet has a part of the weights, once, and all rows come to it. That is quicker where weights are
large beside the rows: 128 rows by a matrix of 4,096 × 4,096 put 4,096 tiles into arrays for 128 rows each, instead of
32,768 for 16. Tensors with as many rows are laid out alike, so that what one product makes is where the next needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from math import prod

from xdsl.ir import Operation, SSAValue

from gimlet.dialects.onnx import OnnxOp, dims_of
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.dealing import Dealing
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.sram.builder import COLUMNS_A_CHIPLET, Bounds
from gimlet.targets.sram.mapping import Sizes
from gimlet.targets.sram.precision import integer_weight_shape, product_types, weight_shape
from gimlet.targets.sram.trial import cycles_of

_MOST_ROWS = 1024


def rows_by_columns(
    results: Iterable[SSAValue],
    given: Iterable[SSAValue],
    machine: Machine,
    dealing: Dealing,
    bounds: Bounds,
    fmt: str,
    room: int,
) -> frozenset[int]:
    """The numbers of rows, at their maximum, of tensors whose columns chiplets share, beyond those of a few rows.

    `results` are what is wanted of what is `given`; the products with weights between them decide, all that have as
    many rows together. `room` is what a core has for weights.
    """
    if dealing.parts == 1 or machine.dataflow != "rhs":
        return frozenset()
    products, inside = _products(results, set(given))
    ops = [op for op in products if _known(op, bounds)]
    types = product_types(ops, fmt, machine, bounds.optimum, inside=inside)
    gained: dict[int, float] = {}
    for op, dtype in types.items():
        found = _sizes(op, dtype, bounds)
        if found is None or not dealing.parts < found[0] <= _MOST_ROWS:
            continue
        most, by_rows, by_columns = found
        if by_rows.columns < COLUMNS_A_CHIPLET * dealing.parts:
            continue
        spent = [cycles_of(machine, dealing, sizes, room, room) for sizes in (by_rows, by_columns)]
        gained[most] = gained.get(most, 0.0) + spent[0] - spent[1]
    return frozenset(most for most, cycles in gained.items() if cycles > 0)


def _products(results: Iterable[SSAValue], given: AbstractSet[SSAValue]) -> tuple[list[OnnxOp], set[Operation]]:
    """Matrix products that results depend on, up to what is given, and all ops that they depend on."""
    found: dict[OnnxOp, None] = {}
    seen, pending = set[Operation](), list(results)
    while pending:
        value = pending.pop()
        op = value.owner
        if value in given or not isinstance(op, OnnxOp) or op in seen:
            continue
        seen.add(op)
        if op.op_type in ("MatMul", "Gemm") and not op.domain:
            found[op] = None
        pending += op.operands
    return list(found), seen


def _sizes(op: OnnxOp, dtype: str, bounds: Bounds) -> tuple[int, Sizes, Sizes] | None:
    """The most rows of a product with weights, and its sizes with rows and with columns dealt. None for others."""
    dims, shape = dims_of(op.results[0]), integer_weight_shape(op) if dtype == "i8" else weight_shape(op)
    if not dims or shape is None or 0 in shape:
        return None
    rows = dims[:-1]
    most, best = (prod(size(dim) for dim in rows) for size in (bounds.most, bounds.best))
    fixed = all(bounds.fixed(dim) for dim in rows)
    by_rows = Sizes(1, best, shape[0], shape[1], dtype, dtype, weights=True, fused=False, fixed=fixed)
    return most, by_rows, replace(by_rows, by_columns=True)


def _known(op: OnnxOp, bounds: Bounds) -> bool:
    """Whether all dimensions of what a product reads and makes have bounds."""
    shapes = [dims_of(value) for value in (*op.operands, *op.results)]
    return all(shape is not None and _bounded(shape, bounds.maximum) for shape in shapes)


def _bounded(shape: Iterable[Expr], sizes: Mapping[str, int]) -> bool:
    return all(symbol in sizes for dim in shape for symbol in dim.symbols)
