"""Lines of functions in ONNX's text form that operators are written out with."""

from __future__ import annotations

from dataclasses import dataclass, field

from gimlet.dialects.onnx import OnnxOp


@dataclass(frozen=True)
class Unwritten:
    """An operator that is not written out. `only` says in which cases one of its name is, and what this one has."""

    only: str


Lines = list[str] | Unwritten


def number(name: str, value: float, like: str) -> list[str]:
    """A scalar of the type of another value."""
    return [f"{name}_wide = Constant <value_float: float = {value!r}> ()", f"{name} = CastLike ({name}_wide, {like})"]


def integers(name: str, *values: int) -> str:
    return f"{name} = Constant <value_ints: ints = [{', '.join(map(str, values))}]> ()"


@dataclass(kw_only=True)
class LineWriter:
    """Writes lines, each of which makes a value with a name of its own: `v1`, `v2`, ..."""

    lines: list[str] = field(default_factory=list[str])
    count: int = 0

    def numbers(self, *values: int) -> str:
        """The name of a constant vector of integers."""
        self.count += 1
        self.lines.append(integers(f"v{self.count}", *values))
        return f"v{self.count}"

    def line(self, text: str) -> str:
        """The name of what `text`, an operator and its inputs, makes."""
        self.count += 1
        self.lines.append(f"v{self.count} = {text}")
        return f"v{self.count}"


def has(op: OnnxOp, index: int) -> bool:
    return op.input_at(index) is not None


def rotated(half: int, size: int, *, pairs: bool) -> list[str]:
    """`turned` of `x` of four dimensions, of which 2·half elements of the last are turned by `cos4` and `sin4`."""
    begins, step, end = ((0, 1), 2, (2 * half, 2 * half)) if pairs else ((0, half), 1, (half, 2 * half))
    lines = [integers("three", 3), integers("step", step)]
    for name, begin, stop in zip("ab", begins, end, strict=True):
        lines += [integers(f"{name}0", begin), integers(f"{name}1", stop)]
        lines.append(f"{name} = Slice (x, {name}0, {name}1, three, step)")
    lines += ["ac = Mul (a, cos4)", "bs = Mul (b, sin4)", "real = Sub (ac, bs)"]
    lines += ["bc = Mul (b, cos4)", "as = Mul (a, sin4)", "imaginary = Add (bc, as)"]
    if pairs:
        lines += [integers("four", 4), "real5 = Unsqueeze (real, four)", "imaginary5 = Unsqueeze (imaginary, four)"]
        lines += ["both = Concat <axis: int = 4> (real5, imaginary5)", integers("flat", 0, 0, 0, 2 * half)]
        lines.append("part = Reshape (both, flat)")
    else:
        lines.append("part = Concat <axis: int = 3> (real, imaginary)")
    if 2 * half == size:
        return [*lines, "turned = Identity (part)"]
    lines += [integers("r0", 2 * half), integers("r1", size), "rest = Slice (x, r0, r1, three)"]
    return [*lines, "turned = Concat <axis: int = 3> (part, rest)"]
