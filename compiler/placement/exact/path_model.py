"""What a path through the graph takes, for CP-SAT: a place for every node, whole, on the devices of one fleet.

All nodes have a place, and memories, links and limits are kept. Latency is what the heaviest path takes: its nodes, a
launch where it is cut, and a transfer where it changes device. There are no times and no slots, so the model is small,
and most of what a placement decides is in it: what it says is a bound, and its placements are good ones to start from.
Everything is counted at most as high as a placement has it, and rounded down:

- a segment has one stretch of the path, which begins with a launch; nodes beside the path need none, and add nothing to
  the latency;
- what a segment sends to a device leaves as one batch. So where the path goes on to a device, other values of the
  stretch that ends there and that the device needs as well are waited for. A cut before, in place, avoids that;
- a value enters a device with a reader and without its producer, and leaves one that is not that of all its readers;
- fusion saves of every op what it could at most.

Devices that are alike come into use one after another in the order of the nodes. Left out are streamed weights,
activations in memory, and what links make wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ortools.sat.python import cp_model

from gimlet.compiler.placement.bounds.bills import TOLERANCE, billed, rate_of
from gimlet.compiler.placement.bounds.fleets import Fleet
from gimlet.compiler.placement.bounds.input_batches import input_bytes
from gimlet.compiler.placement.bounds.period_program import shared_links
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Objective, Placement, Problem
from gimlet.compiler.placement.model.streaming import places_on

TICKS = 1_000_000
"""Of the latency and the period of a placement that is known."""
_PARTS = 100_000
"""Of a memory."""
_SHARES = 100 * TICKS
"""Of energy or cost."""
_LONGEST = 1_000_000
"""So many times the latency or period that is known is more than any of a placement."""
_SPAN = 16
"""So many steps of the path a value may pass by to be waited for."""


class PathModel:
    """The model of a fleet. `known` are figures of some placement: they set the resolution."""

    def __init__(self, problem: Problem, fleet: Fleet, path: Sequence[int], known: Mapping[Objective, float]) -> None:
        self.problem, self.fleet, self.path = problem, fleet, tuple(path)
        self.tick = {figure: (known[figure] or 1.0) / TICKS for figure in ("latency", "throughput")}
        self.known = known
        self.model: Any = cp_model.CpModel()
        self.at: list[dict[int, Any]] = []
        for allowed in problem.allowed:
            here = {place: self._bool() for place in allowed if problem.device_of[place] in fleet.open}
            self.model.add_exactly_one(here.values())
            self.at.append(here)
        self.cut = {index: self._bool() for index in sorted(self._passed())}
        """Whether a segment begins at a position of the path, where that is not only so where the place changes."""
        self.enters: dict[tuple[int, int], Any] = {}
        """Whether the path changes to a place at a position."""
        self.launched: list[tuple[int, Any]] = []
        """Places, and whether a segment there begins."""
        self._add_stretches()
        for device in sorted(fleet.open):
            self._add_memory(device)
        self._add_order()
        self.units: dict[Objective, float] = {}
        self.figures: dict[Objective, Any] = {}
        for figure in dict.fromkeys((problem.rules.objective, *problem.rules.bounds)):
            self._add_figure(figure)
        for figure, bound in problem.rules.bounds.items():
            if bound < float("inf"):
                self.keep(figure, bound * (1 + TOLERANCE))
        self.model.minimize(self.figures[problem.rules.objective])

    def keep(self, figure: Objective, most: float) -> None:
        """Limits a figure."""
        self.model.add(self.figures[figure] <= int(most / self.units[figure]) + 1)

    def above(self, bound: float) -> None:
        """Adds what is known that the objective is at least."""
        figure = self.problem.rules.objective
        self.model.add(self.figures[figure] >= int(bound / self.units[figure] * (1 - 1e-6)) - 1000)

    def hint(self, place: Sequence[int]) -> None:
        """Suggests a placement, with devices that are alike in their order, as far as it is on the fleet's devices."""
        problem = self.problem
        order = list(dict.fromkeys(problem.device_of[chosen] for chosen in place))
        as_device: dict[int, int] = {}
        for members in device_classes(problem):
            in_use = [device for device in order if device in members]
            as_device |= dict(zip(in_use, members, strict=False))
        for here, chosen in zip(self.at, place, strict=True):
            device = problem.device_of[chosen]
            number = places_on(problem, device).index(chosen)
            chosen = places_on(problem, as_device[device])[number]
            for other, variable in here.items() if chosen in here else ():
                self.model.add_hint(variable, int(other == chosen))

    def read(self, value: Any) -> tuple[tuple[int, ...], Placement | None]:
        """Places, and where the path has all nodes the segments, by a function that gives a variable's value."""
        place = tuple(next(p for p, variable in here.items() if value(variable)) for here in self.at)
        if len(self.path) < len(place):
            return place, None
        segment, number = [0] * len(place), 0
        for index, node in enumerate(self.path):
            cut = index in self.cut and value(self.cut[index])
            number += bool(index and (cut or place[node] != place[self.path[index - 1]]))
            segment[node] = number
        return place, Placement(place, tuple(segment))

    def _bool(self) -> Any:
        return self.model.new_bool_var("")

    def _waited_for(self) -> Iterator[tuple[int, int, list[int]]]:
        """Values of the path's nodes that others than the next one read, and the positions of producer and readers."""
        position = {node: index for index, node in enumerate(self.path)}
        for number, value in enumerate(self.problem.values):
            if value.producer in position and value.size_bytes:
                made = position[value.producer]
                read = sorted({position[node] for node in value.consumers if node in position})
                read = [index for index in read if index > made + 1]
                if read:
                    yield number, made, read

    def _passed(self) -> set[int]:
        """Positions where a cut in place could save a wait."""
        return {
            index for _, made, read in self._waited_for() for index in range(made + 1, min(read[-1], made + _SPAN) + 1)
        }

    def _add_stretches(self) -> None:
        for index, (before, node) in enumerate(pairwise([-1, *self.path])):
            for place, here in self.at[node].items():
                if before < 0:
                    self.launched.append((place, here))
                    continue
                enters = self.enters[index, place] = self._bool()
                was = self.at[before].get(place)
                self.model.add_bool_or([here.negated(), enters, *([] if was is None else [was])])
                self.model.add_implication(enters, here)
                if was is not None:
                    self.model.add_implication(enters, was.negated())
                begins = enters
                if index in self.cut:
                    begins = self._bool()
                    self.model.add_implication(enters, self.cut[index])
                    self.model.add_bool_or([here.negated(), self.cut[index].negated(), begins])
                self.launched.append((place, begins))

    def _add_memory(self, device: int) -> None:
        problem = self.problem
        room = problem.devices[device].memory_bytes
        terms: list[Any] = []
        for weight in problem.weights if room else ():
            for place in (place for place in places_on(problem, device) if weight.size_bytes.get(place)):
                users = [self.at[user][place] for user in weight.users if place in self.at[user]]
                held = users[0] if len(users) == 1 else self._bool()
                for user in users if len(users) > 1 else ():
                    self.model.add_implication(user, held)
                if users:
                    terms.append(min(weight.size_bytes[place] * _PARTS // (room or 1), 2 * _PARTS) * held)
        if terms:
            self.model.add(sum(terms) <= _PARTS)

    def _on(self, node: int, device: int) -> list[Any]:
        return [here for place, here in self.at[node].items() if self.problem.device_of[place] == device]

    def _add_order(self) -> None:
        """Certain devices are in use; of those that are alike the next one after the one before it."""
        for members in self.fleet.classes:
            for left, right in pairwise(members):
                used: list[Any] = []
                for node in range(len(self.at)):
                    for here in self._on(node, right):
                        self.model.add_bool_or([here.negated(), *used])
                    used += self._on(node, left)
        for device in self.fleet.certain - {self.problem.host}:
            self.model.add_bool_or([here for node in range(len(self.at)) for here in self._on(node, device)])

    def _add_figure(self, figure: Objective) -> None:
        if figure in self.figures:
            return
        if figure == "latency":
            self.figures[figure], self.units[figure] = self._latency(), self.tick["latency"]
        elif figure == "throughput":
            self.figures[figure], self.units[figure] = self._period(), self.tick["throughput"]
        else:
            self._add_figure("latency")
            self._add_bill(figure)

    def _floor(self, seconds: float, figure: Objective = "latency") -> int:
        return int(seconds / self.tick[figure])

    def _number(self) -> Any:
        return self.model.new_int_var(0, _LONGEST * TICKS, "")

    def _latency(self) -> Any:
        problem, fleet = self.problem, self.fleet
        terms = [
            self._floor(float(problem.fused_seconds[node, place])) * here
            for node in self.path
            for place, here in self.at[node].items()
        ]
        terms += [self._floor(problem.launch_s[place]) * begins for place, begins in self.launched]
        first, last = self.path[0], self.path[-1]
        brought = input_bytes(problem).get(first)
        given = [problem.values[v].size_bytes for v in problem.outputs_of[last] if problem.values[v].is_output]
        for place, here in self.at[first].items() if brought is not None else ():
            terms.append(self._floor(problem.transfer_s(problem.host, problem.device_of[place], brought or 0)) * here)
        for place, here in self.at[last].items() if given else ():
            terms.append(self._floor(problem.transfer_s(problem.device_of[place], problem.host, sum(given))) * here)
        terms += self._arrivals()
        terms += self._waits()
        latency = self._number()
        self.model.add(latency >= sum(terms))
        self.model.add(latency >= self._floor(fleet.usable.latency.seconds))
        return latency

    def _arrivals(self) -> Iterator[Any]:
        """What comes from the node before, from the place that is quickest, and what others take longer."""
        problem = self.problem
        for (index, place), enters in self.enters.items():
            before, node = self.path[index - 1], self.path[index]
            came = (problem.values[v] for v in problem.outputs_of[before])
            size = sum(value.size_bytes for value in came if node in value.consumers)
            device = problem.device_of[place]
            ticks = {
                source: self._floor(problem.transfer_s(problem.device_of[source], device, size))
                for source in self.at[before]
                if source != place
            }
            levels = sorted(set(ticks.values()))
            for lower, level in pairwise([0, *levels]) if levels else ():
                slower = [self.at[before][source] for source, taken in ticks.items() if taken >= level]
                if level == lower:
                    continue
                if len(slower) == len(ticks):
                    yield level * enters
                    continue
                waits = self._bool()
                self.model.add(waits >= enters + sum(slower) - 1)
                yield (level - lower) * waits

    def _waits(self) -> Iterator[Any]:
        """What values beside that of the node before add to a batch."""
        problem = self.problem
        rates = [
            route.seconds_per_byte
            for (source, device), route in problem.routes.items()
            if source != device and {source, device} <= self.fleet.open
        ]
        for number, made, read in self._waited_for():
            ticks = self._floor(problem.values[number].size_bytes * min(rates, default=0.0))
            if not ticks:
                continue
            waits = self._bool()
            yield ticks * waits
            for index in range(made + 1, min(read[-1], made + _SPAN) + 1):
                if index == made + 1 and self.path[index] in problem.values[number].consumers:
                    continue
                before = self.path[index - 1]
                cut = sum(self.cut[between] for between in range(made + 1, index))
                for place in self.at[self.path[index]]:
                    device = problem.device_of[place]
                    same = [
                        here for at, here in self.at[before].items() if at != place and problem.device_of[at] == device
                    ]
                    for reader in (self.path[later] for later in read if later >= index):
                        there = self._on(reader, device)
                        if there:
                            enters = self.enters[index, place]
                            self.model.add(waits >= enters + sum(there) - 1 - cut - sum(same))

    def _period(self) -> Any:
        """The busiest device, or way into or out of one."""
        problem, period = self.problem, self._number()
        for device in sorted(self.fleet.open):
            own = places_on(problem, device)
            terms = [
                self._floor(float(problem.fused_seconds[node, place]), "throughput") * here
                for node, at in enumerate(self.at)
                for place, here in at.items()
                if place in own
            ]
            terms += [
                self._floor(problem.launch_s[place], "throughput") * begins
                for place, begins in self.launched
                if place in own
            ]
            self.model.add(sum(terms) <= period)
            for inward in (True, False):
                rate = min(shared_links(problem, [device], inward=inward).values(), default=0.0)
                crossing = self._crossing(device, rate, inward=inward) if rate else []
                if crossing:
                    self.model.add(sum(crossing) <= period)
        return period

    def _crossing(self, device: int, rate: float, *, inward: bool) -> list[Any]:
        """Ticks of values that enter a device, or leave it."""
        found: list[Any] = []
        for value in self.problem.values:
            ticks = self._floor(value.size_bytes * rate, "throughput")
            from_host = value.producer is None and device == self.problem.host
            made = [] if value.producer is None else self._on(value.producer, device)
            if not ticks or (from_host if inward else not (from_host or made)):
                continue
            made_here = 1 if from_host else sum(made)
            crosses = self._bool()
            for reader in value.consumers:
                read_here = sum(self._on(reader, device))
                self.model.add(crosses >= (read_here - made_here if inward else made_here - read_here))
            if not inward and value.is_output and device != self.problem.host:
                self.model.add(crosses >= made_here)
            found.append(ticks * crosses)
        return found

    def _add_bill(self, figure: Objective) -> None:
        """Energy or cost: what the certain devices take over the latency, and what ops take besides."""
        priced, constant = billed(self.problem, figure)
        rate = rate_of(self.problem, self.fleet.certain, figure) * self.tick["latency"]
        unit = (self.known[figure] or 1.0) / _SHARES
        ticks = round(rate / unit)
        if rate / unit >= 1e-3:
            ticks = max(ticks, 1)
            unit = rate / ticks
        terms = [ticks * self.figures["latency"]]
        for node, here in zip(priced.nodes, self.at, strict=True):
            terms += [int(node.options[place].usd / unit) * variable for place, variable in here.items()]
        self.units[figure] = unit
        self.figures[figure] = sum(terms) + int(constant // unit)
