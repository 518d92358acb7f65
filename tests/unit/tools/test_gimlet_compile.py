"""gimlet-compile's flags that watch the passes, and what a dry run prints."""

import json
import re
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from gimlet.tools.gimlet_compile import main

MODEL = """
builtin.module attributes {onnx.opsets = {"" = 21 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
    %y = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>
    func.return %y : tensor<4xf32>
  }
}
"""

REFUSED = """
builtin.module attributes {onnx.opsets = {"" = 22 : i64}} {
  func.func @main(%x: tensor<512x512xf32>) -> tensor<f32> {
    %a = onnx.MatMul(%x, %x) : (tensor<512x512xf32>, tensor<512x512xf32>) -> tensor<512x512xf32>
    %y = onnx.Det(%a) : (tensor<512x512xf32>) -> tensor<f32>
    func.return %y : tensor<f32>
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


def dry_run(tmp_path: Path, root: Path, *more: str) -> list[str]:
    (tmp_path / "m.mlir").write_text(REFUSED)
    topology = root / "examples" / "topologies" / "rack.toml"
    return [str(tmp_path / "m.mlir"), "--topology", str(topology), "--dry-run", *more]


def test_a_dry_run_says_what_each_device_could_run(tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main(dry_run(tmp_path, root))
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    lines = [re.sub(r"\W+", " ", line).strip() for line in printed.splitlines()]
    assert "cpu onnxruntime fp32 2 of 2 100 0" in lines
    assert "sram0 sram fp32 1 of 2 75 0" in lines
    assert "not on sram0 (sram, fp32)" in printed
    assert "1 25 0 Det Det has no lowering to the machine" in lines
    assert lines.index("segments") < len(lines) - 1
    assert "fastest device: Det " in printed.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["m.mlir"]


def test_a_dry_run_has_all_of_it_in_json(tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(dry_run(tmp_path, root, "--json"))
    data = json.loads(capsys.readouterr().out)
    assert [place["device"] for place in data["coverage"]["places"]] == ["cpu", "gpu0", "sram0"]
    refused = [(row["device"], row["operator"], row["ops"]) for row in data["coverage"]["unsupported"]]
    assert refused == [("gpu0", "Det", 1), ("sram0", "Det", 1)]
    assert data["coverage"]["recommendation"].startswith("Best for latency: a split over cpu and ")
    assert [segment["device"] for segment in data["segments"]][-1] == "cpu"


@pytest.mark.parametrize(("op", "is_told"), [("Sub", True), ("Add", False)])
def test_verify_says_where_random_inputs_prove_little(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], op: str, is_told: bool
):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node(op, ["x", "x"], ["y"])], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), tmp_path / "m.onnx")
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "m.onnx"), "-o", str(tmp_path / "m.gimlet"), "--verify"])
    assert stop.value.code == 0
    printed = capsys.readouterr()
    assert ("of little worth for y: " in printed.out) is is_told
    assert re.search(r"^verify +[0-9.]+ s$", printed.err, re.MULTILINE), "it is a phase that shows on a terminal"
