"""Large operators that stand for several operations of the model: `onnx.parts` on one names a function with them.

    %y = onnx.Gelu(%x) {onnx.parts = @parts.Gelu.0} : (tensor<4xf32>) -> tensor<4xf32>
    func.func private @parts.Gelu.0(%x: tensor<4xf32>) -> tensor<4xf32> { … as the model had it, at its own opset … }

Such an operation may be newer than the module's opset. The function takes what the operation takes, constants of the
pattern are in it, and operations of equal patterns share one.

An operation that the model has itself may name a function too, with what it computes in simpler operators, for targets
that lack it. It says so by `onnx.own`, and stays as it is wherever it can.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from xdsl.dialects.builtin import ModuleOp, SymbolRefAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation

PARTS = "onnx.parts"
OWN = "onnx.own"


def has_parts(op: Operation) -> bool:
    """Whether an operation stands for others."""
    return PARTS in op.attributes


def is_own(op: Operation) -> bool:
    """Whether an operation with parts is the model's own, and not found by a pass."""
    return OWN in op.attributes


def parts_of(op: Operation) -> FuncOp | None:
    """The function with the operations that `op` stands for; None where it stands for none, or its module has none."""
    name = op.attributes.get(PARTS)
    module = module_of(op)
    if not isinstance(name, SymbolRefAttr) or module is None:
        return None
    wanted = name.string_value()
    functions = (child for child in module.body.block.ops if isinstance(child, FuncOp))
    return next((function for function in functions if function.sym_name.data == wanted), None)


def module_of(op: Operation) -> ModuleOp | None:
    """The module that an operation is in."""
    parent: Operation | None = op
    while parent is not None and not isinstance(parent, ModuleOp):
        parent = parent.parent_op()
    return parent


def large_ops(root: Operation) -> Iterator[Operation]:
    """The operations under `root` that stand for others."""
    return (op for op in root.walk() if has_parts(op))


def functions_of(ops: Iterable[Operation]) -> list[FuncOp]:
    """The functions with the parts of all operations that `ops` hold, each once."""
    found = (parts_of(large) for op in ops for large in large_ops(op))
    return list(dict.fromkeys(function for function in found if function is not None))
