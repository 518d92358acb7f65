"""The exact model of a (coarsened) placement problem for CP-SAT.

Terms: a *slot* is a possible segment. Slots are numbered in launch order and each belongs to a fixed place: the places
in turn, several rounds of them. Every order of segments fits into enough rounds, with the slots in between left
empty, so that "which place" needs no variable of its own.

A node's slot must not come before the slot of what it depends on. That is all that acyclic, atomic segments need: the
numbers are a topological order of the graph of segments. Slots of one device run in their order; a slot starts when
the batches that it needs have arrived; what fusion saves counts where both nodes are in one slot. This is the model of
`schedule.simulate`, in integers: times are rounded to ticks of a ten-millionth of the best answer known before.

The number of rounds is a limit, so a proof here is one for at most that many segments. The bound that a caller
reports for everything comes from elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ortools.sat.python import cp_model

from gimlet.compiler.placement.bounds.path_bound import heads, tails
from gimlet.compiler.placement.exact.slot_inputs import first_reads, wait_for_inputs
from gimlet.compiler.placement.exact.slot_links import Batch, SlotLinks, routes_of, turn
from gimlet.compiler.placement.exact.slot_streams import SlotStreams
from gimlet.compiler.placement.model.problem import Objective, Placement, Problem
from gimlet.compiler.placement.model.schedule import load_w
from gimlet.compiler.placement.model.segments import renumber

TICKS = 10_000_000
HORIZON = 40 * TICKS
RATIO = 100_000
LOSS_STEPS = 1_000_000_000
# Larger coefficients lose solutions in the presolve of ortools 9.15: answers were called optimal that are not.
SHARE_STEPS = 100_000_000
MEMORY_STEPS = 1_000_000
FACTOR: dict[Objective, int] = {"latency": 1, "throughput": 1, "energy": RATIO, "cost": RATIO}


@dataclass(frozen=True)
class Edge:
    """A value that costs `seconds` where it enters a slot, or leaves it, and the literal that says that it does."""

    value: int
    slot: int
    literal: Any
    seconds: float
    leaves: bool


class SlotModel:
    """The model, as variables. `scales` are objective values that ticks are chosen by.

    Shares and bytes are rounded. A `loose` model has every placement that keeps shares and capacities, and some that
    just do not; one that is not loose has only placements that keep them.
    """

    def __init__(
        self,
        problem: Problem,
        rounds: int,
        reference: Placement,
        scales: dict[Objective, float],
        *,
        loose: bool = True,
    ) -> None:
        self.problem, self.loose = problem, loose
        self.model = cp_model.CpModel()
        places = sorted({place for allowed in problem.allowed for place in allowed})
        self.rounds = max(rounds, _rounds_needed(reference, places))
        self.slots = places * self.rounds
        self.device = [problem.device_of[place] for place in self.slots]
        self.tick = scales["latency"] / TICKS
        self.period_tick = scales["throughput"] / TICKS
        # What rounding can be off by, in halves of a tick: each figure is in a sum once.
        self.roundings = len(problem.nodes) + 2 * (len(problem.values) + len(self.slots)) * len(problem.devices)
        if problem.has_edges:
            self.roundings += sum(1 + len(value.consumers) for value in problem.values)
        self.at: list[dict[int, Any]] = []
        self.until: list[list[Any]] = []
        self.used: list[Any] = []
        self.moves: dict[tuple[int, int, int], Any] = {}
        self.fused: list[tuple[int, int, Any]] = []
        self.edges: list[Edge] = []
        self.resident: list[tuple[int, int, Any]] = []
        self.peaks: list[tuple[Any, list[tuple[int, int, int]]]] = []
        self.flows: dict[tuple[int, int], Any] = {}
        self.start: list[Any] = []
        self.end: list[Any] = []
        self.arrival: dict[tuple[int, int], Any] = {}
        self.arrived: dict[tuple[int, int], Any] = {}
        self.totals: list[tuple[Any, list[Any]]] = []
        self.charged: list[tuple[int, Any, Any, Any]] = []
        self.scales = scales
        self._assign()
        self._move()
        self._fuse()
        self._edges()
        self._capacity()
        self.streams = SlotStreams(self.model, problem, self.slots, self.at)
        self.roundings += self.streams.roundings
        self._rules()

    def on_device(self, node: int, device: int) -> list[Any]:
        """Literals of which one is true where `node` is on `device`."""
        return [literal for slot, literal in self.at[node].items() if self.device[slot] == device]

    def _assign(self) -> None:
        model, problem = self.model, self.problem
        until = self.until
        for node, allowed in enumerate(problem.allowed):
            literals = {
                slot: model.new_bool_var(f"n{node}@{slot}") for slot, place in enumerate(self.slots) if place in allowed
            }
            model.add_exactly_one(literals.values())
            self.at.append(literals)
            cumulative: list[Any] = []
            before: Any = 0
            for slot in range(len(self.slots)):
                if slot not in literals:
                    cumulative.append(before)
                    continue
                here = model.new_bool_var(f"n{node}<={slot}")
                model.add(here == before + literals[slot])
                cumulative.append(here)
                before = here
            until.append(cumulative)
        for node, sources in enumerate(problem.predecessors):
            for source in sources:
                for slot in range(len(self.slots)):
                    if isinstance(until[node][slot], int):
                        continue
                    if isinstance(until[source][slot], int):
                        model.add(until[node][slot] == 0)
                    else:
                        model.add_implication(until[node][slot], until[source][slot])
        period = len(set(self.slots))
        for slot in range(len(self.slots)):
            used = model.new_bool_var(f"used{slot}")
            here = [literals[slot] for literals in self.at if slot in literals]
            for literal in here:
                model.add_implication(literal, used)
            model.add_bool_or([*here, used.negated()])
            if slot >= period:
                # Segments sit in the first slot that they fit, or one solution would have many copies.
                model.add_bool_or([used.negated(), *self.used[slot - period : slot]])
            self.used.append(used)

    def _move(self) -> None:
        """A literal for each value, the slot it leaves (`~slot`: an input for it), and the device it goes to."""
        model, problem = self.model, self.problem
        for index, value in enumerate(problem.values):
            devices = {problem.device_of[place] for c in value.consumers for place in problem.allowed[c]}
            if value.is_output:
                devices.add(problem.host)
            for device in sorted(devices):
                consumers = [self.on_device(consumer, device) for consumer in value.consumers]
                if value.producer is None:
                    if device != problem.host:
                        readers = [self.at[consumer] for consumer in value.consumers]
                        slots = [slot for slot, found in enumerate(self.device) if found == device]
                        literals = first_reads(model, readers, slots, f"in{index}")
                        self.moves |= {(index, ~slot, device): literal for slot, literal in literals.items()}
                    continue
                leaving: list[Any] = []
                for slot, at in self.at[value.producer].items():
                    if self.device[slot] != device:
                        literal = self.moves[index, slot, device] = model.new_bool_var(f"v{index}@{slot}>{device}")
                        model.add_implication(literal, at)
                        leaving.append(literal)
                here = sum(self.on_device(value.producer, device))
                for options in consumers:
                    if options:
                        model.add(sum(leaving) >= sum(options) - here)
                if value.is_output and device == problem.host:
                    model.add(sum(leaving) >= 1 - here)

    def _fuse(self) -> None:
        for index, fusion in enumerate(self.problem.fusions):
            for slot, place in enumerate(self.slots):
                if place in fusion.seconds and slot in self.at[fusion.producer] and slot in self.at[fusion.consumer]:
                    literal = self.model.new_bool_var(f"fused{index}@{slot}")
                    producer, consumer = self.at[fusion.producer][slot], self.at[fusion.consumer][slot]
                    self.model.add_implication(literal, producer)
                    self.model.add_implication(literal, consumer)
                    # Not to fuse is no choice: a device that is busy for longer would idle for less.
                    self.model.add_bool_or([producer.negated(), consumer.negated(), literal])
                    self.fused.append((index, slot, literal))

    def _edges(self) -> None:
        """A literal for each value that costs something where it enters a slot, and where it leaves one."""
        model, problem = self.model, self.problem
        for index, value in enumerate(problem.values):
            for slot, place in enumerate(self.slots):
                home = 0 if value.producer is None else self.at[value.producer].get(slot, 0)
                readers = [self.at[consumer].get(slot, 0) for consumer in value.consumers]
                seconds = problem.edge_s(value, place, leaving=False)
                if seconds and any(not isinstance(reader, int) for reader in readers):
                    entered = self._edge(index, slot, seconds, leaves=False)
                    for reader in readers:
                        model.add(entered >= reader - home)
                seconds = problem.edge_s(value, place, leaving=True)
                if seconds and not isinstance(home, int) and (readers or value.is_output):
                    left = self._edge(index, slot, seconds, leaves=True)
                    for reader in readers:
                        model.add(left >= home - reader)
                    if value.is_output:
                        model.add(left >= home)

    def _edge(self, value: int, slot: int, seconds: float, *, leaves: bool) -> Any:
        literal = self.model.new_bool_var(f"edge{value}@{slot}{'>' if leaves else '<'}")
        self.edges.append(Edge(value, slot, literal, seconds, leaves))
        return literal

    def _capacity(self) -> None:
        model, problem = self.model, self.problem
        for device, spec in enumerate(problem.devices):
            places = [place for place in set(self.slots) if device in problem.units[problem.device_of[place]]]
            if spec.memory_bytes is None or not places:
                continue
            most = sum(weight.size_bytes.get(place, 0) for weight in problem.weights for place in places)
            peaks = [
                (node, place, option.activation_bytes)
                for node, data in enumerate(problem.nodes)
                for place, option in data.options.items()
                if place in places and place in problem.allowed[node]
            ]
            largest = max((peak for *_, peak in peaks), default=0)
            if most + largest <= spec.memory_bytes:
                continue
            unit = max(spec.memory_bytes // MEMORY_STEPS, 1)
            capacity = _rounded(spec.memory_bytes, unit, up=self.loose)
            terms: list[Any] = []
            for number, weight in enumerate(problem.weights):
                for place in places:
                    size = weight.size_bytes.get(place, 0)
                    if size:
                        resident = model.new_bool_var(f"w{number}@{place}")
                        self.resident.append((number, place, resident))
                        for user in weight.users:
                            for slot, literal in self.at[user].items():
                                if self.slots[slot] == place:
                                    model.add_implication(literal, resident)
                        terms.append(_rounded(size, unit, up=not self.loose) * resident)
            steps = [(node, place, _rounded(peak, unit, up=not self.loose)) for node, place, peak in peaks]
            peak_var = model.new_int_var(0, max((peak for *_, peak in steps), default=0), f"peak{device}")
            self.peaks.append((peak_var, steps))
            for node, place, peak in steps:
                literals = [literal for slot, literal in self.at[node].items() if self.slots[slot] == place]
                if peak and literals:
                    model.add(peak_var >= peak * sum(literals))
            model.add(sum(terms) + peak_var <= capacity)

    def _rules(self) -> None:
        model, problem = self.model, self.problem
        rules = problem.rules
        for device, share in rules.min_share.items():
            scale = SHARE_STEPS / max(problem.total_flops, 1.0)
            given = [
                round(data.flops * scale) * literal
                for node, data in enumerate(problem.nodes)
                for literal in self.on_device(node, device)
            ]
            rounding = len(problem.nodes) if self.loose else -len(problem.nodes)
            model.add(sum(given) >= int(share * SHARE_STEPS) - rounding)
        for group in rules.together:
            for device in range(len(problem.devices)):
                first = sum(self.on_device(group[0], device))
                for node in group[1:]:
                    model.add(sum(self.on_device(node, device)) == first)
        for left, right in rules.apart:
            for device in range(len(problem.devices)):
                for first in left:
                    for second in right:
                        model.add_at_most_one([*self.on_device(first, device), *self.on_device(second, device)])
        if rules.loss_budget is not None:
            self._limit_loss(rules.loss_budget)
        if rules.max_segments is not None:
            model.add(sum(self.used) <= rules.max_segments)

    def _limit_loss(self, budget: float) -> None:
        """Squares of losses in billionths of the budget's, rounded up, and a billionth of slack for each of them."""
        unit = max(budget**2, 1e-30) / LOSS_STEPS
        terms: list[Any] = []
        for node, literals in enumerate(self.at):
            for slot, literal in literals.items():
                loss = self.problem.nodes[node].options[self.slots[slot]].loss
                part = math.ceil(min(loss**2 / unit, 2 * LOSS_STEPS))
                if part:
                    terms.append(part * literal)
        self.model.add(sum(terms) <= LOSS_STEPS + len(self.at))

    def busy_units(self, slot: int) -> tuple[int, ...]:
        """The devices that are busy while a slot runs."""
        return self.problem.units[self.device[slot]]

    def ticks(self, seconds: float, tick: float) -> int:
        """`seconds` as an integer."""
        return round(seconds / tick)

    def busy(self, slot: int, tick: float) -> Any:
        """How long a slot takes, launch included, as a linear expression."""
        problem, place = self.problem, self.slots[slot]
        terms: list[Any] = [self.ticks(problem.launch_s[place], tick) * self.used[slot]]
        for node, literals in enumerate(self.at):
            if slot in literals:
                terms.append(self.ticks(problem.nodes[node].options[place].seconds, tick) * literals[slot])
        for index, where, literal in self.fused:
            if where == slot:
                terms.append(-self.ticks(problem.fusions[index].seconds[place], tick) * literal)
        terms += [self.ticks(edge.seconds, tick) * edge.literal for edge in self.edges if edge.slot == slot]
        terms += self.streams.busy(slot, tick)
        return sum(terms)

    def add_latency(self, least: float) -> Any:
        """Times of slots and batches; returns the latency in ticks, at least `least` seconds."""
        model, problem, tick = self.model, self.problem, self.tick
        latency = model.new_int_var(int(least * (1 - 1e-6) / tick), HORIZON, "latency")
        start = self.start = [model.new_int_var(0, HORIZON, f"start{slot}") for slot in range(len(self.slots))]
        end = self.end
        free: dict[int, Any] = {}
        for slot, device in enumerate(self.device):
            ended = model.new_int_var(0, HORIZON, f"end{slot}")
            model.add(ended == start[slot] + self.busy(slot, tick))
            end.append(ended)
            for unit in problem.units[device]:
                if unit in free:
                    model.add(start[slot] >= free[unit])
                free[unit] = end[slot]
            model.add(latency >= end[slot])
        self._send()
        self._wait()
        arrival = self.arrival
        self.totals.append((latency, []))
        for index, value in enumerate(problem.values):
            if value.is_output and value.producer is not None:
                for slot, literal in self.at[value.producer].items():
                    if (index, slot, problem.host) in self.moves:
                        model.add(latency >= arrival[slot, problem.host]).only_enforce_if(literal)
        head, tail = heads(problem), tails(problem)
        for node, literals in enumerate(self.at):
            for slot, literal in literals.items():
                place = self.slots[slot]
                model.add(end[slot] >= int(head[node][place] * (1 - 1e-6) / tick) * literal)
                launch = problem.launch_s[place]
                rest = launch + tail[node][place]
                model.add(latency >= start[slot] + int(rest * (1 - 1e-6) / tick) * literal)
        return latency

    def _send(self) -> None:
        """When the batch of a slot (`~slot`: of inputs) has arrived at a device."""
        model, problem, tick = self.model, self.problem, self.tick
        moves: dict[Batch, list[tuple[int, Any]]] = {}
        for (value, slot, device), literal in self.moves.items():
            moves.setdefault((slot, device), []).append((problem.values[value].size_bytes, literal))
        routes = routes_of(problem, self.device, moves)
        self.links = SlotLinks(model, routes, moves, HORIZON, tick)
        for batch in sorted(moves, key=lambda batch: turn(batch, problem.host)):
            slot, device = batch
            variable = self.arrival[batch] = model.new_int_var(0, HORIZON, f"arrival{slot}>{device}")
            leaves = self.links.leave(batch, 0 if slot < 0 else self.end[slot])
            rate = routes[batch].seconds_per_byte
            seconds = sum(self.ticks(size * rate, tick) * literal for size, literal in moves[batch])
            arrived = self.arrived[batch] = leaves + self.ticks(routes[batch].latency_s, tick) + seconds
            model.add(variable >= arrived)

    def _wait(self) -> None:
        """A slot that uses what another made starts when that has arrived."""
        model, problem, flows, start, arrival = self.model, self.problem, self.flows, self.start, self.arrival
        for node, sources in enumerate(problem.predecessors):
            for source in sources:
                for left, sent in self.at[source].items():
                    for right, read in self.at[node].items():
                        if left >= right or self.device[left] == self.device[right]:
                            continue
                        if (left, right) not in flows:
                            flows[left, right] = model.new_bool_var(f"flow{left}>{right}")
                        model.add_bool_or([sent.negated(), read.negated(), flows[left, right]])
        for (index, batch, device), sent in self.moves.items():
            if batch < 0:
                readers = [self.at[consumer] for consumer in problem.values[index].consumers]
                slots = [slot for slot, found in enumerate(self.device) if found == device and slot >= ~batch]
                wait_for_inputs(model, flows, (batch, sent), readers, slots)
        for (left, right), flow in flows.items():
            model.add(start[right] >= arrival[left, self.device[right]]).only_enforce_if(flow)

    def add_period(self) -> Any:
        """The busy time of the busiest device or link direction, in its own ticks."""
        model, problem, tick = self.model, self.problem, self.period_tick
        period = model.new_int_var(0, HORIZON, "period")
        loads: list[Any] = []
        for device in sorted({unit for slot in range(len(self.slots)) for unit in self.busy_units(slot)}):
            here = [slot for slot in range(len(self.slots)) if device in self.busy_units(slot)]
            loads.append(sum(self.busy(slot, tick) for slot in here))
        links: dict[str, list[Any]] = {}
        for (value, slot, device), literal in self.moves.items():
            source = problem.host if slot < 0 else self.device[slot]
            for link, seconds_per_byte in problem.routes[source, device].links:
                seconds = problem.values[value].size_bytes * seconds_per_byte
                links.setdefault(link, []).append(self.ticks(seconds, tick) * literal)
        loads += [sum(terms) for terms in links.values()]
        for load in loads:
            model.add(period >= load)
        self.totals.append((period, loads))
        return period

    def add_energy(self, latency: Any) -> Any:
        """Joules of ops, and idle power over the latency of the host and of devices in use."""
        unit = self.scales["energy"] / TICKS
        terms: list[Any] = []
        for node, literals in enumerate(self.at):
            for slot, literal in literals.items():
                joules = self.problem.nodes[node].options[self.slots[slot]].joules or 0.0
                terms.append(RATIO * self.ticks(joules, unit) * literal)
        for index, slot, literal in self.fused:
            joules = self.problem.fusions[index].joules.get(self.slots[slot], 0.0)
            terms.append(-RATIO * self.ticks(joules, unit) * literal)
        for edge in self.edges:
            joules = load_w(self.problem, self.device[edge.slot]) * edge.seconds
            terms.append(RATIO * self.ticks(joules, unit) * edge.literal)
        for slot, device in enumerate(self.device):
            watts = round(load_w(self.problem, device) * self.tick / unit * RATIO)
            terms += [watts * longer for longer in self.streams.busy(slot, self.tick)]
        for device, spec in enumerate(self.problem.devices):
            busy = [self._active(slot) for slot in range(len(self.slots)) if device in self.busy_units(slot)]
            terms.append(self._while_used(device, (spec.idle_w or 0.0) / unit, latency - sum(busy)))
        return sum(terms)

    def add_cost(self, latency: Any) -> Any:
        """The price of the host and of devices in use, over the latency, and those of ops and transfers."""
        problem, unit = self.problem, self.scales["cost"] / TICKS
        terms: list[Any] = [
            self._while_used(device, (spec.usd_per_hour or 0.0) / 3600.0 / unit, latency)
            for device, spec in enumerate(problem.devices)
        ]
        for node, literals in enumerate(self.at):
            for slot, literal in literals.items():
                terms.append(round(problem.nodes[node].options[self.slots[slot]].usd / unit * RATIO) * literal)
        for (value, slot, device), literal in self.moves.items():
            source = problem.host if slot < 0 else self.device[slot]
            usd = problem.values[value].size_bytes * problem.routes[source, device].usd_per_byte
            terms.append(round(usd / unit * RATIO) * literal)
        return sum(terms)

    def _active(self, slot: int) -> Any:
        launch = self.ticks(self.problem.launch_s[self.slots[slot]], self.tick)
        return self.busy(slot, self.tick) - launch * self.used[slot]

    def _while_used(self, device: int, per_second: float, ticks: Any) -> Any:
        """`per_second` times `ticks`, where the device is in use, in units of 1 / RATIO.

        The factor is applied here and not by a variable `amount >= factor * ticks`: the presolve of ortools 9.15 loses
        solutions of that form (it then calls a device in use, and the answer optimal, although nothing is there).
        """
        ratio = round(per_second * self.tick * RATIO)
        units = {unit for slot in range(len(self.slots)) for unit in self.busy_units(slot)}
        if not ratio or (device not in units and device != self.problem.host):
            return 0
        if device == self.problem.host:
            return ratio * ticks
        charged = self.model.new_int_var(0, HORIZON, f"charged{device}")
        in_use = self.model.new_bool_var(f"device{device}")
        for slot, used in enumerate(self.used):
            if device in self.busy_units(slot):
                self.model.add_implication(used, in_use)
        self.model.add(charged >= ticks - HORIZON * (1 - in_use))
        self.charged.append((device, in_use, charged, ticks))
        return ratio * charged

    def read(self, solver: cp_model.CpSolver) -> Placement:
        """The placement that the solver found."""
        chosen = [
            next(slot for slot, literal in literals.items() if solver.boolean_value(literal)) for literals in self.at
        ]
        return Placement(tuple(self.slots[slot] for slot in chosen), renumber(chosen))


def _rounded(size_bytes: int, unit: int, *, up: bool) -> int:
    return -(-size_bytes // unit) if up else size_bytes // unit


def _rounds_needed(placement: Placement, places: Sequence[int]) -> int:
    positions = _positions(_sequence(placement), places)
    return max(positions, default=0) // max(len(places), 1) + 1


def _sequence(placement: Placement) -> list[int]:
    place_of = dict(zip(placement.segment, placement.place, strict=True))
    return [place_of[segment] for segment in sorted(place_of)]


def _positions(sequence: Iterable[int], places: Sequence[int]) -> list[int]:
    """The first slots, in order, that segments on these places fit."""
    positions: list[int] = []
    slot = -1
    for place in sequence:
        if place not in places:
            return [0]
        slot += 1
        while places[slot % len(places)] != place:
            slot += 1
        positions.append(slot)
    return positions


def embed(placement: Placement, slots: Sequence[int]) -> dict[int, int]:
    """The slot of each segment of a placement that fits."""
    places = list(dict.fromkeys(slots))
    numbers = sorted(set(placement.segment))
    return dict(zip(numbers, _positions(_sequence(placement), places), strict=True))
