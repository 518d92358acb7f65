"""PyTorch modules and programs: `torch.export`, then PyTorch's ONNX exporter, in memory.

Dimensions keep the names of their `Dim`s, and the ranges of these become the module's `onnx.dim_bounds`. A model whose
weights are on the `meta` device is imported without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from torch.export import ExportedProgram
from torch.utils._pytree import tree_map_only
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp

from gimlet.compiler.frontends.attention import attention_with_heads
from gimlet.compiler.frontends.call_tree import signature_of, without_constant_outputs
from gimlet.compiler.frontends.complex_numbers import fourier_translations, pairs_for_complex, short_time_in_shapes
from gimlet.compiler.frontends.control_flow import without_hidden_state
from gimlet.compiler.frontends.control_flow_onnx import control_flow_translations
from gimlet.compiler.frontends.dim_names import name_dimensions
from gimlet.compiler.frontends.experts import experts_as_one_op
from gimlet.compiler.frontends.experts_onnx import lower_experts
from gimlet.compiler.frontends.grouped_products import grouped_translations
from gimlet.compiler.frontends.inputs import input_sizes
from gimlet.compiler.frontends.layers.copies import write_layers
from gimlet.compiler.frontends.layers.marks import (
    NotRepeatedError,
    Repeat,
    check_in_place,
    repeats_of,
    two_of_each,
)
from gimlet.compiler.frontends.layers.rehearsal import rehearse
from gimlet.compiler.frontends.mutation import changes_as_outputs
from gimlet.compiler.frontends.onnx_model import to_module
from gimlet.compiler.frontends.origin import failed_line, failed_node
from gimlet.compiler.frontends.output_types import outputs_as_traced
from gimlet.compiler.frontends.quiet import quiet_torch
from gimlet.compiler.frontends.recurrent import recurrent_as_one_op, recurrent_translations, traced_whole
from gimlet.compiler.frontends.recurrent_onnx import arrange_weights
from gimlet.compiler.frontends.selections import selection_translations
from gimlet.compiler.frontends.split_sequences import split_without_sequences
from gimlet.compiler.frontends.wide_indices import widen_indices, widen_unique
from gimlet.compiler.frontends.written_out import missing_written_out
from gimlet.compiler.signature_ir import write_signature
from gimlet.dialects.onnx import shape_of
from gimlet.dialects.onnx.attributes import ints_attr
from gimlet.dialects.onnx.ir_types import symbol_of
from gimlet.passes.entry import entry_function
from gimlet.passes.state_pairs import mark_states
from gimlet.runtime.errors import InputError, UsageError

if TYPE_CHECKING:
    from gimlet.dialects.context import GimletContext

DIM_BOUNDS = "onnx.dim_bounds"
Translations = Mapping[Any, Callable[..., Any]]
_MOST_DETAILS = 4
_DETAILS = ("- ", "Explanation: ")
_BFLOAT16_OPSET = 24
_EINSUM = torch.ops.aten.einsum.default
_TRACE_HINT = "a wrapper module with flat tensor inputs and named Dims often helps"
_DATA_HINT = "Python cannot branch on a tensor's value or index with it there: torch.cond, torch.where, index_copy can"
_NONE_HINT = (
    "give the arguments that the module makes up where they are None, such as attention_mask: traced, it may not"
)
_EXPORT_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, AssertionError)


def import_model(
    model: Any,
    ctx: GimletContext,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    translations: Translations | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> ModuleOp:
    """The module of an `nn.Module` or an exported program, traced with example inputs.

    Of layers that are alike two are traced, and the others are copies (`layers`). Where they may differ after all, the
    model is traced whole. `say` is told which. Errors as those of `export_program` and `import_program`.
    """
    repeats = repeats_of(model) if isinstance(model, torch.nn.Module) else []
    if repeats:
        try:
            rehearse(model, repeats, args or (), kwargs or {})
            with two_of_each(repeats):
                program = export_program(model, args, kwargs, dynamic_shapes)
            module = import_program(
                program,
                ctx,
                source=model,
                dynamic_shapes=dynamic_shapes,
                translations=translations,
                repeats=repeats,
            )
        except (NotRepeatedError, InputError) as reason:
            say(f"every layer is traced: {reason}")
        else:
            copied = sum(len(repeat.others) for repeat in repeats)
            say(f"{copied} layers are copies of others that are alike")
            return module
    program = export_program(model, args, kwargs, dynamic_shapes)
    return import_program(program, ctx, source=model, dynamic_shapes=dynamic_shapes, translations=translations)


def export_program(
    model: Any, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, dynamic_shapes: Any
) -> ExportedProgram:
    """The program of a module, traced with example inputs. InputError says what could not be traced.

    The module is traced in evaluation mode, and left in the mode that it was in.
    """
    if isinstance(model, ExportedProgram):
        return model
    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"a {type(model).__name__} is not a model", hint="give an nn.Module, a path or an ONNX model")
    if not args and not kwargs:
        raise UsageError(
            f"{type(model).__name__} needs example inputs", hint="give args=(…), as for torch.export.export"
        )
    training = [module for module in model.modules() if module.training]
    # What the trace does to a buffer that an object of the module's holds beside it, it does for good.
    buffers = [(buffer, buffer.detach().clone(), buffer._version) for buffer in model.buffers()]
    try:
        with quiet_torch(), torch.no_grad(), experts_as_one_op(model), traced_whole(), short_time_in_shapes():
            return torch.export.export(
                model.eval(), *_contiguous(args or (), kwargs or {}), dynamic_shapes=dynamic_shapes, strict=False
            )
    except _EXPORT_ERRORS as error:
        raise InputError(
            f"torch.export cannot trace {type(model).__name__}: {_summary(error)}",
            where=failed_line(error),
            hint=_trace_hint(str(error)),
        ) from error
    finally:
        for module in training:
            module.training = True
        for buffer, before, version in buffers:
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(before)


def _trace_hint(said: str) -> str:
    if "data-dependent" in said:
        return _DATA_HINT
    return _NONE_HINT if "'NoneType'" in said else _TRACE_HINT


def import_program(
    program: ExportedProgram,
    ctx: GimletContext,
    *,
    source: Any = None,
    dynamic_shapes: Any = None,
    translations: Translations | None = None,
    repeats: Sequence[Repeat] = (),
) -> ModuleOp:
    """The module of an exported program. Dimensions are named as in `dynamic_shapes`, with which `source` was traced.

    `translations` are functions of ONNX operators by PyTorch operator, as the `custom_translation_table` of
    torch.onnx.export takes them. Dimensions have the bounds that `source.dim_bounds` gives, else those that PyTorch
    knows. An input that is changed in place has an output with its new values, and a buffer that is becomes a state.
    InputError, with the line of PyTorch source, for an operator that cannot be converted, and for what else is changed.
    """
    whole = recurrent_as_one_op(attention_with_heads(missing_written_out(pairs_for_complex(program))))
    changes = changes_as_outputs(without_hidden_state(whole))
    if repeats:
        check_in_place(program)
        if changes.inputs or changes.buffers:
            raise NotRepeatedError("the model changes its inputs or buffers in place")
    model = _converted(changes.program, translations or {})
    outputs_as_traced(model, changes.program)
    changed = changes.take_from(model.graph)
    if repeats:
        write_layers(model, program, source, repeats)
    split_without_sequences(model)
    widen_indices(model)
    widen_unique(model)
    lower_experts(model)
    arrange_weights(model)
    name_dimensions(program, model, source, dynamic_shapes)
    signature = changes.give_back(model.graph, changed, signature_of(program, model))
    module = to_module(model, ctx)
    write_signature(module, signature)
    mark_states(entry_function(module), changes.states(model.graph, changed))
    if bounds := _bounds(program, module) | getattr(source, "dim_bounds", {}):
        module.attributes[DIM_BOUNDS] = DictionaryAttr({name: ints_attr(bound) for name, bound in bounds.items()})
    return module


def _converted(program: ExportedProgram, translations: Translations) -> ir.Model:
    try:
        with quiet_torch(), torch.no_grad():
            exported = torch.onnx.export(
                _without_bfloat16_einsum(without_constant_outputs(program)),
                dynamo=True,
                custom_translation_table={
                    **grouped_translations(),
                    **control_flow_translations(),
                    **recurrent_translations(),
                    **selection_translations(),
                    **fourier_translations(),
                    **translations,
                },
                # Its optimizer needs weights, and time with the square of the nodes. The normalize phase cleans up.
                optimize=False,
                opset_version=_opset(program),
                verbose=False,
            )
    except _EXPORT_ERRORS as error:
        operator, place = failed_node(program, error) or (None, None)
        raise InputError(
            f"PyTorch's ONNX exporter cannot convert {operator or 'it'}: {_summary(error)}",
            where=place,
            hint=f"write it with other operators, or give translations={{torch.ops.{operator}: function of onnxscript}}"
            if operator
            else "torch.onnx.export(…, report=True) writes down which operator it is",
        ) from error
    if exported is None:
        raise InputError("PyTorch's ONNX exporter returned nothing")
    return exported.model


def _without_bfloat16_einsum(program: ExportedProgram) -> ExportedProgram:
    """The program with products for each `einsum` of bfloat16, which ONNX's Einsum does not take."""
    nodes = (node for node in program.graph.nodes if node.target is _EINSUM)
    if all(node.meta["val"].dtype != torch.bfloat16 for node in nodes):
        return program
    return program.run_decompositions({_EINSUM: torch.export.default_decompositions()[_EINSUM]})


def _opset(program: ExportedProgram) -> int | None:
    """PyTorch's own choice, except that only newer operators take bfloat16 everywhere, TopK among them."""
    values = (node.meta.get("val") for node in program.graph.nodes)
    return _BFLOAT16_OPSET if any(getattr(value, "dtype", None) == torch.bfloat16 for value in values) else None


def _contiguous(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs without gaps in memory: of a slice, torch.export excludes the size that it was sliced from."""
    return tree_map_only(torch.Tensor, torch.Tensor.contiguous, (tuple(args), dict(kwargs)))


def _summary(error: BaseException) -> str:
    """The innermost cause in one line, and what PyTorch says to do about dimensions."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    details = [line for line in lines[1:] if line.startswith(_DETAILS) or " = Dim(" in line]
    if lines[0].endswith(":"):
        details = lines[1:2] + details
    said = [line[len(next(filter(line.startswith, _DETAILS), "")) :] for line in details[:_MOST_DETAILS]]
    return f"{type(error).__name__}: {'; '.join(dict.fromkeys([lines[0], *said]))}"


def _bounds(program: ExportedProgram, module: ModuleOp) -> dict[str, tuple[int, int, int]]:
    """Minimum, example and maximum of each input dimension that PyTorch knows a finite range of."""
    bounds: dict[str, tuple[int, int, int]] = {}
    for argument, sizes in zip(entry_function(module).args, input_sizes(program), strict=False):
        for size, dim in zip(sizes, shape_of(argument) or (), strict=False):
            name = symbol_of(dim) if dim is not None else None
            if not isinstance(size, torch.SymInt) or name is None:
                continue
            limits = _limits(program, size)
            if limits is None:
                continue
            least, most = max(1, limits[0]), limits[1]
            hint = getattr(size.node, "hint", None)
            bounds[name] = (least, min(max(hint, least), most) if isinstance(hint, int) else most, most)
    return bounds


def _limits(program: ExportedProgram, size: torch.SymInt) -> tuple[int, int] | None:
    """The least and the largest value of a size, of one dimension or what is derived from it; None if it has none."""
    expr = size.node.expr
    symbols = list(expr.free_symbols)
    limits = program.range_constraints.get(symbols[0]) if len(symbols) == 1 else None
    if limits is None or not limits.lower.is_Integer or not limits.upper.is_Integer:
        return None
    ends = [int(expr.subs(symbols[0], end)) for end in (limits.lower, limits.upper)]
    return min(ends), max(ends)
