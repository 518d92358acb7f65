"""The cache of answers: what cannot be kept only costs time."""

from pathlib import Path

from gimlet.targets.answers import keep_text


def test_a_cache_that_cannot_be_written_to_keeps_nothing(tmp_path: Path):
    (tmp_path / "cache").write_text("no folder")
    keep_text(tmp_path / "cache" / "timings" / "a.json", "{}")
    keep_text(tmp_path / "new" / "a.json", "{}")
    assert (tmp_path / "new" / "a.json").read_text() == "{}"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]
