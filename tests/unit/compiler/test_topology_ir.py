"""A topology in the IR says as much as the passes need: they choose the routes that the placement counted on."""

from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp

from gimlet.compiler.hardware import route
from gimlet.compiler.topology_ir import set_topology, topology_op
from gimlet.dialects.placement import topology_of
from gimlet.passes.insert_transfers import quickest_route
from gimlet.runtime.errors import UsageError
from gimlet.targets.api import Device, HardwareKind, Link, Topology

NAMES = ("cpu", "a", "b", "c")
KIND = HardwareKind("example/chip", (), {}, ())


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    pairs = [(first, second) for first in NAMES for second in NAMES if first < second]
    between = draw(st.lists(st.sampled_from(pairs), max_size=8))
    links = tuple(
        Link(f"l{n}", "wire", pair, draw(st.sampled_from([1e-6, 1e-5])), draw(st.sampled_from([1e9, 1e10, 1e11])))
        for n, pair in enumerate(between)
    )
    return Topology("rack", tuple(Device(name, KIND) for name in NAMES), links, "cpu")


@given(topologies(), st.sampled_from(NAMES), st.sampled_from(NAMES))
def test_passes_and_placement_choose_the_same_routes(topology: Topology, source: str, target: str):
    chosen = quickest_route(topology_op(topology), source, target)
    try:
        expected = [link.name for link in route(topology, source, target)]
    except UsageError:
        assert chosen is None
    else:
        assert chosen == expected


@given(topologies())
def test_a_topology_in_a_module_verifies_and_takes_the_place_of_another(topology: Topology):
    module = ModuleOp([])
    set_topology(module, topology)
    module.verify()
    set_topology(module, topology)
    found = topology_of(module)
    assert found is not None
    assert len(list(module.body.block.ops)) == 1
    assert found.host_name == topology.host
    assert list(found.devices) == list(NAMES)
    assert [op.speed for op in found.links.values()] == [(link.latency_s, link.bandwidth) for link in topology.links]
