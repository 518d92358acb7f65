"""A budget for losses: the bundle that is compiled stays within it, and formats go through files and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.e2e.models import MODELS

import gimlet
from gimlet.compiler.checking.compare import compare
from gimlet.compiler.checking.reference import reference_of
from gimlet.compiler.checking.verify import verify_bundle
from gimlet.compiler.sources import open_source
from gimlet.runtime.bundle import open_bundle
from gimlet.runtime.errors import InfeasibleError, UsageError
from gimlet.tools import gimlet_compile

TOPOLOGY = """
schema = 1

[[device]]
name = "cpu"
kind = "host"

[[device]]
name = "sram0"
kind = "d-matrix/corsair"

[[link]]
name = "pcie0"
between = ["cpu", "sram0"]
kind = "pcie5x16"
"""


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    path = tmp_path / "two.toml"
    path.write_text(TOPOLOGY)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Four products of [n, 256] with weights of 256 × 256, `product0` to `product3`, with Tanh behind each."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    for index in range(4):
        weight = np.random.default_rng(index).standard_normal((256, 256)) / 16
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"w{index}"))
        nodes.append(helper.make_node("MatMul", [f"x{index}", f"w{index}"], [f"a{index}"], name=f"product{index}"))
        nodes.append(helper.make_node("Tanh", [f"a{index}"], [f"x{index + 1}"], name=f"tanh{index}"))
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 256]) for name in ("x0", "x4")]
    graph = helper.make_graph(nodes, "chain", value[:1], value[1:], weights)
    path = tmp_path / "chain.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def run(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    with pytest.raises(SystemExit) as stop:
        gimlet_compile.main([str(arg) for arg in args])
    streams = capsys.readouterr()
    assert not stop.value.code, streams.err
    return streams.out


def compiled(source: object, output: Path, topology: Path, budget: float, **options: Any) -> gimlet.CompiledBundle:
    return gimlet.compile(
        source, output=output, topology=topology, loss_budget=budget, min_shares={"sram0": 0.9}, **options
    )


def errors(bundle: gimlet.CompiledBundle, source: str) -> list[float]:
    found = verify_bundle(bundle.path, open_source(source), seed=1)
    return [output.relative_l2 for comparison in found for output in comparison.outputs.values()]


def test_a_larger_budget_is_quicker_and_each_is_kept(tmp_path: Path, topology: Path, model: Path):
    latencies: list[float] = []
    formats: list[set[str]] = []
    for budget in (0.0, 0.006, 0.05):
        bundle = compiled(str(model), tmp_path / f"{budget}.gimlet", topology, budget, bind={"n": 64})
        assert bundle.placement is not None
        assert bundle.placement.loss is not None
        assert bundle.placement.loss.measured <= budget
        assert max(errors(bundle, str(model))) <= max(budget, 1e-5)
        latencies.append(bundle.placement.objective)
        formats.append({segment.format for segment in bundle.manifest.segments})
    assert latencies == sorted(latencies, reverse=True)
    assert formats == [{"fp32"}, {"bf16"}, {"mxint8"}]


def test_formats_go_into_a_placement_file_and_back_without_a_budget(
    tmp_path: Path, topology: Path, model: Path, capsys: pytest.CaptureFixture[str]
):
    common = [model, "--topology", topology, "--bind", "n=64", "--dry-run", "--json"]
    placement = tmp_path / "placement.json"
    given = ["--min-share", "sram0=0.9", "--loss-budget", "5%", "--save-placement", placement]
    first = json.loads(run(capsys, *common, *given))
    assert first["loss"]["budget"] == 0.05
    assert {op["format"] for op in first["ops"]} == {"mxint8"}
    product = next(op for op in first["ops"] if op["name"] == "product1")
    other = {place["format"]: place for place in product["others"] if place["device"] == "sram0"}
    assert 0 == other["fp32"]["loss"] < other["bf16"]["loss"] < product["loss"]
    again = json.loads(run(capsys, *common, "--placement", placement))
    assert [op["format"] for op in again["ops"]] == [op["format"] for op in first["ops"]]
    assert "loss" not in again
    data = json.loads(placement.read_text())
    data["assign"] = {"product1": data["assign"]["product1"] | {"segment": None}}
    placement.write_text(json.dumps(data))
    part = json.loads(run(capsys, *common, "--placement", placement, "--min-share", "sram0=0.9"))
    found = {op["name"]: op for op in part["ops"]}
    assert found["product1"]["format"] == "mxint8"
    assert {op["format"] for name, op in found.items() if name != "product1"} == {"fp32"}
    refusals = [place.get("refused", "") for place in found["product0"]["others"] if place["format"] == "mxint8"]
    assert refusals == ["this format is named for other ops only; --format or --loss-budget asks for it here"]


def test_a_given_placement_above_the_budget_is_refused(tmp_path: Path, topology: Path, model: Path):
    bundle = compiled(str(model), tmp_path / "a.gimlet", topology, 0.05, bind={"n": 64})
    assert bundle.placement is not None
    placement = tmp_path / "placement.json"
    bundle.placement.save(placement)
    with pytest.raises(InfeasibleError, match=r"the placement that was given loses 0\.0\d+, and the budget is 0.001"):
        gimlet.compile(
            str(model),
            output=tmp_path / "b.gimlet",
            topology=topology,
            loss_budget=0.001,
            bind={"n": 64},
            placement=placement,
        )


def test_a_budget_that_pins_stand_against_names_the_op(tmp_path: Path, topology: Path, model: Path):
    with pytest.raises(InfeasibleError, match=r"'product\d' loses 0\.00\d+ on sram0 \(bf16\)"):
        compiled(str(model), tmp_path / "a.gimlet", topology, 1e-5, bind={"n": 64}, pins={"product": "sram0:bf16"})


@pytest.mark.parametrize("budget", [-0.1, float("nan"), float("inf")])
def test_a_budget_that_is_none_is_refused(tmp_path: Path, topology: Path, model: Path, budget: float):
    with pytest.raises(UsageError, match="is no budget for losses"):
        compiled(str(model), tmp_path / "a.gimlet", topology, budget, bind={"n": 64})


def test_a_budget_asks_only_for_formats_that_a_device_has(tmp_path: Path, topology: Path, model: Path):
    with pytest.raises(UsageError, match="does not compute in 'int3'"):
        compiled(str(model), tmp_path / "a.gimlet", topology, 0.1, bind={"n": 64}, formats={"sram0": "int3"})


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "budget", "rounds"),
    [("direction", 0.01, True), ("recognition", 0.02, False), ("recognition", 0.1, True), ("minilm", 0.05, True)],
)
def test_real_models_stay_within_their_budget(tmp_path: Path, topology: Path, name: str, budget: float, rounds: bool):
    """Within 0.02 of recognition only parts may be rounded, and a launch for each costs more than it saves."""
    found = MODELS[name]
    bundle = compiled(found.source, tmp_path / "a.gimlet", topology, budget, bind=found.bind)
    assert bool({segment.format for segment in bundle.manifest.segments} & {"bf16", "mxint8"}) == rounds
    assert max(errors(bundle, found.source)) <= budget
    reference = reference_of(open_source(found.source))
    for seed in range(2):
        comparison = compare(open_bundle(bundle.path), reference, found.inputs(seed))
        assert max(output.relative_l2 for output in comparison.outputs.values()) <= budget
