"""gimlet-reduce: its two ways to say what is interesting, and its files."""

import json
from pathlib import Path

import pytest

from gimlet.tools.gimlet_reduce import main

TEXT = """
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %a = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %b = onnx.Sqrt(%a) : (tensor<4xf32>) -> tensor<4xf32>
  %c = onnx.Relu(%b) : (tensor<4xf32>) -> tensor<4xf32>
  func.return %c : tensor<4xf32>
}
"""
SMALLEST = """builtin.module {
  func.func @main(%x: tensor<4xf32>) {
    %b = onnx.Sqrt(%x) : (tensor<4xf32>) -> tensor<4xf32>
    func.return
  }
}
"""
PLUGIN = """
from dataclasses import dataclass
from xdsl.passes import ModulePass

@dataclass(frozen=True)
class NoRootsPass(ModulePass):
    name = "no-roots"

    def apply(self, ctx, op):
        for inner in op.walk():
            if inner.name == "onnx.Sqrt":
                raise IndexError(f"a root of {inner.operands[0]}")
            if not inner.attributes and inner.name == "func.func" and not inner.body.block.args:
                raise IndexError("another failure, from another place" if other() else "")

def other():
    raise IndexError("elsewhere")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "in.mlir"
    path.write_text(TEXT)
    (tmp_path / "no_roots.py").write_text(PLUGIN)
    return path


def run(*args: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    return int(stop.value.code or 0)


@pytest.mark.parametrize("command", ["grep -q onnx.Sqrt", "test -f {} && grep -q onnx.Sqrt {}"])
def test_a_command_says_what_is_interesting(command: str, file: Path, capsys: pytest.CaptureFixture[str]):
    assert run(file, "--test", command) == 0
    printed = capsys.readouterr()
    assert printed.out == SMALLEST
    assert "erase ops: 5 ops, then 3" in printed.err


def test_passes_that_fail_in_the_same_way_are_interesting(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out.mlir"
    assert run(file, "-p", "no-roots", "--load", tmp_path / "no_roots.py", "-o", out) == 0
    assert out.read_text() == SMALLEST
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["in.mlir", "no_roots.py", "out.mlir"]


def test_a_command_that_hangs_is_stopped(file: Path, capsys: pytest.CaptureFixture[str]):
    command = "grep -q onnx.Relu {} || sleep 60; grep -q onnx.Sqrt {}"
    assert run(file, "--test", command, "--test-limit", "0.3") == 0
    assert "onnx.Relu" in capsys.readouterr().out


def test_json_says_how_far_it_came(file: Path, capsys: pytest.CaptureFixture[str]):
    assert run(file, "--test", "grep -q onnx.Sqrt", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data.pop("tests") > 3
    assert data == {"complete": True, "ops_before": 5, "ops_after": 3, "ir": SMALLEST}


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([], 2, "say what to look for"),
        (["--test", "true", "-p", "cse"], 2, "say what to look for"),
        (["-p", "no-such-pass"], 2, "no-such-pass"),
        (["--test", "false"], 4, "the test does not hold for the input"),
        (["--test", "no-such-command"], 2, "there is no such command, or it cannot be run: no-such-command"),
        (["-p", "cse"], 4, "the test does not hold for the input"),
        (["--test", "true", "-o", "/no/such/folder/out.mlir"], 2, "out.mlir: the file cannot be written"),
    ],
)
def test_bad_requests(args: list[str], code: int, message: str, file: Path, capsys: pytest.CaptureFixture[str]):
    assert run(file, *args) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("text", "code"), [(None, 2), (b"\xff", 1), (b"func.func @", 1)])
def test_bad_files(text: bytes | None, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "bad.mlir"
    if text is not None:
        path.write_bytes(text)
    assert run(path, "--test", "true") == code
    assert "bad.mlir" in capsys.readouterr().err
