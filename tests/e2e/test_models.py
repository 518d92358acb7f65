"""Real models, compiled for one, two and three kinds of silicon, against the model they come from on real inputs."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from tests.e2e.models import MODELS

import gimlet
from gimlet.compiler.checking.compare import compare
from gimlet.compiler.checking.reference import Reference, reference_of
from gimlet.compiler.sources import Source, open_source
from gimlet.runtime.bundle import Bundle, open_bundle
from gimlet.runtime.manifest import Manifest

TOPOLOGIES = Path(__file__).parent.parent.parent / "examples" / "topologies"
FORCED_SHARE = 0.2
MOST_SEGMENTS = 8
FULL = pytest.mark.full


@functools.cache
def source_of(name: str) -> Source:
    return open_source(MODELS[name].source)


@functools.cache
def reference(name: str) -> Reference:
    return reference_of(source_of(name))


def compiled(name: str, topology: str, folder: Path, shares: dict[str, float] | None = None) -> Bundle:
    source = source_of(name)
    result = gimlet.compile(
        source.model if not source.is_file else str(source.model),
        source.args,
        kwargs=source.kwargs,
        dynamic_shapes=source.dynamic_shapes,
        topology=TOPOLOGIES / f"{topology}.toml",
        bind=MODELS[name].bind,
        min_shares=shares,
        max_segments=MOST_SEGMENTS if shares else None,
        output=folder / f"{name}.gimlet",
        cache=folder / "cache",
    )
    return open_bundle(result.path)


def flops_share(manifest: Manifest, device: str) -> float:
    sizes = {dim: bound.optimum for dim, bound in manifest.dims.items()}
    flops = {segment.id: segment.flops.evaluate(sizes) for segment in manifest.segments}
    return sum(flops[segment.id] for segment in manifest.segments if segment.device == device) / sum(flops.values())


def check(name: str, bundle: Bundle, runs: int = 2) -> None:
    for seed in range(runs):
        found = compare(bundle, reference(name), MODELS[name].inputs(seed))
        assert found.ok, (name, seed, found.outputs)


@pytest.mark.parametrize(
    "name",
    ["recognition", "direction", *(pytest.param(n, marks=FULL) for n in ("detection", "minilm", "smollm2"))],
)
def test_on_the_cpu_alone(name: str, tmp_path: Path) -> None:
    bundle = compiled(name, "cpu", tmp_path)
    assert {segment.device for segment in bundle.manifest.segments} == {"cpu"}
    assert bool(bundle.manifest.dims) == any(":" in str(size) for size in MODELS[name].bind.values()) or name in (
        "minilm",
        "smollm2",
    )
    check(name, bundle)


@pytest.mark.parametrize(
    "name",
    ["recognition", *(pytest.param(n, marks=FULL) for n in ("detection", "direction", "minilm", "smollm2"))],
)
def test_with_engines_for_a_gpu(name: str, tmp_path: Path) -> None:
    shares = {"gpu0": FORCED_SHARE, "cpu": FORCED_SHARE}
    bundle = compiled(name, "cpu-gpu", tmp_path, shares)
    for device, share in shares.items():
        assert flops_share(bundle.manifest, device) >= share
    for segment in bundle.manifest.segments:
        if segment.device == "gpu0":
            (engine,) = segment.variants[0].undigested
            entry = bundle.entry(engine)
            assert entry is not None
            assert entry.bytes >= 0.9 * segment.weight_bytes
            assert not bundle.open_file(engine).read_bytes().startswith(b"\x08")  # no ONNX protobuf
    check(name, bundle)


@pytest.mark.parametrize(
    "name",
    ["direction", *(pytest.param(n, marks=FULL) for n in ("recognition", "detection", "minilm", "smollm2"))],
)
def test_on_three_kinds_of_silicon(name: str, tmp_path: Path) -> None:
    shares = {"gpu0": FORCED_SHARE, "cpu": FORCED_SHARE, "sram0": FORCED_SHARE}
    bundle = compiled(name, "rack", tmp_path, shares)
    for device, share in shares.items():
        assert flops_share(bundle.manifest, device) >= share
    check(name, bundle)


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "fmt"),
    [
        ("recognition", "mxint8"),
        *((name, fmt) for name in ("direction", "minilm") for fmt in ("bf16", "mxint8")),
    ],
)
def test_in_the_formats_of_the_accelerator(name: str, fmt: str, tmp_path: Path) -> None:
    """The outputs are within the tolerance of the coarsest format in the bundle.

    Recognition's in bf16 are not, nor are those of other runtimes that round as much (test_rounded_products.py).
    """
    source = source_of(name)
    result = gimlet.compile(
        source.model if not source.is_file else str(source.model),
        source.args,
        kwargs=source.kwargs,
        dynamic_shapes=source.dynamic_shapes,
        topology=TOPOLOGIES / "rack.toml",
        bind=MODELS[name].bind,
        min_shares=dict.fromkeys(("cpu", "gpu0", "sram0"), FORCED_SHARE),
        max_segments=MOST_SEGMENTS,
        formats={"sram0": fmt},
        output=tmp_path / "out.gimlet",
    )
    assert fmt in {segment.format for segment in result.manifest.segments}
    check(name, open_bundle(result.path), runs=3)
