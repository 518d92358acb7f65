"""The cycles of a convolution alone, by its own kernel or as a product of patches, as the cycle model times it.

As for products (trial.py): the closed form knows no queues, and is off by more than the two ways differ.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import inf

from gimlet.dialects.onnx import OnnxOp
from gimlet.passes.sram_home_weights import Homes
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.dealing import Dealing
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.sram import channels
from gimlet.targets.sram.builder import Bounds, ProgramBuilder, RefusedError
from gimlet.targets.sram.constants import Array, Constant
from gimlet.targets.sram.convolution import Convolution, Geometry
from gimlet.targets.sram.expression import Node, Product
from gimlet.targets.sram.lowering import Lowering
from gimlet.targets.sram.trial import cycles_alone
from gimlet.targets.sram.views import Shape, View

Way = Callable[[Convolution], Product]
"""Makes of a convolution what is emitted for it."""


@dataclass(frozen=True)
class _Case:
    """All that the time of a convolution depends on; two cases that are equal take as long."""

    machine: Machine
    dealing: Dealing
    room: int
    spare: int
    source: tuple[int, ...]
    made: tuple[int, ...]
    weight: tuple[int, ...]
    geometry: Geometry
    types: tuple[str, str]
    reads_last: bool
    makes_last: bool
    groups: int
    homes: Homes = field(compare=False)
    op: OnnxOp | None = field(compare=False)


def cycles_of(convolution: Convolution, way: Way, size: float) -> float:
    """The cycles of a convolution of weights of `size` bytes a core, and what stands behind it; inf if refused."""
    lowering, shape, source = convolution.lowering, convolution.shape, convolution.source
    builder, bounds, op = lowering.builder, lowering.bounds, convolution.op
    geometry = convolution.geometry
    case = _Case(
        machine=builder.machine,
        dealing=builder.dealing,
        room=builder.homes.room,
        spare=builder.homes.spare(size),
        source=tuple(bounds.best(dim) for dim in source.shape),
        made=tuple(bounds.best(dim) for dim in shape),
        weight=convolution.weight.shape,
        geometry=replace(geometry, pads=tuple(Expr.const(pad.evaluate(bounds.optimum)) for pad in geometry.pads)),
        types=(source.dtype, convolution.dtype),
        reads_last=channels.are_last(builder, source, len(shape)),
        makes_last=op is None or op.results[0] not in lowering.results,
        groups=convolution.groups,
        homes=builder.homes,
        op=op,
    )
    return _timed(case, way)


@lru_cache(maxsize=4096)
def _timed(case: _Case, way: Way) -> float:
    machine, dealing = case.machine, case.dealing
    builder = ProgramBuilder(machine, Bounds({}, {}, {}), dealing, deepcopy(case.homes))
    lowering = Lowering(builder, "fp32", None, {})
    source = _map(builder, case.types[0], case.source, case.reads_last, is_input=True)
    target = _map(builder, "f32", case.made, case.makes_last, is_input=False)
    shape = tuple(map(Expr.const, case.made))
    weight = Constant("weights", "f32", case.weight, _no_values)
    found = Convolution(
        lowering, source, False, weight, case.groups, case.geometry, case.types[1], shape, case.op, None
    )
    try:
        lowering.emit(Node("relu", (way(found),), "f32", shape), target)
        return float(cycles_alone(builder))
    except RefusedError:
        return inf


def _map(builder: ProgramBuilder, dtype: str, sizes: tuple[int, ...], is_last: bool, *, is_input: bool) -> View:
    """A feature map [N, C, ...] that is given or made, with channels last if so."""
    rank, shape = len(sizes), tuple(map(Expr.const, sizes))
    lies: Shape = tuple(shape[axis] for axis in channels.last(rank)) if is_last else shape
    name = builder.tensor(dtype, lies, "input" if is_input else "output")
    view = View.whole(name, dtype, lies)
    if not is_last:
        return view
    builder.channels_last.add(name)
    return view.transpose(channels.first(rank))


def _no_values() -> Array:
    raise RefusedError("a trial has no values")
