"""gimlet-run: arrays in, arrays out, and the exit codes."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import gimlet
from gimlet.compiler.checking.compare import compare
from gimlet.compiler.checking.numerics import deviation
from gimlet.compiler.checking.reference import reference_of
from gimlet.compiler.sources import open_source
from gimlet.runtime.bundle import open_bundle
from gimlet.runtime.errors import InputError
from gimlet.runtime.manifest import Manifest, PlacementSummary, Variant
from gimlet.runtime.program import Program
from gimlet.tools.arrays import read_inputs, write_outputs
from gimlet.tools.gimlet_run import Timing, _period_text, main

X = np.array([[1, -2, 3, -4]], np.float32)


@pytest.fixture
def bundle(make_bundle, part) -> Path:
    return make_bundle(
        [part("s0", "cpu", "Neg", ("x",), "y"), part("s1", "gpu0", "Neg", ("y",), "a/b")],
        kinds={"gpu0": "vendor/chip"},
        outputs=["y", "a/b"],
    )


@pytest.fixture
def away(make_bundle, part) -> Path:
    """A bundle for a device that no machine has."""

    def change(manifest: Manifest) -> Manifest:
        (segment,) = manifest.segments
        variant = Variant("onnxruntime", "fp16", (), requires={"execution_provider": "FarAwayProvider"})
        return replace(manifest, segments=(replace(segment, variants=(variant,)),))

    return make_bundle([part("s0", "gpu0", "Neg", ("x",), "y")], kinds={"gpu0": "vendor/chip"}, change=change)


def run(*args: Any) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    return int(stop.value.code or 0)


def run_json(capsys: pytest.CaptureFixture[str], *args: Any) -> tuple[int, dict[str, Any]]:
    code = run(*args, "--json")
    return code, json.loads(capsys.readouterr().out)


def save(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def test_files_in_files_out(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = save(tmp_path / "x.npy", X)
    assert run(bundle, "--input", f"x={file}", "--output", tmp_path / "new" / "out") == 0
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == ["a_b.npy", "y.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "new" / "out" / "y.npy"), -X)
    np.testing.assert_array_equal(np.load(tmp_path / "new" / "out" / "a_b.npy"), X)
    printed = capsys.readouterr().out
    assert "segment s1 on gpu0: fp32 (onnxruntime)" in printed
    assert "output y: float32[1, 4] min -3 mean 0.5 max 4 -> " in printed
    assert "latency: median " in printed


def test_random_inputs_are_at_the_optimum_and_depend_on_the_seed(bundle: Path, tmp_path: Path):
    def outputs(name: str, *args: Any) -> np.ndarray:
        assert run(bundle, "--random", "--output", tmp_path / name, *args) == 0
        return np.load(tmp_path / name / "y.npy")

    first = outputs("a")
    assert first.shape == (2, 4)
    np.testing.assert_array_equal(first, outputs("b"))
    assert not np.array_equal(first, outputs("c", "--seed", "1"))


def test_random_inputs_fit_those_that_are_given(make_bundle, part, tmp_path: Path, capsys):
    bundle = make_bundle(
        [part("s0", "cpu", "Add", ("x", "z"), "y")],
        inputs={"x": ("float32", ("n", "4")), "z": ("float32", ("n", "4"))},
    )
    file = save(tmp_path / "x.npy", np.zeros((5, 4), np.float32))
    code, data = run_json(capsys, bundle, "--random", "--input", f"x={file}")
    assert (code, data["outputs"][0]["shape"]) == (0, [5, 4])


def test_json_has_everything(bundle: Path, capsys: pytest.CaptureFixture[str]):
    code, data = run_json(capsys, bundle, "--random", "--repeat", 5, "--inflight", 3)
    assert code == 0
    assert data["id"] == (bundle / "manifest.sha256").read_text().strip()
    assert data["segments"][1] == {
        "id": "s1", "device": "gpu0", "executor": "onnxruntime", "format": "fp32", "emulated": False,
    }  # fmt: skip
    assert data["outputs"][1] == {"name": "a/b", "dtype": "float32", "shape": [2, 4], "file": None}
    assert (data["latency"]["runs"], data["latency"]["inflight"]) == (5, 3)
    assert 0 < data["latency"]["min_s"] <= data["latency"]["median_s"]
    assert data["latency"]["runs_per_s"] > 0


@pytest.mark.parametrize("inflight", [1, 2])
def test_a_profile_opens_in_perfetto(bundle: Path, tmp_path: Path, inflight: int):
    assert run(bundle, "--random", "--repeat", 3, "--inflight", inflight, "--profile", tmp_path / "t.json") == 0
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert sorted(event["name"] for event in events if event["ph"] == "X") == ["run"] * 3 + ["s0"] * 3 + ["s1"] * 3


def test_an_absent_device_ends_with_3_and_can_be_emulated(away: Path, capsys: pytest.CaptureFixture[str]):
    assert run(away, "--random") == 3
    message = capsys.readouterr().err
    assert message.startswith("error: s0: device 'gpu0' (vendor/chip) is not here: ")
    assert "--emulate-missing" in message
    code, data = run_json(capsys, away, "--random", "--emulate-missing")
    assert (code, data["segments"][0]["emulated"]) == (0, True)
    assert run(away, "--random", "--emulate-missing") == 0
    assert "(onnxruntime, emulated here)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--input", "x={dir}/wrong.npy"], 1, "input 'x': has shape [1, 5]: dimension 1 is 5 instead of 4"),
        (["--input", "x={dir}/double.npy"], 1, "input 'x': has elements of float64"),
        (["--input", "x={dir}/large.npy"], 1, "compiled for 1 to 8"),
        (["--input", "x={dir}/text.npy"], 1, "holds no array"),
        (["--input", "z={dir}/x.npy"], 2, "there is no such input; the program takes x: float32[n, 4]"),
        (["--input", "x={dir}/none.npy"], 2, "there is no file"),
        (["--input", "x"], 2, "write NAME=FILE.npy"),
        ([], 2, "no array for x; the program takes x: float32[n, 4]\n  hint: --input x=FILE.npy, or --random"),
        (["--random", "--repeat", "0"], 2, "0 is not in the range"),
        (["--random", "--nonsense"], 2, "No such option"),
        (["--random", "--output", "{dir}/x.npy"], 1, "cannot be written"),
        (["--random", "--profile", "{dir}/nowhere/t.json"], 2, "--profile: there is no folder"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], code: int, message: str
):
    save(tmp_path / "x.npy", X)
    save(tmp_path / "wrong.npy", np.zeros((1, 5), np.float32))
    save(tmp_path / "double.npy", np.zeros((1, 4)))
    save(tmp_path / "large.npy", np.zeros((9, 4), np.float32))
    (tmp_path / "text.npy").write_text("no array")
    assert run(bundle, *(arg.format(dir=tmp_path) for arg in args)) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(("name", "code"), [("segments/s0/model.onnx", 4), ("manifest.json", 4), ("gone", 1)])
def test_a_spoilt_bundle_ends_with_its_code(bundle: Path, capsys: pytest.CaptureFixture[str], name: str, code: int):
    if name == "gone":
        bundle = bundle / "gone"
    else:
        data = bytearray((bundle / name).read_bytes())
        data[20] ^= 1
        (bundle / name).write_bytes(data)
    found, data = run_json(capsys, bundle, "--random")
    assert found == data["exit_code"] == code
    assert str(bundle) in data["where"]


def test_a_file_that_running_does_not_need_is_compared_on_request(bundle: Path, capsys):
    (bundle / "module.mlir").write_text("changed")
    assert run(bundle, "--random") == 0
    assert run(bundle, "--random", "--verify-hashes") == 4
    assert "module.mlir" in capsys.readouterr().err


def test_the_module_runs_as_a_program(bundle: Path):
    command = [sys.executable, "-m", "gimlet.tools.gimlet_run", str(bundle), "--random"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "output y: float32[2, 4]" in done.stdout


def test_types_that_numpy_cannot_store_are_written_as_float32(tmp_path: Path):
    values = np.array([1.5, -2], ml_dtypes.bfloat16)
    files = write_outputs(tmp_path, {"b": values, "t": np.array(["a", "ü"], object)})
    assert np.load(files["b"]).dtype == np.float32
    np.testing.assert_array_equal(np.load(files["b"]), [1.5, -2])
    assert np.load(files["t"]).tolist() == ["a", "ü"]


@pytest.mark.parametrize(
    "value", [[], [X], [X, X[:1]], None, {"a": 1.0, "b": 2.0}, [{1: 2.5}, {}], [np.array(["a"])], [[X], []]]
)
def test_what_is_no_tensor_goes_to_a_file_and_back(value: Any, tmp_path: Path):
    files = write_outputs(tmp_path, {"a/b": value})
    assert files["a/b"].endswith("a_b.npz")
    again = read_inputs([f"x={files['a/b']}"])["x"]
    assert deviation(again, value).equal


@pytest.mark.parametrize("names", [("1",), ("0", "2"), ("keys",), ("a",), ("none", "0"), ()])
def test_an_archive_of_other_parts_is_refused(names: tuple[str, ...], tmp_path: Path):
    np.savez(tmp_path / "x.npz", **dict.fromkeys(names, X))
    with pytest.raises(InputError, match="are the parts of no sequence, optional or map"):
        read_inputs([f"x={tmp_path / 'x.npz'}"])


def test_a_program_of_sequences(tmp_path: Path, capsys):
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    ports = [helper.make_value_info(name, helper.make_sequence_type_proto(tensor)) for name in ("xs", "ys")]
    graph = helper.make_graph([helper.make_node("SequenceInsert", ["xs", "c"], ["ys"])], "g", ports[:1], ports[1:])
    graph.initializer.append(numpy_helper.from_array(np.array([5, 6], np.float32), "c"))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "m.onnx")
    gimlet.compile(tmp_path / "m.onnx", output=tmp_path / "m.gimlet")
    given = write_outputs(tmp_path / "in", {"xs": [np.array([1, 2], np.float32)]})["xs"]
    assert run(tmp_path / "m.gimlet", "--input", f"xs={given}", "--output", str(tmp_path / "out")) == 0
    assert "output ys: seq(float32) of [float32[2], float32[2]]" in capsys.readouterr().out
    assert [item.tolist() for item in read_inputs([f"y={tmp_path / 'out' / 'ys.npz'}"])["y"]] == [[1, 2], [5, 6]]
    found = compare(open_bundle(tmp_path / "m.gimlet"), reference_of(open_source(tmp_path / "m.onnx")), {"xs": [X[0]]})
    assert found.ok


def test_two_outputs_never_share_a_file(tmp_path: Path):
    with pytest.raises(InputError, match="two outputs would both be"):
        write_outputs(tmp_path / "out", {"a/b": X, "a_b": X})
    assert not (tmp_path / "out").exists()


def test_the_period_is_that_of_a_pipeline_that_is_full():
    """With two in flight, the first two ends fill it: the others come every 2 s."""
    timing = Timing((4.0, 4.5, 4.0, 4.0), (4.0, 4.5, 6.5, 8.5), inflight=2)
    assert timing.period_s == 2.0
    figures = timing.to_json(3.5, 1.5)
    assert (figures["period_s"], figures["runs_per_s"]) == (2.0, 0.5)
    assert (figures["predicted_s"], figures["predicted_period_s"]) == (3.5, 1.5)


def test_too_few_runs_have_no_steady_state():
    timing = Timing((4.0, 4.0), (4.0, 5.0), inflight=2)
    assert timing.period_s is None
    assert timing.to_json(None, None)["runs_per_s"] == pytest.approx(0.4)


@pytest.fixture
def promised(make_bundle, part) -> Callable[..., Path]:
    def make(objective: str) -> Path:
        summary = PlacementSummary(objective, 0.25, 0.2, 0.2, "feasible")
        return make_bundle(
            [part("s0", "cpu", "Neg", ("x",), "y")], change=lambda manifest: replace(manifest, placement=summary)
        )

    return make


def test_a_measured_period_stands_beside_the_one_that_was_promised(promised, capsys: pytest.CaptureFixture[str]):
    bundle = promised("throughput")
    assert run(bundle, "--random", "--repeat", 6, "--inflight", 2) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("period: ")]
    assert re.fullmatch(r"period: \S+ ms with 2 in flight, \S+ inferences/s; predicted 250 ms", line)
    _, data = run_json(capsys, bundle, "--random", "--repeat", 6, "--inflight", 2)
    assert data["latency"]["predicted_period_s"] == 0.25
    assert data["latency"]["runs_per_s"] == pytest.approx(1 / data["latency"]["period_s"])


def test_a_promise_of_another_kind_is_no_period(promised, capsys: pytest.CaptureFixture[str]):
    bundle = promised("latency")
    _, data = run_json(capsys, bundle, "--random", "--repeat", 3)
    assert data["latency"]["predicted_period_s"] is None
    assert run(bundle, "--random") == 0
    assert "period" not in capsys.readouterr().out


def test_a_period_of_emulated_devices_says_so(away: Path, capsys: pytest.CaptureFixture[str]):
    assert run(away, "--random", "--emulate-missing", "--repeat", 3) == 0
    assert "predicted" not in capsys.readouterr().out
    segments = [{"device": "sram0", "emulated": True}]
    latency: dict[str, Any] = {"period_s": 0.5, "inflight": 2, "runs_per_s": 2.0, "predicted_period_s": 0.001}
    assert _period_text({"segments": segments, "latency": latency}).endswith(
        "2 inferences/s; predicted 1 ms with the real sram0, emulated here"
    )


def test_a_latency_stands_beside_the_predicted_one_where_requests_take_turns(
    make_bundle, part, capsys: pytest.CaptureFixture[str]
):
    summary = PlacementSummary("energy", 1.0, 1.0, latency_s=0.5, period_s=0.25)
    bundle = make_bundle(
        [part("s0", "cpu", "Neg", ("x",), "y")], change=lambda manifest: replace(manifest, placement=summary)
    )
    assert run(bundle, "--random", "--repeat", 4) == 0
    latency, period = capsys.readouterr().out.splitlines()[-2:]
    assert latency.endswith("over 4 runs; predicted 500 ms")
    assert "predicted" not in period, "one request after the other is no pipeline"
    assert run(bundle, "--random", "--repeat", 4, "--inflight", 2) == 0
    latency, period = capsys.readouterr().out.splitlines()[-2:]
    assert "predicted" not in latency
    assert period.endswith("; predicted 250 ms")


def test_a_failure_in_flight_ends_the_runs(bundle: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    """The first run is the one that warms up; the second fails, and of the others few begin."""
    begun: list[int] = []
    real = Program.run

    def fails(self: Program, inputs: Any) -> Any:
        begun.append(1)
        if len(begun) > 1:
            raise InputError("no")
        return real(self, inputs)

    monkeypatch.setattr(Program, "run", fails)
    assert run(bundle, "--random", "--repeat", 100, "--inflight", 2) == 1
    assert "error: no" in capsys.readouterr().err
    assert len(begun) < 10


@pytest.fixture
def keeper(tmp_path: Path) -> Path:
    """A program that keeps the sum of its inputs and returns it, and what it was given plus one."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["total", "x"], ["sum"]),
            helper.make_node("Identity", ["sum"], ["y"]),
            helper.make_node("Add", ["x", "one"], ["next"]),
        ],
        "keeper",
        [info(name, TensorProto.FLOAT, [2]) for name in ("total", "x")],
        [info(name, TensorProto.FLOAT, [2]) for name in ("sum", "y", "next")],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return gimlet.compile(model, states={"total": "sum"}, output=tmp_path / "keeper.gimlet").path


def test_a_program_with_a_state_runs_on_from_step_to_step(keeper: Path, tmp_path: Path, capsys):
    np.save(tmp_path / "x.npy", np.ones(2, np.float32))
    given = [str(keeper), "--input", f"x={tmp_path / 'x.npy'}", "--output", str(tmp_path / "out")]
    assert run(*given, "--repeat", "4") == 0
    assert "state total: float32[2]" in capsys.readouterr().out
    assert [np.load(tmp_path / "out" / f"y.{step}.npy").tolist() for step in range(4)] == [[n, n] for n in (1, 2, 3, 4)]
    assert run(*given, "--repeat", "4", "--feed", "next=x") == 0
    assert [np.load(tmp_path / "out" / f"y.{step}.npy")[0] for step in range(4)] == [1, 3, 6, 10]


def test_each_request_in_flight_has_a_state_of_its_own(keeper: Path, tmp_path: Path):
    np.save(tmp_path / "x.npy", np.ones(2, np.float32))
    given = [str(keeper), "--input", f"x={tmp_path / 'x.npy'}", "--output", str(tmp_path / "out")]
    assert run(*given, "--repeat", "8", "--inflight", "4") == 0
    assert np.load(tmp_path / "out" / "y.npy").tolist() == [2, 2], "the eighth run is the second of its sequence"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--feed", "next=total"], "this is no output and input of the program"),
        (["--feed", "next=x", "--inflight", "2"], "a run that waits for another is not in flight with it"),
    ],
)
def test_what_cannot_be_fed(keeper: Path, flags: list[str], message: str, capsys):
    assert run(str(keeper), "--random", *flags) == 2
    assert message in capsys.readouterr().err
