"""gimlet-opt's exit codes, messages and files: what xDSL's driver does not have."""

import argparse
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Attribute
from xdsl.passes import ModulePass
from xdsl.universe import Universe
from xdsl.utils.diagnostic import Diagnostic
from xdsl.xdsl_opt_main import xDSLOptMain

from gimlet import __version__
from gimlet.dialects import registry as dialects
from gimlet.dialects.universe import GIMLET_UNIVERSE
from gimlet.passes import registry as passes
from gimlet.runtime.errors import MissingError
from gimlet.tools.gimlet_opt import GimletOptMain, main

DEVICE = 'placement.topology @rack {\n  placement.device @cpu {kind = "host"}\n}\n'


@dataclass(frozen=True)
class BreaksPass(ModulePass):
    """Fails in the way that it is told."""

    name = "breaks"

    how: str = "bug"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.how == "bug":
            raise KeyError("nothing there")
        if self.how == "missing":
            raise MissingError("no such device", where="gpu0", hint="attach one")
        for nested in op.walk():
            nested.properties.pop("kind", None)


@pytest.fixture(autouse=True)
def breaking_pass(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(GIMLET_UNIVERSE.all_passes, "breaks", lambda: BreaksPass)


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(args)
    return int(stop.value.code or 0)


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "device.mlir"
    path.write_text(DEVICE)
    return path


def test_output_goes_to_a_file(device: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out.mlir"
    assert run(str(device), "-o", str(out)) == 0
    assert 'placement.device @cpu {kind = "host"}' in out.read_text()
    assert capsys.readouterr() == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["device.mlir", "out.mlir"]


def test_a_dash_is_standard_input(device: Path):
    command = [sys.executable, "-m", "gimlet.tools.gimlet_opt", "-"]
    done = subprocess.run(command, input=device.read_text(), capture_output=True, text=True, check=True)
    assert 'placement.device @cpu {kind = "host"}' in done.stdout


def test_a_failure_leaves_the_old_output_alone(device: Path, tmp_path: Path):
    out = tmp_path / "out.mlir"
    out.write_text("old")
    assert run(str(device), "-o", str(out), "-p", "insert-transfers") == 1
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["device.mlir", "out.mlir"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("placement.device @cpu {kind", r"bad\.mlir:1:\d+"),
        ('"test.op"() : () -> !placement.state<tensor<4xf32>, [8]>', r"bad\.mlir:1:\d+.*its capacity is 8"),
        (DEVICE.replace("host", ""), r'has an empty kind\n  in: "placement\.device"\(\) <\{sym_name = "cpu"'),
        (b"\xff\xfe", "is not text"),
    ],
)
def test_bad_ir_is_the_users_mistake(
    text: str | bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "bad.mlir"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert run(str(path)) == 1
    printed = capsys.readouterr().err
    assert re.search(message, printed, re.DOTALL)
    assert printed.startswith("gimlet-opt: error: ")
    assert "Traceback" not in printed


def test_a_long_operation_is_cut_in_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "long.mlir"
    path.write_text(DEVICE.replace('"host"', f'"", note = "{"x" * 500}"'))
    assert run(str(path)) == 1
    assert max(len(line) for line in capsys.readouterr().err.splitlines()) < 200


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-p", "no-such-pass"], "no-such-pass"),
        (["-p", "outline-segments{nonsense=1}"], "nonsense"),
        (["-p", "outline-segments{"], "hint: gimlet-opt --list-passes prints them"),
        (["--no-such-flag"], "--no-such-flag"),
        (["no-such-file.mlir"], "No such file or directory: no-such-file.mlir"),
        (["--weights", "no-such-file.json"], "no-such-file.json: the file cannot be read"),
        (["pyproject.toml"], "pyproject.toml is not a file of IR\n  hint: call it .mlir, or add --frontend mlir"),
    ],
)
def test_wrong_usage(args: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert run(*args) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed


def test_an_error_of_gimlet_keeps_its_exit_code(device: Path, capsys: pytest.CaptureFixture[str]):
    assert run(str(device), "-p", "breaks{how=missing}") == MissingError.exit_code
    assert "gpu0: no such device\n  hint: attach one" in capsys.readouterr().err


@pytest.mark.parametrize(("how", "alone"), [("bug", "breaks"), ("invalid", 'breaks{how="invalid"}')])
def test_a_bug_leaves_a_reproducer(how: str, alone: str, device: Path, capsys: pytest.CaptureFixture[str]):
    assert run(str(device), "-p", f"cse,breaks{{how={how}}}") == 70
    command = reproducing_command(capsys)
    reproducer = Path(command[0])
    assert command[1:] == ["-p", alone], "the passes before the one that fails are left out"
    assert reproducer.read_text().startswith(f"// gimlet-opt {reproducer} -p")
    assert 'placement.device @cpu {kind = "host"}' in reproducer.read_text()
    assert run(*command) == 70
    Path(reproducing_command(capsys)[0]).unlink()
    reproducer.unlink()


def reproducing_command(capsys: pytest.CaptureFixture[str]) -> list[str]:
    line = next(line for line in capsys.readouterr().err.splitlines() if "reproduce it with: " in line)
    program, *args = shlex.split(line.partition("reproduce it with: ")[2])
    assert program == "gimlet-opt"
    return args


PLUGIN = """
from dataclasses import dataclass
from xdsl.dialects.builtin import UnitAttr
from xdsl.passes import ModulePass

@dataclass(frozen=True)
class WorksOncePass(ModulePass):
    name = "works-once"

    def apply(self, ctx, op):
        if "seen" in op.attributes:
            raise IndexError("seen before")
        op.attributes["seen"] = UnitAttr()
"""


def test_the_printed_command_reproduces_a_bug_in_a_new_process(device: Path, tmp_path: Path):
    """With a pass from a file, which the command has to load again."""
    plugin = tmp_path / "works_once.py"
    plugin.write_text(PLUGIN)
    args = [str(device), "--load", str(plugin), "-p", "cse,works-once,works-once"]
    first = subprocess.run([sys.executable, "-m", "gimlet.tools.gimlet_opt", *args], capture_output=True, text=True)
    assert first.returncode == 70, first.stderr
    program, *again = shlex.split(first.stderr.partition("reproduce it with: ")[2])
    second = subprocess.run([sys.executable, "-m", "gimlet.tools.gimlet_opt", *again], capture_output=True, text=True)
    assert (program, second.returncode) == ("gimlet-opt", 70)
    assert "IndexError in 'works-once': seen before" in second.stderr
    for printed in (first.stderr, second.stderr):
        Path(shlex.split(printed.partition("reproduce it with: ")[2])[1]).unlink()


def test_diagnostics_can_be_what_is_tested(device: Path, capsys: pytest.CaptureFixture[str]):
    assert run(str(device), "--verify-diagnostics", "-p", "breaks{how=invalid}") == 0
    assert "property 'kind' expected" in capsys.readouterr().out


def test_passes_can_be_timed(device: Path, capsys: pytest.CaptureFixture[str]):
    assert run(str(device), "--time-passes", "-p", "cse") == 0
    assert "Pass cse took" in capsys.readouterr().out


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path):
    path = tmp_path / "many.mlir"
    path.write_text('"test.op"() {note = "a long line of text to fill the pipe"} : () -> ()\n' * 3000)
    command = f"{sys.executable} -m gimlet.tools.gimlet_opt {path} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("builtin.module {\n", "")


def test_every_dialect_and_pass_is_what_its_line_says():
    for name in dialects.DIALECTS:
        assert dialects.load(name).name == name
    for name in passes.PASSES:
        assert passes.load(name).name == name


def test_the_names_are_free_in_xdsls_universe():
    """A name that xDSL has as well would make xdsl-opt fail for everyone who installs gimlet."""
    from xdsl.universe import XDSL_UNIVERSE

    assert not XDSL_UNIVERSE.all_dialects.keys() & GIMLET_UNIVERSE.all_dialects.keys()
    assert not XDSL_UNIVERSE.all_passes.keys() & passes.PASSES.keys()
    found = Universe.get_multiverse()
    assert found.all_dialects.keys() >= dialects.DIALECTS.keys()
    assert found.all_passes.keys() >= passes.PASSES.keys()


FLAGS = {
    "input_file": [],
    "--frontend": ["--frontend", "mlir"],
    "--disable-verify": ["--disable-verify"],
    "--allow-unregistered-dialect": ["--allow-unregistered-dialect"],
    "--no-implicit-module": ["--no-implicit-module"],
    "--target": ["--target", "mlir"],
    "--output-file": ["--output-file", "/dev/null"],
    "--passes": ["--passes", "cse,dce"],
    "--print-between-passes": ["--print-between-passes", "-p", "cse,dce"],
    "--time-passes": ["--time-passes", "-p", "cse"],
    "--verify-diagnostics": ["--verify-diagnostics"],
    "--parsing-diagnostics": ["--parsing-diagnostics"],
    "--split-input-file": ["--split-input-file"],
    "--print-op-generic": ["--print-op-generic"],
    "--print-no-properties": ["--print-no-properties", "--print-op-generic"],
    "--print-debuginfo": ["--print-debuginfo"],
    "--syntax-highlight": ["--syntax-highlight"],
    "--version": ["--version"],
    "--shrink": ["--shrink"],
    "--help": ["--help"],
}
"""For every flag of xdsl-opt a use of it."""

TEXT = """
"builtin.module"() ({
  %0 = arith.constant 1 : i32
  %1 = arith.constant 1 : i32
  "test.op"(%0, %1) {a = 1 : i8} : (i32, i32) -> () loc("here")
  // -----
}) : () -> ()
"""


def flags_of(tool: type[xDSLOptMain]) -> set[str]:
    parser = argparse.ArgumentParser()
    # Its registers are what the constructor fills before it parses.
    made = tool.__new__(tool)
    made.available_frontends, made.available_passes, made.available_targets = {}, {}, {}
    made.register_all_arguments(parser)
    return {action.option_strings[-1] if action.option_strings else action.dest for action in parser._actions}


def test_every_flag_of_xdsl_opt_is_tried():
    assert flags_of(xDSLOptMain) == FLAGS.keys()
    assert flags_of(GimletOptMain) > FLAGS.keys()


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_of_xdsl_opt_does_here_what_it_does_there(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "in.mlir"
    path.write_text("\n// -----\n".join([TEXT.replace("  // -----\n", "")] * 2) if "split" in flag else TEXT)
    args = [*FLAGS[flag], str(path)]
    monkeypatch.setattr(sys, "argv", ["opt"])
    # xDSL switches these off for the whole process.
    monkeypatch.setattr(Attribute, "__post_init__", Attribute.__post_init__)
    monkeypatch.setattr(Diagnostic, "colored", False)
    codes: list[object] = []
    texts: list[str] = []
    for start in (lambda: xDSLOptMain(args=args).run(), lambda: main(args)):
        try:
            start()
            codes.append(0)
        except SystemExit as stop:
            codes.append(stop.code or 0)
        texts.append(re.sub(r"took \S+ seconds", "took", capsys.readouterr().out))
    assert codes[0] == codes[1]
    if flag == "--help":
        assert set(re.findall(r"^  (-[-\w]+)", texts[0], re.MULTILINE)) <= set(
            re.findall(r"^  (-[-\w]+)", texts[1], re.MULTILINE)
        )
    else:
        own = f", gimlet {__version__}" if flag == "--version" else ""
        assert texts[0].removeprefix("xdsl-opt") == texts[1].removeprefix("gimlet-opt").replace(own, "")


FUNCTION = """
func.func @main() -> i32 {
  %0 = arith.constant 1 : i32
  %1 = arith.constant 1 : i32
  %2 = arith.addi %0, %1 : i32
  %3 = arith.addi %0, %1 : i32
  func.return %2 : i32
}
"""


@pytest.fixture
def function(tmp_path: Path) -> Path:
    path = tmp_path / "function.mlir"
    path.write_text(FUNCTION)
    return path


def test_timing_says_how_many_ops_each_pass_left(function: Path, capsys: pytest.CaptureFixture[str]):
    assert run(str(function), "-p", "cse,dce", "--timing") == 0
    printed = capsys.readouterr()
    rows = [line.split() for line in printed.err.splitlines()]
    assert rows[0] == ["pass", "seconds", "share", "verify", "s", "ops", "before", "ops", "after"]
    assert [(row[0], *row[-2:]) for row in rows[1:3]] == [("cse", "6", "4"), ("dce", "4", "4")]
    assert rows[3][0] == "total"
    assert all(float(row[1]) > 0 and float(row[3]) > 0 for row in rows[1:3])
    assert printed.out.startswith("builtin.module"), "the IR is alone on standard output"


def test_statistics_say_what_a_pass_did(function: Path, capsys: pytest.CaptureFixture[str]):
    assert run(str(function), "-p", "cse,dce,canonicalize", "--statistics") == 0
    assert capsys.readouterr().err == (
        "cse: 0 made, 2 erased, 1 changed\n"
        "  erased 1 arith.addi\n"
        "  erased 1 arith.constant\n"
        "  changed 1 arith.addi\n"
        "dce: nothing\n"
        "canonicalize: 1 made, 2 erased, 1 changed\n"
        "  made 1 arith.constant\n"
        "  erased 1 arith.addi\n"
        "  erased 1 arith.constant\n"
        "  changed 1 func.return\n"
    )


@pytest.mark.parametrize(
    ("flags", "files"),
    [
        ([], ["00-input.mlir", "01-cse.mlir", "02-dce.mlir", "03-canonicalize.mlir"]),
        (["--dump-ir-changed"], ["00-input.mlir", "01-cse.mlir", "03-canonicalize.mlir"]),
    ],
)
def test_ir_is_dumped_between_passes(flags: list[str], files: list[str], function: Path, tmp_path: Path):
    folder = tmp_path / "dump" / "here"
    out = tmp_path / "out.mlir"
    args = [str(function), "-o", str(out), "-p", "cse,dce,canonicalize", "--dump-ir", str(folder), *flags]
    assert run(*args) == 0
    assert sorted(path.name for path in folder.iterdir()) == files
    assert (folder / "00-input.mlir").read_text().count("arith.addi") == 2
    assert (folder / files[-1]).read_text().strip() == out.read_text().strip()
    assert run(str(folder / "00-input.mlir"), "-p", "cse", "-o", str(out)) == 0
    assert (folder / "01-cse.mlir").read_text().strip() == out.read_text().strip()


def test_a_folder_that_cannot_be_written_is_said(function: Path, capsys: pytest.CaptureFixture[str]):
    assert run(str(function), "-p", "cse", "--dump-ir", str(function)) == 2
    assert f"--dump-ir: {function} is a file" in capsys.readouterr().err


def test_passes_are_listed_with_their_options(capsys: pytest.CaptureFixture[str]):
    assert run("--list-passes") == 0
    text = capsys.readouterr().out
    listed = re.findall(r"^  ([\w-]+)", text, re.MULTILINE)
    tool = GimletOptMain(args=[])
    assert listed[: len(passes.PASSES)] == list(passes.PASSES)
    assert sorted(listed) == sorted(tool.available_passes)
    assert "  bind-dims{names: tuple[str, ...] = (), sizes: tuple[int, ...] = ()}\n    Replaces symbolic" in text
    assert "BreaksPass(" not in text, "a pass without a docstring has none"


def test_one_pass_tells_all_about_itself(capsys: pytest.CaptureFixture[str]):
    assert run("--list-passes", "bind-dims") == 0
    assert "After `bind-dims{" in capsys.readouterr().out
    assert run("--list-passes", "no-such-pass") == 2
    assert "there is no pass 'no-such-pass'" in capsys.readouterr().err


DIALECT = """
from xdsl.ir import Dialect
from xdsl.irdl import IRDLOperation, irdl_op_definition

@irdl_op_definition
class NopOp(IRDLOperation):
    name = "mine.nop"
    assembly_format = "attr-dict"

Mine = Dialect("mine", [NopOp])
"""


def test_a_file_brings_a_dialect(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "mine.py").write_text(DIALECT)
    (tmp_path / "in.mlir").write_text("mine.nop")
    assert run(str(tmp_path / "in.mlir"), "--load", str(tmp_path / "mine.py")) == 0
    assert "mine.nop" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (None, 2, "there is no such file"),
        ("from gimlet.dialects.placement import Placement", 2, "the file defines no pass and no dialect"),
        ("1 / 0", 1, "it fails when it is loaded: ZeroDivisionError: division by zero"),
        ("1 +", 1, "it fails when it is loaded: SyntaxError"),
    ],
)
def test_a_file_that_is_no_plug_in(
    text: str | None, code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "bad.py"
    if text is not None:
        path.write_text(text)
    assert run("--load", str(path)) == code
    assert f"{path}: {message}" in capsys.readouterr().err
