"""gimlet-compile: one workload over many vendors' silicon.

    bundle = gimlet.compile(model, args, topology="rack.toml", output="m.gimlet")
    program = gimlet.load("m.gimlet")
    outputs = program(x=array)

Nothing is imported before it is used: `gimlet.load` needs numpy and the runtimes of the bundle's segments, and
`gimlet.compile` the compiler.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gimlet.compiler.api import compile
    from gimlet.runtime import Program, load

__version__ = "0.1.0"
__all__ = ["Program", "__version__", "compile", "load"]

_LAZY = {"compile": "gimlet.compiler.api", "load": "gimlet.runtime", "Program": "gimlet.runtime"}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _LAZY:
        raise AttributeError(f"module 'gimlet' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
