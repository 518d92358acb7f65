"""The compiler's own phases take work in proportion to the number of ops. Calls are counted, not time."""

import gc
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest
from synthetic_graph import transformer

from gimlet.compiler.api import start
from gimlet.compiler.collection import rare_collection
from gimlet.compiler.compile import Compilation
from gimlet.compiler.hardware import default_topology
from gimlet.compiler.instruments import module_text
from gimlet.compiler.options import CompileOptions
from gimlet.compiler.progress import Progress
from gimlet.compiler.sources import open_source
from gimlet.targets.api import DimBound

BINDINGS = {"batch": DimBound(1, 1, 8), "length": DimBound(1, 128, 512)}
SMALL, FACTOR = 160, 3


def calls_in(work: Callable[[], Any]) -> int:
    """How many calls of Python and C functions `work` makes."""
    count = 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def imported(ops: int) -> Compilation:
    options = CompileOptions(topology=default_topology(), bindings=BINDINGS)
    return start(open_source(transformer(ops)), options, Progress(quiet=True))


def calls_an_op(ops: int) -> dict[str, float]:
    """Calls an op by phase, for a model of at least `ops` nodes."""
    model = transformer(ops)
    nodes = len(list(model.graph))
    made: list[Compilation] = []
    counts = {"import": calls_in(lambda: made.append(imported(nodes)))}
    for phase in ("normalize", "annotate", "place", "split"):
        counts[phase] = calls_in(partial(made[0].run_to, phase))
    counts["print"] = calls_in(lambda: module_text(made[0].module))
    return {name: count / nodes for name, count in counts.items()}


@pytest.fixture(scope="module")
def counts() -> tuple[dict[str, float], dict[str, float]]:
    """Those of a small model, and of one of three times its size."""
    imported(100).run_to("split")
    return calls_an_op(SMALL), calls_an_op(SMALL * FACTOR)


@pytest.mark.parametrize("phase", ["import", "normalize", "annotate", "place", "split", "print"])
def test_an_op_takes_as_many_calls_in_a_large_model_as_in_a_small_one(
    phase: str, counts: tuple[dict[str, float], dict[str, float]]
):
    small, large = counts
    assert large[phase] < 1.2 * small[phase]


def test_the_collector_is_as_it_was_afterwards():
    before = gc.get_threshold()
    with rare_collection():
        assert gc.get_threshold()[0] > before[0]
    assert gc.get_threshold() == before


def test_a_collector_that_is_off_stays_off():
    before = gc.get_threshold()
    gc.set_threshold(0)
    try:
        with rare_collection():
            assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)
