"""The least latency of a public problem by the way through its joints: a bound, and the best split on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from gimlet.compiler.placement.public.joint_blocks import MOST_CUTS, Row, all_after, kept_nodes, row_of
from gimlet.compiler.placement.public.joint_path import JointPath, joint_path
from gimlet.compiler.placement.public.joint_split import split_of
from gimlet.compiler.placement.public.public_format import PublicProblem, PublicSplit, latency
from gimlet.compiler.placement.public.public_start import Units

# Each doubles the time.
_MOST_SIDES = 3
# Blocks with more cuts are left out at first.
_QUICK_CUTS = 400
# So many prices of a subgraph are tried, between none and the one that takes the bound to the best split.
_PRICES = 8
# A bound this close to the best split is not improved.
_CLOSED = 1e-6


@dataclass(frozen=True)
class JointAnswer:
    """No split is quicker than `bound`; `split` is the best that was found, if any was."""

    bound: float
    split: PublicSplit | None


def search_joints(
    problem: PublicProblem, units: Units, start: PublicSplit | None, subgraphs: int, until: float
) -> JointAnswer:
    """The bound and the best of `start` and the splits found, with `subgraphs` on each accelerator at most.

    `until`, a time of `time.perf_counter`, ends the search; what is not finished then counts for nothing. So the cases
    are bounded with small blocks alone before the large ones are looked into.
    """
    if not problem.nodes:
        return JointAnswer(0.0, start)
    search = _Search(problem, units, subgraphs, until, start)
    cases = list(_cases(problem, units, search.kept))
    bounds = [0.0] * len(cases)
    try:
        for most_cuts in (_QUICK_CUTS, MOST_CUTS):
            for number, (case, release) in enumerate(cases):
                bounds[number] = max(bounds[number], search.bound(case, release, most_cuts, bounds[number]))
    except TimeoutError:
        return JointAnswer(min(*bounds, search.least), search.best)
    return JointAnswer(min(*bounds, search.least), search.best)


class _Search:
    """The best split so far, and bounds for cases of the problem."""

    def __init__(
        self, problem: PublicProblem, units: Units, subgraphs: int, until: float, start: PublicSplit | None
    ) -> None:
        self.problem, self.units, self.until = problem, units, until
        self.subgraphs = subgraphs * problem.accelerators
        self.kept = kept_nodes(problem)
        self.best = start
        self.least = float("inf") if start is None else latency(problem, start)

    def bound(self, case: PublicProblem, release: dict[int, float], most_cuts: int, known: float) -> float:
        """A bound for a case, which `known` is as well, and the split of its shortest way if that is better."""
        if most_cuts > _QUICK_CUTS and known >= self.least * (1 - _CLOSED):
            return known
        row = row_of(case, self.units, self.kept, release, most_cuts)
        way = self._way(row, helped=True)
        if way is None:
            return self.least
        bound = way.bound
        low, high = 0.0, (self.least - bound) / max(len(way.runs) - self.subgraphs, 1)
        for _ in range(_PRICES if high < float("inf") and len(way.runs) > self.subgraphs else 0):
            price = (low + high) / 2
            found = self._way(row, helped=True, price=price)
            bound = self.least if found is None else max(bound, found.bound)
            if found is None or bound >= self.least * (1 - _CLOSED):
                return self.least
            low, high = (price, high) if len(found.runs) > self.subgraphs else (low, price)
        self._way(row, helped=False)
        return min(bound, self.least)

    def _way(self, row: Row, *, helped: bool, price: float = 0.0) -> JointPath | None:
        way = joint_path(row, self.subgraphs, helped=helped, at_most=self.least, until=self.until, price=price)
        split = None if way is None else split_of(self.problem, self.units, self.kept, way.runs)
        if split is not None and (value := latency(self.problem, split)) < self.least:
            self.best, self.least = split, value
        return way


def _cases(
    problem: PublicProblem, units: Units, kept: Sequence[int]
) -> Iterator[tuple[PublicProblem, dict[int, float]]]:
    """The problem with the weightiest units at the sides in each place that matters, and before when what reads them
    cannot begin. Every split is one of a case.

    A subgraph with such a unit and one of its readers has its first reader as well, which comes before the others. So
    either the unit is with its first reader, or each subgraph that reads it fetches what it reads.
    """
    inside = frozenset(kept)
    after = all_after(problem)
    sides: list[tuple[float, list[tuple[int, int]]]] = []
    for members in units.members:
        readers = [
            (x, min(r for r in problem.successors[x] if r in inside)) for x in members if _read(problem, x, inside)
        ]
        first = min((reader for _, reader in readers), default=0)
        if inside.isdisjoint(members) and all(r == first or after[first] >> r & 1 for _, r in readers):
            sides.append((sum(problem.cost[x] for x, _ in readers), readers))
    heaviest = sorted((side for side in sides if side[0] > 0), reverse=True)[:_MOST_SIDES]
    for choice in product((False, True), repeat=len(heaviest)):
        case: PublicProblem | None = problem
        release: dict[int, float] = {}
        for together, (_, readers) in zip(choice, heaviest, strict=True):
            members = units.members[units.unit_of[readers[0][0]]]
            if case is not None:
                case = _together(case, members, readers, kept) if together else _fetched(case, readers)
            for reader, time in ({} if together else _releases(problem, members, readers)).items():
                release[reader] = max(release.get(reader, 0.0), time)
        if case is not None:
            yield case, release


def _read(problem: PublicProblem, node: int, inside: frozenset[int]) -> bool:
    return any(after in inside for after in problem.successors[node])


def _fetched(problem: PublicProblem, readers: Sequence[tuple[int, int]]) -> PublicProblem:
    """Readers that fetch what they read where they are on an accelerator."""
    nodes = list(problem.nodes)
    for source, reader in readers:
        nodes[reader] = replace(nodes[reader], accelerator=nodes[reader].accelerator + problem.cost[source])
    return replace(problem, nodes=tuple(nodes))


def _releases(problem: PublicProblem, members: Sequence[int], readers: Sequence[tuple[int, int]]) -> dict[int, float]:
    """When the readers of a unit that is in no subgraph of theirs have what they read.

    On CPUs its nodes take their times; a subgraph of its own gives away all that is read.
    """
    done: dict[int, float] = {}
    for node in members:
        sources = [done[source] for source in problem.predecessors[node] if source in done]
        done[node] = max(sources, default=0.0) + (problem.nodes[node].cpu if problem.cpus else float("inf"))
    apart = sum(problem.nodes[node].accelerator for node in members) + sum(
        problem.cost[source] for source, _ in readers
    )
    found: dict[int, float] = {}
    for source, reader in readers:
        found[reader] = max(found.get(reader, 0.0), min(done[source], apart))
    return found


def _together(
    problem: PublicProblem, members: Sequence[int], readers: Sequence[tuple[int, int]], kept: Sequence[int]
) -> PublicProblem | None:
    """A unit on an accelerator with its first reader; None where that cannot be."""
    unit = [problem.nodes[member] for member in members]
    first = min(reader for _, reader in readers)
    if not all(node.on_accelerator for node in (*unit, problem.nodes[first])):
        return None
    after = all_after(problem)
    size = sum(node.size for node in unit)
    work = sum(node.accelerator for node in unit)
    apart: list[tuple[int, int]] = []
    for source, reader in readers:
        between = [n for n in kept if (n == first or after[first] >> n & 1) and (n == reader or after[n] >> reader & 1)]
        if reader != first and size + sum(problem.nodes[node].size for node in between) > problem.capacity:
            apart.append((source, reader))
            work += problem.cost[source]
    nodes = list(_fetched(problem, apart).nodes)
    figures = nodes[first]
    nodes[first] = replace(figures, cpu=float("inf"), accelerator=figures.accelerator + work, size=figures.size + size)
    return replace(problem, nodes=tuple(nodes))
