"""TensorRT as a target: what it can run, what that costs, and engines.

Three ways to an engine, in this order: TensorRT for RTX builds it here, whatever GPU is here; TensorRT builds it here,
where its own GPU is; else the segment is deferred, as ONNX with the settings of its build.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

from xdsl.context import Context
from xdsl.ir import Operation

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp, value_name
from gimlet.dialects.onnx.types import shape_of
from gimlet.dialects.onnx.work import work_of
from gimlet.runtime.errors import InputError
from gimlet.targets.answers import default_cache
from gimlet.targets.api import Artifact, Cost, Device, Reason, Rounding, SegmentContext, Target
from gimlet.targets.portable import MODEL_FILE, FolderWeights, SegmentModel, identity_of, segment_model, write_model
from gimlet.targets.roofline import energy_joules, roofline
from gimlet.targets.shape_operands import compute_shapes_inside, shapes_from_outside
from gimlet.targets.tensorrt import builder_rtx, builder_trt
from gimlet.targets.tensorrt.builder_trt import ENGINE_FILE, SETTINGS_FILE, BuildSettings
from gimlet.targets.tensorrt.cache import EngineCache, engine_key
from gimlet.targets.tensorrt.client import worker
from gimlet.targets.tensorrt.engine import BuildJob, BuildReport
from gimlet.targets.tensorrt.llm_kernels import kernel_of, model_seconds
from gimlet.targets.tensorrt.memory import available_bytes, predicted_bytes
from gimlet.targets.tensorrt.precision import HALVES, computes_in_half, formats_of, insert_casts, stays_in_float32
from gimlet.targets.tensorrt.probes import Probes
from gimlet.targets.tensorrt.profiles import Profile, profile_json, profile_of
from gimlet.targets.tensorrt.rules import FORMATS, LARGE, POINTWISE, PRODUCTS
from gimlet.targets.tensorrt.tables import table_seconds
from gimlet.targets.worker import WorkerError

_BUILDERS = ("tensorrt-rtx", builder_trt.MODULE)
"""What `options.builder` of a device kind may be, first what it is where it is left out."""

TYPED_MODEL_FILE = "typed.onnx"
"""The model that an engine is built from, where that is not the portable one."""


class TensorRTTarget(Target):
    """Engines by TensorRT for RTX or TensorRT."""

    name: ClassVar[str] = "tensorrt"
    executor: ClassVar[str] = "tensorrt"
    option_names: ClassVar[frozenset[str] | None] = frozenset({"builder", "compute_capability", "kernels", "tables"})

    def __init__(self) -> None:
        self._probes: dict[str, Probes] = {}

    def formats(self, device: Device) -> tuple[str, ...]:
        builder_of(device)
        capability = compute_capability_of(device)
        return tuple(fmt for fmt in FORMATS if fmt in device.kind.peak and _has_format(capability, fmt))

    def large_operators(self, device: Device) -> frozenset[str]:
        del device
        return LARGE

    def requires(self, device: Device) -> Mapping[str, str]:
        return {"compute_capability": compute_capability_of(device)}

    def refuses(self, op: Operation, device: Device, fmt: str) -> Reason | None:
        return self.refuses_all([op], device, fmt)[0]

    def refuses_all(self, ops: Sequence[Operation], device: Device, fmt: str) -> list[Reason | None]:
        del fmt
        onnx = [op for op in ops if isinstance(op, OnnxOp)]
        found = dict(zip(onnx, self._probes_for(device).refusals(onnx), strict=True))
        reasons: list[Reason | None] = []
        for op in ops:
            refusal = found[op] if isinstance(op, OnnxOp) else f"{op.name} is not an ONNX operation"
            reasons.append(None if refusal is None else Reason(label_of(op), refusal))
        return reasons

    def fusable(self, producer: Operation, consumer: Operation) -> bool:
        """Pointwise operations run in the kernel of the product, or of the pointwise operation, before them."""
        if not isinstance(producer, OnnxOp) or not isinstance(consumer, OnnxOp):
            return False
        return consumer.op_type in POINTWISE and producer.op_type in POINTWISE | PRODUCTS

    def op_cost(self, op: Operation, device: Device, fmt: str, sizes: Mapping[str, int]) -> Cost:
        """By the roofline; products, attention and experts by figures of their own where the device's file has them.

        What stays in float32 in a segment of 16 bits costs what it costs in float32.
        """
        if fmt in HALVES and isinstance(op, OnnxOp) and stays_in_float32(op, fmt):
            fmt = "fp32" if "fp32" in device.kind.peak else fmt
        flat = roofline(work_of(op), device, fmt, sizes)
        kernel = kernel_of(op, sizes, fmt) if isinstance(op, OnnxOp) else None
        return _taking(flat, None if kernel is None else model_seconds(kernel, device.kind), device)

    def rounding(self, op: Operation, device: Device, fmt: str, ctx: Context) -> Rounding | None:
        """Operands and results in 16 bits, but for the operations that stay in float32."""
        del device
        if fmt not in HALVES or not isinstance(op, OnnxOp) or not isinstance(ctx, GimletContext):
            return None
        return Rounding((fmt,) * len(op.operands), fmt) if computes_in_half(op, fmt, ctx) else None

    def cast_s_per_byte(self, device: Device, fmt: str) -> float:
        """A pass over memory that reads four bytes and writes two, or the reverse."""
        if fmt not in HALVES or not device.kind.memory:
            return 0.0
        return 1.5 / (device.kind.memory[-1].bandwidth * device.kind.memory_fraction)

    def has_tables(self, device: Device) -> bool:
        return "tables" in device.kind.options

    def table_cost(self, op: Operation, device: Device, fmt: str, sizes: Mapping[str, int]) -> Cost | None:
        kernel = kernel_of(op, sizes, fmt) if isinstance(op, OnnxOp) else None
        seconds = None if kernel is None else table_seconds(kernel, str(device.kind.options["tables"]))
        return None if seconds is None else _taking(roofline(work_of(op), device, fmt, sizes), seconds, device)

    def prepare(self, segment: SegmentContext) -> None:
        """Computes shapes inside the segment, and makes the casts of a 16-bit one explicit."""
        compute_shapes_inside(segment.op.body.block)
        if segment.op.format in HALVES and isinstance(segment.ctx, GimletContext):
            insert_casts(segment.op.body.block, segment.op.format, segment.ctx)

    def emit(self, segment: SegmentContext, device: Device, fmt: str, folder: Path) -> Artifact | Reason:
        found = segment_model(segment)
        if isinstance(found, Reason):
            return found
        if fmt in HALVES and fmt not in formats_of(segment.op.body.block):
            return Reason(found.segment, f"no op of it computes in {fmt}: its opset may lack the type")
        for op, value in shapes_from_outside(segment.op.body.block):
            message = f"{value_name(value)!r} decides the shape of its result, and is known only when running"
            return Reason(label_of(op), message)
        inputs = [
            (name.data, shape_of(value))
            for name, value in zip(segment.op.arg_names, segment.op.body.block.args, strict=True)
        ]
        profile = profile_of(found.segment, inputs, segment.bounds)
        if isinstance(profile, Reason):
            return profile
        capability = compute_capability_of(device)
        library = _library_for(capability, device)
        if library is None:
            return self._defer(segment, found, profile, capability, fmt, folder)
        return self._build(segment, found, profile, capability, fmt, folder, library)

    def finish(self, root: Path, files: Sequence[str], folder: Path) -> Mapping[str, Path] | Reason:
        """Builds the engine of a deferred segment with TensorRT, on the GPU's own host."""
        settings_file = next((name for name in files if name.endswith(f"/{SETTINGS_FILE}")), None)
        if settings_file is None:
            return Reason(root.name, "the artifact has no build settings")
        settings = BuildSettings.read(root / settings_file)
        engine = folder / ENGINE_FILE
        report = builder_trt.finish(settings, root, engine)
        if report.errors:
            return Reason(Path(settings_file).parent.name, "; ".join(report.errors))
        return {settings.engine: engine}

    def _probes_for(self, device: Device) -> Probes:
        capability = compute_capability_of(device)
        if capability not in self._probes:
            module, version = _prober()
            builds = module == builder_rtx.MODULE and builder_rtx.builds_for(capability)
            folder = default_cache() / "probes"
            self._probes[capability] = Probes(worker(module), version, capability, builds, folder)
        return self._probes[capability]

    def _build(
        self,
        segment: SegmentContext,
        found: SegmentModel,
        profile: Profile,
        capability: str,
        fmt: str,
        folder: Path,
        library: tuple[str, str],
    ) -> Artifact | Reason:
        module, version = library
        needed, available = predicted_bytes(found.weight_bytes), available_bytes()
        if available is not None and needed > available:
            return Reason(
                found.segment, f"its build needs {needed >> 20} MiB of memory, and {available >> 20} are free"
            )
        settings = {
            "library": module,
            "version": version,
            "compute_capability": capability,
            "allow_tf32": segment.allow_tf32,
            "profile": profile_json(profile),
        }
        with _model_file(segment, found) as (model, root, identity):
            key = engine_key(identity, settings)
            cache = EngineCache(segment.cache)
            engine = folder / ENGINE_FILE
            report = cache.fetch(key, engine)
            if report is None:
                job = BuildJob(
                    model=str(model),
                    root=str(root),
                    engine=str(engine),
                    profile=profile_json(profile),
                    compute_capability=capability if module == builder_rtx.MODULE else "",
                    allow_tf32=segment.allow_tf32,
                )
                try:
                    report = BuildReport.from_json(worker(module).call("build", **asdict(job)))
                except WorkerError as error:
                    report = BuildReport(errors=[str(error)])
                if report.errors:
                    return _reason(segment, report.errors)
                cache.store(key, engine, report)
        return Artifact(
            executor=self.executor,
            format=fmt,
            files=(ENGINE_FILE,),
            undigested=(ENGINE_FILE,),
            key=key,
            options={"library": module, "version": version, "compute_capability": capability},
            facts=facts_of(report, settings) | {"ops": formats_of(segment.op.body.block)},
        )

    def _defer(
        self,
        segment: SegmentContext,
        found: SegmentModel,
        profile: Profile,
        capability: str,
        fmt: str,
        folder: Path,
    ) -> Artifact | Reason:
        weights = segment.weights or FolderWeights(folder)
        path = folder / TYPED_MODEL_FILE
        proto = write_model(found, weights, path)
        portable = folder / MODEL_FILE
        if portable.is_file() and portable.read_bytes() == path.read_bytes():
            path.unlink()
            path = portable
        settings = BuildSettings(
            model=path.relative_to(weights.root).as_posix(),
            engine=(folder / ENGINE_FILE).relative_to(weights.root).as_posix(),
            compute_capability=capability,
            profile=profile_json(profile),
            allow_tf32=segment.allow_tf32,
        )
        settings.write(folder / SETTINGS_FILE)
        return Artifact(
            executor=self.executor,
            format=fmt,
            files=(path.name, SETTINGS_FILE, ENGINE_FILE),
            undigested=(ENGINE_FILE,),
            key=engine_key(identity_of(proto, found.weights), asdict(settings)),
            deferred=True,
            options={"library": builder_trt.MODULE, "compute_capability": capability},
            facts={
                "trtexec": builder_trt.trtexec_lines(settings),
                "profile": profile_json(profile),
                "ops": formats_of(segment.op.body.block),
            },
        )


def compute_capability_of(device: Device) -> str:
    """The compute capability that a device's kind states. InputError where it states none."""
    capability = device.kind.options.get("compute_capability")
    if not isinstance(capability, str) or not re.fullmatch(r"\d+\.\d", capability):
        stated = "states no compute capability" if capability is None else f"has compute_capability = {capability!r}"
        raise InputError(
            f"device kind {device.kind.name} {stated}",
            where=f"device {device.name}",
            hint='options.compute_capability in its file is a text such as "12.0"',
        )
    return capability


def builder_of(device: Device) -> str:
    """The library that a device's kind prefers. InputError for one that there is not."""
    builder = device.kind.options.get("builder", _BUILDERS[0])
    if builder not in _BUILDERS:
        raise InputError(
            f"device kind {device.kind.name} has builder = {builder!r}",
            where=f"device {device.name}",
            hint=f"options.builder in its file is {' or '.join(_BUILDERS)}",
        )
    return str(builder)


def label_of(op: Operation) -> str:
    """What a reason calls an operation: its node's name, else its result's."""
    if isinstance(op, OnnxOp) and op.node_name:
        return op.node_name
    return value_name(op.results[0]) if op.results else op.name


def facts_of(report: BuildReport, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What an artifact says about its engine. Nothing in it differs between two builds of the same sources."""
    return {
        **settings,
        "inputs": [asdict(binding) for binding in report.inputs],
        "outputs": [asdict(binding) for binding in report.outputs],
        "layers": report.layers,
        "warnings": report.warnings,
    }


def _has_format(capability: str, fmt: str) -> bool:
    major, _, _ = capability.partition(".")
    if fmt == "bf16":
        return int(major) >= 8
    return fmt != "fp32" or capability not in builder_rtx.NO_FLOAT32_PRODUCTS


def _prober() -> tuple[str, str]:
    """The library that is asked what runs: the parsers of both are one. MissingError where neither is installed."""
    version = builder_trt.installed_version()
    if builder_rtx.installed_version() is None and version is not None:
        return builder_trt.MODULE, version
    return builder_rtx.MODULE, builder_rtx.require()


def _library_for(capability: str, device: Device) -> tuple[str, str] | None:
    """The library that builds an engine on this machine, and its version; None where none can."""
    prefers_trt = builder_of(device) == builder_trt.MODULE
    version = builder_rtx.installed_version()
    if version is not None and builder_rtx.builds_for(capability) and not prefers_trt:
        return builder_rtx.MODULE, version
    version = builder_trt.installed_version()
    if version is not None and builder_trt.builds_here(capability):
        return builder_trt.MODULE, version
    return None


@contextmanager
def _model_file(segment: SegmentContext, found: SegmentModel) -> Generator[tuple[Path, Path, bytes]]:
    """The model that is built from, for as long as the build takes: its file, the root of its data, and its identity.

    Weights in the format that they were imported in are in the bundle anyway; copies in another format are not.
    """
    with tempfile.TemporaryDirectory(prefix="gimlet-") as name:
        path = Path(name) / TYPED_MODEL_FILE
        shared = segment.weights if segment.op.format not in HALVES else None
        weights = shared or FolderWeights(Path(name))
        proto = write_model(found, weights, path)
        yield path, weights.root, identity_of(proto, found.weights)


def _reason(segment: SegmentContext, errors: Sequence[str]) -> Reason:
    """What a failed build says, tied to the operation that it names."""
    text = "; ".join(errors)
    named = [(len(name), name, op) for op in segment.op.body.walk() for name in _names_of(op) if _names(text, name)]
    op = max(named, default=None, key=lambda item: item[0])
    return Reason(label_of(op[2]) if op else segment.op.sym_name.data, text)


def _taking(cost: Cost, seconds: float | None, device: Device) -> Cost:
    """A cost with another time, and the energy of a device that is busy for it."""
    return cost if seconds is None else replace(cost, seconds=seconds, joules=energy_joules(device.kind, seconds, 0.0))


def _names_of(op: Operation) -> Iterator[str]:
    if isinstance(op, OnnxOp):
        if op.node_name:
            yield op.node_name
        yield from (value_name(result) for result in op.results)


def _names(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(name)}(?![\w])", text) is not None
