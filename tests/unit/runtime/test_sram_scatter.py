"""A state of the SRAM machine, and the instruction that changes it at computed positions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.runtime.sram_programs import access, exprs, kernel, program

from gimlet.dialects.sram.assembly import assemble, disassemble
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.binding import bind
from gimlet.runtime.sram.cycles import time_program
from gimlet.runtime.sram.emulator import Emulator
from gimlet.runtime.sram.encoding import dumps, loads
from gimlet.runtime.sram.faults import MachineError
from gimlet.runtime.sram.functions import UPDATES
from gimlet.runtime.sram.ordering import synchronised
from gimlet.runtime.sram.program import (
    Access,
    Axis,
    Binding,
    Dim,
    Gather,
    Load,
    Loop,
    Program,
    Range,
    Scatter,
    Store,
    Tile,
)
from gimlet.runtime.sram.verify import verify

WIDTH = 6
TILES = (Tile("i", "i64", (4,), 2), Tile("u", "f32", (4, 3), 2), Tile("r", "f32", (1, WIDTH)))


def state_program(rows: int = 10, ordered: bool = True, items_along: bool = False) -> Program:
    """`s[x] = u` for a state `s`, then `y = s[0]`. Items have columns, or (`items_along`) updates."""
    n, c = Range("n", Expr.symbol("n"), 4), Range("c", Expr.const(WIDTH), 3)
    target = Access("s", exprs(rows, WIDTH), (Expr.of(0), c.start), ((Axis(0, 1, n.size),), (Axis(1, 1, c.size),)))
    body = (
        Load("i", access("x", ("n",), (n.start,), (n.size,))),
        Load("u", access("u", ("n", WIDTH), (n.start, c.start), (n.size, c.size))),
        Scatter(target, "u", "i", 0),
    )
    put = kernel((c, n), TILES[:2], body, "put") if items_along else kernel((c,), TILES[:2], (Loop(n, body),), "put")
    first = access("s", (rows, WIDTH), (0, 0), (1, WIDTH))
    look = kernel(
        (), TILES[2:], (Load("r", first), Store(replace(first, tensor="y", shape=exprs(1, WIDTH)), "r")), "look"
    )
    inputs = {"x": ("i64", ("n",)), "u": ("f32", ("n", WIDTH)), "s": ("f32", (rows, WIDTH))}
    made = program((put, look), inputs, {"y": ("f32", (1, WIDTH))}, dims=[Dim("n", 1, 1, 12)])
    tensors = tuple(replace(each, role="state") if each.name == "s" else each for each in made.tensors)
    made = replace(made, tensors=tensors, outputs=(*made.outputs, Binding("after", "s")))
    return synchronised(made) if ordered else made


def changed(made: Program, at, in_place=(), rows: int = 10):
    """The state before, what is put into it, and the outputs."""
    state = np.arange(rows * WIDTH, dtype=np.float32).reshape(rows, WIDTH)
    new = -np.arange(len(at) * WIDTH, dtype=np.float32).reshape(len(at), WIDTH)
    inputs = {"x": np.array(at, np.int64), "u": new, "s": state}
    return state, new, Emulator(made, np.zeros(0, np.uint8)).run(inputs, {"n": len(at)}, in_place)


@given(at=st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_rows_are_changed_and_of_two_for_one_position_the_later_stays(at):
    state, new, found = changed(state_program(), at)
    expected = state.copy()
    for row, position in enumerate(at):
        expected[position] = new[row]
    np.testing.assert_array_equal(found["after"], expected)
    np.testing.assert_array_equal(found["y"], expected[:1])


def with_function(made: Program, function: str) -> Program:
    """The program with a scatter that puts elements together."""
    put = made.kernels[0]
    loop = put.body[0]
    assert isinstance(loop, Loop)
    body = tuple(replace(each, function=function) if isinstance(each, Scatter) else each for each in loop.body)
    return replace(made, kernels=(replace(put, body=(replace(loop, body=body),)), *made.kernels[1:]))


@pytest.mark.parametrize("function", UPDATES)
@given(at=st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_elements_at_one_position_are_put_together_in_order(function: str, at: list[int]):
    made = with_function(state_program(), function)
    state, new, found = changed(made, at)
    expected = state.copy()
    for row, position in enumerate(at):
        expected[position] = UPDATES[function](expected[position], new[row])
    np.testing.assert_array_equal(found["after"], expected)
    assert loads(dumps(made)) == made
    assert assemble(disassemble(made)) == made


def test_what_is_added_is_read_before_it_is_written():
    plain, adding = (
        time_program(bind(each, {"n": 12})).traffic for each in (state_program(), with_function(state_program(), "add"))
    )
    assert adding.sram == plain.sram + 12 * WIDTH * 4


def test_only_a_state_that_may_be_is_changed_where_it_is():
    state, _, found = changed(state_program(), [3])
    np.testing.assert_array_equal(state, np.arange(60).reshape(10, 6))
    assert not np.may_share_memory(state, found["after"])
    state, new, found = changed(state_program(), [3], in_place=["s"])
    np.testing.assert_array_equal(state[3], new[0])
    assert np.may_share_memory(state, found["after"])


@pytest.mark.parametrize("at", [[10], [-1], [0, 10]])
def test_a_position_outside_is_a_fault_of_the_data(at):
    with pytest.raises(MachineError, match=rf"index {at[-1]} is outside dimension 0 of size 10 of s") as fault:
        changed(state_program(), at)
    assert fault.value.from_data
    assert fault.value.place is not None
    assert (fault.value.place.kernel, fault.value.place.opcode) == ("put", "scatter")


def test_items_that_change_one_element_are_a_fault():
    made = state_program(items_along=True)
    changed(made, [0, 1, 2, 3, 4])
    with pytest.raises(MachineError, match="two items change element 12 of tensor s"):
        changed(made, [0, 1, 2, 3, 2])


def test_what_was_never_written_is_not_changed():
    made = state_program()
    tensors = tuple(replace(each, role="temporary") if each.name == "s" else each for each in made.tensors)
    made = replace(made, tensors=tensors, inputs=made.inputs[:2])
    with pytest.raises(MachineError, match="reads tensor s, which was never written"):
        changed(made, [1])


def test_a_tile_of_another_size_is_a_fault():
    made = state_program()
    put = made.kernels[0]
    loop = put.body[0]
    assert isinstance(loop, Loop)
    _, load, scatter = loop.body
    assert isinstance(load, Load)
    for wrong, message in (
        (replace(load, access=access("u", ("n", WIDTH), (0, 0), (1, 3))), r"scatters tile u of \[1, 3\] as \[2, 3\]"),
        (Load("i", access("x", ("n",), (0,), (1,))), "scatters 2 elements with "),
    ):
        body = replace(loop, body=(loop.body[0], load, wrong, scatter))
        with pytest.raises(MachineError, match=message):
            changed(synchronised(replace(made, kernels=(replace(put, body=(body,)), made.kernels[1]))), [1, 2])


def test_what_is_stored_and_what_is_spelled_reads_back():
    made = state_program()
    verify(made)
    assert loads(dumps(made)) == made
    assert assemble(disassemble(made)) == made


def test_who_reads_a_state_waits_for_what_changes_it():
    put, look = state_program().kernels
    assert [each.after for each in look.statements() if isinstance(each, Load)] == [("put",)]
    made = state_program(ordered=False)
    with pytest.raises(MachineError, match="kernel look does not wait for put before it moves tensor s"):
        verify(made)
    made = synchronised(replace(made, kernels=(look, put)))
    assert [each.after for each in made.kernels[1].statements() if isinstance(each, Scatter)] == [("look",)]


def wrong_kernel(*statements, tiles=TILES, role="state") -> Program:
    made = state_program()
    tensors = tuple(replace(each, role=role) if each.name == "s" else each for each in made.tensors)
    return replace(made, kernels=(kernel((), tiles, statements),), tensors=tensors)


ROWS = Access("s", exprs(10, WIDTH), exprs(0, 0), ((Axis(0, 1, Expr.of(4)),), (Axis(1, 1, Expr.of(3)),)))
PUT = Scatter(ROWS, "u", "i", 0)
MX = (TILES[0], Tile("u", "mxint8", (4, 32)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (replace(state_program(), outputs=()), "state s is not both an input and an output"),
        (replace(state_program(), inputs=state_program().inputs[:2]), "state s is not both an input and an output"),
        (
            replace(state_program(), tensors=tuple(replace(e, address=0) for e in state_program().tensors)),
            "state s shares its memory with x",
        ),
        (wrong_kernel(Store(ROWS, "u")), "stores to tensor s, which is a state: it can only be changed"),
        (wrong_kernel(PUT, role="input"), "stores to tensor s, which is an input"),
        (wrong_kernel(PUT, Load("u", ROWS)), "loads and stores tensor s"),
        (wrong_kernel(PUT, Store(ROWS, "u"), role="temporary"), "stores tensor s and changes it"),
        (wrong_kernel(replace(PUT, axis=2)), "scatters along dimension 2 of the tile, which has not one counter"),
        (wrong_kernel(replace(PUT, indices="u")), "tile u has rank 2, not 1"),
        (wrong_kernel(replace(PUT, function="sub")), "scatters f32 by sub: f32 and i32 are, by add, max, min, mul"),
        (wrong_kernel(replace(PUT, access=replace(ROWS, fill=0.0))), "a store has no fill"),
        (
            wrong_kernel(replace(PUT, tile="r", access=replace(ROWS, tensor="x"))),
            "moves i64 of tensor x to or from f32",
        ),
        (
            replace(
                wrong_kernel(PUT, tiles=MX),
                tensors=tuple(replace(e, dtype="mxint8") if e.name == "s" else e for e in wrong_kernel(PUT).tensors),
            ),
            "scatters elements that share an exponent",
        ),
    ],
)
def test_rules(wrong, message):
    with pytest.raises(MachineError, match=message):
        verify(wrong)


def test_it_takes_what_is_moved_however_large_the_state_is():
    def cycles(rows: int) -> int:
        return time_program(bind(state_program(rows), {"n": 1})).cycles

    assert cycles(10) == cycles(10_000)


def test_a_scatter_costs_no_less_than_a_gather_of_as_much():
    made = state_program()
    bound = bind(made, {"n": 12})
    put = time_program(bound).kernels[0]
    gathered = tuple(
        replace(each, body=tuple(Gather("u", s.access, "i", 0) if isinstance(s, Scatter) else s for s in each.body))
        if isinstance(each, Loop)
        else each
        for each in made.kernels[0].body
    )
    got = time_program(bind(replace(made, kernels=(replace(made.kernels[0], body=gathered),)), {"n": 12})).kernels[0]
    assert put.traffic == got.traffic
    assert put.busy["dma_out"] > 0 == got.busy["dma_out"]
