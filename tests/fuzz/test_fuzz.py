"""Mutants of models and of IR: none may leave the compiler but by success or by one of its errors."""

from collections import Counter
from pathlib import Path
from random import Random

import onnx
import pytest
from tests.fuzz.__main__ import Round, outcomes
from tests.fuzz.mutate import protobuf_mutant, text_mutant
from tests.fuzz.trial import FINE, REFUSED, try_model, try_text
from tests.unit.dialects.test_onnx_structures import captured_values

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_once_broke_it(path: Path):
    assert path.stat().st_size < 8192
    assert (try_model if path.suffix == ".onnx" else try_text)(path) in (FINE, REFUSED)


def check(folder: Path, kind: str, seed: int, count: int) -> None:
    found = dict(outcomes(Round(folder, seed, kind), count))
    assert len(found) == count
    assert {number: what for number, what in found.items() if what not in (FINE, REFUSED)} == {}
    # Mutants that are all refused, or all fine, would test little.
    assert all(Counter(found.values())[what] > count / 20 for what in (FINE, REFUSED))


@pytest.mark.parametrize("kind", ["model", "text"])
def test_a_few_mutants(kind: str, tmp_path: Path):
    check(tmp_path, kind, 7, 120)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["model", "text"])
def test_many_mutants(kind: str, tmp_path: Path):
    check(tmp_path, kind, 8, 3000)


def test_the_same_seed_makes_the_same_mutants():
    data = captured_values().SerializeToString()
    made = [protobuf_mutant(data, Random(f"{number}")) for number in range(60)]
    assert made == [protobuf_mutant(data, Random(f"{number}")) for number in range(60)]
    assert len(set(made)) > 50
    assert text_mutant("%a = onnx.Relu(%b)", Random(1)) == text_mutant("%a = onnx.Relu(%b)", Random(1))


def test_a_mistake_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What breaks, what hangs, and what dies: each is told from a refusal."""
    path = tmp_path / "m.onnx"
    onnx.save(captured_values(), path)
    assert try_model(path) == FINE
    monkeypatch.setattr("tests.fuzz.trial.run_passes", lambda *_: [][0])
    assert try_model(path).startswith("IndexError")
    monkeypatch.setattr("tests.fuzz.trial.LIMIT_S", 0.05)
    monkeypatch.setattr("tests.fuzz.trial.run_passes", lambda *_: [None for _ in iter(int, 1)])
    assert try_model(path).startswith("TooLongError")
