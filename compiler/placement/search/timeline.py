"""Simulated annealing under limits: the moves of `balance.py` and `anneal.py`, judged by a schedule of segments.

What a placement's figures follow from is kept up to date with each move: how long every segment takes, what it draws,
and what it sends where and waits for. There are few segments, so running them on paper takes microseconds where
`schedule.simulate` looks at every node. So any figure can be lowered while others keep their bounds: a move that breaks
one is not made. A period is smoothed as in `anneal.py`. What is found is judged by `schedule.simulate` at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from random import Random

from gimlet.compiler.placement.model.problem import OBJECTIVES, Objective, Placement, Problem
from gimlet.compiler.placement.model.schedule import LOSS_TOLERANCE, load_w
from gimlet.compiler.placement.model.segments import Found, judge
from gimlet.compiler.placement.model.streaming import streamed_by
from gimlet.compiler.placement.search.anneal import Annealing
from gimlet.compiler.placement.search.balance import POWER, Loads, State

_MOST_MOVED = 100
_HOT = 3e-3
"""The first temperature, as a part of the figure that is lowered."""
_FORBIDDEN = 1e9
"""What a placement that breaks a rule by all of it counts more, in units of the objective."""
_KEPT = 1 + 1e-9
"""What a bound may be exceeded by, as `schedule.violations` has it."""


def annealed_schedule(problem: Problem, start: Found, seed: int, steps: int, seconds: float = math.inf) -> Found:
    """`start`, or a placement with less of the objective, after so many steps or `seconds` of wall time.

    Where `start` breaks bounds, shares, or the cap on segments, one is sought first that breaks them less.
    """
    found = judge(problem, Timeline(problem, start.placement, Random(seed)).anneal(steps, seconds, _HOT))
    return min(start, found, key=lambda candidate: candidate.rank(problem.rules.objective))


class _Links:
    """Links while batches are sent: when each is free, how long it was busy, and what bytes were charged."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.free: dict[str, float] = {}
        self.busy: dict[str, float] = {}
        self.usd = 0.0

    def sent(self, source: int, device: int, size: float, time: float) -> float:
        """When a batch that is ready at `time` has arrived."""
        route = self.problem.routes[source, device]
        leaves = max([time, *(self.free.get(link, 0.0) for link, seconds in route.links if seconds)])
        for link, seconds in route.links:
            self.busy[link] = self.busy.get(link, 0.0) + size * seconds
            if seconds:
                self.free[link] = leaves + size * seconds
        self.usd += size * route.usd_per_byte
        return leaves + route.seconds(size)


class Timeline(Annealing):
    """What segments take, send and wait for, in `load`; segments are named by their numbers, `~n` is the host for `n`.

    - (`nodes`, segment, place): how many nodes it has; (`seconds`, segment, place): what they take;
    - (`bytes`, segment, device): what it sends there; (`outputs`, segment, host): how many of them are outputs;
    - (`waits`, segment, source): how many values it waits for from another;
    - (`flops`, device, device), where it must have a share; (`loss`, 0, 0), squares in parts of the budget's;
    - (`joules`, segment, place) without what is streamed; (`usd`, 0, 0): prices of ops;
    - (`missing`, device, device): bytes that its memory has no room for.
    """

    most_moved = _MOST_MOVED
    may_cut = True

    def __init__(self, problem: Problem, placement: Placement, random: Random) -> None:
        self.least = {d: s * problem.total_flops for d, s in problem.rules.min_share.items()}
        self.objective: Objective = problem.rules.objective
        self.now: dict[Objective, float] = {self.objective: 0.0}
        self.unit, self.smooth, self.broken = 1.0, 0.0, 0.0
        """The objective in units of the first, a period smoothed, and by how much rules are broken."""
        super().__init__(problem, placement, random)
        self.load = {}
        for number in self.place_of:
            self._launch(number, 1.0, self.load)
        self._count(range(len(self.place)), range(len(problem.fusions)), range(len(problem.values)), 1.0, self.load)
        self._count_streaming(self.load)
        self.now, _ = self._figures(self.load)
        self.unit = self.now[self.objective] or 1.0
        self._settle_figures()

    def _sum(self, loads: Loads) -> float:
        return 0.0

    def figure(self) -> float:
        """The objective of the placement, and more than any other's where it breaks rules."""
        return self.now[self.objective] + self.broken * _FORBIDDEN * self.unit

    def _accepts(self, loads: Loads, temperature: float) -> bool:
        load = {**self.load, **loads}
        after, smooth = self._figures(load)
        broken = self._excess(load, after)
        if broken > self.broken + 1e-12:
            return False
        before = {key: self.load.get(key, 0.0) for key in loads}
        worse = smooth - self.smooth if broken >= self.broken else 0.0
        worse += self._too_much(before, loads)
        if worse > 0 and self.random.random() >= math.exp(-worse / temperature):
            return False
        self.now, self.smooth, self.broken = after, smooth, broken
        return True

    def _settle_figures(self) -> None:
        self.now, self.smooth = self._figures(self.load)
        self.broken = self._excess(self.load, self.now)

    def _excess(self, load: Loads, figures: Mapping[Objective, float]) -> float:
        """By how much bounds, shares, the loss budget and the cap on segments are exceeded, in parts of each."""
        rules = self.problem.rules
        found = sum(max(figures[figure] / bound / _KEPT - 1, 0.0) for figure, bound in rules.bounds.items())
        for device, least in self.least.items():
            found += max(1 - load.get(("flops", device, device), 0.0) / max(least, 1e-30), 0.0)
        if rules.max_segments is not None:
            used = sum(isinstance(key, tuple) and key[0] == "nodes" and n > 0.5 for key, n in load.items())
            found += max(used / rules.max_segments - 1, 0.0)
        lost = load.get(("loss", 0, 0), 0.0) / (1 + LOSS_TOLERANCE) ** 2
        return found + max(lost - 1, 0.0)

    def _figures(self, load: Loads) -> tuple[dict[Objective, float], float]:
        """As `schedule.simulate` has them; the second is the objective in units of the first, a period smoothed."""
        problem = self.problem
        place = {
            key[1]: key[2]
            for key, amount in load.items()
            if isinstance(key, tuple) and key[0] == "nodes" and amount > 0.5
        }
        waits, sends = self._batches(load, place)
        links = _Links(problem)
        free: dict[int, float] = {}
        busy: dict[int, float] = {problem.host: 0.0}
        launched: dict[int, float] = {}
        arrival: dict[tuple[int, int], float] = {}
        joules = last = 0.0

        def send(segment: int, source: int, time: float) -> None:
            for device in sorted(sends.get(segment, ()), key=lambda d: (d == problem.host, d)):
                size = load.get(("bytes", segment, device), 0.0)
                arrival[segment, device] = links.sent(source, device, size, time)

        order = sorted(place)
        for segment in order:
            send(~segment, problem.host, 0.0)
        for segment in order:
            own, device = place[segment], problem.device_of[place[segment]]
            units = problem.units[device]
            start = max(free.get(unit, 0.0) for unit in units)
            start = max([start, *(arrival[source, device] for source in waits.get(segment, ()))])
            streamed = load.get(("streams", segment, segment), 0.0)
            taken = load.get(("seconds", segment, own), 0.0) + streamed
            joules += load.get(("joules", segment, own), 0.0) + streamed * load_w(problem, device)
            for unit in units:
                free[unit] = start + taken
                busy[unit] = busy.get(unit, 0.0) + taken
                launched[unit] = launched.get(unit, 0.0) + problem.launch_s[own]
            send(segment, device, start + taken)
            last = max(last, start + taken)
            if load.get(("outputs", segment, problem.host), 0.0) > 0.5:
                last = max(last, arrival[segment, problem.host])
        for device, seconds in busy.items():
            idle = last - seconds + launched.get(device, 0.0)
            joules += (problem.devices[device].idle_w or 0.0) * max(idle, 0.0)
            links.usd += (problem.devices[device].usd_per_hour or 0.0) / 3600.0 * last
        loads = [*busy.values(), *links.busy.values()]
        usd = load.get(("usd", 0, 0), 0.0) + links.usd
        figures = dict(zip(OBJECTIVES, (last, max(loads), joules, usd), strict=True))
        if self.objective != "throughput":
            return figures, figures[self.objective] / self.unit
        return figures, sum((max(each, 0.0) / self.unit) ** POWER for each in loads) ** (1 / POWER)

    def _batches(self, load: Loads, place: Mapping[int, int]) -> tuple[dict[int, list[int]], dict[int, set[int]]]:
        """What each segment waits for, and the devices that it sends to."""
        waits: dict[int, list[int]] = {}
        sends: dict[int, set[int]] = {}
        for key, amount in load.items():
            if not isinstance(key, tuple) or amount < 0.5:
                continue
            kind, segment, other = key
            if kind == "waits":
                waits.setdefault(segment, []).append(other)
                sends.setdefault(other, set()).add(self.problem.device_of[place[segment]])
            elif kind == "outputs":
                sends.setdefault(segment, set()).add(self.problem.host)
        return waits, sends

    def _launch(self, number: int, sign: float, into: Loads) -> None:
        place = self.place_of[number]
        _add(into, ("seconds", number, place), sign * self.problem.launch_s[place])

    def _count(
        self, nodes: Iterable[int], fusions: Iterable[int], values: Iterable[int], sign: float, into: Loads
    ) -> None:
        problem = self.problem
        for node in nodes:
            place, segment = self.place[node], self.segment[node]
            _add(into, ("nodes", segment, place), sign)
            option = problem.nodes[node].options[place]
            _add(into, ("seconds", segment, place), sign * option.seconds)
            _add(into, ("joules", segment, place), sign * (option.joules or 0.0))
            if option.usd:
                _add(into, ("usd", 0, 0), sign * option.usd)
            if problem.rules.loss_budget and option.loss:
                _add(into, ("loss", 0, 0), sign * (option.loss / problem.rules.loss_budget) ** 2)
            device = problem.device_of[place]
            if device in self.least:
                _add(into, ("flops", device, device), sign * problem.nodes[node].flops)
        for index in fusions:
            fusion = problem.fusions[index]
            segment, place = self.segment[fusion.producer], self.place[fusion.producer]
            if segment == self.segment[fusion.consumer]:
                _add(into, ("seconds", segment, place), -sign * fusion.seconds.get(place, 0.0))
                _add(into, ("joules", segment, place), -sign * fusion.joules.get(place, 0.0))
        for index in values:
            self._value(index, sign, into)

    def _value(self, index: int, sign: float, into: Loads) -> None:
        problem, value = self.problem, self.problem.values[index]
        readers = {self.segment[consumer]: self.place[consumer] for consumer in value.consumers}
        if problem.has_edges:
            self._edges(index, readers, sign, into)
        if value.producer is None:
            first: dict[int, int] = {}
            for reader in sorted(readers):
                device = problem.device_of[readers[reader]]
                if device != problem.host:
                    source = ~first.setdefault(device, reader)
                    _add(into, ("waits", reader, source), sign)
            for device, reader in first.items():
                _add(into, ("bytes", ~reader, device), sign * value.size_bytes)
            return
        segment = self.segment[value.producer]
        source = problem.device_of[self.place[value.producer]]
        reached: set[int] = set()
        for reader, place in readers.items():
            device = problem.device_of[place]
            if device != source:
                reached.add(device)
                _add(into, ("waits", reader, segment), sign)
        if value.is_output and source != problem.host:
            reached.add(problem.host)
            _add(into, ("outputs", segment, problem.host), sign)
        for device in reached:
            _add(into, ("bytes", segment, device), sign * value.size_bytes)

    def _edges(self, index: int, readers: Mapping[int, int], sign: float, into: Loads) -> None:
        """As `schedule.edges` has them."""
        problem, value = self.problem, self.problem.values[index]
        home = None if value.producer is None else self.segment[value.producer]
        for reader, place in readers.items():
            if reader != home:
                self._edge(reader, place, sign * problem.edge_s(value, place, leaving=False), into)
        if home is not None and value.producer is not None and (set(readers) - {home} or value.is_output):
            place = self.place[value.producer]
            self._edge(home, place, sign * problem.edge_s(value, place, leaving=True), into)

    def _edge(self, segment: int, place: int, seconds: float, into: Loads) -> None:
        _add(into, ("seconds", segment, place), seconds)
        _add(into, ("joules", segment, place), seconds * load_w(self.problem, self.problem.device_of[place]))

    def _count_memory(self, into: Loads) -> None:
        self._count_missing(into)
        if self.problem.streaming:
            self._count_streaming(into)

    def _count_streaming(self, into: Loads) -> None:
        """What segments stream now and did not."""
        now: dict[int, float] = {}
        grouped = any(device.members for device in self.problem.devices)
        streamed = streamed_by(self.problem, self.place).seconds if grouped else self.residency.streamed(self.place)
        for node, seconds in streamed.items():
            now[self.segment[node]] = now.get(self.segment[node], 0.0) + seconds
        before = {key[1] for key in self.load if isinstance(key, tuple) and key[0] == "streams"}
        for segment in {*now, *before}:
            key = "streams", segment, segment
            into[key] = now.get(segment, 0.0) - (self.load.get(key, 0.0) if into is not self.load else 0.0)

    def _elsewhere(self, nodes: tuple[int, ...], home: int) -> list[int]:
        common = set(self.problem.allowed[nodes[0]]).intersection(*(self.problem.allowed[n] for n in nodes))
        return sorted(common - {self.place_of[home]})

    def _restore(self, state: State) -> None:
        super()._restore(state)
        self._settle_figures()

    def _keep(self, changed: Loads) -> None:
        """The loads after a move that is made; what is nothing any more is left out."""
        self.load.update(changed)
        for key in changed:
            if not self.load.get(key):
                self.load.pop(key, None)
            if isinstance(key, tuple) and key[0] == "nodes" and key not in self.load:
                self.load.pop(("seconds", key[1], key[2]), None)
                self.load.pop(("joules", key[1], key[2]), None)


def _add(into: Loads, key: tuple[str, int, int], amount: float) -> None:
    into[key] = into.get(key, 0.0) + amount
