"""Shrinks IR while something that was seen in it can still be seen.

    reduced = Reducer(lambda text: "onnx.Relu" in text).reduce(module)

The reducer makes edits, of one kind after another, in halves, quarters, and so on down to single ones, and keeps what
verifies and is still interesting. It starts over until no edit of any kind is of use. Each text is tested once; the
order is fixed, so that the result is the same whenever the test's answers are. No library that we know shrinks MLIR:
C-Reduce's kind (shrinkray, picire) edits text, of which next to nothing is IR any more.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from xdsl.dialects.builtin import ModuleOp, UnknownLoc
from xdsl.ir import Operation
from xdsl.utils.exceptions import DiagnosticException

from gimlet.compiler.diagnostics import BUGS
from gimlet.compiler.ir_text import module_text
from gimlet.compiler.workbench.reduction_edits import EDITS, Edit
from gimlet.runtime.errors import CheckError

Size = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class _State:
    """A module, its text, and how large it is."""

    module: ModuleOp
    text: str
    size: Size

    @staticmethod
    def of(module: ModuleOp) -> _State | None:
        """None for IR that is so broken that it has no text."""
        try:
            text = module_text(module)
        except BUGS:
            return None
        return _State(module, text, size_of(module, text))


class _OutOfTimeError(Exception):
    """The time limit has passed: what was found so far is the answer."""


@dataclass
class Reducer:
    """One reduction. `interesting` is asked about the text of a module; `report` is told of each step that helped.

    Only IR that verifies is tested, unless `allow_invalid`. `tests` counts the questions asked, `complete` says whether
    the reduction came to its end within `time_limit_s`. `keep` is called with every text that is smaller than the last.
    """

    interesting: Callable[[str], bool]
    allow_invalid: bool = False
    time_limit_s: float | None = None
    report: Callable[[str], None] = field(default=lambda line: None)
    keep: Callable[[str], None] = field(default=lambda text: None)
    tests: int = 0
    complete: bool = False
    _answers: dict[bytes, bool] = field(default_factory=dict[bytes, bool])
    _deadline: float = float("inf")
    _best: _State = field(init=False)

    def reduce(self, module: ModuleOp) -> ModuleOp:
        """The smallest module that was found. CheckError where the given one is not interesting to begin with."""
        self.complete = False
        if self.time_limit_s is not None:
            self._deadline = time.monotonic() + self.time_limit_s
        best = _State.of(module.clone())
        if best is None or not self._holds(best):
            raise CheckError(
                "the test does not hold for the input, so there is nothing to keep while it shrinks",
                hint="the test has to exit with 0 on IR that shows the problem, and with another code on other IR",
            )
        self._best = best
        try:
            while self._round():
                pass
            self.complete = True
        except _OutOfTimeError:
            self.report("the time limit has passed")
        return self._best.module

    def _round(self) -> bool:
        """Tries every kind of edit once. Whether one of them was of use."""
        before = self._best
        for edits in EDITS:
            start, tests = self._best, self.tests
            self._shrink(edits)
            if self._best is not start:
                name, ops = edits.__name__.replace("_", " "), (start.size[0], self._best.size[0])
                self.report(f"{name}: {ops[0]} ops, then {ops[1]} ({self.tests - tests} tests)")
        return self._best is not before

    def _shrink(self, edits: Callable[[ModuleOp], list[Edit]]) -> None:
        """Makes edits of one kind in ever smaller groups, down to single ones."""
        count = len(edits(self._best.module))
        group = count
        while group:
            end = count
            while end > 0:
                self._try(edits, max(end - group, 0), end)
                end -= group
            count = len(edits(self._best.module))
            group = min(group, count) // 2

    def _try(self, edits: Callable[[ModuleOp], list[Edit]], start: int, end: int) -> None:
        """Makes the edits from `start` to before `end`, and keeps what is smaller, valid and interesting."""
        module = self._best.module.clone()
        for edit in reversed(edits(module)[start:end]):
            edit()
        if not self.allow_invalid and not is_valid(module):
            return
        found = _State.of(module)
        if found is not None and found.size < self._best.size and self._holds(found):
            self._best = found
            self.keep(found.text)

    def _holds(self, state: _State) -> bool:
        if time.monotonic() > self._deadline:
            raise _OutOfTimeError
        key = hashlib.sha256(state.text.encode()).digest()
        if key not in self._answers:
            self.tests += 1
            self._answers[key] = self.interesting(state.text)
        return self._answers[key]


def size_of(module: ModuleOp, text: str) -> Size:
    """How large a module is, the most telling first: operations, values and their uses, attributes, uses of what an
    operation computes, characters."""
    ops = values = attributes = computed = 0
    for op in module.walk():
        ops += 1
        values += len(op.operands) + len(op.results) + sum(len(b.args) for region in op.regions for b in region.blocks)
        attributes += len(op.properties) + len(op.attributes) + (not isinstance(op.location, UnknownLoc))
        computed += sum(isinstance(value.owner, Operation) for value in op.operands)
    return ops - 1, values, attributes, computed, len(text)


def is_valid(module: ModuleOp) -> bool:
    """Whether the module verifies."""
    try:
        module.verify()
    except (DiagnosticException, *BUGS):
        return False
    return True
