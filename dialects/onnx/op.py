"""The base class of all ONNX operations.

Absent optional inputs are not operands: `absent_inputs` lists their positions, so that `onnx.Clip(%x, _, %max)` has two
operands and `absent_inputs = array<i64: 1>`. The same goes for outputs. ONNX attributes are properties, subgraphs are
regions in the order of their names, and an op whose signature is not the newest one says `since_version`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, ClassVar, Self

from xdsl.dialects.builtin import ArrayAttr, DenseArrayBase, IntegerAttr
from xdsl.ir import Attribute, Operation, OpResult, Region, SSAValue
from xdsl.traits import EffectInstance, MemoryEffect, MemoryEffectKind

from gimlet.dialects.onnx.attributes import attribute_of, int_attr, ints_attr, python_value, strings_attr
from gimlet.dialects.onnx.names import named_location, node_name
from gimlet.dialects.onnx.schema import AttributeSchema, OpSchema, schema_table
from gimlet.runtime.errors import InputError

if TYPE_CHECKING:
    from xdsl.parser import Parser
    from xdsl.printer import Printer

SINCE_VERSION = "since_version"
ABSENT_INPUTS = "absent_inputs"
ABSENT_OUTPUTS = "absent_outputs"
GRAPHS = "graphs"
CUSTOM_DOMAIN = "onnx_domain"
CUSTOM_OP_TYPE = "onnx_op_type"
CUSTOM_OVERLOAD = "onnx_overload"
RESERVED = frozenset(
    {SINCE_VERSION, ABSENT_INPUTS, ABSENT_OUTPUTS, GRAPHS, CUSTOM_DOMAIN, CUSTOM_OP_TYPE, CUSTOM_OVERLOAD}
)
"""Properties of an operation that are not ONNX attributes."""


class DrawsRandomNumbers(MemoryEffect):
    """Two equal operations give different results, so they are never merged; one that nobody reads may be erased."""

    @classmethod
    def get_effects(cls, op: Operation) -> AbstractSet[EffectInstance]:
        return {EffectInstance(MemoryEffectKind.ALLOC, result) for result in op.results}


class OnnxOp(Operation):
    """An operation of an ONNX domain. The subclass of an operator is `gimlet.dialects.onnx.ops.NAME`."""

    schema_domain: ClassVar[str] = ""
    schema_name: ClassVar[str] = ""

    @property
    def domain(self) -> str:
        """The ONNX domain, "" for the default one."""
        return self.schema_domain

    @property
    def op_type(self) -> str:
        """The name of the operator: `Conv`."""
        return self.schema_name

    @property
    def since_version(self) -> int:
        """The version of the operator that this operation is written for."""
        version = self.properties.get(SINCE_VERSION)
        if isinstance(version, IntegerAttr):
            return version.value.data
        return schema_table().newest(self.domain, self.op_type).since_version

    @property
    def schema(self) -> OpSchema | None:
        """The frozen schema that the operation is verified against; None for an operator that nobody declared."""
        return schema_table().in_force(self.domain, self.op_type, self.since_version)

    @property
    def node_name(self) -> str:
        """The name of the ONNX node, or ""."""
        return node_name(self)

    @property
    def inputs(self) -> tuple[SSAValue | None, ...]:
        """All inputs in the order of the schema, None for an absent one."""
        return _with_absent(self.operands, self.properties.get(ABSENT_INPUTS))

    @property
    def outputs(self) -> tuple[OpResult | None, ...]:
        """All outputs in the order of the schema, None for an absent one."""
        return _with_absent(self.results, self.properties.get(ABSENT_OUTPUTS))

    def input_at(self, index: int) -> SSAValue | None:
        """The input at `index`, None if it is absent."""
        inputs = self.inputs
        return inputs[index] if index < len(inputs) else None

    @property
    def graph_names(self) -> tuple[str, ...]:
        """The attribute names of the regions, in their order."""
        names = self.properties.get(GRAPHS)
        if isinstance(names, ArrayAttr):
            return tuple(python_value(names))
        schema = self.schema
        return schema.graph_names if schema and self.regions else ()

    @property
    def subgraphs(self) -> dict[str, Region]:
        """The regions by the name of the attribute that each is: `then_branch`, `body`."""
        return dict(zip(self.graph_names, self.regions, strict=True))

    def attr(self, name: str, default: Any = None) -> Any:
        """The Python value of an ONNX attribute: its own, else the schema's default, else `default`."""
        attribute = self.properties.get(name)
        if attribute is not None:
            return python_value(attribute)
        schema = self.schema
        declared = schema.attributes.get(name) if schema else None
        if declared is None or declared.default is None:
            return default
        return list(declared.default) if isinstance(declared.default, list) else declared.default

    def onnx_attributes(self) -> dict[str, Attribute]:
        """The ONNX attributes that are set, by name."""
        return {name: value for name, value in self.properties.items() if name not in RESERVED}

    @classmethod
    def make(
        cls,
        inputs: Sequence[SSAValue | Operation | None],
        result_types: Sequence[Attribute | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        graphs: Mapping[str, Region] | None = None,
        node_name: str = "",
        opset: int | None = None,
    ) -> Self:
        """Builds an operation; None stands for an absent input or output.

        `attributes` are Python values or IR attributes, None where absent. At `opset` the version in force there is
        taken, else the newest. InputError for an attribute that the operator does not have.
        """
        schema = cls.schema_at(opset)
        properties = {
            name: attribute_of(value, _declared(schema, name).kind)
            for name, value in (attributes or {}).items()
            if value is not None
        }
        regions = dict(sorted((graphs or {}).items()))
        if regions and tuple(regions) != schema.graph_names:
            properties[GRAPHS] = strings_attr(tuple(regions))
        if schema.since_version != schema_table().newest(schema.domain, schema.name).since_version:
            properties[SINCE_VERSION] = int_attr(schema.since_version)
        values = [SSAValue.get(value) if value is not None else None for value in inputs]
        return cls.create(
            operands=without_absent(values, ABSENT_INPUTS, properties),
            result_types=without_absent(result_types, ABSENT_OUTPUTS, properties),
            properties=properties,
            regions=tuple(regions.values()),
            location=named_location(node_name),
        )

    @classmethod
    def schema_at(cls, opset: int | None = None) -> OpSchema:
        """The operator's schema at an opset version, the newest one by default. InputError if it is not in it yet."""
        table = schema_table()
        if opset is None:
            return table.newest(cls.schema_domain, cls.schema_name)
        schema = table.in_force(cls.schema_domain, cls.schema_name, opset)
        if schema is None:
            raise InputError(f"{cls.name} does not exist at opset {opset}")
        return schema

    def verify_(self) -> None:
        from gimlet.dialects.onnx.verify import verify_op

        verify_op(self)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        from gimlet.dialects.onnx.syntax import parse_op

        return parse_op(cls, parser)

    def print(self, printer: Printer) -> None:
        from gimlet.dialects.onnx.syntax import print_op

        print_op(self, printer)


def _declared(schema: OpSchema, name: str) -> AttributeSchema:
    if name not in schema.attributes:
        known = ", ".join(schema.attributes) or "none"
        raise InputError(f"{schema.name} version {schema.since_version} has no attribute {name!r} (it has: {known})")
    return schema.attributes[name]


def _with_absent(values: Sequence[Any], absent: Attribute | None) -> tuple[Any, ...]:
    if not isinstance(absent, DenseArrayBase):
        return tuple(values)
    positions = set(python_value(absent))
    present = iter(values)
    total = len(values) + len(positions)
    return tuple(None if index in positions else next(present, None) for index in range(total))


def without_absent(values: Sequence[Any], name: str, properties: dict[str, Attribute]) -> list[Any]:
    """The values that are not None; the positions of the others go into the property `name`, but for trailing ones."""
    last = max((index for index, value in enumerate(values) if value is not None), default=-1)
    absent = [index for index, value in enumerate(values[: last + 1]) if value is None]
    if absent:
        properties[name] = ints_attr(absent)
    return [value for value in values if value is not None]
