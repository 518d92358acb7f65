"""Tensors that stay on their device from run to run, such as a cache of keys and values.

States are in @main alone: what a segment takes and gives are tensors, of which some are a state's memory.
"""

from __future__ import annotations

from xdsl.dialects.builtin import FlatSymbolRefAttrConstr, StringAttr, SymbolRefAttr, TensorType, UnitAttr
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AnyAttr,
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
)
from xdsl.utils.exceptions import VerifyException

from gimlet.dialects.placement.attributes import StateType
from gimlet.dialects.placement.hardware import require_device


@irdl_op_definition
class StateOp(IRDLOperation):
    """A state of the program on a device: zeros after a reset, else what the run before has written.

    %s = placement.state "past" to "present" on @gpu0 : !placement.state<tensor<?x64xf32>, [4096, 64]>

    The texts are the names of the input and the output that it is of the model.
    """

    name = "placement.state"

    state_name = prop_def(StringAttr)
    result_name = prop_def(StringAttr)
    device = prop_def(FlatSymbolRefAttrConstr)
    state = result_def(StateType)

    assembly_format = "$state_name `to` $result_name `on` $device attr-dict `:` type($state)"

    def __init__(self, name: str, result_name: str, device: str, state_type: StateType) -> None:
        super().__init__(
            properties={
                "state_name": StringAttr(name),
                "result_name": StringAttr(result_name),
                "device": SymbolRefAttr(device),
            },
            result_types=[state_type],
        )

    @property
    def device_name(self) -> str:
        return self.device.string_value()

    def verify_(self) -> None:
        require_device(self, self.device_name)
        users = [use.operation for use in self.state.uses]
        for kind in (StateReadOp, StateWriteOp):
            if sum(isinstance(user, kind) for user in users) != 1:
                raise VerifyException(f"state {self.state_name} needs one {kind.name} in a run")
        for user in users:
            if not isinstance(user, StateReadOp | StateWriteOp):
                raise VerifyException(f"state {self.state_name} is read and written, and given to no {user.name}")


@irdl_op_definition
class StateReadOp(IRDLOperation):
    """What a state holds when a run begins.

    %past = placement.state_read %s : !placement.state<tensor<?x64xf32>, [4096, 64]> -> tensor<?x64xf32>
    """

    name = "placement.state_read"

    state = operand_def(StateType)
    value = result_def(AnyAttr())

    assembly_format = "$state attr-dict `:` type($state) `->` type($value)"

    def __init__(self, state: SSAValue, value_type: Attribute) -> None:
        super().__init__(operands=[state], result_types=[value_type])

    def verify_(self) -> None:
        _verify_content(self.state.type, self.value.type)


@irdl_op_definition
class StateWriteOp(IRDLOperation):
    """What a state holds when the next run begins.

    placement.state_write %s, %present : !placement.state<tensor<?x64xf32>, [4096, 64]>, tensor<?x64xf32>

    With `in_place` the launch that makes the tensor writes it where the old one is. Then no other op may see the old.
    """

    name = "placement.state_write"

    in_place = opt_prop_def(UnitAttr)
    state = operand_def(StateType)
    value = operand_def(AnyAttr())

    assembly_format = "$state `,` $value (`in_place` $in_place^)? attr-dict `:` type($state) `,` type($value)"

    def __init__(self, state: SSAValue, value: SSAValue, *, in_place: bool = False) -> None:
        super().__init__(
            operands=[state, value], properties={"in_place": UnitAttr()} if in_place else {}, result_types=[]
        )

    def verify_(self) -> None:
        _verify_content(self.state.type, self.value.type)
        if self.in_place is None:
            return
        reads = [use.operation for use in self.state.uses if isinstance(use.operation, StateReadOp)]
        for read in reads:
            if read.value.type != self.value.type:
                raise VerifyException("a state that is updated in place keeps its shape")
            if any(use.operation is not self.value.owner for use in read.value.uses):
                raise VerifyException("a state that is updated in place is read by the op that updates it alone")


def _verify_content(state: Attribute, content: Attribute) -> None:
    if not isinstance(state, StateType):
        return
    if not isinstance(content, TensorType) or content.element_type != state.tensor.element_type:
        raise VerifyException(f"a state of {state.tensor} does not hold {content}")
    shape, capacity = content.get_shape(), state.capacity_shape
    if len(shape) != len(capacity) or any(size > limit for size, limit in zip(shape, capacity, strict=True)):
        raise VerifyException(f"{content} does not fit a state of capacity {list(capacity)}")
