"""A lower bound on latency with least shares of FLOPs, by an integer program over the joints.

The graph is seen as in `latency_bound`: joints in a row, blocks between them. A way is a flow of one from joint to
joint over their places; the seconds of each step are those of its block, and the FLOPs of joints add up to the shares.
Places of joints are integers, so that an op counts for one device; the multipliers of `relaxed_bound` give what the
linear program would, which splits the few large ops that shares are made of. FLOPs inside of blocks, and of nodes that
were left out to have joints at all, may go anywhere and be split. SCIP searches, and what it has proven when it stops
counts.

Cost, measured: 2 to 4 s for the first node of its search with 330 ops, four places and three shares, on a busy core.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from ortools.linear_solver import pywraplp

from gimlet.compiler.placement.bounds.block_bound import BlockTable, Ends, solve_block
from gimlet.compiler.placement.bounds.latency_bound import LatencyRelaxation

_BUDGET = 20_000
_LARGEST_BLOCK = 24
_TOLERANCE = 1e-6
_INFINITE = float("inf")


def share_program(relaxation: LatencyRelaxation) -> float:
    """The bound in seconds; 0 where no shares are asked, or nothing was proven in time.

    Each amount of leaving out is tried for the first node of the search, which takes the same on every machine. Where
    there is a time limit, the best of them is searched further until then.
    """
    if not any(relaxation.problem.rules.min_share.values()):
        return 0.0
    choices = [c for c in range(len(relaxation.choices)) if relaxation.largest_block(c) <= _LARGEST_BLOCK]
    found: dict[int, float] = {}
    for position, choice in enumerate(choices):
        left = relaxation.until - perf_counter()
        if left > 0:
            found[choice] = _Program(relaxation, choice).solve(left / (len(choices) - position + 1), nodes=1)
    least = max(found.values(), default=0.0)
    left = relaxation.until - perf_counter()
    if 0 < left < _INFINITE and least < _INFINITE:
        least = max(least, _Program(relaxation, max(found, key=lambda choice: found[choice])).solve(left))
    return least


class _Program:
    """The program, in units of the seconds that all joints take at their best."""

    def __init__(self, relaxation: LatencyRelaxation, choice: int) -> None:
        self.problem = relaxation.problem
        self.joints = relaxation.joints(choice)
        zero = [[0.0] * len(self.problem.places) for _ in self.problem.nodes]
        self.table = BlockTable(relaxation.relaxation.seconds, self.problem, zero, _BUDGET, relaxation.until)
        self.scale = sum(min(row) for row in relaxation.relaxation.seconds) or 1.0
        self.solver: Any = pywraplp.Solver.CreateSolver("SCIP")
        total = max(self.problem.total_flops, 1.0)
        self.part = [node.flops / total for node in self.problem.nodes]
        self.given: dict[int, list[Any]] = {device: [] for device in self.problem.rules.min_share}
        self.steps: list[Any] = []

    def solve(self, seconds: float, nodes: int | None = None) -> float:
        """The bound after a search of at most so long and so many nodes; infinite where nothing keeps the shares."""
        solver = self.solver
        here: dict[int, Any] = {-1: 1.0}
        for step in range(len(self.joints.inner)):
            here = self._step(step, here)
        self._anywhere(sum(self.part[node] for node in self.joints.left_out))
        for device, share in self.problem.rules.min_share.items():
            solver.Add(solver.Sum(self.given[device]) >= share * (1 - _TOLERANCE))
        solver.Minimize(solver.Sum(self.steps))
        if nodes is not None:
            solver.SetSolverSpecificParametersAsString(f"limits/nodes = {nodes}\n")
        if seconds < _INFINITE:
            solver.SetTimeLimit(max(int(seconds * 1000), 1))
        status = solver.Solve()
        if status == pywraplp.Solver.INFEASIBLE:
            return _INFINITE
        if status not in (pywraplp.Solver.OPTIMAL, pywraplp.Solver.FEASIBLE):
            return 0.0
        return max(solver.Objective().BestBound() * self.scale * (1 - _TOLERANCE), 0.0)

    def _step(self, step: int, here: dict[int, Any]) -> dict[int, Any]:
        """Adds the ways to joint `step`; `here` says whether the joint before is on each place. Returns the same."""
        solver = self.solver
        block = self.joints.block(step)
        leaving: dict[int, list[Any]] = {start: [] for start in here}
        arriving: dict[int, list[Any]] = {end: [] for end in self.joints.ends(step)}
        for start in here:
            for end in arriving:
                taken, _ = solve_block(self.table, block, Ends(start, end))
                if taken < _INFINITE:
                    way = solver.NumVar(0, 1, "")
                    leaving[start].append(way)
                    arriving[end].append(way)
                    self.steps.append(taken / self.scale * way)
        for start, present in here.items():
            solver.Add(solver.Sum(leaving[start]) == present)
        self._anywhere(sum(self.part[node] for node in block.inner))
        following: dict[int, Any] = {}
        for end, ways in arriving.items():
            following[end] = solver.BoolVar("")
            solver.Add(following[end] == solver.Sum(ways))
            if end >= 0 and self.problem.device_of[end] in self.given:
                self.given[self.problem.device_of[end]].append(self.part[block.last] * following[end])
        return following

    def _anywhere(self, part: float) -> None:
        """Lets a part of all FLOPs go to the devices in any way."""
        if not part:
            return
        shares = [self.solver.NumVar(0, part, "") for _ in self.given]
        self.solver.Add(self.solver.Sum(shares) <= part)
        for given, share in zip(self.given.values(), shares, strict=True):
            given.append(share)
