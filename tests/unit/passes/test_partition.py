"""Segments of random graphs: no cycle, one colour each, nothing left to merge, and no schedule longer than promised."""

from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gimlet.passes import partition as partition_module
from gimlet.passes.partition import frontier_colours, partition

Graph = tuple[list[int], list[list[int]]]


@st.composite
def graphs(draw: st.DrawFn, most: int = 24) -> Graph:
    count = draw(st.integers(0, most))
    colours = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    predecessors = [
        sorted(draw(st.sets(st.integers(0, node - 1), max_size=3))) if node else [] for node in range(count)
    ]
    return colours, predecessors


def edges(segments: Sequence[int], predecessors: Sequence[Sequence[int]]) -> set[tuple[int, int]]:
    return {
        (segments[p], segments[node])
        for node, before in enumerate(predecessors)
        for p in before
        if segments[p] != segments[node]
    }


def has_cycle(segments: Sequence[int], predecessors: Sequence[Sequence[int]]) -> bool:
    remaining, left = edges(segments, predecessors), set(segments)
    while left:
        free = left - {target for _, target in remaining}
        if not free:
            return True
        left -= free
        remaining = {edge for edge in remaining if edge[0] not in free}
    return False


@given(graphs(), st.booleans())
def test_segments_have_one_colour_and_can_be_launched_in_order(graph: Graph, merge: bool):
    colours, predecessors = graph
    segments = partition(colours, predecessors, merge=merge)
    assert len(set(zip(segments, colours, strict=True))) == len(set(segments))
    assert all(source < target for source, target in edges(segments, predecessors))
    assert set(segments) == set(range(len(set(segments))))


@given(graphs())
def test_no_two_segments_are_left_that_could_be_one(graph: Graph):
    colours, predecessors = graph
    segments = partition(colours, predecessors)
    colour_of = dict(zip(segments, colours, strict=True))
    for first, second in combinations(sorted(colour_of), 2):
        if colour_of[first] == colour_of[second]:
            merged = [first if segment == second else segment for segment in segments]
            assert has_cycle(merged, predecessors)


@given(graphs())
def test_colours_that_can_be_followed_are(graph: Graph):
    colours, predecessors = graph
    legal = partition(colours, predecessors)
    assert partition(legal, predecessors) == legal


@given(graphs(most=12))
def test_with_the_schedule_kept_a_segment_makes_nothing_wait(graph: Graph):
    """All nodes of a segment need all its inputs anyway, and what uses its outputs needs all its nodes anyway."""
    colours, predecessors = graph
    nothing: list[list[int]] = [[] for _ in colours]
    frontier = frontier_colours(colours, predecessors, nothing, nothing)
    groups = partition(frontier, predecessors, merge=False)
    assert len(set(groups)) == len(set(frontier)), "a frontier colour was split"
    ancestors: list[set[int]] = []
    for before in predecessors:
        ancestors.append(set(before).union(*(ancestors[p] for p in before)))
    for node, group in enumerate(groups):
        others = [other for other, g in enumerate(groups) if g == group]
        crossing = {p for other in others for p in predecessors[other] if colours[p] != colours[node]}
        assert crossing <= ancestors[node], "a node waits for an input that it would not have waited for"
        leaving = [
            n for n, before in enumerate(predecessors) if colours[n] != colours[node] and set(before) & set(others)
        ]
        assert all(node in ancestors[n] for n in leaving), "something waits for a node that it does not need"


def test_arrivals_and_departures_from_outside_tell_nodes_apart():
    colours, predecessors = [0, 0, 0], [[], [], []]
    same = frontier_colours(colours, predecessors, [[0], [0], [0]], [[], [], []])
    assert len(set(same)) == 1
    assert len(set(frontier_colours(colours, predecessors, [[0], [0, 1], []], [[], [], []]))) == 3
    assert len(set(frontier_colours(colours, predecessors, [[], [], []], [[0], [1], [1]]))) == 2


def test_two_convex_segments_that_wait_for_each_other_are_split():
    a1, b1, b2, a2 = range(4)
    segments = partition([0, 1, 1, 0], [[], [a1], [], [b2]])
    assert len(set(segments)) == 3
    assert segments[b1] == segments[b2] or segments[a1] == segments[a2]


def test_a_neighbour_is_merged_before_a_stranger():
    """Colour 0 at both ends of a detour, and a third node that either could take."""
    detour = partition([0, 1, 0, 0], [[], [0], [1], [2]])
    assert detour == [0, 1, 2, 2]


def test_beyond_the_limit_the_phases_stand(monkeypatch: pytest.MonkeyPatch):
    graph = [0, 1, 0, 1], [[], [], [1], [2]]
    assert partition(*graph) == [1, 0, 1, 2]
    monkeypatch.setattr(partition_module, "MOST_SEGMENTS_MERGED", 3)
    assert partition(*graph) == [0, 1, 2, 3]
