"""How a PyTorch module is called, and what it returns: trees of containers around a program's tensors.

    {"tuple": [{"tensor": "x"}, {"dict": [{"key": "mask", "value": {"tensor": "mask"}}]}, {"constant": null}]}

A tree in a manifest is JSON of seven kinds: a tensor by the name of the program's input or output, one of complex
numbers by their type (`{"complex64": "z"}`), which the program has as pairs, a constant that the module was traced
with, a tuple, a list, a dict, and a record (a dataclass, or one of transformers' outputs), which is returned as a dict.
Nothing in it names a class, so reading it imports and runs nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from numpy.typing import NDArray

from gimlet.runtime.complex_numbers import COMPLEX, as_pairs, from_pairs
from gimlet.runtime.errors import InputError
from gimlet.runtime.jsonread import JsonObject
from gimlet.runtime.tensors import as_array

Scalar = bool | int | float | str | None
KINDS = ("tensor", *COMPLEX, "constant", "tuple", "list", "dict", "record")
DEEPEST = 64
"""Trees nested deeper than this are refused."""


@dataclass(frozen=True)
class TensorLeaf:
    """A tensor, by the name of the program's input or output.

    `numbers` is the element type of one of complex numbers, which the program has with a last dimension of two.
    """

    name: str
    numbers: str | None = None


@dataclass(frozen=True)
class Constant:
    """A value that the module was traced with, and that no other can take the place of."""

    value: Scalar


@dataclass(frozen=True)
class Series:
    """A tuple or a list."""

    kind: Literal["tuple", "list"]
    items: tuple[Tree, ...]


@dataclass(frozen=True)
class Table:
    """A dict, or a record: an object with fields, which is returned as a dict."""

    kind: Literal["dict", "record"]
    keys: tuple[str | int, ...]
    items: tuple[Tree, ...]


Tree = TensorLeaf | Constant | Series | Table


@dataclass(frozen=True)
class Signature:
    """A module's call. `parameters` are the names of its positional parameters, in the order of `args`.

    `changed` are the inputs that the module changes in place, each with the output that has the new values.
    """

    parameters: tuple[str, ...]
    args: tuple[Tree, ...]
    kwargs: Table
    result: Tree
    changed: tuple[tuple[str, str], ...] = ()

    def without(self, inputs: Collection[str], outputs: Collection[str]) -> Signature:
        """The signature where the program keeps some tensors itself: None stands for what has only such in it."""
        args, kwargs = (tuple(_without(tree, inputs) for tree in trees) for trees in (self.args, self.kwargs.items))
        table = Table(self.kwargs.kind, self.kwargs.keys, kwargs)
        changed = tuple((name, after) for name, after in self.changed if name not in inputs)
        return Signature(self.parameters, args, table, _without(self.result, outputs), changed)

    def feeds(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The program's inputs by name, from what the module would be called with.

        A positional parameter may be given by its name, and a constant be left out. InputError, with the path of the
        place, for an argument that is missing, unknown, of another structure, or not the constant that was traced.
        """
        found: dict[str, Any] = {}
        if len(args) > len(self.args):
            raise InputError(f"{len(args)} positional arguments, and the module was traced with {len(self.args)}")
        rest = dict(kwargs)
        for index, tree in enumerate(self.args):
            name = self.parameters[index]
            if index < len(args):
                _flatten(tree, args[index], name, found)
            elif name in rest:
                _flatten(tree, rest.pop(name), name, found)
            else:
                _require_constant(tree, name)
        for key, tree in zip(self.kwargs.keys, self.kwargs.items, strict=True):
            if key in rest:
                _flatten(tree, rest.pop(str(key)), str(key), found)
            else:
                _require_constant(tree, str(key))
        for name in rest:
            known = ", ".join([*self.parameters, *map(str, self.kwargs.keys)])
            raise InputError(f"the module was not traced with it, but with {known}", where=f"argument {name!r}")
        return found

    def returned(self, outputs: Mapping[str, Any]) -> Any:
        """The program's outputs in the structure that the module returns them in."""
        return _unflatten(self.result, outputs)

    def to_change(self, feeds: Mapping[str, Any]) -> list[tuple[NDArray[Any], str]]:
        """The caller's arrays that a run is to change, each with the output that has the new values.

        InputError for one that cannot be written to: no array, or one that is read-only.
        """
        return [(_writable(feeds[name], name), after) for name, after in self.changed]

    def has_only_keywords(self) -> bool:
        """Whether the module was traced without a positional argument."""
        return not self.args

    def inputs(self) -> Iterator[str]:
        """The names of the tensors that the module takes."""
        for tree in (*self.args, self.kwargs):
            yield from leaves(tree)

    def outputs(self) -> Iterator[str]:
        """The names of the tensors that the module returns, and then of those that it changes in place."""
        yield from leaves(self.result)
        yield from (after for _, after in self.changed)


def leaves(tree: Tree) -> Iterator[str]:
    """The names of a tree's tensors, in order."""
    if isinstance(tree, TensorLeaf):
        yield tree.name
    elif isinstance(tree, Series | Table):
        for item in tree.items:
            yield from leaves(item)


def _writable(given: Any, name: str) -> NDArray[Any]:
    """The memory of an array, or of a tensor of PyTorch on the host."""
    array = as_array(given) if hasattr(given, "__array__") else None
    if array is None or not array.flags.writeable:
        kind = "a read-only array" if array is not None else f"a {type(given).__name__}"
        message = f"is {kind}, and the module changes it in place"
        raise InputError(message, where=f"argument {name!r}", hint="give an array that can be written to")
    return array


def _without(tree: Tree, names: Collection[str]) -> Tree:
    found = list(leaves(tree))
    if found and all(name in names for name in found):
        return Constant(None)
    if isinstance(tree, Series):
        return Series(tree.kind, tuple(_without(item, names) for item in tree.items))
    if isinstance(tree, Table):
        return Table(tree.kind, tree.keys, tuple(_without(item, names) for item in tree.items))
    return tree


def _require_constant(tree: Tree, path: str) -> None:
    if next(leaves(tree), None) is not None:
        raise InputError("is missing", where=f"argument {path!r}")


def _flatten(tree: Tree, given: Any, path: str, found: dict[str, Any]) -> None:
    if isinstance(tree, TensorLeaf):
        if given is None:
            raise InputError("is None, and the module was traced with a tensor", where=f"argument {path!r}")
        found[tree.name] = given if tree.numbers is None else as_pairs(given, tree.numbers, path)
    elif isinstance(tree, Constant):
        _check_constant(tree.value, given, path)
    elif isinstance(tree, Series):
        _flatten_series(tree, given, path, found)
    else:
        _flatten_table(tree, given, path, found)


def _check_constant(wanted: Scalar, given: Any, path: str) -> None:
    if type(given) is type(wanted) and _kept(given) == _kept(wanted):
        return
    raise InputError(
        f"is {_shown(given)}, and the module was traced with {wanted!r}",
        where=f"argument {path!r}",
        hint="compile it again with the other value",
    )


def _kept(value: Scalar) -> Scalar:
    """A constant with the digits that a manifest keeps."""
    return float(f"{value:.9g}") if isinstance(value, float) else value


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, Scalar) else f"a {type(value).__name__}"


def _flatten_series(tree: Series, given: Any, path: str, found: dict[str, Any]) -> None:
    if not isinstance(given, list | tuple):
        raise InputError(f"is {_shown(given)}, not a {tree.kind}", where=f"argument {path!r}")
    items = cast(Sequence[Any], given)
    if len(items) != len(tree.items):
        message = f"has {len(items)} items, and the module was traced with {len(tree.items)}"
        raise InputError(message, where=f"argument {path!r}")
    for index, (item, value) in enumerate(zip(tree.items, items, strict=True)):
        _flatten(item, value, f"{path}[{index}]", found)


def _flatten_table(tree: Table, given: Any, path: str, found: dict[str, Any]) -> None:
    values = _fields(given, tree.kind)
    if values is None:
        raise InputError(f"is {_shown(given)}, not a {tree.kind}", where=f"argument {path!r}")
    unknown = [key for key in values if key not in tree.keys and values[key] is not None]
    if unknown:
        message = f"has {unknown[0]!r}, and the module was traced with {', '.join(map(repr, tree.keys))}"
        raise InputError(message, where=f"argument {path!r}")
    for key, item in zip(tree.keys, tree.items, strict=True):
        if key in values:
            _flatten(item, values[key], f"{path}.{key}", found)
        else:
            _require_constant(item, f"{path}.{key}")


def _fields(given: Any, kind: str) -> Mapping[Any, Any] | None:
    if isinstance(given, Mapping):
        return cast(Mapping[Any, Any], given)
    return getattr(given, "__dict__", None) if kind == "record" else None


def _unflatten(tree: Tree, outputs: Mapping[str, Any]) -> Any:
    if isinstance(tree, TensorLeaf):
        return outputs[tree.name] if tree.numbers is None else from_pairs(outputs[tree.name], tree.numbers)
    if isinstance(tree, Constant):
        return tree.value
    if isinstance(tree, Table):
        return {key: _unflatten(item, outputs) for key, item in zip(tree.keys, tree.items, strict=True)}
    items = [_unflatten(item, outputs) for item in tree.items]
    return items if tree.kind == "list" else tuple(items)


def tree_to_json(tree: Tree) -> dict[str, Any]:
    """A tree as a manifest has it."""
    if isinstance(tree, TensorLeaf):
        return {tree.numbers or "tensor": tree.name}
    if isinstance(tree, Constant):
        return {"constant": tree.value}
    items = [tree_to_json(item) for item in tree.items]
    if isinstance(tree, Series):
        return {tree.kind: items}
    return {tree.kind: [{"key": key, "value": item} for key, item in zip(tree.keys, items, strict=True)]}


def tree_from_json(item: JsonObject, depth: int = 0) -> Tree:
    """The tree that a manifest has. InputError, with the path of the place, where it is none."""
    kinds = list(item.names())
    if len(kinds) != 1:
        raise item.error("", f"a tree has one of {', '.join(KINDS)}, not {len(kinds)} keys")
    (kind,) = kinds
    if depth > DEEPEST:
        raise item.error(kind, f"is nested deeper than {DEEPEST}")
    if kind == "tensor":
        return TensorLeaf(item.text("tensor"))
    if kind in COMPLEX:
        return TensorLeaf(item.text(kind), kind)
    if kind == "constant":
        return Constant(item.scalar("constant"))
    if kind == "tuple" or kind == "list":
        return Series(kind, tuple(tree_from_json(each, depth + 1) for each in item.objects(kind)))
    if kind == "dict" or kind == "record":
        return _table_from_json(item, kind, depth)
    raise item.error(kind, "is no kind of tree")


def _table_from_json(item: JsonObject, kind: Literal["dict", "record"], depth: int) -> Table:
    keys: list[str | int] = []
    items: list[Tree] = []
    for entry in item.objects(kind):
        key = entry.scalar("key")
        if not isinstance(key, str | int) or isinstance(key, bool) or key in keys:
            raise entry.error("key", f"expected a string or an integer that is not taken, found {key!r}")
        keys.append(key)
        items.append(tree_from_json(entry.object("value"), depth + 1))
        entry.done()
    return Table(kind, tuple(keys), tuple(items))


def signature_to_json(signature: Signature) -> dict[str, Any]:
    """A signature as a manifest has it."""
    return {
        "parameters": list(signature.parameters),
        "args": [tree_to_json(tree) for tree in signature.args],
        "kwargs": tree_to_json(signature.kwargs),
        "result": tree_to_json(signature.result),
        **(
            {"changed": [{"input": name, "output": after} for name, after in signature.changed]}
            if signature.changed
            else {}
        ),
    }


def _changed(item: JsonObject) -> tuple[str, str]:
    pair = item.text("input"), item.text("output")
    item.done()
    return pair


def signature_from_json(item: JsonObject) -> Signature:
    """The signature that a manifest has. InputError, with the path of the place, where it is none."""
    kwargs = tree_from_json(item.object("kwargs"))
    if not isinstance(kwargs, Table):
        raise item.error("kwargs", "expected a dict")
    signature = Signature(
        parameters=item.texts("parameters"),
        args=tuple(tree_from_json(each) for each in item.objects("args")),
        kwargs=kwargs,
        result=tree_from_json(item.object("result")),
        changed=tuple(_changed(each) for each in (item.objects("changed") if "changed" in item.names() else ())),
    )
    if len(signature.parameters) != len(signature.args):
        raise item.error("parameters", f"{len(signature.parameters)} names for {len(signature.args)} arguments")
    item.done()
    return signature
