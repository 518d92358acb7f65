"""Sizes to suggest for dimensions that nobody bounds: small ones at which no value of the model would be empty.

What a model can run is its own matter. Its shapes rule some sizes out: those at which a dimension would be below 1, or
at which operands that meet would differ. The suggestion is the least power of two that they do not rule out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from xdsl.ir import Block

from gimlet.dialects.onnx import OnnxOp, shape_of
from gimlet.runtime.expr import Expr

_SIZES: Final = tuple(1 << power for power in range(15))
_MEETING: Final = frozenset({"Add", "Concat", "Div", "Mul", "Sub"})


def example_sizes(block: Block, unbound: Iterable[str], known: Mapping[str, int]) -> dict[str, int] | None:
    """A size for each unbound dimension, with the others as `known`. None where the shapes rule out all that are tried.

    First one size for all of them, then each as small as the others let it be.
    """
    names = sorted(unbound)
    needs = _Needs(block, {*names, *known})
    common = next((size for size in _SIZES if needs.hold(dict(known) | dict.fromkeys(names, size))), None)
    if common is None:
        return None
    sizes = dict(known) | dict.fromkeys(names, common)
    for name in names:
        sizes[name] = next(size for size in _SIZES if needs.hold(sizes | {name: size}))
    return {name: sizes[name] for name in names}


class _Needs:
    """What sizes must do for a block's values: dimensions of at least 1, and operands that fit each other."""

    def __init__(self, block: Block, symbols: set[str]) -> None:
        dims = {dim for op in block.ops for value in op.results for dim in shape_of(value) or () if dim is not None}
        meetings = {meeting for op in block.ops if isinstance(op, OnnxOp) for meeting in _meetings(op)}
        self.positive = [dim for dim in dims if dim.symbols and dim.symbols <= symbols]
        self.meetings = [meeting for meeting in meetings if meeting[0].symbols | meeting[1].symbols <= symbols]

    def hold(self, sizes: Mapping[str, int]) -> bool:
        if any(dim.evaluate(sizes) < 1 for dim in self.positive):
            return False
        met = ((one.evaluate(sizes), other.evaluate(sizes), repeats) for one, other, repeats in self.meetings)
        return all(one == other or (repeats and 1 in (one, other)) for one, other, repeats in met)


def _meetings(op: OnnxOp) -> list[tuple[Expr, Expr, bool]]:
    """Dimensions of different operands that must be equal, and whether one that is 1 is repeated instead."""
    shapes = [shape_of(value) or () for value in op.operands]
    if op.op_type not in _MEETING or len({len(shape) for shape in shapes}) != 1:
        return []
    is_concat = op.op_type == "Concat"
    axes = set(range(len(shapes[0]))) - ({int(op.attr("axis")) % len(shapes[0])} if is_concat and shapes[0] else set())
    pairs = [(shapes[0][axis], shape[axis]) for shape in shapes[1:] for axis in axes]
    return [
        (one, other, not is_concat) for one, other in pairs if one is not None and other is not None and one != other
    ]
