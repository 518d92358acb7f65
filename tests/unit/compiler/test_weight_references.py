"""A reproducer has the weights that its IR reads: where they are, or copies."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from gimlet.compiler.diagnostics import CompilerBug
from gimlet.compiler.pipeline import run_passes
from gimlet.compiler.weight_references import add_references, write_references
from gimlet.dialects.context import GimletContext
from gimlet.runtime.errors import InputError
from gimlet.tools import gimlet_opt
from gimlet.tools.testing import parse

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)
IR = """
func.func @main() -> (tensor<3x4xf32>, tensor<3x4xf32>, tensor<2xf32>) {
  %a = onnx.initializer {key = "in a file"} : tensor<3x4xf32>
  %b = onnx.initializer {key = "in memory"} : tensor<3x4xf32>
  %c = onnx.initializer {key = "nowhere"} : tensor<2xf32>
  func.return %a, %b, %c : tensor<3x4xf32>, tensor<3x4xf32>, tensor<2xf32>
}
"""


@dataclass(frozen=True)
class SumsPass(ModulePass):
    """Fails as a function of the weights' values."""

    name = "sums"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        assert isinstance(ctx, GimletContext)
        total = sum(float(ctx.weights[key].array().sum()) for key in ("in a file", "in memory"))
        raise IndexError(f"the sum is {total:g}")


def weighted(folder: Path) -> tuple[ModuleOp, GimletContext]:
    ctx = GimletContext()
    (folder / "w.bin").write_bytes(b"\0" * 8 + VALUES.tobytes())
    ctx.weights.add_file("in a file", folder / "w.bin", 8, VALUES.dtype, VALUES.shape)
    ctx.weights.add("in memory", VALUES + 1)
    ctx.weights.add_meta("nowhere", np.dtype(np.float32), [2])
    ctx.weights.add("not used", VALUES + 2)
    return parse(IR), ctx


def test_weights_come_back(tmp_path: Path):
    module, ctx = weighted(tmp_path)
    assert write_references(module, ctx.weights, tmp_path / "r.json")
    again = GimletContext()
    add_references(tmp_path / "r.json", again)
    assert sorted(again.weights) == ["in a file", "in memory", "nowhere"]
    assert np.array_equal(again.weights["in a file"].array(), VALUES)
    assert np.array_equal(again.weights["in memory"].array(), VALUES + 1)
    assert not again.weights["nowhere"].has_data
    assert (tmp_path / "r.bin").stat().st_size == VALUES.nbytes


def test_large_weights_are_not_copied(tmp_path: Path):
    module, ctx = weighted(tmp_path)
    assert write_references(module, ctx.weights, tmp_path / "r.json", VALUES.nbytes - 1)
    assert not (tmp_path / "r.bin").exists()
    assert "file" not in json.loads((tmp_path / "r.json").read_text())["weights"]["in memory"]


def test_ir_without_weights_has_no_references(tmp_path: Path):
    assert not write_references(ModuleOp([]), GimletContext().weights, tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{}", '{"schema": 2, "weights": {}}', '{"schema": 1, "weights": {"a": {}}}'])
def test_references_that_are_malformed(text: str, tmp_path: Path):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(InputError, match=r"it holds no references to weights|have schema 2"):
        add_references(tmp_path / "r.json", GimletContext())


def test_a_bug_that_needs_weights_is_reproduced_by_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    module, ctx = weighted(tmp_path)
    with pytest.raises(CompilerBug, match="the sum is 144") as caught:
        run_passes(module, ctx, [SumsPass()])
    path = caught.value.reproducer
    assert path is not None
    assert caught.value.command is not None
    plugin = tmp_path / "plugin.py"
    plugin.write_text(f"from {__name__} import SumsPass as Base\n\nclass SumsPass(Base):\n    pass\n")
    _, *args = shlex.split(caught.value.command)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as stop:
        gimlet_opt.main([*args, "--load", str(plugin)])
    assert stop.value.code == 70
    assert "the sum is 144" in capsys.readouterr().err
    for file in (path, path.with_suffix(".json"), path.with_suffix(".bin")):
        file.unlink()
