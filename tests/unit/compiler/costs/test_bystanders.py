"""What others have of the cores, from a file like /proc/stat and a clock that stands where it is put."""

import os
from pathlib import Path

import pytest

from gimlet.compiler.costs import bystanders
from gimlet.compiler.costs.bystanders import Bystanders


class Clock:
    def __init__(self) -> None:
        self.now, self.own = 0.0, 0.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.own


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(bystanders, "time", found)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2})
    monkeypatch.setattr(os, "sysconf", lambda _: 100)
    return found


def write(file: Path, first: int, elsewhere: int) -> None:
    """Core 0 was busy for `first` hundredths of a second, core 1, which is not ours, for `elsewhere`, core 2 for 10."""
    rows = [
        "cpu 1 1 1 1 1 1 1 1 0 0",
        f"cpu0 {first} 0 0 7000 500 0 0 0 300 0",
        f"cpu1 {elsewhere} 0 0 0 0 0 0 0 0 0",
        "cpu2 1 2 3 99 99 1 1 2 50 0",
        "intr 5",
    ]
    file.write_text("\n".join(rows))


def test_others_are_what_is_busy_and_not_our_own(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "stat"
    monkeypatch.setattr(bystanders, "_STAT", file)
    write(file, 100, 0)
    found = Bystanders()
    clock.now, clock.own = 2.0, 1.0
    write(file, 260, 900)
    assert found.share() == pytest.approx(0.6 / 4)


def test_a_short_time_or_a_silent_system_says_nothing(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "stat"
    monkeypatch.setattr(bystanders, "_STAT", file)
    assert Bystanders().share() is None
    write(file, 100, 0)
    found = Bystanders()
    clock.now = 0.1
    assert found.share() is None
