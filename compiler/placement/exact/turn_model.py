"""Pipelines in which every device but the host has room for one launch: which turn each group of ops has.

Two launches of a device that take longer than the best period known are in no better placement. So each such device
runs one segment, and the segments have an order: that of the devices' turns, between which the host may have any
number of segments. Devices that are alike are exchangeable, so there are few orders of classes, and each is a small
model for CP-SAT: a group's turn is not before those that it waits for, and no device or link is busy for longer than
the period. The order makes the difference: with it given, sums of turns up to one propagate, and such a model is solved
in the time that one with free devices takes to get going.

What is proven holds for the ops. Groups (`entrances.py`) are counted in the turn of their heads. Where a part of one
is elsewhere the group is *split*: of what it takes only the head counts then, and nothing of what it sends and gets.
The turn of a group's exit is then later, so what follows is in a later turn as well. The host takes for each op what it
takes on its best place there, and launches once a turn. Costs are rounded down. Memory, streaming, shares and budgets
are left out, and so are links that several devices share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ortools.sat.python import cp_model

from gimlet.compiler.placement.model.problem import Problem

TICKS = 1_000_000
"""In the best period known."""
_SMALL = 2e-4
"""What takes a smaller part of the period on a link, or at the edge of a segment, is left out."""


@dataclass(frozen=True)
class OwnLink:
    """Seconds a byte, at least, on a link direction that a device has for itself, and the slots it does not serve."""

    rate_s: float
    near: tuple[int, ...]
    inward: bool


@dataclass(frozen=True)
class Turns:
    """What was found for one order: the turn of each op, if any, and what no placement in this order is below."""

    bound_s: float
    turn: tuple[int, ...] | None


class TurnModel:
    """The model for one order of devices, which the host's turns are between: `devices` has them all, by turn."""

    def __init__(
        self,
        problem: Problem,
        groups: Sequence[Sequence[int]],
        order: Sequence[int],
        alike: Sequence[Sequence[int]],
        most_s: float,
        *,
        whole: bool = False,
    ) -> None:
        self.problem, self.groups, self.most_s = problem, groups, most_s
        self.unit = most_s / TICKS
        places = {
            device: tuple(place for place, on in enumerate(problem.device_of) if on == device)
            for device in (problem.host, *order)
        }
        # A placement has one target a segment, so where it is sought each of the host's has turns of its own.
        host = [(place,) for place in places[problem.host]] if whole else [places[problem.host]]
        self.places = [*host, *(slot for device in order for slot in (places[device], *host))]
        """By turn the places that its ops may be on."""
        self.devices = [problem.device_of[slot[0]] if slot else problem.host for slot in self.places]
        self.alike = {device: members for members in alike for device in members}
        self.group_of = {node: number for number, nodes in enumerate(groups) for node in nodes}
        self.model: Any = cp_model.CpModel()
        self.period = self.model.new_int_var(0, TICKS, "period")
        self.at: list[list[Any]] = []
        self.split = [self.model.new_bool_var("") if len(nodes) > 1 and not whole else None for nodes in groups]
        self._assign()
        self._order()
        loads = self._loads()
        for slot, edges in enumerate(self._edges()):
            loads[slot] += edges
        for slot, device in enumerate(self.devices):
            if device != problem.host:
                self.model.add(self._sum(loads[slot]) <= self.period)
                self._links(slot)
        own = [term for slot, device in enumerate(self.devices) if device == problem.host for term in loads[slot]]
        self.model.add(self._sum(own) <= self.period)
        self.model.minimize(self.period)

    @staticmethod
    def _sum(terms: Sequence[tuple[int, Any]]) -> Any:
        return cp_model.LinearExpr.weighted_sum([literal for _, literal in terms], [amount for amount, _ in terms])

    def _less(self, seconds: float) -> int:
        return int(seconds / self.unit * (1 - 1e-9))

    def _more(self, seconds: float) -> int:
        return -int(-seconds / self.unit * (1 + 1e-9) // 1) if seconds > 0 else 0

    def seconds(self, node: int, slot: int) -> float:
        """What an op takes at least in a turn; infinite where it may not be."""
        return min((float(self.problem.seconds[node, place]) for place in self.places[slot]), default=float("inf"))

    def can(self, node: int, slot: int) -> bool:
        """Whether an op may be in a turn, and is not too long there whatever fusion saves."""
        least = min(
            (float(self.problem.fused_seconds[node, place]) for place in self.places[slot]), default=float("inf")
        )
        return least <= self.most_s

    def _assign(self) -> None:
        model = self.model
        self.until: list[list[Any]] = []
        for nodes in self.groups:
            row: list[Any] = []
            until: list[Any] = []
            before: Any = 0
            for slot in range(len(self.devices)):
                literal = model.new_bool_var("")
                if not self.can(nodes[0], slot):
                    model.add(literal == 0)
                upto = model.new_bool_var("")
                model.add(upto == before + literal)
                row.append(literal)
                until.append(upto)
                before = upto
            model.add(until[-1] == 1)
            model.add_exactly_one(row)
            self.at.append(row)
            self.until.append(until)

    def _order(self) -> None:
        for number, nodes in enumerate(self.groups):
            sources = {self.group_of[source] for source in self.problem.predecessors[nodes[0]]}
            for source in sorted(sources):
                for slot in range(len(self.devices)):
                    self.model.add_implication(self.until[number][slot], self.until[source][slot])
                    split = self.split[source]
                    if split is not None:
                        there, here = self.at[source][slot].negated(), self.at[number][slot].negated()
                        self.model.add_bool_or([split.negated(), there, here])

    def _loads(self) -> list[list[tuple[int, Any]]]:
        """By slot what its launch, its groups and what fusion saves between them take."""
        problem, model = self.problem, self.model
        loads: list[list[tuple[int, Any]]] = [[] for _ in self.devices]
        for slot, device in enumerate(self.devices):
            used = model.new_bool_var("")
            for row in self.at:
                model.add_implication(row[slot], used)
            loads[slot].append((self._less(problem.least_launch_s(device)), used))
            within: dict[int, float] = {}
            for fusion in problem.fusions:
                saved = max((fusion.seconds.get(place, 0.0) for place in self.places[slot]), default=0.0)
                source, target = self.group_of[fusion.producer], self.group_of[fusion.consumer]
                if source == target:
                    within[source] = within.get(source, 0.0) + saved
                elif saved > 0:
                    loads[slot].append((-self._more(saved), self._fused(source, target, slot)))
            for number, nodes in enumerate(self.groups):
                head = self.seconds(nodes[0], slot)
                if not self.can(nodes[0], slot):
                    continue
                whole = max(sum(self.seconds(node, slot) for node in nodes) - within.get(number, 0.0), head)
                loads[slot].append((min(self._less(whole), 2 * TICKS), self.at[number][slot]))
                split = self.split[number]
                if split is not None and whole > head:
                    less = model.new_bool_var("")
                    model.add_implication(less, split)
                    model.add_implication(less, self.at[number][slot])
                    loads[slot].append((self._less(head) - min(self._less(whole), 2 * TICKS), less))
        return loads

    def _fused(self, source: int, target: int, slot: int) -> Any:
        """A literal that may be true where a group ends, and another begins, in a slot."""
        fused = self.model.new_bool_var("")
        self.model.add_implication(fused, self.at[target][slot])
        split = self.split[source]
        self.model.add_bool_or([fused.negated(), self.at[source][slot], *([] if split is None else [split])])
        return fused

    def _edges(self) -> Iterator[list[tuple[int, Any]]]:
        """By slot what values take that enter or leave it."""
        problem = self.problem
        for slot in range(len(self.devices)):
            found: list[tuple[int, Any]] = []
            for number, value in enumerate(problem.values if problem.has_edges else ()):
                for leaving in (False, True):
                    seconds = min((problem.edge_s(value, p, leaving=leaving) for p in self.places[slot]), default=0.0)
                    if seconds > _SMALL * self.most_s:
                        moved = self._moved(number, slot, (slot,), inward=not leaving, to_host=True)
                        found += [(self._less(seconds), moved)] if moved is not None else []
            yield found

    def _moved(self, number: int, slot: int, near: Sequence[int], *, inward: bool, to_host: bool) -> Any:
        """A literal that is true where a value comes to a slot (or goes from it), `near` slots left out; None if never.

        `to_host` says that an output goes from it wherever the slot is.
        """
        model, value = self.model, self.problem.values[number]
        source = None if value.producer is None else self.group_of[value.producer]
        if source is None and not inward:
            return None
        clauses: list[list[Any]] = []
        whole = [] if source is None else self._whole(source)
        for consumer in value.consumers:
            target = self.group_of[consumer]
            if target == source:
                continue
            reads = self._whole(target) if consumer != self.groups[target][0] else []
            beside = [self.at[source if inward else target][other] for other in near] if source is not None else []
            if inward:
                clauses.append([self.at[target][slot].negated(), *reads, *whole, *beside])
            elif source is not None:
                clauses.append([self.at[source][slot].negated(), *reads, *whole, *beside])
        if value.is_output and not inward and source is not None and to_host:
            clauses.append([self.at[source][slot].negated(), *whole])
        if not clauses:
            return None
        moved = model.new_bool_var("")
        for clause in clauses:
            model.add_bool_or([moved, *clause])
        return moved

    def _whole(self, group: int) -> list[Any]:
        """What is true where a group is split, for a clause."""
        split = self.split[group]
        return [] if split is None else [split]

    def _links(self, slot: int) -> None:
        for inward in (True, False):
            link = self._own_link(self.devices[slot], inward=inward)
            if link is None:
                continue
            terms: list[tuple[int, Any]] = []
            for number, value in enumerate(self.problem.values):
                seconds = value.size_bytes * link.rate_s
                if seconds > _SMALL * self.most_s:
                    moved = self._moved(number, slot, link.near, inward=inward, to_host=True)
                    terms += [(min(self._less(seconds), 2 * TICKS), moved)] if moved is not None else []
            self.model.add(self._sum(terms) <= self.period)

    def _own_link(self, device: int, *, inward: bool) -> OwnLink | None:
        """The slowest link of all that every way between a device and others has: all others, or those not alike."""
        others = {place.device for place in self.problem.places} | {self.problem.host}
        members = self.alike[device]
        for near in ((device,), tuple(members)):
            rates = [
                self._rate(member, others - {member, *(near if len(near) > 1 else ())}, inward) for member in members
            ]
            if rates and min(rates) > 0:
                slots = tuple(slot for slot, on in enumerate(self.devices) if on in near)
                return OwnLink(min(rates), slots, inward)
        return None

    def _rate(self, device: int, others: set[int], inward: bool) -> float:
        """Seconds a byte on the slowest link that all ways to a device (or from it) share; 0 where they share none."""
        ways = [self.problem.routes[(other, device) if inward else (device, other)] for other in sorted(others)]
        if not ways:
            return 0.0
        shared = set.intersection(*(set(dict(way.links)) for way in ways))
        return max((min(dict(way.links)[link] for way in ways) for link in shared), default=0.0)

    def solve(self, seconds: float | None, work: float, seed: int = 0) -> Turns:
        """Within a limit of wall time, or of CP-SAT's own."""
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = seed
        # Sums of turns propagate; relaxations of so many literals take longer than they save.
        solver.parameters.linearization_level = 0
        solver.parameters.cp_model_probing_level = 0
        solver.parameters.max_deterministic_time = work
        if seconds is not None:
            solver.parameters.max_time_in_seconds = max(seconds, 0.01)
        status = solver.solve(self.model)
        if status == cp_model.INFEASIBLE:
            return Turns(self.most_s, None)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return Turns(max(solver.best_objective_bound, 0.0) * self.unit * (1 - 1e-9), None)
        turn = [0] * len(self.problem.nodes)
        for nodes, row in zip(self.groups, self.at, strict=True):
            slot = next(slot for slot, literal in enumerate(row) if solver.value(literal))
            for node in nodes:
                turn[node] = slot
        return Turns(max(solver.best_objective_bound, 0.0) * self.unit * (1 - 1e-9), tuple(turn))
