"""PyTorch modules and programs: `torch.export`, then PyTorch's ONNX exporter, in memory.

Dimensions keep the names of their `Dim`s, and the ranges of these become the module's `onnx.dim_bounds`. A model whose
weights are on the `meta` device is imported without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.export import ExportedProgram
from torch.utils._pytree import tree_map_only
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp

from gimlet.compiler.frontends.call_tree import signature_of, without_constant_outputs
from gimlet.compiler.frontends.experts import experts_as_one_op
from gimlet.compiler.frontends.experts_onnx import lower_experts
from gimlet.compiler.frontends.onnx_model import to_module
from gimlet.compiler.frontends.quiet import quiet_torch
from gimlet.compiler.signature_ir import write_signature
from gimlet.dialects.onnx import shape_of
from gimlet.dialects.onnx.attributes import ints_attr
from gimlet.dialects.onnx.ir_types import symbol_of
from gimlet.passes.entry import entry_function
from gimlet.runtime.errors import InputError, UsageError

if TYPE_CHECKING:
    from gimlet.dialects.context import GimletContext

DIM_BOUNDS = "onnx.dim_bounds"
_EXPORT_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, AssertionError)


def export_program(
    model: Any, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, dynamic_shapes: Any
) -> ExportedProgram:
    """The program of a module, traced with example inputs. InputError says what could not be traced."""
    if isinstance(model, ExportedProgram):
        return model
    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"a {type(model).__name__} is not a model", hint="give an nn.Module, a path or an ONNX model")
    if not args and not kwargs:
        raise UsageError(
            f"{type(model).__name__} needs example inputs", hint="give args=(…), as for torch.export.export"
        )
    try:
        with quiet_torch(), torch.no_grad(), experts_as_one_op(model):
            return torch.export.export(
                model.eval(), *_contiguous(args or (), kwargs or {}), dynamic_shapes=dynamic_shapes, strict=False
            )
    except _EXPORT_ERRORS as error:
        raise InputError(
            f"torch.export cannot trace it: {_summary(error)}",
            where=type(model).__name__,
            hint="a wrapper module with flat tensor inputs and named Dims often helps",
        ) from error


def import_program(program: ExportedProgram, dynamic_shapes: Any, ctx: GimletContext) -> ModuleOp:
    """The module of an exported program. InputError says which operator PyTorch's exporter cannot convert."""
    try:
        with quiet_torch(), torch.no_grad():
            exported = torch.onnx.export(
                without_constant_outputs(program),
                dynamo=True,
                dynamic_shapes=dynamic_shapes,
                # Its optimizer needs weights, and time with the square of the nodes. The normalize phase cleans up.
                optimize=False,
                verbose=False,
            )
    except _EXPORT_ERRORS as error:
        raise InputError(
            f"PyTorch's ONNX exporter cannot convert it: {_summary(error)}",
            hint="torch.onnx.export(…, report=True) writes down which operator it is",
        ) from error
    if exported is None:
        raise InputError("PyTorch's ONNX exporter returned nothing")
    lower_experts(exported.model)
    signature = signature_of(program, exported.model)
    module = to_module(exported.model, ctx)
    write_signature(module, signature)
    if bounds := _bounds(program, module):
        module.attributes[DIM_BOUNDS] = DictionaryAttr({name: ints_attr(bound) for name, bound in bounds.items()})
    return module


def _contiguous(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs without gaps in memory: of a slice, torch.export excludes the size that it was sliced from."""
    return tree_map_only(torch.Tensor, torch.Tensor.contiguous, (tuple(args), dict(kwargs)))


def _summary(error: BaseException) -> str:
    """The innermost cause in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _input_sizes(program: ExportedProgram) -> list[tuple[torch.SymInt | int, ...]]:
    """The sizes of the program's inputs, in their order."""
    names = set(program.graph_signature.user_inputs)
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    return [tuple(getattr(node.meta["val"], "shape", ())) for node in placeholders]


def _bounds(program: ExportedProgram, module: ModuleOp) -> dict[str, tuple[int, int, int]]:
    """Minimum, example and maximum of each input dimension that PyTorch knows a finite range of."""
    bounds: dict[str, tuple[int, int, int]] = {}
    for argument, sizes in zip(entry_function(module).args, _input_sizes(program), strict=False):
        for size, dim in zip(sizes, shape_of(argument) or (), strict=False):
            name = symbol_of(dim) if dim is not None else None
            if not isinstance(size, torch.SymInt) or name is None:
                continue
            limits = program.range_constraints.get(size.node.expr)
            if limits is None or not limits.lower.is_Integer or not limits.upper.is_Integer:
                continue
            least, most = max(1, int(limits.lower)), int(limits.upper)
            hint = getattr(size.node, "hint", None)
            bounds[name] = (least, min(max(hint, least), most) if isinstance(hint, int) else most, most)
    return bounds
