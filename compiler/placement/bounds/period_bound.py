"""A lower bound on the period of a pipeline, by linear programs in which nodes may be split between places.

Devices that are alike are one class: their loads together are at most the period times their number, so the program
does not grow with them and no symmetry is searched. What holds in every placement, and is in the program:

- a class is as busy as its nodes take, less what fusion saves where both nodes are there, and its launches, and streams
  the weights that the fast memories of its devices do not keep;
- each device in use launches something, and a class launches as often as any path through the graph enters it: going
  to and fro between devices for the sake of single ops is paid for. Paths are taken until every node is on one;
- a value that a consumer elsewhere needs loads the links that every way out of its class and into the other shares;
- of nodes that take more than the n-th part of the best period known, a device has fewer than n;
- shares of FLOPs, memory, the budget for losses, and the cap on segments.

One program for each set of classes in use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, combinations
from time import perf_counter
from typing import Any

from ortools.linear_solver import pywraplp

from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Problem
from gimlet.compiler.placement.model.schedule import LOSS_TOLERANCE
from gimlet.runtime.errors import InfeasibleError

_MOST_SETS = 16
_MOST_PATHS = 12
_MOST_LARGE = 8
_FIRST = 0.6
"""The part of the time after which a program for all sets of classes together is solved, if not all of theirs are."""
_UNFINISHED = -1.0
_SHORTFALL = 1e-7
"""What the solver's tolerances may leave a program's value above its optimum, as a part of it."""


def period_bound(problem: Problem, best_known: float = float("inf"), until: float = float("inf")) -> float:
    """The least period, or more than `best_known`. InfeasibleError where nothing can keep the shares.

    Where `until` (of `time.perf_counter`) is too soon for all programs, a weaker one holds for every set of classes.
    """
    classes = device_classes(problem)
    others = [members for members in classes if problem.host not in members]
    hosts = [members for members in classes if problem.host in members]
    in_use = 2 ** len(others) <= _MOST_SETS
    sets: Iterable[tuple[list[int], ...]] = [tuple(others)]
    if in_use:
        sets = chain.from_iterable(combinations(others, size) for size in range(len(others) + 1))
    now = perf_counter()
    early = now + _FIRST * max(until - now, 0.0) if in_use else until
    periods = [
        _Program(problem, [*hosts, *chosen], chosen if in_use else (), best_known, early).solve(_UNFINISHED)
        for chosen in sets
    ]
    floor = 0.0
    if _UNFINISHED in periods:
        floor = work_bound(problem, classes)
        if in_use:
            floor = max(floor, _Program(problem, [*hosts, *others], (), best_known, until).solve(floor))
    found = min(max(period, floor) for period in periods)
    if found == float("inf") and best_known == float("inf"):
        raise InfeasibleError("no placement can give every device its share of the FLOPs")
    return found


def work_bound(problem: Problem, classes: Sequence[list[int]]) -> float:
    """The least period for the nodes' work alone, and for what they have from the host and send there.

    Fusion saves all that it could, and nodes that cost alike are one, so this takes little time for many nodes.
    """
    seconds = problem.seconds.copy()
    for fusion in problem.fusions:
        for place, saved in fusion.seconds.items():
            seconds[fusion.consumer, place] = max(seconds[fusion.consumer, place] - saved, 0.0)
    moved = [[0.0, 0.0] for _ in problem.nodes]
    for value in problem.values:
        if value.is_output and value.producer is not None:
            moved[value.producer][1] += value.size_bytes
        for consumer in value.consumers if value.producer is None else ():
            # It is sent once to a device, so each of several consumers counts for a part.
            moved[consumer][0] += value.size_bytes / len(value.consumers)
    kinds = Counter((tuple(row), *sent) for row, sent in zip(seconds.tolist(), moved, strict=True))
    scale = float(seconds.min(axis=1).max(initial=0.0)) or 1.0
    solver: Any = pywraplp.Solver.CreateSolver("GLOP")
    first = {members[0]: number for number, members in enumerate(classes)}
    rates = [
        [
            shared_links(problem, members, inward=inward) if problem.host not in members else {}
            for inward in (True, False)
        ]
        for members in classes
    ]
    loads: list[list[list[Any]]] = [[[], [], []] for _ in classes]
    for (row, *sent), count in kinds.items():
        parts: list[Any] = []
        for place, device in enumerate(problem.device_of):
            if device not in first or row[place] == float("inf"):
                continue
            parts.append(solver.NumVar(0, count, ""))
            own = loads[first[device]]
            own[0].append(row[place] / scale * parts[-1])
            for terms, size, links in zip(own[1:], sent, rates[first[device]], strict=True):
                if size and links:
                    terms.append(size * min(links.values()) / scale * parts[-1])
        solver.Add(solver.Sum(parts) == count)
    period = solver.NumVar(0, solver.infinity(), "")
    for members, own in zip(classes, loads, strict=True):
        for terms in own:
            solver.Add(period * len(members) >= solver.Sum(terms))
    solver.Minimize(period)
    if solver.Solve() != pywraplp.Solver.OPTIMAL:
        return 0.0
    return max(solver.Objective().Value() * scale * (1 - _SHORTFALL), 0.0)


class _Program:
    """The linear program for one choice of classes; `launching` are those that are in use for certain."""

    def __init__(
        self,
        problem: Problem,
        classes: Sequence[list[int]],
        launching: Sequence[list[int]],
        best_known: float,
        until: float,
    ) -> None:
        self.problem, self.classes, self.launching, self.best_known = problem, classes, launching, best_known
        self.until = until
        self.solver: Any = pywraplp.Solver.CreateSolver("GLOP")
        self.scale = max((min(row) for row in problem.seconds.tolist()), default=0.0) or 1.0
        self.class_of = {device: number for number, members in enumerate(classes) for device in members}
        # A class's places go by those of its first device.
        self.first = {members[0]: number for number, members in enumerate(classes)}
        self.places = [p for p, device in enumerate(problem.device_of) if device in self.first]
        self.at: list[dict[int, Any]] = []
        self.entered: dict[tuple[int, int, int], Any] = {}

    def number(self) -> Any:
        """A variable that is not negative."""
        return self.solver.NumVar(0, self.solver.infinity(), "")

    def solve(self, floor: float = 0.0) -> float:
        """The least period in seconds; infinite where the classes cannot do everything, `floor` where time is up."""
        problem, solver = self.problem, self.solver
        allowed = [[p for p in self.places if p in set(places)] for places in problem.allowed]
        if not all(allowed):
            return float("inf")
        if perf_counter() > self.until:
            return floor
        self.at = [{place: solver.NumVar(0, 1, "") for place in places} for places in allowed]
        for shares in self.at:
            solver.Add(solver.Sum(list(shares.values())) == 1)
        period = self.number()
        for number, terms in enumerate(self._loads()):
            solver.Add(period * len(self.classes[number]) >= solver.Sum(terms))
        for size, terms in self._links():
            solver.Add(period * size >= solver.Sum(terms))
        self._large()
        self._shares()
        self._memory()
        self._losses()
        solver.Minimize(period)
        left = self.until - perf_counter()
        if left <= 0:
            return floor
        if left < float("inf"):
            solver.SetTimeLimit(max(int(left * 1000), 1))
        status = solver.Solve()
        if status == pywraplp.Solver.INFEASIBLE:
            return float("inf")
        if status != pywraplp.Solver.OPTIMAL:
            return floor
        return max(solver.Objective().Value() * self.scale * (1 - _SHORTFALL), 0.0)

    def on(self, node: int, number: int) -> list[Any]:
        """The parts of a node on a class."""
        return [part for place, part in self.at[node].items() if self.class_of[self.problem.device_of[place]] == number]

    def _loads(self) -> list[list[Any]]:
        """Busy time by class, in units of the scale."""
        problem, scale = self.problem, self.scale
        loads: list[list[Any]] = [[] for _ in self.classes]
        for node, shares in enumerate(self.at):
            for place, share in shares.items():
                seconds = problem.nodes[node].options[place].seconds
                loads[self.class_of[problem.device_of[place]]].append(seconds / scale * share)
        for fusion in problem.fusions:
            for place, seconds in fusion.seconds.items():
                if seconds and place in self.at[fusion.producer] and place in self.at[fusion.consumer]:
                    fused = self.number()
                    self.solver.Add(fused <= self.at[fusion.producer][place])
                    self.solver.Add(fused <= self.at[fusion.consumer][place])
                    loads[self.class_of[problem.device_of[place]]].append(-seconds / scale * fused)
        for number, launches in enumerate(self._launches()):
            loads[number] += launches
        for number, streams in enumerate(self._streams()):
            loads[number] += streams
        return loads

    def _streams(self) -> list[list[Any]]:
        """Time for streamed weights by class: of each weight what a class's fast memories do not keep of it."""
        problem, solver = self.problem, self.solver
        found: list[list[Any]] = [[] for _ in self.classes]
        for number, members in enumerate(self.classes):
            room = problem.devices[members[0]].fast_bytes
            if members[0] not in problem.streaming or room is None:
                continue
            kept_bytes: list[Any] = []
            for weight in problem.weights:
                for place in self.places:
                    size, on = weight.size_bytes.get(place, 0), self.class_of[problem.device_of[place]]
                    if on != number or not size:
                        continue
                    kept = solver.NumVar(0, len(members), "")
                    kept_bytes.append(size / max(room, 1) * kept)
                    for user in weight.users:
                        seconds = weight.streaming_s(user, place) / self.scale
                        if seconds and place in self.at[user]:
                            streamed = self.number()
                            solver.Add(streamed >= self.at[user][place] - kept)
                            found[number].append(seconds * streamed)
            solver.Add(solver.Sum(kept_bytes) <= len(members) * (1 if room else 0))
        return found

    def _launches(self) -> list[list[Any]]:
        """Launch time by class: at least one a device in use, and one each time that the heaviest path enters."""
        problem, solver = self.problem, self.solver
        counts = {place: self.number() for place in self.places}
        for path in covering_paths(problem):
            for place in self.places:
                entries = self._entries(path, place)
                if entries:
                    solver.Add(counts[place] >= solver.Sum(entries))
        found: list[list[Any]] = []
        for number, members in enumerate(self.classes):
            own = [place for place in self.places if self.class_of[problem.device_of[place]] == number]
            found.append([problem.launch_s[place] / self.scale * counts[place] for place in own])
            if members in self.launching and own:
                # A device that stays unused could launch and still keep the period; a cap does not count that.
                solver.Add(solver.Sum([counts[place] for place in own]) >= 1)
                spare = self.number()
                solver.Add(spare + solver.Sum([counts[place] for place in own]) >= len(members))
                found[-1].append(min(problem.launch_s[place] for place in own) / self.scale * spare)
        if problem.rules.max_segments is not None:
            solver.Add(solver.Sum(list(counts.values())) <= problem.rules.max_segments)
        return found

    def _entries(self, path: Sequence[int], place: int) -> list[Any]:
        """How often a path comes to a place from elsewhere, as variables."""
        entries: list[Any] = []
        for before, node in zip([-1, *path], path, strict=False):
            here = self.at[node].get(place)
            if here is None:
                continue
            if (before, node, place) not in self.entered:
                entry = self.entered[before, node, place] = self.number()
                earlier = self.at[before].get(place, 0.0) if before >= 0 else 0.0
                self.solver.Add(entry >= here - earlier)
            entries.append(self.entered[before, node, place])
        return entries

    def _links(self) -> list[tuple[int, list[Any]]]:
        """Sets of link directions, how many they are, and the seconds on all of them together."""
        found: list[tuple[int, list[Any]]] = []
        for number, members in enumerate(self.classes):
            for inward in (True, False):
                rates = shared_links(self.problem, members, inward=inward)
                terms = self._crossing(number, inward=inward) if rates else []
                rate = min(rates.values(), default=0.0)
                if terms:
                    found.append((len(rates), [size * rate / self.scale * moved for size, moved in terms]))
        return found

    def _crossing(self, number: int, *, inward: bool) -> list[tuple[int, Any]]:
        """Bytes, and the part of them that goes into a class (or out of it)."""
        problem, solver = self.problem, self.solver
        is_host = problem.host in self.classes[number]
        found: list[tuple[int, Any]] = []
        for value in problem.values:
            needs: list[Any] = []
            here = (1.0 if is_host else 0.0) if value.producer is None else solver.Sum(self.on(value.producer, number))
            for consumer in value.consumers:
                there = solver.Sum(self.on(consumer, number))
                needs.append(there - here if inward else here - there)
            if value.is_output:
                needs.append((float(is_host) - here) if inward else (here - float(is_host)))
            if not needs or not value.size_bytes:
                continue
            moved = self.number()
            for need in needs:
                solver.Add(moved >= need)
            found.append((value.size_bytes, moved))
        return found

    def _large(self) -> None:
        """What is too long to be on a device several times over, in any placement as good as the best known."""
        if self.best_known == float("inf"):
            return
        saved: dict[tuple[int, int], float] = {}
        for fusion in self.problem.fusions:
            for place, seconds in fusion.seconds.items():
                saved[fusion.consumer, place] = saved.get((fusion.consumer, place), 0.0) + seconds
        for place in self.places:
            members = self.classes[self.class_of[self.problem.device_of[place]]]
            room = (self.best_known - self.problem.launch_s[place]) * (1 + _SHORTFALL)
            for count in range(_MOST_LARGE):
                large = [
                    shares[place]
                    for node, shares in enumerate(self.at)
                    if place in shares
                    and self.problem.nodes[node].options[place].seconds - saved.get((node, place), 0.0)
                    > room / (count + 1)
                ]
                if len(large) > count * len(members):
                    self.solver.Add(self.solver.Sum(large) <= count * len(members))

    def _shares(self) -> None:
        problem = self.problem
        for device, share in problem.rules.min_share.items():
            number = self.class_of.get(device)
            if number is None and share > 0:
                self.solver.Add(self.solver.Sum([]) >= 1)
            if number is None or device != self.classes[number][0]:
                continue
            given = [
                problem.nodes[node].flops / max(problem.total_flops, 1.0) * part
                for node in range(len(self.at))
                for part in self.on(node, number)
            ]
            self.solver.Add(self.solver.Sum(given) >= share * len(self.classes[number]) * (1 - 1e-9))

    def _memory(self) -> None:
        """Resident bytes of a class, each weight as often as its most present user is there."""
        problem = self.problem
        if not problem.memory_can_bind:
            return
        for members in self.classes:
            capacity = problem.devices[members[0]].memory_bytes
            if capacity is None or any(problem.devices[device].memory_bytes != capacity for device in members):
                continue
            terms: list[Any] = []
            for place in self.places:
                if problem.device_of[place] != members[0]:
                    continue
                for weight in problem.weights:
                    size = weight.size_bytes.get(place, 0)
                    if size:
                        resident = self.number()
                        for user in weight.users:
                            self.solver.Add(resident >= self.at[user].get(place, 0.0))
                        terms.append(size / max(capacity, 1) * resident)
            self.solver.Add(self.solver.Sum(terms) <= len(members) * (1 + 1e-9))

    def _losses(self) -> None:
        """The squares of losses, which a budget limits."""
        budget = self.problem.rules.loss_budget
        if not budget:
            return
        terms = [
            (option.loss / budget) ** 2 * part
            for node, shares in zip(self.problem.nodes, self.at, strict=True)
            for place, part in shares.items()
            if (option := node.options[place]).loss
        ]
        self.solver.Add(self.solver.Sum(terms) <= (1 + LOSS_TOLERANCE) ** 2)


def shared_links(problem: Problem, members: Sequence[int], *, inward: bool) -> dict[str, float]:
    """Link directions of which every route into `members` from elsewhere has one of its own; with seconds a byte.

    Of each device one link that all its routes use is taken; empty where one of them has none.
    """
    outside = sorted({place.device for place in problem.places} | {problem.host} - set(members))
    outside = [device for device in outside if device not in members]
    found: dict[str, float] = {}
    for device in members:
        routes = [problem.routes[(other, device) if inward else (device, other)] for other in outside]
        if not routes:
            return {}
        common = set(dict(routes[0].links)).intersection(*(dict(route.links) for route in routes[1:]))
        if not common:
            return {}
        slowest = max(sorted(common), key=lambda link: dict(routes[0].links)[link])
        if slowest in found:
            return {}
        found[slowest] = min(dict(route.links)[slowest] for route in routes)
    return found


def covering_paths(problem: Problem) -> list[list[int]]:
    """Paths through the graph on which all nodes are, the heaviest first, as far as a few paths have them all."""
    weight = [float(row.min()) for row in problem.seconds]
    least = max(sum(weight), 1.0) * 1e-9
    fresh = [True] * len(weight)
    found: list[list[int]] = []
    while any(fresh) and len(found) < _MOST_PATHS:
        path = _heaviest_path(problem, [w + least if new else 0.0 for w, new in zip(weight, fresh, strict=True)])
        found.append(path)
        for node in path:
            fresh[node] = False
    return found


def _heaviest_path(problem: Problem, weight: Sequence[float]) -> list[int]:
    ends: list[float] = []
    parents: list[int] = []
    for node, sources in enumerate(problem.predecessors):
        parent = max(sources, key=lambda source: (ends[source], -source), default=-1)
        ends.append(weight[node] + (ends[parent] if parent >= 0 else 0.0))
        parents.append(parent)
    node = max(range(len(ends)), key=lambda n: (ends[n], -n), default=-1)
    path: list[int] = []
    while node >= 0:
        path.append(node)
        node = parents[node]
    return path[::-1]
