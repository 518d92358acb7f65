"""For tests of passes: run one on a text, compare, check lines, and compare what two models compute.

    from gimlet.tools.testing import check_pass

    def test_two_equal_ops_become_one():
        check_pass(MyPass(), before="…", after="…")

A text is a whole module, or what is in one. All dialects are known that gimlet-opt knows.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import ParseError

from gimlet.compiler.ir_text import Toolbox, module_text, parse_text
from gimlet.compiler.plugins import Plugin
from gimlet.dialects.context import GimletContext
from gimlet.runtime.errors import UsageError

Ir = ModuleOp | str
Passes = ModulePass | str | Sequence[ModulePass | str]


def context(*dialects: Any) -> GimletContext:
    """A context with every dialect that gimlet-opt knows, and those given."""
    return _toolbox().with_plugin(Plugin({}, {dialect.name: dialect for dialect in dialects})).context()


@cache
def _toolbox() -> Toolbox:
    return Toolbox.of()


def parse(text: str, ctx: GimletContext | None = None) -> ModuleOp:
    """The module that a text is. UsageError where it does not parse, VerifyException where it does not verify."""
    try:
        module = parse_text(text, "test", ctx or context())
    except ParseError as error:
        raise UsageError(str(error), where="the text of a test") from error
    module.verify()
    return module


def run_pass(passes: Passes, text: Ir, ctx: GimletContext | None = None) -> ModuleOp:
    """The module after a pass, several, or a pipeline as gimlet-opt takes it. It is verified after each."""
    ctx = ctx or context()
    module = parse(text, ctx) if isinstance(text, str) else text.clone()
    for given in [passes] if isinstance(passes, ModulePass | str) else passes:
        for item in _toolbox().pipeline(given) if isinstance(given, str) else [given]:
            item.apply(ctx, module)
            module.verify()
    return module


def check_pass(passes: Passes, before: Ir, after: Ir, ctx: GimletContext | None = None) -> None:
    """Asserts that the passes turn `before` into `after`, as both are printed. AssertionError with a diff."""
    ctx = ctx or context()
    found = module_text(run_pass(passes, before, ctx))
    expected = module_text(parse(after, ctx) if isinstance(after, str) else after)
    if found != expected:
        lines = difflib.unified_diff(expected.splitlines(), found.splitlines(), "expected", "found", lineterm="", n=4)
        raise AssertionError("the pass makes something else of it:\n" + "\n".join(lines))


def filecheck(text: Ir, checks: str) -> None:
    """Asserts that a text passes the `// CHECK` lines in `checks`. AssertionError with filecheck's message.

    Needs the package `filecheck`.
    """
    from filecheck.finput import FInput
    from filecheck.matcher import Matcher
    from filecheck.options import Options
    from filecheck.parser import Parser, pattern_for_opts

    options = Options("checks")
    source = text if isinstance(text, str) else module_text(text)
    matcher = Matcher(options, FInput("text", source), Parser(options, io.StringIO(checks), *pattern_for_opts(options)))
    matcher.stderr = io.StringIO()
    if matcher.run():
        raise AssertionError(f"{matcher.stderr.getvalue()}\nin:\n{source}")


def outputs_of(
    module: Ir, inputs: Mapping[str, ArrayLike], ctx: GimletContext | None = None
) -> dict[str, NDArray[Any]]:
    """What ONNX Runtime computes for @main on the CPU, by output. The names are those of the ONNX model.

    Weights are those of `ctx`; a text can have small ones inline.
    """
    import onnxruntime as ort

    from gimlet.dialects.onnx.exporter import export_module
    from gimlet.dialects.onnx.proto import to_proto

    ctx = ctx or context()
    model = to_proto(export_module(parse(module, ctx) if isinstance(module, str) else module, ctx))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # What the model says is what is to be compared, not what the library makes of it.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    feeds = {name: np.asarray(value) for name, value in inputs.items()}
    values: list[Any] = session.run(None, feeds)  # pyright: ignore[reportAssignmentType]
    return dict(zip(names, values, strict=True))


def assert_same_outputs(
    before: Ir,
    after: Ir,
    inputs: Mapping[str, ArrayLike],
    *,
    relative: float = 1e-6,
    absolute: float = 1e-6,
    ctx: GimletContext | None = None,
) -> None:
    """Asserts that two modules compute the same of `inputs`, within the tolerances, in ONNX Runtime on the CPU.

    AssertionError names the first output that differs, in names, types, shapes or values.
    """
    first, second = outputs_of(before, inputs, ctx), outputs_of(after, inputs, ctx)
    if list(first) != list(second):
        raise AssertionError(f"the outputs are called {list(first)} before and {list(second)} after")
    for name, expected in first.items():
        found = second[name]
        if expected.dtype != found.dtype:
            raise AssertionError(f"output {name!r} is {expected.dtype} before and {found.dtype} after")
        np.testing.assert_allclose(found, expected, relative, absolute, err_msg=f"output {name!r}", strict=True)
