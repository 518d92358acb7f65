"""gimlet-compile's flags that watch the passes."""

from pathlib import Path

import pytest

from gimlet.tools.gimlet_compile import main

MODEL = """
builtin.module attributes {onnx.opsets = {"" = 21 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
    %y = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>
    func.return %y : tensor<4xf32>
  }
}
"""


def test_ir_and_times_of_a_compile(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "m.mlir").write_text(MODEL)
    args = [str(tmp_path / "m.mlir"), "--to", "annotate", "--dump-ir", str(tmp_path / "dump"), "--timing"]
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("builtin.module")
    assert "annotate-costs" in printed.err
    files = sorted((tmp_path / "dump").iterdir())
    assert files[0].name == "00-input.mlir"
    assert files[-1].name.endswith("-annotate-costs.mlir")
    assert "placement.cost" in files[-1].read_text()
    assert "placement.cost" not in files[-2].read_text()
