"""Requests in flight over the processor and the accelerator, from the compile for throughput to the trace of a run."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.models import CHAIN_BIND, chain

import gimlet
from gimlet.runtime.executors.onnxruntime import OnnxRuntimeExecutor
from gimlet.runtime.executors.sram import SramExecutor
from gimlet.tools.gimlet_run import main

RACK = Path(__file__).resolve().parents[2] / "examples" / "topologies" / "rack.toml"
PINS = {"product0": "cpu", "product[12]": "sram0", "product3": "cpu"}
PATIENCE_S = 20


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """Three segments: cpu, sram0, cpu."""
    model = str(chain(tmp_path / "chain.onnx"))
    options: dict[str, Any] = {"topology": RACK, "bind": CHAIN_BIND, "pins": PINS, "objective": "throughput"}
    gimlet.compile(model, output=tmp_path / "m.gimlet", **options)
    return tmp_path / "m.gimlet"


def test_a_request_starts_while_another_is_on_the_accelerator(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The accelerator holds each request until two were on the processor: where they took turns, it would in vain."""
    on_cpu: set[int] = set()
    changed = threading.Condition()
    overlapped: list[bool] = []
    own = threading.get_ident()

    def before_cpu() -> None:
        with changed:
            on_cpu.add(threading.get_ident())
            changed.notify_all()

    def before_sram() -> None:
        if threading.get_ident() == own:
            return
        with changed:
            overlapped.append(changed.wait_for(lambda: len(on_cpu - {own}) == 2, PATIENCE_S))

    watch(monkeypatch, OnnxRuntimeExecutor, before_cpu)
    watch(monkeypatch, SramExecutor, before_sram)
    flags = ["--repeat", "2", "--inflight", "2", "--profile", str(tmp_path / "t.json"), "--json"]
    with pytest.raises(SystemExit) as stop:
        main([str(pipeline), "--random", *flags])
    assert not stop.value.code
    assert overlapped == [True, True]
    events = [event for event in json.loads((tmp_path / "t.json").read_text())["traceEvents"] if event["ph"] == "X"]
    ends = [event["ts"] + event["dur"] for event in events if event["name"] == "run"]
    launches = [event["ts"] for event in events if event["name"] not in ("run", "copy")]
    assert (len(ends), len(launches)) == (2, 6)
    assert sum(start < min(ends) for start in launches) > 3
    assert json.loads(capsys.readouterr().out)["latency"]["predicted_period_s"] > 0


def watch(monkeypatch: pytest.MonkeyPatch, executor: type[Any], before: Callable[[], None]) -> None:
    """Calls `before` on the thread of each launch."""
    launcher = executor.launcher

    def watched(self: Any, bindings: Any) -> Callable[[Any], Any]:
        launch = launcher(self, bindings)

        def launched(wait: Any) -> Any:
            before()
            return launch(wait)

        return launched

    monkeypatch.setattr(executor, "launcher", watched)
