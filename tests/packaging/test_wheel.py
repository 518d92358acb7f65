"""What is published works: the wheel holds every module, and the runtime starts from it in a bare environment."""

import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.full
PACKAGES = ("compiler", "dialects", "passes", "runtime", "targets", "tools")


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist; the wheel is made from the sdist, as an index would make it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(root)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def tracked(root: Path) -> set[str]:
    """The files of the packages that git knows, but for READMEs."""
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=root, check=True, capture_output=True, text=True)
    return {name for name in listed.stdout.split() if not name.endswith("README.md") and (root / name).exists()}


def test_the_wheel_holds_every_tracked_file_once(root: Path, built: Path):
    (wheel,) = built.glob("*.whl")
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert {name.partition("/")[0] for name in names} == {"gimlet"}
    assert len(names) == len(set(names))
    expected = {f"gimlet/{name}" for name in tracked(root)} | {"gimlet/__init__.py", "gimlet/py.typed"}
    assert sorted(expected - set(names)) == []


def test_the_sdist_holds_every_tracked_file(root: Path, built: Path):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert sorted((tracked(root) | {"LICENSE", "README.md", "pyproject.toml"}) - names) == []


def pin(root: Path, name: str) -> str:
    found = re.search(rf"(?mi)^{name}==.*$", (root / "constraints.txt").read_text())
    assert found
    return found[0]


def test_the_runtime_starts_in_a_bare_environment(root: Path, built: Path, tmp_path: Path):
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "bare", with_pip=True)
    python = tmp_path / "bare" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, pin(root, "numpy"), pin(root, "onnxruntime")], check=True, capture_output=True)
    subprocess.run([*install, "--no-deps", str(wheel)], check=True, capture_output=True)
    code = "import gimlet, sys; gimlet.load; print(*{'torch', 'xdsl', 'onnx', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([str(python), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
