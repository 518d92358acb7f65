"""Chooses between whole placements by running them: which target, how cut, with how many threads.

Costs of pieces, however they were measured, do not add up to the time of a cut model: the least of many noisy times is
too small, and what one runtime leaves in the caches another does not find. So where a device has several targets and
its costs are measured, the placement that these costs give is one *candidate*, and all of the device's ops on each of
its targets are others. Each segment is run in each of its target's settings, in turns, and then each candidate as a
whole, one segment after the other, in turns with the other candidates. The least median wins; within `MARGIN` of it,
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
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from xdsl.ir import Operation

from gimlet.compiler.costs.shape_class import digest
from gimlet.compiler.costs.timer import Launch, SegmentTimer
from gimlet.targets.api import Device, Reason, Target

MARGIN = 0.02
_SCHEMA = 2
_SECONDS = 5.0
_LEAST, _MOST = 21, 300
_WARM_UP = 2
_SETTLE_SECONDS = 0.01
"""A runtime's threads spin for milliseconds after a run, on cores that the next runtime's run wants."""

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

    @property
    def is_mixed(self) -> bool:
        """Whether its parts are of several targets, whose threads then share the cores."""
        return len({part.target.name for part in self.parts}) > 1


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
        outcome = self._tried(candidates)
        if None not in outcome.seconds:
            _write(file, outcome)
        return outcome

    def _file(self, candidates: Sequence[Candidate]) -> Path:
        texts = [self.timer.identity(p.ops, p.target, p.device, p.format) for c in candidates for p in c.parts]
        return self.timer.cache / "trials" / f"{digest(*(c.name for c in candidates), *texts)}.json"

    def _tried(self, candidates: Sequence[Candidate]) -> Outcome:
        with ExitStack() as stack:
            loaded = self._loaded(candidates, stack)
            chosen = self._settings(loaded)
            chains = {
                index: [loaded[key][chosen[key]] for key in _keys(candidate)]
                for index, candidate in enumerate(candidates)
                if all(loaded[key] for key in _keys(candidate))
            }
            times = _in_turns([partial(_run_all, chain) for chain in chains.values()], self.seconds)
        seconds = {index: median(own) for index, own in zip(chains, times, strict=True)}
        winner = _best(candidates, seconds)
        settings = tuple(
            part.target.settings(part.device)[chosen.get(key, 0)]
            for key, part in zip(_keys(candidates[winner]), candidates[winner].parts, strict=True)
        )
        runs = min((len(own) for own in times), default=0)
        return Outcome(winner, settings, tuple(seconds.get(index) for index in range(len(candidates))), runs)

    def _loaded(self, candidates: Sequence[Candidate], stack: ExitStack) -> dict[_Key, list[Launch]]:
        """For each part its launches in each setting of its target; none where it cannot be built."""
        found: dict[_Key, list[Launch]] = {}
        for candidate in candidates:
            for key, part in zip(_keys(candidate), candidate.parts, strict=True):
                if key in found:
                    continue
                settings = [{**own, "shares_cores": candidate.is_mixed} for own in part.target.settings(part.device)]
                launches = stack.enter_context(
                    self.timer.loaded(part.ops, part.target, part.device, part.format, settings)
                )
                found[key] = [] if isinstance(launches, Reason) else launches
        return found

    def _settings(self, loaded: Mapping[_Key, Sequence[Launch]]) -> dict[_Key, int]:
        """The best setting of each part, alone. A part is timed beside its own other settings only."""
        chosen: dict[_Key, int] = {}
        for key, launches in loaded.items():
            if not launches:
                continue
            medians = [median(own) for own in _in_turns(launches, self.seconds / len(loaded))]
            limit = min(medians) * (1 + MARGIN)
            chosen[key] = next(index for index, seconds in enumerate(medians) if seconds <= limit)
        return chosen


_Key = tuple[str, str, bool, tuple[int, ...]]


def _keys(candidate: Candidate) -> list[_Key]:
    return [(p.target.name, p.format, candidate.is_mixed, tuple(id(op) for op in p.ops)) for p in candidate.parts]


def _run_all(launches: Sequence[Launch]) -> None:
    for launch in launches:
        launch()


def _in_turns(launches: Sequence[Launch], seconds: float) -> list[list[float]]:
    """Seconds of each launch, run one after the other in rounds, so that whatever else runs here slows all alike.

    The threads of the launch before have come to rest when a launch runs, and its own data is in the caches.
    """
    times: list[list[float]] = [[] for _ in launches]
    for launch in launches:
        for _ in range(_WARM_UP):
            launch()
    end = time.perf_counter() + seconds
    rounds = 0
    while launches and (rounds < _LEAST or (rounds < _MOST and time.perf_counter() < end)):
        for own, launch in zip(times, launches, strict=True):
            time.sleep(_SETTLE_SECONDS)
            launch()
            start = time.perf_counter()
            launch()
            own.append(time.perf_counter() - start)
        rounds += 1
    return times


def _best(candidates: Sequence[Candidate], seconds: Mapping[int, float]) -> int:
    if not seconds:
        return 0
    limit = min(seconds.values()) * (1 + MARGIN)
    return min((len(candidates[index].parts), index) for index, own in seconds.items() if own <= limit)[1]


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
