"""Mappings of products: every one computes the same numbers, and the chosen one is the quickest by the cycle model."""

from collections import Counter
from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.unit.targets.sram_models import Runner, device, model_of, reference, relative_error, segment_of

from gimlet.passes.sram_home_weights import Homes
from gimlet.runtime.sram.dealing import Dealing
from gimlet.runtime.sram.machine import Machine
from gimlet.runtime.sram.program import Loop
from gimlet.targets.sram import codegen, products, rules_matrix
from gimlet.targets.sram.aligned import aligned_columns, aligned_steps
from gimlet.targets.sram.builder import Bounds, RefusedError
from gimlet.targets.sram.codegen import Generated, Work, generate, generate_for
from gimlet.targets.sram.layout import rows_by_columns
from gimlet.targets.sram.mapping import (
    Mapping,
    Sizes,
    blocks_of,
    choose,
    cycles,
    has_accumulators,
    replicas_of,
    rows_of_chiplet,
)
from gimlet.targets.sram.patch_rows import ByKernel
from gimlet.targets.sram.trial import quickest, timed

F = TensorProto.FLOAT
ON = device(chiplets=2, cores=16)
MACHINE = Machine(chiplets=2, cores=16)
DEALING = Dealing(16, 2)
ERROR = {"fp32": 1e-6, "bf16": 0.01, "mxint8": 0.02}


def product(rows: int, depth: int, columns: int, fmt: str):
    """A runner of one product, its input, and what ONNX Runtime makes of it."""
    random = np.random.default_rng(0)
    x = random.standard_normal((rows, depth), np.float32)
    w = random.standard_normal((depth, columns), np.float32)
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (F, x.shape)}, ["y"], {"w": w})
    return lambda: Runner(segment_of(model, fmt=fmt), fmt, ON), x, reference(model, x=x)[0]


VARIANTS = [
    Mapping(rows=8, splits=1, tiles=4, resident=False),
    Mapping(rows=16, splits=2, tiles=2, resident=False, copies=4),
    Mapping(rows=32, splits=1, tiles=4, resident=False, accumulators=2),
    Mapping(rows=8, splits=1, tiles=4, resident=True),
    Mapping(rows=8, splits=4, tiles=1, resident=True),
    Mapping(rows=8, splits=2, tiles=2, resident=True, replicas=2, accumulators=4),
    Mapping(rows=4, splits=4, tiles=1, resident=True, replicas=8),
    Mapping(rows=8, splits=2, tiles=2, resident=True, replicas=4, accumulators=2),
]


@pytest.mark.parametrize("fmt", ["fp32", "bf16", "mxint8"])
@pytest.mark.parametrize("mapping", VARIANTS, ids=str)
def test_every_mapping_computes_the_product(monkeypatch, mapping, fmt):
    make, x, expected = product(64, 256, 130, fmt)
    monkeypatch.setattr(products, "quickest", lambda *_: mapping)
    runner = make()
    assert relative_error(runner(x=x)[0], expected) < ERROR[fmt]
    copies = {tensor.copies for tensor in runner.executor.program.tensors if tensor.space == "core"}
    assert copies == ({mapping.replicas} if mapping.resident else set())


@pytest.mark.parametrize(
    ("mapping", "ranges"),
    [
        (Mapping(rows=8, splits=2, tiles=2, resident=True, replicas=6), 4),
        (Mapping(rows=7, splits=4, tiles=1, resident=True, replicas=8), 4),
        (Mapping(rows=8, splits=4, tiles=1, resident=True, replicas=3), 3),
        (Mapping(rows=4, splits=2, tiles=2, resident=True, replicas=7), 3),
    ],
    ids=[
        "each chiplet its own",
        "each chiplet its own, a tile stays",
        "on two chiplets",
        "on two chiplets, the last short",
    ],
)
def test_any_number_of_copies_shares_the_rows(monkeypatch, mapping, ranges):
    """49 rows are 25 and 24 on two chiplets, which cut them for themselves or lie across parts of all rows."""
    make, x, expected = product(49, 256, 130, "fp32")
    monkeypatch.setattr(products, "quickest", lambda *_: mapping)
    runner = make()
    assert relative_error(runner(x=x)[0], expected) < ERROR["fp32"]
    (kernel,) = runner.executor.program.kernels
    assert len(kernel.grid) == ranges


@pytest.mark.parametrize("fmt", ["fp32", "bf16", "mxint8"])
@pytest.mark.parametrize(
    ("mapping", "last"),
    [
        (Mapping(rows=5, splits=2, tiles=2, resident=True, replicas=6, accumulators=2), 4),
        (Mapping(rows=6, splits=2, tiles=2, resident=True, replicas=3, accumulators=3), 5),
        (Mapping(rows=6, splits=2, tiles=2, resident=True, replicas=1, accumulators=3), 6),
        (Mapping(rows=10, splits=1, tiles=4, resident=False, accumulators=5), 9),
    ],
    ids=["each chiplet its own", "on two chiplets", "several blocks", "loaded weights"],
)
def test_the_last_accumulator_has_what_the_others_leave(monkeypatch, mapping, last, fmt):
    """49 rows, dealt to the chiplets, in parts, or blocks, that the accumulators do not share equally."""
    monkeypatch.setattr(codegen, "rows_by_columns", lambda *_: frozenset())
    make, x, expected = product(49, 256, 130, fmt)
    sizes = Sizes(1, 49, 256, 130, "f32", "f32", True, False, True)
    assert max(blocks_of(DEALING, sizes, mapping)) - (mapping.accumulators - 1) * mapping.rows == last
    assert has_accumulators(DEALING, sizes, mapping)
    monkeypatch.setattr(products, "quickest", lambda *_: mapping)
    assert relative_error(make()(x=x)[0], expected) < ERROR[fmt]


@pytest.mark.parametrize(
    ("mapping", "blocks"),
    [
        (Mapping(rows=3, splits=2, tiles=2, resident=True, replicas=6, accumulators=3), {9, 7, 6}),
        (Mapping(rows=8, splits=1, tiles=4, resident=True, replicas=1, accumulators=3), {24, 1}),
    ],
    ids=["parts", "blocks"],
)
def test_no_accumulator_is_without_rows(mapping, blocks):
    sizes = Sizes(1, 49, 256, 130, "f32", "f32", True, False, True)
    assert blocks_of(DEALING, sizes, mapping) == blocks
    assert not has_accumulators(DEALING, sizes, mapping)


def test_a_chiplet_cuts_its_own_rows_where_equal_parts_cross():
    dealing = Dealing(2048, 8)
    assert rows_of_chiplet(dealing, 1500, 40) == 188
    assert rows_of_chiplet(dealing, 1024, 16) == 0
    assert rows_of_chiplet(dealing, 1500, 14) == 0
    assert rows_of_chiplet(dealing, 9, 8) == 0
    assert rows_of_chiplet(Dealing(2048, 1), 1500, 40) == 0


def test_copies_that_fill_the_cores_are_tried():
    """144 tiles of weights for 2,048 cores: 14 copies, which no number for each chiplet is."""
    machine = Machine()
    dealing = Dealing(machine.cores, machine.chiplets)
    sizes = Sizes(1, 1500, 384, 1536, "f32", "f32", True, False, True)
    assert 14 in replicas_of(machine, dealing, sizes, 144)
    chosen = quickest(machine, dealing, sizes, 1 << 19, 1 << 19)
    assert chosen.replicas % machine.chiplets
    even = timed(machine, dealing, sizes, replace(chosen, replicas=16), 1 << 19)
    assert (timed(machine, dealing, sizes, chosen, 1 << 19) or 0) < 0.95 * (even or 0)


@pytest.mark.parametrize("fmt", ["fp32", "bf16", "mxint8"])
def test_the_vector_unit_takes_columns_of_a_product_of_one_row(monkeypatch, fmt):
    make, x, expected = product(1, 256, 128, fmt)
    mapping = Mapping(rows=1, splits=2, tiles=2, resident=True, vector_columns=12)
    monkeypatch.setattr(products, "quickest", lambda *_: mapping)
    runner = make()
    assert relative_error(runner(x=x)[0], expected) < ERROR[fmt]
    units = Counter(
        statement.stationary
        for kernel in runner.executor.program.kernels
        for statement in kernel.statements()
        if hasattr(statement, "stationary")
    )
    assert units == {"rhs": 1, "nothing": 1}


@pytest.mark.parametrize(
    ("sizes", "change"),
    [
        (Sizes(1, 1, 4096, 4096, "f32", "f32", True, False, True), {"vector_columns": 0}),
        (Sizes(1, 1024, 1024, 1024, "mxint8", "mxint8", True, False, True), {"accumulators": 1}),
        (Sizes(1, 700, 1300, 900, "mxint8", "mxint8", True, False, True), {"accumulators": 1}),
        (Sizes(1, 1024, 1024, 1024, "f32", "f32", True, False, True), {"resident": False, "replicas": 1}),
    ],
    ids=str,
)
def test_what_a_mapping_is_for(sizes, change):
    """The chosen mapping with one of its means taken away takes longer."""
    machine = Machine()
    dealing = Dealing(machine.cores, machine.chiplets)
    chosen = choose(machine, dealing, sizes, machine.sram_bytes_per_core // 2, 1 << 18)
    without = replace(chosen, **change)
    assert without != chosen
    assert cycles(machine, dealing, sizes, without) > cycles(machine, dealing, sizes, chosen)


@pytest.mark.parametrize("fmt", ["fp32", "mxint8"])
def test_one_program_on_several_cards(fmt):
    """A block of a decoder for four rows on two cards of two chiplets: columns are dealt, and sums cross the cards."""
    random = np.random.default_rng(1)
    weights = {f"w{i}": random.standard_normal((256, 256), np.float32) / 16 for i in range(2)}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["c"]),
        helper.make_node("Softmax", ["c"], ["y"], axis=-1),
    ]
    model = model_of(nodes, {"x": (F, [4, 256])}, ["y"], weights)
    on = device(cards=2, chiplets=8, cores=64)
    runner = Runner(segment_of(model, fmt=fmt), fmt, on)
    program = runner.executor.program
    x = random.standard_normal((4, 256), np.float32)
    assert relative_error(runner(x=x)[0], reference(model, x=x)[0]) < 2 * ERROR[fmt]
    assert (program.cores, program.parts) in ((64, 8), (32, 4), (8, 1))
    whole = generate_for(work_of(model, fmt), program.machine, fmt, 64)
    assert {tensor.width for tensor in whole.program.tensors if tensor.role == "temporary"} >= {256}
    assert whole.timing.traffic.card > 0


def test_inputs_and_outputs_may_be_meant_for_lpddr():
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": (F, [4, 256])}, ["y"])
    machine = Machine(chiplets=2, cores=16)
    near, far, both = (
        generate_for(replace(work_of(model, "fp32"), in_lpddr=frozenset(names)), machine, "fp32", 16)
        for names in ((), ("x",), ("x", "y"))
    )
    assert [near.program.tensor("in0").space, far.program.tensor("in0").space] == ["sram", "lpddr"]
    assert near.timing.traffic.lpddr == 0
    assert far.timing.traffic.lpddr == 4 * 256 * 4
    assert both.timing.traffic.lpddr == 2 * 4 * 256 * 4


def work_of(model, fmt: str) -> Work:
    op = segment_of(model, fmt=fmt).op
    inputs = [(name.data, value) for name, value in zip(op.arg_names, op.body.block.args, strict=True)]
    outputs = [(name.data, value) for name, value in zip(op.res_names, op.results_yielded, strict=True)]
    return Work("block", inputs, outputs, None, {})


def test_rows_that_differ_from_run_to_run_have_one_copy_of_weights():
    sizes = Sizes(1, 64, 256, 64, "f32", "f32", True, False)
    assert choose(MACHINE, DEALING, sizes, 1 << 19, 1 << 19).replicas == 1
    assert choose(MACHINE, DEALING, replace(sizes, fixed=True), 1 << 19, 1 << 19).replicas > 1
    assert choose(MACHINE, DEALING, replace(sizes, fixed=True), 1 << 19, 0).replicas == 1


def test_weights_that_have_no_room_are_loaded():
    sizes = Sizes(1, 64, 256, 256, "f32", "f32", True, False)
    assert choose(MACHINE, DEALING, sizes, 1 << 19, 0).resident
    assert not choose(MACHINE, DEALING, sizes, 0, 0).resident


def test_blocks_go_where_cores_have_least():
    """A layer's products leave cores at different heights; runs of blocks fill them up before they pile up."""
    homes = Homes(cores=8, room=1000)
    assert homes.take(5, 100) == (0, 0)
    assert homes.take(3, 100) == (5, 0)
    assert homes.take(6, 100) == (0, 100)
    assert homes.take(2, 50) == (6, 100)
    assert homes.room == 800
    assert homes.take(16, 10) == (0, 200)
    assert homes.room == 780


def test_more_copies_get_what_one_copy_of_all_weights_leaves():
    homes = Homes(cores=8, room=1000)
    assert homes.spare(10.0) == 0
    homes.demand = 400.0
    homes.products = 10
    # Half of 600 by size, a quarter of all weights, and half in ten equal parts.
    assert homes.spare(100.0) == 105
    homes.demand = 1200.0
    assert homes.spare(100.0) == 0


def test_what_is_cut_off_for_a_result_leaves_before_the_end():
    """Each step's last column is a result: without leaving early, all steps would be in memory until the end."""
    weights = {"begin": np.array([1023]), "end": np.array([1024]), "axis": np.array([1])}
    nodes, value = [], "x"
    for index in range(6):
        nodes.append(helper.make_node("Softmax", [value], [f"t{index}"], axis=-1))
        value = f"t{index}"
    cuts = [helper.make_node("Slice", [f"t{i}", "begin", "end", "axis"], [f"y{i}"]) for i in range(6)]
    model = model_of([*nodes, *cuts], {"x": (F, [64, 1024])}, [f"y{i}" for i in range(6)], weights)
    program = generate_for(work_of(model, "fp32"), Machine(chiplets=2, cores=16), "fp32", 16).program
    used = max(tensor.address + tensor.capacity_bytes for tensor in program.tensors if tensor.space == "sram")
    assert used < 4 * 64 * 1024 * 4


@pytest.mark.parametrize(("channels", "kernel", "steps"), [(3, 7, 3), (16, 7, 14), (40, 3, 6), (64, 3, 9)])
def test_a_convolution_takes_few_steps_along_its_depth(monkeypatch, channels, kernel, steps):
    """Kernel positions and channels fill the array's 64 rows together, whichever of both is cut."""
    # Convolutions this small are quicker in other ways.
    monkeypatch.setattr(rules_matrix, "quickest", ByKernel(None))
    random = np.random.default_rng(0)
    x = random.standard_normal((1, channels, 12, 12), np.float32)
    w = random.standard_normal((8, channels, kernel, kernel), np.float32)
    model = model_of([helper.make_node("Conv", ["x", "w"], ["y"])], {"x": (F, x.shape)}, ["y"], {"w": w})
    runner = Runner(segment_of(model), "fp32", ON)
    assert relative_error(runner(x=x)[0], reference(model, x=x)[0]) < 1e-5
    (conv,) = runner.executor.program.kernels
    found, body = 1, conv.body
    while loops := [each for each in body if isinstance(each, Loop)]:
        found *= -(-loops[0].range.extent.as_int() // loops[0].range.step)
        body = loops[0].body
    assert found == steps


@given(
    st.tuples(st.integers(1, 300), st.integers(1, 400), st.integers(1, 400)),
    st.sampled_from(["f32", "bf16", "mxint8"]),
    st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_what_is_tried_is_never_slower_than_what_looks_best(shape, held, weights):
    rows, depth, columns = shape
    sizes = Sizes(1, rows, depth, columns, held, held, weights, fused=False, fixed=True)
    room = MACHINE.sram_bytes_per_core // 2
    mappings = (each(MACHINE, DEALING, sizes, room, room) for each in (quickest, choose))
    tried, looks_best = (timed(MACHINE, DEALING, sizes, mapping, room) for mapping in mappings)
    assert tried is not None
    assert looks_best is None or tried <= looks_best


def test_what_does_not_fit_is_not_tried():
    sizes = Sizes(1, 64, 256, 256, "f32", "f32", weights=True, fused=False, fixed=True)
    mapping = Mapping(rows=64, splits=4, tiles=1, resident=True)
    assert timed(MACHINE, DEALING, sizes, mapping, 1 << 19) is not None
    assert timed(replace(MACHINE, sram_bytes_per_core=1 << 16), DEALING, sizes, mapping, 1 << 19) is None


def test_a_trial_takes_as_long_as_the_program():
    sizes = Sizes(1, 64, 256, 128, "f32", "f32", weights=True, fused=False, fixed=True)
    runner = product(64, 256, 128, "fp32")[0]()
    program = runner.executor.program
    room = MACHINE.sram_bytes_per_core * 15 // 16
    mapping = quickest(program.machine, DEALING, sizes, room, room)
    assert timed(program.machine, DEALING, sizes, mapping, room) == runner.artifact.facts["cycles"]


def test_items_of_an_elementwise_kernel_are_where_their_rows_are():
    """129 rows on 8 chiplets are 17 each but for the last: so are the rows of an item, or they divide 17."""
    eight = Dealing(2048, 8)
    assert aligned_steps(eight, 129, 3072, (64, 8192), "f32") == (17, 12)
    rows, columns = aligned_steps(eight, 129, 768, (64, 8192), "mxint8") or (0, 0)
    assert columns % 32 == 0
    assert ceil(17 / rows) * ceil(768 / columns) <= 256
    rows, columns = aligned_steps(eight, 577, 900, (64, 8192), "f32") or (0, 0)
    assert rows * columns <= 1.25 * 577 * 900 / 2048


def test_a_core_has_one_item_where_a_second_would_wait_for_its_bias():
    """Of 392 rows of 64 on the 256 cores of a chiplet some would have two items of a row: 98 rows of one column."""
    eight = Dealing(2048, 8)
    assert aligned_steps(eight, 3136, 64, (64, 8192), "f32") == (1, 64)
    rows, columns = aligned_steps(eight, 3136, 64, (64, 8192), "f32", constants=True) or (0, 0)
    assert ceil(392 / rows) * ceil(64 / columns) <= 256


@pytest.mark.parametrize(("rows", "columns"), [(577, 1024), (300, 512), (129, 768)])
def test_an_elementwise_kernel_of_odd_rows_crosses_no_chiplet(rows, columns):
    model = model_of([helper.make_node("Sqrt", ["x"], ["y"])], {"x": (F, [rows, columns])}, ["y"])
    timing = generate_for(work_of(model, "fp32"), Machine(), "fp32", 2048).timing
    assert timing.traffic.die == 0


def test_items_of_columns_are_where_their_columns_are():
    """768 columns are 96 on each of eight chiplets: an item has some that divide them."""
    eight = Dealing(2048, 8)
    assert aligned_columns(eight, 129, 768, 64, 64, 32) == 32
    assert aligned_columns(eight, 128, 4096, 256, 256, 32) == 256
    assert aligned_columns(eight, 128, 1000, 64, 64, 32) == 64
    assert aligned_columns(eight, 128, 1004, 64, 64, 1) == 64


@pytest.mark.parametrize(
    ("rows", "columns", "limits"),
    [(9, 100, (64, 8192)), (17 * 8, 1 << 20, (64, 16))],
    ids=["a chiplet would have none", "a tile of a row is too large"],
)
def test_rows_that_cannot_be_shared_equally_are_not_kept_together(rows, columns, limits):
    found = aligned_steps(Dealing(2048, 8), rows, columns, limits, "mxint8")
    assert found is None


@pytest.mark.parametrize(("rows", "depth", "columns"), [(129, 768, 3072), (197, 768, 768), (700, 1300, 900)])
def test_odd_rows_cross_no_chiplet(rows, depth, columns):
    """What a product reads and writes of rows that do not divide by the chiplets stays on them."""
    machine = Machine()
    sizes = Sizes(1, rows, depth, columns, "mxint8", "mxint8", True, False, True)
    dealing = Dealing(machine.cores, machine.chiplets)
    mapping = quickest(machine, dealing, sizes, 1 << 19, 1 << 19)
    slow = replace(machine, die_latency_s=10 * machine.die_latency_s, die_bytes_per_s=1e11)
    here, there = (timed(each, dealing, sizes, mapping, 1 << 19) for each in (machine, slow))
    assert mapping.replicas > 1
    assert here == there


def columns_of(rows: int, depth: int, columns: int, fmt: str = "bf16") -> frozenset[int]:
    """For which numbers of rows a product with weights of `depth` by `columns` is dealt by columns."""
    weights = {"w": np.zeros((depth, columns), np.float32)}
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (F, [rows, depth])}, ["y"], weights)
    machine, bounds = Machine(), Bounds({}, {}, {})
    results = segment_of(model, fmt=fmt).op.results_yielded
    dealing = Dealing(machine.cores, machine.chiplets)
    return rows_by_columns(results, [], machine, dealing, bounds, fmt, 1 << 19)


def test_columns_are_dealt_where_weights_are_large_beside_the_rows():
    assert columns_of(64, 2048, 4096) == {64}
    assert columns_of(64, 256, 1024) == frozenset()


def test_one_chiplet_deals_nothing():
    found = rows_by_columns([], [], Machine(chiplets=1), Dealing(2048, 1), Bounds({}, {}, {}), "bf16", 1 << 19)
    assert found == frozenset()


def on_all_chiplets(work: Work, machine: Machine, fmt: str, cores: int, room: int, turns: int | None) -> Generated:
    if turns is not None or cores < machine.cores:
        raise RefusedError("one chiplet has all columns")
    return generate_for(work, machine, fmt, cores, room)


@pytest.mark.parametrize("fmt", ["fp32", "bf16", "mxint8"])
def test_a_product_with_columns_dealt_computes_the_same(monkeypatch, fmt):
    """Tensors of 24 rows are dealt by columns on two chiplets, the product, what stands behind it and the next one."""

    monkeypatch.setattr(codegen, "rows_by_columns", lambda *_: frozenset({24}))
    monkeypatch.setattr(codegen, "_best_of_variants", on_all_chiplets)
    random = np.random.default_rng(0)
    x, v, w = (random.standard_normal(shape, np.float32) for shape in ((24, 160), (160, 130), (130, 96)))
    v, w = v / 12, w / 12
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"]),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["c"]),
        helper.make_node("Softmax", ["c"], ["y"]),
    ]
    model = model_of(nodes, {"x": (F, x.shape)}, ["y"], {"v": v, "w": w})
    runner = Runner(segment_of(model, fmt=fmt), fmt, ON)
    assert {tensor.width for tensor in runner.executor.program.tensors if tensor.role == "output"} >= {96}
    assert relative_error(runner(x=x)[0], reference(model, x=x)[0]) < 5 * ERROR[fmt]


@pytest.mark.parametrize("splits", [1, 3])
def test_copies_of_a_tile_of_columns_lie_on_its_chiplet(monkeypatch, splits):
    """Three copies of the weights share 24 rows of columns that are dealt, and no sum crosses between chiplets."""
    mapping = Mapping(rows=8, splits=splits, tiles=3 // splits, resident=True, replicas=3)
    monkeypatch.setattr(codegen, "rows_by_columns", lambda *_: frozenset({24}))
    monkeypatch.setattr(products, "quickest", lambda *_: mapping)
    monkeypatch.setattr(codegen, "_best_of_variants", on_all_chiplets)
    random = np.random.default_rng(0)
    x, w = random.standard_normal((24, 192), np.float32), random.standard_normal((192, 256), np.float32)
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (F, x.shape)}, ["y"], {"w": w})
    runner = Runner(segment_of(model), "fp32", ON)
    (weight,) = [each for each in runner.executor.program.tensors if each.space == "core"]
    assert (weight.copies, weight.together) == (3, splits)
    assert relative_error(runner(x=x)[0], x @ w) < ERROR["fp32"]
    assert generate_for(work_of(model, "fp32"), MACHINE, "fp32", 16, 1 << 19).timing.traffic.die == x.nbytes


def test_columns_are_dealt_only_where_the_program_is_quicker():
    """64 rows by 2,048 x 4,096 take fewer cycles with columns dealt, and the program is the one of both that does."""
    weights = {"w": np.zeros((2048, 4096), np.float32)}
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (F, [64, 2048])}, ["y"], weights)
    work, machine = work_of(model, "bf16"), Machine()
    by_columns, by_rows = (
        generate_for(work, machine, "bf16", machine.cores, 1 << 19, columns=columns) for columns in (True, False)
    )
    assert by_columns.by_columns
    assert not by_rows.by_columns
    assert by_columns.timing.cycles < 0.9 * by_rows.timing.cycles
    assert generate(work, machine, "bf16").timing.cycles <= by_columns.timing.cycles


def test_products_that_a_segment_is_given_do_not_decide():
    """The first of two products has rows that the segment around the second knows nothing of."""
    names = {"v": np.zeros((2048, 2048), np.float32), "w": np.zeros((2048, 4096), np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "v"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    block = segment_of(model_of(nodes, {"x": (F, ["n", 2048])}, ["y"], names), fmt="bf16").op
    last = block.results_yielded[0].owner
    machine = Machine()
    dealing = Dealing(machine.cores, machine.chiplets)
    known, unknown = (Bounds(sizes, sizes, sizes) for sizes in ({"n": 64}, {}))
    given = [last.operands[0]]
    assert rows_by_columns(block.results_yielded, [], machine, dealing, known, "bf16", 1 << 19) == {64}
    assert rows_by_columns(given, given, machine, dealing, known, "bf16", 1 << 19) == frozenset()
    assert rows_by_columns(block.results_yielded, given, machine, dealing, unknown, "bf16", 1 << 19) == frozenset()
