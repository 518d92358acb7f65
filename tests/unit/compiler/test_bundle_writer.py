"""A bundle is written whole or not at all, and the same input gives the same bytes."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gimlet.compiler.bundle import BundleWriter, check_target
from gimlet.runtime.bundle import open_bundle
from gimlet.runtime.errors import InputError, UsageError
from gimlet.runtime.manifest import Variant


@pytest.fixture
def write(make_bundle, part) -> Callable[..., Path]:
    """Writes a small bundle."""
    return lambda **options: make_bundle([part("s0", "cpu", "Add", ("x",), "y", weight=(1.0,) * 4)], **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(bundle: Path) -> dict[str, bytes]:
    return {str(path.relative_to(bundle)): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}


def test_the_same_input_gives_the_same_bytes_and_id(write):
    first, second = write(name="a.gimlet"), write(name="b.gimlet")
    assert contents(first) == contents(second)
    assert open_bundle(first).id == open_bundle(second).id


def test_engines_are_outside_the_id(write):
    def engine(manifest: Any) -> Any:
        from dataclasses import replace

        variant = Variant("onnxruntime", "fp16", ("e.bin",), undigested=("e.bin",), key="k")
        (segment,) = manifest.segments
        return replace(manifest, segments=(replace(segment, variants=(variant, *segment.variants)),))

    builds = [write(name=f"{i}.gimlet", extra={"e.bin": bytes([i])}, change=engine) for i in range(2)]
    assert open_bundle(builds[0]).id == open_bundle(builds[1]).id
    assert (builds[0] / "engines.json").read_bytes() != (builds[1] / "engines.json").read_bytes()
    with pytest.raises(InputError, match=r"engine 'e\.bin' was not built and is not marked deferred"):
        write(name="c.gimlet", change=engine)


def fail_half_way(target: Path, error: BaseException, *, force: bool = False) -> None:
    """Writes a file and a folder, and then raises."""
    with BundleWriter(target, force=force) as writer:
        writer.write_text("module.mlir", "text")
        writer.segment_folder("s0")
        assert any(name.startswith(f".{target.name}.tmp-") for name in names(target.parent))
        raise error


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt(), SystemExit(3)])
def test_nothing_is_left_after_an_error(tmp_path: Path, error: BaseException):
    with pytest.raises(type(error)):
        fail_half_way(tmp_path / "m.gimlet", error)
    assert names(tmp_path) == []


def test_leaving_without_commit_writes_nothing(tmp_path: Path):
    with BundleWriter(tmp_path / "m.gimlet") as writer:
        writer.write_text("module.mlir", "text")
    assert names(tmp_path) == []


def test_an_existing_bundle_is_replaced_by_force_only(write, tmp_path: Path):
    path = write()
    before = contents(path)
    with pytest.raises(UsageError, match=r"m\.gimlet: exists already\n  hint: give --force") as caught:
        write()
    assert caught.value.exit_code == 2
    assert contents(path) == before
    write(force=True, extra={"note.txt": b"new"})
    assert (path / "note.txt").read_bytes() == b"new"
    assert names(tmp_path) == ["m.gimlet"]


def test_a_failed_replacement_keeps_the_old_bundle(write, tmp_path: Path):
    path = write()
    before = contents(path)
    with pytest.raises(ZeroDivisionError):
        fail_half_way(path, ZeroDivisionError(), force=True)
    assert contents(path) == before
    assert names(tmp_path) == ["m.gimlet"]


@pytest.mark.parametrize("step", [0, 1])
def test_a_rename_that_fails_keeps_the_old_bundle(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int):
    path = write()
    before = contents(path)
    rename, calls = Path.rename, []

    def failing(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) - 1 == step:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(InputError, match="cannot be written: Input/output error"):
        write(force=True, extra={"note.txt": b"new"})
    assert contents(path) == before
    assert names(tmp_path) == ["m.gimlet"]


def test_force_never_removes_what_is_no_bundle(tmp_path: Path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("years")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "work")
    for name, message in (("work", r"holds no manifest\.json"), ("file", "is not a folder"), ("link", "not a folder")):
        with pytest.raises(UsageError, match=message):
            check_target(tmp_path / name, force=True)
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty", force=True)
    with pytest.raises(UsageError, match="there is no folder"):
        check_target(tmp_path / "nowhere" / "m.gimlet", force=False)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("moment", ["while a target emits", "while the manifest is written"])
def test_a_full_disk_says_so_and_leaves_nothing(
    write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, moment: str
):
    if moment == "while a target emits":
        with pytest.raises(InputError, match="the disk is full"):
            fail_half_way(tmp_path / "m.gimlet", OSError(code, os.strerror(code)))
    else:
        write_bytes = Path.write_bytes

        def full(self: Path, data: bytes) -> int:
            if self.name == "manifest.json":
                raise OSError(code, os.strerror(code))
            return write_bytes(self, data)

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(InputError, match="the disk is full") as caught:
            write()
        assert caught.value.exit_code == 1
    assert names(tmp_path) == []


def test_an_error_of_another_file_stays_what_it_is(tmp_path: Path):
    with pytest.raises(FileNotFoundError), BundleWriter(tmp_path / "m.gimlet"):
        (tmp_path / "model.onnx").read_bytes()


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(self: Path, *_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match=r"m\.gimlet: cannot be written: Permission denied"):
        BundleWriter(tmp_path / "m.gimlet").__enter__()


# A process that a shell starts in the background ignores SIGINT, and so do its children unless they ask for it.
KILLED = """
import signal, sys, time
from pathlib import Path
from gimlet.compiler.bundle import BundleWriter
signal.signal(signal.SIGINT, signal.default_int_handler)
with BundleWriter(Path(sys.argv[1])) as writer:
    writer.write_text("module.mlir", "half")
    print("writing", flush=True)
    time.sleep(60)
"""


def interrupted(target: Path, number: signal.Signals) -> int:
    """A writer in another process that gets a signal half way. Its exit status."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        process.send_signal(number)
        return process.wait()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_stopped_writer_cleans_up(tmp_path: Path, number: signal.Signals, status: int):
    assert interrupted(tmp_path / "m.gimlet", number) == status
    assert names(tmp_path) == []


def test_what_a_killed_writer_leaves_is_no_bundle_and_goes_next_time(write, tmp_path: Path):
    interrupted(tmp_path / "m.gimlet", signal.SIGKILL)
    (left,) = names(tmp_path)
    assert left.startswith(".m.gimlet.tmp-")
    with pytest.raises(InputError, match="is not a bundle"):
        open_bundle(tmp_path / left)
    write()
    assert names(tmp_path) == ["m.gimlet"]


def test_a_bundle_that_was_moved_aside_and_not_replaced_comes_back(write, tmp_path: Path):
    path = write()
    before = contents(path)
    path.rename(tmp_path / ".m.gimlet.old-0123")
    with pytest.raises(ZeroDivisionError):
        fail_half_way(path, ZeroDivisionError(), force=True)
    assert contents(path) == before
    assert names(tmp_path) == ["m.gimlet"]


def test_another_writer_at_work_is_left_alone(tmp_path: Path):
    with BundleWriter(tmp_path / "m.gimlet") as first, BundleWriter(tmp_path / "m.gimlet") as second:
        assert first.root.is_dir()
        assert second.root.is_dir()
        assert first.root != second.root


def test_a_handler_of_the_program_s_own_is_kept(tmp_path: Path):
    mine = lambda number, frame: None  # noqa: E731
    before = signal.signal(signal.SIGTERM, mine)
    try:
        with BundleWriter(tmp_path / "m.gimlet"):
            assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
    with BundleWriter(tmp_path / "m.gimlet"):
        assert signal.getsignal(signal.SIGTERM) not in (mine, signal.SIG_DFL)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_names_that_leave_the_bundle_are_refused(tmp_path: Path):
    with BundleWriter(tmp_path / "m.gimlet") as writer:
        for name in ("../x", "/x", "a/../../x"):
            with pytest.raises(InputError, match="leaves the bundle's folder"):
                writer.segment_folder(name)
            with pytest.raises(InputError, match="leaves the bundle's folder"):
                writer.write_text(name, "x")


def test_a_link_among_the_files_is_refused(write, tmp_path: Path):
    manifest = open_bundle(write(name="other.gimlet")).manifest
    with BundleWriter(tmp_path / "m.gimlet") as writer:
        (writer.root / "link").symlink_to(tmp_path)
        with pytest.raises(InputError, match="'link' is a link"):
            writer.commit(manifest)


def test_special_characters_in_a_name_are_taken_as_they_are(write, tmp_path: Path):
    (tmp_path / ".m1.gimlet.tmp-0123").mkdir()
    write(name="m[1].gimlet")
    assert names(tmp_path) == [".m1.gimlet.tmp-0123", "m[1].gimlet"]
