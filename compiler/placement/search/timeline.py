"""Simulated annealing of a latency: the moves of `balance.py` and `anneal.py`, judged by a schedule of segments.

What a placement's latency follows from is kept up to date with each move: how long every segment takes, and what it
sends where and waits for. There are few segments, so running them on paper takes microseconds where
`schedule.simulate` looks at every node. What is found is judged by `schedule.simulate` at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from random import Random

from gimlet.compiler.placement.model.problem import Placement, Problem
from gimlet.compiler.placement.model.segments import Found, judge
from gimlet.compiler.placement.model.streaming import streamed_by
from gimlet.compiler.placement.search.anneal import Annealing
from gimlet.compiler.placement.search.balance import Loads, State

_MOST_MOVED = 100
_HOT = 3e-3
"""The first temperature, as a part of the latency."""


def annealed_latency(problem: Problem, start: Found, seed: int, steps: int, seconds: float = math.inf) -> Found:
    """`start`, or a placement with a lower latency, after so many steps or `seconds` of wall time.

    Where `start` breaks rules, or they limit figures, losses or segments, of which moves know nothing, it is left.
    """
    rules = problem.rules
    if rules.max_segments is not None or rules.loss_budget is not None or rules.bounds or start.excess:
        return start
    found = judge(problem, Timeline(problem, start.placement, Random(seed)).anneal(steps, seconds, _HOT))
    return min(start, found, key=lambda candidate: candidate.rank(rules.objective))


class Timeline(Annealing):
    """What segments take, send and wait for, in `load`; segments are named by their numbers, `~n` is the host for `n`.

    - (`nodes`, segment, place): how many nodes it has; (`seconds`, segment, place): what they take;
    - (`bytes`, segment, device): what it sends there; (`outputs`, segment, host): how many of them are outputs;
    - (`waits`, segment, source): how many values it waits for from another;
    - (`flops`, device, device), where it must have a share;
    - (`missing`, device, device): bytes that its memory has no room for.
    """

    most_moved = _MOST_MOVED

    def __init__(self, problem: Problem, placement: Placement, random: Random) -> None:
        self.latency = 0.0
        self.least = {d: s * problem.total_flops for d, s in problem.rules.min_share.items()}
        super().__init__(problem, placement, random)
        self.load = {}
        for number in self.place_of:
            self._launch(number, 1.0, self.load)
        self._count(range(len(self.place)), range(len(problem.fusions)), range(len(problem.values)), 1.0, self.load)
        self._count_streaming(self.load)
        self.latency = self.unit = self._latency(self.load)

    def _sum(self, loads: Loads) -> float:
        return 0.0

    def figure(self) -> float:
        """The latency in seconds."""
        return self.latency

    def _accepts(self, loads: Loads, temperature: float) -> bool:
        if self._lacks_share(loads):
            return False
        after = self._latency({**self.load, **loads})
        before = {key: self.load.get(key, 0.0) for key in loads}
        worse = (after - self.latency) / self.unit + self._too_much(before, loads)
        if worse > 0 and self.random.random() >= math.exp(-worse / temperature):
            return False
        self.latency = after
        return True

    def _lacks_share(self, loads: Loads) -> bool:
        return any(loads.get(("flops", d, d), math.inf) < least for d, least in self.least.items())

    def _latency(self, load: Loads) -> float:
        """As `schedule.simulate` has it."""
        problem = self.problem
        place: dict[int, int] = {}
        waits: dict[int, list[int]] = {}
        sends: dict[int, set[int]] = {}
        for key, amount in load.items():
            if isinstance(key, tuple) and key[0] == "nodes" and amount > 0.5:
                place[key[1]] = key[2]
        for key, amount in load.items():
            if not isinstance(key, tuple) or amount < 0.5:
                continue
            kind, segment, other = key
            if kind == "waits":
                waits.setdefault(segment, []).append(other)
                sends.setdefault(other, set()).add(problem.device_of[place[segment]])
            elif kind == "outputs":
                sends.setdefault(segment, set()).add(problem.host)
        free: dict[int, float] = {}
        links: dict[str, float] = {}
        arrival: dict[tuple[int, int], float] = {}

        def send(segment: int, source: int, time: float) -> None:
            for device in sorted(sends.get(segment, ()), key=lambda d: (d == problem.host, d)):
                route, size = problem.routes[source, device], load.get(("bytes", segment, device), 0.0)
                leaves = max([time, *(links.get(link, 0.0) for link, seconds in route.links if seconds)])
                links.update({link: leaves + size * seconds for link, seconds in route.links if seconds})
                arrival[segment, device] = leaves + route.seconds(size)

        order = sorted(place)
        for segment in order:
            send(~segment, problem.host, 0.0)
        last = 0.0
        for segment in order:
            device = problem.device_of[place[segment]]
            units = problem.units[device]
            start = max(free.get(unit, 0.0) for unit in units)
            start = max([start, *(arrival[source, device] for source in waits.get(segment, ()))])
            end = start + load.get(("seconds", segment, place[segment]), 0.0)
            end += load.get(("streams", segment, segment), 0.0)
            free.update(dict.fromkeys(units, end))
            send(segment, device, end)
            last = max(last, end)
            if load.get(("outputs", segment, problem.host), 0.0) > 0.5:
                last = max(last, arrival[segment, problem.host])
        return last

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
            _add(into, ("seconds", segment, place), sign * problem.nodes[node].options[place].seconds)
            device = problem.device_of[place]
            if device in self.least:
                _add(into, ("flops", device, device), sign * problem.nodes[node].flops)
        for index in fusions:
            fusion = problem.fusions[index]
            segment, place = self.segment[fusion.producer], self.place[fusion.producer]
            if segment == self.segment[fusion.consumer]:
                _add(into, ("seconds", segment, place), -sign * fusion.seconds.get(place, 0.0))
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
                _add(into, ("seconds", reader, place), sign * problem.edge_s(value, place, leaving=False))
        if value.producer is not None and (set(readers) - {home} or value.is_output):
            place = self.place[value.producer]
            segment = self.segment[value.producer]
            _add(into, ("seconds", segment, place), sign * problem.edge_s(value, place, leaving=True))

    def _count_memory(self, into: Loads) -> None:
        self._count_missing(into)
        if self.problem.streaming:
            self._count_streaming(into)

    def _count_streaming(self, into: Loads) -> None:
        """What segments stream now and did not."""
        now: dict[int, float] = {}
        for node, seconds in streamed_by(self.problem, self.place).seconds.items():
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
        self.latency = state.figure

    def _keep(self, changed: Loads) -> None:
        """The loads after a move that is made; what is nothing any more is left out."""
        self.load.update(changed)
        for key in changed:
            if not self.load.get(key):
                self.load.pop(key, None)
            if isinstance(key, tuple) and key[0] == "nodes" and key not in self.load:
                self.load.pop(("seconds", key[1], key[2]), None)


def _add(into: Loads, key: tuple[str, int, int], amount: float) -> None:
    into[key] = into.get(key, 0.0) + amount
