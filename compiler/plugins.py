"""Passes and dialects from a Python file, so that one can be tried without a package around it.

What a distribution adds it declares in the entry-point group `xdsl.universe`; nothing of it has to be named here.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from xdsl.ir import Dialect
from xdsl.passes import ModulePass

from gimlet.runtime.errors import InputError, UsageError


@dataclass(frozen=True)
class Plugin:
    """What a Python file defines: its passes and its dialects, by their names."""

    passes: dict[str, type[ModulePass]]
    dialects: dict[str, Dialect]


def load_plugin(path: Path) -> Plugin:
    """Runs a Python file and returns the passes and dialects that it defines.

    UsageError where there is no such file or nothing in it to use, InputError where it fails when it runs.
    """
    if not path.is_file():
        raise UsageError("there is no such file", where=str(path), hint="give the .py file of a pass or a dialect")
    module = _run(path)
    found = list(vars(module).values())
    passes = {
        item.name: item
        for item in found
        if isinstance(item, type) and issubclass(item, ModulePass) and item.__module__ == module.__name__
    }
    dialects = {item.name: item for item in found if isinstance(item, Dialect) and _defined_in(item, module)}
    if not passes and not dialects:
        raise UsageError("the file defines no pass and no dialect", where=str(path))
    return Plugin(passes, dialects)


def _run(path: Path) -> ModuleType:
    name = f"gimlet_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError("this is no Python file", where=str(path))
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up while they are made.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"it fails when it is loaded: {type(error).__name__}: {error}", where=str(path)) from error
    return module


def _defined_in(dialect: Dialect, module: ModuleType) -> bool:
    """Whether a dialect is the module's own: one of its classes is, and not only imported there."""
    return any(item.__module__ == module.__name__ for item in (*dialect.operations, *dialect.attributes))
