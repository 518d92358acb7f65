"""Placement of a module: the problem is built from the IR, solved, and the answer written on the ops.

    service = PlacementService(ctx, topology)
    result = service.place(module, options, bounds, refusals)
    result.objective, result.bound, result.gap, result.status

Every op of @main but constants gets `placement.device`, `placement.format` and `placement.segment`, and
`placement.target` where its device has several targets for the format; ops with the same
number are one segment, and the numbers are an order in which the segments can run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, StringAttr, SymbolRefAttr, i64
from xdsl.ir import Operation
from xdsl.traits import IsTerminator

from gimlet.compiler.bounds import read_bounds
from gimlet.compiler.costs.choose import make_providers
from gimlet.compiler.costs.provider import MEASURED, parse_providers
from gimlet.compiler.hardware.option_names import check_option_names
from gimlet.compiler.losses.model import LossModel, LossSite
from gimlet.compiler.options import default_cache
from gimlet.compiler.placement.bounds.lower_bound import lower_bound
from gimlet.compiler.placement.exact.cpsat import Limits
from gimlet.compiler.placement.model.limits import joined, parse_bounds, separated
from gimlet.compiler.placement.model.problem import Objective, Placement, Problem, Rules
from gimlet.compiler.placement.model.rules import (
    complete_placement,
    file_pins,
    load_placement,
    only_where_named,
    pinned,
    refused,
    save_placement,
    shares,
)
from gimlet.compiler.placement.model.schedule import Schedule, violations
from gimlet.compiler.placement.model.segments import judge
from gimlet.compiler.placement.reading.build import Targets, build_problem, sites_of, structure
from gimlet.compiler.placement.reading.costs_json import costs_to_json, load_costs, with_costs
from gimlet.compiler.placement.reading.graph import ASSUMED_SIZE, ModuleGraph, op_key, read_graph
from gimlet.compiler.placement.reading.ir_topology import read_topology
from gimlet.compiler.placement.reasons.coverage import coverage
from gimlet.compiler.placement.reasons.explain import explanation
from gimlet.compiler.placement.reasons.predicted import SegmentFigures, segment_figures
from gimlet.compiler.placement.solve import Solution, solve
from gimlet.compiler.placement.within_budget import Loss, check_budget, checked, solve_within
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx.work import runs_unknown_times
from gimlet.dialects.placement import DEVICE, FORMAT, SEGMENT_HINT, TARGET
from gimlet.passes.entry import is_constant
from gimlet.runtime.errors import InfeasibleError, UsageError
from gimlet.runtime.manifest import PlacementSummary
from gimlet.targets import registry
from gimlet.targets.api import DimBound, Target, Topology


class Options(Protocol):
    """What placement reads of the compile's options (`gimlet.compiler.options.CompileOptions` has it all)."""

    @property
    def objective(self) -> Objective: ...
    @property
    def pins(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def formats(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def min_shares(self) -> tuple[tuple[str, float], ...]: ...
    @property
    def placement(self) -> Path | None: ...
    @property
    def costs(self) -> Path | None: ...
    @property
    def cost_providers(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def cache(self) -> Path: ...
    @property
    def max_segments(self) -> int | None: ...
    @property
    def bounds(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def together(self) -> tuple[str, ...]: ...
    @property
    def apart(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def loss_budget(self) -> float | None: ...
    @property
    def loss_inputs(self) -> Mapping[str, NDArray[Any]] | None: ...
    @property
    def time_limit_s(self) -> float | None: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class PlacementOptions:
    """Options of placement alone, as `gimlet.compiler.options.CompileOptions` has them.

    `work` is the solver's deterministic work limit, about seconds on one idle core; it is not used where `time_limit_s`
    says how long it may take by the clock.
    """

    objective: Objective = "latency"
    pins: tuple[tuple[str, str], ...] = ()
    formats: tuple[tuple[str, str], ...] = ()
    min_shares: tuple[tuple[str, float], ...] = ()
    placement: Path | None = None
    costs: Path | None = None
    cost_providers: tuple[tuple[str, str], ...] = ()
    cache: Path = field(default_factory=default_cache)
    time_limit_s: float | None = None
    seed: int = 0
    bounds: tuple[tuple[str, str], ...] = ()
    together: tuple[str, ...] = ()
    apart: tuple[tuple[str, str], ...] = ()
    max_segments: int | None = None
    loss_budget: float | None = None
    loss_inputs: Mapping[str, NDArray[Any]] | None = None
    work: float = 2.0


@dataclass(frozen=True)
class PlacementResult:
    """A module's placement: the problem that was solved, the answer, and what has to be said about it."""

    problem: Problem
    solution: Solution
    notes: tuple[str, ...] = ()
    loss: Loss | None = None

    @property
    def schedule(self) -> Schedule:
        return self.solution.schedule

    @property
    def objective(self) -> float:
        """The value of the objective, from the schedule: seconds, joules or US dollars."""
        return self.solution.objective

    @property
    def bound(self) -> float:
        """A lower bound on the objective of every placement of the ops."""
        return self.solution.bound

    @property
    def gap(self) -> float:
        return self.solution.gap

    @property
    def status(self) -> str:
        return self.solution.status

    @cached_property
    def grouped(self) -> tuple[str, str] | None:
        """The first op that is placed on a group, and the group; None where there is none."""
        problem = self.problem
        for node, place in zip(problem.nodes, self.solution.placement.place, strict=True):
            device = problem.devices[problem.device_of[place]]
            if device.members:
                return f"{node.op_type} {node.name!r}", device.name
        return None

    @cached_property
    def devices(self) -> dict[str, str]:
        """The device of each op, by its name."""
        problem = self.problem
        return {
            node.name: problem.devices[problem.device_of[place]].name
            for node, place in zip(problem.nodes, self.solution.placement.place, strict=True)
        }

    def summary(self) -> PlacementSummary:
        """What the bundle's manifest says of it."""
        found = self.schedule
        return PlacementSummary(
            self.problem.rules.objective,
            self.objective,
            self.bound,
            self.gap,
            self.status,
            found.latency_s,
            found.period_s,
            found.energy_j,
            found.cost_usd,
        )

    def segments(self) -> dict[int, SegmentFigures]:
        """What is promised of each segment, by the number that its ops have."""
        figures = segment_figures(self.problem, self.solution.placement, self.schedule)
        return {each.segment: each for each in figures}

    def transfers(self) -> dict[tuple[str, str, str], float]:
        """Seconds that each value takes alone, by its name, the device that it comes from and the one it goes to."""
        names = [device.name for device in self.problem.devices]
        return {
            (self.problem.values[item.value].name, names[item.source], names[item.destination]): item.seconds
            for item in self.schedule.transfers
        }

    def costs(self) -> dict[str, Any]:
        """The costs it was made from, as `--costs` reads them."""
        return costs_to_json(self.problem)

    def explain(self) -> dict[str, Any]:
        """Every op's device and alternatives, segments and transfers, as `--explain --json` prints them."""
        found = explanation(self.problem, self.solution, self.notes)
        return found if self.loss is None else found | {"loss": asdict(self.loss)}

    def coverage(self) -> dict[str, Any]:
        """What each place could run, what it refuses, and a recommendation, as `--dry-run --json` prints them."""
        return coverage(self.problem, self.solution)

    def save(self, path: Path) -> None:
        """Writes the placement for `--placement`."""
        save_placement(path, self.problem, self.solution.placement)


class PlacementService:
    """Places modules on one topology. `targets` lists targets by device; by default those of the device's kind."""

    def __init__(self, ctx: GimletContext, topology: Topology, targets: Targets | None = None) -> None:
        self.ctx = ctx
        self.topology = topology
        self._targets = targets
        self._losses: LossModel | None = None

    @cached_property
    def targets(self) -> Targets:
        """The targets of each device."""
        if self._targets is not None:
            return self._targets
        found = {device.name: [registry.load(name) for name in device.kind.targets] for device in self.topology.devices}
        for device in self.topology.devices:
            check_option_names(device.kind, found[device.name])
        return found

    def place(
        self,
        module: ModuleOp,
        options: Options,
        bounds: Mapping[str, DimBound],
        refusals: Mapping[tuple[str, str], str] | None = None,
    ) -> PlacementResult:
        """Places `module` and writes the answer on its ops.

        `refusals` are reasons by (op, place) that builds have given, the op as `op_key` names it and the place as a pin
        does. InputError for an op that no device takes, UsageError for a pin that matches nothing, InfeasibleError
        where limits cannot be met.
        """
        graph = read_graph(module, {name: bound.optimum for name, bound in bounds.items()})
        problem = refused(self._problem(module, graph, options, bounds), refusals or {}, _by_key(graph))
        limits = Limits(
            work=float("inf") if options.time_limit_s is not None else getattr(options, "work", PlacementOptions.work),
            seconds=options.time_limit_s,
            seed=options.seed,
        )
        pins, fixed, unkept = _of_file(problem, options)
        pins |= pinned(problem, options.pins)
        if options.loss_budget is None and options.costs is None:
            problem, pins = only_where_named(problem, pins, self._named_only(problem, options))
        free = replace(
            problem.rules,
            objective=options.objective,
            bounds=parse_bounds(options.bounds),
            together=(*problem.rules.together, *joined(problem, options.together)),
            apart=tuple(separated(problem, options.apart)),
            max_segments=options.max_segments,
            min_share=shares(problem, options.min_shares),
            loss_budget=options.loss_budget,
        )
        problem = problem.with_rules(replace(free, pins=pins))
        loss = None
        if options.loss_budget is not None:
            losses = self._loss_model(module, graph, problem, options)
            problem = losses.with_losses(problem)
            if fixed is None:
                problem, solution, loss = solve_within(problem, limits, losses)
            else:
                loss = checked(problem, fixed.place, losses)
                solution = _forced(problem, fixed)
        else:
            solution = solve(problem, limits) if fixed is None else _forced(problem, fixed)
        _write(graph, problem, solution.placement)
        notes = (*self._notes(graph, problem), *unkept)
        return PlacementResult(problem, solution, notes, loss)

    def _loss_model(self, module: ModuleOp, graph: ModuleGraph, problem: Problem, options: Options) -> LossModel:
        """What measures losses on the problem's places; the same for placements of one module on the same places."""
        names = {target.name: target for targets in self.targets.values() for target in targets}
        sites: list[LossSite] = []
        for place in problem.places:
            target = names[place.target]
            device = target.deciding(self.topology.devices[problem.units[place.device][0]])
            sites.append(LossSite(device, target, place.format))
        if self._losses is None or self._losses.module is not module or self._losses.sites != sites:
            self._losses = LossModel(module, self.ctx, graph, sites, options.loss_inputs, options.seed, options.cache)
        return self._losses

    def _problem(
        self, module: ModuleOp, graph: ModuleGraph, options: Options, bounds: Mapping[str, DimBound]
    ) -> Problem:
        chosen = parse_providers(options.cost_providers, [device.name for device in self.topology.devices])
        if options.costs is not None and chosen:
            raise UsageError("saved costs and a cost provider exclude each other", hint="leave one of them out")
        if options.costs is not None:
            data = load_costs(options.costs)
            return with_costs(structure(graph, self.topology), graph, data, str(options.costs))
        formats: dict[str, list[str]] = {}
        for device, fmt in options.formats:
            formats.setdefault(device, []).append(fmt)
        deciding = options.loss_budget is not None
        check_budget(options.loss_budget)
        if not deciding:
            for device, named in self._named_formats(options).items():
                formats.setdefault(device, [self._default_format(device)])
                formats[device] += [fmt for fmt in named if fmt not in formats[device]]
        in_pieces = getattr(options, "max_segments", None) != 1
        providers = make_providers(chosen, module, self.ctx, bounds, graph, options.cache, in_pieces=in_pieces)
        sites = sites_of(self.topology, self._taking_part(options, chosen), formats, deciding=deciding)
        return build_problem(graph, self.topology, sites, providers)

    def _default_format(self, device: str) -> str:
        """The format that a device computes in unless another is asked for."""
        found = self.topology.device(device)
        return next((fmt for target in self.targets[device] for fmt in target.formats(found)), "")

    def _named_formats(self, options: Options) -> dict[str, list[str]]:
        """The formats that pins and a placement file name, by device: naming one is asking for it."""
        found: dict[str, list[str]] = {}
        for name in _named_places(options):
            device, *parts = name.split(":")
            offered = {fmt for target in self.targets.get(device, ()) for fmt in self._formats(target, device)}
            found.setdefault(device, []).extend(part for part in parts if part in offered)
        return {device: list(dict.fromkeys(formats)) for device, formats in found.items() if formats}

    def _formats(self, target: Target, device: str) -> Sequence[str]:
        return target.formats(self.topology.device(device))

    def _named_only(self, problem: Problem, options: Options) -> frozenset[int]:
        """The places in formats that are neither their device's own nor in `--format`, but named by a pin or a file."""
        asked = {device for device, _ in options.formats}
        wide = {(name, fmt) for name, fmt in options.formats} | {
            (device.name, self._default_format(device.name))
            for device in self.topology.devices
            if device.name not in asked
        }
        return frozenset(
            number
            for number, place in enumerate(problem.places)
            if (problem.devices[problem.units[place.device][0]].name, place.format) not in wide
        )

    def _taking_part(self, options: Options, providers: Mapping[str, str]) -> Targets:
        """The targets of each device but those that only measuring tells apart, where nothing is measured or named."""
        named = _named_places(options)
        return {
            device: [
                target
                for index, target in enumerate(targets)
                if not index
                or not target.told_apart_by_measuring
                or providers.get(device) == MEASURED
                or any(name.split(":")[0] == device and target.name in name.split(":")[1:] for name in named)
            ]
            for device, targets in self.targets.items()
        }

    def _notes(self, graph: ModuleGraph, problem: Problem) -> Sequence[str]:
        notes: list[str] = [*problem.notes, *_control_flow(graph)]
        if graph.assumed:
            notes.append(f"dimensions without bounds are taken as {ASSUMED_SIZE}: {', '.join(graph.assumed)}")
        notes += [f"state {each.name} is copied in every run: {each.copied}" for each in graph.states if each.copied]
        if problem.rules.objective == "energy":
            unknown = [device.name for device in problem.devices if device.idle_w is None]
            if unknown:
                notes.append(f"idle power is not known and counts as none: {', '.join(unknown)}")
        return notes


def make_service() -> Callable[..., PlacementResult]:
    """What `place-by-cost` calls: places a module on the topology that it holds itself.

    The function takes the module, the context, and fields of `PlacementOptions` by name.
    """

    def place(module: ModuleOp, ctx: GimletContext, **options: Any) -> PlacementResult:
        service = PlacementService(ctx, read_topology(module))
        return service.place(module, PlacementOptions(**options), read_bounds(module))

    return place


def _named_places(options: Options) -> list[str]:
    """The places that pins and a placement file name, spelled as a pin spells them."""
    names = [name for _, name in options.pins]
    if options.placement is not None:
        file = load_placement(options.placement)
        names += [name for _, name in file.rules] + [name for name, _ in file.assign.values()]
    return names


def _of_file(problem: Problem, options: Options) -> tuple[dict[int, frozenset[int]], Placement | None, list[str]]:
    """What a placement file asks for: pins, or all of the placement; and a note where its segments are not kept."""
    if options.placement is None:
        return {}, None, []
    file = load_placement(options.placement)
    pins = file_pins(problem, file, str(options.placement))
    found = complete_placement(problem.with_rules(Rules(pins=pins)), file)
    if isinstance(found, Placement) and not options.pins:
        return pins, found, []
    reason = found if isinstance(found, str) else "pins are given too"
    given = any(segment is not None for _, segment in file.assign.values())
    return pins, None, [f"the segments of {options.placement} are not kept: {reason}"] if given else []


def _by_key(graph: ModuleGraph) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, unit in enumerate(graph.units):
        for op in unit.ops:
            found.setdefault(op_key(op), []).append(number)
    return found


def _forced(problem: Problem, placement: Placement) -> Solution:
    """The answer where a file leaves nothing open. Its bound is that of the free problem: what forcing costs."""
    found = judge(problem, placement)
    broken = violations(problem, placement, found.schedule)
    if broken:
        raise InfeasibleError("the placement that was given breaks limits: " + "; ".join(text for _, text in broken))
    objective = found.schedule.figure(problem.rules.objective)
    bound = lower_bound(problem.with_rules(replace(problem.rules, pins={}))).value
    return Solution(
        placement, found.schedule, objective, min(bound, objective), "forced", 0.0, groups=len(problem.nodes)
    )


def _write(graph: ModuleGraph, problem: Problem, placement: Placement) -> None:
    """Writes device, format and segment on every op, and the target where its device has several for the format."""
    served = Counter((place.device, place.format) for place in problem.places)
    several = {key for key, count in served.items() if count > 1}
    for unit, place, segment in zip(graph.units, placement.place, placement.segment, strict=True):
        found = problem.places[place]
        for op in unit.ops:
            op.attributes[DEVICE] = SymbolRefAttr(problem.devices[found.device].name)
            op.attributes[FORMAT] = StringAttr(found.format)
            if (found.device, found.format) in several:
                op.attributes[TARGET] = StringAttr(found.target)
            op.attributes[SEGMENT_HINT] = IntegerAttr(segment, i64)


def _control_flow(graph: ModuleGraph) -> Iterator[str]:
    """Says of ops with subgraphs that nothing inside of them is placed by itself, and how much that is."""
    units = {unit.name: count for unit in graph.units if (count := sum(_inner_ops(op) for op in unit.ops))}
    if units:
        named = ", ".join(f"{name} ({count} ops inside)" for name, count in units.items())
        yield f"control flow is one unit, with all that is in its bodies: {named}"
    endless = [unit.name for unit in graph.units if any(runs_unknown_times(op) for op in unit.ops)]
    if endless:
        yield f"how often a body runs is not known, costs are those of one run of it: {', '.join(endless)}"


def _inner_ops(op: Operation) -> int:
    nested = (inner for region in op.regions for inner in region.walk())
    return sum(not is_constant(inner) and not inner.has_trait(IsTerminator) for inner in nested)
