"""Views: a value as a window on a tensor that is there already.

Transpose, Slice, Split, Squeeze, Unsqueeze, Expand and most of Reshape move nothing: the DMA engines of whoever reads
the value visit the elements in the order that is wanted. Only where no affine walk gives that order is there a copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gimlet.runtime.expr import ONE, ZERO, Expr
from gimlet.runtime.sram.program import Access, Axis

Shape = tuple[Expr, ...]


@dataclass(frozen=True)
class Walk:
    """How a dimension of a view moves along a dimension of the tensor: `step` positions at a time."""

    dim: int
    step: int = 1


@dataclass(frozen=True)
class Counter:
    """A counter of an access: `size` steps along a dimension of the view, `stride` of its positions apart."""

    dim: int
    size: Expr
    stride: int = 1


@dataclass(frozen=True, init=False)
class _Split(Walk):
    """While a view is reshaped: along a piece of a dimension that is being cut up."""

    piece: int = 0

    def __init__(self, dim: int, piece: int) -> None:
        super().__init__(dim)
        object.__setattr__(self, "piece", piece)


@dataclass(frozen=True)
class View:
    """`tensor` seen row-major with shape `base`; dimension i of the view walks as `walks[i]` says (None: it repeats).

    Position along base dimension d: `start[d]` plus, for the view's dimension that walks along it, step times index.
    """

    tensor: str
    dtype: str
    base: Shape
    start: Shape
    walks: tuple[Walk | None, ...]
    shape: Shape

    @staticmethod
    def whole(tensor: str, dtype: str, shape: Shape) -> View:
        """A tensor as it is. Dimensions of size 1 are not walked."""
        base = tuple(size for size in shape if size != ONE)
        dims = iter(range(len(base)))
        walks = tuple(None if size == ONE else Walk(next(dims)) for size in shape)
        return View(tensor, dtype, base, (ZERO,) * len(base), walks, shape)

    @property
    def is_whole(self) -> bool:
        """Whether the view is every element of its tensor in order."""
        walked = [walk for walk in self.walks if walk is not None]
        if [walk.dim for walk in walked] != list(range(len(self.base))) or any(walk.step != 1 for walk in walked):
            return False
        plain = all(walk is not None or size == ONE for walk, size in zip(self.walks, self.shape, strict=True))
        return plain and all(self.covers(axis) for axis, walk in enumerate(self.walks) if walk is not None)

    @property
    def order(self) -> tuple[int, ...]:
        """The dimensions as they lie in the tensor, the one that moves fastest last."""
        places, behind = list[tuple[int, int]](), -1
        for axis, walk in enumerate(self.walks):
            behind = behind if walk is None else walk.dim
            places.append((behind, axis))
        return tuple(axis for _, axis in sorted(places))

    def covers(self, axis: int) -> bool:
        """Whether a dimension walks a whole dimension of the tensor, step by step."""
        walk = self.walks[axis]
        if walk is None or walk.step != 1 or self.start[walk.dim] != ZERO:
            return False
        return self.shape[axis] == self.base[walk.dim]

    def transpose(self, permutation: Sequence[int]) -> View:
        return replace(
            self,
            walks=tuple(self.walks[axis] for axis in permutation),
            shape=tuple(self.shape[axis] for axis in permutation),
        )

    def slice(self, axis: int, begin: Expr | int, length: Expr, step: int = 1) -> View:
        """`length` elements along a dimension from `begin`, `step` apart (may be negative)."""
        shape = (*self.shape[:axis], length, *self.shape[axis + 1 :])
        walk = self.walks[axis]
        if walk is None:
            return replace(self, shape=shape)
        start = list(self.start)
        start[walk.dim] = start[walk.dim] + Expr.of(begin) * walk.step
        walks = (*self.walks[:axis], Walk(walk.dim, walk.step * step), *self.walks[axis + 1 :])
        return replace(self, start=tuple(start), walks=walks, shape=shape)

    def unsqueeze(self, axis: int) -> View:
        """The view with a dimension of size 1 before `axis`."""
        return replace(
            self,
            walks=(*self.walks[:axis], None, *self.walks[axis:]),
            shape=(*self.shape[:axis], ONE, *self.shape[axis:]),
        )

    def squeeze(self, axis: int) -> View:
        """The view without a dimension of size 1."""
        return replace(
            self,
            walks=(*self.walks[:axis], *self.walks[axis + 1 :]),
            shape=(*self.shape[:axis], *self.shape[axis + 1 :]),
        )

    def expand(self, shape: Shape) -> View:
        """The view broadcast to `shape` as numpy does it."""
        view = self
        while len(view.shape) < len(shape):
            view = view.unsqueeze(0)
        pairs = zip(view.walks, view.shape, shape, strict=True)
        walks = tuple(None if size == ONE and wanted != ONE else walk for walk, size, wanted in pairs)
        return replace(view, walks=walks, shape=shape)

    def reshape(self, shape: Shape, sizes: Mapping[str, int]) -> View | None:
        """The same elements in the same order as `shape`, or None where that takes a copy.

        `sizes` (any sizes within the bounds) tell which of two products is smaller.
        """
        walks: list[Walk | None] = []
        pieces: list[tuple[Expr, ...]] = [(dim,) for dim in self.base]
        for old, new in _matching_groups(self.shape, shape, sizes):
            kept = [axis for axis in old if self.shape[axis] != ONE]
            sized = [axis for axis in new if shape[axis] != ONE]
            if len(kept) == len(sized) and _same(self.shape, kept, shape, sized):
                walked = iter(self.walks[axis] for axis in kept)
                walks += [next(walked) if axis in sized else None for axis in new]
            elif all(self.walks[axis] is None for axis in kept):
                walks += [None] * len(new)
            else:
                dim = self._joined(kept)
                if dim is None:
                    return None
                for offset in range(len(kept)):
                    pieces[dim + offset] = ()
                pieces[dim] = tuple(shape[axis] for axis in sized)
                walks += [_Split(dim, sized.index(axis)) if axis in sized else None for axis in new]
        return self._renumbered(pieces, walks, shape)

    def _joined(self, axes: Sequence[int]) -> int | None:
        """The first of the neighbouring dimensions of the tensor that `axes` walk in order and whole, if they do."""
        dims = [walk.dim for walk in (self.walks[axis] for axis in axes) if walk is not None]
        if not dims or dims != list(range(dims[0], dims[0] + len(axes))):
            return None
        return dims[0] if all(self.covers(axis) for axis in axes) else None

    def _renumbered(self, pieces: Sequence[tuple[Expr, ...]], walks: Sequence[Walk | None], shape: Shape) -> View:
        """The view after each dimension of the tensor was replaced by its pieces."""
        first: list[int] = []
        start: list[Expr] = []
        for dims, begin in zip(pieces, self.start, strict=True):
            first.append(len(start))
            start += [begin] if len(dims) == 1 else [ZERO] * len(dims)

        def renumbered(walk: Walk) -> Walk:
            if isinstance(walk, _Split):
                return Walk(first[walk.dim] + walk.piece)
            return Walk(first[walk.dim], walk.step)

        base = tuple(dim for dims in pieces for dim in dims)
        new_walks = tuple(None if walk is None else renumbered(walk) for walk in walks)
        return View(self.tensor, self.dtype, base, tuple(start), new_walks, shape)

    def rigid(self) -> View:
        """A whole view that walks its dimensions of size 1 too, so that positions outside of them can be padding."""
        walks = tuple(Walk(axis) for axis in range(len(self.shape)))
        return replace(self, base=self.shape, start=(ZERO,) * len(walks), walks=walks)

    def access(
        self,
        begin: Sequence[Expr],
        tile: Sequence[Sequence[Counter]],
        fill: float | None = None,
        repeated: bool = False,
    ) -> Access:
        """The DMA access that starts at position `begin` of the view and counts as `tile` says.

        Dimensions of the tile that only repeat get size 1, since the vector unit repeats operands of size 1 by itself;
        the matrix unit does not, so `repeated` makes the DMA write them out.
        """
        start = list(self.start)
        for axis, walk in enumerate(self.walks):
            if walk is not None:
                start[walk.dim] = start[walk.dim] + begin[axis] * walk.step
        groups: list[tuple[Axis, ...]] = []
        for counters in tile:
            if self.repeats(counters, repeated):
                groups.append(())
                continue
            axes: list[Axis] = []
            for counter in counters:
                walk = self.walks[counter.dim]
                if walk is None:
                    axes.append(Axis(-1, 0, counter.size))
                else:
                    axes.append(Axis(walk.dim, walk.step * counter.stride, counter.size))
            groups.append(tuple(axes))
        return Access(self.tensor, self.base, tuple(start), tuple(groups), fill)

    def repeats(self, counters: Sequence[Counter], repeated: bool = False) -> bool:
        """Whether a dimension of a tile has one element, that the units (or, if `repeated`, nobody) has to repeat."""
        return all(
            self.walks[counter.dim] is None and not (repeated and self.shape[counter.dim] != ONE)
            for counter in counters
        )


def _same(old: Shape, old_axes: Sequence[int], new: Shape, new_axes: Sequence[int]) -> bool:
    """Whether dimensions have the same sizes. One that became one has, whatever its expression looks like."""
    pairs = list(zip(old_axes, new_axes, strict=True))
    return len(pairs) == 1 or all(old[left] == new[right] for left, right in pairs)


def _matching_groups(old: Shape, new: Shape, sizes: Mapping[str, int]) -> list[tuple[list[int], list[int]]]:
    """Cuts two shapes of equal product into the smallest runs of dimensions whose products are equal."""
    groups: list[tuple[list[int], list[int]]] = []
    old_at = new_at = 0
    while old_at < len(old) or new_at < len(new):
        left: list[int] = []
        right: list[int] = []
        left_product = right_product = ONE
        while not left or not right or left_product != right_product:
            behind = not left or (right and left_product.evaluate(sizes) <= right_product.evaluate(sizes))
            if old_at < len(old) and (behind or new_at == len(new)):
                left.append(old_at)
                left_product = left_product * old[old_at]
                old_at += 1
            elif new_at < len(new):
                right.append(new_at)
                right_product = right_product * new[new_at]
                new_at += 1
            else:
                break
        groups.append((left, right))
    return groups
