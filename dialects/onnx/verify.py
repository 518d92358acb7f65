"""The verifier of ONNX operations: an operation against the schema that holds at the module's opset.

It checks that

- the operator exists at the module's opset, and the operation is of the version in force there;
- there are as many inputs and outputs as the schema allows, and only optional ones are absent;
- each value's type is one that the schema allows, and values of one type variable have one type
  (a value of type `!onnx.any`, which nothing has inferred yet, has every type);
- attributes exist, have their kind, and the required ones are there;
- the sizes of a mixture of experts are those that its kernels take, and attributes that are sizes are positive;
- subgraphs are the ones that the schema has, each of one block that ends with `onnx.yield`;
- one that stands for other operations (`onnx.parts`), and may be newer than the opset, has them, of the same types.

20,000 operations take about half a second.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.utils.exceptions import VerifyException

from gimlet.dialects.onnx import experts_form
from gimlet.dialects.onnx.attributes import ReferenceAttr, check_rank, kind_of
from gimlet.dialects.onnx.extra_ops import CustomOp, YieldOp
from gimlet.dialects.onnx.op import RESERVED, SINCE_VERSION, OnnxOp
from gimlet.dialects.onnx.parts import PARTS, has_parts, module_of, parts_of
from gimlet.dialects.onnx.schema import OpSchema, Parameter, schema_table
from gimlet.dialects.onnx.types import onnx_type, verify_dims

OPSETS = "onnx.opsets"
# Attributes of ONNX Runtime's own operators that are sizes.
_SIZES = {"MatMulNBits": ("K", "N")}
_MAX_TYPES_SHOWN = 6


def opset_in_force(op: Operation, domain: str) -> int | None:
    """The version of a domain that the enclosing function or module imports; None if neither says."""
    parent = op.parent_op()
    while parent is not None and OPSETS not in parent.attributes:
        parent = parent.parent_op()
    opsets = parent.attributes[OPSETS] if parent is not None else None
    version = opsets.data.get(domain) if isinstance(opsets, DictionaryAttr) else None
    return version.value.data if isinstance(version, IntegerAttr) else None


def verify_op(op: OnnxOp) -> None:
    """Checks one operation, but not those in its regions. VerifyException names the operation and what is allowed."""
    for value in op.results:
        verify_dims(value.type)
    for attribute in op.properties.values():
        verify_dims(attribute)
    if isinstance(op, CustomOp):
        _verify_custom(op)
        return
    schema = _verify_version(op)
    _verify_values(op.name, "input", op.inputs, schema.inputs, schema.input_arity)
    _verify_values(op.name, "output", op.outputs, schema.outputs, schema.output_arity)
    _verify_types(op, schema)
    _verify_attributes(op, schema)
    _verify_regions(op, schema.graph_names, required=True, schema=schema)
    if op.domain == experts_form.DOMAIN:
        _verify_contrib(op)
    if has_parts(op):
        _verify_parts(op)


def _verify_contrib(op: OnnxOp) -> None:
    if op.op_type in experts_form.OPERATORS:
        experts_form.verify_experts(op)
    for name in _SIZES.get(op.op_type, ()):
        if op.attr(name, 1) < 1:
            raise VerifyException(f"{op.name}: attribute {name} is {op.attr(name)}, and has to be 1 or more")


def _verify_parts(op: OnnxOp) -> None:
    function = parts_of(op)
    if function is None:
        if module_of(op) is not None:
            raise VerifyException(f"{op.name}: {PARTS} is {op.attributes[PARTS]}, and the module has no such function")
        return
    types = function.function_type
    if tuple(types.inputs) != op.operand_types or tuple(types.outputs) != op.result_types:
        raise VerifyException(f"{op.name}: @{function.sym_name.data} takes or gives other types than the operation")


def _verify_custom(op: CustomOp) -> None:
    if not op.op_type:
        raise VerifyException("onnx.custom names a domain and an operator")
    if (op.domain, op.op_type) in schema_table() and not op.overload and not _is_own_function(op):
        version = opset_in_force(op, op.domain)
        if version is not None and schema_table().in_force(op.domain, op.op_type, version) is not None:
            raise VerifyException(f"{op.domain or 'ai.onnx'}.{op.op_type} has a schema: it is not an onnx.custom")
    _verify_regions(op, op.graph_names, required=False, schema=None)


def _is_own_function(op: CustomOp) -> bool:
    """Whether the model has a function of its own that the operation calls, which goes before the schema."""
    module: Operation | None = op
    while module is not None and not isinstance(module, ModuleOp):
        module = module.parent_op()
    symbol = f"{op.domain}.{op.op_type}" if op.domain else op.op_type
    functions = (child for child in module.body.block.ops if isinstance(child, FuncOp)) if module is not None else ()
    return any(function.sym_name.data == symbol for function in functions)


def _verify_version(op: OnnxOp) -> OpSchema:
    table = schema_table()
    version = op.since_version
    schema = table.in_force(op.domain, op.op_type, version)
    if schema is None or schema.since_version != version:
        versions = ", ".join(str(known.since_version) for known in table.versions(op.domain, op.op_type))
        raise VerifyException(f"{op.name} has no version {version}; its versions are {versions}")
    opset = opset_in_force(op, op.domain)
    if opset is None:
        return schema
    if has_parts(op) and version > opset:
        return schema
    in_force = table.in_force(op.domain, op.op_type, opset)
    if in_force is None:
        raise VerifyException(f"{op.name} needs opset {table.versions(op.domain, op.op_type)[0].since_version} of "
                              f"{op.domain or 'ai.onnx'}; the module imports {opset}")  # fmt: skip
    if in_force is not schema:
        raise VerifyException(f"{op.name} is of version {version}, but at the module's opset {opset} version "
                              f"{in_force.since_version} is in force: set {SINCE_VERSION} or convert it")  # fmt: skip
    return schema


def _verify_values(
    name: str,
    what: str,
    values: Sequence[SSAValue | None],
    parameters: tuple[Parameter, ...],
    arity: tuple[int, int | None],
) -> None:
    least, most = arity
    count = len(values)
    if count < least or (most is not None and count > most):
        wanted = f"at least {least}" if most is None else str(least) if least == most else f"{least} to {most}"
        raise VerifyException(f"{name} takes {wanted} {what}s ({_parameters_text(parameters)}), not {count}")
    for index, value in enumerate(values):
        if value is None:
            parameter = OpSchema.parameter(parameters, index)
            if parameter.option == "single":
                raise VerifyException(f"{name}: {what} {index} ({parameter.name}) is not optional, but absent")


def _parameters_text(parameters: tuple[Parameter, ...]) -> str:
    marks = {"single": "", "optional": "?", "variadic": "..."}
    return ", ".join(parameter.name + marks[parameter.option] for parameter in parameters)


def _verify_types(op: OnnxOp, schema: OpSchema) -> None:
    bound: dict[str, tuple[str, str]] = {}
    for what, values, parameters in (("input", op.inputs, schema.inputs), ("output", op.outputs, schema.outputs)):
        for index, value in enumerate(values):
            if value is None:
                continue
            type_ = onnx_type(value.type)
            if type_ is None:
                continue
            parameter = OpSchema.parameter(parameters, index)
            if type_ not in parameter.types:
                raise VerifyException(
                    f"{op.name}: {what} {index} ({parameter.name}) cannot be {type_}; "
                    f"version {schema.since_version} allows {_types_text(parameter.types)}"
                )
            variable = parameter.type_var
            if variable is None or not parameter.homogeneous:
                continue
            place = f"{what} {index} ({parameter.name})"
            first, first_place = bound.setdefault(variable, (type_, place))
            if first != type_:
                raise VerifyException(
                    f"{op.name}: {place} is {type_} and {first_place} is {first}, but they share the type {variable}"
                )


def _types_text(types: frozenset[str]) -> str:
    names = sorted(types)
    more = f" and {len(names) - _MAX_TYPES_SHOWN} more" if len(names) > _MAX_TYPES_SHOWN else ""
    return ", ".join(names[:_MAX_TYPES_SHOWN]) + more


def _verify_attributes(op: OnnxOp, schema: OpSchema) -> None:
    properties = op.properties
    for name, value in properties.items():
        if name in RESERVED:
            continue
        declared = schema.attributes.get(name)
        if declared is None or declared.kind == "graph":
            known = ", ".join(n for n, a in schema.attributes.items() if a.kind != "graph") or "none"
            raise VerifyException(
                f"{op.name} version {schema.since_version} has no attribute {name!r}; its attributes are: {known}"
            )
        if not _fits(value, declared.kind):
            raise VerifyException(f"{op.name}: attribute {name!r} is of kind {declared.kind}, which {value} is not")
        if declared.kind == "tensor":
            check_rank(getattr(value, "type", value))
    for name, declared in schema.attributes.items():
        if declared.required and name not in properties and declared.kind != "graph":
            raise VerifyException(f"{op.name} needs the attribute {name!r} of kind {declared.kind}")


def _fits(value: Attribute, kind: str) -> bool:
    if isinstance(value, ReferenceAttr):
        return value.data[1] == kind
    return kind_of(value) == kind


def _verify_regions(op: OnnxOp, allowed: tuple[str, ...], *, required: bool, schema: OpSchema | None) -> None:
    names = op.graph_names
    if len(names) != len(op.regions):
        raise VerifyException(
            f"{op.name} has {len(op.regions)} regions for the subgraphs {', '.join(names) or '(none)'}"
        )
    if names != tuple(sorted(set(names))):
        raise VerifyException(f"{op.name}: the subgraphs {', '.join(names)} must be sorted and differ")
    for name in names:
        if name not in allowed:
            raise VerifyException(f"{op.name} has no subgraph {name!r}; it has: {', '.join(allowed) or 'none'}")
    if required and schema is not None:
        for name in schema.graph_names:
            if schema.attributes[name].required and name not in names:
                raise VerifyException(f"{op.name} needs the subgraph {name!r}")
    for name, region in zip(names, op.regions, strict=True):
        block = region.blocks.first
        if block is None or block.next_block is not None or not isinstance(block.last_op, YieldOp):
            raise VerifyException(f"{op.name}: the subgraph {name!r} must be one block that ends with onnx.yield")
