"""CP-SAT on the public benchmark problems.

Terms: a *unit* is a colour class, with all that lies on cycles through it; a *slot* is a subgraph on an accelerator or
a stretch of CPU work. Slots are in an order in which data flows forward, CPU slots and accelerator slots in turn, so
that a unit's slot must not come before those of its inputs. That is what contiguous means, and what breaks the
symmetry of equal accelerators as well.

Without contiguity (throughput only) devices are not ordered; equal ones are told apart by their first unit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ortools.sat.python import cp_model

from gimlet.compiler.placement.public.joint_search import search_joints
from gimlet.compiler.placement.public.public_anneal import annealed
from gimlet.compiler.placement.public.public_bound import work_bound
from gimlet.compiler.placement.public.public_colours import divided_colours, keeps_colours, without_colours
from gimlet.compiler.placement.public.public_cover import Cover
from gimlet.compiler.placement.public.public_dive import dived
from gimlet.compiler.placement.public.public_format import (
    PublicObjective,
    PublicProblem,
    PublicSplit,
    latency,
    max_load,
)
from gimlet.compiler.placement.public.public_ideals import solve_ideals
from gimlet.compiler.placement.public.public_start import Units, contiguous_start, units_of
from gimlet.runtime.errors import InfeasibleError

_TICKS = 10_000_000
_HORIZON = 40 * _TICKS
_NO_SPLIT = "no split fits the accelerators and CPUs of the problem"
# A gap that counts as none: sums in ticks, and ways that leave out units of hardly any time.
_PROVEN = 1e-4
# And what rounding to ticks comes to at most where the solver says that its answer is the best.
_ROUNDED = 1e-3
# How much of the time allowed goes to the way through the joints before CP-SAT's turn.
_JOINTS_SHARE = 0.6
# And for throughput, to the bound from sets of units, to splits made of those, and to annealing, of at most so many
# steps.
_BOUND_SHARE, _DIVING_SHARE, _ANNEALING_SHARE = 0.3, 0.2, 0.1
# Of the time for the best contiguous split, as a proof and as a start.
_IDEALS_SHARE, _IDEALS_START_SHARE = 0.5, 0.2
_STEPS, _STEPS_A_UNIT = 400_000, 2_000
_DETERMINISTIC_S = 60.0
_TOLD_APART = 500
# How many choices (units times slots) of a model are written down and looked over in a second, on a busy machine.
_CHOICES_A_SECOND = 4_000.0


@dataclass(frozen=True)
class PublicAnswer:
    """The split, its objective recomputed from it, a proven lower bound, and how that was found."""

    split: PublicSplit
    objective: float
    bound: float
    status: str
    wall_s: float

    @property
    def gap(self) -> float:
        return max(self.objective - self.bound, 0.0) / self.objective if self.objective else 0.0


def solve_public(
    problem: PublicProblem,
    objective: PublicObjective,
    *,
    contiguous: bool,
    time_limit_s: float | None = None,
    seed: int = 0,
    subgraphs: int = 1,
) -> PublicAnswer:
    """The best split that is found. InfeasibleError where none fits.

    `subgraphs` is how many an accelerator may run one after another for latency without contiguity.
    """
    clock = _Clock(time_limit_s)
    if problem.nodes and not problem.accelerators + problem.cpus:
        raise InfeasibleError(_NO_SPLIT)
    divided = divided_colours(problem) if objective == "latency" else frozenset[int]()
    if divided:
        return _divided(problem, divided, clock, seed, 1 if contiguous else subgraphs)
    units = units_of(problem, contiguous=True, forward=objective == "throughput")
    start = contiguous_start(problem, units, objective)
    if objective == "throughput" and not contiguous:
        units = units_of(problem, contiguous=False, forward=True)
    asked = _Asked(problem, units, objective, contiguous, 1 if contiguous else subgraphs, seed)
    if objective == "latency":
        found = _latency(asked, clock, 1.0)
    else:
        found = _Found(start, work_bound(problem, units))
        if found.bound == float("inf"):
            raise InfeasibleError(_NO_SPLIT)
        _by_ideals(asked, units_of(problem, contiguous=True, forward=True), found, clock)
        _by_sets(asked, found, clock)
        found = _solved(asked, found, clock, 1.0)
    if found.split is None:
        raise InfeasibleError("no split was found in the time allowed", hint="allow more with --time-limit")
    value = asked.figure(found.split)
    status = "optimal" if found.proven else "feasible"
    return PublicAnswer(found.split, value, max(min(found.bound, value), 0.0), status, clock.passed())


def _divided(problem: PublicProblem, divided: frozenset[int], clock: _Clock, seed: int, subgraphs: int) -> PublicAnswer:
    """The latency of a problem in which nodes of these colours have others between them: see public_colours."""
    free = without_colours(problem, divided, on_cpu=False)
    apart = without_colours(problem, divided, on_cpu=True)
    found: list[PublicSplit] = []
    bound = 0.0
    for share, case in ((0.3, free), (0.65, problem), (1.0, apart)):
        asked = _Asked(case, units_of(case, contiguous=True), "latency", True, subgraphs, seed)
        try:
            solved = _latency(asked, clock, share)
        except InfeasibleError:
            if case is free:
                raise
            continue
        if case is free:
            bound = solved.bound
        if solved.split is not None and keeps_colours(problem, solved.split):
            found.append(solved.split)
    if not found:
        raise InfeasibleError("no split was found that keeps colours together", hint="allow more with --time-limit")
    best = min(found, key=lambda split: latency(problem, split))
    value = latency(problem, best)
    status = "optimal" if bound >= value * (1 - _PROVEN) else "feasible"
    return PublicAnswer(best, value, max(min(bound, value), 0.0), status, clock.passed())


def _latency(asked: _Asked, clock: _Clock, share: float) -> _Found:
    """The least latency until a share of the time has passed. InfeasibleError where no split fits."""
    start = contiguous_start(asked.problem, asked.units, "latency")
    begun = clock.spent()
    until = clock.at(begun + (share - begun) * _JOINTS_SHARE)
    joints = search_joints(asked.problem, asked.units, start, asked.subgraphs, until=until)
    if joints.bound == float("inf"):
        raise InfeasibleError(_NO_SPLIT)
    found = _Found(joints.split, joints.bound)
    if not found.is_within(_PROVEN, asked):
        found = _solved(asked, found, clock, share)
    found.proven |= found.is_within(_PROVEN, asked)
    return found


@dataclass(frozen=True)
class _Asked:
    """What is to be solved, and how."""

    problem: PublicProblem
    units: Units
    objective: PublicObjective
    contiguous: bool
    subgraphs: int
    seed: int

    def figure(self, split: PublicSplit) -> float:
        """The objective of a split."""
        return (max_load if self.objective == "throughput" else latency)(self.problem, split)


@dataclass
class _Found:
    """The best split so far, if there is one, and a bound; `proven` where nothing better is to be looked for."""

    split: PublicSplit | None
    bound: float = 0.0
    proven: bool = False

    def is_within(self, gap: float, asked: _Asked) -> bool:
        """Whether the split is that close to the bound."""
        return self.split is not None and self.bound >= asked.figure(self.split) * (1 - gap)


class _Clock:
    """Wall time since the beginning, against a limit if there is one."""

    def __init__(self, limit_s: float | None) -> None:
        self.limit_s, self.began = limit_s, time.perf_counter()

    def passed(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self.began

    def spent(self) -> float:
        """Which share of the limit has passed; none where there is no limit."""
        return 0.0 if self.limit_s is None else min(self.passed() / self.limit_s, 1.0)

    def at(self, share: float) -> float:
        """When a share of the limit has passed, as `time.perf_counter` says it."""
        return float("inf") if self.limit_s is None else self.began + share * self.limit_s

    def has_time_for(self, choices: int, share: float) -> bool:
        """Whether a model of so many choices is worth beginning: there is twice the time that it takes to be made."""
        return self.at(share) - time.perf_counter() > 2 * choices / _CHOICES_A_SECOND

    def limit(self, solver: cp_model.CpSolver, share: float) -> None:
        """Stops a solver when a share of the limit has passed; without one, after as much deterministic time."""
        if self.limit_s is None:
            solver.parameters.max_deterministic_time = _DETERMINISTIC_S * share
        else:
            solver.parameters.max_time_in_seconds = max(self.at(share) - time.perf_counter(), 0.01)


def _by_ideals(asked: _Asked, units: Units, found: _Found, clock: _Clock) -> None:
    """Puts in the best contiguous split, and its bound where only those are asked for. InfeasibleError where none fits.

    `units` are contiguous ones.
    """
    least = float("inf") if found.split is None else asked.figure(found.split)
    if found.is_within(_PROVEN, asked):
        return
    share = _IDEALS_SHARE if asked.contiguous else _IDEALS_START_SHARE
    answer = solve_ideals(asked.problem, units, least, clock.at(share))
    if answer is None:
        return
    if asked.contiguous and answer.bound == float("inf") and found.split is None:
        raise InfeasibleError(_NO_SPLIT)
    if asked.contiguous:
        found.bound = min(max(found.bound, answer.bound), least)
    if answer.split is not None and asked.figure(answer.split) < least:
        found.split = answer.split


def _by_sets(asked: _Asked, found: _Found, clock: _Clock) -> None:
    """Puts in the bound from sets of units, and where devices need no order a split of them, annealed."""
    late = clock.spent() >= 1
    if late or found.split is None or not asked.problem.nodes or found.is_within(_PROVEN, asked):
        return
    cover = Cover(asked.problem, asked.units, asked.figure(found.split), _after(clock, _BOUND_SHARE))
    found.bound = max(found.bound, cover.bound(found.bound))
    if asked.contiguous or found.is_within(_PROVEN, asked):
        return
    found.split = dived(cover, found.split, _after(clock, _DIVING_SHARE))
    if not found.is_within(_PROVEN, asked):
        steps = min(_STEPS, _STEPS_A_UNIT * len(asked.units.members))
        until = _after(clock, _ANNEALING_SHARE)
        found.split = annealed(asked.problem, asked.units, found.split, steps=steps, until=until, seed=asked.seed)


def _after(clock: _Clock, share: float) -> float:
    """When a share of the whole time will have passed from now on, as `time.perf_counter` says it."""
    return clock.at(clock.spent() + share)


def _solved(asked: _Asked, before: _Found, clock: _Clock, share: float) -> _Found:
    """What CP-SAT finds from what was found before. InfeasibleError where nothing fits.

    Ticks are parts of the objective before, so where it becomes much less they are too coarse, and it is done again.
    """
    found = before
    while not found.is_within(_PROVEN, asked) and clock.has_time_for(_choices(asked), share):
        last = float("inf") if found.split is None else asked.figure(found.split)
        found = _solved_once(asked, found, clock, share)
        if not found.proven or found.split is None or asked.figure(found.split) > last / 2:
            break
    found.proven = found.is_within(_ROUNDED if found.proven else _PROVEN, asked)
    return found


def _choices(asked: _Asked) -> int:
    """About as many choices as the model has."""
    problem = asked.problem
    slots = problem.accelerators * asked.subgraphs * 2 + problem.cpus
    return len(asked.units.members) * slots


def _solved_once(asked: _Asked, before: _Found, clock: _Clock, share: float) -> _Found:
    model = _Model(asked.problem, asked.units, asked.objective, asked.contiguous, asked.subgraphs, before.split)
    model.at_least(before.bound)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = asked.seed
    if asked.objective == "latency":
        solver.parameters.relative_gap_limit = _PROVEN / 2
    clock.limit(solver, share)
    status = solver.solve(model.model)
    if status == cp_model.INFEASIBLE and before.split is None:
        raise InfeasibleError(_NO_SPLIT)
    splits = [] if before.split is None else [before.split]
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        splits.append(model.read(solver))
    bound = max(solver.best_objective_bound * model.tick - model.error, before.bound)
    return _Found(min(splits, key=asked.figure, default=None), bound, status == cp_model.OPTIMAL)


def _most(problem: PublicProblem, subgraphs: int) -> float:
    """What no split takes longer than: all nodes one after another where they are slower, and all values moved to and
    from each subgraph."""
    slower = (max(node.accelerator, node.cpu if problem.cpus else 0.0) for node in problem.nodes)
    return sum(slower) + sum(problem.cost) * problem.accelerators * subgraphs


class _Model:
    """The variables: `at[u][s]` says that unit u is in slot s."""

    def __init__(
        self,
        problem: PublicProblem,
        units: Units,
        objective: PublicObjective,
        contiguous: bool,
        subgraphs: int,
        start: PublicSplit | None,
    ) -> None:
        self.problem, self.units, self.objective = problem, units, objective
        self.ordered = contiguous or objective == "latency"
        self.model = cp_model.CpModel()
        figure = max_load if objective == "throughput" else latency
        self.tick = ((_most(problem, subgraphs) if start is None else figure(problem, start)) or 1.0) / _TICKS
        count = problem.accelerators * (subgraphs if objective == "latency" else 1)
        self.subgraphs = subgraphs
        # Data only flows forward through the slots; CPU slots (True) stand before, between and after accelerators. For
        # latency the cores are one slot, for throughput each of them may be in each of these places.
        cores = [True] * min(problem.cpus, 1 if objective == "latency" else len(units.members))
        self.is_cpu = cores + [kind for _ in range(count) for kind in (False, *cores)]
        if not self.ordered:
            self.is_cpu = [False] * problem.accelerators + [True] * problem.cpus
        # What rounding to ticks can be off by in any sum: each node is counted once, each value once a slot at most.
        summed = len(problem.nodes) * (2 if objective == "throughput" else 2 + count)
        self.error = 0.5 * self.tick * summed
        self.at = [self._unit(index) for index in range(len(units.members))]
        if self.ordered:
            self._flow_forward()
        else:
            self._tell_apart()
        self._capacity()
        self.goal = self._max_load() if objective == "throughput" else self._latency()
        self.model.minimize(self.goal)
        if start is not None:
            self._hint(start)

    def _unit(self, index: int) -> dict[int, Any]:
        allowed = all(self.problem.nodes[node].on_accelerator for node in self.units.members[index])
        literals = {
            slot: self.model.new_bool_var(f"u{index}@{slot}")
            for slot, is_cpu in enumerate(self.is_cpu)
            if is_cpu or allowed
        }
        self.model.add_exactly_one(literals.values())
        return literals

    def _flow_forward(self) -> None:
        until: list[list[Any]] = []
        for index, literals in enumerate(self.at):
            before: Any = 0
            row: list[Any] = []
            for slot in range(len(self.is_cpu)):
                if slot in literals:
                    here = self.model.new_bool_var(f"u{index}<={slot}")
                    self.model.add(here == before + literals[slot])
                    before = here
                row.append(before)
            until.append(row)
        for source, destination in self.units.edges:
            for slot in range(len(self.is_cpu)):
                left, right = until[source][slot], until[destination][slot]
                if isinstance(right, int):
                    continue
                if isinstance(left, int):
                    self.model.add(right == 0)
                else:
                    self.model.add_implication(right, left)
        self.used: list[Any] = []
        for slot in range(len(self.is_cpu)):
            used = self.model.new_bool_var(f"used{slot}")
            here = [literals[slot] for literals in self.at if slot in literals]
            for literal in here:
                self.model.add_implication(literal, used)
            self.model.add_bool_or([*here, used.negated()])
            self.used.append(used)
        if self.objective == "throughput":
            self.model.add(sum(u for u, cpu in zip(self.used, self.is_cpu, strict=True) if cpu) <= self.problem.cpus)
        accelerators = [slot for slot, cpu in enumerate(self.is_cpu) if not cpu]
        if self.subgraphs == 1 or self.objective == "throughput":
            for left, right in pairwise(accelerators):
                # Equal accelerators: the unused ones come last.
                self.model.add_implication(self.used[right], self.used[left])

    def _tell_apart(self) -> None:
        """Equal devices: a unit may open device d only where an earlier unit has opened device d - 1. That is not said
        of all units, since it takes as many clauses as the square of them."""
        for kind in (False, True):
            slots = [slot for slot, cpu in enumerate(self.is_cpu) if cpu == kind]
            for left, right in pairwise(slots):
                for index, literals in enumerate(self.at[:_TOLD_APART]):
                    if right in literals:
                        earlier = [self.at[u][left] for u in range(index) if left in self.at[u]]
                        self.model.add_bool_or([literals[right].negated(), *earlier])

    def _capacity(self) -> None:
        problem = self.problem
        sizes = [sum(problem.nodes[node].size for node in members) for members in self.units.members]
        if sum(sizes) <= problem.capacity:
            return
        unit = max(problem.capacity / 1e6, 1.0)
        for device in range(problem.accelerators):
            slots = [slot for slot, is_cpu in enumerate(self.is_cpu) if not is_cpu and self._device(slot) == device]
            terms = [
                -int(-size // unit) * self.at[u][slot]
                for u, size in enumerate(sizes)
                for slot in slots
                if slot in self.at[u]
            ]
            self.model.add(sum(terms) <= int(problem.capacity // unit))

    def _device(self, slot: int) -> int:
        """The accelerator of a slot: the accelerators in turn."""
        return self.is_cpu[:slot].count(False) % self.problem.accelerators

    def at_least(self, bound: float) -> None:
        """No objective is less than this bound."""
        self.model.add(self.goal >= int((bound - self.error) / self.tick))

    def ticks(self, amount: float) -> int:
        """An amount in ticks; those that no split as good as the start has are only as large as that takes."""
        return round(min(amount / self.tick, _HORIZON + 1))

    def _transfers(self, slot: int) -> Any:
        """What an accelerator slot pays: every value that enters or leaves it, once."""
        terms: list[Any] = []
        for source, cost in enumerate(self.problem.cost):
            unit = self.units.unit_of[source]
            others = {self.units.unit_of[node] for node in self.problem.successors[source]} - {unit}
            if not others or not self.ticks(cost):
                continue
            moved = self.model.new_bool_var(f"moved{source}@{slot}")
            here = self.at[unit].get(slot, 0)
            for other in sorted(others):
                there = self.at[other].get(slot, 0)
                self.model.add(moved >= there - here)
                self.model.add(moved >= here - there)
            terms.append(self.ticks(cost) * moved)
        return sum(terms)

    def _work(self, slot: int) -> Any:
        terms: list[Any] = []
        for index, members in enumerate(self.units.members):
            if slot in self.at[index]:
                nodes = [self.problem.nodes[node] for node in members]
                amount = sum(node.cpu if self.is_cpu[slot] else node.accelerator for node in nodes)
                terms.append(self.ticks(amount) * self.at[index][slot])
        return sum(terms)

    def _max_load(self) -> Any:
        goal = self.model.new_int_var(0, _HORIZON, "load")
        for slot, is_cpu in enumerate(self.is_cpu):
            self.model.add(goal >= self._work(slot) + (0 if is_cpu else self._transfers(slot)))
        fastest = sum(min(node.cpu, node.accelerator) for node in self.problem.nodes)
        devices = self.problem.accelerators + self.problem.cpus
        self.model.add(goal >= int(fastest / devices / self.tick * (1 - 1e-6)))
        return goal

    def _latency(self) -> Any:
        model, problem = self.model, self.problem
        horizon = _HORIZON
        goal = model.new_int_var(0, horizon, "latency")
        done = [model.new_int_var(0, horizon, f"done{node}") for node in range(len(problem.nodes))]
        for node, sources in enumerate(problem.predecessors):
            model.add(goal >= done[node])
            literals = self.at[self.units.unit_of[node]]
            on_cpu = sum(literal for slot, literal in literals.items() if self.is_cpu[slot])
            seconds = self.ticks(problem.nodes[node].cpu)
            model.add(done[node] >= seconds * on_cpu)
            for source in sources:
                model.add(done[node] >= done[source] + seconds * on_cpu)
        free: dict[int, Any] = {}
        for slot, is_cpu in enumerate(self.is_cpu):
            if is_cpu:
                continue
            start = model.new_int_var(0, horizon, f"start{slot}")
            end = model.new_int_var(0, horizon, f"end{slot}")
            model.add(end == start + self._work(slot) + self._transfers(slot))
            for node, sources in enumerate(problem.predecessors):
                here = self.at[self.units.unit_of[node]].get(slot)
                if here is None:
                    continue
                model.add(done[node] >= end).only_enforce_if(here)
                for source in sources:
                    inside = self.at[self.units.unit_of[source]].get(slot)
                    if self.units.unit_of[source] == self.units.unit_of[node]:
                        continue
                    outside = [] if inside is None else [inside.negated()]
                    model.add(start >= done[source]).only_enforce_if([here, *outside])
            device = self._device(slot)
            if device in free:
                model.add(start >= free[device])
            free[device] = end
        return goal

    def _hint(self, split: PublicSplit) -> None:
        slot_of = self._slots_of(split)
        for index, literals in enumerate(self.at):
            node = self.units.members[index][0]
            for slot, literal in literals.items():
                self.model.add_hint(literal, int(slot == slot_of[node]))

    def _slots_of(self, split: PublicSplit) -> Sequence[int]:
        """Slots that hold a contiguous split: for throughput its devices in the order of their first units, for latency
        its subgraphs in their order, and CPU nodes after what they need."""
        if not self.ordered:
            return split.device
        if self.objective == "throughput":
            slot_of: dict[int, int] = {}
            last = -1
            for members in self.units.members:
                device = split.device[members[0]]
                if device not in slot_of:
                    last = self.is_cpu.index(device >= self.problem.accelerators, last + 1)
                    slot_of[device] = last
            return [slot_of[device] for device in split.device]
        accelerators = [slot for slot, is_cpu in enumerate(self.is_cpu) if not is_cpu]
        used = {split.subgraph[node] for node, d in enumerate(split.device) if d < self.problem.accelerators}
        position = dict(zip(sorted(used), accelerators, strict=False))
        slots: list[int] = []
        for node, device in enumerate(split.device):
            if device < self.problem.accelerators:
                slots.append(position[split.subgraph[node]])
            else:
                after = max((slots[source] for source in self.problem.predecessors[node]), default=0)
                slots.append(after if self.is_cpu[after] else after + 1)
        return slots

    def read(self, solver: cp_model.CpSolver) -> PublicSplit:
        """The split that the solver found."""
        chosen: dict[int, int] = {}
        for index, literals in enumerate(self.at):
            slot = next(slot for slot, literal in literals.items() if solver.boolean_value(literal))
            chosen.update(dict.fromkeys(self.units.members[index], slot))
        if not self.ordered:
            devices = tuple(chosen[node] for node in range(len(chosen)))
            return PublicSplit(devices, devices)
        cores = sorted(slot for slot in set(chosen.values()) if self.is_cpu[slot])
        core = {slot: 0 if self.objective == "latency" else number for number, slot in enumerate(cores)}
        device: list[int] = []
        for node in range(len(chosen)):
            slot = chosen[node]
            device.append(self.problem.accelerators + core[slot] if self.is_cpu[slot] else self._device(slot))
        return PublicSplit(tuple(device), tuple(chosen[node] for node in range(len(chosen))))
