"""What passes over a whole workload share: its function, topology and constants, and how messages name ops."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation
from xdsl.traits import ConstantLike
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.onnx import InitializerOp, OnnxOp, node_name
from gimlet.dialects.placement import TopologyOp

ENTRY = "main"


def entry_function(module: ModuleOp) -> FuncOp:
    """The function that the workload starts in. PassFailedException if the module has none with one block."""
    for op in module.body.block.ops:
        if isinstance(op, FuncOp) and op.sym_name.data == ENTRY and len(op.body.blocks) == 1:
            return op
    raise PassFailedException(f"the module has no func.func @{ENTRY} of one block")


def return_of(block: Block) -> ReturnOp:
    """The op that ends the entry function. PassFailedException if it ends with something else."""
    last = block.last_op
    if not isinstance(last, ReturnOp):
        raise PassFailedException(f"func.func @{ENTRY} does not end with func.return")
    return last


def only_topology(module: ModuleOp) -> TopologyOp | None:
    """The module's topology, or None. PassFailedException if it has several."""
    found = [op for op in module.body.block.ops if isinstance(op, TopologyOp)]
    if len(found) > 1:
        names = ", ".join(f"@{op.sym_name.data}" for op in found)
        raise PassFailedException(f"the module has several topologies ({names}): keep the one to compile for")
    return found[0] if found else None


def is_constant(op: Operation) -> bool:
    """Whether a copy of the op can stand wherever its value is used: weights are not sent between devices."""
    if isinstance(op, OnnxOp):
        return isinstance(op, InitializerOp) or (op.op_type == "Constant" and not op.domain)
    return op.has_trait(ConstantLike) and not op.operands and not op.regions


def describe(op: Operation) -> str:
    """How a message names an op: what it is, and its node where it has one."""
    node = node_name(op)
    return f"{op.name} {node!r}" if node else op.name
