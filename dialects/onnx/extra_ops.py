"""The operations that the dialect has beside ONNX's operators: weights, unknown operators, and a subgraph's end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from xdsl.dialects.builtin import StringAttr, TensorType
from xdsl.ir import Attribute, Operation, OpTraits, Region, SSAValue
from xdsl.traits import IsTerminator, Pure
from xdsl.utils.exceptions import VerifyException

from gimlet.dialects.onnx.attributes import (
    SparseAttr,
    attribute_of,
    check_rank,
    kind_of,
    strings_attr,
    tensor_attr,
    text_of,
)
from gimlet.dialects.onnx.names import named_location, set_value_name
from gimlet.dialects.onnx.op import (
    ABSENT_INPUTS,
    ABSENT_OUTPUTS,
    CUSTOM_DOMAIN,
    CUSTOM_OP_TYPE,
    CUSTOM_OVERLOAD,
    GRAPHS,
    RESERVED,
    OnnxOp,
    without_absent,
)
from gimlet.runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdsl.parser import Parser
    from xdsl.printer import Printer


class InitializerOp(OnnxOp):
    """A constant tensor: `key` names it in the weight store, or `value` holds it where it is small or sparse.

    `%w = onnx.initializer {key = "conv1.weight"} : tensor<64x3x7x7xf32>`
    """

    name = "onnx.initializer"
    schema_name = "initializer"
    traits = OpTraits(lambda: (Pure(),))

    @property
    def since_version(self) -> int:
        return 1

    @property
    def key(self) -> str | None:
        """The key in the weight store, or None if the value is inline."""
        return text_of(self.properties["key"]) if "key" in self.properties else None

    @classmethod
    def from_key(cls, key: str, type_: Attribute, name: str = "") -> Self:
        """A tensor in the weight store."""
        op = cls.create(result_types=[type_], properties={"key": StringAttr(key)})
        set_value_name(op.results[0], name)
        return op

    @property
    def sparse(self) -> SparseAttr | None:
        """The tensor as the model stores it, if that is sparse."""
        value = self.properties.get("value")
        return value if isinstance(value, SparseAttr) else None

    @classmethod
    def from_sparse(cls, value: SparseAttr, name: str = "") -> Self:
        """A tensor that the model stores sparse; what reads it sees a dense one."""
        op = cls.create(result_types=[value.type], properties={"value": value})
        set_value_name(op.results[0], name)
        return op

    @classmethod
    def from_array(cls, array: np.ndarray[Any, Any], name: str = "") -> Self:
        """A small tensor, inline."""
        value = tensor_attr(array)
        op = cls.create(result_types=[value.type], properties={"value": value})
        set_value_name(op.results[0], name)
        return op

    def verify_(self) -> None:
        if self.operands or self.regions or len(self.results) != 1:
            raise VerifyException("onnx.initializer takes no operands and no regions, and has one result")
        if not isinstance(self.results[0].type, TensorType):
            raise VerifyException(f"onnx.initializer is a tensor with a shape, not {self.results[0].type}")
        check_rank(self.results[0].type)
        if set(self.properties) not in ({"key"}, {"value"}):
            raise VerifyException("onnx.initializer has either a key or a value, and no other property")
        if "key" in self.properties:
            if not self.key:
                raise VerifyException("the key of onnx.initializer is a string that is not empty")
            return
        value = self.properties["value"]
        if kind_of(value) not in ("tensor", "sparse_tensor"):
            raise VerifyException(f"the value of onnx.initializer is a tensor, not {value}")
        if value.type != self.results[0].type:  # pyright: ignore[reportAttributeAccessIssue]
            raise VerifyException(f"onnx.initializer of type {self.results[0].type} holds {value.type}")  # pyright: ignore[reportAttributeAccessIssue]


class CustomOp(OnnxOp):
    """An operator that has no frozen schema, or a call of one of the model's own functions.

    It is placed only where a target claims it: `%y = onnx.custom "com.example", "Op"(%x) {alpha = 2} : (…) -> …`.
    """

    name = "onnx.custom"
    traits = OpTraits(lambda: ())

    @property
    def domain(self) -> str:
        return text_of(self.properties.get(CUSTOM_DOMAIN))

    @property
    def op_type(self) -> str:
        return text_of(self.properties.get(CUSTOM_OP_TYPE))

    @property
    def overload(self) -> str:
        """Which of several functions of one name is called, or ""."""
        return text_of(self.properties.get(CUSTOM_OVERLOAD))

    @property
    def since_version(self) -> int:
        return 1

    @property
    def schema(self) -> None:
        return None

    @classmethod
    def make_custom(
        cls,
        domain: str,
        op_type: str,
        inputs: Sequence[SSAValue | Operation | None],
        result_types: Sequence[Attribute | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        overload: str = "",
        graphs: Mapping[str, Region] | None = None,
        node_name: str = "",
    ) -> Self:
        """Builds an operation of any domain and name. InputError if an attribute has a name that the dialect needs."""
        attributes = attributes or {}
        if taken := RESERVED.intersection(attributes):
            raise InputError(f"{domain}.{op_type}: the dialect keeps the attribute name {min(taken)} for itself")
        if dotted := next((name for name in attributes if "." in name), ""):
            raise InputError(f"{domain}.{op_type}: the attribute {dotted!r} has a dot in its name")
        properties: dict[str, Attribute] = {CUSTOM_DOMAIN: StringAttr(domain), CUSTOM_OP_TYPE: StringAttr(op_type)}
        if overload:
            properties[CUSTOM_OVERLOAD] = StringAttr(overload)
        properties |= {name: attribute_of(value) for name, value in attributes.items()}
        if graphs:
            properties[GRAPHS] = strings_attr(tuple(graphs))
        values = [SSAValue.get(value) if value is not None else None for value in inputs]
        return cls.create(
            operands=without_absent(values, ABSENT_INPUTS, properties),
            result_types=without_absent(result_types, ABSENT_OUTPUTS, properties),
            properties=properties,
            regions=tuple((graphs or {}).values()),
            location=named_location(node_name),
        )


class YieldOp(OnnxOp):
    """Ends a subgraph and gives its outputs: `onnx.yield %y : tensor<4xf32>`."""

    name = "onnx.yield"
    schema_name = "yield"
    traits = OpTraits(lambda: (IsTerminator(), Pure()))

    @property
    def since_version(self) -> int:
        return 1

    def verify_(self) -> None:
        if self.results or self.regions:
            raise VerifyException("onnx.yield has no results and no regions")
        if not isinstance(self.parent_op(), OnnxOp):
            raise VerifyException("onnx.yield ends a subgraph of an ONNX operation, and stands nowhere else")

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        operands: list[SSAValue] = []
        if (first := parser.parse_optional_unresolved_operand()) is not None:
            unresolved = [first]
            while parser.parse_optional_punctuation(",") is not None:
                unresolved.append(parser.parse_unresolved_operand())
            position = parser.pos
            parser.parse_punctuation(":")
            types = parser.parse_comma_separated_list(parser.Delimiter.NONE, parser.parse_type)
            operands = list(parser.resolve_operands(unresolved, types, position))
        return cls.create(operands=operands)

    def print(self, printer: Printer) -> None:
        if not self.operands:
            return
        printer.print_string(" ")
        printer.print_list(self.operands, printer.print_ssa_value)
        printer.print_string(" : ")
        printer.print_list(self.operand_types, printer.print_attribute)


EXTRA_OPS: tuple[type[OnnxOp], ...] = (InitializerOp, CustomOp, YieldOp)
