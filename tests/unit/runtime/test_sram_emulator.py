"""The emulator: every instruction against numpy, and every fault with the place where it happened."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.runtime.sram_programs import access, exprs, kernel, matmul_program, program, resident_program, run

from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.binding import bind
from gimlet.runtime.sram.cycles import time_program
from gimlet.runtime.sram.emulator import Emulator
from gimlet.runtime.sram.faults import MachineError
from gimlet.runtime.sram.formats import encode, round_bf16, round_mxint8
from gimlet.runtime.sram.functions import FUNCTIONS
from gimlet.runtime.sram.ordering import synchronised
from gimlet.runtime.sram.program import (
    Access,
    Axis,
    Dim,
    Fill,
    Gather,
    Iota,
    Load,
    Loop,
    Map,
    Program,
    Range,
    Reduce,
    Store,
    Tensor,
    Tile,
)
from gimlet.runtime.sram.verify import verify

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def vector_program(body, tiles, shape=(5, 7), out=None, dtype="f32", out_dtype="f32") -> Program:
    """Loads x into tile `a` and whatever `body` leaves in tile `r` into y, in one item."""
    out = shape if out is None else out
    load = Load("a", access("x", shape, [0] * len(shape), shape))
    store = Store(access("y", out, [0] * len(out), out), "r")
    made = kernel([], [Tile("a", dtype, shape), *tiles], [load, *body, store])
    return program([made], {"x": (dtype, shape)}, {"y": (out_dtype, out)})


@given(m=st.integers(1, 300), depth=st.integers(1, 150), columns=st.integers(1, 150))
@settings(max_examples=25, deadline=None)
def test_matmul(m, depth, columns):
    each = matmul_program("m", depth, columns)
    verify(each)
    x, w = normal(m, depth), normal(depth, columns)
    found = run(each, x=x, w=w)["y"]
    limit = 64 * 2.0**-24 * (np.abs(x) @ np.abs(w)).max()
    np.testing.assert_allclose(found, x.astype(np.float64) @ w.astype(np.float64), rtol=0, atol=max(limit, 1e-6))


def test_matmul_of_integers_is_exact():
    each = matmul_program(40, 200, 70, "i8")
    verify(each)
    x, w = (RNG.integers(-128, 128, shape).astype(np.int8) for shape in ((40, 200), (200, 70)))
    np.testing.assert_array_equal(run(each, x=x, w=w)["y"], x.astype(np.int64) @ w.astype(np.int64))


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"copy"}))
def test_every_function_runs_on_numbers_and_tiles(name):
    function = FUNCTIONS[name]
    logic = function.kind == "logic"
    dtype = "i1" if logic else "f32"
    out = "i1" if function.kind in ("test", "logic") else "f32"
    values = RNG.random((5, 7)) > 0.5 if logic else np.abs(normal(5, 7)) + 0.5
    operands = ("a", *(0.75 if not logic else 1 for _ in range(function.arity - 1)))
    if function.kind == "select":
        operands = ("t", "a", 0.75)
    parameters = (0.5, 0.25)[: function.parameters]
    tiles = [Tile("r", out, (5, 7)), Tile("t", "i1", (5, 7))]
    body = [Map("greater", "t", ("a", 1.0))] if function.kind == "select" else []
    each = vector_program([*body, Map(name, "r", operands, parameters)], tiles, dtype=dtype, out_dtype=out)
    verify(each)
    numbers = [np.float32(0.75) if not logic else True] * (function.arity - 1)
    arguments = [values > 1.0, values, np.float32(0.75)] if function.kind == "select" else [values, *numbers]
    expected = np.broadcast_to(function.compute(*arguments, *parameters), (5, 7))
    np.testing.assert_allclose(run(each, x=values)["y"], expected, rtol=1e-6)


REFERENCE = {
    "gelu": lambda x: 0.5 * x * (1 + np.vectorize(__import__("math").erf)(x / np.sqrt(2))),
    "erf": np.vectorize(__import__("math").erf),
    "hard_swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "rsqrt": lambda x: 1 / np.sqrt(np.abs(x)),
}


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_functions_are_what_their_names_say(name):
    x = np.linspace(-5, 5, 101, dtype=np.float32)
    x = np.abs(x) + np.float32(0.1) if name == "rsqrt" else x
    found = FUNCTIONS[name].compute(x)
    np.testing.assert_allclose(found, REFERENCE[name](x.astype(np.float64)), rtol=2e-5, atol=1e-6)


def test_division_of_integers_is_towards_zero():
    a, b = np.array([7, -7, 7, -7]), np.array([2, 2, -2, -2])
    assert FUNCTIONS["div"].compute(a, b).tolist() == [3, -3, -3, 3]


@pytest.mark.parametrize(("function", "axes"), [("sum", (1,)), ("max", (0,)), ("min", (0, 1)), ("prod", (1,))])
def test_reduce(function, axes):
    out = tuple(1 if axis in axes else size for axis, size in enumerate((5, 7)))
    each = vector_program([Reduce(function, "r", "a", axes)], [Tile("r", "f32", out)], out=out)
    verify(each)
    x = normal(5, 7)
    expected = {"sum": np.sum, "max": np.max, "min": np.min, "prod": np.prod}[function](x, axis=axes, keepdims=True)
    np.testing.assert_allclose(run(each, x=x)["y"], expected, rtol=1e-5)


def test_operands_of_size_one_are_repeated():
    column, row = normal(5, 1), normal(1, 7)
    loads = [Load("a", access("x", (5, 1), (0, 0), (5, 1))), Load("b", access("z", (1, 7), (0, 0), (1, 7)))]
    body = [*loads, Map("sub", "r", ("a", "b")), Store(access("y", (5, 7), (0, 0), (5, 7)), "r")]
    tiles = [Tile("a", "f32", (5, 1)), Tile("b", "f32", (1, 7)), Tile("r", "f32", (5, 7))]
    each = program([kernel([], tiles, body)], {"x": ("f32", (5, 1)), "z": ("f32", (1, 7))}, {"y": ("f32", (5, 7))})
    np.testing.assert_array_equal(run(each, x=column, z=row)["y"], column - row)


@pytest.mark.parametrize(("dtype", "rounded"), [("bf16", round_bf16), ("mxint8", round_mxint8)])
def test_tiles_round_what_is_written(dtype, rounded):
    tiles = [Tile("q", dtype, (3, 40)), Tile("r", "f32", (3, 40))]
    each = vector_program([Map("copy", "q", ("a",)), Map("copy", "r", ("q",))], tiles, shape=(3, 40))
    verify(each)
    x = normal(3, 40)
    np.testing.assert_array_equal(run(each, x=x)["y"], rounded(x))


def test_iota_counts_from_the_position():
    m = Range("m", Expr.const(10), 4)
    body = [
        Iota("r", (m.size, Expr.const(2)), 0, m.start + 3, 2),
        Store(access("y", (10, 2), (m.start, 0), (m.size, 2)), "r"),
    ]
    each = program([kernel([m], [Tile("r", "i64", (4, 2))], body)], {}, {"y": ("i64", (10, 2))})
    verify(each)
    expected = [3 + start + 2 * i for start in (0, 4, 8) for i in range(min(4, 10 - start))]
    np.testing.assert_array_equal(run(each)["y"], np.repeat(np.array(expected)[:, None], 2, axis=1))


def test_fill_takes_an_expression_over_dimensions():
    body = [Fill("r", exprs(1), Expr.parse("2*n + 1")), Store(access("y", (1,), (0,), (1,)), "r")]
    each = program(
        [kernel([], [Tile("r", "i64", (1,))], body)],
        {"x": ("f32", ("n",))},
        {"y": ("i64", (1,))},
        dims=[Dim("n", 1, 2, 9)],
    )
    assert run(each, x=normal(6))["y"].tolist() == [13]


def conv_access(fill: float | None = 0.0) -> Access:
    """Rows of a 3-tap window over `x[8]` with a border of one: the tile is [position, tap]."""
    axes = ((Axis(0, 1, Expr.const(8)),), (Axis(0, 1, Expr.const(3)),))
    return Access("x", exprs(8), exprs(-1), axes, fill)


def window_program(fill: float | None) -> Program:
    body = [Load("r", conv_access(fill)), Store(access("y", (8, 3), (0, 0), (8, 3)), "r")]
    return program([kernel([], [Tile("r", "f32", (8, 3))], body)], {"x": ("f32", (8,))}, {"y": ("f32", (8, 3))})


@pytest.mark.parametrize("fill", [0.0, -inf])
def test_padding_reads_as_the_fill(fill):
    x = normal(8)
    padded = np.concatenate([[fill], x, [fill]]).astype(np.float32)
    expected = np.lib.stride_tricks.sliding_window_view(padded, 3)
    np.testing.assert_array_equal(run(window_program(fill), x=x)["y"], expected)


def gather_program(rows: int = 6) -> Program:
    n = Range("n", Expr.symbol("n"), 4)
    data = Access("d", exprs(rows, 5), exprs(0, 0), ((Axis(0, 1, n.size),), (Axis(1, 1, Expr.const(5)),)))
    body = [
        Load("i", access("x", ("n",), (n.start,), (n.size,))),
        Gather("r", data, "i", 0),
        Store(access("y", ("n", 5), (n.start, 0), (n.size, 5)), "r"),
    ]
    tiles = [Tile("i", "i64", (4,)), Tile("r", "f32", (4, 5))]
    inputs = {"x": ("i64", ("n",)), "d": ("f32", (rows, 5))}
    return program([kernel([n], tiles, body)], inputs, {"y": ("f32", ("n", 5))}, dims=[Dim("n", 1, 4, 20)])


def test_gather():
    data, indices = normal(6, 5), RNG.integers(0, 6, 11)
    verify(gather_program())
    np.testing.assert_array_equal(run(gather_program(), x=indices, d=data)["y"], data[indices])


def test_a_loop_may_depend_on_the_size_of_its_item():
    m, k = Range("m", Expr.const(10), 4), Range("k", Expr.symbol("r.m.size"), 3)
    body = [
        Fill("r", exprs(1), 0),
        Loop(
            k,
            (
                Load("a", access("x", (10,), (m.start + k.start,), (k.size,))),
                Reduce("sum", "s", "a", (0,)),
                Map("add", "r", ("r", "s")),
            ),
        ),
        Store(access("y", (3,), (m.index,), (1,)), "r"),
    ]
    tiles = [Tile("r", "f32", (1,)), Tile("a", "f32", (3,)), Tile("s", "f32", (1,))]
    each = program([kernel([m], tiles, body)], {"x": ("f32", (10,))}, {"y": ("f32", (3,))})
    verify(each)
    x = normal(10)
    np.testing.assert_allclose(run(each, x=x)["y"], [x[:4].sum(), x[4:8].sum(), x[8:].sum()], rtol=1e-5)


def test_weights_come_from_the_file():
    each = matmul_program(8, 16, 8)
    w = normal(16, 8)
    tensors = tuple(replace(t, role="weight", offset=64) if t.name == "w" else t for t in each.tensors)
    each = replace(each, tensors=tensors, inputs=each.inputs[:1])
    data = np.frombuffer(b"\0" * 64 + encode("f32", w), np.uint8)
    x = normal(8, 16)
    np.testing.assert_allclose(Emulator(each, data).run({"x": x}, {})["y"], x @ w, rtol=1e-5, atol=1e-5)
    with pytest.raises(MachineError, match="ends at byte 576 of a file of 100"):
        Emulator(each, data[:100]).run({"x": x}, {})


def copy_kernel(source: str, target: str, n: Range, name: str, shift: int = 0, dtype: str = "f32"):
    body = [
        Load("a", access(source, (10,), (n.start + shift,), (n.size,))),
        Store(access(target, (10,), (n.start,), (n.size,)), "a"),
    ]
    return kernel([n], [Tile("a", dtype, (2,))], body, name)


N = Range("n", Expr.const(10), 2)
TEN = ("f32", (10,))


def test_weights_in_place():
    x, w = normal(1, 256), normal(256, 64)
    parts = run(resident_program(), w, x=x)["y"]
    np.testing.assert_allclose(parts, [x[0, at : at + 64] @ w[at : at + 64] for at in range(0, 256, 64)], rtol=1e-5)
    moved = run(resident_program(first=6, home=6), w, x=x)["y"]
    np.testing.assert_array_equal(parts, moved)


def test_parts_are_added_in_the_order_of_the_items():
    x, w = normal(1, 256), normal(256, 64)
    expected = np.zeros((1, 64), np.float32)
    for part in run(resident_program(), w, x=x)["y"]:
        expected += part
    np.testing.assert_array_equal(run(resident_program(adds=True), w, x=x)["y"], expected)


@pytest.mark.parametrize(
    ("wrong", "core", "message"),
    [
        ({"first": 1}, 1, "reads block 0 of tensor w in place, which is on core 0"),
        ({"home": 2}, 0, "reads block 0 of tensor w in place, which is on core 2"),
        ({"block": 96 * 64}, 1, "reads block 0 of tensor w in place, which is on more than one core"),
    ],
)
def test_fault_on_a_block_of_another_core(wrong, core, message):
    each = resident_program(**wrong)
    verify(each)
    with pytest.raises(MachineError, match=message) as fault:
        run(each, normal(256, 64), x=normal(1, 256))
    assert fault.value.place is not None
    assert fault.value.place.core == core


def test_fault_on_adding_to_what_was_written():
    adding = resident_program(adds=True)
    (adds,) = adding.kernels
    writes = replace(adds, name="writes", grid=(replace(adds.grid[0], extent=Expr.const(64)),))
    writes = replace(writes, body=(*writes.body[:-1], replace(writes.body[-1], adds=False)))
    with pytest.raises(MachineError, match="adds to tensor y, which another kernel has written"):
        run(replace(adding, kernels=(writes, adds)), normal(256, 64), x=normal(1, 256))
    with pytest.raises(MachineError, match="writes tensor y, to which another kernel has added"):
        run(replace(adding, kernels=(adds, writes)), normal(256, 64), x=normal(1, 256))


def test_several_kernels_add_to_a_tensor():
    each = resident_program(adds=True)
    twice = synchronised(replace(each, kernels=(each.kernels[0], replace(each.kernels[0], name="again"))))
    w, x = normal(256, 64), normal(1, 256)
    (once,), (found,) = run(each, w, x=x).values(), run(twice, w, x=x).values()
    np.testing.assert_allclose(found, 2 * once, rtol=1e-5)


def test_an_accumulator_begins_in_the_first_step():
    """What the tile held before the loop is not read: it may be anything, even nothing."""
    made = matmul_program(40, 150, 70)
    body = made.kernels[0].body
    loop = body[1]
    assert isinstance(loop, Loop)
    fresh = replace(loop.body[2], begins="k")
    loop = replace(loop, body=(*loop.body[:2], fresh))
    x, w = normal(40, 150), normal(150, 70)
    filled = run(made, x=x, w=w)["y"]
    bare = replace(made, kernels=(replace(made.kernels[0], body=(loop, body[2])),))
    np.testing.assert_array_equal(run(bare, x=x, w=w)["y"], filled)


def test_fault_outside_a_tensor():
    each = program([copy_kernel("x", "y", N, "shifted", shift=1)], {"x": TEN}, {"y": TEN})
    with pytest.raises(MachineError, match="position 10 is outside dimension 0 of size 10 of tensor x") as fault:
        run(each, x=normal(10))
    # The fifth item is the one that goes too far; x lies at 0 and its elements take 4 bytes.
    assert str(fault.value).startswith("kernel shifted, instruction 0 (load), core 4, cycle 0, address 0x28: ")


def test_fault_below_a_tensor():
    with pytest.raises(MachineError, match="position -1 is outside dimension 0 of size 8 of tensor x"):
        run(window_program(None), x=normal(8))


def test_fault_on_a_tensor_never_written():
    each = program([copy_kernel("t", "y", N, "copy")], {"x": TEN}, {"y": TEN}, {"t": TEN})
    with pytest.raises(MachineError, match="reads tensor t, which was never written"):
        run(each, x=normal(10))


def test_fault_on_elements_never_written():
    half = Range("n", Expr.const(6), 2)
    kernels = [copy_kernel("x", "t", half, "half"), copy_kernel("t", "y", N, "all")]
    each = program(kernels, {"x": TEN}, {"y": TEN}, {"t": TEN})
    with pytest.raises(MachineError, match="reads elements of tensor t that were never written") as fault:
        run(each, x=normal(10))
    assert fault.value.place is not None
    assert (fault.value.place.kernel, fault.value.place.core) == ("all", 3)


def test_fault_on_an_incomplete_output():
    each = program([copy_kernel("x", "y", Range("n", Expr.const(8), 2), "most")], {"x": TEN}, {"y": TEN})
    with pytest.raises(MachineError, match="output y is not complete"):
        run(each, x=normal(10))


def test_fault_on_two_tensors_in_one_place():
    """Tensor u takes the place of t, which is read again after that."""
    kernels = [copy_kernel("x", "t", N, "a"), copy_kernel("x", "u", N, "b"), copy_kernel("t", "y", N, "c")]
    each = program(kernels, {"x": TEN}, {"y": TEN}, {"t": TEN, "u": TEN})
    address = each.tensor("t").address
    tensors = tuple(replace(t, address=address + 16) if t.name == "u" else t for t in each.tensors)
    with pytest.raises(MachineError, match="reads tensor t, which was overwritten by u, which shares its address"):
        run(replace(each, tensors=tensors), x=normal(10))


def test_fault_on_two_writers():
    overlapping = Range("n", Expr.const(5), 1)
    body = [
        Load("a", access("x", (10,), (overlapping.start,), (2,))),
        Store(access("y", (10,), (overlapping.start,), (2,)), "a"),
    ]
    each = program([kernel([overlapping], [Tile("a", "f32", (2,))], body)], {"x": TEN}, {"y": TEN})
    with pytest.raises(MachineError, match="4 elements of tensor y have two writers"):
        run(each, x=normal(10))


def test_fault_on_items_that_write_the_same():
    body = [Fill("a", exprs(10), 1.0), Store(access("y", (10,), (0,), (10,)), "a")]
    each = program([kernel([N], [Tile("a", "f32", (10,))], body)], {}, {"y": TEN})
    with pytest.raises(MachineError, match="all steps of n write the same elements of tensor y"):
        run(each)


def test_fault_on_a_second_write():
    kernels = [copy_kernel("x", "y", N, "a"), copy_kernel("x", "y", N, "b")]
    with pytest.raises(MachineError, match="writes tensor y, which is complete, a second time"):
        run(program(kernels, {"x": TEN}, {"y": TEN}), x=normal(10))


def test_fault_on_a_tile_never_written():
    body = [Map("neg", "r", ("a",)), Store(access("y", (10,), (0,), (10,)), "r")]
    each = program([kernel([], [Tile("a", "f32", (10,)), Tile("r", "f32", (10,))], body)], {}, {"y": TEN})
    with pytest.raises(MachineError, match="reads tile a at 0x0 before anything wrote it"):
        run(each)


def test_a_deadlock_says_where_and_when():
    """The second kernel waits for the third, which is behind it in the queues of every core."""
    kernels = [copy_kernel("x", "t", N, "a"), copy_kernel("t", "u", N, "b"), copy_kernel("x", "y", N, "c")]
    load, store = kernels[1].body
    kernels[1] = replace(kernels[1], body=(replace(load, after=("a", "c")), store))
    each = program(kernels, {"x": TEN}, {"y": TEN}, {"t": TEN, "u": TEN})
    verify(each)
    with pytest.raises(MachineError, match="deadlock: waits for kernel c") as fault:
        run(each, x=normal(10))
    place = fault.value.place
    begun = next(k.end for k in time_program(bind(each, {})).kernels if k.name == "a") + each.machine.semaphore_cycles
    assert (place.kernel, place.opcode, place.core, place.address) == ("b", "load", 0, each.tensor("t").address)
    assert place.cycle == pytest.approx(begun, abs=1)


def test_a_kernel_that_waits_for_itself_is_a_deadlock():
    (made,) = [copy_kernel("x", "y", N, "a")]
    load, store = made.body
    each = program([replace(made, body=(load, replace(store, after=("a",))))], {"x": TEN}, {"y": TEN})
    with pytest.raises(MachineError, match="deadlock: waits for kernel a"):
        run(each, x=normal(10))


def test_fault_on_a_tile_that_overflows():
    body = [Load("a", access("x", (10,), (0,), (10,))), Store(access("y", (10,), (0,), (10,)), "a")]
    each = program([kernel([], [Tile("a", "f32", (9,))], body)], {"x": TEN}, {"y": TEN})
    with pytest.raises(MachineError, match=r"writes \[10\] into tile a, which holds \[9\]"):
        run(each, x=normal(10))


def test_fault_on_a_store_of_another_size():
    body = [Load("a", access("x", (10,), (0,), (10,))), Store(access("y", (10,), (0,), (5,)), "a")]
    each = program([kernel([], [Tile("a", "f32", (10,))], body)], {"x": TEN}, {"y": TEN})
    with pytest.raises(MachineError, match=r"stores tile a of \[10\] as \[5\]"):
        run(each, x=normal(10))


def test_fault_on_a_product_that_does_not_fit():
    each = matmul_program(8, 16, 8)
    loop = each.kernels[0].body[1]
    assert isinstance(loop, Loop)
    wrong = Load("b", access("w", (16, 8), (0, 0), (15, 8)))
    body = (each.kernels[0].body[0], replace(loop, body=(loop.body[0], wrong, loop.body[2])), each.kernels[0].body[2])
    each = replace(each, kernels=(replace(each.kernels[0], body=body),))
    with pytest.raises(MachineError, match=r"multiplies \[8, 16\] · \[15, 8\] into \[8, 8\]"):
        run(each, x=normal(8, 16), w=normal(16, 8))


def test_fault_on_an_index_outside():
    indices = np.array([0, 1, 2, 3, 4, 6])
    with pytest.raises(MachineError, match="index 6 is outside dimension 0 of size 6 of d") as fault:
        run(gather_program(), x=indices, d=normal(6, 5))
    assert fault.value.place is not None
    assert fault.value.place.core == 1


def test_fault_on_a_view_of_another_size():
    body = [Load("a", access("x", (11,), (0,), (10,))), Store(access("y", (10,), (0,), (10,)), "a")]
    each = program([kernel([], [Tile("a", "f32", (10,))], body)], {"x": TEN}, {"y": TEN})
    with pytest.raises(MachineError, match=r"sees tensor x of 10 elements as \[11\]"):
        run(each, x=normal(10))


def test_fault_on_a_part_of_a_block():
    body = [
        Load("a", access("x", (64,), (0,), (64,))),
        Map("copy", "q", ("a",)),
        Store(access("y", (64,), (0,), (16,)), "q"),
    ]
    each = program(
        [kernel([], [Tile("a", "f32", (64,)), Tile("q", "mxint8", (64,))], body)],
        {"x": ("f32", (64,))},
        {"y": ("mxint8", (64,))},
    )
    short = Load("a", access("x", (64,), (0,), (16,)))
    each = replace(each, kernels=(replace(each.kernels[0], body=(short, *body[1:])),))
    with pytest.raises(MachineError, match="stores a part of a block of 32 to tensor y"):
        run(each, x=normal(64))


def test_sizes_out_of_bounds():
    each = matmul_program("m", 8, 8)
    emulator = Emulator(each, np.zeros(0, np.uint8))
    with pytest.raises(InputError, match="dimension 'm' is 301, this program was compiled for 1 to 300"):
        emulator.bind({"m": 301})
    with pytest.raises(InputError, match="dimension 'm' has no size"):
        emulator.bind({})


def test_a_tensor_that_outgrows_its_memory():
    each = matmul_program("m", 8, 8)
    tensors = tuple(replace(t, capacity_bytes=64) if t.name == "x" else t for t in each.tensors)
    with pytest.raises(InputError, match="tensor x takes 320 bytes at these sizes, 64 are allocated"):
        Emulator(replace(each, tensors=tensors), np.zeros(0, np.uint8)).bind({"m": 10})


def test_runs_share_nothing():
    each = matmul_program("m", 30, 20)
    emulator = Emulator(each, np.zeros(0, np.uint8))
    x, w = normal(7, 30), normal(30, 20)
    first = emulator.run({"x": x, "w": w}, {"m": 7})["y"].copy()
    emulator.run({"x": normal(9, 30), "w": normal(30, 20)}, {"m": 9})
    np.testing.assert_array_equal(emulator.run({"x": x, "w": w}, {"m": 7})["y"], first)


def test_a_tensor_may_be_in_lpddr():
    each = matmul_program(8, 16, 8)
    tensors: list[Tensor] = [replace(t, space="lpddr") for t in each.tensors]
    each = replace(each, tensors=tuple(tensors))
    verify(each)
    x, w = normal(8, 16), normal(16, 8)
    np.testing.assert_allclose(run(each, x=x, w=w)["y"], x @ w, rtol=1e-5, atol=1e-5)
