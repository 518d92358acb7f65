"""From and to ONNX's protobufs, with what `onnx_ir` cannot hold: sparse tensors, maps and training information.

`onnx_ir` refuses a model with any of these, or drops them. Here they pass through it in disguise: a sparse tensor as a
string, a map as a string tensor, each with the bytes of its protobuf as text behind a mark. `ir_types` and `importer`
know the disguise; a model that `to_proto` made has none of it left.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, Message

from gimlet.runtime.errors import InputError

TRAINING_META = "gimlet.training_info"
"""In `meta` of a model: its training information, one serialized protobuf as text for each."""

_MARK = "\0gimlet:"


def disguise(message: Message) -> str:
    """The text that a protobuf passes through `onnx_ir` as."""
    return _MARK + b64encode(message.SerializeToString(deterministic=True)).decode()


def is_disguised(text: object) -> bool:
    """Whether a text stands for a protobuf."""
    return isinstance(text, str) and text.startswith(_MARK)


def sparse_of(text: str) -> onnx.SparseTensorProto:
    """The sparse tensor that a text stands for."""
    found = onnx.SparseTensorProto()
    _parse(text, found)
    return found


def type_of(text: str) -> onnx.TypeProto:
    """The type that a text stands for."""
    found = onnx.TypeProto()
    _parse(text, found)
    return found


def _parse(text: str, into: Message) -> None:
    try:
        into.ParseFromString(b64decode(text.removeprefix(_MARK)))
    except (ValueError, DecodeError) as error:
        raise InputError("a text in the model has the mark that gimlet uses for sparse tensors and maps") from error


def from_proto(proto: onnx.ModelProto) -> ir.Model:
    """The model of a protobuf, which is not changed. Errors as those of `onnx_ir.from_proto`."""
    training = [b64encode(info.SerializeToString(deterministic=True)).decode() for info in proto.training_info]
    if training or any(_needs_disguise(message) for message in _messages(proto)):
        changed = onnx.ModelProto()
        changed.CopyFrom(proto)
        changed.ClearField("training_info")
        for message in _messages(changed):
            _hide(message)
        proto = changed
    model = ir.from_proto(proto)
    if training:
        model.meta[TRAINING_META] = training
    return model


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The protobuf of a model that the exporter made."""
    proto = ir.to_proto(model)
    for message in _messages(proto):
        _show(message)
    for text in model.meta.get(TRAINING_META, ()):
        proto.training_info.add().ParseFromString(b64decode(text))
    return proto


def _messages(proto: onnx.ModelProto) -> Iterator[Message]:
    """The graphs, attributes and types of a model."""
    pending: list[Message] = [proto.graph, *proto.functions]
    while pending:
        message = pending.pop()
        if isinstance(message, onnx.GraphProto):
            yield message
            yield from (value.type for value in (*message.input, *message.output))
        values = message.value_info if isinstance(message, onnx.GraphProto | onnx.FunctionProto) else ()
        yield from (value.type for value in values)
        nodes = message.node if isinstance(message, onnx.GraphProto | onnx.FunctionProto) else ()
        for attribute in (attribute for node in nodes for attribute in node.attribute):
            yield attribute
            if attribute.type == onnx.AttributeProto.GRAPH:
                pending.append(attribute.g)
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                pending.extend(attribute.graphs)
            elif attribute.type == onnx.AttributeProto.TYPE_PROTO:
                yield attribute.tp
            elif attribute.type == onnx.AttributeProto.TYPE_PROTOS:
                yield from attribute.type_protos


_SPARSE = (onnx.AttributeProto.SPARSE_TENSOR, onnx.AttributeProto.SPARSE_TENSORS)


def _needs_disguise(message: Message) -> bool:
    if isinstance(message, onnx.GraphProto):
        return bool(message.sparse_initializer)
    if isinstance(message, onnx.AttributeProto):
        return message.type in _SPARSE and not message.ref_attr_name
    return isinstance(message, onnx.TypeProto) and next(_maps(message), None) is not None


def _maps(type_: onnx.TypeProto) -> Iterator[onnx.TypeProto]:
    """The innermost type, if it is a map."""
    while (field := type_.WhichOneof("value")) in ("sequence_type", "optional_type"):
        type_ = getattr(type_, field).elem_type
    if field == "map_type":
        yield type_


def _hide(message: Message) -> None:
    if isinstance(message, onnx.GraphProto):
        for sparse in message.sparse_initializer:
            text = disguise(sparse).encode()
            message.initializer.add(name=sparse.values.name, data_type=onnx.TensorProto.STRING, string_data=[text])
        message.ClearField("sparse_initializer")
    elif isinstance(message, onnx.AttributeProto):
        _hide_attribute(message)
    elif isinstance(message, onnx.TypeProto):
        for type_ in _maps(message):
            text = disguise(type_)
            type_.tensor_type.elem_type = onnx.TensorProto.STRING
            type_.denotation = text


def _hide_attribute(attribute: onnx.AttributeProto) -> None:
    if attribute.ref_attr_name or attribute.type not in _SPARSE:
        return
    if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
        attribute.s, attribute.type = disguise(attribute.sparse_tensor).encode(), onnx.AttributeProto.STRING
        attribute.ClearField("sparse_tensor")
        return
    attribute.strings.extend(disguise(sparse).encode() for sparse in attribute.sparse_tensors)
    attribute.type = onnx.AttributeProto.STRINGS
    attribute.ClearField("sparse_tensors")


def _show(message: Message) -> None:
    if isinstance(message, onnx.GraphProto):
        _show_initializers(message)
    elif isinstance(message, onnx.AttributeProto):
        _show_attribute(message)
    elif isinstance(message, onnx.TypeProto):
        _show_type(message)


def _show_initializers(graph: onnx.GraphProto) -> None:
    hidden = [tensor for tensor in graph.initializer if _sparse_text(tensor)]
    names = {tensor.name for tensor in hidden}
    for tensor in hidden:
        sparse = graph.sparse_initializer.add()
        sparse.CopyFrom(sparse_of(_sparse_text(tensor)))
        sparse.values.name = tensor.name
    for items in (graph.initializer, graph.value_info):
        for index in reversed(range(len(items))):
            if items[index].name in names:
                del items[index]


def _sparse_text(tensor: onnx.TensorProto) -> str:
    text = tensor.string_data[0] if len(tensor.string_data) == 1 and not tensor.dims else b""
    return text.decode() if text.startswith(_MARK.encode()) else ""


def _show_attribute(attribute: onnx.AttributeProto) -> None:
    mark = _MARK.encode()
    if attribute.type == onnx.AttributeProto.STRING and attribute.s.startswith(mark):
        attribute.sparse_tensor.CopyFrom(sparse_of(attribute.s.decode()))
        attribute.type = onnx.AttributeProto.SPARSE_TENSOR
        attribute.ClearField("s")
    elif attribute.type == onnx.AttributeProto.STRINGS and attribute.strings and attribute.strings[0].startswith(mark):
        attribute.sparse_tensors.extend(sparse_of(text.decode()) for text in attribute.strings)
        attribute.type = onnx.AttributeProto.SPARSE_TENSORS
        attribute.ClearField("strings")


def _show_type(type_: onnx.TypeProto) -> None:
    while (field := type_.WhichOneof("value")) in ("sequence_type", "optional_type"):
        type_ = getattr(type_, field).elem_type
    if is_disguised(type_.denotation):
        type_.CopyFrom(type_of(type_.denotation))
