"""Bad input of every kind: the exit code, one message that says what, where and what to do, and nothing left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import gimlet
from gimlet.runtime.errors import UsageError
from gimlet.tools import gimlet_compare, gimlet_compile, gimlet_diff, gimlet_place, gimlet_run

ROOT = Path(__file__).resolve().parents[2]
CPU = '[[device]]\nname = "cpu"\nkind = "host"\n'


def relu_model(path: Path, op: str = "Relu", domain: str = "") -> Path:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xyz"]
    weight = numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")
    nodes = [
        helper.make_node("Add", ["x", "w"], ["y"], name="add0"),
        helper.make_node(op, ["y"], ["z"], name="last0", domain=domain),
    ]
    graph = helper.make_graph(nodes, "g", value[:1], value[2:], [weight])
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def run(main, capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    streams = capsys.readouterr()
    code = stop.value.code
    return (0 if code is None else int(code)), streams.out + streams.err


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return relu_model(tmp_path / "relu.onnx")


def topology(folder: Path, text: str) -> Path:
    path = folder / "rack.toml"
    path.write_text("schema = 1\n" + text)
    return path


def compile_args(model: Path, *more: object) -> list[object]:
    return [model, "-o", model.parent / "out.gimlet", "--bind", "n=1:2:8", *more]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "the file is empty"), (b"hello", "not an ONNX model"), (b"\x08\x07\x12\x04", "not an ONNX model")],
)
def test_files_that_are_no_models(
    content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    code, text = run(gimlet_compile.main, capsys, path, "-o", tmp_path / "out.gimlet")
    assert code == 1
    assert message in text
    assert "bad.onnx" in text
    assert "hint:" in text
    assert "Traceback" not in text


def test_a_truncated_model(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = model.read_bytes()
    model.write_bytes(data[: len(data) // 2])
    code, text = run(gimlet_compile.main, capsys, *compile_args(model))
    assert code == 1
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--pin", "zzz=cpu"], 2, "'zzz' matches no op"),
        (["--pin", "Relu=gpu9"], 2, "there is no device 'gpu9'"),
        (["--pin", "(=cpu"], 2, "does not parse"),
        (["--pin", "Relu"], 2, "cannot read 'Relu'"),
        (["--bind", "m=3"], 2, "no dimension 'm'"),
        (["--bind", "n=8:2:1"], 2, "0 ≤ minimum"),
        (["--format", "cpu=int3"], 2, "int3"),
        (["--min-share", "cpu=2"], 2, "is no share"),
        (["--min-share", "cpu=120%"], 2, "is no share"),
        (["--objective", "beauty"], 2, "beauty"),
        (["--placement", "missing.json"], 2, "missing.json"),
        (["--costs", "missing.json"], 2, "missing.json"),
        (["--topology", "missing.toml"], 2, "missing.toml"),
        (["--nonsense"], 2, "--nonsense"),
    ],
)
def test_flags_that_mean_nothing(
    flags: list[str], code: int, message: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bind = [] if "--bind" in flags else ["--bind", "n=1:2:8"]
    found, text = run(gimlet_compile.main, capsys, model, "-o", model.parent / "out.gimlet", *bind, *flags)
    assert (found, message in text) == (code, True), text
    assert "Traceback" not in text
    assert not (model.parent / "out.gimlet").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CPU + '[[device]]\nname = "g"\nkind = "nvidia/rtx-pro-600"\n', "unknown kind 'nvidia/rtx-pro-600'"),
        (
            CPU + '[[device]]\nname = "g"\nkind = "nvidia/l4"\n[[link]]\nbetween = ["cpu", "g"]\nkind = "pcie9x16"\n',
            "unknown link 'pcie9x16'",
        ),
        (CPU + '[[device]]\nname = "g"\nkind = "nvidia/l4"\n', "no link leads from cpu to g"),
        (CPU + '[[link]]\nbetween = ["cpu", "moon"]\nkind = "pcie5x16"\n', "unknown device 'moon'"),
    ],
)
def test_topologies_that_do_not_exist(text: str, message: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rack = topology(model.parent, text)
    code, said = run(gimlet_compile.main, capsys, *compile_args(model, "--topology", rack))
    assert code == 2
    assert message in said


@pytest.mark.parametrize(
    ("flags", "options", "message"),
    [
        (["--seed", "-1"], {"seed": -1}, "-1 is not in the range x>=0"),
        (["--time-limit", "0"], {"time_limit_s": 0.0}, "0.0 is not in the range x>0"),
        (["--time-limit", "nan"], {"time_limit_s": float("nan")}, "'nan' is no number of seconds"),
        (["--overridable", "(w"], {"overridable": "(w"}, "'(w' is not a regular expression: missing )"),
    ],
)
def test_python_is_told_what_the_command_line_is(
    flags: list[str], options: dict[str, Any], message: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = run(gimlet_compile.main, capsys, *compile_args(model, *flags))
    assert (code, message in text) == (2, True), text
    with pytest.raises(UsageError) as refused:
        gimlet.compile(str(model), output=model.parent / "out.gimlet", bind={"n": "1:2:8"}, **options)
    assert refused.value.message.startswith(message)
    assert refused.value.where == flags[0]


def test_an_input_to_measure_losses_on_that_the_model_lacks(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    array = model.parent / "a.npy"
    np.save(array, np.ones((2, 4), np.float32))
    flags = ["--loss-budget", "0.1", "--loss-input", f"x={array}", "--loss-input", f"ex={array}"]
    code, text = run(gimlet_compile.main, capsys, *compile_args(model, *flags))
    assert (code, "there is no input 'ex'" in text, "the inputs are: x" in text) == (2, True, True), text


def test_a_problem_in_a_file_is_named_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = {"schema": 1, "devices": [{"name": "d"}], "nodes": [{"name": "n", "options": {"d": {"seconds": 1}}}]}
    (tmp_path / "p.json").write_text(json.dumps(problem | {"values": []}))
    code, text = run(gimlet_place.main, capsys, tmp_path / "p.json", "--objective", "energy")
    assert (code, "needs load_w, which the problem leaves out" in text) == (1, True), text
    assert "hardware file" not in text


def test_an_operator_that_no_target_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = relu_model(tmp_path / "custom.onnx", "Frob", "com.example")
    code, text = run(gimlet_compile.main, capsys, *compile_args(path))
    assert code == 1
    assert "Frob 'last0': no device takes this op" in text
    assert "cpu" in text


def test_a_model_larger_than_every_device(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind = (ROOT / "compiler" / "hardware" / "host.toml").read_text()
    lines = ["capacity_bytes = 8" if line.startswith("capacity_bytes") else line for line in kind.splitlines()]
    (model.parent / "tiny.toml").write_text("\n".join(lines))
    rack = topology(model.parent, 'host = "cpu"\n[[device]]\nname = "cpu"\nkind = "tiny.toml"\n')
    code, text = run(gimlet_compile.main, capsys, *compile_args(model, "--topology", rack))
    assert code == 5
    assert "larger than" in text


def test_an_output_that_is_there_is_kept(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model.parent / "out.gimlet").mkdir()
    (model.parent / "out.gimlet" / "precious.txt").write_text("data")
    for more in ([], ["--force"]):
        code, text = run(gimlet_compile.main, capsys, *compile_args(model, *more))
        assert code == 2, text
    assert (model.parent / "out.gimlet" / "precious.txt").read_text() == "data"


def test_ir_that_is_malformed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.mlir"
    path.write_text("func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> { func.return %y : tensor<4xf32> }")
    code, text = run(gimlet_compile.main, capsys, path, "-o", tmp_path / "out.gimlet")
    assert code == 1
    assert "bad.mlir" in text
    assert "Traceback" not in text


def test_bundles_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for main, args in (
        (gimlet_run.main, []),
        (gimlet_compare.main, ["--ref", "x.onnx"]),
        (gimlet_diff.main, [tmp_path]),
    ):
        code, text = run(main, capsys, tmp_path, *args)
        assert code == 1
        assert "is not a bundle" in text


def test_a_kill_in_the_middle_leaves_nothing_that_looks_like_a_bundle(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The compile is stopped, hard, while its hidden folder exists; the next one succeeds and cleans up."""
    script = (
        "import os, signal, sys, gimlet.compiler.compile as c\n"
        "c.module_text = lambda module: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from gimlet.tools.gimlet_compile import main; main(sys.argv[1:])\n"
    )
    args = [str(arg) for arg in compile_args(model)]
    killed = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    folder = model.parent
    assert not (folder / "out.gimlet").exists()
    assert [path.name for path in folder.iterdir() if path.name.endswith(".gimlet")] == []
    assert any(path.name.startswith(".out.gimlet.tmp-") for path in folder.iterdir())
    code, text = run(gimlet_compile.main, capsys, *compile_args(model))
    assert code == 0, text
    assert sorted(path.name for path in folder.iterdir() if "gimlet" in path.name) == ["out.gimlet"]


def test_a_full_disk(model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def write_text(self: object, path: str, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gimlet.compiler.bundle.BundleWriter.write_text", write_text)
    code, text = run(gimlet_compile.main, capsys, *compile_args(model))
    assert code == 1
    assert "the disk is full" in text
    assert [path.name for path in model.parent.iterdir()] == ["relu.onnx"]


def test_an_error_as_json(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    code, text = run(gimlet_compile.main, capsys, *compile_args(model, "--pin", "zzz=cpu", "--json"))
    assert code == 2
    assert json.loads(text)["exit_code"] == 2
