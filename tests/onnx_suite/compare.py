"""Whether two models say the same: node for node, name for name, attribute for attribute.

What may differ, because the IR has one form for it:

- the default domain may be spelled `ai.onnx`, and ONNX Runtime's own domain is always imported;
- an input's dimension that has no name gets one, and a name that spells an expression is spelled in one way;
- a `Constant` node of more than 1 KiB is an initializer;
- a name that is used again in another subgraph gets a number at its end;
- absent inputs and outputs at the end of a node are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import Message
from onnx import AttributeProto, numpy_helper

from gimlet.dialects.onnx.ir_types import dim_of, dim_to_ir
from gimlet.dialects.onnx.ir_weights import INLINE_BYTES

_NUMBER = re.compile(r"(_\d+)+$")
Facts = dict[str, Any]


def differences(left: onnx.ModelProto, right: onnx.ModelProto) -> list[str]:
    """What the two models say differently, one line each: the path to it, and both values."""
    return list(_differences("model", _model(left), _model(right)))


def _differences(path: str, left: Any, right: Any) -> Iterator[str]:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for key in sorted({*left, *right}):
            yield from _differences(f"{path}.{key}", left.get(key), right.get(key))
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for index, pair in enumerate(zip(left, right, strict=True)):
            yield from _differences(f"{path}[{index}]", *pair)
    elif left != right and left is not _ANYTHING:
        yield f"{path}: {str(left)[:120]} became {str(right)[:120]}"


class _Anything:
    """Equal to whatever it became."""

    def __repr__(self) -> str:
        return "?"


_ANYTHING = _Anything()


def _model(model: onnx.ModelProto) -> Facts:
    return {
        "ir_version": model.ir_version,
        "producer": [model.producer_name, model.producer_version],
        "domain": model.domain,
        "version": model.model_version,
        "doc": model.doc_string,
        "metadata": _texts(model.metadata_props),
        "opsets": _opsets(model.opset_import),
        "training": [info.SerializeToString(deterministic=True) for info in model.training_info],
        "functions": {f"{f.domain}.{f.name}.{f.overload}": _function(f) for f in model.functions},
        "graph": _graph(model.graph, is_main=True),
    }


def _function(function: onnx.FunctionProto) -> Facts:
    return {
        "inputs": list(function.input),
        "outputs": list(function.output),
        "attributes": list(function.attribute),
        "defaults": {a.name: _attribute(a) for a in function.attribute_proto},
        "opsets": _opsets(function.opset_import),
        "doc": function.doc_string,
        "metadata": _texts(function.metadata_props),
        "types": _types(function.value_info),
        "nodes": [_node(node) for node in function.node],
    }


def _graph(graph: onnx.GraphProto, *, is_main: bool = False) -> Facts:
    if not is_main:
        graph = _without_numbers(graph)
    large = [node for node in graph.node if is_main and _is_large_constant(node)]
    weights = {tensor.name: _tensor(tensor) for tensor in graph.initializer}
    weights |= {node.output[0]: _tensor(node.attribute[0].t) for node in large}
    return {
        "name": graph.name,
        "doc": graph.doc_string,
        "metadata": _texts(graph.metadata_props),
        "inputs": [_value(value, is_input=is_main) for value in graph.input],
        "outputs": [_value(value) for value in graph.output],
        "weights": weights,
        "sparse": {tensor.values.name: _sparse(tensor) for tensor in graph.sparse_initializer},
        "quantization": {a.tensor_name: _texts(a.quant_parameter_tensor_names) for a in graph.quantization_annotation},
        "types": _types(value for value in graph.value_info if value.name not in weights),
        "nodes": [_node(node) for node in graph.node if node not in large],
    }


def _without_numbers(graph: onnx.GraphProto) -> onnx.GraphProto:
    """A copy of a subgraph in which no name of a value ends with a number."""
    copy = onnx.GraphProto()
    copy.CopyFrom(graph)
    for value in (*copy.input, *copy.output, *copy.value_info, *copy.initializer):
        value.name = _NUMBER.sub("", value.name)
    for node in copy.node:
        node.input[:] = [_NUMBER.sub("", name) for name in node.input]
        node.output[:] = [_NUMBER.sub("", name) for name in node.output]
    return copy


def _is_large_constant(node: onnx.NodeProto) -> bool:
    return (
        node.op_type == "Constant"
        and node.domain in ("", "ai.onnx")
        and [a.name for a in node.attribute] == ["value"]
        and node.attribute[0].t.data_type != onnx.TensorProto.STRING
        and len(numpy_helper.to_array(node.attribute[0].t).tobytes()) > INLINE_BYTES
    )


def _node(node: onnx.NodeProto) -> Facts:
    return {
        "operator": [node.domain if node.domain != "ai.onnx" else "", node.op_type, node.overload],
        "name": node.name,
        "inputs": _without_absent(node.input),
        "outputs": _without_absent(node.output),
        "attributes": {a.name: _attribute(a) for a in node.attribute},
        "doc": node.doc_string,
        "metadata": _texts(node.metadata_props),
    }


def _without_absent(names: Any) -> list[str]:
    found = list(names)
    while found and not found[-1]:
        found.pop()
    return found


def _attribute(attribute: AttributeProto) -> Any:
    if attribute.ref_attr_name:
        return ["reference", attribute.ref_attr_name, attribute.type]
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, Message):
        return [attribute.type, _message(value)]
    if attribute.type in (AttributeProto.FLOAT, AttributeProto.INT, AttributeProto.STRING):
        return [attribute.type, value]
    return [attribute.type, [_message(item) if isinstance(item, Message) else item for item in value]]


def _message(message: Message) -> Any:
    if isinstance(message, onnx.TensorProto):
        return _tensor(message)
    if isinstance(message, onnx.SparseTensorProto):
        return _sparse(message)
    if isinstance(message, onnx.GraphProto):
        return _graph(message)
    return _type(message) if isinstance(message, onnx.TypeProto) else message.SerializeToString(deterministic=True)


def _tensor(tensor: onnx.TensorProto) -> Facts:
    array = numpy_helper.to_array(tensor)
    data = array.ravel().tolist() if tensor.data_type == onnx.TensorProto.STRING else array.tobytes()
    return {"type": tensor.data_type, "dims": list(tensor.dims), "data": data, "doc": tensor.doc_string}


def _sparse(sparse: onnx.SparseTensorProto) -> Facts:
    return {"values": _tensor(sparse.values), "indices": _tensor(sparse.indices), "dims": list(sparse.dims)}


def _types(values: Any) -> Facts:
    return {value.name: _value(value) for value in values}


def _value(value: onnx.ValueInfoProto, *, is_input: bool = False) -> Facts:
    return {
        "name": value.name,
        "type": _type(value.type, is_input=is_input) if value.HasField("type") else None,
        "doc": value.doc_string,
        "metadata": _texts(value.metadata_props),
    }


def _type(type_: onnx.TypeProto, *, is_input: bool = False) -> Any:
    field = type_.WhichOneof("value")
    if field is None:
        return None
    inner = getattr(type_, field)
    if field == "map_type":
        return [field, inner.key_type, _type(inner.value_type)]
    if field in ("sequence_type", "optional_type"):
        return [field, _type(inner.elem_type, is_input=is_input)]
    dims = [_dim(dim, is_input=is_input) for dim in inner.shape.dim] if inner.HasField("shape") else None
    return [field, inner.elem_type, dims]


def _dim(dim: Any, *, is_input: bool) -> Any:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return dim.dim_value
    known = dim_of(ir.SymbolicDim(dim.dim_param)) if dim.dim_param else None
    if known is None:
        return _ANYTHING if is_input else None
    return known if isinstance(known, int) else dim_to_ir(known)


def _texts(entries: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in entries}


def _opsets(imports: Any) -> dict[str, int]:
    found = {entry.domain if entry.domain != "ai.onnx" else "": entry.version for entry in imports}
    if found.get("com.microsoft") == 1:
        del found["com.microsoft"]
    return found
