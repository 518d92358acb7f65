"""gimlet-calibrate: where it writes, and what it refuses before it measures."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from gimlet.compiler.hardware import calibrate as module
from gimlet.compiler.hardware import load_kind
from gimlet.compiler.hardware.calibrate import Calibration
from gimlet.compiler.hardware.host import calibration_file
from gimlet.compiler.progress import Progress
from gimlet.tools.gimlet_calibrate import main


def run(*arguments: str) -> int:
    """The exit code of the command."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, float]]:
    """In place of measuring: a fixed result, and what was given to each call."""
    calls: list[Mapping[str, float]] = []

    def calibrate(progress: Progress, given: Mapping[str, float], threads: int | None) -> Calibration:
        del progress
        calls.append(given)
        return Calibration(
            {"fp32": 1e11, "int8": 2e11, "vector": 1e10},
            [("dram", 1 << 30, 1e10)],
            {"kernel_s": 1e-6, "segment_s": 5e-6},
            {"compute": 0.9, "memory": 0.8},
            dict(given),
            threads=threads,
        )

    monkeypatch.setattr(module, "calibrate", calibrate)
    return calls


def test_it_writes_the_file_that_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "cpu.toml"
    assert run("-o", str(path), "--load-w", "65", "--usd-per-hour", "0.1") == 0
    assert capsys.readouterr().out == f"{path}\n"
    kind = load_kind(str(path))
    assert (kind.name, kind.load_w, kind.usd_per_hour) == ("host", 65, 0.1)
    assert [file.name for file in tmp_path.iterdir()] == ["cpu.toml"]


def test_without_a_file_it_calibrates_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("GIMLET_CACHE", str(tmp_path / "cache"))
    assert load_kind("host").options.get("generic") is True
    assert run("--json") == 0
    assert json.loads(capsys.readouterr().out) == {"kind": str(calibration_file())}
    assert load_kind("host").peak["fp32"] == 1e11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "absent/cpu.toml"], "no such folder"),
        (["-o", "cpu.toml", "--idle-w", "9", "--load-w", "5"], "--idle-w is more than --load-w"),
        (["-o", "cpu.toml", "--load-w", "0"], "Invalid value for '--load-w'"),
        (["--frequency", "9"], "No such option"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_measured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    measured: list[Mapping[str, float]],
    arguments: list[str],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err
    assert measured == []
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_the_machine_has_its_threads(tmp_path: Path):
    path = tmp_path / "core.toml"
    assert run("-o", str(path), "--cores", "1") == 0
    assert load_kind(str(path)).options["threads"] == 1


def test_a_part_needs_a_file_of_its_own(capsys: pytest.CaptureFixture[str], measured: list[Mapping[str, float]]):
    assert run("--cores", "1") == 2
    assert "-o cores.toml" in capsys.readouterr().err
    assert measured == []
