"""Chooses between whole placements by running them: which target, how cut, with how many threads.

Costs of pieces, however they were measured, do not add up to the time of a cut model: the least of many noisy times is
too small, and what one runtime leaves in the caches another does not find. So where a device has several targets and
its costs are measured, the placement that these costs give is one *candidate*, and all of the device's ops on each of
its targets are others. A candidate in one part is run in each setting of its target; one in several parts in the
settings in which each of its parts alone is quickest. All of these *chains* are run as wholes, in turns with each other
(`turns`), and what two candidates have in common is run once. The least time wins; within `MARGIN` of it, fewer
segments win, then the device's first target and its default setting.

For throughput several requests are in flight (`in_flight`), each setting is tried with all of them, and the time is
that from one request's end to the next one's.

What came out is kept beside the timings, by the shape classes of the segments, this processor and the libraries. Where
other work had more than `BUSY` of the cores meanwhile, a quiet machine may give another: the next compiles try again,
`_TRIES` times in all, and what was found beside the least other work is kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from xdsl.ir import Operation

from gimlet.compiler.costs.bystanders import Bystanders
from gimlet.compiler.costs.in_flight import InFlight
from gimlet.compiler.costs.shape_class import digest
from gimlet.compiler.costs.timer import Launch, SegmentTimer
from gimlet.compiler.costs.turns import Standing, in_turns
from gimlet.targets.answers import keep_text
from gimlet.targets.api import Device, Reason, Target

MARGIN = 0.01
BUSY = 0.1
_TRIES = 3
_SCHEMA = 5
_SECONDS = 5.0

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
    """The winner's index, the settings of its parts, and the seconds of each candidate, None if it cannot be built.

    `others` is the share of the cores that other work had meanwhile, None where that is not known, and `tries` how
    often it was tried, of which this is the calmest.
    """

    winner: int
    settings: tuple[Settings, ...]
    seconds: tuple[float | None, ...]
    runs: int
    others: float | None = None
    tries: int = 1

    @property
    def was_busy(self) -> bool:
        """Whether other work may have decided."""
        return (self.others or 0.0) > BUSY

    @property
    def is_final(self) -> bool:
        """Whether the next compile takes it as it is."""
        return not self.was_busy or self.tries >= _TRIES


class Trial:
    """Runs candidates in turns on this machine, with `requests` in flight at once."""

    def __init__(self, timer: SegmentTimer, seconds: float = _SECONDS, requests: int = 1) -> None:
        self.timer = timer
        self.seconds = seconds
        self.requests = requests

    def choose(self, candidates: Sequence[Candidate]) -> Outcome:
        """The best candidate. Those that cannot be built here lose; if none can, the first wins as it is.

        MissingError where this machine lacks what a device needs.
        """
        file = self._file(candidates)
        kept = _read(file)
        if kept is not None and kept.is_final:
            return kept
        outcome = self._tried(candidates)
        if kept is not None:
            calmer = kept if (kept.others or 0.0) < (outcome.others or 0.0) else outcome
            outcome = replace(calmer, tries=kept.tries + 1)
        if None not in outcome.seconds:
            keep_text(file, json.dumps({"schema": _SCHEMA, **asdict(outcome)}))
        return outcome

    def _file(self, candidates: Sequence[Candidate]) -> Path:
        texts = [self.timer.identity(p.ops, p.target, p.device, p.format) for c in candidates for p in c.parts]
        return self.timer.cache / "trials" / f"{digest(*(c.name for c in candidates), *texts, str(self.requests))}.json"

    def _tried(self, candidates: Sequence[Candidate]) -> Outcome:
        with ExitStack() as stack:
            loaded = self._loaded(candidates, stack)
            chains = self._chains(candidates, loaded)
            runs = [_requests([loaded[key][setting] for key, setting in chain]) for chain in chains]
            bystanders = Bystanders()
            standings = dict(zip(chains, self._in_turns(runs, self.seconds), strict=True))
            others = bystanders.share()
        winner, chain = _best(candidates, standings)
        settings = tuple(
            part.target.settings(part.device, self.requests)[setting]
            for part, (_, setting) in zip(candidates[winner].parts, chain, strict=True)
        )
        seconds = tuple(_least(candidate, standings) for candidate in candidates)
        rounds = max((found.rounds for found in standings.values()), default=0)
        return Outcome(winner, settings, seconds, rounds, others)

    def _chains(self, candidates: Sequence[Candidate], loaded: Mapping[_Key, Sequence[_Launches]]) -> list[_Chain]:
        """What is run: of each candidate that could be built, its parts in settings, and nothing twice."""
        cut = [key for candidate in candidates if len(candidate.parts) > 1 for key in _keys(candidate)]
        settings = self._settings({key: loaded[key] for key in cut})
        chains: dict[_Chain, None] = {}
        for candidate in candidates:
            keys = _keys(candidate)
            if not all(loaded[key] for key in keys):
                continue
            if len(keys) == 1:
                chains |= dict.fromkeys(((keys[0], setting),) for setting in range(len(loaded[keys[0]])))
            else:
                chains[tuple((key, settings[key]) for key in keys)] = None
        return list(chains)

    def _loaded(self, candidates: Sequence[Candidate], stack: ExitStack) -> dict[_Key, list[list[Launch]]]:
        """For each part its launches in each setting of its target; none where it cannot be built."""
        found: dict[_Key, list[list[Launch]]] = {}
        for candidate in candidates:
            for key, part in zip(_keys(candidate), candidate.parts, strict=True):
                if key in found:
                    continue
                settings = [
                    {**own, "shares_cores": candidate.is_mixed}
                    for own in part.target.settings(part.device, self.requests)
                ]
                launches = stack.enter_context(
                    self.timer.loaded(part.ops, part.target, part.device, part.format, settings, self.requests)
                )
                found[key] = [] if isinstance(launches, Reason) else launches
        return found

    def _settings(self, loaded: Mapping[_Key, Sequence[_Launches]]) -> dict[_Key, int]:
        """The best setting of each part, alone. A part is timed beside its own other settings only."""
        chosen: dict[_Key, int] = {}
        for key, launches in loaded.items():
            runs = [_requests([own]) for own in launches]
            ratios = [found.ratio for found in self._in_turns(runs, self.seconds / len(loaded))]
            chosen[key] = next((index for index, ratio in enumerate(ratios) if ratio <= 1 + MARGIN), 0)
        return chosen

    def _in_turns(self, runs: Sequence[_Launches], seconds: float) -> list[Standing]:
        """How alternatives stand, each of them a run for each request in flight; seconds are of one request."""
        with InFlight(self.requests) as in_flight:
            in_flight.fit(runs)
            found = in_turns([partial(in_flight.run, each) for each in runs], seconds)
        return [replace(standing, seconds=in_flight.per_request(standing.seconds)) for standing in found]


_Launches = Sequence[Launch]
"""A launch for each request in flight."""
_Key = tuple[str, str, bool, tuple[int, ...]]
_Chain = tuple[tuple[_Key, int], ...]
"""Parts, each with the number of one of its target's settings."""


def _keys(candidate: Candidate) -> list[_Key]:
    return [(p.target.name, p.format, candidate.is_mixed, tuple(id(op) for op in p.ops)) for p in candidate.parts]


def _requests(parts: Sequence[_Launches]) -> list[Launch]:
    """For each request in flight, the launches of all parts as one."""
    return [partial(_run_all, launches) for launches in zip(*parts, strict=True)]


def _run_all(launches: Sequence[Launch]) -> None:
    for launch in launches:
        launch()


def _is_of(chain: _Chain, candidate: Candidate) -> bool:
    return [key for key, _ in chain] == _keys(candidate)


def _least(candidate: Candidate, standings: Mapping[_Chain, Standing]) -> float | None:
    """Seconds of a candidate in its best settings, None where it could not be built."""
    return min((found.seconds for chain, found in standings.items() if _is_of(chain, candidate)), default=None)


def _best(candidates: Sequence[Candidate], standings: Mapping[_Chain, Standing]) -> tuple[int, _Chain]:
    """The winner and its chain: as it is, where nothing could be built."""
    if not standings:
        return 0, tuple((key, 0) for key in _keys(candidates[0]))
    limit = min(found.ratio for found in standings.values()) * (1 + MARGIN)
    close = [chain for chain, found in standings.items() if found.ratio <= limit]
    ranks = [
        (len(chain), index, [setting for _, setting in chain], chain)
        for chain in close
        for index, candidate in enumerate(candidates)
        if _is_of(chain, candidate)
    ]
    _, winner, _, chain = min(ranks)
    return winner, chain


def _read(file: Path) -> Outcome | None:
    try:
        data = json.loads(file.read_text())
        if data["schema"] != _SCHEMA:
            return None
        figures = data["runs"], data["others"], data["tries"]
        return Outcome(data["winner"], tuple(data["settings"]), tuple(data["seconds"]), *figures)
    except (OSError, ValueError, KeyError, TypeError):
        return None
