"""A problem that was saved is the same problem, through the file and through the commands."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gimlet.compiler.placement.model.problem import OBJECTIVES, Objective, Place, Problem, Rules, Value
from gimlet.compiler.placement.model.saved_problem import loaded_problem, save_problem
from gimlet.compiler.placement.solve import solve
from gimlet.runtime.errors import InputError
from gimlet.tools.gimlet_place import main

RULES = Rules(
    "energy",
    bounds={"latency": 1e3 / 3},
    pins={1: frozenset({0, 1}), 0: frozenset({0})},
    together=((0, 2),),
    apart=(((1,), (3,)),),
    min_share={1: 0.1},
    max_segments=7,
    loss_budget=0.3,
)


@given(seed=st.integers(0, 10_000), memory=st.booleans())
def test_nothing_is_lost(
    random_problem: Callable[..., Problem], tmp_path_factory: pytest.TempPathFactory, seed: int, memory: bool
):
    problem = random_problem(seed, 4, 2, memory=memory).with_rules(RULES)
    shown = Value("shown", 3, 0, (1,), cast_bytes=2, gather_s={1: 0.1})
    places = (*problem.places, Place(1, "second", "bf16", "measured", 0.25, 1e-12))
    problem = replace(problem, places=places, values=(*problem.values, shown), notes=("so many",))
    path = tmp_path_factory.mktemp("saved") / "p.json"
    save_problem(path, problem)
    assert loaded_problem(json.loads(path.read_text()), path) == problem


def place(capsys: pytest.CaptureFixture[str], *args: str | Path) -> dict[str, Any]:
    with pytest.raises(SystemExit):
        main([*(str(arg) for arg in args), "--json"])
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_has_the_same_answer(
    random_problem: Callable[..., Problem], tmp_path: Path, capsys: pytest.CaptureFixture[str], objective: Objective
):
    problem = random_problem(5, 6, 3, objective, memory=True)
    path = tmp_path / "p.json"
    save_problem(path, problem)
    found, again = solve(problem), place(capsys, path)
    assert (again["kind"], again["objective"], again["bound"]) == (objective, found.objective, found.bound)
    latency = place(capsys, path, "--objective", "latency")
    assert latency["objective"] == solve(problem.with_rules(Rules("latency"))).objective


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"schema": 2, "problem": {}}, "the problem has schema 2, not 1"),
        ({"schema": 1, "problem": {"places": []}}, "is no problem that was saved: devices"),
        ({"schema": 1, "problem": []}, "is no problem that was saved"),
        ({"schema": 1, "problem": {"routes": [3]}}, "is no problem that was saved"),
    ],
)
def test_what_is_no_problem_is_refused(data: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        loaded_problem(data, Path("p.json"))
