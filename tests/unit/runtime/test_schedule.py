"""Places and order: memory is shared only between values that are never alive together."""

from pathlib import Path

import pytest

from gimlet.runtime.bundle import open_bundle
from gimlet.runtime.schedule import PlaceKind, Schedule, build_schedule


def schedule(path: Path, **memories: str) -> Schedule:
    return build_schedule(open_bundle(path).manifest, memories)


def arenas(found: Schedule) -> dict[str, str]:
    return {place.spec.name: place.arena for place in found.places if place.kind is PlaceKind.SCRATCH}


def kinds(found: Schedule) -> list[tuple[str, str]]:
    return [(place.spec.name, place.kind.value) for place in found.places]


def test_places_belong_to_the_caller_the_run_or_the_program(make_bundle, part):
    found = schedule(
        make_bundle(
            [
                part("s0", "cpu", "Neg", ("x",), "a"),
                part("s1", "cpu", "NonZero", ("a",), "b", ("2", "found"), "int64"),
                part("s2", "cpu", "Neg", ("b",), "c", ("2", None), "int64"),
            ],
            outputs=["c"],
        )
    )
    assert kinds(found) == [("x", "input"), ("a", "scratch"), ("b", "open"), ("c", "open")]


def test_a_computed_dimension_is_known_when_its_symbols_are(make_bundle, part):
    found = schedule(make_bundle([part("s0", "cpu", "Concat", ("x",), "y", ("ceildiv(n, 2)", "4"))]))
    assert kinds(found) == [("x", "input"), ("y", "output")]


def test_two_values_of_one_buffer_share_an_arena_one_after_the_other(make_bundle, part):
    found = schedule(
        make_bundle(
            [
                part("s0", "cpu", "Neg", ("x",), "a"),
                part("s1", "cpu", "Neg", ("a",), "b"),
                part("s2", "cpu", "Neg", ("b",), "c"),
                part("s3", "cpu", "Neg", ("c",), "d"),
            ],
            buffers={"a": "b0", "b": "b1", "c": "b0"},
        )
    )
    assert arenas(found) == {"a": "buffer b0", "b": "buffer b1", "c": "buffer b0"}
    assert [step.after for step in found.steps] == [(), (0,), (0, 1), (2,)]


def test_an_output_shares_memory_with_nothing(make_bundle, part):
    found = schedule(
        make_bundle(
            [part("s0", "cpu", "Neg", ("x",), "a"), part("s1", "cpu", "Neg", ("a",), "b")],
            buffers={"a": "b0", "b": "b0"},
        )
    )
    assert len({place.arena for place in found.places}) == len(found.places)


def test_a_buffer_that_is_still_read_is_not_shared(make_bundle, part):
    """The manifest claims that `a` and `b` share memory, but s2 reads `a` after s1 wrote `b`."""
    found = schedule(
        make_bundle(
            [
                part("s0", "cpu", "Neg", ("x",), "a"),
                part("s1", "cpu", "Neg", ("x",), "b"),
                part("s2", "cpu", "Add", ("a", "b"), "c"),
            ],
            buffers={"a": "b0", "b": "b0"},
        )
    )
    assert arenas(found)["a"] != arenas(found)["b"]


def test_an_independent_writer_waits_for_the_readers_of_what_it_overwrites(make_bundle, part):
    """s2 overwrites `a`, which s1 on another device reads: nothing but the arena orders them."""
    found = schedule(
        make_bundle(
            [
                part("s0", "cpu", "Neg", ("x",), "a"),
                part("s1", "gpu0", "Neg", ("a",), "b"),
                part("s2", "cpu", "Neg", ("x",), "c"),
                part("s3", "cpu", "Add", ("b", "c"), "d"),
            ],
            kinds={"gpu0": "chip"},
            buffers={"a": "b0", "c": "b0"},
        )
    )
    launches = {step.id: step for step in found.steps}
    names = [step.id for step in found.steps]
    assert arenas(found)["c"] == "buffer b0"
    reader, writer = (next(i for i in names if launches[i].segment == segment) for segment in ("s1", "s2"))
    assert names.index(reader) in launches[writer].after


@pytest.mark.parametrize(("memory", "copies"), [("host", 0), ("chip", 2)])
def test_transfers_are_steps_between_different_memories_only(make_bundle, part, memory: str, copies: int):
    found = schedule(
        make_bundle(
            [part("s0", "gpu0", "Neg", ("x",), "a"), part("s1", "cpu", "Neg", ("a",), "b")], kinds={"gpu0": "chip"}
        ),
        gpu0=memory,
    )
    assert len(found.steps) == 2 + copies
    assert not found.concurrent
    assert found.devices == ("gpu0", "cpu")


def test_independence_over_two_devices_is_found(make_bundle, part):
    parts = [part("s0", "cpu", "Neg", ("x",), "a"), part("s1", "gpu0", "Neg", ("x",), "b")]
    path = make_bundle(parts, kinds={"gpu0": "chip"}, outputs=["a", "b"])
    assert schedule(path).concurrent
    parts = [part("s0", "cpu", "Neg", ("x",), "a"), part("s1", "cpu", "Neg", ("x",), "b")]
    same = make_bundle(parts, name="n.gimlet", outputs=["a", "b"])
    assert not schedule(same).concurrent
