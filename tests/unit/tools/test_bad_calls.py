"""What a call that cannot work says: a message with what to do and the documented exit code, never a bug of ours."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import onnx
import pytest
from onnx import helper

import gimlet
from gimlet.runtime.errors import InputError, UsageError
from gimlet.tools import gimlet_compare, gimlet_compile, gimlet_place, gimlet_run
from gimlet.tools.files import check_outputs, writing

Main = Callable[[list[str]], NoReturn]
FILES = ["--save-placement", "--save-costs", "--save-problem", "--report"]


def model(*shape: int, outputs: int = 1) -> onnx.ModelProto:
    """Each output is Relu(x)."""
    names = [f"y{index}" for index in range(outputs)]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", *names)]
    nodes = [helper.make_node("Relu", ["x"], [name], name=name) for name in names]
    graph = helper.make_graph(nodes, "small", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(model(2, 3), "m.onnx")
    (tmp_path / "folder").mkdir()
    return tmp_path


def refused(main: Main, capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    """The exit code, and all that was printed."""
    with pytest.raises(SystemExit) as stop:
        main(list(args))
    printed = capsys.readouterr()
    return int(str(stop.value.code)), printed.out + printed.err


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("flag", FILES)
@pytest.mark.parametrize(("path", "said"), [("folder", "is a folder"), ("none/f", "there is no folder none")])
def test_a_file_that_cannot_be_written_is_refused_first(
    flag: str, path: str, said: str, capsys: pytest.CaptureFixture[str]
):
    code, text = refused(gimlet_compile.main, capsys, "m.onnx", "--dry-run", flag, path)
    assert code == 2
    assert f"{flag}: " in text
    assert said in text
    assert "import m.onnx" not in text


@pytest.mark.usefixtures("here")
def test_ir_and_traces_cannot_be_written_to_a_folder(capsys: pytest.CaptureFixture[str]):
    code, text = refused(gimlet_compile.main, capsys, "m.onnx", "--to", "place", "-o", "folder")
    assert (code, "--output: folder is a folder" in text) == (2, True)
    code, text = refused(gimlet_run.main, capsys, "m.gimlet", "--random", "--profile", "folder")
    assert (code, "--profile: folder is a folder" in text) == (2, True)


def test_what_may_not_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(gimlet_compile.UsageError, match="may not be written"):
        check_outputs({"--report": tmp_path / "r.html", "--save-costs": None})


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("args", [["--to", "import", "--dump-ir", "new/ir"], ["-o", "new.gimlet"]])
def test_a_folder_that_may_not_be_written_is_refused_first(
    args: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    code, text = refused(gimlet_compile.main, capsys, "m.onnx", *args)
    assert (code, "may not be written" in text, "import m.onnx" in text) == (2, True, False)
    assert not Path("new").exists()


def test_a_write_that_fails_names_the_flag(tmp_path: Path):
    with (
        pytest.raises(InputError, match=r"--save-costs: .*cannot be written: Is a directory"),
        writing(tmp_path, "--save-costs"),
    ):
        tmp_path.write_text("x")


def test_half_of_a_new_file_does_not_stay_and_an_old_file_does(tmp_path: Path):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text("{}")
    for path in (old, new):
        with pytest.raises(InputError, match="No space left"), writing(path, "--save-costs"):  # noqa: PT012
            path.write_text("{")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--pin", "(=cpu"], 2, "--pin: the expression '(' does not parse"),
        (["--together", "("], 2, "--together: the expression '(' does not parse"),
        (["--apart", "a", "["], 2, "--apart: the expression '[' does not parse"),
        (["--placement", "none.json"], 2, "there is no file none.json"),
        (["--placement", "later.json"], 1, "later.json: the placement has schema 2, not 1"),
        (["--placement", "open.json"], 2, "open.json: the expression '(' does not parse"),
        (["--costs", "none.json"], 2, "there is no file none.json"),
    ],
)
def test_what_placement_cannot_read_is_refused_first(
    here: Path, flags: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
):
    (here / "later.json").write_text('{"schema": 2}', encoding="utf-8")
    (here / "open.json").write_text('{"schema": 1, "rules": [{"match": "(", "device": "cpu"}]}', encoding="utf-8")
    found, text = refused(gimlet_compile.main, capsys, "m.onnx", "--dry-run", *flags)
    assert (found, said in text, "import m.onnx" in text) == (code, True, False), text


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--time-limit", "nan"], "'nan' is no number of seconds"),
        (["--seed", "-1"], "-1 is not in the range"),
        (["--cost-provider", "gpu7=measured"], "there is no device 'gpu7'"),
        (["--placement", "folder"], "folder is a folder, not a file"),
        (["--loss-budget", "1%", "--loss-input", "x"], "--loss-input: cannot read 'x'"),
        (["--loss-budget", "2"], "'2' is no budget for losses"),
        (["--loss-budget", "-1%"], "'-1%' is no budget for losses"),
        (["--loss-budget", "nan"], "'nan' is no budget for losses"),
    ],
)
def test_options_that_mean_nothing(args: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    code, text = refused(gimlet_compile.main, capsys, "m.onnx", "--dry-run", *args)
    assert code == 2
    assert said in text


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("output", "said"), [("out.onnx", "write out.gimlet"), ("out.mlir", "IR is written with --to PHASE")]
)
def test_a_bundle_is_not_called_like_a_file(output: str, said: str, capsys: pytest.CaptureFixture[str]):
    code, text = refused(gimlet_compile.main, capsys, "m.onnx", "-o", output)
    assert (code, said in text, Path(output).exists(), "import m.onnx" in text) == (2, True, False, False), text


@pytest.mark.usefixtures("here")
def test_ir_is_no_reference_and_is_refused_before_the_work(capsys: pytest.CaptureFixture[str]):
    Path("m.mlir").write_text("builtin.module {}")
    code, text = refused(gimlet_compile.main, capsys, "m.mlir", "-o", "m.gimlet", "--verify")
    assert code == 2
    assert "m.mlir has no reference to compare with" in text
    assert "import m.mlir" not in text


@pytest.mark.usefixtures("here")
def test_a_solver_without_a_time(capsys: pytest.CaptureFixture[str]):
    code, text = refused(gimlet_place.main, capsys, "p.json", "--time-limit", "nan")
    assert (code, "no number of seconds" in text) == (2, True)


def test_files_of_another_kind(here: Path, capsys: pytest.CaptureFixture[str]):
    (here / "latin.mlir").write_bytes(b"caf\xe9")
    (here / "latin.json").write_bytes(b"caf\xe9")
    code, text = refused(gimlet_compile.main, capsys, "latin.mlir", "--dry-run")
    assert (code, "is not text in UTF-8, so no IR" in text) == (1, True)
    code, text = refused(gimlet_compile.main, capsys, "m.onnx", "--dry-run", "--placement", "latin.json")
    assert (code, "is not text in UTF-8, so no JSON" in text) == (1, True)
    code, text = refused(gimlet_compile.main, capsys, "folder", "--dry-run")
    assert (code, "folder is a folder, not a model" in text) == (2, True)


def test_code_of_the_user_that_fails(here: Path, capsys: pytest.CaptureFixture[str]):
    (here / "raises_badly.py").write_text("def made():\n    raise ValueError('boom')\n")
    (here / "does_not_parse.py").write_text("x = = 1\n")
    code, text = refused(gimlet_compile.main, capsys, "raises_badly:made", "--dry-run")
    assert code == 1
    assert "made() failed at raises_badly.py:2: ValueError: boom" in text
    code, text = refused(gimlet_compile.main, capsys, "does_not_parse:made", "--dry-run")
    assert code == 1
    assert "import does_not_parse failed: SyntaxError" in text
    assert "does_not_parse.py, line 1" in text


@pytest.mark.usefixtures("here")
def test_a_bundle_is_compared_with_another_model(capsys: pytest.CaptureFixture[str]):
    gimlet.compile(model(2, 3), output="m.gimlet")
    other = model(2, 3)
    other.graph.node[0].input[0] = other.graph.input[0].name = "z"
    onnx.save(other, "other.onnx")
    onnx.save(model(2, 3, outputs=2), "outputs.onnx")
    code, text = refused(gimlet_compare.main, capsys, "m.gimlet", "--ref", "other.onnx", "--json")
    said = json.loads(text)
    assert (code, said["hint"]) == (
        1,
        "is it the model that the bundle was compiled from, and are these inputs for it?",
    )
    assert "does not run on these inputs" in said["message"]
    code, text = refused(gimlet_compare.main, capsys, "m.gimlet", "--ref", "outputs.onnx")
    assert (code, "has 2 outputs, and the bundle 1" in text) == (1, True)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--to", "split", "--dry-run"], "--dry-run: has no effect with --to split"),
        (["--to", "split", "--verify"], "--verify: has no effect with --to split"),
        (["--to", "split", "--explain"], "--explain: has no effect with --to split"),
        (["--to", "annotate", "--save-costs", "c.json"], "--save-costs: has no effect with --to annotate"),
        (["--dry-run", "--verify"], "--verify: has no effect with --dry-run"),
    ],
)
def test_flags_that_would_be_ignored_are_refused(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    code, text = refused(gimlet_compile.main, capsys, "m.onnx", *flags)
    assert (code, said in text) == (2, True)


@pytest.mark.usefixtures("here")
def test_models_that_cannot_be_read_are_no_reference(capsys: pytest.CaptureFixture[str]):
    gimlet.compile("m.onnx", output="m.gimlet")
    tensor = onnx.TensorProto(name="w", dims=[2, 3], data_type=onnx.TensorProto.FLOAT, data_location="EXTERNAL")
    tensor.external_data.add(key="location", value="gone.data")
    without_data = model(2, 3)
    without_data.graph.initializer.append(tensor)
    without_data.graph.node[0].input[0] = "w"
    files = {
        "short.onnx": (without_data.SerializeToString()[:40], "is cut short"),
        "empty.onnx": (b"", "the file is empty"),
        "gone.onnx": (without_data.SerializeToString(), "gone.data"),
    }
    for name, (content, said) in files.items():
        Path(name).write_bytes(content)
        code, text = refused(gimlet_compare.main, capsys, "m.gimlet", "--ref", name)
        assert (code, said in text) == (1, True), text


@pytest.mark.usefixtures("here")
def test_a_segment_to_look_into_is_one_of_the_bundle(capsys: pytest.CaptureFixture[str]):
    gimlet.compile("m.onnx", output="m.gimlet")
    given = ("m.gimlet", "--ref", "m.onnx", "--segment", "s7")
    code, text = refused(gimlet_compare.main, capsys, *given)
    assert (code, "--segment: there is nothing to look for" in text) == (2, True)
    code, text = refused(gimlet_compare.main, capsys, *given, "--bisect")
    assert (code, "there is no segment 's7'" in text, "the segments are: s0" in text) == (2, True, True)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["pins", "formats", "min_shares", "bounds", "cost_providers", "states"])
def test_an_argument_as_the_command_takes_it_is_refused(name: str):
    asked: dict[str, Any] = {name: ["Relu=cpu"]}
    with pytest.raises(UsageError, match=f"{name} is a list, not a mapping"):
        gimlet.compile("m.onnx", output="m.gimlet", **asked)
