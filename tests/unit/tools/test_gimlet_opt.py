"""gimlet-opt's exit codes, messages and files: what xDSL's driver does not have."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.universe import Universe

from gimlet.dialects import registry as dialects
from gimlet.dialects.universe import GIMLET_UNIVERSE
from gimlet.passes import registry as passes
from gimlet.runtime.errors import MissingError
from gimlet.tools.gimlet_opt import main

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
        (["-p", "outline-segments{"], "hint: gimlet-opt --help lists the passes"),
        (["--no-such-flag"], "--no-such-flag"),
        (["no-such-file.mlir"], "No such file or directory: no-such-file.mlir"),
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


@pytest.mark.parametrize("how", ["bug", "invalid"])
def test_a_bug_leaves_a_reproducer(how: str, device: Path, capsys: pytest.CaptureFixture[str]):
    assert run(str(device), "-p", f"cse,breaks{{how={how}}}") == 70
    command = re.search(r"gimlet-opt (\S+) -p '(.*)'", capsys.readouterr().err)
    assert command is not None
    reproducer = Path(command[1])
    assert 'placement.device @cpu {kind = "host"}' in reproducer.read_text()
    assert run(str(reproducer), "-p", command[2]) == 70
    again = re.search(r"gimlet-opt (\S+) -p", capsys.readouterr().err)
    reproducer.unlink()
    assert again is not None
    Path(again[1]).unlink()


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
