"""Resize as lines of a function in ONNX's text form: elements that are gathered along one dimension after the other.

Of each dimension that changes, the places of the result in the source are computed as ONNX says, in float32; they are
constants where the sizes are known. Nearest takes the element at the rounded place, linear two elements and cubic four,
with their weights. Elements outside are the nearest ones inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gimlet.dialects.onnx import OnnxOp, dims_of
from gimlet.passes.function_lines import Lines, Unwritten, integers
from gimlet.runtime.expr import Expr

_FLOAT, _INT64 = 1, 7
_LARGEST_FACTOR = 16
_NEAR = 1e-3
_TRANSFORMS = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
_MODES = ("nearest", "linear", "cubic")
_ROUNDINGS = {
    "round_prefer_floor": ["rounded_{0} = Sub (place_{0}, half)", "near_{0} = Ceil (rounded_{0})"],
    "round_prefer_ceil": ["rounded_{0} = Add (place_{0}, half)", "near_{0} = Floor (rounded_{0})"],
    "floor": ["near_{0} = Floor (place_{0})"],
    "ceil": ["near_{0} = Ceil (place_{0})"],
}
_NUMBERS = {"zero": 0.0, "half": 0.5, "unit": 1.0}


@dataclass(frozen=True)
class _Axis:
    """A dimension that changes. `factor` is by how much where it is a whole number, and 0 where not."""

    at: int
    before: Expr
    after: Expr
    scale: float
    factor: int

    @property
    def is_known(self) -> bool:
        return self.before.is_constant and self.after.is_constant

    @property
    def has_corners(self) -> bool:
        """Whether the last element of the result is the last one of the source, and known to be."""
        return self.is_known and abs(self.before.as_int() * self.scale - self.after.as_int()) < _NEAR


def resize(op: OnnxOp, scales: Sequence[float] | None) -> Lines:
    """The lines that compute `y0`."""
    source = op.input_at(0)
    before, after = None if source is None else dims_of(source), dims_of(op.results[0])
    mode, transform = str(op.attr("mode", "nearest")), str(op.attr("coordinate_transformation_mode", "half_pixel"))
    rounding = str(op.attr("nearest_mode", "round_prefer_floor"))
    if before is None or after is None:
        return Unwritten("where the ranks of its input and result are known")
    if transform not in _TRANSFORMS or rounding not in _ROUNDINGS or mode not in _MODES:
        return Unwritten(
            f"by {', '.join(_TRANSFORMS)} and {', '.join(_MODES)}, and this one is by {transform} and {mode}"
        )
    if op.attr("antialias", 0) or op.attr("exclude_outside", 0):
        return Unwritten("without antialiasing, and not where what is outside is excluded")
    axes = _axes(op, before, after, scales or None)
    if isinstance(axes, Unwritten):
        return axes
    if transform == "align_corners" and not all(axis.has_corners for axis in axes):
        return Unwritten("by align_corners between known sizes whose ratios are the scales")
    lines = [f"{name} = Constant <value_float: float = {value!r}> ()" for name, value in _NUMBERS.items()]
    last = "x0"
    for axis in axes:
        lines += [*_place(axis, transform), *_limit(axis)]
        behind = len(before) - 1 - axis.at
        if mode == "nearest":
            lines += [line.format(axis.at) for line in _ROUNDINGS[rounding]]
            lines += _gathered(f"y_{axis.at}", last, axis.at, f"near_{axis.at}")
        elif mode == "linear":
            lines += _linear(axis.at, last, behind)
        else:
            lines += _cubic(axis.at, last, behind, float(op.attr("cubic_coeff_a", -0.75)))
        last = f"y_{axis.at}"
    return [*lines, f"y0 = Identity ({last})"]


def _axes(
    op: OnnxOp, before: Sequence[Expr], after: Sequence[Expr], scales: Sequence[float] | None
) -> list[_Axis] | Unwritten:
    """The dimensions that change, and by how much."""
    given = [int(axis) % len(before) for axis in op.attr("axes") or range(len(before))]
    if str(op.attr("keep_aspect_ratio_policy", "stretch")) != "stretch" or (scales and len(scales) != len(given)):
        return Unwritten("where each dimension has a scale of its own, without keep_aspect_ratio_policy")
    found: list[_Axis] = []
    for index, at in enumerate(given):
        old, new = before[at], after[at]
        factor = next((each for each in range(1, _LARGEST_FACTOR + 1) if old * each == new), 0)
        if scales[index] == 1 if scales else factor == 1:
            continue
        if old.is_constant and new.is_constant and old.as_int() and new.as_int():
            scale = scales[index] if scales else new.as_int() / old.as_int()
        elif factor and (not scales or scales[index] == factor):
            scale = float(factor)
        else:
            return Unwritten(f"between known sizes or by a whole factor, and dimension {at} goes from {old} to {new}")
        found.append(_Axis(at, old, new, scale, factor))
    return found


def _place(axis: _Axis, transform: str) -> list[str]:
    """`place_N`: where each element of the result is in dimension N of the source. `last_N`: its last element."""
    at = axis.at
    if axis.is_known:
        size = axis.after.as_int()
        lines = [integers(f"count_{at}", *range(size)), _number(f"last_{at}", axis.before.as_int() - 1)]
        if size == 1 and transform in ("align_corners", "pytorch_half_pixel"):
            return [*lines, f"place_{at} = Cast <to: int = {_FLOAT}> (count_{at})"]
    else:
        lines = [f"shape_{at} = Shape (x0)", integers(f"which_{at}", at), integers(f"factor_{at}", axis.factor)]
        lines.append(f"from_{at} = Gather <axis: int = 0> (shape_{at}, which_{at})")
        lines += [f"to_{at} = Mul (from_{at}, factor_{at})"]
        lines += [f"end_{at} = Squeeze (to_{at})", f"wide_{at} = Cast <to: int = {_FLOAT}> (from_{at})"]
        lines += [f"begin_{at} = Constant <value_int: int = 0> ()", f"by_{at} = Constant <value_int: int = 1> ()"]
        lines += [f"count_{at} = Range (begin_{at}, end_{at}, by_{at})", f"last_{at} = Sub (wide_{at}, unit)"]
    lines.append(f"all_{at} = Cast <to: int = {_FLOAT}> (count_{at})")
    if transform == "asymmetric":
        return [*lines, _number(f"scale_{at}", axis.scale), f"place_{at} = Div (all_{at}, scale_{at})"]
    if transform == "align_corners":
        steps = axis.after.as_int() - 1
        lines += [_number(f"steps_{at}", steps), f"scaled_{at} = Mul (all_{at}, last_{at})"]
        return [*lines, f"place_{at} = Div (scaled_{at}, steps_{at})"]
    lines += [_number(f"scale_{at}", axis.scale), f"middle_{at} = Add (all_{at}, half)"]
    return [*lines, f"scaled_{at} = Div (middle_{at}, scale_{at})", f"place_{at} = Sub (scaled_{at}, half)"]


def _number(name: str, value: float) -> str:
    return f"{name} = Constant <value_float: float = {float(value)!r}> ()"


def _limit(axis: _Axis) -> list[str]:
    """`inside_N`: the places, none before the first element or behind the last."""
    return _clipped(f"inside_{axis.at}", f"place_{axis.at}", axis.at)


def _clipped(name: str, source: str, at: int) -> list[str]:
    return [f"{name}_low = Max ({source}, zero)", f"{name} = Min ({name}_low, last_{at})"]


def _gathered(name: str, source: str, at: int, places: str) -> list[str]:
    """`name`: elements of dimension `at` at rounded places."""
    lines = [*_clipped(f"{name}_in", places, at), f"{name}_at = Cast <to: int = {_INT64}> ({name}_in)"]
    return [*lines, f"{name} = Gather <axis: int = {at}> ({source}, {name}_at)"]


def _weight(name: str, source: str, behind: int) -> list[str]:
    """`name`: a weight for each place of a dimension with `behind` dimensions behind it."""
    lines = [f"{name}_like = CastLike ({source}, x0)"]
    if not behind:
        return [*lines, f"{name} = Identity ({name}_like)"]
    lines.append(integers(f"{name}_axes", *range(1, behind + 1)))
    return [*lines, f"{name} = Unsqueeze ({name}_like, {name}_axes)"]


def _linear(at: int, source: str, behind: int) -> list[str]:
    lines = [f"low_{at} = Floor (inside_{at})", f"high_{at} = Add (low_{at}, unit)"]
    lines += [*_gathered(f"a_{at}", source, at, f"low_{at}"), *_gathered(f"b_{at}", source, at, f"high_{at}")]
    lines += [f"share_{at} = Sub (inside_{at}, low_{at})", *_weight(f"w_{at}", f"share_{at}", behind)]
    lines += [f"step_{at} = Sub (b_{at}, a_{at})", f"part_{at} = Mul (step_{at}, w_{at})"]
    return [*lines, f"y_{at} = Add (a_{at}, part_{at})"]


def _cubic(at: int, source: str, behind: int, a: float) -> list[str]:
    """Four elements by Keys' polynomials of how far they are."""
    lines = [f"low_{at} = Floor (place_{at})", f"t_{at} = Sub (place_{at}, low_{at})"]
    near, far = (a + 2, -(a + 3), 0.0, 1.0), (a, -5 * a, 8 * a, -4 * a)
    total = ""
    for index, coefficients in enumerate((far, near, near, far)):
        name = f"{index}_{at}"
        lines += [_number(f"o{name}", index - 1), f"p{name} = Add (low_{at}, o{name})"]
        lines += [f"d{name} = Sub (t_{at}, o{name})", f"u{name} = Abs (d{name})", _number(f"c0{name}", coefficients[0])]
        held = f"c0{name}"
        for step, coefficient in enumerate(coefficients[1:], 1):
            lines += [_number(f"c{step}{name}", coefficient), f"m{step}{name} = Mul ({held}, u{name})"]
            lines.append(f"h{step}{name} = Add (m{step}{name}, c{step}{name})")
            held = f"h{step}{name}"
        lines += [*_weight(f"w{name}", held, behind), *_gathered(f"e{name}", source, at, f"p{name}")]
        lines.append(f"part{name} = Mul (e{name}, w{name})")
        if total:
            lines.append(f"sum{name} = Add ({total}, part{name})")
        total = f"sum{name}" if total else f"part{name}"
    return [*lines, f"y_{at} = Identity ({total})"]
