"""Linear programs in Glop, the solver of or-tools for these."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from ortools.linear_solver import pywraplp

_PARAMETERS = ("", "use_preprocessing: false")


def solved(solver: Any, until: float = float("inf")) -> int:
    """Solves a program of Glop and returns `pywraplp`'s status, `NOT_SOLVED` at `until` (of `time.perf_counter`).

    What presolve makes of a program is now and then one whose numbers Glop gives up on (ABNORMAL), where the program
    itself is an easy one: the bound of a traced decode step, of 8,477 variables, was lost by it. So it is then solved
    as it is.
    """
    status = int(pywraplp.Solver.NOT_SOLVED)
    for parameters in _PARAMETERS:
        left = until - perf_counter()
        if left <= 0:
            return int(pywraplp.Solver.NOT_SOLVED)
        if left < float("inf"):
            solver.SetTimeLimit(max(int(left * 1000), 1))
        solver.SetSolverSpecificParametersAsString(parameters)
        status = int(solver.Solve())
        if status != pywraplp.Solver.ABNORMAL:
            break
    return status
