"""Tensors that stay on their device and are updated in place, such as a cache of keys and values.

A state is used linearly: every op that takes one gives it on as a result, and the old one is gone.
"""

from __future__ import annotations

from typing import ClassVar

from xdsl.dialects.builtin import FlatSymbolRefAttrConstr, SymbolRefAttr, TensorType
from xdsl.ir import Attribute, Block, SSAValue
from xdsl.irdl import (
    AnyAttr,
    BaseAttr,
    IRDLOperation,
    VarConstraint,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
)
from xdsl.utils.exceptions import VerifyException

from gimlet.dialects.placement.attributes import StateType
from gimlet.dialects.placement.hardware import require_device


@irdl_op_definition
class StateInitOp(IRDLOperation):
    """A new state on a device, which holds zeros.

    %s = placement.state_init on @gpu0 : !placement.state<tensor<?x64xf32>, [4096, 64]>
    """

    name = "placement.state_init"

    device = prop_def(FlatSymbolRefAttrConstr)
    state = result_def(StateType)

    assembly_format = "`on` $device attr-dict `:` type($state)"

    def __init__(self, device: str, state_type: StateType) -> None:
        super().__init__(properties={"device": SymbolRefAttr(device)}, result_types=[state_type])

    def verify_(self) -> None:
        require_device(self, self.device.string_value())
        verify_used_once(self.state)


@irdl_op_definition
class StateReadOp(IRDLOperation):
    """What a state holds now, and the state, which goes on.

    %past, %t = placement.state_read %s : !placement.state<tensor<?x64xf32>, [4096, 64]> -> tensor<?x64xf32>
    """

    name = "placement.state_read"

    T: ClassVar = VarConstraint("T", BaseAttr(StateType))

    state = operand_def(T)
    value = result_def(AnyAttr())
    next_state = result_def(T)

    assembly_format = "$state attr-dict `:` type($state) `->` type($value)"

    def __init__(self, state: SSAValue, value_type: Attribute) -> None:
        super().__init__(operands=[state], result_types=[value_type, state.type])

    def verify_(self) -> None:
        verify_used_once(self.state)
        verify_used_once(self.next_state)
        _verify_content(self.state.type, self.value.type)


@irdl_op_definition
class StateWriteOp(IRDLOperation):
    """Puts a tensor into a state.

    %t = placement.state_write %s, %present : !placement.state<tensor<?x64xf32>, [4096, 64]>, tensor<?x64xf32>
    """

    name = "placement.state_write"

    T: ClassVar = VarConstraint("T", BaseAttr(StateType))

    state = operand_def(T)
    value = operand_def(AnyAttr())
    next_state = result_def(T)

    assembly_format = "$state `,` $value attr-dict `:` type($state) `,` type($value)"

    def __init__(self, state: SSAValue, value: SSAValue) -> None:
        super().__init__(operands=[state, value], result_types=[state.type])

    def verify_(self) -> None:
        verify_used_once(self.state)
        verify_used_once(self.next_state)
        _verify_content(self.state.type, self.value.type)


def _verify_content(state: Attribute, content: Attribute) -> None:
    if not isinstance(state, StateType):
        return
    if not isinstance(content, TensorType) or content.element_type != state.tensor.element_type:
        raise VerifyException(f"a state of {state.tensor} does not hold {content}")
    shape, capacity = content.get_shape(), state.capacity_shape
    if len(shape) != len(capacity) or any(size > limit for size, limit in zip(shape, capacity, strict=True)):
        raise VerifyException(f"{content} does not fit a state of capacity {list(capacity)}")


def verify_used_once(value: SSAValue) -> None:
    """VerifyException if `value` is a state that more than one op takes."""
    if isinstance(value.type, StateType) and value.has_more_than_one_use():
        raise VerifyException("a state is updated in place, so only one op may take it")


def state_end(value: SSAValue) -> SSAValue:
    """The state that `value` has become at the end of its block.

    An op's n-th state among its operands goes on as the n-th state among its results.
    """
    block = value.owner if isinstance(value.owner, Block) else value.owner.parent
    while True:
        use = value.get_unique_use()
        if use is None or use.operation.parent is not block:
            return value
        operands = [index for index, type_ in enumerate(use.operation.operand_types) if isinstance(type_, StateType)]
        results = [result for result in use.operation.results if isinstance(result.type, StateType)]
        position = operands.index(use.index)
        if position >= len(results):
            return value
        value = results[position]
