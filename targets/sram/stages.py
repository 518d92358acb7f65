"""Products of one row in parts, so that a product that depends on another begins before that has ended.

What one product stores takes some hundred cycles until the next can load it, in which a core puts one tile into its
array and waits. Where both are known, the first makes every other tile of its columns and then the rest, and the second
multiplies what comes with those while the rest is under way:

    y = x · A, z = y · B:   y[even] = x · A[:, even]        z  = y[even] · B[even]
                            y[odd]  = x · A[:, odd]         z += y[odd] · B[odd]

A product between two others does both, the second half of its depth in two halves of its columns. Every other tile, so
that either half is dealt to the chiplets as all of it is. Every part has to keep all cores equally busy, or there are
no parts.
"""

from __future__ import annotations

from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.sram.tiles import Part
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.lowering import Lowering, shape_of
from gimlet.targets.sram.mapping import largest_steps
from gimlet.targets.sram.precision import weight_of
from gimlet.targets.sram.tiling import label_of
from gimlet.targets.sram.views import View


def parts_of(lowering: Lowering, op: OnnxOp, left: SSAValue, lhs: View, depth: int, columns: int) -> tuple[Part, ...]:
    """The parts of a product with weights of `depth` by `columns` in order, none where it is in one."""
    builder = lowering.builder
    given = lowering.plan.next(op).parts()
    if given is not None:
        _check_parts(op, lowering, given, lhs, depth, columns)
        if any(part.columns is not None for part in given):
            lowering.halves.add(op.results[0])
        return given
    steps, cores = largest_steps(builder.machine), builder.cores
    streams = lowering.parts and builder.machine.dataflow == "rhs" and builder.homes.room > 0 and lhs.dtype == "f32"
    one_row = all(size.is_constant and size.as_int() == 1 for size in lhs.shape[:-1])
    if not streams or not one_row or depth % steps.depth or columns % steps.columns:
        return ()
    deep, wide = depth // steps.depth, columns // steps.columns
    halves = left in lowering.halves and deep % 2 == 0 and (deep // 2) * wide % cores == 0
    piece = deep // 2 if halves else deep
    split = _product_reads(lowering, op) and wide % 2 == 0 and piece * (wide // 2) % cores == 0
    if split:
        lowering.halves.add(op.results[0])
    second = 1 if halves else None
    columns_of_second = (Part(second, 0), Part(second, 1)) if split else (Part(second),)
    if not halves:
        return columns_of_second if split else ()
    return (Part(0), *columns_of_second)


def _check_parts(op: OnnxOp, lowering: Lowering, parts: tuple[Part, ...], lhs: View, depth: int, columns: int) -> None:
    """RefusedError where parts are given that cannot be made: of other than one row in f32, of tiles without halves."""
    steps = largest_steps(lowering.builder.machine)
    one_row = all(size.is_constant and size.as_int() == 1 for size in lhs.shape[:-1]) and lhs.dtype == "f32"
    for part in parts:
        halved = [(part.depth, depth, steps.depth), (part.columns, columns, steps.columns)]
        if not one_row or any(size % ((1 if half is None else 2) * step) for half, size, step in halved):
            raise RefusedError(f"tiles of {label_of(op)}: parts are halves of whole tiles, for one row in f32")


def _product_reads(lowering: Lowering, op: OnnxOp) -> bool:
    """Whether all that reads a product's result is one product with weights, which streams it."""
    value = op.results[0]
    readers = lowering.readers.get(value, [])
    if value in lowering.results or len(readers) != 1 or not isinstance(reader := readers[0], OnnxOp):
        return False
    if reader.op_type != "MatMul" or reader.domain or reader.inputs[0] is not value or reader.inputs[1] is None:
        return False
    found = weight_of(reader.inputs[1])
    return found is not None and len(shape_of(found[0])) == 2
