"""A bundle is opened with distrust: every way to spoil one ends in an error that names the file."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import gimlet
from gimlet.runtime.bundle import open_bundle
from gimlet.runtime.errors import CheckError, GimletError, InputError
from gimlet.runtime.manifest import Manifest, Variant

GOLDEN = Path(__file__).parent / "golden" / "schema-5.gimlet"
FILES = sorted(path.relative_to(GOLDEN).as_posix() for path in GOLDEN.rglob("*") if path.is_file())


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the golden bundle, which the first version of the format wrote."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "m.gimlet"))


def rewrite(bundle: Path, change: Callable[[str], str]) -> None:
    """Changes the manifest's text and its hash with it, as someone who forges a bundle would."""
    text = change((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(text)
    (bundle / "manifest.sha256").write_text(hashlib.sha256(text.encode()).hexdigest() + "\n")


@pytest.mark.parametrize("golden", sorted(GOLDEN.parent.glob("*.gimlet")), ids=lambda path: path.name)
def test_a_bundle_of_each_format_runs(golden: Path):
    x = np.array([[-1, 0, 1, 2]], np.float32)
    with gimlet.load(golden, verify_hashes=True) as program:
        np.testing.assert_array_equal(program(x=x)["z"], np.maximum(x, 0) + np.array([1, 2, 3, 4], np.float32))
        if program.states:
            program(x=x)
            np.testing.assert_array_equal(
                program(x, None)["z"][0], np.maximum(x, 0) + np.array([1, 2, 3, 4], np.float32)
            )


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_found(bundle: Path, name: str):
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(CheckError, match=Path(name).stem):
        open_bundle(bundle, verify_hashes=True)


@pytest.mark.parametrize("name", FILES)
def test_a_shortened_file_is_found(bundle: Path, name: str):
    with (bundle / name).open("r+b") as file:
        file.truncate((bundle / name).stat().st_size - 1)
    if name == "manifest.sha256":
        open_bundle(bundle, verify_hashes=True)
        return
    with pytest.raises(CheckError, match=Path(name).stem):
        open_bundle(bundle, verify_hashes=True)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(bundle: Path, name: str):
    (bundle / name).unlink()
    with pytest.raises(InputError, match=Path(name).name):
        open_bundle(bundle, verify_hashes=True)


@pytest.mark.parametrize("name", FILES)
def test_a_link_is_refused(bundle: Path, name: str):
    (bundle / name).rename(bundle.parent / "elsewhere")
    (bundle / name).symlink_to(bundle.parent / "elsewhere")
    with pytest.raises(InputError, match=r"link|is not a regular file"):
        open_bundle(bundle, verify_hashes=True)


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_is_refused_and_not_waited_for(bundle: Path, name: str):
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(InputError, match="is not a regular file"):
        open_bundle(bundle, verify_hashes=True)


def test_a_linked_folder_is_refused(bundle: Path):
    (bundle / "segments").rename(bundle.parent / "elsewhere")
    (bundle / "segments").symlink_to(bundle.parent / "elsewhere")
    with pytest.raises(InputError, match="is reached through a link"):
        gimlet.load(bundle)


def test_a_bundle_itself_may_be_a_link(bundle: Path):
    (bundle.parent / "latest").symlink_to(bundle)
    assert open_bundle(bundle.parent / "latest", verify_hashes=True).root == bundle.resolve()


def test_a_file_that_does_not_belong_is_found(bundle: Path):
    (bundle / "segments" / "extra.bin").write_bytes(b"x")
    with pytest.raises(CheckError, match=r"segments/extra\.bin"):
        open_bundle(bundle, verify_hashes=True)


def test_only_the_files_that_are_used_are_read(bundle: Path):
    (bundle / "module.mlir").write_text("changed")
    gimlet.load(bundle).close()


def test_a_used_file_is_compared_when_it_is_loaded(bundle: Path):
    data = bytearray((bundle / "weights" / "weights.bin").read_bytes())
    data[0] ^= 1
    (bundle / "weights" / "weights.bin").write_bytes(data)
    with pytest.raises(CheckError, match=r"weights\.bin"):
        gimlet.load(bundle)


def test_a_file_is_hashed_once(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    opened = open_bundle(bundle)
    opened.open_file("module.mlir")
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert opened.open_file("module.mlir") == bundle / "module.mlir"


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "segments/../../secret", "", ".", "a\\b", "c:x", "a//b"])
def test_no_path_leaves_the_folder(bundle: Path, path: str):
    (bundle.parent / "secret").write_text("x")
    with pytest.raises(InputError, match="leaves the bundle's folder"):
        open_bundle(bundle).open_file(path)


def test_a_forged_path_is_refused_when_the_manifest_is_read(bundle: Path):
    rewrite(bundle, lambda text: text.replace('"module.mlir"', '"../module.mlir"'))
    with pytest.raises(InputError, match=r"\.\./module\.mlir"):
        open_bundle(bundle)


def test_a_newer_format_says_which_version_reads_it(bundle: Path):
    def newer(text: str) -> str:
        data = json.loads(text) | {"schema": 6, "producer": {"gimlet": "9.1.0"}}
        return json.dumps(data)

    rewrite(bundle, newer)
    with pytest.raises(InputError, match=r"format 6, and this version reads formats 1 to 5; use gimlet 9\.1\.0"):
        open_bundle(bundle)


def test_a_file_that_the_manifest_does_not_list_is_not_opened(bundle: Path):
    (bundle / "extra").write_text("x")
    with pytest.raises(InputError, match="lists no file 'extra'"):
        open_bundle(bundle).open_file("extra")


def test_a_folder_in_place_of_a_file_is_refused(bundle: Path):
    (bundle / "module.mlir").unlink()
    (bundle / "module.mlir").mkdir()
    with pytest.raises(InputError, match=r"module\.mlir"):
        open_bundle(bundle, verify_hashes=True)


def test_what_is_no_bundle_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="there is no such bundle"):
        open_bundle(tmp_path / "nothing")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InputError, match="is a file, not a bundle"):
        open_bundle(tmp_path / "file")
    with pytest.raises(InputError, match=r"holds no manifest\.json"):
        open_bundle(tmp_path)


def with_engine(manifest: Manifest) -> Manifest:
    """The manifest with an engine as the first variant of its segment."""
    from dataclasses import replace

    engine = Variant("onnxruntime", "fp16", ("engine.bin",), undigested=("engine.bin",), key="k1")
    (segment,) = manifest.segments
    return replace(manifest, segments=(replace(segment, variants=(engine, *segment.variants)),))


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda text: text.replace('"k1"', '"k2"'), CheckError),
        (lambda text: text.replace("engine.bin", "other.bin"), CheckError),
        (lambda text: text.replace('"bytes": 4', '"bytes": 5'), CheckError),
        (lambda text: text[:-10], CheckError),
    ],
)
def test_engines_are_compared_too(make_bundle, part, spoil: Callable[[str], str], error: type[GimletError]):
    parts = [part("s0", "cpu", "Relu", ("x",), "y")]
    bundle = make_bundle(parts, change=with_engine, extra={"engine.bin": b"abcd"})
    assert open_bundle(bundle, verify_hashes=True).engines["engine.bin"].key == "k1"
    (bundle / "engines.json").write_text(spoil((bundle / "engines.json").read_text()))
    with pytest.raises(error, match="engine"):
        open_bundle(bundle, verify_hashes=True)


def test_a_changed_engine_is_found(make_bundle, part):
    parts = [part("s0", "cpu", "Relu", ("x",), "y")]
    bundle = make_bundle(parts, change=with_engine, extra={"engine.bin": b"abcd"})
    identity = open_bundle(bundle).id
    (bundle / "engine.bin").write_bytes(b"abce")
    with pytest.raises(CheckError, match=r"engine\.bin"):
        open_bundle(bundle, verify_hashes=True)
    assert open_bundle(bundle).id == identity
