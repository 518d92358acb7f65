"""Good placements found quickly: where the solver starts, so that its answer is never worse than any of these.

On the nodes: every device alone (what it refuses goes where it is fastest), each node where it is fastest, and the
placement that the lower bound suggests. On the groups: the best way to cut a topological order into runs, by dynamic
programming, and moves of one group at a time while they help. At the end, on the nodes again: moves of single nodes
across the borders of segments, which takes back what coarsening lost there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from time import perf_counter

from gimlet.compiler.placement.model.problem import Placement, Problem
from gimlet.compiler.placement.model.segments import POLICIES, Found, carve, judge, renumber


def single_places(problem: Problem) -> list[tuple[int, ...]]:
    """Everything on one place, for each place; what it refuses goes where it is fastest, or to the host if it may."""
    fastest = fastest_places(problem)
    hosts = [place for place, device in enumerate(problem.device_of) if device == problem.host]
    found: dict[tuple[int, ...], None] = {}
    for place in range(len(problem.places)):
        if not any(place in allowed for allowed in problem.allowed):
            continue
        for second in (-1, *hosts):
            chosen = (
                place if place in allowed else second if second in allowed else fastest[n]
                for n, allowed in enumerate(problem.allowed)
            )
            found[tuple(chosen)] = None
    return list(found)


def fastest_places(problem: Problem) -> tuple[int, ...]:
    """Each node where its own seconds are least."""
    return tuple(
        min(allowed, key=lambda place: (problem.nodes[node].options[place].seconds, place))
        for node, allowed in enumerate(problem.allowed)
    )


def frugal_places(problem: Problem, start: Sequence[int], squares: float) -> tuple[int, ...]:
    """`start` with as few seconds more as a greedy choice finds, until squares of losses add up to at most `squares`.

    The node goes first that saves most of the loss for what its move to another place costs.
    """
    place = list(start)
    total = sum(problem.nodes[node].options[used].loss ** 2 for node, used in enumerate(place))
    steps: list[tuple[float, int, int, float]] = []
    for node, used in enumerate(place):
        options = problem.nodes[node].options
        own = options[used]
        for other in problem.allowed[node]:
            saved = own.loss**2 - options[other].loss ** 2
            if saved > 0:
                steps.append((max(options[other].seconds - own.seconds, 0.0) / saved, node, other, saved))
    saved_by = [0.0] * len(place)
    for _, node, other, saved in sorted(steps):
        if total <= squares:
            break
        if saved > saved_by[node]:
            total -= saved - saved_by[node]
            place[node], saved_by[node] = other, saved
    return tuple(place)


def within_loss(problem: Problem, starts: Iterable[Sequence[int]]) -> list[tuple[int, ...]]:
    """What starts become that keep the loss budget; themselves where there is none."""
    budget = problem.rules.loss_budget
    found = [tuple(start) for start in starts]
    return found if budget is None else [frugal_places(problem, start, budget**2) for start in found]


def best_cuts(problem: Problem) -> tuple[int, ...]:
    """The best runs of the topological order, one after another, each on one place.

    A run pays its launch, its nodes, and the values that come from before it, which are taken to come from the run
    before. Exact for a chain; elsewhere a start.
    """
    count, places = len(problem.nodes), range(len(problem.places))
    overhead = problem.launch_s
    crossing = _crossing_bytes(problem)
    best: list[list[float]] = [[float("inf")] * len(places) for _ in range(count)]
    parent: list[list[int]] = [[-1] * len(places) for _ in range(count)]
    for node in range(count):
        for place in problem.allowed[node]:
            seconds = problem.nodes[node].options[place].seconds
            device = problem.device_of[place]
            if node == 0:
                best[0][place] = overhead[place] + problem.transfer_s(problem.host, device, crossing[0]) + seconds
                continue
            for before in problem.allowed[node - 1]:
                step = 0.0
                if before != place:
                    source = problem.device_of[before]
                    step = overhead[place] + problem.transfer_s(source, device, crossing[node])
                total = best[node - 1][before] + step + seconds
                if total < best[node][place]:
                    best[node][place], parent[node][place] = total, before
    if not count:
        return ()
    place = min(problem.allowed[-1], key=lambda p: (best[-1][p], p))
    chosen = [place]
    for node in range(count - 1, 0, -1):
        chosen.append(parent[node][chosen[-1]])
    return tuple(reversed(chosen))


def _crossing_bytes(problem: Problem) -> list[int]:
    """Bytes of the values that are alive just before each node in the numbering."""
    change = [0] * (len(problem.nodes) + 1)
    for value in problem.values:
        if value.consumers:
            change[0 if value.producer is None else value.producer + 1] += value.size_bytes
            change[max(value.consumers) + 1] -= value.size_bytes
    alive: list[int] = []
    total = 0
    for step in change[:-1]:
        total += step
        alive.append(total)
    return alive


def share_cuts(problem: Problem) -> list[tuple[int, ...]]:
    """Runs of the topological order that give each device its least share of FLOPs, for shares that are asked."""
    wanted = [device for device, share in sorted(problem.rules.min_share.items()) if share > 0]
    found: list[tuple[int, ...]] = []
    rest = fastest_places(problem)
    for first in range(len(wanted)):
        order = wanted[first:] + wanted[:first]
        for devices in (order, order[::-1]):
            chosen = list(rest)
            node = 0
            for device in devices:
                goal = problem.rules.min_share[device] * problem.total_flops
                given = 0.0
                while node < len(chosen) and given < goal:
                    usable = [p for p in problem.allowed[node] if problem.device_of[p] == device]
                    if usable:
                        chosen[node] = usable[0]
                        given += problem.nodes[node].flops
                    node += 1
            found.append(tuple(chosen))
    return found


def best_of(problem: Problem, candidates: Iterable[Sequence[int]]) -> Found:
    """The best of some choices of places, carved into segments."""
    found = [carve(problem, place) for place in dict.fromkeys(tuple(candidate) for candidate in candidates)]
    return min(found, key=lambda candidate: candidate.rank(problem.rules.objective))


def climb(problem: Problem, start: Found, until: float = float("inf")) -> Found:
    """Moves one node, or two neighbours, to another place while that helps; first to where a neighbour is.

    It ends after `until` (of `time.perf_counter`).
    """
    evaluations = min(600, 30_000 // max(len(problem.nodes), 1))
    best = start
    for near in (True, False):
        improved = True
        while improved and evaluations > 0:
            improved = False
            for moved, place in list(_moves(problem, best.placement.place, near)):
                if evaluations <= 0 or perf_counter() > until:
                    evaluations = 0
                    break
                if best.placement.place[moved[0]] == place:
                    continue
                evaluations -= 1
                chosen = list(best.placement.place)
                for node in moved:
                    chosen[node] = place
                candidate = carve(problem, chosen, POLICIES[:1])
                if candidate.rank(problem.rules.objective) < best.rank(problem.rules.objective):
                    best, improved = candidate, True
    return min(best, carve(problem, best.placement.place), key=lambda found: found.rank(problem.rules.objective))


def _moves(problem: Problem, here: Sequence[int], near: bool) -> Iterator[tuple[tuple[int, ...], int]]:
    """Nodes to move together and where to; `near` only where a neighbour is."""
    for node, allowed in enumerate(problem.allowed):
        around = {here[n] for n in (*problem.predecessors[node], *problem.successors[node])}
        pairs = [(node, n) for n in problem.successors[node] if here[n] == here[node]]
        for place in allowed:
            if place == here[node] or (near and place not in around):
                continue
            yield (node,), place
            for pair in pairs:
                if place in problem.allowed[pair[1]]:
                    yield pair, place


def refine(problem: Problem, start: Found, until: float = float("inf")) -> Found:
    """Moves nodes at the borders of segments into the segment of a neighbour while that helps, until `until`."""
    objective = problem.rules.objective
    evaluations = min(250, 100_000 // max(len(problem.nodes), 1))
    best = start
    improved = True
    while improved and evaluations > 0:
        improved = False
        for node in range(len(problem.nodes)):
            segment = best.placement.segment
            before = [segment[n] for n in problem.predecessors[node]]
            after = [segment[n] for n in problem.successors[node]]
            low, high = max(before, default=-1), min(after, default=len(segment))
            for goal in sorted({*before, *after} - {segment[node]}):
                if not low <= goal <= high or evaluations <= 0 or perf_counter() > until:
                    continue
                place = best.placement.place[segment.index(goal)]
                if place not in problem.allowed[node]:
                    continue
                evaluations -= 1
                candidate = judge(problem, _moved(best.placement, node, place, goal))
                if candidate.rank(objective) < best.rank(objective):
                    best, improved = candidate, True
                    break
    return best


def _moved(placement: Placement, node: int, place: int, segment: int) -> Placement:
    places, segments = list(placement.place), list(placement.segment)
    places[node], segments[node] = place, segment
    return Placement(tuple(places), renumber(segments))
