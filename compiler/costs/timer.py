"""Times segments on this machine, as a bundle would run them: built by their target, run by its executor.

    timer = SegmentTimer(module, ctx, bounds, sizes, cache)
    found = timer.time(ops, target, device, "fp32")       # a Timing, or the Reason why there is none

Nothing here knows a framework: a target that emits and an executor that runs on this machine are all it takes.

A segment is timed once per shape class (`shape_class`) and kept in the cache folder under the hash of that class, this
processor and its cores, and what the target says of the library (`Target.versions`). The inputs are random floats;
what decides shapes or indices (integers, and values whose shape depends on data) is computed by one run of the
portable form of the whole module, when a segment first needs it.

The time is that of the quickest of many runs, the launch included: other work on the machine only ever makes a run
slower. The runs follow each other, so weights and activations that fit in a cache are found there.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from gimlet.compiler.costs.as_called import Launch, as_called
from gimlet.compiler.costs.detach import DetachedSegment, detach
from gimlet.compiler.costs.shape_class import digest, shape_class
from gimlet.compiler.hardware import load_kind
from gimlet.compiler.hardware.host import HOST, cores, processor
from gimlet.compiler.lowering import PORTABLE_EXECUTOR, opsets_of
from gimlet.compiler.manifest_ir import element_name, segment_specs
from gimlet.compiler.placement.reading.graph import ASSUMED_SIZE
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import value_name
from gimlet.dialects.onnx.types import dims_of, element_of, shape_of
from gimlet.passes.entry import entry_function, is_constant, return_of
from gimlet.runtime.errors import GimletError, MissingError, UsageError
from gimlet.runtime.executors.base import (
    HOST_MEMORY,
    Buffer,
    DeviceBuffer,
    DeviceSpec,
    Event,
    Executor,
    SegmentArtifact,
)
from gimlet.runtime.executors.registry import load_executor
from gimlet.runtime.random_inputs import random_array
from gimlet.runtime.tensors import STRING, TensorSpec
from gimlet.targets.answers import keep_text
from gimlet.targets.api import Artifact, Device, DimBound, Reason, SegmentContext, Target
from gimlet.targets.forms import portable_form, target_form
from gimlet.targets.portable import WEIGHTS_FILE, FolderWeights, write_portable

Array = NDArray[Any]
_SCHEMA = 1


@dataclass(frozen=True)
class Timing:
    """Seconds of the quickest of `runs` runs of a segment, its launch included; `cached` if from an earlier compile."""

    seconds: float
    runs: int
    cached: bool = False


@dataclass(frozen=True)
class Effort:
    """How long a segment is run: at least `least` times, and for `seconds`, after `warm_up` runs."""

    seconds: float = 0.15
    least: int = 5
    most: int = 2000
    warm_up: int = 2


@dataclass
class SegmentTimer:
    """Times segments of one module, with symbolic dimensions at `sizes`.

    `clock` returns seconds: by default those of the clock. The thread's own processor time (`time.thread_time`) is the
    same for a process on one core, and stays so on a machine that others use.
    """

    module: ModuleOp
    ctx: GimletContext
    bounds: Mapping[str, DimBound]
    sizes: Mapping[str, int]
    cache: Path
    effort: Effort = field(default_factory=Effort)
    clock: Callable[[], float] = time.perf_counter
    measured: int = 0
    reused: int = 0

    def time(
        self,
        ops: Sequence[Operation],
        target: Target,
        device: Device,
        fmt: str,
        options: Mapping[str, Any] | None = None,
    ) -> Timing | Reason:
        """What one run of `ops` as a segment takes, or why it cannot be built or run here.

        `options` is given to the executor over what the target says (threads, streams), and is part of what the time
        is kept by. MissingError where this machine lacks what the device needs, UsageError for a device that is not
        this machine's.
        """
        executor = executor_here(target, device)
        segment = detach(ops, device.name, fmt)
        file = self._file(ops, segment, target, device, options or {})
        kept = _read(file)
        if kept is not None:
            self.reused += 1
            return kept
        found = self._measured(segment, target, device, executor, options or {})
        if isinstance(found, Timing):
            self.measured += 1
            data = {"schema": _SCHEMA, "seconds": found.seconds, "runs": found.runs}
            keep_text(file, json.dumps(data))
        return found

    def identity(self, ops: Sequence[Operation], target: Target, device: Device, fmt: str) -> str:
        """What the time of `ops` as a segment is kept by, as a text."""
        return self._file(ops, detach(ops, device.name, fmt), target, device, {}).stem

    def _file(
        self,
        ops: Sequence[Operation],
        segment: DetachedSegment,
        target: Target,
        device: Device,
        options: Mapping[str, Any],
    ) -> Path:
        known = {**dict.fromkeys(_symbols(segment), ASSUMED_SIZE), **self.sizes}
        versions = sorted(target.versions().items())
        place = (target.name, segment.op.format, str(sorted(device.kind.options.items())), str(sorted(options.items())))
        machine = (processor(), str(cores()), str(versions), *place)
        return self.cache / "timings" / f"{digest(shape_class(ops, segment.outputs, known), *machine)}.json"

    def _measured(
        self,
        segment: DetachedSegment,
        target: Target,
        device: Device,
        executor: type[Executor],
        options: Mapping[str, Any],
    ) -> Timing | Reason:
        inputs = self._inputs(segment)
        if isinstance(inputs, Reason):
            return inputs
        with tempfile.TemporaryDirectory(prefix="gimlet-timing-") as name:
            folder = Path(name)
            try:
                artifact = self._emitted(segment, target, device, folder)
                if isinstance(artifact, Reason):
                    return artifact
                artifact = replace(artifact, options={**artifact.options, **options})
                return self._timed(executor, artifact, segment, device, folder, inputs)
            except GimletError as error:
                return Reason(segment.op.sym_name.data, error.message)

    def _emitted(self, segment: DetachedSegment, target: Target, device: Device, folder: Path) -> Artifact | Reason:
        context = target_form(self._context(segment, folder), target, device).context
        target.prepare(context)
        return target.emit(context, device, segment.op.format, folder)

    @contextmanager
    def loaded(
        self,
        ops: Sequence[Operation],
        target: Target,
        device: Device,
        fmt: str,
        settings: Sequence[Mapping[str, Any]],
        requests: int = 1,
    ) -> Generator[list[list[Launch]] | Reason]:
        """`ops` as a segment that is ready to run here in each of these settings, or why there is none.

        For each setting `requests` launches, which may run at once, each with what a program does around it for its
        own inputs and outputs (`as_called`).

        Errors as `time`.
        """
        executor = executor_here(target, device)
        segment = detach(ops, device.name, fmt)
        inputs = self._inputs(segment)
        if isinstance(inputs, Reason):
            yield inputs
            return
        with tempfile.TemporaryDirectory(prefix="gimlet-timing-") as name, ExitStack() as stack:
            try:
                artifact = self._emitted(segment, target, device, Path(name))
                if isinstance(artifact, Reason):
                    yield artifact
                    return
                launches = [
                    stack.enter_context(
                        self._bound(executor, chosen, segment, device, Path(name), inputs, requests, is_called=True)
                    )
                    for chosen in (replace(artifact, options={**artifact.options, **options}) for options in settings)
                ]
            except GimletError as error:
                yield Reason(segment.op.sym_name.data, error.message)
                return
            yield launches

    def _context(self, segment: DetachedSegment, folder: Path) -> SegmentContext:
        opsets = opsets_of(self.module)
        weights = FolderWeights(folder)
        return SegmentContext(segment.op, self.ctx, opsets, self.bounds, self.cache, weights=weights)

    def _timed(
        self,
        executor: type[Executor],
        artifact: Artifact,
        segment: DetachedSegment,
        device: Device,
        folder: Path,
        inputs: Mapping[str, Array],
    ) -> Timing:
        with self._bound(executor, artifact, segment, device, folder, inputs) as (launch,):
            return quickest(launch, self.effort, self.clock)

    @contextmanager
    def _bound(
        self,
        executor: type[Executor],
        artifact: Artifact,
        segment: DetachedSegment,
        device: Device,
        folder: Path,
        inputs: Mapping[str, Array],
        requests: int = 1,
        *,
        is_called: bool = False,
    ) -> Generator[list[Launch]]:
        """Runs of a segment's artifact over `inputs`, as functions: `requests` of them, each with its own buffers.

        Outputs are bound where their size is known. `is_called`: with what a program does around its segments.
        """
        with ExitStack() as stack:
            loaded = load_segment(executor, artifact, segment, device, folder)
            stack.callback(loaded.close)
            launches: list[Launch] = []
            for _ in range(requests):
                buffers = {name: uploaded(loaded, array) for name, array in inputs.items()}
                outputs = {
                    spec.name: self._output(loaded, spec, value)
                    for spec, value in zip(segment_specs(segment.op)[1], segment.outputs, strict=True)
                }
                bindings = loaded.bind(buffers, outputs)
                stack.callback(bindings.close)
                launch: Launch = partial(_launched, loaded.launcher(bindings))
                if is_called:
                    given = {name: (inputs[name], buffers[name]) for name in self._given(segment)}
                    launch = as_called(
                        launch, bindings, given, [(name, outputs[name]) for name in self._handed(segment)]
                    )
                launches.append(launch)
            yield launches

    def _given(self, segment: DetachedSegment) -> list[str]:
        """The segment's inputs that are the program's."""
        own = set(entry_function(self.module).body.block.args)
        names = [item.data for item in segment.op.arg_names]
        return [name for name, value in zip(names, segment.inputs, strict=True) if value in own]

    def _handed(self, segment: DetachedSegment) -> list[str]:
        """The segment's outputs that are the program's."""
        own = set(return_of(entry_function(self.module).body.block).operands)
        names = [item.data for item in segment.op.res_names]
        return [name for name, value in zip(names, segment.outputs, strict=True) if value in own]

    def _output(self, executor: Executor, spec: TensorSpec, value: SSAValue) -> Buffer | None:
        shape = None if self._is_assumed(value) else spec.resolve(self.sizes)
        return None if shape is None or spec.numpy_type.hasobject else executor.alloc(spec.numpy_type, shape)

    def _inputs(self, segment: DetachedSegment) -> dict[str, Array] | Reason:
        specs, _ = segment_specs(segment.op)
        generator = np.random.default_rng(0)
        found: dict[str, Array] = {}
        for spec, value in zip(specs, segment.inputs, strict=True):
            shape = spec.resolve(self.sizes)
            if shape is not None and spec.numpy_type.kind in "fV" and not self._is_assumed(value):
                found[spec.name] = generator.standard_normal(shape).astype(spec.numpy_type)
                continue
            if isinstance(self._values, Reason):
                return self._values
            found[spec.name] = self._values[value]
        return found

    def _is_assumed(self, value: SSAValue) -> bool:
        dims = dims_of(value) or ()
        return any(symbol not in self.bounds for dim in dims for symbol in dim.symbols)

    @cached_property
    def _values(self) -> dict[SSAValue, Array] | Reason:
        """Every value of the module that random numbers cannot stand for, computed from random inputs."""
        block = entry_function(self.module).body.block
        last = return_of(block)
        ops = [op for op in block.ops if op is not last and not is_constant(op)]
        arguments = _random({value: _spec(value) for value in block.args}, self.sizes)
        if isinstance(arguments, Reason):
            return arguments
        wanted = [value for op in ops for value in op.results if self._is_fixed(value)]
        if not wanted:
            return arguments
        segment = detach(ops, HOST, "fp32", wanted)
        with tempfile.TemporaryDirectory(prefix="gimlet-values-") as name:
            folder = Path(name)
            files = write_portable(portable_form(self._context(segment, folder)), folder)
            if isinstance(files, Reason):
                return files
            try:
                return arguments | self._computed(segment, files, folder, arguments)
            except GimletError as error:
                return Reason("@main", f"the values that decide shapes could not be computed: {error.message}")

    def _is_fixed(self, value: SSAValue) -> bool:
        spec = _spec(value)
        if spec is None:
            return False
        return spec.numpy_type.kind not in "fV" or spec.resolve(self.sizes) is None or self._is_assumed(value)

    def _computed(
        self,
        segment: DetachedSegment,
        files: tuple[str, ...],
        folder: Path,
        arguments: Mapping[SSAValue, Array],
    ) -> dict[SSAValue, Array]:
        device = Device(HOST, load_kind(HOST))
        artifact = Artifact(PORTABLE_EXECUTOR, "fp32", files)
        loaded = load_segment(load_executor(PORTABLE_EXECUTOR), artifact, segment, device, folder)
        try:
            names = [item.data for item in segment.op.arg_names]
            buffers: dict[str, Buffer] = {
                name: arguments[value] for name, value in zip(names, segment.inputs, strict=True)
            }
            outputs = [item.data for item in segment.op.res_names]
            bindings = loaded.bind(buffers, dict.fromkeys(outputs))
            loaded.submit(bindings).wait()
            arrays = [bindings.output(name) for name in outputs]
            found = {v: a.copy() for v, a in zip(segment.outputs, arrays, strict=True) if isinstance(a, np.ndarray)}
            bindings.close()
            return found
        finally:
            loaded.close()


def executor_here(target: Target, device: Device) -> type[Executor]:
    """The executor of a target, where running it on this machine measures `device`.

    MissingError where this machine lacks the device or a package; UsageError for a device that is another machine's,
    or that is only emulated here.
    """
    executor = load_executor(target.executor)
    where = f"device {device.name} ({device.kind.name})"
    if executor.emulation:
        raise UsageError("is emulated here: an emulator's time says nothing of the device", where=where)
    available = executor.available(DeviceSpec(device.name, device.kind.name, target.requires(device)))
    if not available:
        raise MissingError(f"cannot be measured here: {available.reason}", where=where, hint=available.hint)
    if executor.memory == HOST_MEMORY and device.kind.name != HOST:
        raise UsageError(
            "cannot be measured here: it is not this machine",
            where=where,
            hint='give its costs a provider that does not measure, or kind = "host" to the device',
        )
    return executor


def load_segment(
    executor: type[Executor], artifact: Artifact, segment: DetachedSegment, device: Device, folder: Path
) -> Executor:
    """A segment's artifact in `folder`, loaded. Errors as `Executor.load`."""
    inputs, outputs = segment_specs(segment.op)
    name = segment.op.sym_name.data
    shared = [WEIGHTS_FILE] if (folder / WEIGHTS_FILE).is_file() else []
    files = tuple(dict.fromkeys([*artifact.files, *shared]))
    loaded = SegmentArtifact(
        name, artifact.format, folder, files, inputs, outputs, lambda path: folder / path, artifact.options
    )
    return executor.load(loaded, DeviceSpec(device.name, device.kind.name))


def uploaded(executor: Executor, array: Array) -> Buffer:
    """A host array in the executor's memory."""
    host = np.ascontiguousarray(array).reshape(array.shape)
    buffer = executor.alloc(host.dtype, host.shape)
    if isinstance(buffer, np.ndarray):
        buffer[...] = host
    elif isinstance(buffer, DeviceBuffer):
        buffer.upload(host, ()).wait()
    return buffer


def quickest(launch: Launch, effort: Effort, clock: Callable[[], float] = time.perf_counter) -> Timing:
    """The quickest of the runs that `effort` asks for, by `clock`."""
    for _ in range(effort.warm_up):
        launch()
    best = float("inf")
    runs = 0
    end = time.perf_counter() + effort.seconds
    while runs < effort.least or (runs < effort.most and time.perf_counter() < end):
        start = clock()
        launch()
        best = min(best, clock() - start)
        runs += 1
    return Timing(best, runs)


def _launched(launch: Callable[[Sequence[Event]], Event]) -> None:
    launch(()).wait()


def _symbols(segment: DetachedSegment) -> set[str]:
    values = [*segment.op.body.block.args, *(value for op in segment.op.body.block.ops for value in op.results)]
    return {symbol for value in values for dim in dims_of(value) or () for symbol in dim.symbols}


def _spec(value: SSAValue) -> TensorSpec | None:
    if element_of(value.type) is None:
        return None
    return TensorSpec(value_name(value), element_name(value.type), shape_of(value))


def _random(specs: Mapping[SSAValue, TensorSpec | None], sizes: Mapping[str, int]) -> dict[SSAValue, Array] | Reason:
    generator = np.random.default_rng(0)
    found: dict[SSAValue, Array] = {}
    for value, spec in specs.items():
        if spec is None or spec.resolve(sizes) is None or spec.dtype == STRING:
            return Reason(value_name(value), "no values can be made up for this input")
        found[value] = random_array(spec, sizes, generator)
    return found


def _read(file: Path) -> Timing | None:
    try:
        data = json.loads(file.read_text())
        if data["schema"] != _SCHEMA:
            return None
        return Timing(float(data["seconds"]), int(data["runs"]), cached=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None
