"""Kinds of devices and links: what is shipped, what a user adds, and what is wrong with a file."""

from pathlib import Path

import pytest

from gimlet.compiler.hardware import kind_names, link_names, load_kind, load_link
from gimlet.compiler.hardware.host import calibration_file
from gimlet.runtime.errors import GimletError, InputError, UsageError
from gimlet.runtime.sram.machine import Machine

KIND = """
schema = 1
title = "Example"
targets = ["onnxruntime"]

[peak]
fp32 = 1e12

[[memory]]
name = "dram"
capacity_bytes = 1000
bandwidth = 1e9

[power]
idle_w = 10
load_w = 50

[options]
cores = 4

[sources]
peak = "a datasheet"
memory = "a datasheet"
"memory.dram.bandwidth" = "measured"
power = "a datasheet"
options = "counted"
"""

LINK = """
schema = 1
title = "Example"
latency_s = 1e-6
bandwidth = 1e9

[sources]
latency_s = "measured"
bandwidth = "measured"
"""


def written(folder: Path, text: str, name: str = "part.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refused(folder: Path, text: str) -> GimletError:
    path = written(folder, text)
    with pytest.raises(GimletError) as caught:
        load_kind(str(path))
    assert caught.value.where == str(path)
    return caught.value


def test_the_shipped_kinds_are_those_promised():
    assert set(kind_names()) == {
        "host",
        "amd/mi300x",
        "d-matrix/corsair",
        "d-matrix/corsair-x8",
        "groq/lpu-v1",
        "tenstorrent/blackhole-p150",
        *(f"nvidia/{part}" for part in ("a100", "l4", "l40s", "rtx-pro-6000", "h100", "h200", "b200")),
    }
    assert set(link_names()) == {"pcie4x16", "pcie5x16", "nvlink4", "nvlink5", "ethernet-400g"}


@pytest.mark.parametrize("name", kind_names())
def test_every_shipped_figure_has_a_source(name: str):
    kind = load_kind(name)
    assert kind.name == name
    assert {f"peak.{fmt}" for fmt in kind.peak} <= set(kind.sources)
    assert all(source.strip() for source in kind.sources.values())
    figures = {"power.load_w": kind.load_w, "price.usd": kind.price_usd, "power.idle_w": kind.idle_w}
    for figure, value in figures.items():
        assert (figure in kind.sources) == (value is not None)


@pytest.mark.parametrize("name", kind_names())
def test_shipped_figures_are_plausible(name: str):
    """Slips of a factor of a thousand, and rates with sparsity: narrower formats are at most twice as fast."""
    kind = load_kind(name)
    assert kind.peak["fp32"] <= kind.peak["int8"]
    assert 1e9 < kind.peak["vector"] / kind.options.get("cards", 1) <= 1e15
    assert 0 < kind.kernel_overhead_s + kind.segment_overhead_s < 1e-3
    assert [level.bandwidth for level in kind.memory] == sorted((m.bandwidth for m in kind.memory), reverse=True)
    assert [level.capacity_bytes for level in kind.memory] == sorted(level.capacity_bytes for level in kind.memory)
    for narrow, wide in (("fp8", "bf16"), ("int8", "fp16"), ("fp4", "fp8")):
        if narrow in kind.peak and wide in kind.peak and name.startswith(("nvidia/", "amd/")):
            assert kind.peak[narrow] == pytest.approx(2 * kind.peak[wide], rel=0.02)


@pytest.mark.parametrize("name", [name for name in kind_names() if name.startswith("nvidia/")])
def test_gpus_say_what_builds_their_engines(name: str):
    options = load_kind(name).options
    without_gpu = {"7.5", "8.0", "8.6", "8.9", "12.0", "12.1"}
    expected = "tensorrt-rtx" if options["compute_capability"] in without_gpu else "tensorrt"
    assert options["builder"] == expected


@pytest.mark.parametrize("name", link_names())
def test_shipped_links(name: str):
    link = load_link(name)
    assert 1e-6 < link.latency_s < 1e-4
    assert 1e10 < link.bandwidth < 1e12


def test_a_link_may_say_what_collectives_take(tmp_path: Path):
    figures = load_link("nvlink5").collective_figures
    assert figures is not None
    assert [protocol.own_bandwidth is None for protocol in figures.protocols] == [True, False]
    assert load_link("pcie5x16").collective_figures is None
    text = (
        'schema = 1\ntitle = "a link"\nlatency_s = 1e-6\nbandwidth = 1e9\n[collectives]\nlaunch_s = 1e-6\n'
        '[[collectives.protocol]]\nname = "plain"\nstep_s = 1e-6\nbandwidth = 1e9\n'
        '[sources]\nlatency_s = "x"\nbandwidth = "x"\n'
    )
    (tmp_path / "wire.toml").write_text(text)
    with pytest.raises(GimletError, match="collectives has no source"):
        load_link("wire.toml", base=tmp_path)
    (tmp_path / "wire.toml").write_text(text + 'collectives = "x"\n')
    assert load_link("wire.toml", base=tmp_path).collective_figures is not None


def test_the_two_operating_points_of_the_sram_card():
    fast, slow = load_kind("d-matrix/corsair"), load_kind("d-matrix/corsair", operating_point="800MHz")
    assert fast == load_kind("d-matrix/corsair", operating_point="1.2GHz")
    assert (fast.peak["mxint8"], fast.memory[0].bandwidth, fast.load_w) == (2.4e15, 150e12, 550)
    assert (slow.peak["mxint8"], slow.memory[0].bandwidth, slow.load_w) == (1.6e15, 100e12, 275)
    assert slow.memory[1] == fast.memory[1]
    for figure in fast.peak:
        assert slow.peak[figure] == pytest.approx(fast.peak[figure] * 2 / 3, rel=1e-3)
    assert (fast.options["clock_hz"], slow.options["clock_hz"]) == (1.2e9, 800e6)
    assert slow.options["operating_point"] == "800MHz"
    assert "275 W" in slow.sources["power.load_w"]
    assert slow.sources.keys() == fast.sources.keys()


@pytest.mark.parametrize("point", ["1.2GHz", "800MHz"])
def test_the_options_of_the_sram_card_agree_with_its_figures(point: str):
    kind = load_kind("d-matrix/corsair", operating_point=point)
    machine = Machine.from_options(kind.options)
    for fmt, dtype in (("mxint8", "mxint8"), ("int8", "i8"), ("bf16", "bf16"), ("fp32", "f32")):
        assert machine.flops(dtype) == pytest.approx(kind.peak[fmt], rel=0.06)
    assert machine.cores * machine.vector_lanes * machine.clock_hz == pytest.approx(kind.peak["vector"], rel=0.01)
    sram, lpddr = kind.memory
    assert machine.sram_bytes == sram.capacity_bytes
    assert machine.cores * machine.sram_bytes_per_cycle * machine.clock_hz == pytest.approx(sram.bandwidth, rel=0.01)
    assert (machine.lpddr_bytes, machine.lpddr_bytes_per_s) == (lpddr.capacity_bytes, lpddr.bandwidth)


def test_a_kind_of_ones_own(tmp_path: Path):
    written(tmp_path, KIND)
    kind = load_kind("part.toml", base=tmp_path)
    assert (kind.name, kind.targets, kind.peak["fp32"], kind.idle_w) == ("part", ("onnxruntime",), 1e12, 10)
    assert kind.sources == {
        "peak.fp32": "a datasheet",
        "memory.dram.capacity_bytes": "a datasheet",
        "memory.dram.bandwidth": "measured",
        "power.idle_w": "a datasheet",
        "power.load_w": "a datasheet",
        "options.cores": "counted",
    }


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nvidia/h1000", "did you mean nvidia/h100"),
        ("h100", "did you mean nvidia/h100"),
        ("nowhere", "known: amd/mi300x, d-matrix/corsair, d-matrix/corsair-x8, groq/lpu-v1, host"),
        ("../hardware/host", "did you mean host?"),
    ],
)
def test_an_unknown_kind_names_close_ones(name: str, hint: str):
    with pytest.raises(UsageError, match="unknown kind") as caught:
        load_kind(name)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(hint)


def test_an_unknown_link_names_close_ones():
    with pytest.raises(UsageError, match=r"unknown link 'pcie5'(.|\n)*did you mean pcie5x16"):
        load_link("pcie5")


def test_unknown_operating_points():
    with pytest.raises(UsageError, match=r"unknown operating point(.|\n)*did you mean 800MHz"):
        load_kind("d-matrix/corsair", operating_point="900MHz")
    with pytest.raises(UsageError, match="has no operating points"):
        load_kind("nvidia/l4", operating_point="800MHz")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fp32 = 1e12", "fp32 = -1e12", "peak.fp32 must be more than 0, not -1000000000000.0"),
        ("fp32 = 1e12", "fp32 = inf", "peak.fp32 must be a finite number, not inf"),
        ("idle_w = 10", "idle_w = -1", "power.idle_w must not be negative, but is -1"),
        ("idle_w = 10", "idle_w = 60", "idle_w = 60 is more than load_w = 50"),
        ("bandwidth = 1e9", "", "memory[dram].bandwidth is missing"),
        ("fp32 = 1e12", "fp33 = 1e12", "'fp33' is not one of"),
        ("[options]", "[optoins]", "optoins is not a key that this file may have"),
        ('power = "a datasheet"', "", "power.idle_w has no source"),
        ('options = "counted"', 'options = "counted"\nprice = "a shop"', "'price' is the source of no figure"),
        ('options = "counted"', 'options = " "', "options.cores has an empty source"),
        ("[power]", '[[memory]]\nname = "dram"\ncapacity_bytes = 1\nbandwidth = 1\n[power]', "two levels are called"),
        ("[options]", '[[operating_point]]\nname = "a"\n[options]', "exactly one point needs default = true"),
        ("schema = 1\n", "", "schema is missing"),
        ("idle_w = 10", "idle_w = true", "power.idle_w must be a number, not True"),
        ("fp32 = 1e12", 'fp32 = "much"', "peak.fp32 must be a number, not 'much'"),
        ("capacity_bytes = 1000", 'capacity_bytes = "1000"', "capacity_bytes must be a whole number, not '1000'"),
        ("capacity_bytes = 1000", "capacity_bytes = true", "capacity_bytes must be a whole number, not True"),
        ("capacity_bytes = 1000", "capacity_bytes = 1.5", "capacity_bytes must be a whole number, not 1.5"),
        ('["onnxruntime"]', '"onnxruntime"', "targets must be a list, not 'onnxruntime'"),
        ('name = "dram"', 'name = "main memory"', "name must be letters, digits, '_' and '.'"),
        ('["onnxruntime"]', '["onnxruntim"]', "no target is called 'onnxruntim'"),
    ],
)  # fmt: skip
def test_a_wrong_figure_is_named_with_its_file(tmp_path: Path, old: str, new: str, message: str):
    assert old in KIND
    error = refused(tmp_path, KIND.replace(old, new))
    assert isinstance(error, InputError)
    assert message in error.message


def test_a_capacity_may_have_an_exponent(tmp_path: Path):
    path = written(tmp_path, KIND.replace("capacity_bytes = 1000", "capacity_bytes = 24e9"))
    (level,) = load_kind(path.name, base=tmp_path).memory
    assert (level.capacity_bytes, type(level.capacity_bytes)) == (24_000_000_000, int)


def test_files_that_are_no_descriptions(tmp_path: Path):
    assert "is not TOML" in refused(tmp_path, "schema = ").message
    newer = refused(tmp_path, KIND.replace("schema = 1", "schema = 2"))
    assert "reads up to 1" in newer.message
    assert newer.hint == "upgrade gimlet"
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        load_kind("binary.toml", base=tmp_path)
    with pytest.raises(UsageError, match="there is no file"):
        load_kind("absent.toml", base=tmp_path)


def test_the_host_is_generic_until_it_is_calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIMLET_CACHE", str(tmp_path))
    assert load_kind("host").options["generic"] is True
    own = written(
        tmp_path, KIND.replace("[peak]", 'name = "host"\n[peak]', 1).replace('name = "host"\n[peak]', "[peak]")
    )
    own.rename(calibration_file())
    assert load_kind("host").options == {"cores": 4}
