"""What a bundle promises: equal bytes, placements and costs that can be given back, programs that stand alone."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper
from tests.e2e.models import CHAIN_BIND, CHAIN_PINS, chain

import gimlet
from gimlet.compiler.placement.model.saved_problem import loaded_problem
from gimlet.compiler.placement.solve import solve
from gimlet.runtime.errors import UsageError
from gimlet.tools import gimlet_compile

RACK = Path(__file__).resolve().parents[2] / "examples" / "topologies" / "rack.toml"
X = np.random.default_rng(0).standard_normal((5, 32)).astype(np.float32)


def run(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    with pytest.raises(SystemExit) as stop:
        gimlet_compile.main([str(arg) for arg in args])
    streams = capsys.readouterr()
    assert not stop.value.code, streams.err
    return streams.out


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_warm_rebuild_is_equal_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = str(chain(tmp_path / "chain.onnx"))
    built = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        built.append(
            gimlet.compile(
                model,
                topology=RACK,
                bind=CHAIN_BIND,
                pins=CHAIN_PINS,
                output=folder / "out.gimlet",
                cache=tmp_path / "cache",
            )
        )
    assert {segment.device for segment in built[0].manifest.segments} == {"cpu", "gpu0", "sram0"}
    assert built[0].id == built[1].id
    assert contents(built[0].path) == contents(built[1].path)


def test_costs_and_a_placement_given_back_decide_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    placement, costs = tmp_path / "placement.json", tmp_path / "costs.json"
    common = [chain(tmp_path / "chain.onnx"), "--bind", "n=1:4:16", "--topology", RACK, "--dry-run", "--json"]
    forced = [part for regex, device in CHAIN_PINS.items() for part in ("--pin", f"{regex}={device}")]
    saved = ("--save-placement", placement, "--save-costs", costs, "--save-problem", tmp_path / "problem.json")
    first = json.loads(run(capsys, *common, *forced, *saved))
    again = json.loads(run(capsys, *common, "--placement", placement, "--costs", costs))
    assert [op["device"] for op in first["ops"]] == [op["device"] for op in again["ops"]]
    assert first["segments"] == again["segments"]
    problem = json.loads((tmp_path / "problem.json").read_text())
    asked = loaded_problem(problem, tmp_path)
    assert [node.name for node in asked.nodes] == [op["name"] for op in first["ops"]]
    assert solve(asked).objective == first["summary"]["value"]


def test_segments_of_a_file_that_are_not_kept_are_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = [chain(tmp_path / "chain.onnx"), "--bind", "n=4"]
    saved = tmp_path / "placement.json"
    run(capsys, *common, "--dry-run", "--save-placement", saved)
    data = json.loads(saved.read_text())
    (first, entry), *_ = data["assign"].items()
    entry["segment"] = 7
    saved.write_text(json.dumps(data))
    note = f"the segments of {saved} are not kept: "
    compiled = [*common, "--placement", saved, "-o", tmp_path / "m.gimlet", "--force"]
    assert f"note: {note}" in run(capsys, *compiled)
    (found,) = json.loads(run(capsys, *compiled, "--json"))["notes"]
    assert found.startswith(note)
    assert f"needs {first} of segment 7, a later one" in found


def test_ir_goes_on_from_its_phase_to_the_same_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(chain(tmp_path / "chain.onnx"))
    whole = gimlet.compile(model, bind=CHAIN_BIND, output=tmp_path / "whole.gimlet")
    run(capsys, whole.path / "module.mlir", "-o", tmp_path / "again.gimlet")
    with gimlet.load(whole.path) as first, gimlet.load(tmp_path / "again.gimlet") as second:
        for name, value in first(x=X).items():
            np.testing.assert_array_equal(second(x=X)[name], value)


def test_ir_with_open_dimensions_goes_on_with_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(chain(tmp_path / "chain.onnx"))
    run(capsys, model, "--to", "annotate", "-o", tmp_path / "open.mlir")
    whole = gimlet.compile(model, bind=CHAIN_BIND, output=tmp_path / "whole.gimlet")
    bind = f"n={CHAIN_BIND['n']}"
    run(capsys, tmp_path / "open.mlir", "--bind", bind, "-o", tmp_path / "again.gimlet")
    with gimlet.load(whole.path) as first, gimlet.load(tmp_path / "again.gimlet") as second:
        for name, value in first(x=X).items():
            np.testing.assert_array_equal(second(x=X)[name], value)


def test_ir_that_is_placed_needs_its_devices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = chain(tmp_path / "chain.onnx")
    run(capsys, model, "--bind", "n=1:4:16", "--topology", RACK, "--to", "split", "-o", tmp_path / "split.mlir")
    with pytest.raises(UsageError, match=r"the IR is placed on gpu0 .*, which the topology lacks"):
        gimlet.compile(str(tmp_path / "split.mlir"), output=tmp_path / "m.gimlet")


SRAM_ALONE = """
import sys
for name in ("onnxruntime", "onnx", "torch", "xdsl"):
    sys.modules[name] = None
import numpy as np
import gimlet
with gimlet.load(sys.argv[1]) as program:
    np.savez(sys.argv[3], **program(**np.load(sys.argv[2])))
"""


def test_a_program_for_the_accelerator_stands_alone(tmp_path: Path) -> None:
    """It runs where onnxruntime cannot be imported and the portable ONNX is gone."""
    model = str(chain(tmp_path / "chain.onnx"))
    bundle = gimlet.compile(
        model, topology=RACK, bind=CHAIN_BIND, pins={"product": "sram0"}, output=tmp_path / "out.gimlet"
    )
    with gimlet.load(bundle.path) as program:
        wanted = program(x=X)
    for portable in bundle.path.glob("segments/*/model.onnx"):
        portable.unlink()
    np.savez(tmp_path / "in.npz", x=X)
    command = [sys.executable, "-c", SRAM_ALONE, bundle.path, tmp_path / "in.npz", tmp_path / "out.npz"]
    subprocess.run([str(part) for part in command], check=True, timeout=300)
    found = np.load(tmp_path / "out.npz")
    assert sorted(found.files) == sorted(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)


def product(path: Path, weight: np.ndarray) -> str:
    """y = x·weight, of [2, n] and [n, n]."""
    ports = [helper.make_tensor_value_info(name, 1, [2, len(weight)]) for name in ("x", "y")]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", ports[:1], ports[1:], [numpy_helper.from_array(weight, "w")])
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    return str(path)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_bundle_in_the_place_of_a_loaded_one_has_its_own_weights(tmp_path: Path, runtime: str) -> None:
    """A server that loads the next version before it lets go of the last one: the same graph, other weights."""
    place, draw = tmp_path / "m.gimlet", np.random.default_rng(0)
    x = draw.standard_normal((2, 64)).astype(np.float32)
    weights = [draw.standard_normal((64, 64)).astype(np.float32) for _ in range(2)]
    programs = []
    for weight in weights:
        model = product(tmp_path / "m.onnx", weight)
        gimlet.compile(model, output=place, force=True, pins={".": f"cpu:{runtime}"}, cache=tmp_path / "cache")
        programs.append(gimlet.load(place))
    for program, weight in zip(programs, weights, strict=True):
        assert {running.executor for running in program.running} == {runtime}
        np.testing.assert_allclose(program(x=x)["y"], x @ weight, rtol=1e-4, atol=1e-4)
