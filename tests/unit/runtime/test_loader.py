"""Which variant of a segment is loaded, and what is said where none can be."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gimlet
from gimlet.compiler.bundle import add_engines
from gimlet.runtime.bundle import open_bundle
from gimlet.runtime.errors import InputError, MissingError
from gimlet.runtime.loader import candidates
from gimlet.runtime.manifest import DimRange, Manifest, Variant
from gimlet.runtime.program import Program

X = np.array([[1, -2, 3, -4]], np.float32)
AWAY = Variant("onnxruntime", "fp16", (), requires={"execution_provider": "FarAwayProvider"})


def with_options(**options: object) -> Callable[[Manifest], Manifest]:
    """Gives the variants of all segments these options."""

    def change(manifest: Manifest) -> Manifest:
        segments = [
            replace(segment, variants=tuple(replace(variant, options=options) for variant in segment.variants))
            for segment in manifest.segments
        ]
        return replace(manifest, segments=tuple(segments))

    return change


def with_variants(*variants: Variant, portable: bool = True) -> Callable[[Manifest], Manifest]:
    """Puts variants before a segment's own; without `portable` its portable form goes."""

    def change(manifest: Manifest) -> Manifest:
        first, *others = manifest.segments
        kept = (*variants, *first.variants) if portable else variants
        changed = replace(first, variants=kept, portable=first.portable if portable else None)
        return replace(manifest, segments=(changed, *others))

    return change


def only(*variants: Variant) -> Callable[[Manifest], Manifest]:
    """Replaces a segment's variants and keeps its portable form."""

    def change(manifest: Manifest) -> Manifest:
        first, *others = manifest.segments
        return replace(manifest, segments=(replace(first, variants=variants), *others))

    return change


@pytest.fixture
def away(make_bundle, part) -> Path:
    """A bundle whose only segment is for a device that no machine has."""
    return make_bundle([part("s0", "gpu0", "Neg", ("x",), "y")], kinds={"gpu0": "vendor/chip"}, change=only(AWAY))


def test_an_absent_device_is_named_with_what_would_provide_it(away: Path):
    with pytest.raises(
        MissingError, match=r"device 'gpu0' \(vendor/chip\) is not here: .*no FarAwayProvider"
    ) as caught:
        gimlet.load(away)
    assert caught.value.exit_code == 3
    assert caught.value.where == "s0"
    assert "install the build of onnxruntime" in str(caught.value)
    assert "--emulate-missing" in str(caught.value)


def test_an_absent_device_is_emulated_on_request(away: Path):
    with gimlet.load(away, emulate_missing=True) as program:
        np.testing.assert_array_equal(program(x=X)["y"], -X)
        (running,) = program.running
        assert (running.device, running.executor, running.emulated) == ("gpu0", "onnxruntime", True)


def test_without_a_portable_form_there_is_nothing_to_emulate(make_bundle, part):
    parts = [part("s0", "gpu0", "Neg", ("x",), "y")]
    bundle = make_bundle(parts, kinds={"gpu0": "vendor/chip"}, change=with_variants(AWAY, portable=False))
    with pytest.raises(MissingError, match="has no portable form to emulate it by"):
        gimlet.load(bundle, emulate_missing=True)
    with pytest.raises(MissingError) as caught:
        gimlet.load(bundle)
    assert "--emulate-missing" not in str(caught.value)


def test_the_first_variant_that_can_run_is_taken(make_bundle, part):
    parts = [part("s0", "cpu", "Neg", ("x",), "y")]
    bundle = make_bundle(parts, change=with_variants(AWAY, Variant("abacus", "fp32", ())))
    with gimlet.load(bundle) as program:
        np.testing.assert_array_equal(program(x=X)["y"], -X)
    opened = open_bundle(bundle)
    found = [bool(item.availability) for item in candidates(opened, opened.manifest.segments[0])]
    assert found == [False, False, True]


def test_variants_serve_the_sizes_of_their_profiles(make_bundle, part):
    """Two shape buckets of one segment, and a hole between them."""

    def buckets(manifest: Manifest) -> Manifest:
        (segment,) = manifest.segments
        (variant,) = segment.variants
        profiles = ({"n": DimRange(1, 1, 2)}, {"n": DimRange(4, 4, 8)})
        return replace(
            manifest,
            segments=(replace(segment, variants=tuple(replace(variant, profile=item) for item in profiles)),),
        )

    with gimlet.load(make_bundle([part("s0", "cpu", "Neg", ("x",), "y")], change=buckets)) as program:
        for n in (1, 2, 4, 8):
            x = np.repeat(X, n, axis=0)
            np.testing.assert_array_equal(program(x=x)["y"], -x)
        with pytest.raises(InputError, match="s0: no variant of the segment serves n=3"):
            program(x=np.repeat(X, 3, axis=0))


def test_a_segment_of_several_streams_gets_as_many_requests(make_bundle, part, monkeypatch: pytest.MonkeyPatch):
    """All of them are there at once, or the barrier breaks."""
    meeting = threading.Barrier(5)
    monkeypatch.setattr(Program, "run", lambda program, inputs: meeting.wait(60))
    bundle = make_bundle([part("s0", "cpu", "Neg", ("x",), "y")], change=with_options(streams=5))
    with gimlet.load(bundle) as program:
        assert sorted(found.result() for found in [program.submit_run({}) for _ in range(5)]) == [0, 1, 2, 3, 4]


def test_a_deferred_engine_is_missing_until_it_is_added(make_bundle, part, tmp_path: Path):
    engine = "segments/s0/engine.onnx"
    deferred = Variant("onnxruntime", "fp32", (engine,), undigested=(engine,), key="k1", deferred=True)
    parts = [part("s0", "gpu0", "Neg", ("x",), "y")]
    path = make_bundle(parts, kinds={"gpu0": "vendor/chip"}, change=only(deferred))
    with pytest.raises(MissingError, match=r"engine\.onnx is still to be built on a machine that has vendor/chip"):
        gimlet.load(path)
    with gimlet.load(path, emulate_missing=True) as program:
        assert program.running[0].emulated
    built = tmp_path / "built"
    shutil.copy(path / "segments" / "s0" / "model.onnx", built)
    before = open_bundle(path).id
    add_engines(open_bundle(path), {engine: built})
    assert open_bundle(path, verify_hashes=True).id == before
    with gimlet.load(path) as program:
        np.testing.assert_array_equal(program(x=X)["y"], -X)
        assert not program.running[0].emulated
    with pytest.raises(InputError, match=r"'module\.mlir' is no engine of this bundle"):
        add_engines(open_bundle(path), {"module.mlir": built})


def test_a_bundle_runs_without_the_files_that_it_does_not_need(make_bundle, part):
    path = make_bundle([part("s0", "cpu", "Neg", ("x",), "y")], extra={"report.html": b"<html>"})
    (path / "module.mlir").unlink()
    (path / "report.html").unlink()
    with gimlet.load(path) as program:
        np.testing.assert_array_equal(program(x=X)["y"], -X)


def test_running_takes_none_of_the_compiler_s_packages(make_bundle, part):
    path = make_bundle([part("s0", "cpu", "Add", ("x",), "y", weight=(1.0, 1.0, 1.0, 1.0))])
    code = f"""
import sys
for name in ("torch", "xdsl", "onnx", "onnx_ir", "onnxruntime.capi", "ml_dtypes", "rich", "click", "pydantic"):
    sys.modules[name] = None
import gimlet, numpy
with gimlet.load({str(path)!r}) as program:
    print(program(x=numpy.zeros((1, 4), numpy.float32))["y"].tolist())
"""
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.strip() == "[[1.0, 1.0, 1.0, 1.0]]", done.stderr
