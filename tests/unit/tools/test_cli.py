"""What all commands have in common."""

import importlib
import importlib.metadata

import pytest

from gimlet import __version__

COMMANDS = sorted(p.name for p in importlib.metadata.entry_points(group="console_scripts") if p.name[:7] == "gimlet-")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_its_version_and_its_options(name: str, capsys: pytest.CaptureFixture[str]):
    main = importlib.import_module(f"gimlet.tools.{name.replace('-', '_')}").main
    for flag, expected in (("--version", __version__), ("-h", "--help"), ("--help", "--version")):
        with pytest.raises(SystemExit) as stop:
            main([flag])
        assert stop.value.code == 0
        assert expected in capsys.readouterr().out
