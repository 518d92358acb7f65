"""The passes that gimlet-opt has, as their docstrings describe them."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping

from xdsl.passes import ModulePass, get_pass_option_infos

from gimlet.runtime.errors import UsageError

Factories = Mapping[str, Callable[[], type[ModulePass]]]
_WIDTH = 100


def pass_list(factories: Factories, own: Iterable[str]) -> str:
    """Every pass with its options and its first sentence: `own` in their order, then the others by name."""
    first = [name for name in own if name in factories]
    others = sorted(factories.keys() - set(first))
    sections = [
        f"{title}\n\n" + "\n".join(_entry(name, factories[name]()) for name in names)
        for title, names in (("gimlet's passes", first), ("passes of xDSL and of other packages", others))
        if names
    ]
    return "\n".join(sections)


def pass_page(factories: Factories, name: str) -> str:
    """All that one pass says about itself. UsageError where there is none of that name."""
    if name not in factories:
        raise UsageError(f"there is no pass {name!r}", where="--list-passes", hint="without a name it lists them all")
    found = factories[name]()
    return f"{name}{_options(found)}\n\n{textwrap.indent(_docstring(found), '  ')}\n"


def _entry(name: str, found: type[ModulePass]) -> str:
    first = re.split(r"(?<=[.:])\s", _docstring(found), maxsplit=1)[0].rstrip(":")
    lines = textwrap.wrap(" ".join(first.split()), _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return "".join(f"{line}\n" for line in (f"  {name}{_options(found)}", *lines))


def _options(found: type[ModulePass]) -> str:
    options: list[str] = []
    for option in get_pass_option_infos(found):
        # The annotations of a file with postponed evaluation are texts.
        spelled = f"{option.name.replace('_', '-')}: " + option.expected_type.strip("'")
        options.append(spelled if option.default_value is None else f"{spelled} = {option.default_value}")
    return f"{{{', '.join(options)}}}" if options else ""


def _docstring(found: type[ModulePass]) -> str:
    """The class's own docstring: not its base's, and not the signature that a dataclass without one gets."""
    text = inspect.cleandoc(vars(found).get("__doc__") or "")
    return "" if text.startswith(f"{found.__name__}(") else text
