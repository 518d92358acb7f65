"""Linear programs that Glop gives up on are solved once more, without presolve."""

from __future__ import annotations

from time import perf_counter

from ortools.linear_solver import pywraplp

from gimlet.compiler.placement.bounds.linear import solved


class GivesUp:
    """Stands for Glop on a program that is too large for a test: it gives up as often as it is told to."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.parameters: list[str] = []

    def SetSolverSpecificParametersAsString(self, parameters: str) -> None:  # noqa: N802
        self.parameters.append(parameters)

    def Solve(self) -> int:  # noqa: N802
        self.times -= 1
        return pywraplp.Solver.ABNORMAL if self.times >= 0 else pywraplp.Solver.OPTIMAL


def test_a_program_is_solved():
    solver = pywraplp.Solver.CreateSolver("GLOP")
    x = solver.NumVar(0, 3, "x")
    solver.Maximize(x)
    assert solved(solver) == pywraplp.Solver.OPTIMAL
    assert x.solution_value() == 3
    solver.Add(x >= 4)
    assert solved(solver, perf_counter() + 60) == pywraplp.Solver.INFEASIBLE


def test_one_that_is_given_up_is_solved_without_presolve():
    solver = GivesUp(1)
    assert solved(solver) == pywraplp.Solver.OPTIMAL
    assert solver.parameters == ["", "use_preprocessing: false"]
    assert solved(GivesUp(2)) == pywraplp.Solver.ABNORMAL


def test_no_time_is_no_solution():
    solver = GivesUp(0)
    assert solved(solver, perf_counter() - 1) == pywraplp.Solver.NOT_SOLVED
    assert not solver.parameters
