"""All variables of the slot model at a placement: CP-SAT then starts from it without a search of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ortools.sat.python import cp_model

from gimlet.compiler.placement.exact.slot_model import SlotModel, embed
from gimlet.compiler.placement.model.problem import Placement


def complete_hint(model: SlotModel, placement: Placement) -> Iterator[tuple[Any, int]]:
    """Pairs of a variable and its value, for a placement whose segments fit the model's slots."""
    return _Hint(model, placement).run()


class _Hint:
    """Values by a variable's index, filled in the order in which they depend on each other."""

    def __init__(self, model: SlotModel, placement: Placement) -> None:
        self.model, self.placement = model, placement
        self.values: dict[int, int] = {}
        self.variables: dict[int, Any] = {}
        position = embed(placement, model.slots)
        self.slot = [position[segment] for segment in placement.segment]
        self.on = [model.device[slot] for slot in self.slot]

    def run(self) -> Iterator[tuple[Any, int]]:
        self._assign()
        self._move()
        if self.model.start:
            self._time()
        for total, loads in self.model.totals[1 if self.model.start else 0 :]:
            self._set(total, max((self._value(load) for load in loads), default=0))
        for device, in_use, charged, ticks in self.model.charged:
            used = any(device in self.model.problem.units[on] for on in self.on)
            self._set(in_use, int(used))
            self._set(charged, self._value(ticks) if used else 0)
        for index, value in self.values.items():
            yield self.variables[index], value

    def _set(self, variable: Any, value: int) -> None:
        self.values[variable.index] = value
        self.variables[variable.index] = variable

    def _value(self, expression: Any) -> int:
        """The value of a linear expression of variables that are set."""
        if isinstance(expression, int):
            return expression
        flat = cp_model.FlatIntExpr(expression)
        pairs = zip(flat.vars, flat.coeffs, strict=True)
        return int(flat.offset + sum(coefficient * self.values[variable.index] for variable, coefficient in pairs))

    def _assign(self) -> None:
        model = self.model
        for node, literals in enumerate(model.at):
            for slot, literal in literals.items():
                self._set(literal, int(slot == self.slot[node]))
                self._set(model.until[node][slot], int(slot >= self.slot[node]))
        for slot, used in enumerate(model.used):
            self._set(used, int(slot in self.slot))
        for number, place, variable in model.resident:
            users = model.problem.weights[number].users
            self._set(variable, int(any(self.placement.place[user] == place for user in users)))
        for variable, peaks in model.peaks:
            here = [peak for node, place, peak in peaks if self.placement.place[node] == place]
            self._set(variable, max(here, default=0))
        model.streams.hint(self.placement.place, self.slot, self._set)

    def _move(self) -> None:
        model, problem = self.model, self.model.problem
        for (index, slot, device), literal in model.moves.items():
            value = problem.values[index]
            wanted = any(self.on[consumer] == device for consumer in value.consumers)
            wanted |= value.is_output and device == problem.host
            leaves = self._first_read(index, device) == ~slot if slot < 0 else self.slot[value.producer or 0] == slot
            self._set(literal, int(wanted and leaves))
        for index, slot, literal in model.fused:
            fusion = problem.fusions[index]
            self._set(literal, int(self.slot[fusion.producer] == self.slot[fusion.consumer] == slot))
        for edge in model.edges:
            value = problem.values[edge.value]
            inside = {self.slot[consumer] == edge.slot for consumer in value.consumers}
            made = value.producer is not None and self.slot[value.producer] == edge.slot
            out = made and (False in inside or value.is_output)
            self._set(edge.literal, int(out if edge.leaves else not made and True in inside))
        flowing = {
            (self.slot[source], self.slot[node])
            for node, sources in enumerate(problem.predecessors)
            for source in sources
        }
        flowing |= {
            (~self._first_read(index, self.on[consumer]), self.slot[consumer])
            for index, value in enumerate(problem.values)
            if value.producer is None
            for consumer in value.consumers
        }
        for pair, flow in model.flows.items():
            self._set(flow, int(pair in flowing))

    def _first_read(self, value: int, device: int) -> int:
        """The first slot on a device that reads a value; one past all where none does."""
        consumers = self.model.problem.values[value].consumers
        return min((self.slot[c] for c in consumers if self.on[c] == device), default=len(self.model.device))

    def _time(self) -> None:
        """Slots in their order: each as early as its device and its inputs allow."""
        model, problem = self.model, self.model.problem
        free: dict[int, int] = {}
        last = 0
        for slot in range(len(model.device)):
            self._arrive(~slot)
        for slot, device in enumerate(model.device):
            start = max(free.get(unit, 0) for unit in problem.units[device])
            for (left, right), flow in model.flows.items():
                if right == slot and self.values[flow.index]:
                    start = max(start, self.values[model.arrival[left, device].index])
            self._set(model.start[slot], start)
            end = start + self._value(model.busy(slot, model.tick))
            free |= dict.fromkeys(problem.units[device], end)
            self._set(model.end[slot], end)
            last = max(last, end)
            self._arrive(slot)
        for value in problem.values:
            source = None if value.producer is None else self.slot[value.producer]
            if value.is_output and source is not None and model.device[source] != problem.host:
                last = max(last, self.values[model.arrival[source, problem.host].index])
        self._set(model.totals[0][0], last)

    def _arrive(self, slot: int) -> None:
        for (source, device), arrived in self.model.arrived.items():
            if source == slot:
                ended = 0 if slot < 0 else self.values[self.model.end[slot].index]
                self.model.links.hint((source, device), ended, self._value, self._set)
                self._set(self.model.arrival[source, device], self._value(arrived))
