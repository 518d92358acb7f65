"""What another decision would have cost: each op moved to each other place, alone and with its segment.

A move keeps everything else as it is. Moved alone, an op joins a segment that is on the other place already, where the
order of segments allows it, or becomes a segment of its own between what its segment did before it and after; the
better counts. Moved as a whole, a segment may join its neighbours there. Every figure is that of the schedule.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Placement, Problem
from gimlet.compiler.placement.model.schedule import violations
from gimlet.compiler.placement.model.segments import Found, judge, renumber
from gimlet.runtime.errors import InputError

_EVALUATIONS = 1_000_000


@dataclass(frozen=True)
class Move:
    """How much more of the objective a move costs (negative: it would be better), and the limits that it breaks."""

    delta: float
    breaks: tuple[str, ...] = ()


@dataclass
class Moves:
    """Moves by (node, place) and (segment, place). A segment has none to a place that refuses one of its ops."""

    alone: dict[tuple[int, int], Move] = field(default_factory=dict[tuple[int, int], Move])
    whole: dict[tuple[int, int], Move] = field(default_factory=dict[tuple[int, int], Move])
    left_out: int = 0


def moves_of(problem: Problem, placement: Placement) -> Moves:
    """Moves of all segments, and of ops, the longest first, as far as the work stays within some seconds."""
    found = Moves()
    today = judge(problem, placement).schedule.figure(problem.rules.objective)
    places = range(len(problem.places))
    like = _alike(problem, placement)
    for segment in sorted(set(placement.segment)):
        nodes = [node for node, number in enumerate(placement.segment) if number == segment]
        for place in places:
            if place != placement.place[nodes[0]] and all(place in problem.nodes[node].options for node in nodes):
                known = found.whole.get((segment, like[place]))
                found.whole[segment, place] = known or _best(problem, today, _whole(placement, nodes, place))
    budget = _EVALUATIONS // max(len(problem.nodes), 1)
    order = sorted(range(len(placement.place)), key=lambda n: -problem.nodes[n].options[placement.place[n]].seconds)
    for node in order:
        for place in sorted(problem.nodes[node].options):
            if place == placement.place[node]:
                continue
            known = found.alone.get((node, like[place]))
            if known is not None:
                found.alone[node, place] = known
                continue
            if budget <= 0:
                found.left_out += 1
                continue
            candidates = list(_alone(problem, placement, node, place))
            budget -= len(candidates)
            found.alone[node, place] = _best(problem, today, candidates)
    return found


def _alike(problem: Problem, placement: Placement) -> list[int]:
    """For each place one that is as good in this placement: of devices that are alike and unused, the first's."""
    found = list(range(len(problem.places)))
    if any(device.members for device in problem.devices):
        return found
    used = {problem.host, *(problem.device_of[place] for place in placement.place)}
    for members in device_classes(problem):
        spare = [
            [place for place, on in enumerate(problem.device_of) if on == device]
            for device in members
            if device not in used
        ]
        for places in spare[1:]:
            for place, first in zip(places, spare[0], strict=True):
                found[place] = first
    return found


def _best(problem: Problem, today: float, candidates: Iterable[Placement]) -> Move:
    judged: list[Found] = []
    for candidate in candidates:
        try:
            judged.append(judge(problem, candidate))
        except InputError:
            # Joined segments that would wait for each other.
            continue
    objective = problem.rules.objective
    best = min(judged, key=lambda found: found.rank(objective))
    broken = tuple(text for _, text in violations(problem, best.placement, best.schedule))
    return Move(best.schedule.figure(objective) - today, broken)


def _whole(placement: Placement, nodes: list[int], place: int) -> Iterable[Placement]:
    places = list(placement.place)
    for node in nodes:
        places[node] = place
    yield Placement(tuple(places), placement.segment)
    own = placement.segment[nodes[0]]
    numbers = sorted(set(placement.segment))
    position = numbers.index(own)
    place_of = dict(zip(placement.segment, placement.place, strict=True))
    for neighbour in numbers[max(position - 1, 0) : position] + numbers[position + 1 : position + 2]:
        if place_of[neighbour] == place:
            yield Placement(tuple(places), renumber(neighbour if s == own else s for s in placement.segment))


def _alone(problem: Problem, placement: Placement, node: int, place: int) -> Iterable[Placement]:
    places = list(placement.place)
    places[node] = place
    own = placement.segment[node]
    after = {node}
    for following in range(node + 1, len(places)):
        if not after.isdisjoint(problem.predecessors[following]):
            after.add(following)
    cut = [3 * s + (2 if s == own and n in after else 0) for n, s in enumerate(placement.segment)]
    cut[node] = 3 * own + 1
    yield Placement(tuple(places), renumber(cut))
    low = max((placement.segment[n] for n in problem.predecessors[node]), default=-1)
    high = min((placement.segment[n] for n in problem.successors[node]), default=len(places))
    place_of = dict(zip(placement.segment, placement.place, strict=True))
    for goal in sorted(place_of):
        if low <= goal <= high and place_of[goal] == place and goal != own:
            yield Placement(tuple(places), renumber(goal if n == node else s for n, s in enumerate(placement.segment)))
