"""Runs the examples of README.md and docs/.

A fence whose info string carries `{run}` is executed, in the order of the page and in one temporary folder per page:

    ```console {run}          each line after `$ ` runs in bash; what follows is its output (stdout and stderr)
    ```python {run}           runs in the page's own interpreter session: names stay from fence to fence
    ```mlir {file=relu.mlir}  is not run but written to that file, for the commands below it

`...` in expected output stands for anything, a whole line of it for any number of lines. `{run exit=2}` expects another
exit code than 0 from the last command. `{run full}` runs only in `make test-full`. The other fences are prose.
"""

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gimlet.targets import registry

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w+) \{([^}\n]*)\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")


@dataclass(frozen=True)
class Fence:
    """A fence that the page asks to run or to write, and the line that it starts on."""

    language: str
    options: dict[str, str]
    text: str
    line: int


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def fences(text: str) -> Iterator[Fence]:
    for match in FENCE.finditer(text):
        options = dict(word.partition("=")[::2] for word in match[2].split())
        yield Fence(match[1], options, match[3], text.count("\n", 0, match.start()) + 1)


def assert_output(expected: str, actual: str, where: str) -> None:
    actual = "".join(f"{line.rstrip()}\n" for line in actual.splitlines())
    if doctest.OutputChecker().check_output(expected, actual, doctest.ELLIPSIS):
        return
    pytest.fail(f"{where}\nexpected:\n{expected}\nprinted:\n{actual}", pytrace=False)


def run_console(fence: Fence, folder: Path, where: str) -> None:
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "GIMLET_ROOT": str(ROOT),
        "NO_COLOR": "1",
        "COLUMNS": "120",
    }
    steps = re.split(r"^\$ ", fence.text, flags=re.MULTILINE)
    assert steps[0] == "", f"{where}: a console fence starts with `$ `"
    for number, step in enumerate(steps[1:], 1):
        command, _, expected = step.partition("\n")
        while command.endswith("\\"):
            more, _, expected = expected.partition("\n")
            command = f"{command}\n{more}"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        expected_code = int(fence.options.get("exit", "0")) if number == len(steps) - 1 else 0
        assert done.returncode == expected_code, f"{where}: {command}\n{done.stdout}"
        assert_output(expected, done.stdout, f"{where}: {command}")


def run_python(fence: Fence, folder: Path, names: dict[str, Any], where: str) -> None:
    code, _, expected = fence.text.partition("\n# prints:\n")
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        exec(compile(code, where, "exec"), names)
    assert_output(re.sub(r"(?m)^# ?", "", expected), printed.getvalue(), where)


def run_page(page: Path, folder: Path, long: bool) -> None:
    names: dict[str, Any] = {"__name__": "__docs__"}
    for fence in fences(page.read_text()):
        where = f"{name_of(page)}:{fence.line}"
        if "file" in fence.options:
            (folder / fence.options["file"]).write_text(fence.text)
        elif "run" not in fence.options or ("full" in fence.options and not long):
            continue
        elif fence.language == "console":
            run_console(fence, folder, where)
        elif fence.language == "python":
            run_python(fence, folder, names, where)
        else:
            pytest.fail(f"{where}: nothing runs {fence.language}")


def pages_with(option: str) -> list[Path]:
    return [page for page in pages() if any(option in fence.options for fence in fences(page.read_text()))]


@pytest.fixture(autouse=True)
def _targets_as_they_were(monkeypatch: pytest.MonkeyPatch):
    """A page may add a target; the tests after it must not find that."""
    monkeypatch.setattr(registry, "TARGETS", dict(registry.TARGETS))
    yield
    registry.load.cache_clear()


@pytest.mark.parametrize("page", pages_with("run"), ids=name_of)
def test_examples(page: Path, tmp_path: Path):
    run_page(page, tmp_path, long=False)


@pytest.mark.full
@pytest.mark.parametrize("page", pages_with("full"), ids=name_of)
def test_long_examples(page: Path, tmp_path: Path):
    run_page(page, tmp_path, long=True)


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links_lead_somewhere(page: Path):
    targets = [target for target in LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_a_wrong_example_is_found():
    """The runner itself can fail: on output, on an exit code, and only on what differs."""
    right = Fence("console", {"run": ""}, "$ echo one; echo two\none\n...\n", 1)
    run_console(right, ROOT, "here")
    with pytest.raises(pytest.fail.Exception, match="printed:\none"):
        run_console(Fence("console", {"run": ""}, "$ echo one\ntwo\n", 1), ROOT, "here")
    with pytest.raises(AssertionError, match="exit 3"):
        run_console(Fence("console", {"run": ""}, "$ exit 3\n", 1), ROOT, "here")
    run_console(Fence("console", {"run": "", "exit": "3"}, "$ exit 3\n", 1), ROOT, "here")
    run_python(Fence("python", {"run": ""}, "print(1 + 1)\n# prints:\n# 2\n", 1), ROOT, {}, "here")
