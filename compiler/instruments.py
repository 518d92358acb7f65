"""What can be watched while passes run: how long each took, what it did, and the IR after it.

    timing = Timing()
    run_passes(module, ctx, ["cse", "dce"], [timing, DumpIr(Path("dump"))])
    print(timing.report())

An instrument is told before and after each pass. What it does itself is not counted as time of the pass.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Attribute, Operation, SSAValue

from gimlet.compiler.ir_text import module_text
from gimlet.runtime.errors import InputError


class Instrument:
    """Is told of each pass as it runs."""

    def before(self, name: str, module: ModuleOp) -> None:
        """The pass `name` is about to run on `module`."""

    def after(self, name: str, module: ModuleOp, pass_s: float, verify_s: float) -> None:
        """The pass `name` has run, in `pass_s` seconds, and its result was verified, in `verify_s`."""

    def report(self) -> str:
        """What was found out, as text that ends in a newline; empty where there is nothing to print."""
        return ""


def observe(
    name: str,
    module: ModuleOp,
    act: Callable[[], object],
    verify: Callable[[], object],
    instruments: Sequence[Instrument] = (),
) -> None:
    """Does what the pass `name` does, verifies its result, and tells the instruments."""
    for instrument in instruments:
        instrument.before(name, module)
    started = time.perf_counter()
    act()
    applied = time.perf_counter()
    verify()
    verified = time.perf_counter()
    for instrument in instruments:
        instrument.after(name, module, applied - started, verified - applied)


@dataclass
class PassTime:
    """What one run of a pass took, and how many operations there were before and after it."""

    name: str
    pass_s: float
    verify_s: float
    ops_before: int
    ops_after: int


@dataclass
class Timing(Instrument):
    """Seconds of each pass and of the verifier after it, and the number of operations before and after."""

    rows: list[PassTime] = field(default_factory=list[PassTime])
    _ops: int = 0

    def before(self, name: str, module: ModuleOp) -> None:
        del name
        self._ops = _count(module)

    def after(self, name: str, module: ModuleOp, pass_s: float, verify_s: float) -> None:
        self.rows.append(PassTime(name, pass_s, verify_s, self._ops, _count(module)))

    def report(self) -> str:
        total = sum(row.pass_s + row.verify_s for row in self.rows)
        lines = [("pass", "seconds", "share", "verify s", "ops before", "ops after")]
        for row in self.rows:
            share = row.pass_s / total if total else 0.0
            figures = f"{row.pass_s:.4f}", f"{share:.1%}", f"{row.verify_s:.4f}"
            lines.append((row.name, *figures, str(row.ops_before), str(row.ops_after)))
        passes, verifier = sum(row.pass_s for row in self.rows), sum(row.verify_s for row in self.rows)
        lines.append(("total", f"{passes:.4f}", "", f"{verifier:.4f}", "", ""))
        return _table(lines)


@dataclass(frozen=True)
class _Snapshot:
    """An operation as it was: its name, operands, attributes and types. It keeps the operation alive, so that no new
    one gets its identity."""

    op: Operation
    operands: tuple[SSAValue, ...]
    attributes: dict[str, Attribute]
    types: tuple[Attribute, ...]

    @staticmethod
    def of(op: Operation) -> _Snapshot:
        types = tuple(value.type for value in op.results)
        inside = tuple(arg.type for region in op.regions for block in region.blocks for arg in block.args)
        return _Snapshot(op, tuple(op.operands), {**op.properties, **op.attributes}, types + inside)


@dataclass
class Statistics(Instrument):
    """What each pass did: the operations that it made, erased and changed in place, by their names."""

    rows: list[tuple[str, Counter[str], Counter[str], Counter[str]]] = field(
        default_factory=list[tuple[str, Counter[str], Counter[str], Counter[str]]]
    )
    _before: dict[int, _Snapshot] = field(default_factory=dict[int, _Snapshot])

    def before(self, name: str, module: ModuleOp) -> None:
        del name
        self._before = {id(op): _Snapshot.of(op) for op in module.walk()}

    def after(self, name: str, module: ModuleOp, pass_s: float, verify_s: float) -> None:
        del pass_s, verify_s
        made, changed, kept = Counter[str](), Counter[str](), set[int]()
        for op in module.walk():
            old = self._before.get(id(op))
            if old is None:
                made[op.name] += 1
                continue
            kept.add(id(op))
            if old != _Snapshot.of(op):
                changed[op.name] += 1
        erased = Counter(old.op.name for key, old in self._before.items() if key not in kept)
        self._before = {}
        self.rows.append((name, made, erased, changed))

    def report(self) -> str:
        lines: list[str] = []
        for name, made, erased, changed in self.rows:
            if not (made or erased or changed):
                lines.append(f"{name}: nothing")
                continue
            lines.append(f"{name}: {made.total()} made, {erased.total()} erased, {changed.total()} changed")
            for what, counts in (("made", made), ("erased", erased), ("changed", changed)):
                lines += [f"  {what} {count} {op}" for op, count in sorted(counts.items())]
        return "".join(f"{line}\n" for line in lines)


@dataclass
class DumpIr(Instrument):
    """Writes the IR before the first pass and after each into a folder, as `00-input.mlir`, `01-cse.mlir`, …

    With `only_changed` a pass that changed nothing leaves no file; its number is left out.
    """

    folder: Path
    only_changed: bool = False
    _number: int = 0
    _last: str = ""

    def before(self, name: str, module: ModuleOp) -> None:
        del name
        if self._number == 0:
            self.write("input", module)

    def after(self, name: str, module: ModuleOp, pass_s: float, verify_s: float) -> None:
        del pass_s, verify_s
        self.write(name, module)

    def write(self, name: str, module: ModuleOp) -> None:
        """Writes the next file. InputError where it cannot be."""
        path = self.folder / f"{self._number:02}-{name}.mlir"
        self._number += 1
        text = module_text(module)
        if self.only_changed and text == self._last:
            return
        self._last = text if self.only_changed else ""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except OSError as error:
            raise InputError(f"the IR cannot be written: {error.strerror or error}", where=str(path)) from error


def _count(module: ModuleOp) -> int:
    return sum(1 for _ in module.walk()) - 1


def _table(lines: Sequence[Iterable[str]]) -> str:
    """Columns of text, the first to the left and the others to the right."""
    rows = [tuple(line) for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    text = [
        "  ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return "".join(f"{line.rstrip()}\n" for line in text)
