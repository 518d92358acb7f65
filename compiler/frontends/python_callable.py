"""Models that a Python function makes: `package.module:callable`.

The callable takes nothing and returns an `nn.Module` (or anything else that is a source), or a tuple that starts with
one: `(module, args)`, `(module, args, kwargs)` or `(module, args, kwargs, dynamic_shapes)`, as `torch.export` has them.
"""

from __future__ import annotations

import re
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from gimlet.dialects.onnx.provenance import relative_path
from gimlet.runtime.errors import GimletError, InputError, UsageError

_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_MOST_PARTS = 4


def looks_like_callable(source: str) -> bool:
    """Whether a source is spelled `package.module:callable`."""
    return _CALLABLE.fullmatch(source) is not None and not Path(source).exists()


def call_factory(source: str) -> tuple[Any, Any, Any, Any]:
    """Calls `package.module:callable`: the model, args, kwargs and dynamic shapes. UsageError if it does not exist.

    Modules are looked up in the working directory too. InputError, with the line, where the module or the callable
    raises something.
    """
    module_name, _, attribute = source.partition(":")
    found: Any = _import(module_name, source)
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise UsageError(f"{module_name} has no {attribute!r}", where=source, hint="check the name after the colon")
        found = getattr(found, name)
    if not callable(found):
        raise UsageError(f"{attribute} is not a function", where=source, hint="it must return the model")
    try:
        made = found()
    except GimletError:
        raise
    except Exception as error:
        raise _failed(error, f"{attribute}()", module_name, source) from error
    parts = made if isinstance(made, tuple) else (made,)
    if not 1 <= len(parts) <= _MOST_PARTS:
        raise UsageError(
            f"it returned {len(parts)} values", where=source, hint="return model, args, kwargs and dynamic_shapes"
        )
    model, args, kwargs, dynamic_shapes = (*parts, *[None] * (_MOST_PARTS - len(parts)))
    return model, args, kwargs, dynamic_shapes


def _failed(error: Exception, what: str, module: str, source: str) -> InputError:
    """What the user's own code raised, with the innermost line of theirs."""
    file = getattr(sys.modules.get(module), "__file__", None)
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    # Of a module that does not parse there is no frame, and the error says the line itself.
    line = f" at {relative_path(own[-1].filename)}:{own[-1].lineno}" if own else ""
    message = f"{what} failed{line}: {type(error).__name__}: {error}"
    return InputError(message, where=source, hint="it is the model's own code: call it in Python to see more")


def _import(name: str, source: str) -> Any:
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise UsageError(
                f"{name} needs the package {error.name!r}", where=source, hint=f"pip install {error.name}"
            ) from error
        raise UsageError(f"there is no module {name!r}", where=source, hint="is it on the Python path?") from error
    except Exception as error:
        raise _failed(error, f"import {name}", name, source) from error
    finally:
        if added:
            sys.path.remove(here)
