"""Bundles whose segments run in two runtimes of one processor, against the model that they were made of."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tests.e2e.models import CHAIN_BIND, chain, draw, ocr_model

import gimlet
from gimlet.compiler.api import CompiledBundle
from gimlet.runtime.executors import ov_library
from gimlet.tools import gimlet_run

DIRECTION = "ch_ppocr_mobile_v2.0_cls_infer.onnx"
WIDTHS = {"x[0]": 1, "x[2]": 48, "x[3]": "96:192:384"}


def executors(bundle: CompiledBundle) -> list[str]:
    return [segment.variants[0].executor for segment in bundle.manifest.segments]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> CompiledBundle:
    """PP-OCRv4's direction classifier at any width: OpenVINO but for a convolution, a pooling and a product."""
    folder = tmp_path_factory.mktemp("mixed")
    pins = {".": "cpu:openvino", "^(Conv@0|GlobalAveragePool@4|MatMul@0)$": "cpu:onnxruntime"}
    return gimlet.compile(
        ocr_model(DIRECTION), output=folder / "m.gimlet", bind=WIDTHS, pins=pins, cache=folder / "cache"
    )


@pytest.mark.parametrize("width", [96, 192, 200])
def test_a_mixed_bundle_computes_what_the_model_does(mixed: CompiledBundle, width: int):
    image = draw(width, 48, width)
    session = onnxruntime.InferenceSession(ocr_model(DIRECTION), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"x": image})
    with gimlet.load(mixed.path, verify_hashes=True) as program:
        assert {running.executor for running in program.running} == {"onnxruntime", "openvino"}
        (found,) = program(x=image).values()
        futures = [program.submit(x=image) for _ in range(8)]
        for future in futures:
            np.testing.assert_array_equal(next(iter(future.result().values())), found)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_its_runtimes_leave_each_other_the_cores(mixed: CompiledBundle):
    assert all(segment.variants[0].options["shares_cores"] for segment in mixed.manifest.segments)


def test_nothing_is_copied_between_its_runtimes(mixed: CompiledBundle):
    assert {type(step).__name__ for step in mixed.manifest.steps} == {"Launch"}


def test_its_weights_are_there_once(mixed: CompiledBundle):
    """Both runtimes read one file, which is no larger than the model's own."""
    stored = sum(file.stat().st_size for file in mixed.path.rglob("*") if file.suffix in (".bin", ".weights"))
    assert stored < Path(ocr_model(DIRECTION)).stat().st_size * 1.05


def test_without_openvino_it_says_what_is_missing(
    mixed: CompiledBundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    ov_library.ov_library.cache_clear()
    monkeypatch.setattr(ov_library, "library_path", lambda *_: None)
    try:
        with pytest.raises(SystemExit) as stop:
            gimlet_run.main([str(mixed.path), "--random"])
    finally:
        ov_library.ov_library.cache_clear()
    assert stop.value.code == 3
    assert "openvino is not installed" in capsys.readouterr().err


def test_by_default_the_second_runtime_is_neither_asked_nor_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unwanted() -> None:
        raise AssertionError("openvino was asked")

    monkeypatch.setattr("gimlet.targets.openvino.probes.core", unwanted)
    bundle = gimlet.compile(chain(tmp_path / "c.onnx"), output=tmp_path / "c.gimlet", bind=CHAIN_BIND)
    assert executors(bundle) == ["onnxruntime"]
    assert not bundle.manifest.segments[0].variants[0].options


def test_with_measured_costs_candidates_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Who wins depends on the machine; that both were run, and that the answer is right, does not."""
    monkeypatch.setattr("gimlet.compiler.costs.trial._SECONDS", 0.01)
    source = chain(tmp_path / "c.onnx")
    bundle = gimlet.compile(
        source,
        output=tmp_path / "c.gimlet",
        bind={"n": 4},
        cost_providers={"cpu": "measured"},
        cache=tmp_path / "cache",
    )
    assert bundle.placement is not None
    (note,) = [note for note in bundle.placement.notes if "tried by" in note]
    assert "onnxruntime alone" in note
    assert "openvino alone" in note
    assert len(list((tmp_path / "cache/trials").glob("*.json"))) == 1
    x = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(source).run(None, {"x": x})
    with gimlet.load(bundle.path) as program:
        np.testing.assert_allclose(program(x=x)["y"], wanted, rtol=1e-4, atol=1e-3)
