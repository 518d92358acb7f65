"""What is checked in a protobuf before anything is made of it, so that a bad model is refused by name.

Tensors hold what their type and dimensions say; element types, map keys and dimensions exist; every value of a graph is
made once; names of operators are such that the text form can hold them. What needs the operators' schemas is the
verifier's, what needs the whole graph (cycles, undefined names) the importer's. It takes about 5 µs a node.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import onnx
from onnx import AttributeProto, TensorProto

from gimlet.dialects.onnx.attributes import MOST_DIMENSIONS
from gimlet.dialects.onnx.types import ELEMENTS
from gimlet.runtime.errors import InputError

MOST_ELEMENTS = 1 << 48
"""More than any tensor has: 2^48 elements of one byte are 281 TB. A product beyond it is a mistake, or an attack."""

_BITS = {element.code: element.bits for element in ELEMENTS}
_IN_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.COMPLEX64})
_IN_DOUBLES = frozenset({TensorProto.DOUBLE, TensorProto.COMPLEX128})
_IN_UNSIGNED = frozenset({TensorProto.UINT32, TensorProto.UINT64})
_KEYS = frozenset({*range(TensorProto.UINT8, TensorProto.STRING + 1), TensorProto.UINT32, TensorProto.UINT64})
_UNKNOWN_DIM = -1


def check_proto(proto: onnx.ModelProto) -> None:
    """Checks a model. InputError names the node, tensor or value, and says what is wrong with it."""
    _check_texts("the model", proto.producer_name, proto.producer_version, proto.domain, proto.doc_string)
    _check_metadata("the model", proto.metadata_props)
    _check_opsets("the model", proto.opset_import)
    _check_graph(proto.graph)
    keys: set[tuple[str, str, str]] = set()
    for function in proto.functions:
        key = (function.domain, function.name, function.overload)
        if key in keys:
            raise InputError("the model has it twice", where=f"function {'.'.join(filter(None, key))!r}")
        keys.add(key)
        _check_function(function)


def _check_opsets(where: str, imports: Sequence[onnx.OperatorSetIdProto]) -> None:
    for opset in imports:
        _check_identifier(opset.domain, "domain", where)
        if opset.version < 1:
            raise InputError(f"it imports opset {opset.version} of {opset.domain or 'ai.onnx'!r}", where=where)
    # Tools that change a model may import the same opset once more.
    versions = {("" if opset.domain == "ai.onnx" else opset.domain, opset.version) for opset in imports}
    if len({domain for domain, _ in versions}) != len(versions):
        raise InputError("it imports two opsets of one domain", where=where)


def _check_texts(where: str, *texts: object) -> None:
    """protobuf gives bytes for a text that is not UTF-8."""
    if not all(isinstance(text, str) for text in texts):
        raise InputError("one of its texts is not UTF-8", where=where)


def _check_metadata(where: str, metadata: Iterable[onnx.StringStringEntryProto]) -> None:
    for entry in metadata:
        _check_texts(f"the metadata of {where}", entry.key, entry.value)


def _check_graph(graph: onnx.GraphProto) -> None:
    where = f"graph {graph.name!r}"
    _check_texts(where, graph.name, graph.doc_string)
    _check_metadata(where, graph.metadata_props)
    for annotation in graph.quantization_annotation:
        _check_texts(f"a quantization annotation of {where}", annotation.tensor_name)
        _check_metadata(f"a quantization annotation of {where}", annotation.quant_parameter_tensor_names)
    inputs = [value.name for value in graph.input]
    _check_made_once(where, inputs)
    weights = [tensor.name for tensor in graph.initializer] + [
        sparse.values.name for sparse in graph.sparse_initializer
    ]
    _check_made_once(where, weights)
    for tensor in graph.initializer:
        _check_tensor(tensor, f"weight {tensor.name!r}")
    for sparse in graph.sparse_initializer:
        _check_sparse(sparse, f"sparse weight {sparse.values.name!r}")
    for value in (*graph.input, *graph.output, *graph.value_info):
        _check_value(value, where)
    _check_nodes(graph.node, where, {*inputs, *weights})


def _check_value(value: onnx.ValueInfoProto, where: str) -> None:
    if not value.name:
        raise InputError("an input or output has no name", where=where)
    _check_texts(f"value {value.name!r}", value.name, value.doc_string)
    _check_metadata(f"value {value.name!r}", value.metadata_props)
    _check_type(value.type, f"value {value.name!r}")


def _check_function(function: onnx.FunctionProto) -> None:
    where = f"function {function.name!r}"
    _check_identifier(function.domain, "domain", where)
    _check_identifier(function.name, "name of a function", where, required=True)
    _check_texts(where, function.overload, function.doc_string, *function.input, *function.output, *function.attribute)
    _check_metadata(where, function.metadata_props)
    _check_opsets(where, function.opset_import)
    for value in function.value_info:
        _check_value(value, where)
    inputs = list(function.input)
    _check_made_once(where, inputs)
    made = _check_nodes(function.node, where, set(inputs))
    for name in function.output:
        if name not in made:
            raise InputError(f"its output {name!r} is not made by any of its nodes", where=where)
    for attribute in function.attribute_proto:
        _check_attribute(attribute, where)


def _check_made_once(where: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two of its values are called {twice!r}", where=where, hint="names of values must differ")
    if "" in names:
        raise InputError("one of its values has no name", where=where)


def _check_nodes(nodes: Iterable[onnx.NodeProto], where: str, made: set[str]) -> set[str]:
    """Checks the nodes, and returns the names of all values that there are."""
    for node in nodes:
        place = f"node {node.name!r} ({node.op_type})" if node.name else f"a node of {node.op_type!r} in {where}"
        _check_identifier(node.op_type, "name of an operator", place, required=True)
        _check_identifier(node.domain, "domain", place)
        _check_texts(place, node.name, node.overload, node.doc_string, *node.input, *node.output)
        _check_metadata(place, node.metadata_props)
        for name in filter(None, node.output):
            if name in made:
                raise InputError(f"it makes {name!r}, which there is already", where=place, hint="names must differ")
            made.add(name)
        names = [attribute.name for attribute in node.attribute]
        if len(set(names)) != len(names):
            raise InputError("one of its attributes is there twice", where=place)
        for attribute in node.attribute:
            _check_attribute(attribute, place)
    return made


def _check_identifier(text: str, what: str, where: str, *, required: bool = False) -> None:
    if required and not text:
        raise InputError(f"the {what} is empty", where=where)
    _check_texts(where, text)
    if text and not (text.isascii() and text.isprintable()):
        raise InputError(f"{text!r} is not a {what}: ONNX has ASCII there", where=where)


def _check_attribute(attribute: AttributeProto, where: str) -> None:
    place = f"attribute {attribute.name!r} of {where}"
    _check_identifier(attribute.name, "name of an attribute", where, required=True)
    if attribute.type == AttributeProto.UNDEFINED and not attribute.ref_attr_name:
        raise InputError("it does not say of which kind it is", where=place)
    _check_texts(place, attribute.ref_attr_name, attribute.doc_string)
    if attribute.ref_attr_name:
        return
    for tensor in (*((attribute.t,) if attribute.type == AttributeProto.TENSOR else ()), *attribute.tensors):
        _check_tensor(tensor, place)
    for sparse in _sparse_of(attribute):
        _check_sparse(sparse, place)
    for type_ in (*((attribute.tp,) if attribute.type == AttributeProto.TYPE_PROTO else ()), *attribute.type_protos):
        _check_type(type_, place)
    for graph in (*((attribute.g,) if attribute.type == AttributeProto.GRAPH else ()), *attribute.graphs):
        _check_graph(graph)
    if any(not _is_text(text) for text in attribute.strings):
        raise InputError("one of its strings is not UTF-8", where=place)


def _sparse_of(attribute: AttributeProto) -> Iterator[onnx.SparseTensorProto]:
    if attribute.type == AttributeProto.SPARSE_TENSOR:
        yield attribute.sparse_tensor
    yield from attribute.sparse_tensors


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_sparse(sparse: onnx.SparseTensorProto, where: str) -> None:
    _count(sparse.dims, where)
    _check_tensor(sparse.values, f"the values of {where}")
    _check_tensor(sparse.indices, f"the indices of {where}")


def _check_tensor(tensor: TensorProto, where: str) -> None:
    if tensor.data_type not in _BITS:
        raise InputError(f"its element type {tensor.data_type} is not one of ONNX's", where=where)
    count = _count(tensor.dims, where)
    _check_texts(where, tensor.name, tensor.doc_string)
    if tensor.HasField("segment"):
        raise InputError("it is a segment of a tensor, which is not supported", where=where, hint="export it whole")
    if tensor.data_location == TensorProto.EXTERNAL:
        _check_external(tensor, where)
        return
    held, wanted, what = _held(tensor, count)
    if held != wanted:
        raise InputError(
            f"it holds {held} {what}, and its dimensions {list(tensor.dims)} need {wanted}",
            where=where,
            hint="the model is cut short, or was changed by hand: export it again",
        )
    if tensor.data_type == TensorProto.STRING and not all(map(_is_text, tensor.string_data)):
        raise InputError("one of its strings is not UTF-8", where=where)


def _count(dims: Iterable[int], where: str) -> int:
    """The number of elements. InputError where a dimension is negative, or their number or product absurd."""
    sizes = list(dims)
    if len(sizes) > MOST_DIMENSIONS:
        raise InputError(f"it has {len(sizes)} dimensions, and numpy at most {MOST_DIMENSIONS}", where=where)
    if any(size < 0 for size in sizes):
        raise InputError(f"it has a negative dimension: {sizes}", where=where)
    count = math.prod(sizes)
    if count > MOST_ELEMENTS or max(sizes, default=0) > MOST_ELEMENTS:
        raise InputError(f"its dimensions {sizes} are more than any machine holds", where=where)
    return count


def _held(tensor: TensorProto, count: int) -> tuple[int, int, str]:
    """How much a tensor holds, how much it should hold, and of what."""
    code, bits = tensor.data_type, _BITS[tensor.data_type]
    if code == TensorProto.STRING:
        return len(tensor.string_data), count, "strings"
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data), (count * bits + 7) // 8, "bytes"
    if code in _IN_FLOATS:
        return len(tensor.float_data), count * (bits // 32), "floats"
    if code in _IN_DOUBLES:
        return len(tensor.double_data), count * (bits // 64), "doubles"
    if code == TensorProto.INT64:
        return len(tensor.int64_data), count, "integers"
    if code in _IN_UNSIGNED:
        return len(tensor.uint64_data), count, "integers"
    packed = bits in (2, 4)
    return len(tensor.int32_data), (count * bits + 7) // 8 if packed else count, "integers"


def _check_external(tensor: TensorProto, where: str) -> None:
    if tensor.data_type == TensorProto.STRING:
        raise InputError("its strings are external data, and a file holds numbers only", where=where)
    _check_metadata(where, tensor.external_data)
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if not entries.get("location"):
        raise InputError("its data is external, and it does not say in which file", where=where)
    if "\0" in entries["location"]:
        raise InputError("the name of its data file has a zero byte", where=where)
    for key in ("offset", "length"):
        text = entries.get(key, "0")
        if not (text.isascii() and text.isdigit()) or int(text[:20]) >= 1 << 62:
            raise InputError(f"the {key} of its external data is {text[:40]!r}: no number of bytes", where=where)


def _check_type(type_: onnx.TypeProto, where: str) -> None:
    field = type_.WhichOneof("value")
    if field in ("sequence_type", "optional_type"):
        inner = getattr(type_, field).elem_type
        if inner.WhichOneof("value") is None:
            raise InputError("its type is a sequence or an optional of nothing", where=where)
        _check_type(inner, where)
    elif field == "map_type":
        if type_.map_type.key_type not in _KEYS:
            raise InputError(f"the keys of its map are of element type {type_.map_type.key_type}", where=where)
        _check_type(type_.map_type.value_type, where)
    elif field in ("tensor_type", "sparse_tensor_type"):
        tensor = getattr(type_, field)
        if tensor.elem_type and tensor.elem_type not in _BITS:
            raise InputError(f"its element type {tensor.elem_type} is not one of ONNX's", where=where)
        _check_texts(where, *(dim.dim_param for dim in tensor.shape.dim))
        # Some exporters spell a dimension that is not known as −1.
        _count((dim.dim_value for dim in tensor.shape.dim if dim.dim_value != _UNKNOWN_DIM), where)
    elif field is not None:
        raise InputError(f"its type is of the kind {field}, which is not supported", where=where)
