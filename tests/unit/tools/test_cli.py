"""What all commands have in common."""

import importlib
import importlib.metadata
import json

import pytest

from gimlet import __version__
from gimlet.tools.cli import print_json

COMMANDS = sorted(p.name for p in importlib.metadata.entry_points(group="console_scripts") if p.name[:7] == "gimlet-")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_its_version_and_its_options(name: str, capsys: pytest.CaptureFixture[str]):
    main = importlib.import_module(f"gimlet.tools.{name.replace('-', '_')}").main
    for flag, expected in (("--version", __version__), ("-h", "--help"), ("--help", "--version")):
        with pytest.raises(SystemExit) as stop:
            main([flag])
        assert stop.value.code == 0
        assert expected in capsys.readouterr().out


def test_what_is_no_number_is_null_in_json(capsys: pytest.CaptureFixture[str]):
    print_json({"far": float("inf"), "rows": [1.5, float("nan"), ("a", True)]})
    assert json.loads(capsys.readouterr().out) == {"far": None, "rows": [1.5, None, ["a", True]]}
