"""Settles what only running can settle: which of a device's targets, how cut, and in which settings.

It acts on devices whose costs are measured and whose targets give a choice. Placement is asked once freely, and once
for each target of the device with every op that it takes; these candidates are run (`gimlet.compiler.costs.trial`), and
the winner's placement is written on the ops, with the settings of each segment where they are not the default.

A time limit is for all placements together: the free one has half of it, the others share the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, ModuleOp, SymbolRefAttr, i64
from xdsl.ir import Attribute, Operation

from gimlet.compiler.costs.timer import SegmentTimer
from gimlet.compiler.costs.trial import Candidate, Outcome, Part, Trial
from gimlet.compiler.placement.model.problem import Problem
from gimlet.compiler.placement.reading.graph import op_key
from gimlet.compiler.placement.service import PlacementResult
from gimlet.dialects.placement import DEVICE, FORMAT, SEGMENT_HINT, SETTINGS, TARGET
from gimlet.passes.entry import entry_function
from gimlet.runtime.errors import InfeasibleError, InputError
from gimlet.targets import registry
from gimlet.targets.api import Device

Refusals = Mapping[tuple[str, str], str]
Place = Callable[[Refusals, float], PlacementResult]
"""Places a module without what is refused, within a share of the time limit."""

_SLOWER = "another of the device's targets was quicker when the whole was tried"


@dataclass(frozen=True)
class _Choice:
    """A candidate, the placement that it is of, and what that wrote on the ops."""

    candidate: Candidate
    result: PlacementResult
    written: tuple[tuple[Operation, dict[str, Attribute]], ...]


def settle(
    module: ModuleOp, device: Device, timer: SegmentTimer, place: Place, refusals: Refusals, requests: int = 1
) -> PlacementResult:
    """Places `module` as the best candidate for `device`. `place` writes a placement on the ops, without `refusals`.

    `requests` are in flight while candidates are tried.

    Errors as placement, and MissingError where this machine lacks what the device needs.
    """
    choices = [_choice("as placed", module, device, place(refusals, 0.5))]
    problem = choices[0].result.problem
    targets = _targets(problem, device)
    for name in targets:
        others = _without_others(problem, module, device, name)
        if not others:
            continue
        try:
            result = place({**refusals, **others}, 0.5 / len(targets))
        except (InfeasibleError, InputError):
            continue
        choice = _choice(f"{name} where it can", module, device, result)
        if {part.target.name for part in choice.candidate.parts} == {name}:
            choice = replace(choice, candidate=replace(choice.candidate, name=f"{name} alone"))
        choices.append(choice)
    outcome = Trial(timer, requests=requests).choose([choice.candidate for choice in choices])
    winner = choices[outcome.winner]
    for op, attributes in winner.written:
        op.attributes = dict(attributes)
    _write_settings(winner.candidate.parts, outcome, requests)
    return replace(winner.result, notes=(*winner.result.notes, _note(device, choices, outcome, requests)))


def _choice(name: str, module: ModuleOp, device: Device, result: PlacementResult) -> _Choice:
    written = tuple((op, dict(op.attributes)) for op in entry_function(module).body.block.ops)
    return _Choice(Candidate(name, _parts(module, device)), result, written)


def has_a_choice(device: Device) -> bool:
    """Whether a device's targets give anything to choose from."""
    targets = [registry.load(name) for name in device.kind.targets]
    return len(targets) > 1 or any(len(target.settings(device)) > 1 for target in targets)


def _targets(problem: Problem, device: Device) -> list[str]:
    return list(
        dict.fromkeys(place.target for place in problem.places if problem.devices[place.device].name == device.name)
    )


def _without_others(problem: Problem, module: ModuleOp, device: Device, name: str) -> Refusals:
    """Refusals of the device's other targets for every op that the target called `name` takes there."""
    here = {n for n, place in enumerate(problem.places) if problem.devices[place.device].name == device.name}
    own = {number for number in here if problem.places[number].target == name}
    names = {node.name for node in problem.nodes if own & node.options.keys()}
    others = {problem.places[number].target for number in here - own}
    keys = {op_key(op) for op in entry_function(module).body.block.ops if op_key(op) in names}
    return {(key, f"{device.name}:{other}"): _SLOWER for key in sorted(keys) for other in sorted(others)}


def _parts(module: ModuleOp, device: Device) -> tuple[Part, ...]:
    """The segments that a placed module has on a device, in the order that they are launched in."""
    groups: dict[int, list[Operation]] = {}
    for op in entry_function(module).body.block.ops:
        hint = op.attributes.get(SEGMENT_HINT)
        place = op.attributes.get(DEVICE)
        if isinstance(hint, IntegerAttr) and isinstance(place, SymbolRefAttr) and place.string_value() == device.name:
            groups.setdefault(hint.value.data, []).append(op)
    return tuple(_part(ops, device) for _, ops in sorted(groups.items()))


def _part(ops: list[Operation], device: Device) -> Part:
    target, fmt = ops[0].attributes.get(TARGET), ops[0].attributes[FORMAT]
    name = device.kind.targets[0] if target is None else str(getattr(target, "data", ""))
    return Part(tuple(ops), registry.load(name), device, str(getattr(fmt, "data", "")))


def _write_settings(parts: tuple[Part, ...], outcome: Outcome, requests: int) -> None:
    for part, settings in zip(parts, outcome.settings, strict=True):
        if settings == part.target.settings(part.device, requests)[0]:
            continue
        attribute = DictionaryAttr({name: IntegerAttr(value, i64) for name, value in settings.items()})
        for op in part.ops:
            op.attributes[SETTINGS] = attribute


def _note(device: Device, choices: list[_Choice], outcome: Outcome, requests: int) -> str:
    figures = [
        f"{choice.candidate.name} {'cannot be built' if seconds is None else f'{seconds * 1e3:.3f} ms'}"
        for choice, seconds in zip(choices, outcome.seconds, strict=True)
    ]
    taken = choices[outcome.winner].candidate.name
    load = f" with {requests} requests in flight" if requests > 1 else ""
    return (
        f"{device.name}: tried by {outcome.runs} runs in turns{load}: {', '.join(figures)}; "
        f"taken: {taken}{_settings_text(outcome)}{_busy_text(outcome)}"
    )


def _busy_text(outcome: Outcome) -> str:
    """That other work may have decided, where it was found to be."""
    if not outcome.was_busy:
        return ""
    again = "" if outcome.is_final else "; the next compile tries again"
    share = f"{outcome.others or 0.0:.0%}"
    return f"; other work had {share} of the cores meanwhile, and the choice may not hold without it{again}"


def _settings_text(outcome: Outcome) -> str:
    """The settings of the parts, those of neighbours that are alike once."""
    texts = [", ".join(f"{name} {value}" for name, value in settings.items()) for settings in outcome.settings]
    found = "; ".join(text for text, _ in groupby(texts) if text)
    return f" ({found})" if found else ""
