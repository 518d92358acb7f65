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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ortools.sat.python import cp_model

from gimlet.compiler.placement.path_bound import heads, tails
from gimlet.compiler.placement.problem import Objective, Placement, Problem
from gimlet.compiler.placement.segments import renumber

_TICKS = 10_000_000
_HORIZON = 40 * _TICKS
_RATIO = 100_000
_FACTOR: dict[Objective, int] = {"latency": 1, "throughput": 1, "energy": _RATIO, "cost": _RATIO}


@dataclass(frozen=True)
class Limits:
    """When the solver stops. `work` is CP-SAT's deterministic time, about a second on one idle core, and reproducible.

    `seconds` is wall time and makes the answer depend on the machine; None is no such limit.
    """

    work: float = 4.0
    seconds: float | None = None
    seed: int = 0
    gap: float = 1e-4


@dataclass(frozen=True)
class Answer:
    """What CP-SAT found: `placement` is None where nothing was. `bound` is for at most `slots` segments."""

    placement: Placement | None
    objective: float
    bound: float
    status: str
    slots: int


class SlotModel:
    """The model, as variables. `reference` is an objective value that ticks are chosen by."""

    def __init__(self, problem: Problem, rounds: int, reference: Placement, scales: dict[Objective, float]) -> None:
        self.problem = problem
        self.model = cp_model.CpModel()
        places = sorted({place for allowed in problem.allowed for place in allowed})
        needed = _rounds_needed(reference, places)
        self.slots = places * max(rounds, needed)
        self.device = [problem.device_of[place] for place in self.slots]
        self.tick = scales["latency"] / _TICKS
        self.period_tick = scales["throughput"] / _TICKS
        self.roundings = 0
        self.at: list[dict[int, Any]] = []
        self.used: list[Any] = []
        self.moves: dict[tuple[int, int, int], Any] = {}
        self.fused: list[tuple[int, int, Any]] = []
        self.scales = scales
        self._assign()
        self._move()
        self._fuse()
        self._capacity()
        self._rules()

    def on_device(self, node: int, device: int) -> list[Any]:
        """Literals of which one is true where `node` is on `device`."""
        return [literal for slot, literal in self.at[node].items() if self.device[slot] == device]

    def _assign(self) -> None:
        model, problem = self.model, self.problem
        until: list[list[Any]] = []
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
        """A literal for each value, the slot it leaves (-1: the host, as an input), and the device it goes to."""
        model, problem = self.model, self.problem
        for index, value in enumerate(problem.values):
            devices = {problem.device_of[place] for c in value.consumers for place in problem.allowed[c]}
            if value.is_output:
                devices.add(problem.host)
            for device in sorted(devices):
                consumers = [self.on_device(consumer, device) for consumer in value.consumers]
                if value.producer is None:
                    if device != problem.host:
                        literal = self.moves[index, -1, device] = model.new_bool_var(f"in{index}>{device}")
                        for options in consumers:
                            model.add(literal >= sum(options))
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
                    self.model.add_implication(literal, self.at[fusion.producer][slot])
                    self.model.add_implication(literal, self.at[fusion.consumer][slot])
                    self.fused.append((index, slot, literal))

    def _capacity(self) -> None:
        model, problem = self.model, self.problem
        for device, spec in enumerate(problem.devices):
            places = [place for place in set(self.slots) if problem.device_of[place] == device]
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
            unit = max(spec.memory_bytes // 1_000_000, 1)
            terms: list[Any] = []
            for number, weight in enumerate(problem.weights):
                for place in places:
                    size = weight.size_bytes.get(place, 0)
                    if size:
                        resident = model.new_bool_var(f"w{number}@{place}")
                        for user in weight.users:
                            for slot, literal in self.at[user].items():
                                if self.slots[slot] == place:
                                    model.add_implication(literal, resident)
                        terms.append(-(-size // unit) * resident)
            peak_var = model.new_int_var(0, -(-largest // unit), f"peak{device}")
            for node, place, peak in peaks:
                literals = [literal for slot, literal in self.at[node].items() if self.slots[slot] == place]
                if peak and literals:
                    model.add(peak_var >= -(-peak // unit) * sum(literals))
            model.add(sum(terms) + peak_var <= spec.memory_bytes // unit)

    def _rules(self) -> None:
        model, problem = self.model, self.problem
        rules = problem.rules
        for device, share in rules.min_share.items():
            scale = _RATIO * 10 / max(problem.total_flops, 1.0)
            given = [
                int(data.flops * scale) * literal
                for node, data in enumerate(problem.nodes)
                for literal in self.on_device(node, device)
            ]
            model.add(sum(given) >= int(share * _RATIO * 10))
        for group in rules.together:
            for device in range(len(problem.devices)):
                first = sum(self.on_device(group[0], device))
                for node in group[1:]:
                    model.add(sum(self.on_device(node, device)) == first)
        if rules.max_segments is not None:
            model.add(sum(self.used) <= rules.max_segments)

    def ticks(self, seconds: float, tick: float) -> int:
        """`seconds` as an integer, counted for the error that rounding can make."""
        self.roundings += 1
        return round(seconds / tick)

    def busy(self, slot: int, tick: float) -> Any:
        """How long a slot takes, launch included, as a linear expression."""
        problem, place = self.problem, self.slots[slot]
        terms: list[Any] = [self.ticks(problem.devices[self.device[slot]].segment_overhead_s, tick) * self.used[slot]]
        for node, literals in enumerate(self.at):
            if slot in literals:
                terms.append(self.ticks(problem.nodes[node].options[place].seconds, tick) * literals[slot])
        for index, where, literal in self.fused:
            if where == slot:
                terms.append(-self.ticks(problem.fusions[index].seconds[place], tick) * literal)
        return sum(terms)

    def add_latency(self, least: float) -> Any:
        """Times of slots and batches; returns the latency in ticks, at least `least` seconds."""
        model, problem, tick = self.model, self.problem, self.tick
        latency = model.new_int_var(int(least * (1 - 1e-6) / tick), _HORIZON, "latency")
        start = [model.new_int_var(0, _HORIZON, f"start{slot}") for slot in range(len(self.slots))]
        end: list[Any] = []
        free: dict[int, Any] = {}
        for slot, device in enumerate(self.device):
            ended = model.new_int_var(0, _HORIZON, f"end{slot}")
            model.add(ended == start[slot] + self.busy(slot, tick))
            end.append(ended)
            if device in free:
                model.add(start[slot] >= free[device])
            free[device] = end[slot]
            model.add(latency >= end[slot])
        arrival = self._arrivals(end)
        self._waits(start, arrival)
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
                launch = problem.devices[self.device[slot]].segment_overhead_s
                rest = launch + tail[node][place]
                model.add(latency >= start[slot] + int(rest * (1 - 1e-6) / tick) * literal)
        return latency

    def _arrivals(self, end: Sequence[Any]) -> dict[tuple[int, int], Any]:
        model, problem, tick = self.model, self.problem, self.tick
        sizes: dict[tuple[int, int], list[Any]] = {}
        for (value, slot, device), literal in self.moves.items():
            source = problem.host if slot < 0 else self.device[slot]
            seconds = problem.values[value].size_bytes * problem.routes[source, device].seconds_per_byte
            sizes.setdefault((slot, device), []).append(self.ticks(seconds, tick) * literal)
        arrival: dict[tuple[int, int], Any] = {}
        for (slot, device), terms in sizes.items():
            source = problem.host if slot < 0 else self.device[slot]
            arrived = arrival[slot, device] = model.new_int_var(0, _HORIZON, f"arrival{slot}>{device}")
            latency = self.ticks(problem.routes[source, device].latency_s, tick)
            model.add(arrived >= (0 if slot < 0 else end[slot]) + latency + sum(terms))
        return arrival

    def _waits(self, start: Sequence[Any], arrival: dict[tuple[int, int], Any]) -> None:
        model, problem = self.model, self.problem
        flows: dict[tuple[int, int], Any] = {}
        for node, sources in enumerate(problem.predecessors):
            for source in sources:
                for left, sent in self.at[source].items():
                    for right, read in self.at[node].items():
                        if left >= right or self.device[left] == self.device[right]:
                            continue
                        if (left, right) not in flows:
                            flows[left, right] = model.new_bool_var(f"flow{left}>{right}")
                        model.add_bool_or([sent.negated(), read.negated(), flows[left, right]])
        for (left, right), flow in flows.items():
            model.add(start[right] >= arrival[left, self.device[right]]).only_enforce_if(flow)
        fed = {consumer for value in problem.values if value.producer is None for consumer in value.consumers}
        for node in sorted(fed):
            for slot, literal in self.at[node].items():
                if (-1, self.device[slot]) in arrival:
                    model.add(start[slot] >= arrival[-1, self.device[slot]]).only_enforce_if(literal)

    def add_period(self) -> Any:
        """The busy time of the busiest device or link direction, in its own ticks."""
        model, problem, tick = self.model, self.problem, self.period_tick
        period = model.new_int_var(0, _HORIZON, "period")
        for device in sorted(set(self.device)):
            model.add(period >= sum(self.busy(slot, tick) for slot, d in enumerate(self.device) if d == device))
        links: dict[str, list[Any]] = {}
        for (value, slot, device), literal in self.moves.items():
            source = problem.host if slot < 0 else self.device[slot]
            for link, seconds_per_byte in problem.routes[source, device].links:
                seconds = problem.values[value].size_bytes * seconds_per_byte
                links.setdefault(link, []).append(self.ticks(seconds, tick) * literal)
        for terms in links.values():
            model.add(period >= sum(terms))
        return period

    def add_energy(self, latency: Any) -> Any:
        """Joules of ops, and idle power over the latency of the host and of devices in use."""
        unit = self.scales["energy"] / _TICKS
        terms: list[Any] = []
        for node, literals in enumerate(self.at):
            for slot, literal in literals.items():
                joules = self.problem.nodes[node].options[self.slots[slot]].joules or 0.0
                terms.append(_RATIO * self.ticks(joules, unit) * literal)
        for index, slot, literal in self.fused:
            joules = self.problem.fusions[index].joules.get(self.slots[slot], 0.0)
            terms.append(-_RATIO * self.ticks(joules, unit) * literal)
        for device, spec in enumerate(self.problem.devices):
            busy = [self._active(slot) for slot, d in enumerate(self.device) if d == device]
            terms.append(self._while_used(device, (spec.idle_w or 0.0) / unit, latency - sum(busy)))
        return sum(terms)

    def add_cost(self, latency: Any) -> Any:
        """The price of the host and of devices in use, over the latency."""
        unit = self.scales["cost"] / _TICKS
        return sum(
            self._while_used(device, (spec.usd_per_hour or 0.0) / 3600.0 / unit, latency)
            for device, spec in enumerate(self.problem.devices)
        )

    def _active(self, slot: int) -> Any:
        launch = self.ticks(self.problem.devices[self.device[slot]].segment_overhead_s, self.tick)
        return self.busy(slot, self.tick) - launch * self.used[slot]

    def _while_used(self, device: int, per_second: float, ticks: Any) -> Any:
        """`per_second` times `ticks`, where the device is in use, in units of 1 / _RATIO.

        The factor is applied here and not by a variable `amount >= factor * ticks`: the presolve of ortools 9.15 loses
        solutions of that form (it then calls a device in use, and the answer optimal, although nothing is there).
        """
        ratio = round(per_second * self.tick * _RATIO)
        if not ratio or (device not in self.device and device != self.problem.host):
            return 0
        if device == self.problem.host:
            return ratio * ticks
        charged = self.model.new_int_var(0, _HORIZON, f"charged{device}")
        in_use = self.model.new_bool_var(f"device{device}")
        for slot, used in enumerate(self.used):
            if self.device[slot] == device:
                self.model.add_implication(used, in_use)
        self.model.add(charged >= ticks - _HORIZON * (1 - in_use))
        return ratio * charged

    def hint(self, placement: Placement) -> None:
        """Starts the search from a placement whose segments fit the slots."""
        slots = _embed(placement, self.slots)
        for node, literals in enumerate(self.at):
            for slot, literal in literals.items():
                self.model.add_hint(literal, int(slot == slots[placement.segment[node]]))

    def read(self, solver: cp_model.CpSolver) -> Placement:
        """The placement that the solver found."""
        chosen = [
            next(slot for slot, literal in literals.items() if solver.boolean_value(literal)) for literals in self.at
        ]
        return Placement(tuple(self.slots[slot] for slot in chosen), renumber(chosen))


def solve_slots(
    problem: Problem,
    start: Placement | None,
    scales: dict[Objective, float],
    least_latency: float,
    rounds: int,
    limits: Limits,
) -> Answer:
    """Solves the problem from `start` on. `scales` are values of the objectives that set the resolution."""
    count = len(problem.nodes)
    reference = start or Placement((0,) * count, (0,) * count)
    slots = SlotModel(problem, rounds, reference, scales)
    model, objective, bounds = slots.model, problem.rules.objective, problem.rules.bounds
    asked: set[Objective] = {objective, *bounds}
    figures: dict[Objective, Any] = {}
    if asked & {"latency", "energy", "cost"}:
        figures["latency"] = slots.add_latency(least_latency)
    if "throughput" in asked:
        figures["throughput"] = slots.add_period()
    if "energy" in asked:
        figures["energy"] = slots.add_energy(figures["latency"])
    if "cost" in asked:
        figures["cost"] = slots.add_cost(figures["latency"])
    for name, bound in bounds.items():
        model.add(figures[name] <= min(int(bound / (scales[name] / _TICKS / _FACTOR[name])), _HORIZON * _FACTOR[name]))
    model.minimize(figures[objective])
    if start is not None:
        slots.hint(start)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = limits.seed
    solver.parameters.max_deterministic_time = limits.work
    solver.parameters.relative_gap_limit = limits.gap
    solver.parameters.cp_model_probing_level = 0
    if limits.seconds is not None:
        solver.parameters.max_time_in_seconds = max(limits.seconds, 0.01)
    status = solver.solve(model)
    unit = scales[objective] / _TICKS / _FACTOR[objective]
    name = {cp_model.OPTIMAL: "optimal", cp_model.FEASIBLE: "feasible", cp_model.INFEASIBLE: "infeasible"}.get(
        status, "unknown"
    )
    if name not in ("optimal", "feasible"):
        return Answer(None, float("inf"), 0.0, name, len(slots.slots))
    error = 0.5 * slots.roundings * unit * _FACTOR[objective]
    bound = max(solver.best_objective_bound * unit - error, 0.0)
    return Answer(slots.read(solver), solver.objective_value * unit, bound, name, len(slots.slots))


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


def _embed(placement: Placement, slots: Sequence[int]) -> dict[int, int]:
    places = list(dict.fromkeys(slots))
    numbers = sorted(set(placement.segment))
    return dict(zip(numbers, _positions(_sequence(placement), places), strict=True))
