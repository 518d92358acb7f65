"""States of the SRAM machine that grow: laid out for their capacity, with what is new behind what was there."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.runtime.sram_programs import exprs, kernel, program

from gimlet.dialects.sram.assembly import assemble, disassemble
from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.emulator import Emulator
from gimlet.runtime.sram.encoding import dumps, loads
from gimlet.runtime.sram.faults import MachineError
from gimlet.runtime.sram.ordering import synchronised
from gimlet.runtime.sram.program import (
    Access,
    Axis,
    Binding,
    Dim,
    Growth,
    Load,
    Program,
    Range,
    Scatter,
    Store,
    Tensor,
    Tile,
)
from gimlet.runtime.sram.verify import verify

HEADS, WIDTH, ROOM = 3, 4, 6
PAST, NEW = Expr.symbol("past"), Expr.symbol("new")
GROWTH = Growth(1, PAST, PAST + NEW)


def whole(tensor: str, start: Expr, size: Expr, room: Expr, fill: float | None = None) -> Access:
    """`size` positions from `start` on, of all heads."""
    axes = ((Axis(0, 1, Expr.of(HEADS)),), (Axis(1, 1, size),), (Axis(2, 1, Expr.of(WIDTH)),))
    return Access(tensor, exprs(HEADS, room, WIDTH), (Expr.of(0), start, Expr.of(0)), axes, fill)


def growing(begin: Expr = PAST, size: Expr = NEW, growth: Growth = GROWTH) -> Program:
    """`x` is stored behind the past of a state [heads, positions, width], all of which is then `y`."""
    put = kernel(
        (),
        (Tile("x", "f32", (HEADS, ROOM, WIDTH)),),
        (Load("x", whole("x", Expr.of(0), size, NEW)), Store(whole("s", begin, size, Expr.of(ROOM)), "x")),
        "put",
    )
    each = Range("p", PAST + NEW, 2)
    look = kernel(
        (each,),
        (Tile("y", "f32", (HEADS, 2, WIDTH), 2),),
        (
            Load("y", whole("s", each.start, each.size, Expr.of(ROOM))),
            Store(whole("y", each.start, each.size, PAST + NEW), "y"),
        ),
        "look",
    )
    inputs: dict[str, tuple[str, Sequence[Any]]] = {
        "x": ("f32", (HEADS, NEW, WIDTH)),
        "s": ("f32", (HEADS, ROOM, WIDTH)),
    }
    dims = [Dim("past", 0, 2, ROOM), Dim("new", 0, 1, ROOM)]
    made = program((put, look), inputs, {"y": ("f32", (HEADS, PAST + NEW, WIDTH))}, dims=dims)
    tensors = tuple(replace(each, role="state", growth=growth) if each.name == "s" else each for each in made.tensors)
    return synchronised(replace(made, tensors=tensors, outputs=(*made.outputs, Binding("after", "s"))))


def numbers(positions: int, begin: float) -> np.ndarray:
    return begin + np.arange(HEADS * positions * WIDTH, dtype=np.float32).reshape(HEADS, positions, WIDTH)


def run(made: Program, past: np.ndarray, new: np.ndarray) -> dict[str, np.ndarray]:
    sizes = {"past": past.shape[1], "new": new.shape[1]}
    return Emulator(made, np.zeros(0, np.uint8)).run({"x": new, "s": past}, sizes, in_place=["s"])


@given(data=st.data())
@settings(max_examples=15)
def test_what_is_new_is_behind_what_was_there(data: st.DataObject):
    before = data.draw(st.integers(0, ROOM))
    past, new = numbers(before, 0.5), numbers(data.draw(st.integers(0, ROOM - before)), 100)
    made = growing()
    verify(made)
    kept = past.copy()
    found = run(made, past, new)
    np.testing.assert_array_equal(found["after"], np.concatenate([past, new], axis=1))
    np.testing.assert_array_equal(found["y"], found["after"])
    np.testing.assert_array_equal(past, kept)
    assert found["after"].flags.c_contiguous


def test_a_run_that_would_leave_more_than_there_is_room_for_is_refused():
    with pytest.raises(InputError, match="state s would grow from 5 to 7 in dimension 1, and has room for 6"):
        run(growing(), numbers(5, 0), numbers(2, 0))
    with pytest.raises(InputError, match="state s would grow from 5 to 4 in dimension 1"):
        run(growing(growth=Growth(1, PAST, PAST - 1)), numbers(5, 0), numbers(1, 0))


def test_what_was_there_is_never_written():
    """`verify` refuses what it does not know to be behind the past; what it would let by faults."""
    for begin in (Expr.of(1), PAST - 1, NEW, 2 * PAST - NEW):
        with pytest.raises(MachineError, match="stores to tensor s, and not behind what a run finds there"):
            verify(growing(begin))
    verify(growing(2 * PAST))
    with pytest.raises(MachineError, match="stores to elements of state s that are there already") as fault:
        run(growing(PAST - 1), numbers(2, 0), numbers(1, 0))
    assert fault.value.place is not None
    assert (fault.value.place.kernel, fault.value.place.opcode) == ("put", "store")


def test_a_state_ends_as_long_as_it_says():
    with pytest.raises(MachineError, match="reads elements of tensor s that were never written"):
        run(growing(size=Expr.of(1)), numbers(2, 0), numbers(2, 0))
    made = growing(size=Expr.of(1))
    first = replace(made, kernels=made.kernels[:1], outputs=made.outputs[1:])
    with pytest.raises(MachineError, match=r"state s is not complete: it should have grown to \[3, 4, 4\]"):
        run(first, numbers(2, 0), numbers(2, 0))
    longer = growing(growth=Growth(1, PAST, PAST + NEW - 1))
    longer = replace(longer, kernels=longer.kernels[:1], outputs=longer.outputs[1:])
    with pytest.raises(MachineError, match=r"state s was written behind the \[3, 3, 4\]"):
        run(longer, numbers(2, 0), numbers(2, 0))
    with pytest.raises(MachineError, match="position 6 is outside dimension 1 of size 6 of tensor s"):
        run(growing(PAST + 2), numbers(4, 0), numbers(1, 0))


def test_an_input_of_another_size_is_a_fault():
    with pytest.raises(MachineError, match=r"input s has shape \[3, 6, 4\]"):
        Emulator(growing(), np.zeros(0, np.uint8)).run({"x": numbers(1, 0), "s": numbers(6, 0)}, {"past": 2, "new": 1})


def changed(made: Program, **fields: object) -> Program:
    """The program with other fields of the state."""
    return replace(made, tensors=tuple(replace(t, **fields) if t.name == "s" else t for t in made.tensors))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"role": "temporary"}, "tensor s grows, and is no state but temporary"),
        ({"growth": Growth(3, PAST, PAST)}, "state s grows along dimension 3 of 3"),
        ({"growth": Growth(1, PAST, Expr.symbol("far"))}, "state s has far positions, which the program does not"),
        ({"shape": exprs(HEADS, PAST, WIDTH)}, "state s grows, and its capacity past is not fixed"),
        ({"growth": None}, "stores to tensor s, which is a state: it can only be changed"),
        ({"growth": Growth(0, PAST, PAST + NEW)}, "stores to tensor s, and not behind what a run finds there"),
    ],
)
def test_what_does_not_grow(fields: dict[str, object], message: str):
    with pytest.raises(MachineError, match=message):
        verify(changed(growing(), **fields))


def test_a_state_that_grows_is_not_added_to_and_not_changed():
    made = growing()
    load, store = made.kernels[0].body
    assert isinstance(store, Store)
    adds = replace(made.kernels[0], body=(load, replace(store, adds=True)))
    with pytest.raises(MachineError, match="adds to tensor s, which is a state that grows"):
        verify(replace(made, kernels=(adds, made.kernels[1])))
    tiles = (*made.kernels[0].tiles, Tile("i", "i64", (ROOM,), 1, 4096))
    positions = Load("i", Access("i", (NEW,), (Expr.of(0),), ((Axis(0, 1, NEW),),)))
    scatter = Scatter(store.access, "x", "i", 1)
    scattered = replace(made.kernels[0], tiles=tiles, body=(load, positions, scatter))
    indices = Tensor("i", "i64", (NEW,), "sram", 1 << 15, 8 * ROOM, "input")
    with pytest.raises(MachineError, match="changes tensor s, which is a state that grows"):
        verify(replace(made, tensors=(*made.tensors, indices), kernels=(scattered, made.kernels[1])))


def test_it_is_stored_and_spelled():
    made = growing()
    assert loads(dumps(made)) == made
    assert assemble(disassemble(made)) == made
    assert '[1,"past","new + past"]' in dumps(made)
    with pytest.raises(InputError, match="a list of 3"):
        loads(dumps(made).replace('[1,"past","new + past"]', '[1,"past"]'))
