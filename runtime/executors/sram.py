"""Runs a segment's program on the emulator of the SRAM accelerator: no compiler, no graph, no other runtime.

The artifact is `program.sram` and, where it has weights, `weights.sram`, which is mapped into memory. A program is for
a range of sizes; those of a run come from the shapes of its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from gimlet.runtime.errors import InputError
from gimlet.runtime.executors.base import (
    DONE,
    Bindings,
    Buffer,
    DeviceSpec,
    Event,
    Executor,
    SegmentArtifact,
    wait_all,
)
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.cycles import Timing, time_program
from gimlet.runtime.sram.emulator import Emulator
from gimlet.runtime.sram.encoding import loads
from gimlet.runtime.sram.program import Dim, Program
from gimlet.runtime.sram.verify import verify
from gimlet.runtime.tensors import TensorSpec


class SramBindings(Bindings):
    """Host arrays by name."""

    def __init__(self, segment: str, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer | None]) -> None:
        self.segment = segment
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, np.ndarray | None] = {}
        self.made: dict[str, np.ndarray] = {}
        self.sizes: Mapping[str, int] = {}
        for name, buffer in inputs.items():
            self.set_input(name, buffer)
        for name, buffer in outputs.items():
            self.set_output(name, buffer)

    def set_input(self, name: str, buffer: Buffer) -> None:
        self.inputs[name] = self._array(name, buffer)

    def set_output(self, name: str, buffer: Buffer | None) -> None:
        self.outputs[name] = None if buffer is None else self._array(name, buffer)

    def output(self, name: str) -> Buffer:
        found = self.outputs[name]
        if found is None:
            found = self.made.get(name)
        if found is None:
            raise InputError(f"output {name!r} was read before a run", where=self.segment)
        return found

    def set_sizes(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes

    def _array(self, name: str, buffer: Buffer) -> np.ndarray:
        if not isinstance(buffer, np.ndarray):
            raise InputError(f"{name}: the emulator reads and writes host memory", where=self.segment)
        return buffer


class SramExecutor(Executor):
    """A program on the emulator. Synchronous; runs with different bindings share nothing but weights."""

    name: ClassVar[str] = "sram"
    emulation: ClassVar[bool] = True

    def __init__(self, artifact: SegmentArtifact, program: Program, weights: np.ndarray) -> None:
        self.segment = artifact.segment
        self.inputs = {spec.name: spec for spec in artifact.inputs}
        self.outputs = {spec.name: spec for spec in artifact.outputs}
        self.program = program
        self.emulator = Emulator(program, weights)
        outputs = {each.tensor: each.name for each in program.outputs}
        self.states = {each.name: outputs[each.tensor] for each in program.inputs if each.tensor in outputs}
        """The output that each input is which the program changes where it lies."""
        self._timings: dict[tuple[int, ...], Timing] = {}

    @classmethod
    def load(cls, artifact: SegmentArtifact, device: DeviceSpec) -> SramExecutor:
        del device
        path = artifact.file_ending("program.sram")
        try:
            program = loads(path.read_text(encoding="utf-8"))
            verify(program)
        except UnicodeDecodeError:
            raise InputError(f"{path.name} is not text", where=artifact.segment) from None
        weights = np.zeros(0, np.uint8)
        if any(name.endswith("weights.sram") for name in artifact.files):
            weights = np.memmap(artifact.file_ending("weights.sram"), np.uint8, mode="r")
        for kind, bindings, specs in (
            ("input", program.inputs, artifact.inputs),
            ("output", program.outputs, artifact.outputs),
        ):
            known = {spec.name for spec in specs}
            for binding in bindings:
                if binding.name not in known:
                    raise InputError(
                        f"the program has {kind} {binding.name!r}, its segment has not", where=artifact.segment
                    )
        return cls(artifact, program, weights)

    def bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer | None]) -> SramBindings:
        return SramBindings(self.segment, inputs, outputs)

    def submit(self, bindings: Bindings, wait: Sequence[Event] = ()) -> Event:
        if not isinstance(bindings, SramBindings):
            raise TypeError(f"bindings of another executor: {type(bindings).__name__}")
        wait_all(wait)
        sizes = self.sizes(bindings.inputs, bindings.sizes)
        for name, values in self.emulator.run(bindings.inputs, sizes, self._in_place(bindings)).items():
            dtype = self.outputs[name].numpy_type
            given = bindings.outputs.get(name)
            if given is not None and np.may_share_memory(given, values):
                continue
            if given is None:
                bindings.made[name] = np.array(values, dtype, order="C")
                continue
            if given.shape != values.shape:
                message = f"output {name!r} has shape {list(values.shape)}, its buffer {list(given.shape)}"
                raise InputError(message, where=self.segment)
            given[...] = values.astype(dtype, copy=False)
        return DONE

    def _in_place(self, bindings: SramBindings) -> list[str]:
        """The states that are bound to one memory, before and after a run."""
        found: list[str] = []
        for state, after in self.states.items():
            given = bindings.outputs.get(after)
            if given is not None and np.may_share_memory(given, bindings.inputs[state]):
                found.append(state)
        return found

    def sizes(self, inputs: Mapping[str, np.ndarray], known: Mapping[str, int] | None = None) -> dict[str, int]:
        """The program's symbolic dimensions: `known` ones, and what the shapes of the inputs tell.

        InputError where neither does.
        """
        pairs: list[tuple[Expr, int]] = []
        for name, spec in self.inputs.items():
            if name in inputs and spec.shape is not None:
                pairs += _pairs(spec, inputs[name], self.segment)
        return solve(self.program.dims, pairs, self.segment, known or {})

    def timing(self, inputs: Mapping[str, np.ndarray]) -> Timing:
        """How many cycles the machine would take for a run with such inputs."""
        sizes = self.sizes(inputs)
        key = tuple(sizes[dim.name] for dim in self.program.dims)
        if key not in self._timings:
            self._timings[key] = time_program(self.emulator.bind(sizes))
        return self._timings[key]


def _pairs(spec: TensorSpec, array: np.ndarray, segment: str) -> list[tuple[Expr, int]]:
    shape = spec.shape or ()
    if len(shape) != array.ndim:
        raise InputError(f"input {spec.name!r} has {array.ndim} dimensions, expected {spec}", where=segment)
    return [(expr, size) for expr, size in zip(shape, array.shape, strict=True) if expr is not None]


def solve(
    dims: Sequence[Dim], pairs: Sequence[tuple[Expr, int]], segment: str, given: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Sizes of `dims` at which every expression has the size beside it. InputError where there are none.

    What is `given` is not looked for. An expression of one unknown dimension is taken to grow with it, and solved by
    bisection for the smallest size that fits; of several expressions the largest of these fits all, or none does.
    Everything inside the segment follows from the shapes of its inputs, so any size that fits them will do, and where
    two dimensions are only known by their sum, any two.
    """
    bounds = {dim.name: dim for dim in dims}
    known = {name: size for name, size in (given or {}).items() if name in bounds}
    pending = sorted(pairs, key=lambda pair: len(str(pair[0])))
    for expr, size in pending:
        if str(expr) in bounds and str(expr) not in known:
            known[str(expr)] = _bisect(expr, size, bounds[str(expr)], known, segment)
    progress = True
    while progress and len(known) < len(bounds):
        before = len(known)
        found: dict[str, int] = {}
        for expr, size in pending:
            unknown = [name for name in expr.symbols if name in bounds and name not in known]
            if len(unknown) == 1 and expr.symbols - set(unknown) <= known.keys():
                least = _bisect(expr, size, bounds[unknown[0]], known, segment)
                found[unknown[0]] = max(least, found.get(unknown[0], least))
        known |= found or _any_fit(pending, bounds, known)
        progress = len(known) > before
    for name in bounds:
        if name not in known:
            raise InputError(f"the shapes of the inputs do not tell the size of dimension {name!r}", where=segment)
    for expr, size in pending:
        if expr.symbols <= known.keys() and expr.evaluate(known) != size:
            told = ", ".join(f"{name} = {value}" for name, value in known.items())
            raise InputError(f"a dimension should be {expr}, it is {size} ({told})", where=segment)
    return known


def _any_fit(pairs: Sequence[tuple[Expr, int]], bounds: Mapping[str, Dim], known: Mapping[str, int]) -> dict[str, int]:
    """Sizes for the first expression with unknown dimensions: one after another the largest that it allows."""
    for expr, size in pairs:
        unknown = sorted(name for name in expr.symbols if name in bounds and name not in known)
        if not unknown or not expr.symbols <= bounds.keys():
            continue
        found = {name: bounds[name].minimum for name in unknown}
        for name in unknown:
            low, high = bounds[name].minimum, bounds[name].maximum
            while low < high:
                middle = (low + high + 1) // 2
                fits = expr.evaluate({**known, **found, name: middle}) <= size
                low, high = (middle, high) if fits else (low, middle - 1)
            found[name] = low
        return found
    return {}


def _bisect(expr: Expr, size: int, dim: Dim, known: Mapping[str, int], segment: str) -> int:
    low, high = dim.minimum, dim.maximum
    while low < high:
        middle = (low + high) // 2
        if expr.evaluate({**known, dim.name: middle}) < size:
            low = middle + 1
        else:
            high = middle
    if expr.evaluate({**known, dim.name: low}) != size:
        raise InputError(
            f"dimension {expr} is {size}, which no {dim.name} from {dim.minimum} to {dim.maximum} gives",
            where=segment,
            hint=f"compile with --bind {dim.name}=MIN:OPT:MAX that includes it",
        )
    return low
