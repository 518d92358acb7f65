"""Lower and emit: each segment goes to its device's target, which writes an artifact into the bundle.

A target may find that a segment cannot be built although it takes every op of it. That is not an error yet: the reason
goes back to placement as a refusal, and the compile tries another split.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, ModuleOp
from xdsl.ir import Operation

from gimlet.compiler.bundle import BundleWriter
from gimlet.compiler.checking.numerics import coarsest
from gimlet.compiler.manifest_ir import segment_specs
from gimlet.compiler.options import CompileOptions
from gimlet.compiler.progress import Progress
from gimlet.compiler.weight_index import INDEX, index_text
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OPSETS, InitializerOp, OnnxOp, node_name
from gimlet.dialects.onnx.defaults import default_weights
from gimlet.dialects.onnx.types import element_of
from gimlet.dialects.onnx.weights import Weight
from gimlet.dialects.onnx.work import work_of
from gimlet.dialects.placement import SETTINGS, SegmentOp, YieldOp
from gimlet.passes.entry import entry_function
from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import ZERO, Expr
from gimlet.runtime.manifest import Default, Segment, Variant
from gimlet.targets import registry
from gimlet.targets.api import (
    Artifact,
    Device,
    DimBound,
    Reason,
    SegmentContext,
    Target,
    WeightReference,
)
from gimlet.targets.forms import portable_form, target_form
from gimlet.targets.portable import MODEL_FILE, PARTS_FILE, write_portable

PORTABLE_EXECUTOR = "onnxruntime"
_OWN_FORMATS = {
    "float16": "fp16",
    "bfloat16": "bf16",
    **dict.fromkeys(("float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "float4e2m1"), "fp8"),
}


@dataclass
class BundleWeights:
    """The bundle's shared weights as targets write to them; notes which files were used since `used` was cleared."""

    writer: BundleWriter
    used: set[str] = field(default_factory=set[str])
    places: dict[str, tuple[Weight, WeightReference]] = field(default_factory=dict[str, tuple[Weight, WeightReference]])

    @property
    def root(self) -> Path:
        """The bundle's folder as it is being written."""
        return self.writer.root

    def place(self, weight: Weight) -> WeightReference:
        """Writes the weight unless its bytes are there already."""
        place = self.writer.weights.add(weight.array(), weight.digest())
        self.used.add(place.path)
        reference = WeightReference(place.path, place.offset, place.length)
        self.places[weight.key] = (weight, reference)
        return reference


@dataclass(frozen=True)
class BuildFailure:
    """A segment that its target could not build: the ops concerned, the device, its target and format, and why."""

    ops: tuple[Operation, ...]
    device: str
    target: str
    format: str
    reason: Reason

    @property
    def place(self) -> str:
        """Where it could not be built, as `--pin` names it."""
        return f"{self.device}:{self.target}:{self.format}"


def target_of(device: Device, fmt: str, name: str = "") -> Target:
    """The target that compiles for a device in a number format: `name`, else the first of its kind's that has it."""
    if name and name not in device.kind.targets:
        raise InputError(
            f"device {device.name} ({device.kind.name}) has no target {name!r}",
            hint=f"its targets are: {', '.join(device.kind.targets)}",
        )
    targets = [registry.load(known) for known in device.kind.targets if name in ("", known)]
    for target in targets:
        if fmt in target.formats(device):
            return target
    known = sorted({name for target in targets for name in target.formats(device)})
    raise InputError(
        f"device {device.name} ({device.kind.name}) does not compute in {fmt!r}",
        hint=f"its formats are: {', '.join(known)}",
    )


def segments_of(module: ModuleOp) -> list[SegmentOp]:
    """The segments of a module, in the order they stand in."""
    return [op for op in module.body.block.ops if isinstance(op, SegmentOp)]


def real_ops(segment: SegmentOp) -> list[Operation]:
    """The ops that a segment computes with: neither its weights nor its yield."""
    return [op for op in segment.body.block.ops if not isinstance(op, InitializerOp | YieldOp)]


def own_format(ops: Iterable[Operation]) -> str:
    """The coarsest number format that the model itself asks for in these ops: `fp32` where it rounds to none below."""
    inner = [each for op in ops for each in op.walk() if not isinstance(each, InitializerOp)]
    elements = [element_of(value.type) for op in inner for value in op.results]
    found = {_OWN_FORMATS[element.onnx] for element in elements if element is not None and element.onnx in _OWN_FORMATS}
    if any(isinstance(op, OnnxOp) and op.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for op in inner):
        found.add("int8")
    return coarsest(found)


def settings_of(op: Operation) -> dict[str, int]:
    """The executor's settings that placement chose for an op or a segment."""
    found = op.attributes.get(SETTINGS)
    items = found.data.items() if isinstance(found, DictionaryAttr) else ()
    return {name: value.value.data for name, value in items if isinstance(value, IntegerAttr)}


def opsets_of(module: ModuleOp) -> dict[str, int]:
    """The version of each domain that the module imports."""
    opsets = module.attributes.get(OPSETS)
    if not isinstance(opsets, DictionaryAttr):
        return {}
    return {name: value.value.data for name, value in opsets.data.items() if isinstance(value, IntegerAttr)}


@dataclass
class Lowering:
    """Emits the segments of one module into one bundle."""

    module: ModuleOp
    ctx: GimletContext
    options: CompileOptions
    bounds: Mapping[str, DimBound]
    writer: BundleWriter
    progress: Progress

    def __post_init__(self) -> None:
        self.weights = BundleWeights(self.writer)

    def run(self) -> tuple[list[Segment], list[BuildFailure]]:
        """Every segment that could be built, as the manifest describes it, and every one that could not."""
        opsets = opsets_of(self.module)
        shared = self.shared_devices()
        built: list[Segment] = []
        failed: list[BuildFailure] = []
        for op in segments_of(self.module):
            device = self.device(op)
            context = SegmentContext(
                op, self.ctx, opsets, self.bounds, self.options.cache, self.options.allow_tf32, self.weights
            )
            with self.progress.phase("emit", f"{op.sym_name.data} for {device.name} ({device.kind.name})"):
                found = self.emit(context, device, {"shares_cores": True} if device.name in shared else {})
            if isinstance(found, Reason):
                target = target_of(device, op.format, op.target_name).name
                failed.append(BuildFailure(_ops_of_reason(op, found), device.name, target, op.format, found))
            else:
                built.append(found)
        if self.weights.places and not failed:
            self.writer.write_text(INDEX, index_text(self.weights.places))
        return built, failed

    def defaults(self) -> dict[int, Default]:
        """What the arguments of @main are where a caller gives nothing, by their numbers; written into the bundle."""
        found: dict[int, Default] = {}
        for index, weight in default_weights(entry_function(self.module), self.ctx).items():
            place = self.weights.place(weight)
            found[index] = Default(place.location, place.offset, place.length, tuple(weight.shape))
        return found

    def device(self, segment: SegmentOp) -> Device:
        """The device of a segment, as its target has it where placement has decided the formats."""
        device = self.options.topology.device(segment.device_name)
        if self.options.loss_budget is None:
            return device
        return target_of(device, segment.format, segment.target_name).deciding(device)

    def shared_devices(self) -> set[str]:
        """The devices on which segments of several targets run: the threads of one must leave cores to the others."""
        targets: dict[str, set[str]] = {}
        for op in segments_of(self.module):
            device = self.options.topology.device(op.device_name)
            targets.setdefault(device.name, set()).add(target_of(device, op.format, op.target_name).name)
        return {name for name, found in targets.items() if len(found) > 1}

    def emit(self, context: SegmentContext, device: Device, options: Mapping[str, Any]) -> Segment | Reason:
        """One segment: its portable form, then what its target makes of it. `options` are added to its artifact's."""
        op = context.op
        name = op.sym_name.data
        target = target_of(device, op.format, op.target_name)
        folder = self.writer.segment_folder(name)
        inputs, outputs = segment_specs(op)
        ops = real_ops(op)
        form = target_form(context, target, device)
        self.weights.used.clear()
        portable = write_portable(
            portable_form(context, target, device), folder, PARTS_FILE if form.has_whole else MODEL_FILE
        )
        if isinstance(portable, Reason):
            return portable
        portable_files = self.paths(folder, portable)
        sizes = {dim: bound.optimum for dim, bound in self.bounds.items()}
        cost = None if target.costs_when_built else target.estimate(real_ops(form.context.op), device, op.format, sizes)
        artifact = self.artifact(form.context, target, device, folder)
        if isinstance(artifact, Reason) and form.has_whole:
            self.progress.say(f"cannot build {artifact}; building its large operators in parts")
            artifact = self.artifact(portable_form(context, target, device), target, device, folder)
        if isinstance(artifact, Reason):
            return artifact
        cost = cost or artifact.cost or target.estimate(real_ops(form.context.op), device, op.format, sizes)
        artifact = replace(artifact, options={**artifact.options, **settings_of(op), **options})
        return Segment(
            id=name,
            device=device.name,
            format=op.format,
            inputs=inputs,
            outputs=outputs,
            variants=(self.variant(artifact, folder, device, target),),
            portable=Variant(PORTABLE_EXECUTOR, own_format(ops), portable_files, device_kind="host"),
            ops=len(ops),
            flops=_total_flops(ops),
            weight_bytes=cost.weight_bytes,
            seconds=cost.seconds,
            joules=cost.joules,
        )

    def artifact(self, context: SegmentContext, target: Target, device: Device, folder: Path) -> Artifact | Reason:
        """What a target makes of a segment in the form that it gets it in."""
        self.weights.used.clear()
        target.prepare(context)
        return target.emit(context, device, context.op.format, folder)

    def variant(self, artifact: Artifact, folder: Path, device: Device, target: Target) -> Variant:
        """An artifact as the manifest describes it, its paths relative to the bundle."""
        return Variant(
            executor=artifact.executor,
            format=artifact.format,
            files=self.paths(folder, artifact.files),
            undigested=self.paths(folder, artifact.undigested, shared=False),
            key=artifact.key,
            deferred=artifact.deferred,
            device_kind=device.kind.name,
            requires=target.requires(device),
            options=artifact.options,
            facts=artifact.facts,
        )

    def paths(self, folder: Path, files: Iterable[str], *, shared: bool = True) -> tuple[str, ...]:
        """Files in `folder` as paths in the bundle, with the shared weights that were written since the last clear."""
        prefix = folder.relative_to(self.writer.root).as_posix()
        own = [f"{prefix}/{file}" for file in files]
        return tuple([*own, *sorted(self.weights.used)] if shared else own)


def _total_flops(ops: Iterable[Operation]) -> Expr:
    total = ZERO
    for op in ops:
        total = total + work_of(op).flops
    return total


def _ops_of_reason(segment: SegmentOp, reason: Reason) -> tuple[Operation, ...]:
    """The op that a reason names, if it is one of the segment's; else all of them."""
    ops = real_ops(segment)
    named = [op for op in ops if node_name(op) and node_name(op) == reason.op]
    return tuple(named or ops)
