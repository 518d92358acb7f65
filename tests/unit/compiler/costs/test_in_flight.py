"""Several requests at once, on threads of their own."""

import threading
from collections import Counter

import pytest

from gimlet.compiler.costs import in_flight
from gimlet.compiler.costs.in_flight import InFlight


class Clock:
    """Stands still but for what requests add to it."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_all_requests_are_in_flight_at_once():
    meeting = threading.Barrier(3)
    with InFlight(3) as three:
        three.repeats = 2
        three.run([lambda: meeting.wait(60) and None] * 3)


def test_one_request_runs_on_the_callers_thread_and_once():
    seen: list[int] = []
    with InFlight(1) as one:
        one.fit([[lambda: seen.append(threading.get_ident())]])
        assert not seen
        one.run([lambda: seen.append(threading.get_ident())])
    assert seen == [threading.get_ident()]
    assert one.per_request(2.0) == 2.0


@pytest.mark.parametrize(("seconds", "repeats"), [(1e-6, 50), (4e-4, 13), (1.0, 2)])
def test_short_requests_are_repeated_all_as_often(monkeypatch: pytest.MonkeyPatch, seconds: float, repeats: int):
    clock = Clock()
    monkeypatch.setattr(in_flight, "time", clock)
    ran: Counter[str] = Counter()

    def request(name: str, factor: float) -> None:
        clock.now += seconds * factor
        ran[name] += 1

    with InFlight(2) as two:
        two.fit([[lambda: request("slow", 2.0)], [lambda: request("quick", 1.0)]])
        ran.clear()
        two.run([lambda: request("a", 1.0), lambda: request("b", 1.0)])
    assert ran == {"a": repeats, "b": repeats}
    assert two.per_request(1.0) == 1.0 / (2 * repeats)


def test_what_a_request_raises_is_raised():
    def fails() -> None:
        raise ValueError("no")

    with InFlight(2) as two, pytest.raises(ValueError, match="no"):
        two.run([lambda: None, fails])
