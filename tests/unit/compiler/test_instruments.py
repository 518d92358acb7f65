"""Passes as the driver runs them: what instruments see, and what a bug leaves behind."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from xdsl.context import Context
from xdsl.dialects import test as xdsl_test
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, StringAttr
from xdsl.ir import Block, Region
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from gimlet.compiler.api import start
from gimlet.compiler.diagnostics import CompilerBug
from gimlet.compiler.hardware import default_topology
from gimlet.compiler.instruments import DumpIr, Instrument, Statistics, Timing
from gimlet.compiler.options import CompileOptions
from gimlet.compiler.pipeline import NORMALIZE, run_passes
from gimlet.compiler.progress import Progress
from gimlet.compiler.sources import open_source
from gimlet.dialects.context import GimletContext
from gimlet.runtime.errors import InputError

MODEL = """
builtin.module attributes {onnx.dim_bounds = {batch = array<i64: 1, 2, 4>}, onnx.opsets = {"" = 21 : i64}} {
  func.func @main(%x: tensor<?x4xf32, #onnx.dims<"batch", "">>) -> tensor<?x4xf32, #onnx.dims<"batch", "">> {
    %y = onnx.Relu(%x) : (tensor<?x4xf32, #onnx.dims<"batch", "">>) -> tensor<?x4xf32, #onnx.dims<"batch", "">>
    func.return %y : tensor<?x4xf32, #onnx.dims<"batch", "">>
  }
}
"""


@dataclass(frozen=True)
class CountsPass(ModulePass):
    """Counts its runs in the module, and fails once it has been told to."""

    name = "counts"
    fails_at: ClassVar[int] = 100
    refuses: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.refuses:
            raise PassFailedException("not on this module")
        old = op.attributes.get("runs")
        runs = old.value.data + 1 if isinstance(old, IntegerAttr) else 1
        op.attributes["runs"] = IntegerAttr(runs, 64)
        if runs == CountsPass.fails_at:
            raise IndexError("too many")


@dataclass(frozen=True)
class FlakyPass(ModulePass):
    """Fails on its first run in a process only, so that no reproducer can make it fail alone."""

    name = "flaky"
    runs: ClassVar[list[int]] = []

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        self.runs.append(1)
        if len(self.runs) == 1:
            raise IndexError("the first time")


def bug(passes: list[str | ModulePass]) -> tuple[list[str], str]:
    """The arguments of the command that reproduces a bug, and the IR that it starts from."""
    module = ModuleOp([xdsl_test.TestOp(attributes={"note": StringAttr("kept")})])
    with pytest.raises(CompilerBug) as caught:
        run_passes(module, GimletContext(), passes)
    assert "IndexError" in str(caught.value)
    assert caught.value.command is not None
    assert caught.value.reproducer is not None
    text = caught.value.reproducer.read_text()
    caught.value.reproducer.unlink()
    assert 'note = "kept"' in text
    return shlex.split(caught.value.command), text


def test_a_reproducer_starts_before_the_pass_that_fails(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(CountsPass, "fails_at", 3)
    command, text = bug([CountsPass(), "cse", CountsPass(), CountsPass(), CountsPass()])
    assert command[-2:] == ["-p", "counts"]
    assert "runs = 2" in text


def test_a_reproducer_has_all_passes_where_the_last_alone_does_not_fail(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FlakyPass, "runs", [])
    command, text = bug([CountsPass(), "cse", FlakyPass()])
    assert command[-2:] == ["-p", "counts,cse,flaky"]
    assert "runs = " not in text


def test_a_refusal_is_no_bug():
    with pytest.raises(InputError, match="pass counts: not on this module"):
        run_passes(ModuleOp([]), GimletContext(), [CountsPass(refuses=True)])


def test_instruments_are_told_of_each_pass_in_order():
    told: list[str] = []

    class Tells(Instrument):
        def before(self, name: str, module: ModuleOp) -> None:
            told.append(f"before {name}")

        def after(self, name: str, module: ModuleOp, pass_s: float, verify_s: float) -> None:
            told.append(f"after {name}")

    run_passes(ModuleOp([]), GimletContext(), ["cse", "dce"], [Tells()])
    assert told == ["before cse", "after cse", "before dce", "after dce"]
    assert Tells().report() == ""


def test_statistics_see_what_is_inside_a_region():
    statistics = Statistics()
    inner = xdsl_test.TestOp()
    module = ModuleOp([xdsl_test.TestOp(regions=[Region(Block([inner]))])])
    statistics.before("by hand", module)
    inner.attributes["changed"] = StringAttr("yes")
    statistics.after("by hand", module, 0.0, 0.0)
    assert statistics.report() == "by hand: 0 made, 0 erased, 1 changed\n  changed 1 test.op\n"


def test_a_compile_dumps_and_times_every_pass_and_the_placement(tmp_path: Path):
    (tmp_path / "m.mlir").write_text(MODEL)
    options = CompileOptions(topology=default_topology())
    compilation = start(open_source(tmp_path / "m.mlir"), options, Progress(quiet=True))
    timing = Timing()
    compilation.instruments = [timing, DumpIr(tmp_path / "dump")]
    compilation.run_to("split")
    names = [row.name for row in timing.rows]
    assert names[: len(NORMALIZE)] == [*NORMALIZE]
    assert names[-5:] == ["place", "outline-segments", "keep-states", "insert-transfers", "assign-buffers"]
    files = sorted(path.name for path in (tmp_path / "dump").iterdir())
    assert files == [f"{number:02}-{name}.mlir" for number, name in enumerate(["input", *names])]
    assert "placement.device = @" in (tmp_path / "dump" / files[-5]).read_text()
    assert timing.rows[-1].ops_after > 0
