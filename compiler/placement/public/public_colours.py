"""Latency where nodes of one colour have others between them.

CPUs run nodes one by one, so a colour class there may wait for a subgraph in its middle; a subgraph on an accelerator
may not, so there the class needs all between its nodes as well. The solvers of latency keep such a class together with
what lies between everywhere. So a problem with such classes is three:

- as it is, with each class and what is between as one unit;
- with the nodes of these classes on CPUs, each by itself;
- without these colours. Every split is one of this, so its bound holds for all.

The best split is that of the first two, or of the third if it keeps the colours. Where some of several classes belong
on accelerators and others on CPUs it may be missed; that is in the gap.
"""

from __future__ import annotations

from dataclasses import replace

from gimlet.compiler.placement.public.public_format import PublicProblem, PublicSplit
from gimlet.compiler.placement.public.public_start import units_of


def divided_colours(problem: PublicProblem) -> frozenset[int]:
    """Colours of nodes that have nodes of other units between them."""
    units = units_of(problem, contiguous=True)
    found: set[int] = set()
    for members in units.members:
        colours = {problem.nodes[node].colour for node in members}
        if len(colours) > 1:
            found.update(colour for colour in colours if colour is not None)
    return frozenset(found)


def without_colours(problem: PublicProblem, colours: frozenset[int], *, on_cpu: bool) -> PublicProblem:
    """The problem in which nodes of these colours are each by itself, and `on_cpu` only on CPUs."""
    nodes = tuple(
        replace(node, colour=None, on_accelerator=node.on_accelerator and not on_cpu)
        if node.colour in colours
        else node
        for node in problem.nodes
    )
    return replace(problem, nodes=nodes)


def keeps_colours(problem: PublicProblem, split: PublicSplit) -> bool:
    """Whether nodes of a colour share a device (CPUs are one) and a subgraph."""
    place_of: dict[int, tuple[int, int]] = {}
    for node, device, subgraph in zip(problem.nodes, split.device, split.subgraph, strict=True):
        place = (problem.accelerators, 0) if device >= problem.accelerators else (device, subgraph)
        if node.colour is not None and place_of.setdefault(node.colour, place) != place:
            return False
    return True
