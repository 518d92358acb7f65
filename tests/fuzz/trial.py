"""What a mutant goes through, and what may come of it: success, or one of our errors with a message."""

from __future__ import annotations

import contextlib
import io
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from tests.onnx_suite.stages import exported, parse, text_of

from gimlet.compiler.frontends import load
from gimlet.compiler.pipeline import FUSE, NORMALIZE, run_passes
from gimlet.compiler.sources import load_dialects
from gimlet.dialects.context import GimletContext
from gimlet.runtime.errors import GimletError
from gimlet.tools import gimlet_opt

FINE = "fine"
REFUSED = "refused"
LIMIT_S = 20
_LINES_OF_A_TRACE = 12
_PASSES = b"// "


class TooLongError(Exception):
    """A mutant took longer than it may."""


def try_model(path: Path) -> str:
    """The outcome of a model up to its costs, and exported. All but `FINE` and `REFUSED` is a mistake of ours."""
    return _outcome(lambda: _model(path))


def try_text(path: Path) -> str:
    """The outcome of IR that gimlet-opt reads, verifies, runs the passes on that its first line names, and prints."""
    return _outcome(lambda: _text(path))


def _model(path: Path) -> str:
    ctx = GimletContext()
    load_dialects(ctx)
    module = load(path, ctx=ctx)
    parse(text_of(module), ctx)
    exported(module, ctx)
    run_passes(module, ctx, [*NORMALIZE, *FUSE, "annotate-costs", "restore-parts"])
    exported(module, ctx)
    return FINE


def _text(path: Path) -> str:
    first = path.read_bytes().split(b"\n", 1)[0]
    passes = first.removeprefix(_PASSES).strip().decode() if first.startswith(_PASSES) else ""
    try:
        gimlet_opt.main([str(path), "-p", passes])
    except SystemExit as stop:
        return {0: FINE, None: FINE, 1: REFUSED, 2: REFUSED}.get(stop.code, f"exit code {stop.code}")
    return FINE


def _outcome(trial: Callable[[], str]) -> str:
    with warnings.catch_warnings(), _limit(), contextlib.redirect_stdout(io.StringIO()) as out:
        warnings.simplefilter("ignore")
        with contextlib.redirect_stderr(io.StringIO()) as err:
            try:
                found = trial()
            except GimletError as error:
                return REFUSED if str(error).strip() else "an error without a message"
            except Exception as error:  # that nothing else comes out is what is tested
                last = traceback.format_exception(error)[-_LINES_OF_A_TRACE:]
                return f"{type(error).__name__}: {error}\n{''.join(last)}"
    said = out.getvalue() + err.getvalue()
    return found if found in (FINE, REFUSED) and "Traceback" not in said else f"{found}\n{said}"


@contextlib.contextmanager
def _limit() -> Iterator[None]:
    """Processor time, so that a busy machine is no mistake."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLongError(f"more than {LIMIT_S} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
