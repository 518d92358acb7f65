"""Chooses between whole placements by running them: which target, how cut, with how many threads.

Costs of pieces, however they were measured, do not add up to the time of a cut model: the least of many noisy times is
too small, and what one runtime leaves in the caches another does not find. So where a device has several targets and
its costs are measured, the placement that these costs give is one *candidate*, and all of the device's ops on each of
its targets are others. Every segment of every candidate is loaded in each of its target's settings, and all of them
run in turns. A candidate's time is the sum over its segments of the median in the best setting; within `MARGIN` of it,
fewer segments win, then the device's first target and its default setting.

What came out is kept beside the timings, by the shape classes of the segments, this processor and the libraries.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from xdsl.ir import Operation

from gimlet.compiler.costs.shape_class import digest
from gimlet.compiler.costs.timer import Launch, SegmentTimer
from gimlet.targets.api import Device, Reason, Target

MARGIN = 0.02
_SCHEMA = 1
_SECONDS = 3.0
_LEAST, _MOST = 9, 300
_WARM_UP = 2

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """Ops that one launch would run on a device, and the target that compiles them."""

    ops: tuple[Operation, ...]
    target: Target
    device: Device
    format: str


@dataclass(frozen=True)
class Candidate:
    """A placement of a device's ops: its parts in the order of their launches."""

    name: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Outcome:
    """The winner's index, the settings of its parts, and the seconds of each candidate, None if it cannot be built."""

    winner: int
    settings: tuple[Settings, ...]
    seconds: tuple[float | None, ...]
    runs: int


class Trial:
    """Runs candidates in turns on this machine."""

    def __init__(self, timer: SegmentTimer, seconds: float = _SECONDS) -> None:
        self.timer = timer
        self.seconds = seconds

    def choose(self, candidates: Sequence[Candidate]) -> Outcome:
        """The best candidate. Those that cannot be built here lose; if none can, the first wins as it is.

        MissingError where this machine lacks what a device needs.
        """
        file = self._file(candidates)
        kept = _read(file)
        if kept is not None:
            return kept
        medians, runs = self._medians(candidates)
        seconds = tuple(_total(medians, candidate) for candidate in candidates)
        winner = _best(candidates, seconds)
        settings = tuple(_best_setting(part, medians[_key(part)]) for part in candidates[winner].parts)
        outcome = Outcome(winner, settings, seconds, runs)
        if None not in seconds:
            _write(file, outcome)
        return outcome

    def _file(self, candidates: Sequence[Candidate]) -> Path:
        texts = [self.timer.identity(p.ops, p.target, p.device, p.format) for c in candidates for p in c.parts]
        return self.timer.cache / "trials" / f"{digest(*(c.name for c in candidates), *texts)}.json"

    def _medians(self, candidates: Sequence[Candidate]) -> tuple[dict[_Key, dict[int, float]], int]:
        """For each part the median seconds in each setting of its target, empty where it cannot be built."""
        parts = {_key(part): part for candidate in candidates for part in candidate.parts}
        found: dict[_Key, dict[int, float]] = {key: {} for key in parts}
        launches: list[tuple[_Key, int, Launch]] = []
        with ExitStack() as stack:
            for key, part in parts.items():
                settings = part.target.settings(part.device)
                loaded = stack.enter_context(
                    self.timer.loaded(part.ops, part.target, part.device, part.format, settings)
                )
                if not isinstance(loaded, Reason):
                    launches += [(key, index, launch) for index, launch in enumerate(loaded)]
            times = _in_turns([launch for _, _, launch in launches], self.seconds)
        for (key, index, _), own in zip(launches, times, strict=True):
            found[key][index] = median(own)
        return found, min((len(own) for own in times), default=0)


_Key = tuple[str, str, tuple[int, ...]]


def _key(part: Part) -> _Key:
    return part.target.name, part.format, tuple(id(op) for op in part.ops)


def _in_turns(launches: Sequence[Launch], seconds: float) -> list[list[float]]:
    """Seconds of each launch, run one after the other in rounds, so that whatever else runs here slows all alike."""
    times: list[list[float]] = [[] for _ in launches]
    for launch in launches:
        for _ in range(_WARM_UP):
            launch()
    end = time.perf_counter() + seconds
    rounds = 0
    while launches and (rounds < _LEAST or (rounds < _MOST and time.perf_counter() < end)):
        for own, launch in zip(times, launches, strict=True):
            start = time.perf_counter()
            launch()
            own.append(time.perf_counter() - start)
        rounds += 1
    return times


def _total(medians: Mapping[_Key, Mapping[int, float]], candidate: Candidate) -> float | None:
    best = [min(medians[_key(part)].values(), default=None) for part in candidate.parts]
    known = [seconds for seconds in best if seconds is not None]
    return sum(known) if len(known) == len(best) else None


def _best(candidates: Sequence[Candidate], seconds: Sequence[float | None]) -> int:
    known = [(index, total) for index, total in enumerate(seconds) if total is not None]
    if not known:
        return 0
    limit = min(total for _, total in known) * (1 + MARGIN)
    return min((len(candidates[index].parts), index) for index, total in known if total <= limit)[1]


def _best_setting(part: Part, medians: Mapping[int, float]) -> Settings:
    limit = min(medians.values(), default=0.0) * (1 + MARGIN)
    index = min((index for index, seconds in medians.items() if seconds <= limit), default=0)
    return part.target.settings(part.device)[index]


def _read(file: Path) -> Outcome | None:
    try:
        data = json.loads(file.read_text())
        if data["schema"] != _SCHEMA:
            return None
        return Outcome(data["winner"], tuple(data["settings"]), tuple(data["seconds"]), data["runs"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(file: Path, outcome: Outcome) -> None:
    """Written beside and renamed: two compiles may try the same at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}")
    data = {"winner": outcome.winner, "settings": outcome.settings, "seconds": outcome.seconds, "runs": outcome.runs}
    temporary.write_text(json.dumps({"schema": _SCHEMA, **data}))
    temporary.replace(file)
