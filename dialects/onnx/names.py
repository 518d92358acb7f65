"""Names of ONNX nodes and values in the IR.

A value's ONNX name is its `name_hint`: xDSL carries hints over when a value is replaced, prints them and reads them
back, and compares nothing by them. Characters that an SSA name cannot hold are escaped, so `/conv1/Conv_output_0` is
`%$.conv1$.Conv_output_0$`. A node's name is the operation's location, `loc("/conv1/Conv")`, so that two equal nodes of
different names are still equal to CSE.
"""

from __future__ import annotations

import re

from xdsl.dialects.builtin import DictionaryAttr, NameLoc, NoneAttr, StringAttr, UnknownLoc
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, BlockArgument, Operation, OpResult, SSAValue
from xdsl.traits import IsolatedFromAbove

from gimlet.dialects.onnx.attributes import decode_text, encode_text, text_of

NAME_ATTR = "onnx.name"
_PLAIN = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]|^[0-9]")
_ESCAPE = re.compile(r"\$(?:(\.)|([0-9A-F]+)\$|$)")
_SUFFIX = re.compile(r"_\d+$")


def encode_name(name: str) -> str:
    """The SSA name that `decode_name` turns back into `name`, which must not be empty.

    `/` becomes `$.` and any other character that is not allowed `$HEX$`. xDSL tells equal names apart by `_1`, and so
    takes such endings off: a name that has one gets a final `$`.
    """
    text = name if _PLAIN.fullmatch(name) else _UNSAFE.sub(_escape, name)
    return text + "$" if _SUFFIX.search(text) else text


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    return "$." if character == "/" else f"${ord(character):X}$"


def decode_name(text: str) -> str:
    """The ONNX name that an SSA name stands for."""
    return _ESCAPE.sub(_unescape, text) if "$" in text else text


def _unescape(match: re.Match[str]) -> str:
    if match.group(1):
        return "/"
    return chr(int(match.group(2), 16)) if match.group(2) else ""


def set_value_name(value: SSAValue, name: str) -> None:
    """Names a value; an empty `name` takes its name away."""
    value.name_hint = encode_name(name) if name else None


def value_name(value: SSAValue) -> str:
    """The ONNX name of a value, unique in its function once `assign_names` has run over it.

    A value that has none yet is given one, as are all others in its module.
    """
    if value.name_hint is None:
        assign_names(_root(value))
    return proposed_name(value)


def _root(value: SSAValue) -> Operation:
    owner = value.owner
    operation = owner if isinstance(owner, Operation) else owner.parent_op()
    if operation is None:
        raise ValueError("a value of a block that no operation holds has no name")
    while (parent := operation.parent_op()) is not None:
        operation = parent
    return operation


def assign_names(root: Operation) -> None:
    """Gives every value under `root` a name that is unique in its function. Names that are unique already stay."""
    _assign_scope(root, {})


def _assign_scope(operation: Operation, taken: dict[str, int]) -> None:
    arg_names = _declared_arg_names(operation)
    for region in operation.regions:
        for block in region.blocks:
            for index, argument in enumerate(block.args):
                _assign(argument, arg_names[index] if index < len(arg_names) else f"arg_{index}", taken)
            arg_names = ()
            for child in block.ops:
                for index, result in enumerate(child.results):
                    _assign(result, _default_name(child, index), taken)
                if child.regions:
                    _assign_scope(child, {} if child.has_trait(IsolatedFromAbove) else taken)


def _declared_arg_names(operation: Operation) -> tuple[str, ...]:
    if not isinstance(operation, FuncOp) or operation.arg_attrs is None:
        return ()
    return tuple(declared_name(attributes) or f"arg_{i}" for i, attributes in enumerate(operation.arg_attrs))


def declared_name(attributes: DictionaryAttr) -> str:
    """The `onnx.name` among a function's argument or result attributes, or ""."""
    return text_of(attributes.data.get(NAME_ATTR))


def _default_name(operation: Operation, index: int) -> str:
    base = node_name(operation) or operation.name.rpartition(".")[2]
    return f"{base}_output_{index}"


def proposed_name(value: SSAValue) -> str:
    """The name of a value, or what it would be given: another value may have the same."""
    if value.name_hint:
        return decode_name(value.name_hint)
    if isinstance(value, OpResult):
        return _default_name(value.op, value.index)
    return f"arg_{value.index}" if isinstance(value, BlockArgument) else "value"


def _assign(value: SSAValue, default: str, taken: dict[str, int]) -> None:
    """`taken` holds the names in use, each with the last ending tried, so that equal names are told apart at once."""
    name = base = decode_name(value.name_hint) if value.name_hint else default
    while name in taken:
        taken[base] += 1
        name = f"{base}_{taken[base]}"
    taken[name] = 0
    value.name_hint = encode_name(name)


def node_name(operation: Operation) -> str:
    """The name of the ONNX node that an operation stands for, or ""."""
    location = operation.location
    return decode_text(location.desc.data) if isinstance(location, NameLoc) else ""


def named_location(name: str, inner: Attribute | None = None) -> NameLoc | UnknownLoc:
    """The location that says which node, and optionally where in the source, an operation comes from."""
    if not name and inner is None:
        return UnknownLoc()
    return NameLoc(StringAttr(encode_text(name)), inner or NoneAttr())
