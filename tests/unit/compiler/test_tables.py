"""Tables for people: a model's names stay as they are, and no text is cut off."""

import io

import pytest
from rich.console import Console

from gimlet.compiler.progress import Progress
from gimlet.compiler.tables import console_for_tables, figure_table, plain_console


def test_names_that_look_like_markup(capsys: pytest.CaptureFixture[str]):
    """rich read `[red]` as a style and failed at `[/x]`, which ended a command as a bug of ours."""
    console_for_tables().print(figure_table("ops", ("op",), [("a[red]b",), ("c[/x]",)]))
    text = capsys.readouterr().out
    assert "a[red]b" in text
    assert "c[/x]" in text


def test_a_phase_on_a_terminal_may_have_any_name():
    console = plain_console(stderr=True)
    shown = Console(file=io.StringIO(), force_terminal=True, markup=False, highlight=False)
    assert console.stderr
    with Progress(console=shown).phase("import", "model[/x].onnx"):
        pass
    assert "model[/x].onnx" in shown.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_what_a_line_has_no_room_for_is_folded():
    console = Console(file=io.StringIO(), width=20)
    console.print(figure_table("", ("device", "kind"), [("accelerator0", "vendor/part-with-a-name")]))
    lines = console.file.getvalue().splitlines()  # pyright: ignore[reportAttributeAccessIssue]
    rows = [line.split("│") for line in lines if "│" in line]
    cells = ["".join(cell.strip() for cell in column) for column in zip(*rows, strict=True)]
    assert cells == ["accelerator0", "vendor/part-with-a-name"]
