"""A loaded bundle that can be called.

    program = gimlet.load("m.gimlet")
    outputs = program(x=array)                 # {"y": array}
    outputs = program(array, mask=other)       # as the PyTorch module was called: what it returned, of arrays
    future = program.submit(x=array)           # several may be in flight

    state = program.state()                    # a sequence of its own, of a program with a state
    outputs = state(x=array)

A `Program` may be called from several threads. Inputs are read until the call returns (or the future is done);
outputs are the caller's own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from gimlet.runtime.bundle import Bundle, open_bundle
from gimlet.runtime.defaults import read_defaults
from gimlet.runtime.errors import InputError
from gimlet.runtime.executors.base import HOST_MEMORY
from gimlet.runtime.frame import Frame, LoadedVariant, Machinery
from gimlet.runtime.inputs import InputChecker
from gimlet.runtime.lanes import Inline, Lanes
from gimlet.runtime.loader import LoadedSegment, load_segments
from gimlet.runtime.manifest import Manifest
from gimlet.runtime.schedule import CopyStep, Schedule, build_schedule
from gimlet.runtime.states import Hooks, Run, Shapes, State
from gimlet.runtime.tensors import TensorSpec
from gimlet.runtime.trace import PROGRAM_TRACK, Trace
from gimlet.runtime.transports.base import Transport
from gimlet.runtime.transports.registry import load_transport

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor


_KEEP = "compile it with --state INPUT=OUTPUT"


@dataclass(frozen=True)
class Running:
    """Where a segment really runs: its device, the executor, and whether that computes what the device would."""

    segment: str
    device: str
    executor: str
    format: str
    emulated: bool


class Program:
    """A bundle with its segments loaded. Close it, or use it as a context manager, to free them early."""

    def __init__(self, bundle: Bundle, segments: Mapping[str, LoadedSegment], inflight: int) -> None:
        manifest = bundle.manifest
        self._bundle = bundle
        self._segments = segments
        self.inputs: tuple[TensorSpec, ...] = tuple(manifest.spec(port) for port in manifest.inputs)
        self.outputs: tuple[TensorSpec, ...] = tuple(manifest.spec(port) for port in manifest.outputs)
        self.trace: Trace | None = None
        memories = {segment.device: segment.variants[0].executor.memory for segment in segments.values()}
        if memories.get(manifest.topology.host, HOST_MEMORY) != HOST_MEMORY:
            raise InputError("inputs and outputs are not in host memory", where=manifest.topology.host)
        schedule = build_schedule(manifest, memories)
        values = {value.id: value for value in manifest.values}
        self.states: tuple[TensorSpec, ...] = tuple(
            replace(values[state.read].spec, name=state.name) for state in manifest.states
        )
        self._checker = InputChecker(self.inputs, manifest.dims, read_defaults(bundle))
        with_states = InputChecker((*self.inputs, *self.states), manifest.dims, states=len(self.states))
        self._signature = manifest.signature
        if self._signature is not None and manifest.states:
            inputs, outputs = {state.name for state in manifest.states}, {state.result for state in manifest.states}
            self._signature = self._signature.without(inputs, outputs)
        self._keywords_only = self._signature is not None and self._signature.has_only_keywords()
        variants: dict[str, tuple[LoadedVariant, ...]] = {name: item.variants for name, item in segments.items()}
        self._machinery = Machinery(
            schedule=schedule,
            variants=variants,
            transports=_transports(manifest, schedule),
            output_names=tuple(port.name for port in manifest.outputs),
            sizes_of=with_states.sizes,
        )
        executors = [variant.executor for loaded in variants.values() for variant in loaded]
        asynchronous = any(executor.asynchronous for executor in executors)
        self._runner = Lanes(schedule) if schedule.concurrent else Inline(schedule, asynchronous=asynchronous)
        self._run_actions = self._runner.run
        self._executors = executors
        self._idle: list[Frame] = []
        self._inflight = inflight
        self._requests: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._open_states: set[State] = set()
        self._own_state: State | None = None
        self._closed = self._freed = False

    @property
    def id(self) -> str:
        """The bundle's id: the sha256 of its manifest."""
        return self._bundle.id

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""
        return self._bundle.manifest

    @property
    def running(self) -> tuple[Running, ...]:
        """Where each segment runs."""
        return tuple(
            Running(name, item.device, item.variants[0].executor.name, item.format, item.emulated)
            for name, item in self._segments.items()
        )

    def __call__(self, /, *args: Any, **inputs: Any) -> Any:
        """Runs the program once: as the PyTorch module was called that it was compiled from, or by the inputs' names.

        The first where there are positional arguments, or the module was traced without any: nested containers of
        arrays (or of anything with `__array__` or `__dlpack__`) go in, and what the module returned comes out, with
        arrays for tensors and dicts for objects with fields. Arrays that the module changes in place are changed, too.
        Otherwise as `run`.

        InputError as for `run`, and for arguments of another structure than those that the module was traced with.
        """
        return self._call(self.run, args, inputs)

    def _call(self, run: Run, args: Sequence[Any], inputs: Mapping[str, Any]) -> Any:
        if not args and not self._keywords_only:
            return run(inputs)
        if self._signature is None:
            raise InputError(
                "positional arguments, and the bundle does not say how its model was called",
                hint=f"give the inputs by name: {', '.join(spec.name for spec in self.inputs) or 'there are none'}",
            )
        feeds = self._signature.feeds(args, inputs)
        to_change = self._signature.to_change(feeds)
        outputs = run(feeds)
        for array, after in to_change:
            np.copyto(array, outputs[after], casting="no")
        return self._signature.returned(outputs)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Runs the program once: arrays by the names of its inputs, to arrays by the names of its outputs.

        A sequence is a list of arrays, an optional its value or None, a map a dict.

        An input that has a default may be left out. InputError for inputs of the wrong name, type or shape, or values
        that a segment's framework refuses. A program with a state runs on its own one, which no other
        run may be on.
        """
        if self.states:
            return self._own().run(inputs)
        arrays, signature = self._checker.arrays(inputs)
        try:
            frame = self._idle.pop()
        except IndexError:
            frame = self._new_frame()
        trace = self.trace
        start = perf_counter_ns() if trace else 0
        try:
            plan = frame.known_plan(signature) or frame.plan(signature)
            plan.feed(arrays)
            self._run_actions(plan.actions, trace)
            outputs = plan.results()
        finally:
            self._idle.append(frame)
        if trace:
            trace.add(PROGRAM_TRACK, "run", start, perf_counter_ns())
        return outputs

    def state(self) -> State:
        """A state of its own for another sequence, of zeros. InputError where the program keeps no state."""
        _require_open(closed=self._closed)
        if not self.states:
            raise InputError("the program keeps no state", hint=_KEEP)
        with self._lock:
            return self._new_state()

    def _new_state(self) -> State:
        forget = self._open_states.discard
        hooks = Hooks(self._on_state, self._call, self._on_thread, self._initial_sizes, forget)
        state = State(self._machinery, hooks)
        self._open_states.add(state)
        return state

    def reset(self) -> None:
        """Makes the program's own state zeros again. InputError where it keeps none, and while a run is under way."""
        if not self.states:
            raise InputError("the program keeps no state", hint=_KEEP)
        self._own().reset()

    def initial_state(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What a first run on a state finds there if it is given `inputs`: zeros. Errors as of `run`."""
        with self.state() as state:
            state.begin(self._checker.arrays(inputs)[1])
            state.keep()
            return state.values()

    def _own(self) -> State:
        with self._lock:
            if self._own_state is None:
                self._own_state = self._new_state()
            return self._own_state

    def _initial_sizes(self, shapes: Shapes) -> dict[str, int]:
        """The sizes of dimensions in the first run on a state: what the inputs say, else the least."""
        least = {name: each.minimum for name, each in self.manifest.dims.items()}
        return least | self._checker.sizes(shapes)

    def _on_state(self, state: State, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """A run on a state that no other run is on."""
        _require_open(closed=self._freed)
        arrays, shapes = self._checker.arrays(inputs)
        signature = (*shapes, *state.shapes(shapes))
        plan = state.frame.known_plan(signature) or state.frame.plan(signature, state.parts)
        trace = self.trace
        start = perf_counter_ns() if trace else 0
        plan.feed(arrays, state.parts)
        state.write()
        self._run_actions(plan.actions, trace)
        outputs = plan.results()
        plan.leave(state.parts)
        state.keep()
        if trace:
            trace.add(PROGRAM_TRACK, "run", start, perf_counter_ns())
        return outputs

    def submit(self, /, *args: Any, **inputs: Any) -> Future[Any]:
        """As a call, on another thread. At most `inflight` requests of `load` run at once; others wait.

        Those of a program with a state run one after the other, as they were submitted.
        """
        if self.states:
            return self._own().submit(*args, **inputs)
        return self._submit(self, *args, **inputs)

    def submit_run(self, inputs: Mapping[str, Any]) -> Future[dict[str, Any]]:
        """As `run`, on another thread, like `submit`."""
        if self.states:
            return self._own().submit_run(inputs)
        return self._submit(self.run, inputs)

    def _on_thread(self, function: Callable[[], None]) -> None:
        self._submit(function)

    def _submit(self, function: Callable[..., Any], /, *args: Any, **inputs: Any) -> Future[Any]:
        with self._lock:
            _require_open(closed=self._closed)
            if self._requests is None:
                from concurrent.futures import ThreadPoolExecutor

                self._requests = ThreadPoolExecutor(self._inflight, thread_name_prefix="gimlet-request")
            return self._requests.submit(function, *args, **inputs)

    def _new_frame(self) -> Frame:
        _require_open(closed=self._freed)
        return Frame(self._machinery)

    def close(self) -> None:
        """Waits for what is in flight and frees the segments. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            requests = self._requests
        if requests is not None:
            requests.shutdown(wait=True)
        self._freed = True
        self._runner.close()
        while self._idle:
            self._idle.pop().close()
        for state in list(self._open_states):
            state.close()
        for executor in self._executors:
            executor.synchronize()
            executor.close()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _require_open(*, closed: bool) -> None:
    if closed:
        raise InputError("the program was closed", hint="load the bundle again")


def _transports(manifest: Manifest, schedule: Schedule) -> dict[int, Transport]:
    kinds = {device.name: device.kind for device in manifest.topology.devices}
    found: dict[int, Transport] = {}
    for step in schedule.steps:
        if isinstance(step, CopyStep):
            source, target = schedule.places[step.source], schedule.places[step.target]
            found[step.index] = load_transport(kinds[source.device], kinds[target.device], source.memory, target.memory)
    return found


def load(
    path: str | os.PathLike[str],
    *,
    emulate_missing: bool = False,
    verify_hashes: bool = False,
    devices: Mapping[str, Mapping[str, Any]] | None = None,
    inflight: int | None = None,
) -> Program:
    """Loads the bundle at `path`.

    A device that is not here is an error, unless `emulate_missing`: its segments' portable forms then run on this CPU.
    `verify_hashes` compares every file now instead of those that are used. `devices` says for a device of the
    topology which real one is meant, as its executor understands it (`{"gpu0": {"index": 1}}`). `inflight` bounds how
    many requests of `submit` run at once; by default one more than there are devices, and no fewer than a segment was
    given streams for.

    InputError for a bundle that cannot be read, CheckError for one that was changed, MissingError for a device or
    package that is not here, UsageError for a name in `devices` that the topology lacks.
    """
    bundle = open_bundle(path, verify_hashes=verify_hashes)
    segments = load_segments(bundle, emulate_missing=emulate_missing, devices=devices or {})
    return Program(bundle, segments, inflight or _requests_at_once(bundle.manifest))


def _requests_at_once(manifest: Manifest) -> int:
    """One more than there are devices, and as many as there are streams of a segment."""
    variants = [variant for segment in manifest.segments for variant in segment.variants]
    streams = [count for variant in variants if isinstance(count := variant.options.get("streams"), int)]
    return max([len(manifest.topology.devices) + 1, *streams])
