"""Softmax of a few long rows, each made by many cores.

Every item takes a piece of a row, and its powers relative to the largest of the piece:

    first:   mᵢ = max(piece),  e = exp(piece − mᵢ),  sᵢ = sum(e)
    second:  m = max over all mᵢ,  e · exp(mᵢ − m) / sum over all sᵢ · exp(mᵢ − m)

Two kernels with a few numbers of each piece between them, instead of one that waits for the whole row.
"""

from __future__ import annotations

from math import ceil

from gimlet.runtime.expr import ONE, ZERO, Expr, ceildiv
from gimlet.runtime.sram.dealing import Dealing
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.sram.builder import Bounds
from gimlet.targets.sram.lowering import Lowering
from gimlet.targets.sram.views import Counter, View

LARGEST_FLOAT = 3.4028234663852886e38
SMALLEST_FLOAT = 1.1754943508222875e-38
_LEAST_PIECE = 64
_MOST_PIECES = 64
_ELEMENT_CYCLES = 0.5
"""What a core takes for an element of a row, by the cycle model."""
_SMALL_CYCLES = 60
"""What a core takes for the numbers of all pieces."""
_LEAST_SHARE = 4


def pieces_of(machine: Machine, dealing: Dealing, bounds: Bounds, rows: Expr, length: Expr) -> int | None:
    """The elements of a piece where many cores make a row sooner than one; None where one does."""
    best, count = bounds.best(length), bounds.best(rows)
    if count * _LEAST_SHARE > dealing.cores or not bounds.never_empty(length):
        return None
    piece = max(_LEAST_PIECE, ceil(best / min(_MOST_PIECES, dealing.cores // count)))
    latency = machine.network_latency_cycles
    if count <= dealing.parts > 1:  # A chiplet has no whole rows.
        latency += machine.die_latency_cycles
        latency += machine.card_latency_cycles if dealing.cores > machine.cores_per_card else 0
    saved, added = _ELEMENT_CYCLES * (best - piece), 2 * latency + machine.semaphore_cycles + _SMALL_CYCLES
    return piece if saved > added else None


def shared_softmax(lowering: Lowering, rows: View, piece: int, log: bool, masked: bool, dtype: str) -> View:
    """Softmax, or its logarithm, of each row [rows, length]; of a row that is `masked` as a whole, zeros."""
    builder = lowering.builder
    height, length = rows.shape
    pieces = ceildiv(length, Expr.const(piece))
    powers = builder.temporary("f32", rows.shape)
    largest, sums = (builder.temporary("f32", (height, pieces)) for _ in range(2))
    target = builder.temporary(dtype, rows.shape)
    with builder.kernel("softmax_pieces") as kernel:
        row, column = kernel.range(height, 1), kernel.range(length, piece)
        begin, tile = (row.start, column.start), ((Counter(0, row.size),), (Counter(1, column.size),))
        one = ((Counter(0, row.size),), (Counter(1, ONE),))
        given = kernel.load(rows, begin, tile, (1, piece), repeated=True)
        # Of a piece of −∞ alone the largest is finite, so that its powers are zeros.
        high = kernel.map("max", [kernel.reduce("max", given, [1]), -LARGEST_FLOAT])
        shifted = kernel.map("sub", [given, high])
        power = kernel.map("exp", [shifted])
        kernel.store(powers, begin, tile, shifted if log else power)
        kernel.store(largest, (row.start, column.index), one, high)
        kernel.store(sums, (row.start, column.index), one, kernel.reduce("sum", power, [1]))
    with builder.kernel("log_softmax" if log else "softmax") as kernel:
        row, column = kernel.range(height, 1), kernel.range(length, piece)
        begin, tile = (row.start, column.start), ((Counter(0, row.size),), (Counter(1, column.size),))
        one = ((Counter(0, row.size),), (Counter(1, ONE),))
        every, most = ((Counter(0, row.size),), (Counter(1, pieces),)), (1, builder.bounds.most(pieces))
        highs = kernel.load(largest, (row.start, ZERO), every, most, repeated=True)
        totals = kernel.load(sums, (row.start, ZERO), every, most, repeated=True)
        own = kernel.load(largest, (row.start, column.index), one, (1, 1))
        given = kernel.load(powers, begin, tile, (1, piece), repeated=True)
        high = kernel.reduce("max", highs, [1])
        weights = kernel.map("exp", [kernel.map("sub", [highs, high])])
        total = kernel.reduce("sum", kernel.map("mul", [totals, weights]), [1])
        behind = kernel.map("sub", [own, high])
        if log:
            found = kernel.map("add", [given, kernel.map("sub", [behind, kernel.map("log", [total])])])
        else:
            total = kernel.map("max", [total, SMALLEST_FLOAT]) if masked else total
            found = kernel.map("mul", [given, kernel.map("div", [kernel.map("exp", [behind]), total])])
        kernel.store(target, begin, tile, found)
    return target
