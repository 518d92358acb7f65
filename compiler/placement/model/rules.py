"""What a user asks of a placement, as rules of the problem: pins, placement files, shares, and refusals after builds.

A pin `REGEX=DEVICE` concerns every op whose node name the expression is found in, or whose operator it matches as a
whole: `Conv` pins all convolutions and whatever has `Conv` in its name, `^Conv$` only the operator or a node of exactly
that name. `DEVICE:FORMAT`, `DEVICE:TARGET` and `DEVICE:TARGET:FORMAT` say more. Of two pins on one op the later wins. A
placement file's assignments come before the pins of the command line, its rules before its assignments.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from gimlet.compiler.placement.model.problem import Node, Placement, Problem
from gimlet.runtime.errors import InputError, UsageError

SCHEMA = 1
_PLACE_KEYS = ("device", "target", "format")


@dataclass(frozen=True)
class PlacementFile:
    """A placement as it is saved: rules by regular expression, and for node names the place and the segment.

    A place is named as a pin names it.
    """

    rules: tuple[tuple[str, str], ...] = ()
    assign: Mapping[str, tuple[str, int | None]] = field(default_factory=dict[str, tuple[str, int | None]])


def pinned(problem: Problem, pins: Iterable[tuple[str, str]], where: str = "--pin") -> dict[int, frozenset[int]]:
    """For each pinned node the places it may be on.

    UsageError for an expression that does not parse or matches nothing, and for a device that does not exist.
    """
    found: dict[int, frozenset[int]] = {}
    for expression, device in pins:
        places = places_named(problem, device, where)
        found.update(dict.fromkeys(matching_nodes(problem, expression, where), places))
    return found


def matching_nodes(problem: Problem, expression: str, where: str) -> list[int]:
    """The nodes whose name has the expression in it, or whose operator is all of it. UsageError where there is none."""
    pattern = read_expression(expression, where)
    matched = [
        index
        for index, node in enumerate(problem.nodes)
        if pattern.search(node.name) or pattern.fullmatch(node.op_type)
    ]
    if not matched:
        raise UsageError(f"{expression!r} matches no op", where=where, hint=_close(problem, expression))
    return matched


def read_expression(expression: str, where: str) -> re.Pattern[str]:
    """The regular expression. UsageError where it does not parse."""
    try:
        return re.compile(expression)
    except re.error as error:
        raise UsageError(f"the expression {expression!r} does not parse: {error}", where=where) from error


def places_named(problem: Problem, name: str, where: str) -> frozenset[int]:
    """The places that `DEVICE` names, or `DEVICE:FORMAT`, `DEVICE:TARGET`, `DEVICE:TARGET:FORMAT`."""
    device, _, rest = name.partition(":")
    names = [spec.name for spec in problem.devices]
    if device not in names:
        close = difflib.get_close_matches(device, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the devices are: {', '.join(names)}"
        raise UsageError(f"there is no device {device!r}", where=where, hint=hint)
    chosen = matching_places(problem, name)
    if not chosen:
        here = [f"{place.target}:{place.format}" for place in problem.places if names[place.device] == device]
        hint = f"it is as: {', '.join(sorted(here)) or 'nothing'}"
        raise UsageError(f"{device} is not offered as {rest!r}", where=where, hint=hint)
    return chosen


def matching_places(problem: Problem, name: str) -> frozenset[int]:
    """The places whose device, target or format are all that `name` asks for; none where it asks for another."""
    device, *rest = name.split(":")
    return frozenset(
        number
        for number, place in enumerate(problem.places)
        if problem.devices[place.device].name == device and set(rest) <= {place.target, place.format}
    )


def _close(problem: Problem, expression: str) -> str:
    if not problem.nodes:
        return "the model has no ops: all of it is known before it runs"
    names = sorted({node.name for node in problem.nodes} | {node.op_type for node in problem.nodes})
    close = difflib.get_close_matches(expression, names, n=3, cutoff=0.4)
    if close:
        return f"close to it are: {', '.join(close)}"
    return f"the operators are: {', '.join(sorted({node.op_type for node in problem.nodes}))}"


def refused(problem: Problem, refusals: Mapping[tuple[str, str], str], by_key: Mapping[str, Sequence[int]]) -> Problem:
    """The problem without what builds have shown not to work: reasons by (op, place); `by_key` has the op's nodes.

    A place is named as a pin names it.
    """
    nodes = list(problem.nodes)
    for (name, place_name), reason in refusals.items():
        places = matching_places(problem, place_name)
        for index in by_key.get(name, ()):
            node = nodes[index]
            options = {place: option for place, option in node.options.items() if place not in places}
            nodes[index] = replace(
                node, options=options, refusals={**node.refusals, **dict.fromkeys(sorted(places), reason)}
            )
    return with_nodes(problem, nodes)


def only_where_named(
    problem: Problem, pins: Mapping[int, frozenset[int]], named: frozenset[int]
) -> tuple[Problem, dict[int, frozenset[int]]]:
    """The problem and its pins with the places in `named` only for nodes that a pin puts there by their format."""
    kept = {node: places - named or places for node, places in pins.items()}
    reason = "this format is named for other ops only; --format or --loss-budget asks for it here"
    nodes: list[Node] = []
    for index, node in enumerate(problem.nodes):
        gone = named - kept.get(index, frozenset())
        options = {place: option for place, option in node.options.items() if place not in gone}
        left_out = {place: reason for place in sorted(gone) if place in node.options}
        nodes.append(replace(node, options=options, refusals={**node.refusals, **left_out}))
    return with_nodes(problem, nodes), kept


def with_nodes(problem: Problem, nodes: Sequence[Node]) -> Problem:
    """The problem with other options of its nodes, and no fusion where a node is not."""
    usable = [node.options.keys() for node in nodes]
    fusions = tuple(
        replace(
            fusion,
            seconds={p: s for p, s in fusion.seconds.items() if p in usable[fusion.consumer] & usable[fusion.producer]},
        )
        for fusion in problem.fusions
    )
    return replace(problem, nodes=tuple(nodes), fusions=fusions)


def shares(problem: Problem, asked: Iterable[tuple[str, float]], where: str = "--min-share") -> dict[int, float]:
    """Least shares of FLOPs by device. UsageError for a device that does not exist or a share outside 0 to 1."""
    names = [spec.name for spec in problem.devices]
    found: dict[int, float] = {}
    for device, share in asked:
        if device not in names:
            raise UsageError(f"there is no device {device!r}", where=where, hint=f"the devices are: {', '.join(names)}")
        if not 0 <= share <= 1:
            raise UsageError(f"the share of {device} is {share}", where=where, hint="a share is from 0 to 1")
        found[names.index(device)] = share
    return found


def save_placement(path: Path, problem: Problem, placement: Placement) -> None:
    """Writes a placement so that `load_placement` gives it back and a person can edit it."""
    assign = {
        node.name: {
            "device": problem.devices[problem.device_of[place]].name,
            "format": problem.places[place].format,
            "target": problem.places[place].target,
            "segment": segment,
        }
        for node, place, segment in zip(problem.nodes, placement.place, placement.segment, strict=True)
    }
    text = json.dumps({"schema": SCHEMA, "rules": [], "assign": assign}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def load_placement(path: Path) -> PlacementFile:
    """Reads a placement file. InputError, with the place in it, where it is not one."""
    where = str(path)
    data = read_json(path)
    if data.get("schema") != SCHEMA:
        raise InputError(f"the placement has schema {data.get('schema')!r}, not {SCHEMA}", where=where)
    _only(data, ("schema", "rules", "assign"), where)
    rules: list[tuple[str, str]] = []
    for number, item in enumerate(_list(data.get("rules", []), f"{where}: rules")):
        rule = _object(item, f"{where}: rules[{number}]")
        _only(rule, ("match", *_PLACE_KEYS), f"{where}: rules[{number}]")
        rules.append((_text(rule, "match", f"{where}: rules[{number}]"), _place_of(rule, f"{where}: rules[{number}]")))
    assign: dict[str, tuple[str, int | None]] = {}
    for name, item in _object(data.get("assign", {}), f"{where}: assign").items():
        entry = {"device": item} if isinstance(item, str) else _object(item, f"{where}: assign[{name}]")
        _only(entry, (*_PLACE_KEYS, "segment"), f"{where}: assign[{name}]")
        segment = entry.get("segment")
        if segment is not None and (not isinstance(segment, int) or isinstance(segment, bool) or segment < 0):
            raise InputError("the segment must be an integer from 0 on", where=f"{where}: assign[{name}]")
        assign[name] = _place_of(entry, f"{where}: assign[{name}]"), segment
    return PlacementFile(tuple(rules), assign)


def _place_of(entry: Mapping[str, Any], where: str) -> str:
    """The place of an entry: its device, with the target and the format that it may have."""
    parts = [_text(entry, key, where) for key in _PLACE_KEYS if key == "device" or key in entry]
    return ":".join(parts)


def _only(entry: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Refuses a key that is none of `known`: what a person misspelled would otherwise be as if it were not there."""
    for key in entry:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the keys are: {', '.join(known)}"
            raise InputError(f"{key!r} is not a key that this may have", where=where, hint=hint)


def file_pins(problem: Problem, file: PlacementFile, where: str) -> dict[int, frozenset[int]]:
    """The pins of a placement file. UsageError for a name that the model does not have."""
    found = pinned(problem, file.rules, where)
    index = {node.name: number for number, node in enumerate(problem.nodes)}
    for name, (place, _) in file.assign.items():
        if name not in index:
            close = difflib.get_close_matches(name, index, n=3)
            hint = f"close to it are: {', '.join(close)}" if close else "the file may be of another model"
            raise UsageError(f"the model has no op {name!r}", where=where, hint=hint)
        found[index[name]] = places_named(problem, place, where)
    return found


def complete_placement(problem: Problem, file: PlacementFile) -> Placement | str:
    """The placement that a file gives in full, with segments; else why its segments are not kept."""
    places: list[int] = []
    segments: list[int] = []
    for number, node in enumerate(problem.nodes):
        _, segment = file.assign.get(node.name, ("", None))
        if segment is None:
            return f"it has none for {node.name}"
        if len(problem.allowed[number]) != 1:
            names = ", ".join(problem.place_name(place) for place in problem.allowed[number])
            return f"{node.name} may be on several places: {names}"
        places.append(problem.allowed[number][0])
        segments.append(segment)
    return _contradiction(problem, places, segments) or Placement(tuple(places), tuple(segments))


def _contradiction(problem: Problem, places: Sequence[int], segments: Sequence[int]) -> str | None:
    """Why segments cannot run: one has several places, or their numbers are not in an order in which they can."""
    first: dict[int, int] = {}
    for number, (place, segment) in enumerate(zip(places, segments, strict=True)):
        other = first.setdefault(segment, number)
        if places[other] != place:
            ends = (f"{problem.nodes[n].name} on {problem.place_name(places[n])}" for n in (other, number))
            return f"segment {segment} has {' and '.join(ends)}"
    for number, sources in enumerate(problem.predecessors):
        for source in sources:
            if segments[source] > segments[number]:
                late, early = problem.nodes[source].name, problem.nodes[number].name
                return f"{early} of segment {segments[number]} needs {late} of segment {segments[source]}, a later one"
    return None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. UsageError where there is no file, InputError where it holds something else."""
    if not path.is_file():
        raise UsageError(f"{path} is a folder, not a file" if path.is_dir() else f"there is no file {path}")
    try:
        data: object = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise InputError("is not text in UTF-8, so no JSON", where=str(path)) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from error
    except json.JSONDecodeError as error:
        raise InputError(f"is not JSON: {error}", where=str(path)) from error
    except (RecursionError, ValueError) as error:
        raise InputError(f"is no JSON that can be read: {error}", where=str(path)) from error
    return _object(data, str(path))


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError("must be an object", where=where)
    return cast("dict[str, Any]", value)


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError("must be a list", where=where)
    return cast("list[Any]", value)


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise InputError(f"needs {key!r}, a text", where=where)
    return value
