"""The cycle model: bounds that it never beats, what speeds it up, and what it charges for."""

from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.runtime.sram_programs import (
    MACHINE,
    access,
    kernel,
    matmul_program,
    program,
    resident_program,
    two_kernels,
)

from gimlet.runtime.expr import Expr
from gimlet.runtime.sram import queues
from gimlet.runtime.sram.binding import bind
from gimlet.runtime.sram.cycles import Timing, time_program
from gimlet.runtime.sram.machine import Machine
from gimlet.runtime.sram.program import Load, Loop, Map, Program, Range, Store, Tile
from gimlet.runtime.sram.queues import UNITS

TEN_THOUSAND = 10240


def timed(each: Program, **sizes: int) -> Timing:
    return time_program(bind(each, sizes))


def in_lpddr(each: Program) -> Program:
    return replace(each, tensors=tuple(replace(t, space="lpddr") for t in each.tensors))


def copies(elements: int, step: int, machine: Machine = MACHINE, function: str = "relu") -> Program:
    """An elementwise function of a vector, `step` elements an item."""
    n = Range("n", Expr.const(elements), step)
    body = [
        Load("a", access("x", (elements,), (n.start,), (n.size,))),
        Map(function, "b", ("a",)),
        Store(access("y", (elements,), (n.start,), (n.size,)), "b"),
    ]
    tiles = [Tile("a", "f32", (step,), 2), Tile("b", "f32", (step,))]
    made = kernel([n], tiles, body)
    return program([made], {"x": ("f32", (elements,))}, {"y": ("f32", (elements,))}, machine=machine)


@given(
    m=st.integers(1, 300),
    depth=st.integers(1, 400),
    columns=st.integers(1, 400),
    dtype=st.sampled_from(["f32", "bf16", "i8"]),
    lpddr=st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_never_below_the_bound(m, depth, columns, dtype, lpddr):
    """The bound is written out here from shapes and figures, not from the program."""
    each = matmul_program("m", depth, columns, dtype)
    each = in_lpddr(each) if lpddr else each
    found = timed(each, m=m).cycles
    item = {"f32": 4, "bf16": 2, "i8": 1}[dtype]
    compute = 2 * m * depth * columns / (2 * MACHINE.cores * 64 * 64 / MACHINE.row_cycles[dtype])
    moved = item * (m * depth + depth * columns) + 4 * m * columns
    assert found >= compute
    assert found >= moved / (MACHINE.cores * MACHINE.sram_bytes_per_cycle)
    if lpddr:
        assert found >= moved / MACHINE.lpddr_bytes_per_cycle


@pytest.mark.parametrize(
    "faster",
    [
        {"sram_bytes_per_cycle": 122},
        {"network_bytes_per_cycle": 122},
        {"lpddr_bytes_per_s": 0.8e12},
        {"lpddr_latency_cycles": 10},
        {"die_bytes_per_s": 4e12},
        {"card_bytes_per_s": 1e15},
        {"network_latency_cycles": 1},
        {"semaphore_cycles": 1},
        {"vector_lanes": 128},
        {"row_cycles": {"f32": 8.0, "bf16": 8.0, "i8": 4.0}},
        {"issue_cycles": 1},
    ],
    ids=lambda change: next(iter(change)),
)
@given(m=st.integers(1, 300), depth=st.integers(1, 300), columns=st.integers(1, 200), lpddr=st.booleans())
@settings(max_examples=8, deadline=None)
def test_a_better_machine_is_never_slower(faster, m, depth, columns, lpddr):
    slow, quick = (matmul_program("m", depth, columns, machine=each) for each in (MACHINE, replace(MACHINE, **faster)))
    if lpddr:
        slow, quick = in_lpddr(slow), in_lpddr(quick)
    assert timed(quick, m=m).cycles <= timed(slow, m=m).cycles


@pytest.mark.parametrize("depth", [64 * 3, 64 * 40 + 5])
@pytest.mark.parametrize("copies_of_tiles", [1, 2])
def test_the_steady_state_stands_for_the_whole_walk(monkeypatch, depth, copies_of_tiles):
    each = matmul_program(2000, depth, 70, copies=copies_of_tiles)
    quick = timed(each)
    monkeypatch.setattr(queues, "_WALKED", 10**9)
    whole = timed(each)
    assert quick.cycles == pytest.approx(whole.cycles, rel=0.02)
    for unit, share in whole.utilisation.items():
        assert quick.utilisation[unit] == pytest.approx(share, rel=0.03)


def test_a_second_copy_of_tiles_hides_the_loads():
    """With one copy, a load waits for the product that reads the tile; with two it runs beside it."""
    one, two = (timed(matmul_program(32, 64 * 50, 64, copies=each)) for each in (1, 2))
    busy = two.kernels[0].busy["array"] + two.kernels[0].busy["matrix"]
    assert one.cycles > busy + 50 * MACHINE.network_latency_cycles
    assert two.cycles < one.cycles
    assert two.cycles < busy * 1.1 + 1000


def test_a_held_tile_is_loaded_into_the_array_once():
    """64 × 64 f32 at 61 bytes a cycle are 268.6 cycles, charged when the tile changes and not for each product."""
    each = matmul_program(32, 64, 64)
    made = each.kernels[0]
    loop = made.body[1]
    assert isinstance(loop, Loop)
    product = loop.body[2]
    twice = replace(
        each, kernels=(replace(made, body=(made.body[0], replace(loop, body=(*loop.body, product)), made.body[2])),)
    )
    first, second = timed(each).kernels[0].busy, timed(twice).kernels[0].busy
    rows = 32 * MACHINE.row_cycles["f32"]
    assert (first["array"], first["matrix"]) == (64 * 64 * 4 / 61, rows)
    assert (second["array"], second["matrix"]) == (first["array"], 2 * rows)


def test_a_tile_of_bytes_takes_67_cycles_and_its_product_8():
    """The reference part: 4,096 bytes at 61 a cycle for the tile, one row of 64 by 64 bytes in 8."""
    busy = timed(matmul_program(1, 64, 64, "i8", Machine())).kernels[0].busy
    assert (int(busy["array"]), busy["matrix"]) == (67, 8)


@pytest.mark.parametrize(("tiles", "waits"), [(1, True), (2, False)])
def test_a_second_tile_in_the_array_hides_its_loading(tiles, waits):
    machine = replace(MACHINE, array_tiles=tiles)
    found = timed(matmul_program(64, 64 * 40, 64, "i8", machine, step=64, copies=4)).kernels[0]
    assert (found.cycles > found.busy["array"] + found.busy["matrix"]) == waits


def test_only_what_another_kernel_writes_waits_for_it():
    """The weights of the second kernel are under way while the first one works: all that waits is the rows."""
    each = two_kernels()
    load_w, load_x = (s for s in each.kernels[1].statements() if isinstance(s, Load))
    assert (load_w.after, load_x.after) == ((), ("first",))
    first, second = timed(each).kernels
    assert second.begin < first.end
    assert second.stalls["dma_in", "semaphore"] > 0
    slow = timed(two_kernels(replace(MACHINE, semaphore_cycles=5000)))
    assert slow.cycles == timed(each).cycles + 5000 - MACHINE.semaphore_cycles


def test_tiles_in_the_memory_of_the_kernel_before_wait_for_it():
    each = two_kernels()
    first, second = each.kernels
    rows, weights, total = second.tiles
    moved = (replace(rows, address=1 << 16), replace(weights, address=0), total)
    found = timed(replace(each, kernels=(first, replace(second, tiles=moved))))
    assert found.kernels[1].stalls["dma_in", "memory of another kernel"] > 0


def test_weights_in_place_move_nothing():
    each = resident_program()
    moved = timed(each).kernels[0]
    assert moved.busy["dma_in"] == 4 * 4 * 64 / MACHINE.network_bytes_per_cycle
    assert moved.busy["array"] == 4 * 64 * 64 * 4 / MACHINE.sram_bytes_per_cycle


def test_adding_reads_and_writes_what_was_there():
    """Storing 64 numbers moves them twice; adding them reads the sum too."""
    store, add = (timed(resident_program(adds=adds)).traffic.sram for adds in (False, True))
    assert add - store == 4 * 64 * 4


def test_every_stall_has_a_reason():
    """What a unit does, what it waits for and what is left at the end are all cycles of the busiest core."""
    timing = timed(matmul_program(300, 300, 300))
    for each in timing.kernels:
        for unit in UNITS:
            waited = sum(cycles for (stalled, _), cycles in each.stalls.items() if stalled == unit)
            assert each.busy[unit] / min(each.items, MACHINE.cores) + waited <= each.cycles + 1


def test_vector_passes():
    relu, exponential = (timed(copies(64 * 64, 4096, function=name)) for name in ("relu", "exp"))
    # Both are held back by SRAM: 4,096 elements read and written at 61 bytes a cycle; exp by its 4 passes less.
    assert relu.kernels[0].busy["vector"] == exponential.kernels[0].busy["vector"] == ceil(4096 * 8 / 61)
    quick = replace(MACHINE, sram_bytes_per_cycle=4096)
    busy = [timed(copies(4096, 4096, quick, name)).kernels[0].busy["vector"] for name in ("relu", "exp")]
    assert busy == [64, 4 * 64]


def test_a_shared_load_is_read_once():
    """All 8 column tiles of the result read the same rows of x: LPDDR sees them once."""
    each = in_lpddr(matmul_program(32, 64, 512))
    expected = 4 * (32 * 64 + 64 * 512 + 32 * 512)
    assert timed(each).traffic.lpddr == pytest.approx(expected)


def test_chiplets_pay_for_what_crosses():
    one, two = (timed(replace(copies(TEN_THOUSAND, 64), cores=cores)) for cores in (4, 8))
    assert one.traffic.die == 0
    assert two.traffic.die == pytest.approx(TEN_THOUSAND * 8 / 2)


CARDS = replace(MACHINE, cards=2, chiplets=4)


def dealt(each: Program, parts: int) -> Program:
    return replace(each, parts=parts)


def test_what_is_dealt_alike_crosses_no_link():
    """Items of an elementwise kernel are on the chiplet, and the card, that has their elements."""
    each = copies(TEN_THOUSAND, 64, CARDS)
    assert timed(dealt(each, 4)).traffic.die == timed(dealt(each, 4)).traffic.card == 0
    round_robin = timed(each).traffic
    assert round_robin.die == pytest.approx(TEN_THOUSAND * 8 * 3 / 4)
    assert round_robin.card == pytest.approx(TEN_THOUSAND * 8 / 2)


def test_another_card_is_further_and_slower():
    each = copies(TEN_THOUSAND, 64, CARDS)
    near = timed(dealt(each, 4)).cycles
    far = timed(each)
    assert far.cycles > near + 2 * (CARDS.die_latency_cycles + CARDS.card_latency_cycles)
    slow = timed(replace(each, machine=replace(CARDS, card_bytes_per_s=1e9)))
    assert slow.kernels[0].limit == "card"
    assert slow.cycles >= far.traffic.card / (2 * 1e9 / CARDS.clock_hz)


def test_columns_are_dealt_where_a_tensor_says_so():
    """Items of column tiles of two rows: with runs of elements half of what they store belongs to another chiplet."""
    m, n = Range("m", Expr.const(2), 2), Range("n", Expr.const(512), 64)
    place = [access(name, (2, 512), (m.start, n.start), (m.size, n.size)) for name in ("x", "y")]
    body = [Load("a", place[0]), Store(place[1], "a")]
    made = program(
        [kernel([n, m], [Tile("a", "f32", (2, 64))], body)], {"x": ("f32", (2, 512))}, {"y": ("f32", (2, 512))}
    )
    by_elements = dealt(made, 2)
    by_columns = replace(by_elements, tensors=tuple(replace(tensor, width=512) for tensor in made.tensors))
    assert timed(by_columns).traffic.die == 0
    assert timed(by_elements).traffic.die == pytest.approx(2 * 2 * 512 * 4 / 2)


def rows_of(rows: int, columns: int, step: int, across: int) -> Program:
    """A copy of `rows` whose items have `step` of them and a part of the columns, dealt to two chiplets."""
    m, n = Range("m", Expr.const(rows), step), Range("n", Expr.const(columns), across)
    place = [access(name, (rows, columns), (m.start, n.start), (m.size, n.size)) for name in ("x", "y")]
    body = [Load("a", place[0]), Store(place[1], "a")]
    shape = (rows, columns)
    made = program(
        [kernel([m, n], [Tile("a", "f32", (step, across))], body)], {"x": ("f32", shape)}, {"y": ("f32", shape)}
    )
    return dealt(made, 2)


def test_rows_are_not_cut_between_chiplets():
    """Five rows of ten columns: three on the first chiplet and two on the other, as items of three rows have them."""
    assert timed(rows_of(5, 10, 3, 3)).traffic.die == 0
    assert timed(rows_of(5, 10, 2, 3)).traffic.die > 0


def test_a_tile_that_is_not_full_reaches_no_further_than_its_row():
    """The last of four columns of tiles has one column of ten, not the first two of the next row."""
    assert timed(rows_of(6, 10, 1, 3)).traffic.die == 0


def test_lpddr_can_be_what_decides():
    slow = replace(MACHINE, lpddr_bytes_per_s=1e9, lpddr_latency_cycles=1)
    timing = timed(in_lpddr(copies(1 << 16, 1024, slow)))
    assert timing.cycles >= (1 << 16) * 8 / slow.lpddr_bytes_per_cycle
    assert timing.utilisation["lpddr"] > 0.9


def test_seconds_are_cycles_of_the_clock():
    timing = timed(copies(100, 100))
    assert timing.seconds == timing.cycles / MACHINE.clock_hz
    assert timing.cycles == timing.kernels[0].cycles > MACHINE.network_latency_cycles


def test_an_empty_kernel_takes_no_time():
    assert timed(copies(0, 4)).cycles == 0


def test_a_kernel_without_items_passes_on_what_it_waits_for():
    first, second = two_kernels().kernels
    empty = copies(0, 4).kernels[0]
    empty = replace(empty, name="empty", body=tuple(_waits(each, "first") for each in empty.body))
    loop = second.body[1]
    assert isinstance(loop, Loop)
    of_w, of_t, product = loop.body
    second = replace(second, body=(second.body[0], replace(loop, body=(of_w, _waits(of_t, "empty"), product))))
    found = timed(replace(two_kernels(), kernels=(first, empty, second))).kernels
    assert found[1].end >= found[0].end
    assert found[2].stalls["dma_in", "semaphore"] > 0


def _waits(statement, name: str):
    return replace(statement, after=(name,)) if isinstance(statement, Load | Store) else statement


def test_utilisation_is_a_share():
    found = timed(matmul_program(2000, 512, 512)).utilisation
    assert set(found) == {"dma_in", "dma_out", "array", "matrix", "vector", "sram", "lpddr", "die", "card"}
    assert all(0 <= share <= 1 for share in found.values())
    assert found["matrix"] > 0.5
