"""Brings CHECK lines up to date with what the commands print now: `make update-checks`, then review the diff.

Each RUN line of the form `COMMAND | filecheck %s` is run. A CHECK line that still matches, in order, stays as it was
written, with its regular expressions and variables. One that matches nothing any more is replaced by the line of the
output that is most like it, between the lines that its neighbours match. A CHECK-NOT is never touched, and a line whose
subject is gone from the output is reported and left, to be judged by a person.
"""

import difflib
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
LEAST_LIKENESS = 0.4


@dataclass
class Check:
    """A positive CHECK line: where it is, what it asks for, and the line of the output that it matches."""

    index: int
    head: str
    pattern: str
    match: int | None = field(default=None)


def run_lines(text: str) -> list[tuple[str, str]]:
    """The commands before `| filecheck %s`, each with its prefix."""
    joined = re.sub(r"\\\n// RUN:", "", text)
    found: list[tuple[str, str]] = []
    for command, options in re.findall(r"^// RUN: (.*?)\|\s*filecheck\s+%s(.*)$", joined, re.MULTILINE):
        prefix = re.search(r"--check-prefix[ =](\S+)", options)
        found.append((command.strip(), prefix[1] if prefix else "CHECK"))
    return found


def checks_of(lines: list[str], prefix: str) -> list[Check]:
    form = re.compile(rf"^(\s*//\s*{re.escape(prefix)}(?:-NEXT|-SAME|-LABEL|-DAG)?:\s*)(\S.*?)\s*$")
    matched = ((index, form.match(line)) for index, line in enumerate(lines))
    return [Check(index, match[1], match[2]) for index, match in matched if match]


def regex_of(pattern: str) -> re.Pattern[str]:
    """What filecheck matches within a line: `{{…}}` is a regular expression, `[[name:…]]` and `[[name]]` variables."""
    parts = re.split(r"(\{\{.*?\}\}|\[\[.*?\]\])", pattern)
    text = ""
    for part in parts:
        if part.startswith("{{"):
            text += f"(?:{part[2:-2]})"
        elif part.startswith("[["):
            text += ".+?"
        else:
            text += r"\s+".join(re.escape(word) for word in re.split(r"\s+", part))
    return re.compile(text)


def align(checks: list[Check], output: list[str]) -> None:
    """Gives each check the first line after its predecessor's that it matches, if there is one."""
    start = 0
    for check in checks:
        if "-SAME:" in check.head and start:
            start -= 1
        wanted = regex_of(check.pattern)
        check.match = next((n for n in range(start, len(output)) if wanted.search(output[n])), None)
        if check.match is not None:
            start = check.match + 1


def repair(checks: list[Check], output: list[str]) -> list[str]:
    """New patterns for the checks that match nothing; what could not be repaired is returned as messages."""
    align(checks, output)
    problems: list[str] = []
    start = 0
    for position, check in enumerate(checks):
        if check.match is None:
            end = next((c.match for c in checks[position + 1 :] if c.match is not None), len(output))
            likeness = {
                n: difflib.SequenceMatcher(None, check.pattern, output[n].strip()).ratio() for n in range(start, end)
            }
            best = max(likeness, key=lambda n: likeness[n], default=None)
            if best is None or likeness[best] < LEAST_LIKENESS:
                problems.append(f"line {check.index + 1}: nothing in the output is like {check.pattern!r}")
                continue
            check.match, check.pattern = best, output[best].strip()
        start = check.match + 1
    return problems


def update(path: Path) -> list[str]:
    """Rewrites one test file; returns what a person has to look at."""
    text = path.read_text()
    lines = text.split("\n")
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    problems: list[str] = []
    for command, prefix in run_lines(text):
        done = subprocess.run(
            ["bash", "-c", command.replace("%s", str(path))],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        checks = checks_of(lines, prefix)
        problems += repair(checks, done.stdout.split("\n"))
        for check in checks:
            lines[check.index] = check.head + check.pattern
    if (new := "\n".join(lines)) != text:
        path.write_text(new)
        sys.stdout.write(f"updated {path.relative_to(FOLDER)}\n")
    return problems


def main() -> int:
    paths = [Path(argument).resolve() for argument in sys.argv[1:]] or sorted(FOLDER.rglob("*.mlir"))
    left = [f"{path.relative_to(FOLDER)}: {problem}" for path in paths for problem in update(path)]
    sys.stdout.write("".join(f"{line}\n" for line in left))
    return bool(left)


if __name__ == "__main__":
    sys.exit(main())
