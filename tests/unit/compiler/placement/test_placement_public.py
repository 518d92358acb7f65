"""The public benchmark problems: what a file must be, what a split costs, and published optima."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from gimlet.compiler.placement.public.public_anneal import annealed
from gimlet.compiler.placement.public.public_format import (
    PublicNode,
    PublicProblem,
    PublicSplit,
    latency,
    load_public,
    max_load,
    memory,
)
from gimlet.compiler.placement.public.public_model import solve_public
from gimlet.compiler.placement.public.public_start import contiguous_start, units_of
from gimlet.runtime.errors import InfeasibleError, InputError
from gimlet.tools.gimlet_place import main


def data(**changes: Any) -> dict[str, Any]:
    """A chain of three nodes with the last two of one colour, beside a side branch."""
    nodes = [
        {"id": 1, "supportedOnFpga": 1, "cpuLatency": 10.0, "fpgaLatency": 1.0, "size": 5.0},
        {"id": 2, "supportedOnFpga": True, "cpuLatency": 20.0, "fpgaLatency": 2.0, "size": 5.0, "colorClass": 7},
        {"id": 3, "supportedOnFpga": 1, "cpuLatency": 30.0, "fpgaLatency": 3.0, "size": 5.0, "colorClass": 7},
        {"id": 4, "supportedOnFpga": 0, "cpuLatency": 0.5, "fpgaLatency": 9.0, "size": 5.0},
    ]
    edges = [
        {"sourceId": 1, "destId": 2, "cost": 0.25},
        {"sourceId": 2, "destId": 3, "cost": 0.5},
        {"sourceId": 1, "destId": 4, "cost": 0.25},
    ]
    return {"maxFPGAs": 2, "maxCPUs": 1, "maxSizePerFPGA": 12.0, "nodes": nodes, "edges": edges} | changes


@pytest.fixture
def problem(tmp_path: Path) -> PublicProblem:
    (tmp_path / "p.json").write_text(json.dumps(data()))
    return load_public(tmp_path / "p.json")


def split(problem: PublicProblem, devices: dict[int, int]) -> PublicSplit:
    device = tuple(devices[node.id] for node in problem.nodes)
    return PublicSplit(device, device)


def test_loads_count_each_value_once_on_both_ends(problem: PublicProblem):
    apart = split(problem, {1: 0, 2: 1, 3: 1, 4: 2})
    assert max_load(problem, apart) == 0.25 + 2.0 + 3.0
    assert memory(problem, apart) == [5.0, 10.0]
    assert latency(problem, apart) == (1.0 + 0.25) + (0.25 + 5.0)


def test_the_cpu_pays_for_no_transfer(problem: PublicProblem):
    assert max_load(problem, split(problem, {1: 2, 2: 2, 3: 2, 4: 2})) == 60.5
    assert latency(problem, split(problem, {1: 2, 2: 2, 3: 2, 4: 2})) == 60.0


def test_subgraphs_that_wait_for_each_other(problem: PublicProblem):
    cyclic = PublicSplit(split(problem, {1: 0, 2: 1, 3: 0, 4: 2}).device, (0, 1, 0, 2))
    order = [node.id for node in problem.nodes]
    numbers = {1: 0, 2: 1, 3: 0, 4: 2}
    with pytest.raises(InputError, match="wait for each other"):
        latency(problem, PublicSplit(cyclic.device, tuple(numbers[node] for node in order)))


def test_the_best_split_is_found(problem: PublicProblem):
    answer = solve_public(problem, "throughput", contiguous=True)
    assert answer.status == "optimal"
    assert answer.objective == 5.25
    assert answer.bound == pytest.approx(5.25, rel=1e-5)
    assert max(memory(problem, answer.split)) <= problem.capacity


def changed(number: int = 0, **fields: Any) -> dict[str, Any]:
    """The problem's nodes with other fields in one."""
    return {"nodes": [{**node, **(fields if place == number else {})} for place, node in enumerate(data()["nodes"])]}


def edge(source: object, destination: object, cost: object) -> dict[str, object]:
    return {"sourceId": source, "destId": destination, "cost": cost}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 3}, "needs 'nodes', a list"),
        ({"nodes": None}, "needs 'nodes', a list"),
        ({"edges": {}}, "needs 'edges', a list"),
        ({"maxFPGAs": "two"}, "needs 'maxFPGAs', a whole number"),
        ({"maxFPGAs": 1.5}, "needs 'maxFPGAs', a whole number that is not negative"),
        ({"maxCPUs": -1}, "needs 'maxCPUs', a whole number that is not negative"),
        ({"maxCPUs": True}, "needs 'maxCPUs', a whole number"),
        ({"maxSizePerFPGA": -1.0}, "needs 'maxSizePerFPGA', a number from 0"),
        ({"maxSizePerFPGA": float("inf")}, "needs 'maxSizePerFPGA', a number from 0"),
        (changed(2, cpuLatency=float("nan")), "nodes[2]: needs 'cpuLatency', a number from 0"),
        (changed(2, fpgaLatency=1e300), "nodes[2]: needs 'fpgaLatency', a number from 0 to 1e+100"),
        (changed(2, fpgaLatency=10**400), "nodes[2]: needs 'fpgaLatency', a number from 0"),
        (changed(1, size="big"), "nodes[1]: needs 'size', a number"),
        (changed(1, size=None), "nodes[1]: needs 'size', a number"),
        (changed(1, id=1.5), "nodes[1]: needs 'id', a whole number"),
        (changed(1, id="1"), "nodes[1]: needs 'id', a whole number"),
        (changed(1, id=1), "nodes[1]: nodes[0] has the id 1 already"),
        (changed(1, colorClass="red"), "nodes[1]: needs 'colorClass', a whole number"),
        (changed(3, supportedOnFpga=2), "nodes[3]: needs 'supportedOnFpga', true or false"),
        (changed(3, supportedOnFpga="no"), "nodes[3]: needs 'supportedOnFpga', true or false"),
        (changed(3, isBackwardNode=0.5), "nodes[3]: needs 'isBackwardNode', true or false"),
        ({"nodes": [{"id": 1}], "edges": []}, "nodes[0]: needs 'supportedOnFpga'"),
        ({"nodes": [5], "edges": []}, "nodes[0]: needs 'id'"),
        ({"edges": [7]}, "edges[0]: needs 'sourceId'"),
        ({"edges": [edge(1, 9, 1.0)]}, "edges[0]: there is no node 9"),
        ({"edges": [edge(1, 2.5, 1.0)]}, "edges[0]: needs 'destId', a whole number"),
        ({"edges": [edge(1, 2, 0.5), edge(1, 2, -1.0)]}, "edges[1]: needs 'cost'"),
        ({"edges": [edge(1, 2, 0.5), edge(1, 3, 0.75)]}, "edges[1]: node 1 costs 0.5 in an edge before and 0.75 here"),
        ({"edges": [edge(1, 1, 1.0)]}, "edges: the graph has a cycle: 1 -> 1"),
        (
            {"edges": [edge(1, 2, 1.0), edge(2, 3, 1.0), edge(3, 2, 1.0), edge(3, 4, 1.0)]},
            "edges: the graph has a cycle: 2 -> 3 -> 2",
        ),
    ],
)
def test_bad_files(tmp_path: Path, changes: dict[str, Any], message: str):
    (tmp_path / "p.json").write_text(json.dumps(data(**changes)))
    with pytest.raises(InputError) as error:
        load_public(tmp_path / "p.json")
    assert message in str(error.value).replace("\n", " ")


def test_an_edge_that_is_given_twice_counts_once(tmp_path: Path):
    (tmp_path / "p.json").write_text(json.dumps(data(edges=data()["edges"] * 2)))
    twice = load_public(tmp_path / "p.json")
    assert len(twice.edges) == 3
    assert solve_public(twice, "throughput", contiguous=True).objective == 5.25


def test_a_problem_that_fits_nowhere(tmp_path: Path):
    (tmp_path / "p.json").write_text(json.dumps(data(maxCPUs=0)))
    with pytest.raises(InfeasibleError, match="no split fits"):
        solve_public(load_public(tmp_path / "p.json"), "throughput", contiguous=True)


def test_units_on_a_cycle_become_one(tmp_path: Path):
    """1 and 3 share a colour, so 2 between them has to come along where data flows forward only."""
    nodes = [{**node, "colorClass": 1 if node["id"] in (1, 3) else node["id"] + 10} for node in data()["nodes"]]
    (tmp_path / "p.json").write_text(json.dumps(data(nodes=nodes)))
    problem = load_public(tmp_path / "p.json")
    assert sorted(len(unit) for unit in units_of(problem, contiguous=True).members) == [1, 3]
    assert sorted(len(unit) for unit in units_of(problem, contiguous=False).members) == [1, 1, 2]


def test_published_optimum_of_bert24(root: Path):
    problem = load_public(root / "benchmarks" / "data" / "placement" / "throughput_bert24_inference.json")
    answer = solve_public(problem, "throughput", contiguous=True)
    assert answer.objective == pytest.approx(17.7899, abs=5e-5)
    assert answer.status == "optimal"
    assert answer.gap < 1e-4
    assert answer.objective == max_load(problem, answer.split)


def test_a_start_is_a_split(root: Path):
    problem = load_public(root / "benchmarks" / "data" / "placement" / "throughput_resnet50_inference.json")
    start = contiguous_start(problem, units_of(problem, contiguous=True), "throughput")
    assert start is not None
    assert max_load(problem, start) < 36.0
    assert max(memory(problem, start)) <= problem.capacity


def test_the_command_prints_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "p.json").write_text(json.dumps(data()))
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "p.json"), "--contiguous", "--json"])
    assert stop.value.code in (0, None)
    printed = json.loads(capsys.readouterr().out)
    assert printed["objective"] == 5.25
    assert printed["status"] == "optimal"
    assert set(printed["assignment"]) == {"1", "2", "3", "4"}
    assert printed["assignment"]["4"] == "cpu0"


def test_the_command_names_a_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "p.json").write_text("{")
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "p.json")])
    assert stop.value.code == 1
    assert "p.json: is not JSON" in capsys.readouterr().err


def test_annealing_improves_a_start_and_keeps_to_memory(root: Path):
    problem = load_public(root / "benchmarks" / "data" / "placement" / "throughput_bert_l-3_inference.json")
    units = units_of(problem, contiguous=False)
    start = contiguous_start(problem, units, "throughput")
    assert start is not None
    found = annealed(problem, units, start, steps=40_000)
    assert max_load(problem, found) < 0.9 * max_load(problem, start)
    assert max(memory(problem, found)) <= problem.capacity
    assert all(len({found.device[node] for node in members}) == 1 for members in units.members)


@pytest.mark.parametrize("seed", range(8))
def test_annealing_keeps_to_what_devices_take(seed: int):
    """Nodes that no accelerator takes stay on the CPU, and the loads it counts are those of the split."""
    draw = random.Random(seed)
    nodes = tuple(
        PublicNode(index, draw.random() < 0.7, draw.uniform(1, 9), draw.uniform(0.1, 2), draw.uniform(1, 3), None)
        for index in range(12)
    )
    edges = tuple((a, b) for b in range(12) for a in range(b) if draw.random() < 0.3)
    cost = tuple(draw.uniform(0, 1) for _ in nodes)
    problem = PublicProblem(2, 1, 9.0, nodes, edges, cost)
    units = units_of(problem, contiguous=False)
    on_cpu = PublicSplit((2,) * 12, (2,) * 12)
    found = annealed(problem, units, on_cpu, steps=5_000, seed=seed)
    assert max_load(problem, found) < max_load(problem, on_cpu)
    assert max(memory(problem, found)) <= problem.capacity
    assert all(node.on_accelerator or device == 2 for node, device in zip(nodes, found.device, strict=True))
