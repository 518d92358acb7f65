"""Groups of ops that one op leads into and one leads out of, so that a model has fewer things to place.

A group begins with its *head*: what comes from another group comes to the head. It ends with its *exit*: what goes to
another group goes from there. So where ops are launched in some order, the head's turn is a turn for the group: nothing
that the group waits for is later, and nothing that waits for the group is earlier. Model inputs may be read by any op.

A group grows by what lies between its exit and the next op that everything from there leads through, as long as what
comes after the head takes little: a group of which a part is elsewhere is counted as its head alone, and that is what
such a count may lose.
"""

from __future__ import annotations

from collections.abc import Sequence

from gimlet.compiler.placement.model.problem import Problem

_LONGEST = 40
"""So many ops may be between an exit and the next one."""


def entrance_groups(problem: Problem, most_s: float) -> list[tuple[int, ...]]:
    """Every op in one group, its head first, in a topological order of their heads.

    All of a group may be on the same places. What it takes besides its head, less what fusion saves, is at most
    `most_s` on any device but the host.
    """
    through = _next_through(problem)
    added = _added_seconds(problem)
    owner = [-1] * len(problem.nodes)
    groups: list[tuple[int, ...]] = []
    for head in range(len(problem.nodes)):
        if owner[head] >= 0:
            continue
        members, last, left = [head], head, most_s
        while (end := through[last]) is not None:
            between = _between(problem, last, end)
            inside = {*members, *between}
            cost = sum(added[node] for node in between)
            closed = all(source in inside for node in between for source in problem.predecessors[node])
            alike = all(problem.allowed[node] == problem.allowed[head] for node in between)
            if not between or cost > left or not closed or not alike:
                break
            members += between
            left -= cost
            last = end
        for node in members:
            owner[node] = len(groups)
        groups.append(tuple(members))
    return groups


def _added_seconds(problem: Problem) -> list[float]:
    """What each op adds at most on a device other than the host, if fusion saves there all that it can."""
    return [
        max(
            (
                float(problem.fused_seconds[node, place])
                for place in allowed
                if problem.device_of[place] != problem.host
            ),
            default=0.0,
        )
        for node, allowed in enumerate(problem.allowed)
    ]


def _next_through(problem: Problem) -> list[int | None]:
    """For each op the next one that everything it leads to goes through, or None."""
    count = len(problem.nodes)
    outputs = {value.producer for value in problem.values if value.is_output}
    following: list[int | None] = [None] * count
    depth = [0] * count
    for node in reversed(range(count)):
        if node in outputs or not problem.successors[node]:
            continue
        met: int | None = problem.successors[node][0]
        for other in problem.successors[node][1:]:
            met = _meeting(following, depth, met, other)
        following[node] = met
        depth[node] = 0 if met is None else depth[met] + 1
    return following


def _meeting(following: Sequence[int | None], depth: Sequence[int], left: int | None, right: int | None) -> int | None:
    while left is not None and right is not None and left != right:
        if depth[left] >= depth[right]:
            left = following[left]
        else:
            right = following[right]
    return left if left == right else None


def _between(problem: Problem, start: int, end: int) -> list[int]:
    """What `start` leads to up to `end`, in topological order; nothing where that is much."""
    found: set[int] = set()
    stack = [start]
    while stack and len(found) <= _LONGEST:
        for node in problem.successors[stack.pop()]:
            if node not in found:
                found.add(node)
                if node != end:
                    stack.append(node)
    return sorted(found) if len(found) <= _LONGEST else []
