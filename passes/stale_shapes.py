"""Sizes that a model states and that are no longer true.

Who makes the batch of an exported model dynamic often changes its input alone: its outputs, or what is noted of values
in between, keep the size of the export. Exporters do it too: LightGBM's converter says that there is one label, torch's
that TopK has as many rows as the example had, and a name that is given to an output by hand may be that of another
dimension. ONNX Runtime runs such models, and warns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue
from xdsl.rewriter import Rewriter

from gimlet.dialects.onnx import AnyType, shape_of, tensor_type, value_name
from gimlet.passes.entry import entry_function, is_constant
from gimlet.passes.symbolic_shapes import analyse_shapes
from gimlet.runtime.expr import Expr

# Sizes that no model has as a constant by chance, for every dimension of the inputs alike.
_PROBES = (977, 1999)


def forget_stale_shapes(module: ModuleOp) -> list[str]:
    """Takes sizes from the results of @main that contradict what follows from its inputs' dimensions.

    The answer has what was taken, as `y[0] = 1, which is n`. A size that the model states, a number or in terms of the
    inputs' dimensions, stays where the inference found nothing, or only what depends on data, and where both agree for
    large inputs, as 32 and min(n, 32) do.

    InputError if an operation cannot be valid for any shapes.
    """
    function = entry_function(module)
    inputs = {name for argument in function.args for dim in shape_of(argument) or () if dim for name in dim.symbols}
    if not any(_states_a_size(value, inputs) for value in _results(function)):
        return []
    found = analyse_shapes(module, function, stated=False).types
    taken: list[str] = []
    for value in list(_results(function)):
        type_, stated, inferred = value.type, shape_of(value), shape_of(found.get(value, value.type))
        if not isinstance(type_, TensorType) or stated is None or inferred is None or len(stated) != len(inferred):
            continue
        stale = [
            known is not None and dim is not None and _contradict(known, dim, inputs)
            for known, dim in zip(stated, inferred, strict=True)
        ]
        if not any(stale):
            continue
        dims = [dim if is_stale else known for is_stale, known, dim in zip(stale, stated, inferred, strict=True)]
        taken += [
            f"{value_name(value)}[{axis}] = {stated[axis]}, which is {inferred[axis]}"
            for axis, is_stale in enumerate(stale)
            if is_stale
        ]
        Rewriter.replace_value_with_new_type(value, tensor_type(type_.element_type, dims))
    function.update_function_type()
    return taken


def say_stale(stale: Sequence[str], say: Callable[[str], None]) -> None:
    """Tells in one line what `forget_stale_shapes` has taken, if anything."""
    if stale:
        more = f" (and {len(stale) - 1} more)" if len(stale) > 1 else ""
        say(f"the model states a size that does not follow from its inputs: {stale[0]}{more}; it is set aside")


def _results(function: FuncOp) -> Iterator[SSAValue]:
    for op in function.body.block.ops:
        yield from op.results


def _states_a_size(value: SSAValue, inputs: set[str]) -> bool:
    if isinstance(value.type, AnyType) or not isinstance(value.owner, Operation) or is_constant(value.owner):
        return False
    return any(dim is not None and dim.symbols <= inputs for dim in shape_of(value) or ())


def _contradict(stated: Expr, inferred: Expr, inputs: set[str]) -> bool:
    """Whether a size that is stated cannot be what was inferred, for large inputs."""
    symbols = stated.symbols | inferred.symbols
    if stated == inferred or not symbols <= inputs:
        return False
    # Dimensions alike: where two of them are added the inference takes one for the other, and so may the model.
    probes = (dict.fromkeys(symbols, probe) for probe in _PROBES)
    return all(stated.evaluate(probe) != inferred.evaluate(probe) for probe in probes)
