"""Runs alternatives in turns and says by how much each is slower than the quickest.

A *round* runs every alternative that is still in question once, in an order that is drawn anew: what a run finds in the
caches, and which threads still spin, depends on what ran before it. A run that follows itself takes 10 to 25% less than
one that follows another, for a model of 0.1 ms, so an order that stays the same, or an alternative that is there twice,
decides by itself. Each waits until the threads of the one before rest; a short one then runs once for its caches, and
its second run counts.

What is compared are times of one round: what else the machine does slows neighbours alike. Of the rounds the calmer
half counts, since other work takes more from an alternative that wants all cores than from one that wants one. Who is
clearly behind after `_FIRST` rounds is left out, which leaves the time to those that are close.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

Run = Callable[[], None]

_FIRST, _LEAST, _MOST = 7, 21, 300
_PATIENCE = 4.0
"""Rounds that are wanted at the least end before they are done where they take so many times the time that is given."""
_BEHIND = 1.05
_WARM_UP = 2
_SHORT_SECONDS = 0.02
"""A longer run finds little in the caches of what the run before it left there."""
_SETTLE_SECONDS = 0.01
"""A runtime's threads spin for milliseconds after a run, on cores that the next runtime's run wants."""


@dataclass(frozen=True)
class Standing:
    """Seconds of an alternative, and its time by the quickest's: medians over the calmer half of its `rounds`."""

    seconds: float
    ratio: float
    rounds: int


def in_turns(runs: Sequence[Run], seconds: float) -> list[Standing]:
    """How the alternatives stand after rounds of about `seconds`, at most `_MOST` of them."""
    race = _Race(runs)
    begin = time.perf_counter()
    while race.is_open and race.rounds < _MOST:
        spent = time.perf_counter() - begin
        if race.rounds >= _LEAST and spent >= seconds:
            break
        if race.rounds >= _FIRST and spent >= _PATIENCE * seconds:
            break
        race.round()
    return race.standings()


class _Race:
    """The alternatives that are still in question, and the times of each by rounds."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        self._times: list[list[float]] = [[] for _ in runs]
        self._left: dict[int, Standing] = {}
        self._active = list(range(len(runs)))
        self._order = random.Random(0)
        self._is_short = [_warmed(run) < _SHORT_SECONDS for run in runs]
        self.rounds = 0

    @property
    def is_open(self) -> bool:
        """Whether there is something left to find out: how long, if there is but one alternative."""
        return bool(self._active) and (len(self._active) > 1 or self.rounds < _LEAST)

    def round(self) -> None:
        """Runs each alternative once, and leaves out what is clearly behind."""
        order = list(self._active)
        self._order.shuffle(order)
        for index in order:
            time.sleep(_SETTLE_SECONDS)
            run = self._runs[index]
            if self._is_short[index]:
                run()
            start = time.perf_counter()
            run()
            self._times[index].append(time.perf_counter() - start)
        self.rounds += 1
        if self.rounds % _FIRST == 0:
            self._leave_out()

    def _leave_out(self) -> None:
        calm = self._calm_rounds()
        best = self._best(calm)
        behind = [
            index
            for index in self._active
            if index != best and min(quantiles(self._ratios(index, best, calm), n=4)) > _BEHIND
        ]
        for index in behind:
            self._left[index] = self._standing(index, best, calm)
        self._active = [index for index in self._active if index not in behind]

    def standings(self) -> list[Standing]:
        """How each stands: those that were left out as they stood then."""
        if not self._active:
            return []
        calm = self._calm_rounds()
        best = self._best(calm)
        found = {index: self._standing(index, best, calm) for index in self._active}
        return [(self._left | found)[index] for index in range(len(self._runs))]

    def _calm_rounds(self) -> list[int]:
        """The half of the rounds in which all together took the least time, each measured by its own median."""
        usual = {index: median(self._times[index]) or 1.0 for index in self._active}
        slowness = [sum(self._times[i][n] / own for i, own in usual.items()) for n in range(self.rounds)]
        return sorted(range(self.rounds), key=slowness.__getitem__)[: (self.rounds + 1) // 2]

    def _best(self, rounds: Sequence[int]) -> int:
        return min(self._active, key=lambda index: median(self._times[index][n] for n in rounds))

    def _ratios(self, index: int, best: int, rounds: Sequence[int]) -> list[float]:
        return [self._times[index][n] / (self._times[best][n] or 1.0) for n in rounds]

    def _standing(self, index: int, best: int, rounds: Sequence[int]) -> Standing:
        seconds = median(self._times[index][n] for n in rounds)
        return Standing(seconds, median(self._ratios(index, best, rounds)), self.rounds)


def _warmed(run: Run) -> float:
    """Runs something until it is warm. Seconds of the last run."""
    start = time.perf_counter()
    for _ in range(_WARM_UP):
        start = time.perf_counter()
        run()
    return time.perf_counter() - start
