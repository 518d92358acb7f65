"""A split made of the sets that the bound of `public_cover.py` comes up with.

Its linear program shares the units out over sets of a load. *Diving*: the set that has most of a device is given to
one; then the rest of the units is shared out over sets for the other devices, with sets sought anew, and so on. What is
left when every device has a set goes where it makes the load least.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.placement.public.public_cover import Cover, Program, UnitSet
from gimlet.compiler.placement.public.public_format import PublicSplit, max_load, memory

Bools = NDArray[np.bool_]
_SOUGHT = 30
"""Sets are sought so often at most before one is given to a device."""
_LOST = 0.7
"""Where units can be shared out by no more than this, a dive is given up."""
_SMOOTHED = 0.5
_CLOSE = 1e-4
_DIVES = 8
_ABOVE = 1.0005
"""How much above the least load that sets are known for the first dive goes for."""


def dived(cover: Cover, start: PublicSplit, until: float) -> PublicSplit:
    """`start`, or a split with a smaller largest load, after some dives or at `until` (`time.perf_counter`)."""
    best, least = start, max_load(cover.problem, start)
    load = min(cover.reached * _ABOVE, least)
    for _ in range(_DIVES):
        if perf_counter() > until or least <= cover.reached * (1 + _CLOSE):
            break
        split = _dive(cover, load, until)
        value = float("inf") if split is None else max_load(cover.problem, split)
        if split is not None and value < least:
            best, least = split, value
        load = (load + least) / 2
    return best


def _dive(cover: Cover, load: float, until: float) -> PublicSplit | None:
    """A split of sets of this load, as far as there are such; None where it does not fit the memory."""
    problem, members = cover.problem, cover.units.members
    size = np.array([sum(problem.nodes[node].size for node in nodes) for nodes in members])
    left = np.ones(len(members), dtype=bool)
    pool = list(cover.sets)
    counts = [kind.count for kind in cover.kinds]
    device = np.full(len(members), -1)
    accelerators = problem.accelerators > 0

    def fits(one: UnitSet) -> bool:
        on_cpu = one.kind == int(accelerators)
        return counts[one.kind] > 0 and (on_cpu or float(size[one.units].sum()) <= problem.capacity)

    while left.any() and sum(counts) and perf_counter() < until:
        program, value = _shared_out(cover, pool, counts, left, load)
        chosen = program.most_used(fits)
        if chosen is None or value < _LOST:
            return None
        kind = cover.kinds[chosen.kind]
        device[chosen.units] = kind.first + kind.count - counts[chosen.kind]
        counts[chosen.kind] -= 1
        left[chosen.units] = False
    return _completed(cover, device.tolist(), size.tolist())


def _shared_out(
    cover: Cover, pool: list[UnitSet], counts: Sequence[int], left: Bools, load: float
) -> tuple[Program, float]:
    """The program for these units and so many devices of each kind, and which part of each unit it can share out.

    Of sets that are known it has what is left of them. `pool` gets those that are sought for it.
    """
    program = Program(counts, cover.parts(left))
    for one in pool:
        program.add(cover.rest(one, left), load)
    value, best = program.solve(), program.weights
    for _ in range(_SOUGHT):
        if value >= 1 - _CLOSE:
            break
        weights = _SMOOTHED * program.weights + (1 - _SMOOTHED) * best
        for one in cover.sought(weights, load, left):
            pool.append(one)
            program.add(one, load)
        value, best = program.solve(), weights
    return program, value


def _completed(cover: Cover, device: list[int], size: Sequence[float]) -> PublicSplit | None:
    """The split with units of no device where they make the largest load least; None where they do not fit."""
    problem = cover.problem
    count = problem.accelerators + problem.cpus
    loads, used = [0.0] * count, [0.0] * count

    def put(unit: int, goal: int) -> None:
        loads[goal] += cover.seconds[int(goal >= problem.accelerators)][unit]
        used[goal] += size[unit]

    for unit, goal in enumerate(device):
        if goal >= 0:
            put(unit, goal)
    for unit in cover.order:
        if device[unit] >= 0:
            continue
        near = [device[other] for other in cover.near[unit]]
        room = [g for g in range(count) if g >= problem.accelerators or used[g] + size[unit] <= problem.capacity]
        goal = min(
            room,
            key=lambda g: (loads[g] + cover.seconds[int(g >= problem.accelerators)][unit], -near.count(g)),
            default=None,
        )
        if goal is None:
            return None
        device[unit] = goal
        put(unit, goal)
    where = tuple(device[unit] for unit in cover.units.unit_of)
    split = PublicSplit(where, where)
    fits = max(memory(problem, split), default=0.0) <= problem.capacity
    return split if fits and max(loads) < float("inf") else None
