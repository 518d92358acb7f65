"""Which targets of a device take part, which candidates are tried, and what is written of the winner."""

from pathlib import Path
from typing import ClassVar

import pytest
from tests.unit.compiler.costs.conftest import BOUNDS, MODEL, parse
from xdsl.dialects.builtin import ModuleOp
from xdsl.universe import Universe

from gimlet.compiler import compile as compile_under_test
from gimlet.compiler import settle as module_under_test
from gimlet.compiler.compile import Compilation
from gimlet.compiler.costs.timer import SegmentTimer, Timing
from gimlet.compiler.costs.trial import Candidate, Outcome
from gimlet.compiler.hardware import load_kind
from gimlet.compiler.lowering import settings_of
from gimlet.compiler.options import CompileOptions
from gimlet.compiler.placement.service import PlacementOptions, PlacementResult, PlacementService
from gimlet.compiler.settle import has_a_choice, settle
from gimlet.dialects.context import GimletContext
from gimlet.dialects.placement import SETTINGS, TARGET
from gimlet.dialects.universe import GIMLET_UNIVERSE
from gimlet.passes.entry import entry_function, is_constant
from gimlet.runtime.manifest import ModelInfo
from gimlet.targets.api import Device, Topology

CPU = Device("cpu", load_kind("host"))
HOST = Topology("host", (CPU,), (), "cpu")
MEASURED = PlacementOptions(cost_providers=(("cpu", "measured"),))


@pytest.fixture
def ctx() -> GimletContext:
    context = GimletContext()
    for name, factory in (Universe.get_multiverse().all_dialects | GIMLET_UNIVERSE.all_dialects).items():
        context.register_dialect(name, factory)
    return context


@pytest.fixture
def module(ctx: GimletContext) -> ModuleOp:
    return parse(ctx, MODEL)


@pytest.fixture(autouse=True)
def same_time_for_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("GIMLET_CACHE", str(tmp_path))
    monkeypatch.setattr(SegmentTimer, "time", lambda *_: Timing(1e-3, 1))


def place(module: ModuleOp, ctx: GimletContext, options: PlacementOptions, refusals=None) -> PlacementResult:
    return PlacementService(ctx, HOST).place(module, options, BOUNDS, refusals)


def targets_of(result: PlacementResult) -> set[str]:
    return {found.target for found in result.problem.places}


def ops_of(module: ModuleOp):
    return [op for op in entry_function(module).body.block.ops if not is_constant(op) and op.name.startswith("onnx.")]


def test_a_target_that_only_measuring_tells_apart_takes_part_where_that_is_done(module, ctx):
    assert targets_of(place(module, ctx, PlacementOptions())) == {"onnxruntime"}
    assert targets_of(place(module, ctx, MEASURED)) == {"onnxruntime", "openvino"}


@pytest.mark.parametrize("pin", ["cpu:openvino", "cpu:fp32:openvino"])
def test_or_where_a_pin_or_a_placement_names_it(module, ctx, tmp_path: Path, pin: str):
    found = place(module, ctx, PlacementOptions(pins=(("MatMul", pin),)))
    assert targets_of(found) == {"onnxruntime", "openvino"}
    found.save(tmp_path / "placement.json")
    again = place(module, ctx, PlacementOptions(placement=tmp_path / "placement.json"))
    assert again.solution.placement == found.solution.placement


class Chosen:
    """A trial whose outcome is known beforehand, and what it was given."""

    outcome = Outcome(0, (), (), 0)
    tried: tuple[Candidate, ...] = ()
    requests = 0
    shares: ClassVar[list[float]] = []

    def __init__(self, timer: SegmentTimer, requests: int = 1) -> None:
        del timer
        Chosen.requests = requests

    def choose(self, candidates: list[Candidate]) -> Outcome:
        Chosen.tried = tuple(candidates)
        return Chosen.outcome


def settled(
    module, ctx, monkeypatch, tmp_path: Path, outcome: Outcome, options=MEASURED, requests: int = 1
) -> PlacementResult:
    monkeypatch.setattr(module_under_test, "Trial", Chosen)
    Chosen.outcome = outcome
    timer = SegmentTimer(module, ctx, BOUNDS, {"rows": 8}, tmp_path)

    def placed(refusals, share: float) -> PlacementResult:
        Chosen.shares.append(share)
        return place(module, ctx, options, refusals)

    Chosen.shares.clear()
    return settle(module, CPU, timer, placed, {}, requests)


def test_each_target_alone_is_a_candidate_beside_the_free_placement(module, ctx, monkeypatch, tmp_path: Path):
    settled(module, ctx, monkeypatch, tmp_path, Outcome(1, ({"threads": 0},), (3e-3, 1e-3, 2e-3), 7))
    assert [found.name for found in Chosen.tried] == ["as placed", "onnxruntime alone", "openvino alone"]
    alone = Chosen.tried[2].parts
    assert [(part.target.name, len(part.ops), part.format) for part in alone] == [("openvino", 4, "fp32")]
    assert not Chosen.tried[2].is_mixed
    assert Chosen.shares == [0.5, 0.25, 0.25]


def test_without_the_package_only_the_first_target_is_a_candidate(module, ctx, monkeypatch, tmp_path: Path):
    monkeypatch.setattr("gimlet.targets.openvino.target.installed_version", lambda: None)
    settled(module, ctx, monkeypatch, tmp_path, Outcome(0, ({"threads": 0},), (1e-3, 1e-3), 7))
    assert [found.name for found in Chosen.tried] == ["as placed", "onnxruntime alone"]


def test_a_target_that_takes_a_part_is_tried_where_it_can_be(ctx, monkeypatch, tmp_path: Path):
    module = parse(ctx, MODEL.replace("onnx.Relu(%a)", "onnx.Mish(%a)"))
    monkeypatch.setattr("gimlet.targets.openvino.probes.static_refusal", lambda op: "no" if "Mish" in op.name else None)
    settled(module, ctx, monkeypatch, tmp_path, Outcome(0, ({"threads": 0},), (1e-3,) * 3, 7))
    assert [found.name for found in Chosen.tried] == ["as placed", "onnxruntime alone", "openvino where it can"]
    assert Chosen.tried[2].is_mixed


def test_the_winner_is_on_the_ops_with_its_settings(module, ctx, monkeypatch, tmp_path: Path):
    found = settled(module, ctx, monkeypatch, tmp_path, Outcome(2, ({"threads": 1},), (3e-3, None, 1e-3), 7))
    ops = ops_of(module)
    assert len(ops) == 4
    assert {op.attributes[TARGET].data for op in ops} == {"openvino"}
    assert [settings_of(op) for op in ops] == [{"threads": 1}] * 4
    assert found.notes[-1] == (
        "cpu: tried by 7 runs in turns: as placed 3.000 ms, onnxruntime alone cannot be built, "
        "openvino alone 1.000 ms; taken: openvino alone (threads 1)"
    )
    refusals = found.problem.nodes[0].refusals
    assert list(refusals.values()) == ["another of the device's targets was quicker when the whole was tried"]


BUSY = "; other work had 57% of the cores meanwhile, and the choice may not hold without it"


@pytest.mark.parametrize(
    ("others", "tries", "end"),
    [
        (None, 1, "(threads 1)"),
        (0.1, 1, "(threads 1)"),
        (0.57, 1, f"{BUSY}; the next compile tries again"),
        (0.57, 3, BUSY),
    ],
)
def test_the_note_says_that_other_work_may_have_decided(module, ctx, monkeypatch, tmp_path, others, tries: int, end):
    outcome = Outcome(2, ({"threads": 1},), (3e-3, None, 1e-3), 7, others, tries)
    assert settled(module, ctx, monkeypatch, tmp_path, outcome).notes[-1].endswith(end)


def test_default_settings_are_not_written(module, ctx, monkeypatch, tmp_path: Path):
    settled(module, ctx, monkeypatch, tmp_path, Outcome(2, ({"threads": 0},), (3e-3, 2e-3, 1e-3), 7))
    assert not any(SETTINGS in op.attributes for op in ops_of(module))


def test_streams_are_settings_too_and_the_note_says_how_many_requests_there_were(module, ctx, monkeypatch, tmp_path):
    chosen = {"threads": 0, "streams": 2}
    found = settled(module, ctx, monkeypatch, tmp_path, Outcome(2, (chosen,), (3e-3, 2e-3, 1e-3), 7), requests=2)
    assert [settings_of(op) for op in ops_of(module)] == [chosen] * 4
    assert Chosen.requests == 2
    assert "tried by 7 runs in turns with 2 requests in flight: " in found.notes[-1]
    assert found.notes[-1].endswith("taken: openvino alone (threads 0, streams 2)")


@pytest.mark.parametrize(("objective", "requests"), [("throughput", 6), ("latency", 1), ("energy", 1)])
def test_for_throughput_as_many_requests_are_in_flight_as_there_are_cores(
    module, ctx, monkeypatch, objective: str, requests: int
):
    asked: list[int] = []

    def known(module, device, timer, place, refusals, requests):
        asked.append(requests)

    monkeypatch.setattr(compile_under_test, "settle", known)
    monkeypatch.setattr(compile_under_test, "cores", lambda: 6)
    options = CompileOptions(HOST, objective=objective, cost_providers=MEASURED.cost_providers)  # type: ignore[arg-type]
    Compilation(module, ctx, options, ModelInfo("m", "none", "0" * 64))._settled(lambda refusals, share: None)  # type: ignore[arg-type]
    assert asked == [requests]


def test_a_candidate_that_a_pin_forbids_is_left_out(module, ctx, monkeypatch, tmp_path: Path):
    options = PlacementOptions(cost_providers=MEASURED.cost_providers, pins=(("Relu", "cpu:openvino"),))
    settled(module, ctx, monkeypatch, tmp_path, Outcome(0, ({"threads": 0},), (1e-3, 1e-3), 7), options)
    assert [found.name for found in Chosen.tried] == ["as placed", "openvino alone"]


def test_a_device_with_one_target_in_one_setting_gives_no_choice():
    assert has_a_choice(CPU)
    assert not has_a_choice(Device("gpu0", load_kind("nvidia/h100")))
