"""When batches leave in the slot model: links serve them in the order of the slots, as `schedule.simulate` has it.

A link that only one batch could ever use needs nothing. For every other, batches are chained in their order: one that
carries something leaves when the link is free of all before it and holds it for its bytes; an empty one does nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ortools.sat.python import cp_model

from gimlet.compiler.placement.model.problem import Problem, Route

Batch = tuple[int, int]
"""A slot (`~slot`: the model's inputs that are first read there) and the device that its values go to."""


def turn(batch: Batch, host: int) -> tuple[bool, int, bool, int]:
    """The order of batches on a link: inputs as they are read, then what slots send; by device, the host last."""
    slot, device = batch
    return slot >= 0, max(slot, ~slot), device == host, device


@dataclass(frozen=True)
class _Turn:
    """A batch on a link: when the link is free before it and after, and how long the batch holds it."""

    link: str
    before: Any
    after: Any
    held: Any


@dataclass(frozen=True)
class _Queued:
    """A batch that may have to wait: when it leaves, whether it carries anything, and its turns on links."""

    leaves: Any
    used: Any
    turns: tuple[_Turn, ...]


class SlotLinks:
    """The links of a slot model. `moves` are the literals of each batch's values, with their bytes."""

    def __init__(
        self,
        model: cp_model.CpModel,
        routes: Mapping[Batch, Route],
        moves: Mapping[Batch, Sequence[tuple[int, Any]]],
        horizon: int,
        tick: float,
    ) -> None:
        self.model, self.moves, self.horizon, self.tick = model, moves, horizon, tick
        self.routes = routes
        uses = Counter(link for batch in moves for link, seconds in routes[batch].links if seconds)
        self.shared = {link for link, count in uses.items() if count > 1}
        self.free: dict[str, Any] = {}
        self.queued: dict[Batch, _Queued] = {}

    def leave(self, batch: Batch, ended: Any) -> Any:
        """When a batch leaves whose slot has `ended`. Batches are to be asked for in their order."""
        model, slot, device = self.model, *batch
        links = [(link, seconds) for link, seconds in self.routes[batch].links if link in self.shared]
        if not links:
            return ended
        leaves = model.new_int_var(0, self.horizon, f"leave{slot}>{device}")
        used = model.new_bool_var(f"sent{slot}>{device}")
        model.add(leaves >= ended)
        for _, literal in self.moves[batch]:
            model.add_implication(literal, used)
        turns: list[_Turn] = []
        for link, seconds in links:
            before = self.free.get(link, 0)
            after = self.free[link] = model.new_int_var(0, self.horizon, f"free{link}{slot}>{device}")
            held = sum(round(size * seconds / self.tick) * literal for size, literal in self.moves[batch])
            model.add(after >= before)
            model.add(leaves >= before).only_enforce_if(used)
            model.add(after >= leaves + held).only_enforce_if(used)
            turns.append(_Turn(link, before, after, held))
        self.queued[batch] = _Queued(leaves, used, tuple(turns))
        return leaves

    def hint(self, batch: Batch, ended: int, value: Callable[[Any], int], assign: Callable[[Any, int], None]) -> None:
        """Gives a batch's variables their values where its slot has `ended`; those of batches before it are set."""
        queued = self.queued.get(batch)
        if queued is None:
            return
        used = any(value(literal) for _, literal in self.moves[batch])
        leaves = max([ended, *(value(turn.before) for turn in queued.turns)]) if used else ended
        assign(queued.used, int(used))
        assign(queued.leaves, leaves)
        for turn in queued.turns:
            before = value(turn.before)
            assign(turn.after, max(before, leaves + value(turn.held)) if used else before)


def routes_of(problem: Problem, device: Sequence[int], batches: Mapping[Batch, object]) -> dict[Batch, Route]:
    """The route of each batch, where `device` has the device of each slot."""
    return {
        (slot, destination): problem.routes[problem.host if slot < 0 else device[slot], destination]
        for slot, destination in batches
    }
