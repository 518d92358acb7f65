"""Topologies: devices, links and the host, and the routes between devices."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gimlet.compiler import hardware
from gimlet.compiler.hardware import default_topology, load_kind, load_topology, route, transfer_seconds
from gimlet.runtime.errors import InputError, UsageError
from gimlet.targets.api import Device, Link, Topology

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "topologies"
CPU = '[[device]]\nname = "cpu"\nkind = "host"\n'
GPU = '[[device]]\nname = "gpu0"\nkind = "nvidia/l4"\n'
PCIE = '[[link]]\nbetween = ["cpu", "gpu0"]\nkind = "pcie4x16"\n'


def loaded(folder: Path, text: str) -> Topology:
    path = folder / "my.toml"
    path.write_text(text)
    return load_topology(path)


@pytest.mark.parametrize(
    ("name", "devices"),
    [
        ("cpu", {"cpu": "host"}),
        ("cpu-gpu", {"cpu": "host", "gpu0": "nvidia/rtx-pro-6000"}),
        ("rack", {"cpu": "host", "gpu0": "nvidia/rtx-pro-6000", "sram0": "d-matrix/corsair"}),
    ],
)
def test_the_examples(name: str, devices: dict[str, str]):
    topology = load_topology(EXAMPLES / f"{name}.toml")
    assert topology.name == name
    assert topology.host == "cpu"
    assert {device.name: device.kind.name for device in topology.devices} == devices
    for device in topology.devices:
        assert route(topology, "cpu", device.name) is not None


def test_without_a_topology_there_is_this_machine():
    topology = default_topology()
    assert [device.name for device in topology.devices] == ["cpu"]
    assert (topology.host, topology.links) == ("cpu", ())


def test_links_get_a_name_of_their_own(tmp_path: Path):
    topology = loaded(tmp_path, CPU + GPU + PCIE + PCIE)
    assert [link.name for link in topology.links] == ["cpu_gpu0", "cpu_gpu0_2"]
    assert topology.links[0].between == ("cpu", "gpu0")
    assert topology.links[0].bandwidth == 26.3e9


def test_a_kind_file_beside_the_topology(tmp_path: Path):
    source = Path(hardware.__file__).parent / "nvidia" / "l4.toml"
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "mine.toml").write_text(source.read_text())
    topology = loaded(tmp_path, CPU + '[[device]]\nname = "x"\nkind = "parts/mine.toml"\n')
    assert topology.device("x").kind.name == "mine"
    assert topology.device("x").kind.peak == load_kind("nvidia/l4").peak


def test_operating_points_are_chosen_by_the_topology(tmp_path: Path):
    text = CPU + '[[device]]\nname = "s"\nkind = "d-matrix/corsair"\noperating_point = "800MHz"\n'
    assert loaded(tmp_path, text).device("s").kind.load_w == 275


def test_the_host_can_be_said(tmp_path: Path):
    assert loaded(tmp_path, f'host = "gpu0"\n{CPU}{GPU}').host == "gpu0"


@pytest.mark.parametrize(
    ("text", "error", "where", "message"),
    [
        (CPU + CPU, UsageError, "device[cpu]", "two devices are called 'cpu'"),
        (CPU + GPU.replace("nvidia/l4", "nvidia/l5"), UsageError, "device[gpu0].kind", "unknown kind 'nvidia/l5'"),
        (CPU + GPU + PCIE.replace("pcie4x16", "pcie4"), UsageError, "link[cpu, gpu0].kind", "unknown link 'pcie4'"),
        (CPU + PCIE, UsageError, "link[cpu, gpu0].between", "unknown device 'gpu0'"),
        (CPU + PCIE.replace("gpu0", "cpu"), UsageError, "link[cpu, cpu].between", "joins 'cpu' with itself"),
        (CPU + GPU + (PCIE + 'name = "a"\n') * 2, UsageError, "link[cpu, gpu0].name", "'a' is given twice"),
        (CPU + GPU + PCIE + 'name = "gpu0"\n', UsageError, "link[cpu, gpu0].name", "'gpu0' is given twice"),
        (GPU, UsageError, "", "no device is the host"),
        (f'host = "gpu"\n{CPU}{GPU}', UsageError, "host", "unknown device 'gpu'"),
        ("", InputError, "", "device is missing"),
        (
            CPU + PCIE.replace('["cpu", "gpu0"]', '["cpu"]'),
            InputError,
            "",
            "link[0].between must have at least 2, not 1",
        ),
        (CPU + PCIE.replace('"gpu0"]', '"a", "b"]'), InputError, "", "link[0].between must have at most 2, not 3"),
        (CPU.replace("cpu", "2 cpus"), InputError, "", "device[2 cpus].name"),
        (CPU + 'speed = "high"\n', InputError, "", "device[cpu].speed is not a key that this file may have"),
        (CPU.replace('kind = "host"\n', ""), InputError, "", "device[cpu].kind is missing"),
        (f"schema = 7\n{CPU}", InputError, "", "has schema 7"),
    ],
)
def test_wrong_topologies(tmp_path: Path, text: str, error: type[Exception], where: str, message: str):
    with pytest.raises(error) as caught:
        loaded(tmp_path, text)
    assert message in str(caught.value)
    assert f"my.toml: {where}" in str(caught.value) or f"my.toml: {message}" in str(caught.value)


def test_there_is_no_such_topology(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot read it"):
        load_topology(tmp_path / "absent.toml")


def topology_of(*links: tuple[str, str, float, float]) -> Topology:
    """Devices `a` to `e` on this machine, and links with their latency and bandwidth."""
    kind = load_kind("host")
    made = (Link(f"l{i}", "k", (a, b), latency, bandwidth) for i, (a, b, latency, bandwidth) in enumerate(links))
    return Topology("t", tuple(Device(name, kind) for name in "abcde"), tuple(made), "a")


def test_a_transfer_stops_at_every_device_on_its_way():
    topology = topology_of(("a", "b", 1e-6, 1e9), ("c", "b", 2e-6, 1e8))
    links = route(topology, "a", "c")
    assert [link.name for link in links] == ["l0", "l1"]
    assert transfer_seconds(links, 1000) == pytest.approx(1e-6 + 1e-6 + 2e-6 + 1e-5)
    assert [link.name for link in route(topology, "c", "a")] == ["l1", "l0"]
    assert route(topology, "b", "b") == ()
    assert transfer_seconds((), 1000) == 0


def test_the_shortest_route_depends_on_the_bytes():
    topology = topology_of(("a", "b", 1e-6, 1e6), ("a", "c", 1e-3, 1e12), ("c", "b", 1e-3, 1e12))
    assert len(route(topology, "a", "b", 1)) == 1
    assert len(route(topology, "a", "b", 1 << 20)) == 2


def test_no_route_is_an_error():
    with pytest.raises(UsageError, match=r"no link leads from a to e(.|\n)*between = \[\"a\", \"e\"\]"):
        route(topology_of(("a", "b", 1e-6, 1e9)), "a", "e")
    with pytest.raises(KeyError):
        route(topology_of(), "a", "nowhere")


LINKS = st.lists(
    st.tuples(st.sampled_from("abcde"), st.sampled_from("abcde"), st.floats(0, 1e-3), st.floats(1e6, 1e12)).filter(
        lambda link: link[0] != link[1]
    ),
    max_size=8,
)


@given(links=LINKS, added=LINKS.filter(bool), moved=st.integers(0, 1 << 30))
def test_one_more_link_is_never_slower(
    links: list[tuple[str, str, float, float]], added: list[tuple[str, str, float, float]], moved: int
):
    def best(topology: Topology) -> float:
        try:
            return transfer_seconds(route(topology, "a", "e", moved), moved)
        except UsageError:
            return float("inf")

    assert best(topology_of(*links, *added)) <= best(topology_of(*links)) * (1 + 1e-12)


def test_a_link_of_ones_own(tmp_path: Path):
    file = tmp_path / "copy.toml"
    file.write_text(
        'schema = 1\ntitle = "a copy"\nlatency_s = 2e-6\nbandwidth = 1e10\n'
        '[sources]\nlatency_s = "measured"\nbandwidth = "measured"\n'
    )
    topology = loaded(tmp_path, CPU + GPU + PCIE.replace("pcie4x16", "copy.toml"))
    assert [(link.kind, link.bandwidth) for link in topology.links] == [("copy", 1e10)]
    with pytest.raises(UsageError, match="there is no file"):
        loaded(tmp_path, CPU + GPU + PCIE.replace("pcie4x16", "other.toml"))
