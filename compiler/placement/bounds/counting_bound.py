"""A lower bound on the period of a pipeline by counting: of ops alike, no device has more than it can do in a period.

Of one kind of long ops, as the experts of all layers are, every device can do so many within a period, with its
launches and with what its segments must hold between them (`device_sets.py`). Where all devices together cannot do all
of them, no placement has that period. A linear program that splits ops does not see this: nine such ops and a half
fit a device as well there, and what is between two of them costs it nothing.

Nothing is searched, so this takes a fraction of a second; `cover_bound.py` seeks other weights of the ops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from gimlet.compiler.placement.bounds.device_sets import CELLS, DeviceSets, Prices, missed_period
from gimlet.compiler.placement.bounds.spine import Spine, heaviest_path
from gimlet.compiler.placement.model.alike import alike_nodes
from gimlet.compiler.placement.model.problem import Problem

_MOST_KINDS = 4
_WORTH = 0.05
"""The part of what all ops are worth that a kind is worth at least, to be counted."""


@dataclass(frozen=True)
class Counted:
    """A period that no placement is below, and the seconds a byte of fast memory by which that was found."""

    value: float
    fast_byte_s: Mapping[int, float]


def counting_bound(
    problem: Problem, classes: Sequence[Sequence[int]], prices: Prices, best_known: float, until: float = float("inf")
) -> Counted:
    """The bound, at most `best_known`, which is the period of some placement; 0 where nothing is counted.

    `classes` are all devices, those of a class being alike. After `until` (of `time.perf_counter`) it ends.
    """
    found = Counted(0.0, prices.fast_byte_s)
    if not 0 < best_known < float("inf"):
        return found
    spine = Spine(problem, heaviest_path(problem))
    for nodes in _kinds(problem, prices.nodes):
        weights = np.zeros(len(problem.nodes))
        weights[nodes] = 1.0
        for fast_byte_s in (prices.fast_byte_s, _own_prices(problem, classes, nodes)):
            if found.value >= best_known or perf_counter() > until:
                return found
            sets = [
                DeviceSets(problem, spine, members[0], best_known, CELLS, fast_byte_s.get(members[0], 0.0))
                for members in classes
            ]
            most = [one.most(weights)[0] for one in sets]
            value = missed_period(classes, sets, most, weights, best_known)
            found = max(found, Counted(value, fast_byte_s), key=lambda counted: counted.value)
    return found


def _kinds(problem: Problem, worth: Sequence[float]) -> list[list[int]]:
    """Alike ops, those that are worth most first."""
    worths = [(sum(max(worth[n], 0.0) for n in nodes), nodes) for nodes in alike_nodes(problem) if len(nodes) > 1]
    least = _WORTH * sum(max(each, 0.0) for each in worth)
    return [nodes for value, nodes in sorted(worths, reverse=True)[:_MOST_KINDS] if value >= least]


def _own_prices(problem: Problem, classes: Sequence[Sequence[int]], nodes: Sequence[int]) -> Mapping[int, float]:
    """By the first device of a class what a byte of fast memory saves at most where it keeps weights of the nodes."""
    users = frozenset(nodes)
    found: dict[int, float] = {}
    for members in classes:
        places = [place for place, on in enumerate(problem.device_of) if on == members[0]]
        for weight in problem.weights if members[0] in problem.streaming else ():
            for place in places:
                size = weight.size_bytes.get(place, 0)
                saved = sum(weight.streaming_s(user, place) for user in weight.users if user in users)
                if size and saved:
                    found[members[0]] = max(found.get(members[0], 0.0), saved / size)
    return found
