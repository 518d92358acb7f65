"""The workflow in examples/ is one that GitHub would run, and calls the commands as they are."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture(scope="module")
def workflow(root: Path) -> dict[Any, Any]:
    return yaml.safe_load((root / "examples" / "ci" / "github-actions.yml").read_text())


@pytest.fixture(scope="module")
def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_it_is_a_workflow(workflow: dict[Any, Any], steps: list[dict[str, Any]]):
    # YAML 1.1 reads the key `on` as true.
    assert {"name", True, "permissions", "jobs"} <= set(workflow)
    assert all("runs-on" in job for job in workflow["jobs"].values())
    assert all(("uses" in step) != ("run" in step) for step in steps)


def test_every_action_is_pinned_to_a_version(steps: list[dict[str, Any]]):
    assert [step["uses"] for step in steps if not re.search(r"@v\d+$", step.get("uses", "@v1"))] == []


def test_it_caches_engines_fails_on_drift_and_attaches_the_report(steps: list[dict[str, Any]]):
    (cache,) = [step for step in steps if step.get("uses", "").startswith("actions/cache@")]
    compile_step = next(step for step in steps if "gimlet-compile " in step.get("run", ""))
    assert compile_step["env"]["GIMLET_CACHE"].endswith(cache["with"]["path"])
    assert any("--fail-on placement,cost:5%" in step.get("run", "") for step in steps)
    attached = [step["with"]["path"] for step in steps if step.get("uses", "").startswith("actions/upload-artifact@")]
    assert "report.html" in attached


def options_of(command: str) -> set[str]:
    """The options that a command's --help lists."""
    tool = Path(sys.executable).parent / command
    done = subprocess.run([str(tool), "--help"], capture_output=True, text=True, check=True)
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", done.stdout))


def test_it_calls_the_commands_as_they_are(steps: list[dict[str, Any]]):
    calls = [shlex.split(step["run"]) for step in steps if step.get("run", "").startswith("gimlet-")]
    assert [call[0] for call in calls] == ["gimlet-compile", "gimlet-diff"]
    for command, *arguments in calls:
        assert {word for word in arguments if word.startswith("-")} <= options_of(command)
