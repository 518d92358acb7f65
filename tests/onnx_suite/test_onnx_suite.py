"""ONNX's own backend tests: what ONNX Runtime passes, the compiler keeps. `make onnx-suite` prints the table."""

import pytest
from tests.onnx_suite import report
from tests.onnx_suite.__main__ import PAGE, run_all
from tests.onnx_suite.cases import all_cases
from tests.onnx_suite.known import Known
from tests.onnx_suite.report import LEAST_SHARE, page, shares, unexplained
from tests.onnx_suite.stages import Outcome

CASES = 2024
SHARE_COMPARED = ("structure", "text", "export", "normalized")


def check(outcomes: list[Outcome]) -> None:
    assert unexplained(outcomes) == []
    for stage, (right, total) in shares(outcomes).items():
        if stage in SHARE_COMPARED:
            assert right >= LEAST_SHARE * total, stage


def test_a_sample_of_cases():
    assert len(all_cases()) >= CASES
    outcomes = run_all(range(5, CASES, 41), ("text", "structure", "export", "normalized"), 1)
    assert sum(not outcome.problems["onnxruntime"] for outcome in outcomes) > 40
    check(outcomes)


@pytest.mark.full
def test_every_case():
    outcomes = run_all(range(len(all_cases())), ("text", "structure", "export", "normalized", "compiled"), 2)
    check(outcomes)
    # The page's figures, but for the versions in its first lines, are those of this run.
    assert page(outcomes).splitlines()[16:] == PAGE.read_text().splitlines()[16:]


def test_a_failure_that_is_not_listed_is_found(monkeypatch: pytest.MonkeyPatch):
    outcomes = [
        Outcome("test_new", "node", ("Add",), {"export": "shape"}),
        Outcome("test_ok", "node", (), {"export": ""}),
    ]
    assert unexplained(outcomes) == ["test_new (export): shape"]
    monkeypatch.setattr(report, "KNOWN", (Known("test_o.", ("export",), "a reason"),))
    assert unexplained(outcomes) == [
        "test_new (export): shape",
        "test_ok (export): passes, but is listed: a reason",
    ]
    assert shares(outcomes) == {"export": (1, 2)}
    assert "| Add | 1 | **0** of 1 |" in page(outcomes)
