"""The loss of every op in every number format that it may be placed in, and of a whole placement.

An op's loss in a format is measured: its operands and results are rounded as the device would (`Target.rounding`), with
the model's own weights, and the relative error (L2) that reaches the worst floating-point output is its loss. Losses of
several ops are taken as independent and added by their squares; that is what a placement is chosen by. Since they are
not quite independent, a placement is then run with all its roundings at once (`loss_of`), on other inputs too.

What it costs is held down in two ways. A product and the ops behind it up to the next one are rounded together, and
share the loss by the squares of what each rounding does to its own op's results. Of stretches that are alike (equal
signatures, so equal shapes) `MOST_ALIKE` are measured, spread over the model, and the others are taken to lose as much
as the worst of those.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from gimlet.compiler.losses.evaluator import HostRun
from gimlet.compiler.losses.kept import KeptLosses, content_of, kept_losses, roundings_key
from gimlet.compiler.manifest_ir import element_name
from gimlet.compiler.placement.model.problem import Node, Problem
from gimlet.compiler.placement.model.rules import with_nodes
from gimlet.compiler.placement.reading.graph import ModuleGraph
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp, parts_of, value_name
from gimlet.dialects.onnx.types import shape_of
from gimlet.dialects.onnx.work import work_of
from gimlet.passes.entry import entry_function, is_constant
from gimlet.passes.restore_parts import restore
from gimlet.runtime.errors import InputError, UsageError
from gimlet.runtime.random_inputs import random_array
from gimlet.runtime.tensors import TensorSpec
from gimlet.targets.api import Device, Rounding, Target
from gimlet.targets.one_op import signature_of

Array = NDArray[Any]
Roundings = Mapping[Operation, Rounding]
MOST_ALIKE: Final = 6
LONGEST: Final = 12
SETS: Final = (6, 32)
ELEMENTS: Final = 64
"""A placement is checked on so many sets of random inputs (least, most) that the smallest output has `ELEMENTS` in all:
the relative error of a few numbers is itself a matter of chance."""


@dataclass(frozen=True)
class LossSite:
    """What the loss of a place depends on."""

    device: Device
    target: Target
    format: str


@dataclass
class LossModel:
    """Measures losses of one module, with symbolic dimensions as `graph` has them.

    `inputs` are arrays by the names of the module's inputs to measure on; without, random ones from `seed`. What is
    measured is kept in the folder `cache`. `measured` counts the ops that were.
    """

    module: ModuleOp
    ctx: GimletContext
    graph: ModuleGraph
    sites: Sequence[LossSite]
    inputs: Mapping[str, Array] | None = None
    seed: int = 0
    cache: Path | None = None
    measured: int = 0

    @cached_property
    def runs(self) -> list[HostRun]:
        """The run that losses are measured on, and those that a placement is checked on."""
        module = self.plain_form.module
        block = entry_function(module).body.block
        specs = {
            value: TensorSpec(value_name(value), element_name(value.type), shape_of(value)) for value in block.args
        }
        kernels = HostRun(module, self.ctx, {}).kernels
        if self.inputs is not None:
            arguments: dict[SSAValue, Array] = {value: _input(self.inputs, spec) for value, spec in specs.items()}
            return [HostRun(module, self.ctx, arguments, kernels)]

        def run(index: int) -> HostRun:
            generator = np.random.default_rng([self.seed, index])
            arguments: dict[SSAValue, Array] = {
                value: random_array(spec, self.graph.sizes, generator) for value, spec in specs.items()
            }
            return HostRun(module, self.ctx, arguments, kernels)

        first = run(0)
        smallest = min((first.values[value].size for value in first.outputs), default=ELEMENTS)
        count = min(max(-(-ELEMENTS // max(smallest, 1)), SETS[0]), SETS[1])
        return [first, *map(run, range(1, count))]

    @property
    def inputs_text(self) -> str:
        """What losses are measured on, for people."""
        if self.inputs is not None:
            return "the inputs given"
        (count,) = self._kept.get("sets", lambda: (float(len(self.runs)),))
        self._kept.write()
        return f"{count:.0f} sets of random inputs"

    @cached_property
    def _kept(self) -> KeptLosses:
        """What earlier compiles have measured of this module."""
        module = self.plain_form.module
        return kept_losses(self.cache, lambda: content_of(module, self.ctx, self.graph.sizes, self.inputs, self.seed))

    @cached_property
    def _number(self) -> dict[Operation, int]:
        """The number of each op that is run."""
        return {op: index for index, op in enumerate(entry_function(self.plain_form.module).body.block.ops)}

    @cached_property
    def plain_form(self) -> PlainForm:
        """The module as it is run, with the parts of large operators in their place."""
        return plain_form(self.module)

    def roundings(self, number: int, place: int) -> dict[Operation, Rounding]:
        """What a place does to the values of a unit's ops, or of the parts that they stand for."""
        site = self.sites[place]
        asked = {
            part: site.target.rounding(part, site.device, site.format, self.ctx) for part in self._parts_of_unit(number)
        }
        return {part: rounding for part, rounding in asked.items() if rounding is not None}

    def _parts_of_unit(self, number: int) -> list[Operation]:
        return [part for op in self.graph.units[number].ops for part in self.plain_form.parts[op]]

    def with_losses(self, problem: Problem) -> Problem:
        """The problem with the loss of every node on every place. A place that a node's values do not survive refuses.

        InputError where the module cannot run on the host; UsageError where it has no floating-point output.
        """
        asked: dict[tuple[int, int], Roundings] = {}
        for number, node in enumerate(problem.nodes):
            for place in node.options:
                found = self.roundings(number, place)
                if found:
                    asked[number, place] = found
        losses = self._measure(asked)
        self._kept.write()
        nodes = [self._with_losses(problem, number, node, losses) for number, node in enumerate(problem.nodes)]
        return with_nodes(problem, nodes)

    def _with_losses(self, problem: Problem, number: int, node: Node, losses: Mapping[tuple[int, int], float]) -> Node:
        options, refusals = dict(node.options), dict(node.refusals)
        for place, option in node.options.items():
            loss = losses.get((number, place), 0.0)
            if loss == float("inf"):
                del options[place]
                refusals[place] = f"its values are not finite in {problem.places[place].format}"
            else:
                options[place] = replace(option, loss=loss)
        return replace(node, options=options, refusals=refusals)

    def _measure(self, asked: Mapping[tuple[int, int], Roundings]) -> dict[tuple[int, int], float]:
        """Losses by (node, place). Roundings that several places share, and stretches that are alike, are one."""
        classes: dict[Hashable, dict[tuple[int, ...], list[int]]] = {}
        for stretch, place in self._stretches(asked):
            kind = tuple((_signature(op), r) for number in stretch for op, r in asked[number, place].items())
            classes.setdefault(kind, {}).setdefault(stretch, []).append(place)
        found: dict[tuple[int, int], float] = {}
        for members in classes.values():
            stretches = sorted(members)
            step = max(1.0, len(stretches) / MOST_ALIKE)
            chosen = {stretches[int(index * step)] for index in range(min(len(stretches), MOST_ALIKE))}
            known = {stretch: self._stretch_loss(stretch, members[stretch][0], asked) for stretch in chosen}
            worst = tuple(max(losses) for losses in zip(*known.values(), strict=True))
            for stretch, places in members.items():
                for number, loss in zip(stretch, known.get(stretch, worst), strict=True):
                    found |= {(number, place): loss for place in places}
        return found

    def _stretches(self, asked: Mapping[tuple[int, int], Roundings]) -> Iterator[tuple[tuple[int, ...], int]]:
        """For each place, runs of nodes that it rounds: a product and what follows it, `LONGEST` at most."""
        for place in sorted({place for _, place in asked}):
            stretch: list[int] = []
            for number in sorted(number for number, other in asked if other == place):
                if stretch and (len(stretch) == LONGEST or self._has_product(number)):
                    yield tuple(stretch), place
                    stretch = []
                stretch.append(number)
            if stretch:
                yield tuple(stretch), place

    def _has_product(self, number: int) -> bool:
        return any(work_of(op).op_class in ("matrix", "conv") for op in self._parts_of_unit(number))

    def _stretch_loss(
        self, stretch: tuple[int, ...], place: int, asked: Mapping[tuple[int, int], Roundings]
    ) -> tuple[float, ...]:
        """The loss of each node of a stretch: that of all, shared by the squares of what each does by itself."""
        groups = [asked[number, place] for number in stretch]
        return self._kept.get(roundings_key(groups, self._number), lambda: self._measured_loss(groups))

    def _measured_loss(self, groups: Sequence[Roundings]) -> tuple[float, ...]:
        run = self.runs[0]
        if not run.outputs:
            raise UsageError("has no floating-point output that a loss could be measured at", where="--loss-budget")
        together = {op: rounding for group in groups for op, rounding in group.items()}
        self.measured += len(together)
        loss = run.loss(together)
        if len(groups) == 1 or loss == float("inf"):
            return (loss,) * len(groups)
        own = [math.hypot(*map(run.own_error, group, group.values())) for group in groups]
        total = math.hypot(*own)
        return tuple(loss * error / total if total else 0.0 for error in own)

    def loss_of(self, place: Sequence[int]) -> float:
        """The relative error (L2) of the worst output when every node is rounded as on its place.

        On several sets of inputs it is the mean and three standard deviations, or the worst if that is more.
        """
        roundings = {
            op: rounding for number, used in enumerate(place) for op, rounding in self.roundings(number, used).items()
        }
        if not roundings:
            return 0.0
        key = "placement " + roundings_key([roundings], self._number)
        (loss,) = self._kept.get(key, lambda: (self._final_loss(roundings),))
        self._kept.write()
        return loss

    def _final_loss(self, roundings: Roundings) -> float:
        self.measured += len(roundings)
        losses = [run.final_loss(roundings) for run in self.runs]
        if not np.isfinite(losses).all():
            return float("inf")
        return max(*losses, float(np.mean(losses) + 3 * np.std(losses))) if len(losses) > 1 else losses[0]


@dataclass(frozen=True)
class PlainForm:
    """A copy of a module without large operators, and what each op of the module's @main is in it."""

    module: ModuleOp
    parts: Mapping[Operation, Sequence[Operation]]


def plain_form(module: ModuleOp) -> PlainForm:
    """The module with the operations that large operators stand for (`gimlet.dialects.onnx.parts`)."""
    copy = module.clone()
    pairs = list(zip(entry_function(module).body.block.ops, entry_function(copy).body.block.ops, strict=True))
    parts: dict[Operation, Sequence[Operation]] = {}
    for op, twin in pairs:
        function = parts_of(twin)
        if function is None or not isinstance(twin, OnnxOp):
            parts[op] = [twin]
        else:
            parts[op] = [part for part in restore(twin, function) if not is_constant(part)]
    return PlainForm(copy, parts)


def _signature(op: Operation) -> Hashable:
    return signature_of(op) if isinstance(op, OnnxOp) else id(op)


def _input(inputs: Mapping[str, Array], spec: TensorSpec) -> Array:
    array = inputs.get(spec.name)
    if array is None:
        names = ", ".join(sorted(inputs)) or "none"
        raise UsageError(f"input {spec.name!r} is not given", where="--loss-input", hint=f"those given are: {names}")
    shape = array.shape if spec.shape is None else spec.shape
    fits = array.ndim == len(shape) and all(
        dim is None or not dim.is_constant or dim.as_int() == size for dim, size in zip(shape, array.shape, strict=True)
    )
    if array.dtype != spec.numpy_type or not fits:
        raise InputError(f"{spec.name!r} is {array.dtype} {list(array.shape)}, not {spec}", where="--loss-input")
    return array
