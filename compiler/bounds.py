"""Ranges of symbolic dimensions: what `--bind` says, what the model says, and what remains open.

`batch=1` fixes a dimension: it becomes a constant of the IR. `width=32:320:2048` keeps it symbolic between a minimum
and a maximum, with costs and engine profiles taken at the optimum in the middle. Where a model gives its dimensions
no useful names, `x[3]` means dimension 3 of the input `x`; one that is `2*n + 1` there binds `n`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from xdsl.dialects.builtin import DenseArrayBase, DictionaryAttr, ModuleOp, i64
from xdsl.ir import Block, Operation

from gimlet.compiler.example_sizes import example_sizes
from gimlet.dialects.onnx import OnnxOp, shape_of, value_name
from gimlet.dialects.onnx.ir_types import is_made_up
from gimlet.passes.entry import describe
from gimlet.passes.symbolic_shapes import slid_over
from gimlet.runtime.errors import InputError, UsageError
from gimlet.runtime.expr import Expr
from gimlet.targets.api import DimBound

_ATTRIBUTE = "onnx.dim_bounds"
_DATA_DIM = re.compile(r".+_d\d+_*")
_AXIS = re.compile(r"(.+)\[(\d+)\]")


def parse_bindings(texts: Iterable[str]) -> dict[str, DimBound]:
    """Bindings from texts such as `batch=1,width=32:320:2048`. UsageError where one is not of that form."""
    bindings: dict[str, DimBound] = {}
    for item in (item.strip() for text in texts for item in text.split(",")):
        name, equals, value = item.rpartition("=")
        name = name.strip()
        numbers = value.split(":")
        if not equals or not name or len(numbers) not in (1, 3) or not all(n.strip().isdigit() for n in numbers):
            raise UsageError(
                f"cannot read the binding {item!r}",
                where="--bind",
                hint="write NAME=SIZE or NAME=MINIMUM:OPTIMUM:MAXIMUM",
            )
        if name in bindings:
            raise UsageError(f"dimension {name!r} is bound twice", where="--bind")
        sizes = [int(n) for n in numbers]
        bindings[name] = _checked(name, DimBound(*(sizes * 3 if len(sizes) == 1 else sizes)))
    return bindings


def resolve_axes(bindings: Mapping[str, DimBound], inputs: Mapping[str, Sequence[Expr | None]]) -> dict[str, DimBound]:
    """Bindings with `x[3]`, the dimension 3 of input x, replaced by the name of that dimension.

    `inputs` has the shape of every input of the model. Where that dimension is `2*n + 1`, what is bound is `n`.
    UsageError for an axis that is not there, is not dynamic, or is of a form that does not tell a single dimension.
    """
    resolved: dict[str, DimBound] = {}
    for name, bound in bindings.items():
        symbol, own = _resolve(name, bound, inputs)
        if resolved.setdefault(symbol, own) != own:
            raise UsageError(f"{name} binds dimension {symbol!r} to other sizes than before", where="--bind")
    return resolved


def _resolve(name: str, bound: DimBound, inputs: Mapping[str, Sequence[Expr | None]]) -> tuple[str, DimBound]:
    match = _AXIS.fullmatch(name)
    if match is None or match.group(1) not in inputs:
        return name, bound
    shape = inputs[match.group(1)]
    axis = int(match.group(2))
    dim = shape[axis] if axis < len(shape) else None
    if dim is None or len(dim.symbols) != 1:
        text = ", ".join("?" if d is None else str(d) for d in shape)
        raise UsageError(f"{name} is not a dynamic dimension: the input's shape is [{text}]", where="--bind")
    (symbol,) = dim.symbols
    sizes = (bound.minimum, bound.optimum, bound.maximum)
    # A dimension that shrinks as the symbol grows has its minimum at the symbol's maximum.
    return symbol, DimBound(*sorted(_solved(name, dim, symbol, size) for size in sizes))


def _solved(name: str, dim: Expr, symbol: str, size: int) -> int:
    """What `symbol` is where `dim`, a multiple of it plus a number, is `size`. UsageError if no size does that."""
    terms = dict(dim.terms)
    offset, factor = terms.pop((), 0), terms.pop(((symbol, 1),), 0)
    if terms:
        raise UsageError(
            f"{name} is {dim}, which does not tell what {symbol} is", where="--bind", hint=f"bind {symbol}"
        )
    found, rest = divmod(size - offset, factor)
    if rest or found < 0:
        raise UsageError(f"{name} is {dim}: no size of {symbol} makes it {size}", where="--bind")
    return found


def read_bounds(module: ModuleOp) -> dict[str, DimBound]:
    """The ranges that the module records for its dimensions."""
    attribute = module.attributes.get(_ATTRIBUTE)
    if not isinstance(attribute, DictionaryAttr):
        return {}
    bounds: dict[str, DimBound] = {}
    for name, value in attribute.data.items():
        if not isinstance(value, DenseArrayBase) or len(value.get_values()) != 3:
            raise InputError(
                f"the bound of dimension {name!r} must be three integers, not {value}",
                where=_ATTRIBUTE,
                hint="write array<i64: MINIMUM, OPTIMUM, MAXIMUM>",
            )
        bounds[name] = _checked(name, DimBound(*(int(size) for size in value.get_values())))
    return bounds


def write_bounds(module: ModuleOp, bounds: Mapping[str, DimBound]) -> None:
    """Records the ranges in the module, in the order of the names."""
    if not bounds:
        module.attributes.pop(_ATTRIBUTE, None)
        return
    module.attributes[_ATTRIBUTE] = DictionaryAttr(
        {
            name: DenseArrayBase.from_list(i64, [bound.minimum, bound.optimum, bound.maximum])
            for name, bound in sorted(bounds.items())
        }
    )


def merge_bounds(
    symbols: Iterable[str], model: Mapping[str, DimBound], bindings: Mapping[str, DimBound]
) -> dict[str, DimBound]:
    """The range of every dimension in `symbols` that has one: the binding, else the model's own.

    UsageError for a binding of a dimension that the model lacks.
    """
    known = sorted(symbols)
    for name in bindings:
        if name not in known:
            raise _no_dimension(name, known)
    return {name: bound for name in known if (bound := bindings.get(name) or model.get(name)) is not None}


def check_bounded(symbols: Iterable[str], bounds: Mapping[str, DimBound], block: Block) -> None:
    """UsageError if there is a dimension that nobody bounds, with sizes that the values of `block` do not rule out."""
    unbound = sorted(set(symbols) - bounds.keys())
    if unbound:
        found = example_sizes(block, unbound, {name: bound.optimum for name, bound in bounds.items()})
        raise UsageError(
            f"nothing bounds the dynamic dimension{'s' if len(unbound) > 1 else ''} {', '.join(unbound)}",
            hint=_example(unbound, found, {name for _, dim in _squeezed(block) for name in dim.symbols}),
        )


def _example(unbound: Sequence[str], sizes: Mapping[str, int] | None, fixed: Container[str]) -> str:
    """What to bind: small sizes that could be, and where these are more than 1 that the model's makers know better."""
    if sizes is None:
        example = ",".join(f"{name}=MINIMUM:OPTIMUM:MAXIMUM" for name in unbound)
        return f"bind with --bind '{example}': the shapes allow none of the sizes tried, so its makers must say which"
    ranges = (str(size) if name in fixed else f"{size}:{size}:{8 * size}" for name, size in sizes.items())
    example = ",".join(f"{name}={text}" for name, text in zip(sizes, ranges, strict=True))
    caveat = "; the shapes allow no less, and the model may want more" if max(sizes.values()) > 1 else ""
    return f"bind with minimum:optimum:maximum, for example --bind '{example}'{caveat}"


def check_sizes(block: Block, bounds: Mapping[str, DimBound]) -> None:
    """InputError for a tensor of `block` that would have a dimension below 0, or another rank, within the ranges.

    All dimensions are tried at their optima, those of one symbol at its minimum and maximum too. A window that is
    larger than its input makes such a dimension, or one of 0: nothing could run it, or each would compute something
    else. A Squeeze that is given no axes makes such a rank: it drops each dimension that is 1.
    """
    _check_ranks(block, bounds)
    values = (result for op in block.ops for result in op.results)
    dims = ((value, axis, dim) for value in values for axis, dim in enumerate(shape_of(value) or ()) if dim is not None)
    tried: set[tuple[Expr, Expr | None]] = set()
    for value, axis, dim in dims:
        over = _slid_over(value.op, axis)
        if (dim, over) in tried or not dim.symbols or not dim.symbols <= bounds.keys():
            continue
        tried.add((dim, over))
        sizes = next((sizes for sizes in _sizes_to_try(dim, bounds) if _is_too_small(dim, over, sizes)), None)
        if sizes is not None:
            at = ", ".join(f"{name} = {size}" for name, size in sizes.items())
            what = f"dimension {axis} of {value_name(value)!r} is {dim}"
            raise InputError(
                f"{describe(value.op)}: {what}, {dim.evaluate(sizes)} at {at}",
                hint="bind it to sizes that the model can run",
            )


def _slid_over(op: Operation, axis: int) -> Expr | None:
    """The dimension along which `op` slides a window to make this one. None where it does not."""
    source = slid_over(op)
    shape = () if source is None else shape_of(source) or ()
    return shape[axis] if 2 <= axis < len(shape) else None


def _is_too_small(dim: Expr, over: Expr | None, sizes: Mapping[str, int]) -> bool:
    has_input = over is not None and over.symbols <= sizes.keys() and over.evaluate(sizes) > 0
    return dim.evaluate(sizes) < (1 if has_input else 0)


def _check_ranks(block: Block, bounds: Mapping[str, DimBound]) -> None:
    for op, dim in _squeezed(block):
        if not dim.symbols <= bounds.keys():
            continue
        if len({dim.evaluate(sizes) == 1 for sizes in _sizes_to_try(dim, bounds)}) > 1:
            raise InputError(
                f"{describe(op)}: it drops dimensions that are 1, so how many are left depends on {dim}",
                hint=f"bind {', '.join(sorted(dim.symbols))} so that it always is 1, or never",
            )


def _squeezed(block: Block) -> Iterator[tuple[OnnxOp, Expr]]:
    """Dimensions, in terms of the inputs' own, that a Squeeze without axes drops where they are 1."""
    inputs = {name for value in block.args for dim in shape_of(value) or () if dim for name in dim.symbols}
    for op in block.ops:
        if isinstance(op, OnnxOp) and op.op_type == "Squeeze" and len(op.operands) == 1 and op.attr("axes") is None:
            dims = shape_of(op.operands[0]) or ()
            yield from ((op, dim) for dim in dims if dim is not None and dim.symbols and dim.symbols <= inputs)


def _sizes_to_try(dim: Expr, bounds: Mapping[str, DimBound]) -> list[dict[str, int]]:
    names = sorted(dim.symbols)
    if len(names) > 1:
        return [{name: bounds[name].optimum for name in names}]
    bound = bounds[names[0]]
    return [{names[0]: size} for size in (bound.minimum, bound.optimum, bound.maximum)]


def _no_dimension(name: str, known: Sequence[str]) -> UsageError:
    close = difflib.get_close_matches(name, known, n=1)
    dims = f"its dimensions are: {', '.join(known) or 'none'}"
    hint = f"did you mean {close[0]!r}?" if close else dims
    if is_made_up(name):
        hint = f"a name that an exporter made up gives way to the input's, with the axis; {dims}"
    return UsageError(f"the model has no dimension {name!r}", where="--bind", hint=hint)


def may_depend_on_data(name: str) -> bool:
    """Whether a dimension may be one that depends on data: these are called `VALUE_dAXIS` once shapes are inferred."""
    return _DATA_DIM.fullmatch(name) is not None


def narrow(module: ModuleOp, bindings: Mapping[str, DimBound]) -> None:
    """Narrows the ranges of dimensions that depend on data, of a module whose shapes are inferred.

    UsageError for a dimension that the model lacks, and for a single size: the data decide.
    """
    known = read_bounds(module)
    for name, bound in bindings.items():
        if name not in known:
            raise _no_dimension(name, list(known))
        if bound.minimum == bound.maximum:
            message = f"{name} depends on data, so its size cannot be fixed"
            raise UsageError(message, where="--bind", hint=f"give a range, {name}=0:{bound.optimum}:{bound.maximum}")
        most = known[name].maximum
        known[name] = DimBound(*(min(size, most) for size in (bound.minimum, bound.optimum, bound.maximum)))
    write_bounds(module, known)


def _checked(name: str, bound: DimBound) -> DimBound:
    if not 0 <= bound.minimum <= bound.optimum <= bound.maximum:
        raise UsageError(
            f"dimension {name!r} has the range {bound.minimum}:{bound.optimum}:{bound.maximum}",
            where="--bind",
            hint="a range needs 0 ≤ minimum ≤ optimum ≤ maximum",
        )
    return bound
