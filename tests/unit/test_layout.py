"""The links in src/gimlet, the root folders, the wheel's mapping and pyright's list name the same packages."""

import ast
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

NOT_PACKAGES = {"benchmarks", "docs", "examples", "requirements", "src", "tests"}
IGNORED = {"artifacts", "build", "dist"}


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def packages(root: Path) -> set[str]:
    folders = {path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    return {name for name in folders - NOT_PACKAGES - IGNORED if not name.endswith(".gimlet")}


def test_every_root_folder_is_linked_relatively(root: Path, packages: set[str]):
    links = {path.name: str(path.readlink()) for path in (root / "src" / "gimlet").iterdir() if path.is_symlink()}
    assert links == {name: f"../../{name}" for name in packages}


def test_src_holds_nothing_but_links(root: Path):
    files = {path.name for path in (root / "src" / "gimlet").iterdir() if not path.is_symlink()}
    assert files - {"__pycache__"} == {"__init__.py", "py.typed"}


def test_the_wheel_ships_every_package(project: dict[str, Any], packages: set[str]):
    build = project["tool"]["hatch"]["build"]
    expected = {"src/gimlet": "gimlet"} | {name: f"gimlet/{name}" for name in packages}
    assert build["targets"]["wheel"]["sources"] == expected
    assert set(build["only-include"]) == packages | {"src/gimlet/__init__.py", "src/gimlet/py.typed"}


def test_pyright_is_given_every_link(project: dict[str, Any], packages: set[str]):
    assert set(project["tool"]["pyright"]["include"]) == {f"src/gimlet/{name}" for name in packages}


def test_ruff_bans_the_second_name_of_every_package(project: dict[str, Any], packages: set[str]):
    assert set(project["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]) == packages


def test_every_package_is_a_layer(project: dict[str, Any], packages: set[str]):
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    assert set(layers) == {f"gimlet.{name}" for name in packages}


def test_every_folder_of_modules_is_a_package(root: Path, packages: set[str]):
    folders = {path.parent for name in packages for path in (root / name).rglob("*.py")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_every_root_folder_has_a_readme(root: Path, packages: set[str]):
    folders = packages | NOT_PACKAGES - {"src", "requirements"}
    assert sorted(name for name in folders if not (root / name / "README.md").is_file()) == []


def test_every_script_is_a_tool_and_every_tool_a_script(root: Path, project: dict[str, Any]):
    scripts = project["project"]["scripts"]
    tools = {path.stem for path in (root / "tools").glob("gimlet_*.py")}
    assert scripts == {tool.replace("_", "-"): f"gimlet.tools.{tool}:main" for tool in tools}


def test_ignored_patterns_are_anchored(root: Path):
    """Hatchling obeys .gitignore: a loose pattern would drop a shipped file from the wheel."""
    lines = (root / ".gitignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert [pattern for pattern in patterns if not pattern.startswith("/")] == ["__pycache__/"]


# What a distribution is imported as, where that is not its name.
IMPORTED_AS = {"protobuf": "google"}


def imports_of(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    relative = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in plain | relative}


def test_every_import_is_declared_and_every_dependency_imported(
    root: Path, project: dict[str, Any], packages: set[str]
):
    def modules(requirements: list[str]) -> set[str]:
        names = (re.match(r"[\w-]+", line) for line in requirements)
        return {IMPORTED_AS.get(name[0], name[0].replace("-", "_")) for name in names if name}

    needed = modules(project["project"]["dependencies"])
    optional = modules([line for lines in project["project"]["optional-dependencies"].values() for line in lines])
    imported = set().union(*(imports_of(path) for name in packages for path in (root / name).rglob("*.py")))
    imported -= {*sys.stdlib_module_names, "gimlet"}
    assert imported - optional == needed
