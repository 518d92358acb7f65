"""Candidates run in turns, on a clock that the launches themselves move."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.compiler.costs.conftest import CountingTarget, host
from xdsl.ir import Operation

from gimlet.compiler.costs import in_flight, trial, turns
from gimlet.compiler.costs.trial import Candidate, Outcome, Part, Trial
from gimlet.targets.api import Device, Reason, Target


class OtherTarget(CountingTarget):
    name = "other"


class Clock:
    """Stands still but for what launches add to it."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class FakeTimer:
    """A timer whose launches take what `seconds` says for the number of ops, the target and the settings."""

    def __init__(self, cache: Path, clock: Clock, seconds: Callable[[int, str, Mapping[str, Any]], float]) -> None:
        self.cache, self.clock, self.seconds = cache, clock, seconds
        self.launched: list[tuple[int, str, int, bool]] = []
        self.requests: set[int] = set()

    def identity(self, ops: Sequence[Operation], target: Target, device: Device, fmt: str) -> str:
        return f"{len(ops)} {target.name} {device.name} {fmt}"

    @contextmanager
    def loaded(
        self,
        ops: Sequence[Operation],
        target: Target,
        device: Device,
        fmt: str,
        settings: Sequence[Mapping[str, Any]],
        requests: int = 1,
    ) -> Generator[list[list[Callable[[], None]]] | Reason]:
        self.requests.add(requests)
        if self.seconds(len(ops), target.name, {}) < 0:
            yield Reason("s", "does not build")
            return

        def launch(options: Mapping[str, Any]) -> None:
            self.launched.append((len(ops), target.name, options["threads"], options["shares_cores"]))
            self.clock.now += self.seconds(len(ops), target.name, options)

        yield [[lambda options=options: launch(options)] * requests for options in settings]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(turns, "time", found)
    return found


@pytest.fixture
def candidates(graph) -> list[Candidate]:
    """Half on each of two targets, and all on one of them."""
    ops = tuple(op for unit in graph.units for op in unit.ops)
    first, other = CountingTarget(), OtherTarget()

    def part(target: Target, found: tuple[Operation, ...]) -> Part:
        return Part(found, target, host(), "fp32")

    return [
        Candidate("as placed", (part(first, ops[:2]), part(other, ops[2:]))),
        Candidate("onnxruntime alone", (part(first, ops),)),
        Candidate("other alone", (part(other, ops),)),
    ]


def choose(clock: Clock, folder: Path, candidates: list[Candidate], seconds) -> tuple[Outcome, FakeTimer]:
    timer = FakeTimer(folder, clock, seconds)
    return Trial(timer, seconds=1.0).choose(candidates), timer  # type: ignore[arg-type]


def test_the_quickest_wins_in_its_best_settings(clock: Clock, candidates, tmp_path: Path):
    def seconds(ops: int, target: str, options: Mapping[str, Any]) -> float:
        return (2.0 if target == "onnxruntime" else 1.0) * ops * (0.5 if options.get("threads") == 1 else 1)

    found, _ = choose(clock, tmp_path, candidates, seconds)
    assert found.winner == 2
    assert found.settings == ({"threads": 1},)
    assert found.seconds == pytest.approx((3.0, 4.0, 2.0))


def test_a_cut_wins_where_its_chain_is_quicker(clock: Clock, candidates, tmp_path: Path):
    found, timer = choose(clock, tmp_path, candidates, lambda ops, target, options: ops**2)
    assert found.winner == 0
    assert found.settings == ({"threads": 0}, {"threads": 0})
    assert {shared for ops, _, _, shared in timer.launched if ops == 2} == {True}
    assert {shared for ops, _, _, shared in timer.launched if ops == 4} == {False}


def test_what_is_as_quick_is_left_whole_with_the_first_target_and_the_default(clock, candidates, tmp_path: Path):
    def seconds(ops: int, target: str, options: Mapping[str, Any]) -> float:
        return ops * (1.0 if target == "onnxruntime" else 0.997) * (0.997 if options.get("threads") == 1 else 1)

    found, _ = choose(clock, tmp_path, candidates, seconds)
    assert (found.winner, found.settings) == (1, ({"threads": 0},))


def test_what_cannot_be_built_loses_and_is_asked_about_again(clock: Clock, candidates, tmp_path: Path):
    found, _ = choose(clock, tmp_path, candidates, lambda ops, target, options: -1 if target == "other" else ops)
    assert found.winner == 1
    assert found.seconds == (None, pytest.approx(4.0), None)
    assert not list(tmp_path.glob("trials/*"))


def test_where_none_can_be_built_the_first_wins_as_it_is(clock: Clock, candidates, tmp_path: Path):
    found, _ = choose(clock, tmp_path, candidates, lambda ops, target, options: -1)
    assert found == Outcome(0, ({"threads": 0}, {"threads": 0}), (None, None, None), 0)


def test_an_outcome_is_kept(clock: Clock, candidates, tmp_path: Path):
    first, _ = choose(clock, tmp_path, candidates, lambda ops, target, options: ops)
    again, timer = choose(clock, tmp_path, candidates, lambda ops, target, options: ops**3)
    assert again == first
    assert not timer.launched
    (file,) = tmp_path.glob("trials/*.json")
    file.write_text("{}")
    anew, _ = choose(clock, tmp_path, candidates, lambda ops, target, options: ops**3)
    assert anew.winner == 0


def test_whole_candidates_compete_in_every_setting_and_cuts_in_the_best_of_each_part(clock, candidates, tmp_path: Path):
    _, timer = choose(clock, tmp_path, candidates, lambda ops, target, options: 1.0)
    whole = [(4, target, threads, False) for target in ("onnxruntime", "other") for threads in (0, 1)]
    cut = [(2, "onnxruntime", 0, True), (2, "other", 0, True)]
    assert sorted(timer.launched[-6:]) == sorted([*whole, *cut])


def test_what_two_candidates_have_in_common_runs_once(clock: Clock, candidates, tmp_path: Path):
    """What runs after itself is quicker: a candidate that is there twice would win by that."""
    last: list[tuple[int, str]] = []

    def seconds(ops: int, target: str, options: Mapping[str, Any]) -> float:
        if not options:
            return 1.0
        warm = last[-1:] == [(ops, target)]
        last.append((ops, target))
        return (0.8 if warm else 1.0) * (1.02 if target == "other" else 1.0)

    twice = [Candidate("as placed", candidates[2].parts), *candidates[1:]]
    found, timer = choose(clock, tmp_path, twice, seconds)
    assert found.winner == 1
    assert found.seconds[0] == found.seconds[2]
    rounds = found.runs
    assert len(timer.launched) == 4 * (rounds + 2)


def test_all_have_the_requests_in_flight_and_the_time_is_that_of_one(clock, candidates, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(in_flight, "time", clock)
    timer = FakeTimer(tmp_path, clock, lambda ops, target, options: 1.0)
    whole = [Candidate("alone", candidates[1].parts)]
    found = Trial(timer, seconds=1.0, requests=2).choose(whole)  # type: ignore[arg-type]
    assert timer.requests == {2}
    # The clock knows no threads: what they do at once is added up.
    assert found.seconds == (pytest.approx(1.0),)
    Trial(timer, seconds=1.0).choose(whole)  # type: ignore[arg-type]
    assert timer.requests == {1, 2}


def test_settings_and_candidates_together_give_away_no_more_than_the_margin(clock, candidates, tmp_path: Path):
    """Each step within the margin of the last would add up: the default setting here, the first target there."""

    def seconds(ops: int, target: str, options: Mapping[str, Any]) -> float:
        return ops * (1.0 if target == "onnxruntime" else 0.991) * (0.991 if options.get("threads") == 1 else 1)

    found, _ = choose(clock, tmp_path, candidates[1:], seconds)
    assert (found.winner, found.settings) == (0, ({"threads": 1},))


@pytest.mark.parametrize(
    ("shares", "tried", "kept"),
    [((0.05, 0.0), 1, 0.05), ((None, 0.0), 1, None), ((0.6, 0.4, 0.5, 0.0), 3, 0.4), ((0.6, 0.02, 0.0), 2, 0.02)],
)
def test_what_a_busy_machine_decided_is_tried_again(
    clock: Clock, candidates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shares, tried: int, kept: float | None
):
    """Three times at most, and what was found beside the least other work stays."""
    left = list(shares)
    monkeypatch.setattr(trial.Bystanders, "share", lambda _: left.pop(0))
    for _ in range(5):
        found, _ = choose(clock, tmp_path, candidates, lambda ops, target, options: ops)
    assert len(shares) - len(left) == tried
    assert (found.others, found.tries) == (kept, tried)
