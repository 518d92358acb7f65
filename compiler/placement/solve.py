"""Solves a placement problem: bound, quick placements, coarsening, CP-SAT, refinement; the answer says how good it is.

The steps: a lower bound on the nodes; quick placements, and the end if one of them meets the bound (one device best for
everything is the common case, and ends here); groups; CP-SAT on the groups, started from the best so far; moves of
nodes at the borders. What is returned is the best of everything that was seen, its schedule recomputed by
`schedule.simulate`, and the bound on the nodes, so that the gap also holds what coarsening and the limit on segments
may have lost.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gimlet.compiler.placement.bounds.fleets import Floors
from gimlet.compiler.placement.bounds.latency_bound import latency_bound
from gimlet.compiler.placement.bounds.least_latency import Bound
from gimlet.compiler.placement.bounds.lower_bound import lower_bound
from gimlet.compiler.placement.exact.cpsat import Answer, Limits, solve_slots
from gimlet.compiler.placement.exact.paths import has_paths, solve_paths
from gimlet.compiler.placement.exact.turns import solve_turns, turn_orders
from gimlet.compiler.placement.model.problem import (
    OBJECTIVES,
    Objective,
    Placement,
    Problem,
    require_figures,
)
from gimlet.compiler.placement.model.schedule import Schedule, simulate, violations
from gimlet.compiler.placement.model.segments import Found, carve, judge
from gimlet.compiler.placement.reasons.conflict import bound_conflict, conflict_of
from gimlet.compiler.placement.reasons.diagnose import affordable, check_feasible
from gimlet.compiler.placement.search.anneal import annealed
from gimlet.compiler.placement.search.balance import balanced
from gimlet.compiler.placement.search.coarsen import Coarse, coarsen, identity
from gimlet.compiler.placement.search.company import keep_company
from gimlet.compiler.placement.search.fleet_search import fleet_search
from gimlet.compiler.placement.search.heuristics import (
    best_cuts,
    best_of,
    climb,
    fastest_places,
    refine,
    share_cuts,
    single_places,
    within_loss,
)
from gimlet.compiler.placement.search.memory_cuts import dealt, memory_cuts
from gimlet.compiler.placement.search.repair import repair_shares
from gimlet.compiler.placement.search.stages import stage_cuts
from gimlet.compiler.placement.search.timeline import annealed_schedule
from gimlet.runtime.errors import InfeasibleError

GAP = 1e-4
_KICKS = 12
_MOST_KICKS = 100_000
_MOST_STEPS = 100_000_000
_UNTIMED_STEPS = 2_000
_ANNEALED = 0.8
"""The part of what is left of a time limit for annealing; the rest is for evening out."""
_EVENED = 1 / 8
"""The part of a time limit for evening out the cuts into stages."""
_BOUNDED = 1 / 4
"""The part that the bound on a pipeline has, however long what came before it took."""
_SEARCHED = 0.4
"""The part after which a pipeline's groups are left, and single ops are moved until the end."""
_SINGLE = 0.3
"""The part that moves of single ops have, but for a period."""
_BOUND_ENDS = 0.9
"""The part after which it is no longer improved even so."""
_IN_TURNS = 0.88
"""The part after which orders of devices with one launch each are left."""
_FLEETS = 0.5
"""The part of what is left then that fleets are searched for, where devices are paid for by the second."""
_SKETCHED = 0.08
"""The part of the time for a first look at fleets."""
_QUICKLY, _ON_PATH, _AGAIN = 0.05, 0.6, 0.75
"""Where a path says something: when bounds are left at first, when the path's models are, and when bounds are again."""
_PATH_WORK = 0.5
"""The part of CP-SAT's work for these models."""
_FEW = 6
"""So many groups get a round each, which no order of segments is too long for."""


@dataclass(frozen=True)
class Solution:
    """The answer to a problem.

    `objective` is recomputed from the schedule; `bound` holds for every placement of the nodes, and `gap` is
    (objective - bound) / objective. `status` is `optimal` where the gap is at most 1e-4, `optimal-for-groups` where
    that was proven for the groups and at most `slots` segments and it is as good, not better; else `feasible`.
    `group_bound` is that proof's bound.
    """

    placement: Placement
    schedule: Schedule
    objective: float
    bound: float
    status: str
    wall_s: float
    groups: int
    slots: int = 0
    group_bound: float | None = None
    steps: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def gap(self) -> float:
        return max(self.objective - self.bound, 0.0) / self.objective if self.objective > 0 else 0.0


def solve(problem: Problem, limits: Limits | None = None, group_limit: int = 40, rounds: int | None = None) -> Solution:
    """The best placement that is found within `limits`. InputError or InfeasibleError where there is none."""
    return _Solve(problem, limits or Limits(), group_limit, rounds).run()


class _Solve:
    """One solve, with the clock and what was found on the way (`steps`: the best objective after each step)."""

    def __init__(self, problem: Problem, limits: Limits, group_limit: int, rounds: int | None) -> None:
        self.asked = problem
        self.problem, self.limits, self.group_limit = problem, limits, group_limit
        self.rounds = rounds
        self.objective: Objective = problem.rules.objective
        self.began = time.perf_counter()
        self.steps: dict[str, float] = {}
        self.floors = Floors()

    def run(self) -> Solution:
        problem = self.problem
        asked: set[Objective] = {self.objective, *problem.rules.bounds}
        for objective in sorted(asked):
            require_figures(problem, objective)
        check_feasible(problem)
        if not problem.nodes:
            return self._solution(judge(problem, Placement((), ())), 0.0, 0, None)
        self._check_bounds()
        problem = self.problem = affordable(problem)
        filled = memory_cuts(problem, self._until(0.1))
        starts = [*single_places(problem), fastest_places(problem), *share_cuts(problem), *filled]
        starts = list(dict.fromkeys((*starts, *(keep_company(problem, start) for start in starts))))
        best = best_of(problem, [*starts, *within_loss(problem, starts)])
        if "throughput" in asked:
            cuts = stage_cuts(problem, self._until(0.1))
            evened = [self._balanced(carve(problem, cut), _EVENED / len(cuts)) for cut in cuts]
            best = min([best, *evened], key=self._rank)
        best, turned = self._in_turns(best)
        known = float("inf") if best.excess else best.schedule.figure(self.objective)
        by_path = has_paths(problem) and not turned
        pipeline = self.objective == "throughput"
        quickly = by_path and not pipeline
        bound = lower_bound(problem, known, self._until(_QUICKLY) if quickly else self._until_bounded())
        bound = replace(bound, value=max(bound.value, turned))
        best = self._suggested(best, bound)
        self._note("quick", best)
        if by_path and not self._closed(best, bound.value):
            best, bound = self._along_path(best, bound)
        if self._closed(best, bound.value):
            return self._solution(best, bound.value, len(problem.nodes), None)
        if problem.rules.min_share and len(problem.nodes) > 3 * self.group_limit:
            # Shares are met with small pieces: moves on finer groups first.
            best = self._move_groups(coarsen(problem, 3 * self.group_limit), best, bound.suggestions)[0]
        coarse = self._coarsened(self.group_limit)
        best, answer = self._solve_groups(coarse, best, bound.suggestions)
        if best.excess and answer.status == "infeasible" and len(coarse.groups) < len(problem.nodes):
            # Limits that groups cannot keep may be kept by smaller ones.
            coarse = self._coarsened(3 * self.group_limit)
            best, answer = self._solve_groups(coarse, best, bound.suggestions)
        best = min(best, refine(problem, best, self._until(_SEARCHED if pipeline else 1.0)), key=self._rank)
        whole = answer.complete and len(coarse.groups) == len(problem.nodes)
        proven = max(bound.value, answer.bound) if whole else bound.value
        if not self._closed(best, proven):
            best = self._by_fleet(best)
        if not self._closed(best, proven):
            best = self._single_ops(best, grouped=len(coarse.groups) < len(problem.nodes))
        self._note("refined", best)
        if best.excess:
            raise self._none_found(best)
        return self._solution(best, proven, len(coarse.groups), answer)

    def _by_fleet(self, best: Found) -> Found:
        """A better placement, where devices are paid for by the second."""
        left = self._seconds_left()
        seconds = None if left is None else _FLEETS * left
        best = fleet_search(self.problem, best, self.limits.seed, seconds, self.floors)
        self._note("fleets", best)
        return best

    def _in_turns(self, best: Found) -> tuple[Found, float]:
        """A better placement and a bound, for a pipeline of many ops whose devices have room for one launch each."""
        known = best.schedule.figure(self.objective)
        few = len(self.problem.nodes) <= self.group_limit
        orders = [] if self.objective != "throughput" or best.excess or few else turn_orders(self.problem, known)
        if not orders:
            return best, 0.0
        best, bound = solve_turns(
            self.problem, best, orders, self._until(_IN_TURNS), self.limits.work, self.limits.seed
        )
        self._note("turns", best)
        return best, bound

    def _suggested(self, best: Found, bound: Bound) -> Found:
        """The best of what a bound suggests."""
        seen = dict.fromkeys((*bound.suggestions, *(dealt(self.problem, place) for place in bound.suggestions)))
        return min(best, best_of(self.problem, [*seen, *within_loss(self.problem, list(seen))]), key=self._rank)

    def _along_path(self, best: Found, bound: Bound) -> tuple[Found, Bound]:
        """A better placement and a bound, from a model of the heaviest path, and then from all bounds again.

        A period's bounds have had their time before: most of what holds for it is in no path.
        """
        work = _PATH_WORK * self.limits.work
        if self.limits.seconds is not None:
            best = fleet_search(self.problem, best, self.limits.seed, _SKETCHED * self.limits.seconds)
            self._note("sketched", best)
        best, least, self.floors = solve_paths(
            self.problem, best, bound.value, self._until(_ON_PATH), work, self.limits.seed
        )
        self._note("path", best)
        bound = replace(bound, value=max(bound.value, least))
        if self._closed(best, bound.value) or self.limits.seconds is None or self.objective == "throughput":
            return best, bound
        known = float("inf") if best.excess else best.schedule.figure(self.objective)
        again = lower_bound(self.problem, known, self._until(_AGAIN), self.floors)
        best = self._suggested(best, again)
        return best, replace(again, value=max(bound.value, again.value))

    def _balanced(self, found: Found, part: float = _EVENED) -> Found:
        """Evened out, for at most a part of a time limit."""
        left = self._seconds_left()
        if left is None or self.limits.seconds is None:
            return balanced(self.problem, found, _KICKS, self.limits.seed)
        return balanced(self.problem, found, _KICKS, self.limits.seed, min(part * self.limits.seconds, left))

    def _annealed(self, found: Found) -> Found:
        """The best that single ops' moves find in all that is left of a time limit."""
        left = self._seconds_left()
        if left is None:
            return self._balanced(found)
        seed = self.limits.seed
        best = annealed(self.problem, found, seed, _MOST_STEPS, _ANNEALED * left)
        return balanced(self.problem, best, _MOST_KICKS, seed, self._seconds_left())

    def _single_ops(self, found: Found, *, grouped: bool) -> Found:
        """The best that moves of ops find. Where nothing but the period counts, sums of loads are enough to judge them.

        Other searches end with a time limit. Without one so many moves are tried where figures have limits or rules are
        broken, and none else.
        """
        rules = self.problem.rules
        limited = rules.bounds or rules.min_share or rules.max_segments is not None or rules.loss_budget is not None
        if self.objective == "throughput" and not (limited and grouped):
            return self._annealed(found) if grouped else self._balanced(found)
        left, steps = self._seconds_left(), _MOST_STEPS
        if left is None:
            left, steps = float("inf"), _UNTIMED_STEPS if rules.bounds or found.excess else 0
        return annealed_schedule(self.problem, found, self.limits.seed, steps, left) if grouped and steps else found

    def _coarsened(self, limit: int) -> Coarse:
        return coarsen(self.problem, limit) if len(self.problem.nodes) > limit else identity(self.problem)

    def _check_bounds(self) -> None:
        """InfeasibleError for a bound on a figure that no placement can keep, whatever it loses."""
        for figure in self.problem.rules.bounds:
            error = bound_conflict(self.problem, figure, self._until(0.1))
            if error is not None:
                raise error

    def _rank(self, found: Found) -> tuple[float, float, int, float, float]:
        return found.rank(self.objective)

    def _note(self, step: str, found: Found) -> None:
        if not found.excess:
            self.steps[step] = found.schedule.figure(self.objective)

    def _closed(self, found: Found, bound: float) -> bool:
        figure = found.schedule.figure(self.objective)
        return not found.excess and figure - bound <= GAP * figure

    def _move_groups(self, coarse: Coarse, best: Found, suggested: Sequence[tuple[int, ...]]) -> tuple[Found, Found]:
        """Quick placements of groups and moves of one group at a time: the best on the nodes, and on the groups."""
        problem = coarse.problem
        starts = [
            *single_places(problem),
            fastest_places(problem),
            best_cuts(problem),
            *share_cuts(problem),
            _projected(coarse, best.placement.place),
            *(_projected(coarse, place) for place in suggested),
        ]
        if problem.rules.min_share:
            starts += [repair_shares(problem, place) for place in dict.fromkeys(starts)]
        start = climb(problem, best_of(problem, [*starts, *within_loss(problem, starts)]), self._until(0.7))
        best = min(best, judge(self.problem, coarse.expand(start.placement)), key=self._rank)
        self._note(f"{len(coarse.groups)} groups", best)
        return best, start

    def _solve_groups(self, coarse: Coarse, best: Found, suggested: Sequence[tuple[int, ...]]) -> tuple[Found, Answer]:
        """Moves of groups, then CP-SAT from the best of them; back on the nodes."""
        best, start = self._move_groups(coarse, best, suggested)
        problem = coarse.problem
        places = len({place for allowed in problem.allowed for place in allowed})
        count = len(problem.nodes)
        rounds = self.rounds or (count if count <= _FEW else max(2, min(count, 12 // max(places, 1))))
        answer = solve_slots(
            problem,
            None if start.excess else start.placement,
            _scales(start.schedule, best.schedule),
            latency_bound(problem, 10_000, self._until(0.75)).seconds,
            rounds,
            Limits(self.limits.work, self._seconds_to_search(), self.limits.seed, self.limits.gap),
        )
        if answer.placement is not None:
            found = judge(self.problem, coarse.expand(answer.placement))
            again = carve(self.problem, found.placement.place)
            best = min(best, found, again, key=self._rank)
            figure = found.schedule.figure(self.objective)
            if abs(figure - answer.objective) > 10 * GAP * figure:
                # The model and the schedule disagree, so what was proven is not about this problem.
                answer = replace(answer, bound=0.0)
        self._note("cp-sat", best)
        return best, answer

    def _seconds_left(self) -> float | None:
        if self.limits.seconds is None:
            return None
        return max(self.limits.seconds - (time.perf_counter() - self.began), 0.01)

    def _until(self, part: float) -> float:
        """When a part of the time limit has passed, by `time.perf_counter`."""
        return float("inf") if self.limits.seconds is None else self.began + part * self.limits.seconds

    def _until_bounded(self) -> float:
        """When the bound should be there, by `time.perf_counter`."""
        if self.objective != "throughput" or self.limits.seconds is None:
            return self._until(0.5)
        wanted = max(self._until(0.4), time.perf_counter() + _BOUNDED * self.limits.seconds)
        return min(wanted, self._until(_BOUND_ENDS))

    def _seconds_to_search(self) -> float | None:
        """What is left, less what is kept for evening out a pipeline, or annealing a latency, at the end."""
        left = self._seconds_left()
        kept = 1 - _SEARCHED if self.objective == "throughput" else _SINGLE
        few = len(self.problem.nodes) <= self.group_limit
        if left is None or self.limits.seconds is None or few:
            return left
        return max(left - kept * self.limits.seconds, 0.01)

    def _none_found(self, best: Found) -> InfeasibleError:
        """The limits in conflict, where that is proven; else what the best placement so far breaks."""
        found = conflict_of(self.asked)
        if found is not None:
            return found
        broken = violations(self.problem, best.placement, best.schedule)
        return InfeasibleError(
            "none found: no placement that keeps all limits was found within the "
            f"{'work' if self.limits.seconds is None else 'time'} limit; the best so far breaks: "
            + "; ".join(text for _, text in broken),
            hint="allow more time (--time-limit), or loosen a pin, a share or a bound",
        )

    def _solution(self, best: Found, bound: float, groups: int, answer: Answer | None) -> Solution:
        figure = best.schedule.figure(self.objective)
        return Solution(
            best.placement,
            simulate(self.problem, best.placement),
            figure,
            min(bound, figure),
            status_of(figure, bound, 0.0 if answer is None else answer.bound),
            time.perf_counter() - self.began,
            groups,
            0 if answer is None else answer.slots,
            None if answer is None else answer.bound,
            self.steps,
        )


def status_of(figure: float, bound: float, group_bound: float) -> str:
    """The status of a placement: `group_bound` is what was proven for groups and so many segments.

    A placement that is better than any of groups is `feasible`: nothing was proven of the like.
    """
    if figure - bound <= GAP * figure:
        return "optimal"
    return "optimal-for-groups" if abs(figure - group_bound) <= 2 * GAP * group_bound else "feasible"


def _projected(coarse: Coarse, place: tuple[int, ...]) -> tuple[int, ...]:
    """The place of most seconds in each group, among those that the group takes."""
    chosen: list[int] = []
    for group, allowed in zip(coarse.groups, coarse.problem.allowed, strict=True):
        votes = {p: sum(1 for node in group if place[node] == p) for p in allowed}
        chosen.append(max(sorted(votes), key=lambda p: votes[p]))
    return tuple(chosen)


def _scales(*schedules: Schedule) -> dict[Objective, float]:
    """Values of each objective that set the resolution of the integers."""
    scales: dict[Objective, float] = {}
    for objective in OBJECTIVES:
        known = [s.figure(objective) for s in schedules if 0 < s.figure(objective) < float("inf")]
        scales[objective] = max(known, default=1.0)
    return scales
