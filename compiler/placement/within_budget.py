"""Solves a problem under a budget for what number formats lose, and checks the answer as a whole.

Losses of single ops add by their squares only if they are independent. So a placement is run with all its roundings at
once; where it loses more than its ops' losses add up to, these are scaled by as much, and where it is above the budget
the problem is solved again with them. The last round takes places only that lose nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Final

from gimlet.compiler.losses.model import LossModel
from gimlet.compiler.placement.exact.cpsat import Limits
from gimlet.compiler.placement.model.problem import Problem
from gimlet.compiler.placement.model.schedule import LOSS_TOLERANCE, loss_of
from gimlet.compiler.placement.solve import Solution, solve
from gimlet.runtime.errors import InfeasibleError, UsageError

_ROUNDS: Final = 5
_MARGIN: Final = 1.02


@dataclass(frozen=True)
class Loss:
    """What a placement loses (relative L2 of the worst output): the budget, what its ops add up to, and measured."""

    budget: float
    expected: float
    measured: float
    inputs: str


def check_budget(budget: float | None) -> None:
    """UsageError for a budget that is no relative error."""
    if budget is not None and not 0 <= budget < float("inf"):
        raise UsageError(
            f"{budget} is no budget for losses",
            where="--loss-budget",
            hint="write a relative error (L2) of the outputs, such as 0.01 or 1%",
        )


def solve_within(problem: Problem, limits: Limits, model: LossModel) -> tuple[Problem, Solution, Loss]:
    """The problem with the losses that it was solved with in the end, the answer, and what it loses.

    A time limit is for all rounds together: each takes at most half of what is left. InfeasibleError where there is no
    placement within the budget.
    """
    budget = problem.rules.loss_budget or 0.0
    began = time.perf_counter()
    for _ in range(_ROUNDS):
        solution = solve(problem, _half(limits, began))
        place = solution.placement.place
        expected, measured = loss_of(problem, place), model.loss_of(place)
        if measured > expected:
            problem = scaled(problem, _MARGIN * measured / expected) if expected else without_losses(problem)
        if measured <= budget * (1 + LOSS_TOLERANCE):
            return problem, solution, Loss(budget, loss_of(problem, place), measured, model.inputs_text)
    problem = without_losses(problem)
    solution = solve(problem, _half(limits, began))
    measured = model.loss_of(solution.placement.place)
    return problem, solution, Loss(budget, 0.0, measured, model.inputs_text)


def _half(limits: Limits, began: float) -> Limits:
    """Limits with half of the seconds that are left since `began`."""
    if limits.seconds is None:
        return limits
    return replace(limits, seconds=max((limits.seconds - (time.perf_counter() - began)) / 2, 0.01))


def checked(problem: Problem, place: tuple[int, ...], model: LossModel) -> Loss:
    """What a given placement loses. InfeasibleError where that is above the budget."""
    budget, measured = problem.rules.loss_budget or 0.0, model.loss_of(place)
    if measured > budget * (1 + LOSS_TOLERANCE):
        raise InfeasibleError(
            f"the placement that was given loses {measured:.3g}, and the budget is {budget:g}",
            hint="allow more, or put some of its ops into another format",
        )
    return Loss(budget, loss_of(problem, place), measured, model.inputs_text)


def scaled(problem: Problem, factor: float) -> Problem:
    """The problem with all losses multiplied."""
    nodes = tuple(
        replace(
            node,
            options={p: replace(option, loss=option.loss * factor) for p, option in node.options.items()},
        )
        for node in problem.nodes
    )
    return replace(problem, nodes=nodes)


def without_losses(problem: Problem) -> Problem:
    """The problem with a budget that only places without any loss keep."""
    return problem.with_rules(replace(problem.rules, loss_budget=0.0))
