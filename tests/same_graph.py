"""Whether two modules compute the same from the same weights, whatever their values and operations are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

import torch
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from gimlet.compiler.frontends import load, pytorch
from gimlet.compiler.pipeline import NORMALIZE, run_passes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import InitializerOp, OnnxOp
from gimlet.passes.entry import entry_function


def both_ways(
    model: torch.nn.Module, args: tuple[Any, ...], shapes: Any = None, kwargs: Mapping[str, Any] | None = None
) -> list[str]:
    """What was said of a model's layers, whose graph is asserted to be that of the whole trace."""
    said: list[str] = []
    contexts = GimletContext(), GimletContext()
    program = pytorch.export_program(model, args, kwargs, shapes)
    modules = [
        load(model, args=args, kwargs=kwargs, dynamic_shapes=shapes, say=said.append, ctx=contexts[0]),
        pytorch.import_program(program, contexts[1], source=model, dynamic_shapes=shapes),
    ]
    for module, ctx in zip(modules, contexts, strict=True):
        run_passes(module, ctx, NORMALIZE)
    one, other = (fingerprints(module, ctx) for module, ctx in zip(modules, contexts, strict=True))
    assert one == other
    return said


def fingerprints(module: ModuleOp, ctx: GimletContext) -> tuple[list[str], int]:
    """A fingerprint of each result of @main, of all that it depends on, and the number of operations."""
    known: dict[SSAValue, str] = {}
    function = entry_function(module)
    for index, argument in enumerate(function.args):
        known[argument] = f"argument {index}: {argument.type}"
    for op in function.body.walk():
        for index, result in enumerate(op.results):
            known[result] = _digest(f"{index} of {_text(op, known, ctx)}")
    ops = [op for op in module.walk() if isinstance(op, OnnxOp)]
    returned = function.body.block.last_op
    assert returned is not None
    return [known[value] for value in returned.operands], len(ops)


def _text(op: Operation, known: dict[SSAValue, str], ctx: GimletContext) -> str:
    if isinstance(op, InitializerOp) and op.key is not None:
        weight = ctx.weights[op.key]
        return f"{weight.dtype}{weight.shape} {weight.digest() if weight.has_data else op.key}"
    return "; ".join([op.name, *(known[value] for value in op.operands), *_attributes(op)])


def _attributes(op: Operation) -> Iterator[str]:
    yield from (f"{name} = {value}" for name, value in sorted(op.properties.items()))
    yield from (f"result {result.type}" for result in op.results)
    yield from (inner.name for region in op.regions for inner in region.walk())


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
