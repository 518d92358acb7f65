"""The compile: from a source to a bundle, phase by phase.

    source → module (import) → normalize → quantize → annotate → place → split → lower, emit → bundle

A split that a target cannot build goes back to `place` with what was refused, at most `MAX_ROUNDS` times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from xdsl.dialects.builtin import IntegerAttr, ModuleOp
from xdsl.passes import ModulePass

from gimlet.compiler.bounds import (
    check_bounded,
    check_sizes,
    may_depend_on_data,
    merge_bounds,
    narrow,
    read_bounds,
    resolve_axes,
    write_bounds,
)
from gimlet.compiler.bundle import BundleWriter, check_target
from gimlet.compiler.collection import rare_collection
from gimlet.compiler.costs.provider import MEASURED, parse_providers
from gimlet.compiler.costs.timer import SegmentTimer
from gimlet.compiler.hardware.host import cores
from gimlet.compiler.instruments import Instrument, observe
from gimlet.compiler.ir_text import module_text
from gimlet.compiler.lowering import BuildFailure, Lowering, segments_of
from gimlet.compiler.manifest_ir import ManifestParts, dim_ranges, manifest_parts
from gimlet.compiler.options import PHASES, CompileOptions
from gimlet.compiler.pipeline import FUSE, NORMALIZE, SPLIT, phase_of, run_passes, set_phase
from gimlet.compiler.placement.reading.graph import op_key
from gimlet.compiler.placement.service import PlacementResult, PlacementService
from gimlet.compiler.progress import Progress
from gimlet.compiler.settle import Place, Refusals, has_a_choice, settle
from gimlet.compiler.signature_ir import read_signature
from gimlet.compiler.states import check_states, keep_marks
from gimlet.compiler.topology_ir import set_topology
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx.names import value_name
from gimlet.dialects.onnx.types import shape_of
from gimlet.dialects.placement import SEGMENT_HINT
from gimlet.passes.annotate_costs import AnnotateCostsPass
from gimlet.passes.bind_dims import BindDimsPass
from gimlet.passes.entry import entry_function
from gimlet.passes.mark_in_place import MarkInPlacePass
from gimlet.passes.scatter_states import ScatterStatesPass
from gimlet.passes.stale_shapes import forget_stale_shapes, say_stale
from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr
from gimlet.runtime.manifest import (
    Default,
    DeviceEntry,
    LinkEntry,
    Manifest,
    ModelInfo,
    PlacementSummary,
    Segment,
    Step,
    TopologyEntry,
    Transfer,
)
from gimlet.targets import registry
from gimlet.targets.api import Device, DimBound, Topology

MAX_ROUNDS: Final = 5
_PRODUCERS: Final = ("gimlet-compiler", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "xdsl", "ortools", "torch")


@dataclass
class Compilation:
    """One compile on its way: the module in its phase, and what was found out so far."""

    module: ModuleOp
    ctx: GimletContext
    options: CompileOptions
    model: ModelInfo
    progress: Progress = field(default_factory=lambda: Progress(quiet=True))
    placement: PlacementResult | None = None
    refusals: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    instruments: Sequence[Instrument] = ()
    # Whether --bind was applied. A module that comes from a file after normalize has it from then, or gets it now.
    _is_bound: bool = False

    @property
    def bounds(self) -> dict[str, DimBound]:
        """The ranges of the dimensions that are still symbolic."""
        return read_bounds(self.module)

    @rare_collection()
    def run_to(self, phase: str) -> None:
        """Goes on from the module's phase up to and including `phase`, which is at most `split`."""
        done = PHASES.index(phase_of(self.module))
        for name in PHASES[done + 1 : PHASES.index(phase) + 1]:
            with self.progress.phase(name):
                getattr(self, f"_{name}")()
            set_phase(self.module, name)

    def _normalize(self) -> None:
        waiting = self.bind()
        self._run([*NORMALIZE, *(FUSE if self.options.fuse else ())])
        check_states(self.module)
        narrow(self.module, waiting)

    def _quantize(self) -> None:
        """Number formats stay as they were imported."""

    def _annotate(self) -> None:
        self._run([ScatterStatesPass(), MarkInPlacePass(), AnnotateCostsPass()])

    def _place(self) -> None:
        if not self._is_bound:
            narrow(self.module, self.bind())
        block = entry_function(self.module).body.block
        check_bounded(self._input_symbols(), self.bounds, block)
        check_sizes(block, self.bounds)
        set_topology(self.module, self.options.topology)
        observe("place", self.module, self._solve, self.module.verify, self.instruments)

    def _solve(self) -> None:
        service = PlacementService(self.ctx, self.options.topology)

        def place(refusals: Refusals, share: float) -> PlacementResult:
            limit = self.options.time_limit_s
            options = self.options if limit is None else replace(self.options, time_limit_s=limit * share)
            return service.place(self.module, options, self.bounds, refusals)

        self.placement = self._settled(place)

    def _settled(self, place: Place) -> PlacementResult:
        """The placement, tried out on the devices whose costs are measured and which give a choice."""
        if self.options.placement is not None or self.options.costs is not None:
            return place(self.refusals, 1.0)
        names = [device.name for device in self.options.topology.devices]
        chosen = parse_providers(self.options.cost_providers, names)
        for name in (name for name, provider in chosen.items() if provider == MEASURED):
            device = self.options.topology.device(name)
            if has_a_choice(device):
                sizes = {dim: bound.optimum for dim, bound in self.bounds.items()}
                timer = SegmentTimer(self.module, self.ctx, self.bounds, sizes, self.options.cache)
                requests = max(2, cores()) if self.options.objective == "throughput" else 1
                return settle(self.module, device, timer, place, self.refusals, requests)
        return place(self.refusals, 1.0)

    def _split(self) -> None:
        grouped = None if self.placement is None else self.placement.grouped
        if grouped is not None:
            raise InputError(
                f"is placed on group {grouped[1]}, and programs for groups of devices are not made yet",
                where=grouped[0],
                hint="--dry-run prints the plan; leave [[group]] out of the topology, or pin the op to a device",
            )
        keep_marks(self.module, self.options.topology)
        self._run(SPLIT)

    def _run(self, passes: Sequence[str | ModulePass]) -> None:
        run_passes(self.module, self.ctx, passes, self.instruments)

    def bind(self) -> dict[str, DimBound]:
        """Applies `--bind`: fixed dimensions become constants, the others get their ranges.

        Returns the bindings of what no input has: dimensions that depend on data get their names when shapes are
        inferred. What nobody bounds stays open until placement, which needs a size.
        """
        self._is_bound = True
        shapes, symbols = self._input_shapes(), self._input_symbols()
        bindings = resolve_axes(self.options.bindings, shapes)
        waiting = {name: bound for name, bound in bindings.items() if may_depend_on_data(name) and name not in symbols}
        bounds = merge_bounds(symbols, self.bounds, {n: bound for n, bound in bindings.items() if n not in waiting})
        fixed = {name: bound.minimum for name, bound in bounds.items() if bound.minimum == bound.maximum}
        write_bounds(self.module, {name: bound for name, bound in bounds.items() if name not in fixed})
        if fixed:
            self._run([BindDimsPass(names=tuple(fixed), sizes=tuple(fixed.values()))])
            # What the model says of a rank or a size may be wrong in a way that only numbers show.
            say_stale(forget_stale_shapes(self.module), self.progress.say)
        return waiting

    def _input_shapes(self) -> dict[str, Sequence[Expr | None]]:
        function = entry_function(self.module)
        return {value_name(value): shape_of(value) or () for value in function.body.block.args}

    def _input_symbols(self) -> set[str]:
        shapes = self._input_shapes().values()
        return {name for shape in shapes for dim in shape if dim is not None for name in dim.symbols}

    @rare_collection()
    def emit(self, output: Path, *, force: bool) -> tuple[str, Manifest]:
        """Splits, lowers and writes the bundle; goes back to `place` where a target cannot build a segment.

        Returns the bundle's id and its manifest. InputError with every reason after `MAX_ROUNDS` rounds.
        """
        check_target(output, force=force)
        self.run_to("annotate")
        annotated = self.module if phase_of(self.module) == "annotate" else None
        failures: list[BuildFailure] = []
        for _ in range(MAX_ROUNDS):
            if annotated is not None:
                self.module = annotated.clone()
            self.run_to("split")
            with BundleWriter(output, force=force) as writer:
                lowering = Lowering(self.module, self.ctx, self.options, self.bounds, writer, self.progress)
                segments, failed = lowering.run()
                segments = self.predicted(segments)
                if not failed:
                    writer.write_text("module.mlir", module_text(self.module))
                    manifest = self.manifest(segments, lowering.defaults())
                    return writer.commit(manifest), manifest
            failures += failed
            if annotated is None:
                break
            self.refuse(failed)
        raise InputError(
            "no split of the model could be built:\n" + "\n".join(f"  {f.device}: {f.reason}" for f in failures),
            hint="pin the ops named to another device with --pin 'NAME=DEVICE'",
        )

    def refuse(self, failures: list[BuildFailure]) -> None:
        """Remembers what could not be built, for the next placement."""
        for failure in failures:
            self.progress.say(f"cannot build {failure.reason}; placing again without it on {failure.place}")
            for op in failure.ops:
                self.refusals[op_key(op), failure.place] = failure.reason.message

    def predicted(self, segments: list[Segment]) -> list[Segment]:
        """The segments with what placement's schedule has for them; as they are where nothing was placed.

        A segment that only returns constants is in no schedule.
        """
        if self.placement is None:
            return segments
        numbers = {op.sym_name.data: op.attributes.get(SEGMENT_HINT) for op in segments_of(self.module)}
        figures = self.placement.segments()
        found: list[Segment] = []
        for segment in segments:
            number = numbers[segment.id]
            own = figures.get(number.value.data) if isinstance(number, IntegerAttr) else None
            if own is None:
                found.append(replace(segment, seconds=0.0, joules=None, weight_bytes=0))
            else:
                found.append(replace(segment, seconds=own.seconds, joules=own.joules, weight_bytes=own.weight_bytes))
        return found

    def promised_steps(self, parts: ManifestParts) -> tuple[Step, ...]:
        """The steps, with the seconds that the schedule has for each transfer."""
        if self.placement is None:
            return tuple(parts.steps)
        seconds = self.placement.transfers()
        device = {value.id: value.device for value in parts.values}
        return tuple(
            replace(step, seconds=seconds.get((step.source, device[step.source], device[step.target]), step.seconds))
            if isinstance(step, Transfer)
            else step
            for step in parts.steps
        )

    def manifest(self, segments: list[Segment], defaults: Mapping[int, Default]) -> Manifest:
        """The manifest of the module after `split`, with the artifacts of its segments and the inputs' `defaults`."""
        parts = manifest_parts(self.module, self.options.topology, self.bounds, defaults)
        return Manifest(
            producer=producers(),
            model=self.model,
            inputs=tuple(parts.inputs),
            outputs=tuple(parts.outputs),
            dims=dim_ranges(self.bounds),
            topology=topology_entry(self.options.topology),
            values=tuple(parts.values),
            segments=tuple(segments),
            steps=self.promised_steps(parts),
            buffers=tuple(parts.buffers),
            states=tuple(parts.states),
            placement=self.placement.summary() if self.placement else PlacementSummary(),
            costs=self.placement.costs() if self.placement else {},
            signature=read_signature(self.module),
        )


def producers() -> dict[str, str]:
    """The versions of what a bundle is made with, as far as it is installed."""
    found: dict[str, str] = {}
    for name in _PRODUCERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def topology_entry(topology: Topology) -> TopologyEntry:
    """A topology as the manifest describes it, with what each target needs of the real device."""
    return TopologyEntry(
        topology.name,
        topology.host,
        tuple(DeviceEntry(device.name, device.kind.name, requirements(device)) for device in topology.devices),
        tuple(LinkEntry(link.name, link.kind, link.between, link.latency_s, link.bandwidth) for link in topology.links),
    )


def requirements(device: Device) -> dict[str, str]:
    """What a real device must have to run what its targets make for it."""
    found: dict[str, str] = {}
    for name in device.kind.targets:
        found |= registry.load(name).requires(device)
    return found
