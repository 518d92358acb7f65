"""The steps of the workflow in examples/ do what it says: a steady build passes, one that became slower fails."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

pytestmark = pytest.mark.full


def write_model(path: Path) -> None:
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((16, 16), np.float32), "w")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 16]) for name in ("x", "y")]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    graph = helper.make_graph(nodes, "small", ports[:1], ports[1:], [weight])
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


@pytest.fixture
def checkout(tmp_path: Path, root: Path) -> Path:
    """A repository as the workflow expects it: the model, the rack, and the costs that were measured once."""
    write_model(tmp_path / "model" / "recognition.onnx")
    (tmp_path / "deploy").mkdir()
    shutil.copy(root / "examples" / "topologies" / "cpu.toml", tmp_path / "deploy" / "rack.toml")
    run(
        tmp_path,
        'gimlet-compile "$MODEL" -o first.gimlet --topology "$TOPOLOGY" --bind batch=4 --save-costs deploy/costs.json',
    )
    return tmp_path


def run(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "MODEL": "model/recognition.onnx",
        "TOPOLOGY": "deploy/rack.toml",
        "BIND": "batch=4",
    }
    command = ["bash", "-e", "-c", script]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def step(root: Path, name: str) -> str:
    workflow = yaml.safe_load((root / "examples" / "ci" / "github-actions.yml").read_text())
    (script,) = [step["run"] for step in workflow["jobs"]["build"]["steps"] if step.get("name") == name]
    return script


def make_slower(costs: Path, factor: float) -> None:
    content = json.loads(costs.read_text())
    for node in content["nodes"].values():
        for option in node["options"]:
            option[0] *= factor
    costs.write_text(json.dumps(content))


def test_drift_of_cost_fails_the_job_and_a_steady_build_does_not(checkout: Path, root: Path):
    compile_step, drift_step = step(root, "Compile"), step(root, "Drift of placement or cost")
    done = run(checkout, compile_step)
    assert done.returncode == 0, done.stderr
    assert "<html" in (checkout / "report.html").read_text()
    (checkout / "new.gimlet").rename(checkout / "old.gimlet")

    assert run(checkout, compile_step).returncode == 0
    done = run(checkout, drift_step)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(checkout / "new.gimlet")

    make_slower(checkout / "deploy" / "costs.json", 2.0)
    assert run(checkout, compile_step).returncode == 0
    done = run(checkout, drift_step)
    assert done.returncode == 4, done.stdout + done.stderr
