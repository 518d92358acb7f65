"""gimlet-inspect: what is in a bundle, whether it is whole, and what of it runs here."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gimlet.runtime.expr import Expr
from gimlet.runtime.manifest import Launch, Manifest, Variant
from gimlet.tools.gimlet_inspect import main


@pytest.fixture
def bundle(make_bundle, part) -> Path:
    def change(manifest: Manifest) -> Manifest:
        first, second = manifest.segments
        away = Variant("onnxruntime", "fp16", ("e.bin",), ("e.bin",), "k", requires={"execution_provider": "FarAway"})
        first = replace(first, ops=7, flops=Expr.parse("1000*n"), seconds=0.0021, joules=0.5, weight_bytes=3 << 20)
        steps = [
            step if isinstance(step, Launch) else replace(step, bytes=Expr.parse("16*n"), route=("to-gpu0",))
            for step in manifest.steps
        ]
        return replace(manifest, segments=(first, replace(second, variants=(away,))), steps=tuple(steps))

    return make_bundle(
        [part("s0", "cpu", "Add", ("x",), "y", weight=(1.0,) * 4), part("s1", "gpu0", "Neg", ("y",), "z")],
        kinds={"gpu0": "vendor/chip", "spare": "vendor/chip"},
        change=change,
        extra={"e.bin": bytes(2048)},
    )


def inspect(capsys: pytest.CaptureFixture[str], *args: Any) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    return int(stop.value.code or 0), capsys.readouterr().out


def cells(text: str, first: str) -> list[str]:
    """The cells of the table row that begins with `first`."""
    row = next(line for line in text.splitlines() if "│" in line and line.split("│")[0].strip() == first)
    return [cell.strip() for cell in row.strip("│").split("│")]


def test_the_tables_say_what_runs_where(bundle: Path, capsys: pytest.CaptureFixture[str]):
    code, text = inspect(capsys, bundle)
    assert code == 0
    assert text.startswith(f"m.gimlet {(bundle / 'manifest.sha256').read_text().strip()}\n")
    assert "input x: float32[n, 4]\noutput z: float32[n, 4]\ndimension n: 1 to 8, best at 2\n" in text
    size = (bundle / "segments" / "s0" / "model.onnx").stat().st_size
    assert cells(text, "s0") == [
        "s0",
        "cpu",
        "fp32",
        "onnxruntime",
        "7",
        "2 k",
        "3.146 MB",
        f"{size} B",
        "2.1 ms",
        "500 mJ",
    ]
    assert cells(text, "s1")[:5] == ["s1", "gpu0", "fp32", "onnxruntime", "1"]
    assert cells(text, "cpu") == ["cpu", "host", "1", "yes, by onnxruntime"]
    assert cells(text, "gpu0")[:3] == ["gpu0", "vendor/chip", "1"]
    assert cells(text, "gpu0")[3].startswith("no: ONNX Runtime here has no FarAway")
    assert cells(text, "spare") == ["spare", "vendor/chip", "0", "nothing to run"]
    assert cells(text, "y") == ["y", "cpu", "gpu0", "to-gpu0", "32 B", "0 s"]
    assert "files: engines 2.048 kB, module.mlir 18 B, segments " in text


def test_an_unbuilt_engine_is_marked(make_bundle, part, capsys: pytest.CaptureFixture[str]):
    def change(manifest: Manifest) -> Manifest:
        (segment,) = manifest.segments
        variant = Variant("onnxruntime", "fp16", ("e.bin",), ("e.bin",), "k", deferred=True)
        return replace(manifest, segments=(replace(segment, variants=(variant,)),))

    path = make_bundle([part("s0", "gpu0", "Neg", ("x",), "y")], kinds={"gpu0": "vendor/chip"}, change=change)
    _, text = inspect(capsys, path)
    assert cells(text, "s0")[3] == "onnxruntime (deferred)"
    assert "e.bin is still to be built on a machine that has vendor/chip" in text


def test_json_holds_the_manifest_and_what_is_here(bundle: Path, capsys: pytest.CaptureFixture[str]):
    code, text = inspect(capsys, bundle, "--json")
    data = json.loads(text)
    assert code == 0
    assert data["manifest"] == json.loads((bundle / "manifest.json").read_text())
    assert data["here"]["s0"] == {"runs": True, "by": "onnxruntime", "emulated": False, "reason": None}
    assert data["here"]["s1"]["runs"] is False
    assert data["engines"]["e.bin"]["bytes"] == 2048
    assert data["verified_bytes"] is None


def test_hashes_are_compared_on_request(bundle: Path, capsys: pytest.CaptureFixture[str]):
    code, text = inspect(capsys, bundle, "--verify-hashes")
    assert (code, "all hashes hold" in text) == (0, True)
    _, text = inspect(capsys, bundle, "--verify-hashes", "--json")
    assert json.loads(text)["verified_bytes"] > 2048
    (bundle / "e.bin").write_bytes(bytes(2047) + b"x")
    assert inspect(capsys, bundle)[0] == 0
    code, text = inspect(capsys, bundle, "--verify-hashes", "--json")
    assert code == json.loads(text)["exit_code"] == 4
    assert "e.bin" in json.loads(text)["message"]


def test_what_is_no_bundle_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert inspect(capsys, tmp_path)[0] == 1
