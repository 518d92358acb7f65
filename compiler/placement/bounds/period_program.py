"""The linear program of `period_bound.py` for one set of classes of devices, solved with ever more of its rows.

At first only the heaviest path pays for its launches, and links carry everything for nothing: that is solved in a tenth
of the time, and is a bound. Then, as far as its solution breaks them, come the rows of all paths: what any path has
entered a place until a node is at least what it had until each node before, and what the node has there more. At last
come those links that are too busy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ortools.linear_solver import pywraplp

from gimlet.compiler.placement.bounds.device_sets import Prices
from gimlet.compiler.placement.bounds.linear import solved
from gimlet.compiler.placement.bounds.spine import heaviest_path
from gimlet.compiler.placement.model.problem import Fusion, Problem
from gimlet.compiler.placement.model.schedule import LOSS_TOLERANCE

SHORTFALL = 1e-7
"""What the solver's tolerances may leave a program's value above its optimum, as a part of it."""
_MOST_LARGE = 8
_BROKEN = 1e-6
"""A row that a solution breaks by less is not added."""


class PeriodProgram:
    """The linear program for one choice of classes; `launching` are those that are in use for certain."""

    def __init__(
        self, problem: Problem, classes: Sequence[list[int]], launching: Sequence[list[int]], best_known: float
    ) -> None:
        self.problem, self.classes, self.launching, self.best_known = problem, classes, launching, best_known
        self.solver: Any = pywraplp.Solver.CreateSolver("GLOP")
        self.scale = max((min(row) for row in problem.seconds.tolist()), default=0.0) or 1.0
        self.class_of = {device: number for number, members in enumerate(classes) for device in members}
        # A class's places go by those of its first device.
        self.first = {members[0]: number for number, members in enumerate(classes)}
        self.places = [p for p, device in enumerate(problem.device_of) if device in self.first]
        allowed = [[p for p in self.places if p in set(places)] for places in problem.allowed]
        self.can = all(allowed)
        """Whether every node may be on one of the classes."""
        self.at: list[dict[int, Any]] = []
        self.followed: set[int] = set()
        self.counts: dict[int, Any] = {}
        self.period: Any = None
        self.assigned: list[Any] = []
        self.busy: list[Any] = []
        self.rooms: dict[int, Any] = {}
        """The row for its fast memory by class."""
        self.streamed: list[tuple[int, int, float, Any]] = []
        """A weight's user and place, its seconds there for all of the weight, and the part that is streamed."""
        self.fused: list[tuple[Fusion, int, Any]] = []
        """A fusion, a place, and the part of it that there is on the place."""
        self.prices: Prices | None = None
        """What the last solution says that nodes and fast memory are worth; None before there is one."""
        self.unlinked = [(number, inward) for number in range(len(classes)) for inward in (True, False)]
        if self.can:
            self._build(allowed)

    def number(self) -> Any:
        """A variable that is not negative."""
        return self.solver.NumVar(0, self.solver.infinity(), "")

    def _build(self, allowed: Sequence[Sequence[int]]) -> None:
        solver = self.solver
        self.at = [{place: solver.NumVar(0, 1, "") for place in places} for places in allowed]
        self.assigned = [solver.Add(solver.Sum(list(shares.values())) == 1) for shares in self.at]
        self.period = self.number()
        self.busy = [
            solver.Add(self.period * len(self.classes[number]) >= solver.Sum(terms))
            for number, terms in enumerate(self._loads())
        ]
        self._large()
        self._shares()
        self._memory()
        self._losses()
        for number in range(len(self.classes)):
            keep_company(
                solver, self.problem, lambda node, number=number: self.on(node, number), len(self.classes[number])
            )
        solver.Minimize(self.period)

    def solve(self, until: float = float("inf")) -> float | None:
        """The least period in seconds; infinite where the classes cannot do everything, None where time is up."""
        found = self._least(until)
        if found is None or found == float("inf"):
            return found
        self.prices = self._prices()
        return max(found * self.scale * (1 - SHORTFALL), 0.0)

    def least_of(self, terms: Sequence[tuple[float, Any]], until: float) -> float | None:
        """The least sum of amounts and what they are of, as `solve` says it, in their own unit."""
        unit = max((abs(amount) for amount, _ in terms), default=0.0) or 1.0
        self.solver.Minimize(self.solver.Sum([amount / unit * part for amount, part in terms if amount]))
        found = self._least(until)
        if found is None or found == float("inf"):
            return found
        return found * unit - abs(found * unit) * SHORTFALL

    def largest_parts(self) -> list[int]:
        """For each node the place that the last solution has most of it on."""
        return [max(shares, key=lambda place: float(shares[place].solution_value())) for shares in self.at]

    def _least(self, until: float) -> float | None:
        """The program's least value."""
        if not self.can:
            return float("inf")
        status = solved(self.solver, until)
        if status == pywraplp.Solver.INFEASIBLE:
            return float("inf")
        return float(self.solver.Objective().Value()) if status == pywraplp.Solver.OPTIMAL else None

    def _prices(self) -> Prices:
        fast: dict[int, float] = {}
        for number, room in self.rooms.items():
            device, busy = self.classes[number][0], self.busy[number].dual_value()
            size = max(self.problem.devices[device].fast_bytes or 0, 1)
            fast[device] = max(-room.dual_value() / busy, 0.0) * self.scale / size if busy > 0 else 0.0
        return Prices([row.dual_value() for row in self.assigned], fast)

    def tighten(self) -> bool:
        """Adds rows that the last solution breaks: of paths, then of links. False where it breaks none."""
        shares = [{place: part.solution_value() for place, part in row.items()} for row in self.at]
        period = self.period.solution_value()
        return self._add_paths(shares) or self._add_links(shares, period)

    def _add_paths(self, shares: Sequence[dict[int, float]]) -> bool:
        """For each place that some path enters more often than it launches, rows for all paths."""
        launches = {place: count.solution_value() for place, count in self.counts.items()}
        broken = [
            place
            for place, count in launches.items()
            if place not in self.followed and _most_entries(self.problem, shares, place) > count + _BROKEN
        ]
        for place in broken:
            self.followed.add(place)
            self._follow_all(place)
        return bool(broken)

    def _follow_all(self, place: int) -> None:
        """A place launches as often as the path that enters it the most: for each node, the most until there."""
        until: list[Any] = []
        for node, sources in enumerate(self.problem.predecessors):
            here = self.at[node].get(place, 0.0)
            until.append(self.number())
            if not sources:
                self.solver.Add(until[node] >= here)
            for source in sources:
                self.solver.Add(until[node] >= until[source])
                if place in self.at[node]:
                    self.solver.Add(until[node] >= until[source] + here - self.at[source].get(place, 0.0))
            if not self.problem.successors[node]:
                self.solver.Add(self.counts[place] >= until[node])

    def _add_links(self, shares: Sequence[dict[int, float]], period: float) -> bool:
        """Rows for sets of link directions that are busier than the period."""
        found = False
        for number, inward in [*self.unlinked]:
            rates = shared_links(self.problem, self.classes[number], inward=inward)
            rate = min(rates.values(), default=0.0) / self.scale
            busy = rate * self._crossing_bytes(shares, number, inward=inward) if rate else 0.0
            if busy <= len(rates) * period * (1 + _BROKEN):
                continue
            terms = self._crossing(number, inward=inward)
            self.solver.Add(self.period * len(rates) >= self.solver.Sum([size * rate * moved for size, moved in terms]))
            self.unlinked.remove((number, inward))
            found = True
        return found

    def _crossing_bytes(self, shares: Sequence[dict[int, float]], number: int, *, inward: bool) -> float:
        """Bytes that go into a class (or out of it) in a solution."""
        places = [place for place in self.places if self.class_of[self.problem.device_of[place]] == number]
        here = [sum(row.get(place, 0.0) for place in places) for row in shares]
        host = float(self.problem.host in self.classes[number])
        total = 0.0
        for value in self.problem.values:
            source = host if value.producer is None else here[value.producer]
            ends = [*(here[consumer] for consumer in value.consumers), *([host] if value.is_output else [])]
            part = max((end - source if inward else source - end for end in ends), default=0.0)
            total += value.size_bytes * max(part, 0.0)
        return total

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
                saves = seconds or fusion.joules.get(place)
                if saves and place in self.at[fusion.producer] and place in self.at[fusion.consumer]:
                    fused = self.number()
                    self.fused.append((fusion, place, fused))
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
                            self.streamed.append((user, place, seconds * self.scale, streamed))
                            found[number].append(seconds * streamed)
            self.rooms[number] = solver.Add(solver.Sum(kept_bytes) <= len(members) * (1 if room else 0))
        return found

    def _launches(self) -> list[list[Any]]:
        """Launch time by class: at least one a device in use, and one each time that a path enters."""
        problem, solver = self.problem, self.solver
        counts = self.counts = {place: self.number() for place in self.places}
        path = heaviest_path(problem)
        for place, count in counts.items():
            solver.Add(count >= solver.Sum(self.entries(path, place)))
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

    def entries(self, path: Sequence[int], place: int) -> list[Any]:
        """How often a path comes to a place from elsewhere, as variables."""
        entries: list[Any] = []
        for before, node in zip([-1, *path], path, strict=False):
            if place in self.at[node]:
                entries.append(self.number())
                earlier = self.at[before].get(place, 0.0) if before >= 0 else 0.0
                self.solver.Add(entries[-1] >= self.at[node][place] - earlier)
        return entries

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
        for place in self.places:
            members = self.classes[self.class_of[self.problem.device_of[place]]]
            room = (self.best_known - self.problem.launch_s[place]) * (1 + SHORTFALL)
            for count in range(_MOST_LARGE):
                large = [
                    shares[place]
                    for node, shares in enumerate(self.at)
                    if place in shares and self.problem.fused_seconds[node, place] > room / (count + 1)
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


def keep_company(solver: Any, problem: Problem, on: Callable[[int], Sequence[Any]], members: int) -> None:
    """Rows for one class of devices, of so many members, for ops that share a device, and for those that may not.

    `on` gives the parts of a node that are on the class.
    """
    for group in problem.rules.together:
        first, *others = (solver.Sum(list(on(node))) for node in group)
        for other in others:
            solver.Add(other == first)
    for sides in problem.rules.apart:
        # So many of the devices have ops of each side.
        used = [solver.NumVar(0, members, "") for _ in sides]
        for count, nodes in zip(used, sides, strict=True):
            for node in nodes:
                solver.Add(count >= solver.Sum(list(on(node))))
        solver.Add(solver.Sum(used) <= members)


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


def _most_entries(problem: Problem, shares: Sequence[dict[int, float]], place: int) -> float:
    """The most often that any path enters a place where nodes are split like this."""
    ends: list[float] = []
    for node, sources in enumerate(problem.predecessors):
        here = shares[node].get(place, 0.0)
        more = [ends[source] + max(here - shares[source].get(place, 0.0), 0.0) for source in sources]
        ends.append(max(more, default=here))
    return max(ends, default=0.0)
