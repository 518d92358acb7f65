"""A placement problem in a file exactly as the solver gets it, so that it can be solved again after costs have changed.

    {"schema": 1, "problem": {fields of `Problem`}}

Every field of `problem.py` is there by its own name, indices included; routes are a list of [from, to, route]. The
format for problems that people write is that of `problem_json.py`.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gimlet.compiler.placement.model.problem import Problem
from gimlet.runtime.errors import InputError

SCHEMA = 1


def save_problem(path: Path, problem: Problem) -> None:
    """Writes a problem, with its rules, for `loaded_problem`."""
    routes = [[*ends, route] for ends, route in problem.routes.items()]
    fields = {name: getattr(problem, name) for name in problem.__dataclass_fields__} | {"routes": routes}
    text = json.dumps({"schema": SCHEMA, "problem": _plain().dump_python(fields, mode="json")}, separators=(",", ":"))
    path.write_text(text + "\n", encoding="utf-8")


def loaded_problem(data: dict[str, Any], path: Path) -> Problem:
    """The problem in a file's object. InputError, with the field, where it is none."""
    if data.get("schema") != SCHEMA:
        raise InputError(f"the problem has schema {data.get('schema')!r}, not {SCHEMA}", where=str(path))
    try:
        fields = _plain().validate_python(data["problem"])
        routes = {(source, destination): route for source, destination, route in fields.get("routes", ())}
        return _typed().validate_python({**fields, "routes": routes})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        what = f"{field}: {first['msg']}" if field else first["msg"]
        raise InputError(f"is no problem that was saved: {what}", where=str(path)) from error
    except (TypeError, ValueError) as error:
        raise InputError(f"is no problem that was saved: {error}", where=str(path)) from error


@cache
def _typed() -> TypeAdapter[Problem]:
    return TypeAdapter(Problem)


@cache
def _plain() -> TypeAdapter[dict[str, Any]]:
    return TypeAdapter(dict[str, Any])
