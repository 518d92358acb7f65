"""Mutants of protobufs and of IR text. The same random numbers make the same mutant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_INTEGERS = (-1, 0, 1, 2, 3, 7, 16, 255, 2**16, 2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**63), -(2**31))
_STRINGS = (
    "",
    "x",
    "..",
    "../secret",
    "/etc/passwd",
    "a" * 300,
    "\x00",
    "ü",
    "?",
    "-1",
    "99999999999999999999",
    "batch*",
)
_FLOATS = (0.0, -0.0, 1e38, -1e38, float("inf"), float("nan"), 1e-45)
_MOST_CHANGES = 3
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|[%@#!]?[\w.$-]+|\s+|.', re.DOTALL)

_KINDS = tuple(
    re.compile(kind) for kind in (r"%[\w.$-]+", r"%[\w.$-]+", r"-?[0-9.]+", r"[\w.$-]*[a-z][\w.$-]*", r'".*"')
)


def protobuf_mutant(model: bytes, rng: Random) -> bytes:
    """A model changed in one to three places: half of them as bytes, half of them as a message."""
    if rng.random() < 0.5:
        for _ in range(rng.randint(1, _MOST_CHANGES)):
            model = rng.choice(_BYTE_CHANGES)(model, rng)
        return model
    proto = onnx.ModelProto.FromString(model)
    for _ in range(rng.randint(1, _MOST_CHANGES)):
        _change_message(proto, rng)
    return proto.SerializeToString()


def text_mutant(text: str, rng: Random) -> str:
    """IR with one to three tokens that are gone, doubled, swapped, or others of the same text.

    Half of the changes are a value, number or word in the place of another, which more often still parses.
    """
    tokens = _TOKEN.findall(text)
    for _ in range(rng.randint(1, _MOST_CHANGES)):
        here, there = rng.randrange(len(tokens)), rng.randrange(len(tokens))
        match rng.randrange(12):
            case 0:
                del tokens[here]
            case 1:
                tokens.insert(here, tokens[here])
            case 2:
                tokens[here], tokens[there] = tokens[there], tokens[here]
            case 3:
                tokens[here] = tokens[there]
            case 4:
                tokens[here] = rng.choice((str(rng.choice(_INTEGERS)), '"', "{", ")", "tensor<", "%", "!onnx.any", "🜁"))
            case 5:
                del tokens[here : here + rng.randint(1, 40)]
            case _:
                _exchange(tokens, rng)
        tokens = tokens or [""]
    return "".join(tokens)


def _exchange(tokens: list[str], rng: Random) -> None:
    """Puts another token of its kind in a token's place."""
    kind = rng.choice(_KINDS)
    places = [index for index, token in enumerate(tokens) if kind.fullmatch(token)]
    if places:
        here = rng.choice(places)
        absurd = tokens[here].isdigit() and rng.random() < 0.5
        tokens[here] = str(rng.choice(_INTEGERS)) if absurd else tokens[rng.choice(places)]


def _flip(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 4))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(data: bytes, rng: Random) -> bytes:
    start, size = _span(data, rng)
    return data[:start] + data[start + size :] or data[:1]


def _truncate(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(1, len(data) + 1)]


def _duplicate(data: bytes, rng: Random) -> bytes:
    start, size = _span(data, rng)
    return data[: start + size] + data[start:]


def _swap(data: bytes, rng: Random) -> bytes:
    (first, size), (second, _) = sorted((_span(data, rng), _span(data, rng)))
    size = min(size, second - first)
    return b"".join((
        data[:first], data[second : second + size], data[first + size : second], data[first : first + size],
        data[second + size :],
    ))  # fmt: skip


def _insert(data: bytes, rng: Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + rng.randbytes(rng.randint(1, 8)) + data[place:]


def _span(data: bytes, rng: Random) -> tuple[int, int]:
    return rng.randrange(len(data)), rng.choice((1, 2, 8, 64, 512))


_BYTE_CHANGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flip,
    _flip,
    _cut,
    _truncate,
    _duplicate,
    _swap,
    _insert,
)


def _change_message(proto: onnx.ModelProto, rng: Random) -> None:
    places = [(message, field) for message in _messages(proto) for field, _ in message.ListFields()]
    if not places:
        return
    message, field = rng.choice(places)
    if rng.random() < 0.15:
        message.ClearField(field.name)
    elif field.is_repeated:
        _change_list(message, field, proto, rng)
    elif field.message_type is not None:
        _replace(getattr(message, field.name), proto, rng)
    else:
        setattr(message, field.name, _value(field, getattr(message, field.name), proto, rng))


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for child in value if field.is_repeated else (value,):
            yield from _messages(child)


def _change_list(message: Message, field: FieldDescriptor, proto: onnx.ModelProto, rng: Random) -> None:
    items: Any = getattr(message, field.name)
    here, there = rng.randrange(len(items)), rng.randrange(len(items))
    match rng.randrange(4):
        case 0:
            del items[here]
        case 1 if field.message_type is not None:
            items.add().CopyFrom(items[here])
        case 1:
            items.append(items[here])
        case 2 if field.message_type is not None:
            _replace(items[here], proto, rng)
        case 2:
            items[here] = _value(field, items[here], proto, rng)
        case _ if field.message_type is not None:
            kept = type(items[here])()
            kept.CopyFrom(items[here])
            items[here].CopyFrom(items[there])
            items[there].CopyFrom(kept)
        case _:
            items[here], items[there] = items[there], items[here]


def _replace(message: Message, proto: onnx.ModelProto, rng: Random) -> None:
    """Puts a copy of another message of the same kind in a message's place."""
    others = [other for other in _messages(proto) if type(other) is type(message)]
    copy = type(message)()
    copy.CopyFrom(rng.choice(others))
    message.CopyFrom(copy)


def _value(field: FieldDescriptor, value: Any, proto: onnx.ModelProto, rng: Random) -> Any:
    if field.enum_type is not None:
        return rng.choice(field.enum_type.values).number
    if isinstance(value, bytes):
        return rng.choice((b"", value[: len(value) // 2], value + value, _flip(value or b"\0", rng), b"\xff\xfe"))
    if isinstance(value, str):
        return rng.choice((*_STRINGS, *_names(proto, rng)))
    if isinstance(value, float):
        return rng.choice(_FLOATS)
    small = field.cpp_type == FieldDescriptor.CPPTYPE_INT32
    fitting = [number for number in _INTEGERS if not small or -(2**31) <= number < 2**31]
    unsigned = field.cpp_type == FieldDescriptor.CPPTYPE_UINT64
    return rng.choice([abs(number) for number in fitting] if unsigned else [*fitting, rng.randint(-4, 40)])


def _names(proto: onnx.ModelProto, rng: Random) -> list[str]:
    """Some names of values and operators of the model: an edge that leads elsewhere is the likelier mistake."""
    nodes = list(proto.graph.node)
    if not nodes:
        return []
    chosen = [rng.choice(nodes) for _ in range(3)]
    return [name for node in chosen for name in (*node.input, *node.output, node.op_type)]
