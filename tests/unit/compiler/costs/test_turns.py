"""Alternatives in turns, on a clock that they themselves move."""

import random
from collections.abc import Callable

import pytest

from gimlet.compiler.costs import turns
from gimlet.compiler.costs.turns import in_turns


class Clock:
    """Stands still but for what runs and pauses add to it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[str] = []

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self, name: str, seconds: Callable[[], float]) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds()
            self.ran.append(name)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(turns, "time", found)
    return found


def test_a_short_run_is_timed_after_one_for_its_caches(clock: Clock):
    first = clock.run("a", lambda: 0.001 if clock.ran[-1:] == ["a"] else 0.002)
    found = in_turns([first, clock.run("b", lambda: 0.001)], 1.0)
    assert [standing.seconds for standing in found] == pytest.approx([0.001, 0.001])


def test_a_long_run_is_not_run_twice(clock: Clock):
    (found,) = in_turns([clock.run("a", lambda: 0.5)], 1.0)
    assert found.rounds == 8
    assert len(clock.ran) == 2 + 8


def test_the_order_changes_from_round_to_round(clock: Clock):
    names = ["a", "b", "c"]
    in_turns([clock.run(name, lambda: 0.03) for name in names], 10.0)
    rounds = clock.ran[6:]
    orders = {tuple(rounds[start : start + 3]) for start in range(0, len(rounds), 3)}
    assert all(sorted(order) == names for order in orders)
    assert len(orders) == 6


def test_what_slows_a_round_slows_all_of_it(clock: Clock):
    """The machine gets slower and quicker by more than what is to be found out."""
    drift = random.Random(1)
    speed = [1.0]

    def seconds(own: float) -> Callable[[], float]:
        def one() -> float:
            if len(clock.ran) % 2 == 0:
                speed[0] = drift.uniform(1, 3)
            return own * speed[0]

        return one

    found = in_turns([clock.run("a", seconds(1.04)), clock.run("b", seconds(1.0))], 100.0)
    assert [standing.ratio for standing in found] == pytest.approx([1.04, 1.0])


def test_the_calmer_half_of_the_rounds_counts(clock: Clock):
    """What wants all cores suffers more from other work, which is there in five rounds of eight."""

    def busy() -> bool:
        return (len(clock.ran) // 2) % 8 < 5

    def all_cores() -> float:
        return 2.0 if busy() else 0.6

    found = in_turns([clock.run("all", all_cores), clock.run("one", lambda: 1.05 if busy() else 1.0)], 200.0)
    assert found[0].ratio == 1.0
    assert found[0].seconds == pytest.approx(0.6)


def test_what_is_clearly_behind_is_left_out(clock: Clock):
    runs = [clock.run("a", lambda: 0.1), clock.run("b", lambda: 0.2), clock.run("c", lambda: 0.102)]
    found = in_turns(runs, 100.0)
    assert clock.ran.count("b") == 2 + 7
    assert clock.ran.count("c") == 2 + 300
    assert [standing.ratio for standing in found] == pytest.approx([1.0, 2.0, 1.02])
    assert [standing.rounds for standing in found] == [300, 7, 300]


def test_what_is_now_and_then_quicker_stays(clock: Clock):
    noise = random.Random(0)
    runs = [clock.run("a", lambda: 0.1), clock.run("b", lambda: 0.106 * noise.choice((0.9, 1.0, 1.1)))]
    in_turns(runs, 5.0)
    assert clock.ran.count("b") > 2 + 7


def test_rounds_end_with_the_time_that_is_given(clock: Clock):
    found = in_turns([clock.run("a", lambda: 0.1), clock.run("b", lambda: 0.1)], 10.0)
    assert found[0].rounds == 46
    assert in_turns([clock.run("a", lambda: 1.0), clock.run("b", lambda: 1.0)], 10.0)[0].rounds == 20
    assert in_turns([clock.run("a", lambda: 0.1), clock.run("b", lambda: 0.1)], 1.1)[0].rounds == 21


def test_nothing_stands_where_nothing_runs(clock: Clock):
    assert in_turns([], 1.0) == []
