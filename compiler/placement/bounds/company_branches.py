"""Cases of a problem whose ops share a device, or may not: in each it is given which devices these ops may be on.

A linear program may put half of each op on either of two devices, and so both halves of a group that must be together.
With the group's device given it cannot. Every placement is in one of the cases, so the least of their bounds is one on
the problem. Of devices that are alike only how many a side has makes a difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product

from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Problem

_MOST_CASES = 12


def company_cases(problem: Problem) -> list[Problem]:
    """At most 12 problems that have all placements of `problem` among them; itself alone where no rule divides it.

    The groups with most work are given a device first, then the pairs of sides that are apart.
    """
    cases = [problem]
    groups = sorted(problem.rules.together, key=lambda group: -_work(problem, group))
    steps = [(group, ()) for group in groups] + list(problem.rules.apart)
    for first, second in steps:
        following = [
            case for found in cases for case in (_apart(found, first, second) if second else _together(found, first))
        ]
        if len(following) <= _MOST_CASES:
            cases = following
    return cases


def _work(problem: Problem, nodes: Iterable[int]) -> float:
    return sum(float(problem.seconds[node].min()) for node in nodes)


def _together(problem: Problem, group: Sequence[int]) -> Iterator[Problem]:
    """The group on one device of each class."""
    for members in device_classes(problem):
        yield from _narrowed(problem, [(group, {members[0]})])


def _apart(problem: Problem, first: Sequence[int], second: Sequence[int]) -> Iterator[Problem]:
    """Each device for one of the sides."""
    classes = device_classes(problem)
    for counts in product(*(range(len(members) + 1) for members in classes)):
        ours = {device for members, count in zip(classes, counts, strict=True) for device in members[:count]}
        others = {device for members in classes for device in members} - ours
        yield from _narrowed(problem, [(first, ours), (second, others)])


def _narrowed(problem: Problem, only: Sequence[tuple[Sequence[int], set[int]]]) -> Iterator[Problem]:
    """The problem with nodes on these devices only; nothing where one of them can be on none."""
    pins = dict(problem.rules.pins)
    for nodes, devices in only:
        for node in nodes:
            pins[node] = frozenset(place for place in problem.allowed[node] if problem.device_of[place] in devices)
            if not pins[node]:
                return
    yield problem.with_rules(replace(problem.rules, pins=pins))
