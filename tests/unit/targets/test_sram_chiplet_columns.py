"""Few rows whose columns do not divide by the chiplets: each makes the columns that it has, and no result crosses."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.unit.targets.sram_models import Runner, device, model_of, reference, relative_error, segment_of
from tests.unit.targets.test_sram_mapping import on_all_chiplets, work_of

from gimlet.passes.sram_home_weights import Homes
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.dealing import Dealing
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.sram import codegen, products, rules_matrix, trial
from gimlet.targets.sram.builder import Bounds, ProgramBuilder
from gimlet.targets.sram.codegen import generate_for
from gimlet.targets.sram.constants import Constant, Weights
from gimlet.targets.sram.mapping import (
    Mapping,
    Sizes,
    Steps,
    column_tiles,
    columns_of_chiplet,
    has_whole_tiles,
    width_for_chiplets,
)
from gimlet.targets.sram.products import WeightMatrix
from gimlet.targets.sram.trial import quickest, timed

F = TensorProto.FLOAT
EIGHT = Dealing(2048, 8)
ON = device(chiplets=4, cores=16, mx_error_budget=1.0)
MACHINE = Machine(chiplets=4, cores=16)
ERROR = {"fp32": 2e-6, "bf16": 0.02, "mxint8": 0.04}


def row(columns: int, depth: int = 512) -> Sizes:
    return Sizes(1, 1, depth, columns, "f32", "bf16", weights=True, fused=False, fixed=True)


def chain(rows: int, *widths: int):
    """Products one after the other, their input, and what ONNX Runtime makes of it."""
    random = np.random.default_rng(0)
    x = random.standard_normal((rows, widths[0]), np.float32)
    shapes = list(pairwise(widths))
    weights = {f"w{at}": random.standard_normal(shape, np.float32) / shape[0] ** 0.5 for at, shape in enumerate(shapes)}
    nodes = [helper.make_node("MatMul", [f"y{at}", f"w{at}"], [f"y{at + 1}"]) for at in range(len(shapes))]
    model = model_of(nodes, {"y0": (F, x.shape)}, [f"y{len(shapes)}"], weights)
    return model, x, reference(model, y0=x)[0]


@pytest.mark.parametrize(
    ("columns", "width", "kept", "tiles"),
    [
        (1237, 52, 155, 24),  # 52, 52 and 51 of each but the last, which has 48 of them in its third.
        (1248, 52, 0, 24),  # 156 are three times 52, so that all are cut alike.
        (4096, 0, 0, 64),  # 512 are eight times 64.
        (1001, 63, 0, 16),
        (65, 9, 0, 8),
    ],
)
def test_tiles_end_where_the_columns_of_a_chiplet_do(columns, width, kept, tiles):
    assert width_for_chiplets(EIGHT, row(columns), 64) == width
    assert columns_of_chiplet(EIGHT, row(columns), width or 64) == kept
    assert column_tiles(EIGHT, row(columns), width or 64) == tiles


@pytest.mark.parametrize(
    "sizes",
    [
        replace(row(1237), rows=16),
        replace(row(1237), weights=False),
        replace(row(1237), batch=2),
        replace(row(1237), separate=True),
        replace(row(1237), made="mxint8"),
        row(10),
    ],
    ids=["rows are dealt", "no weights", "a batch", "groups", "blocks of 32 would be cut", "a chiplet has none"],
)
def test_others_are_cut_alike(sizes):
    assert width_for_chiplets(EIGHT, sizes, 64) == 0
    assert columns_of_chiplet(EIGHT, sizes, 52) == 0


def test_a_chiplet_with_fewer_tiles_is_not_cut_for_itself():
    """57 columns are eight for seven chiplets, three tiles of at most three, and one for the last."""
    assert columns_of_chiplet(EIGHT, row(57), 3) == 0


def test_one_chiplet_has_all_columns():
    assert width_for_chiplets(Dealing(256, 1), row(1237), 64) == 0


def test_the_vector_unit_has_no_columns_of_tiles_that_differ():
    machine = Machine()
    assert has_whole_tiles(machine, EIGHT, row(1248), 52)
    assert not has_whole_tiles(machine, EIGHT, row(8 * 103), 52)


def test_weights_are_packed_as_chiplets_have_columns():
    """307 columns are 77 for three chiplets, in tiles of 39 and 38, and 76 for the last."""
    matrix = np.arange(64 * 307, dtype=np.float32).reshape(64, 307)
    builder = ProgramBuilder(MACHINE, Bounds({}, {}, {}), Dealing(16, 4), Homes(4, 1 << 19, 4))
    weights = Weights(builder)
    constant = Constant("w", "f32", matrix.shape, lambda: matrix)
    packed = WeightMatrix(weights, constant, "f32", False).packed(
        Steps(256, 64, 39), Mapping(1, 1, 1, True), False, kept=77
    )
    assert packed.shape == tuple(Expr.const(size) for size in (8, 1, 39, 64))
    (stored,) = (read() for read in weights.readers.values())
    for chiplet in range(4):
        for tile, (first, count) in enumerate(((0, 39), (39, 38 if chiplet < 3 else 37))):
            begin = 77 * chiplet + first
            np.testing.assert_array_equal(stored[2 * chiplet + tile, 0, :count], matrix.T[begin : begin + count])
            assert not stored[2 * chiplet + tile, 0, count:].any()


def narrow(machine: Machine, dealing: Dealing, sizes: Sizes, *_: int) -> Machine:
    return replace(machine, matrix_columns=width_for_chiplets(dealing, sizes, machine.matrix_columns))


@pytest.mark.parametrize("fmt", ["fp32", "bf16", "mxint8"])
@pytest.mark.parametrize("rows", [1, 3])
def test_products_of_such_columns_compute_the_same(monkeypatch, rows, fmt):
    """Tiles of the first product are 39 and 38 wide, those of the second 63."""
    monkeypatch.setattr(codegen, "_best_of_variants", on_all_chiplets)
    monkeypatch.setattr(rules_matrix, "converts_tiles", lambda *_: True)
    monkeypatch.setattr(products, "array_for", narrow)
    model, x, expected = chain(rows, 130, 307, 251)
    runner = Runner(segment_of(model, fmt=fmt), fmt, ON)
    kernels = [each for each in runner.executor.program.kernels if each.name.startswith("matmul")]
    steps = [[each.step for each in kernel.grid] for kernel in kernels]
    assert {77, 39} <= set(steps[0])
    assert 63 in steps[1]
    assert relative_error(runner(y0=x)[0], expected) < ERROR[fmt]


@pytest.mark.parametrize("rows", [1, 4])
def test_a_result_does_not_cross(monkeypatch, rows):
    """One latency of a link goes into a product and none out, of tiles cut alike both."""
    slow = replace(Machine(), die_latency_s=10 * Machine().die_latency_s)
    added = 9 * Machine().die_latency_cycles
    sizes = replace(row(1237), rows=rows, by_columns=rows > 1)
    times = {}
    for width in (64, width_for_chiplets(EIGHT, sizes, 64)):
        times[width] = [
            timed(each, EIGHT, sizes, quickest(each, EIGHT, sizes, 1 << 19, 1 << 19), 1 << 19) or 0
            for each in (replace(one, matrix_columns=width) for one in (Machine(), slow))
        ]
    differences = {width: after - before for width, (before, after) in times.items()}
    assert differences[64] > 1.9 * added
    assert differences[52] < 1.1 * added
    assert times[52][0] < times[64][0]


def test_narrow_tiles_are_taken_where_they_are_quicker(monkeypatch):
    work = work_of(chain(2, 610, 2508, 611)[0], "bf16")
    found = generate_for(work, Machine(), "bf16", 2048, 1 << 19).timing.cycles
    monkeypatch.setattr(trial, "width_for_chiplets", lambda *_: 0)
    assert found < 0.85 * generate_for(work, Machine(), "bf16", 2048, 1 << 19).timing.cycles
