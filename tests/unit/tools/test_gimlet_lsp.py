"""gimlet-lsp, as an editor talks to it: JSON-RPC over the standard streams of a process."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from gimlet.tools.gimlet_lsp import main

pytest.importorskip("pygls", reason="the extra `lsp` is not installed")

URI = "file:///model.mlir"
TEXT = """builtin.module attributes {onnx.dim_bounds = {batch = array<i64: 1, 2, 4>}, onnx.opsets = {"" = 21 : i64}} {
  placement.topology @rack {
    placement.device @cpu {kind = "host"}
  }
  func.func @main(%x: tensor<?x4xf32, #onnx.dims<"batch", "">>) -> tensor<?x4xf32, #onnx.dims<"batch", "">> {
    // a line of comment
    %y = onnx.Relu(%x) {placement.device = @cpu}
        : (tensor<?x4xf32, #onnx.dims<"batch", "">>) -> tensor<?x4xf32, #onnx.dims<"batch", "">>
    func.return %y : tensor<?x4xf32, #onnx.dims<"batch", "">>
  }
}
"""


class Client:
    """As much of an editor as the tests need."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.last = 0
        hello = {"processId": None, "rootUri": None, "capabilities": {}}
        self.capabilities = self.ask("initialize", hello)["capabilities"]
        self.tell("initialized", {})
        self.version = 0

    def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(data), data))
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        length = 0
        while (line := self.process.stdout.readline()) != b"\r\n":
            assert line, "the server has gone"
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return json.loads(self.process.stdout.read(length))

    def tell(self, method: str, params: Any) -> None:
        self.send({"method": method, "params": params})

    def ask(self, method: str, params: Any) -> Any:
        self.last += 1
        self.send({"id": self.last, "method": method, "params": params})
        while (message := self.receive()).get("id") != self.last:
            pass
        assert "error" not in message, message
        return message["result"]

    def show(self, text: str) -> list[dict[str, Any]]:
        """Opens or changes the text, and returns what the server finds wrong with it."""
        self.version += 1
        item = {"uri": URI, "version": self.version}
        if self.version == 1:
            self.tell("textDocument/didOpen", {"textDocument": item | {"languageId": "mlir", "text": text}})
        else:
            self.tell("textDocument/didChange", {"textDocument": item, "contentChanges": [{"text": text}]})
        while (message := self.receive()).get("method") != "textDocument/publishDiagnostics":
            pass
        return message["params"]["diagnostics"]

    def at(self, method: str, text: str, word: str, **more: Any) -> Any:
        """Asks about the first place where `word` is in the text."""
        before = text[: text.index(word)]
        column = len(before.rpartition("\n")[2].encode("utf-16-le")) // 2
        position = {"line": before.count("\n"), "character": column + 1}
        return self.ask(f"textDocument/{method}", {"textDocument": {"uri": URI}, "position": position, **more})


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    command = [sys.executable, "-m", "gimlet.tools.gimlet_lsp"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        made = Client(process)
        yield made
        made.ask("shutdown", None)
        made.tell("exit", None)
        assert process.wait(30) == 0


def place(text: str, word: str, number: int = 0) -> dict[str, Any]:
    """The range of the n-th `word` in the text."""
    offset = -1
    for _ in range(number + 1):
        offset = text.index(word, offset + 1)
    line = text.count("\n", 0, offset)
    column = offset - (text.rfind("\n", 0, offset) + 1)
    return {"start": {"line": line, "character": column}, "end": {"line": line, "character": column + len(word)}}


def test_it_says_what_it_can(client: Client):
    for name in ("hoverProvider", "definitionProvider", "referencesProvider", "documentSymbolProvider"):
        assert client.capabilities[name]


def test_right_ir_has_no_diagnostics(client: Client):
    assert client.show(TEXT) == []


def test_every_operation_that_does_not_parse_is_found_where_it_is(client: Client):
    wrong = TEXT.replace(
        "    func.return",
        "    %a = onnx.Relu(%y : (tensor<4xf32>) -> tensor<4xf32>\n"
        "    %b = onnx.NoSuch(%a) : (tensor<4xf32>) -> tensor<4xf32>\n"
        "    %c = onnx.Sqrt(%nowhere) : (tensor<4xf32>) -> tensor<4xf32>\n"
        "    %d = onnx.Sqrt(%b) : (tensor<4xf32>) -> tensor<4xf32>\n"
        "    func.return",
    )
    found = client.show(wrong)
    assert [(item["range"]["start"]["line"], item["message"]) for item in found] == [
        (8, "')' expected"),
        (9, "Operation onnx.NoSuch is not registered"),
        (10, "%nowhere is used but not defined"),
    ]
    assert found[2]["range"] == place(wrong, "%nowhere")
    assert client.show(TEXT) == []


def test_every_operation_that_does_not_verify_is_found_where_it_is(client: Client):
    wrong = TEXT.replace('"host"', '""').replace(
        "func.return",
        '%z = onnx.Add(%y) : (tensor<?x4xf32, #onnx.dims<"batch", "">>) -> tensor<4xf32>\n    func.return',
    )
    found = client.show(wrong)
    assert [item["range"]["start"]["line"] for item in found] == [2, 8]
    assert "empty kind" in found[0]["message"]
    assert found[0]["range"]["start"]["character"] == 4


@pytest.mark.parametrize(
    "text", ["", "}", "%", '"', "func.func @f(", "builtin.module {", "#", "\0", "func.func @f() {"]
)
def test_a_text_that_has_just_been_begun_is_no_crash(text: str, client: Client):
    client.show(text)
    client.at("hover", f"{text} ", " ")
    client.ask("textDocument/documentSymbol", {"textDocument": {"uri": URI}})


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("%y", ["tensor<?x4xf32", "shape batch × 4", "`batch`: 1 to 4, placed at 2", "FLOPs | `4*batch` | 8 |"]),
        ("%x", ["argument 0"]),
        ("onnx.Relu", ["rectified linear function", "| bytes read | `16*batch` | 32 B |", "runs on @cpu", "`X`: "]),
        ("@cpu}", ['placement.device @cpu {kind = "host"}']),
        ('batch", ""', ["dimension `batch`: 1 to 4, placed at 2"]),
        ("placement.device @cpu", ["**placement.device**"]),
    ],
)
def test_hover_says_what_a_thing_is(word: str, expected: list[str], client: Client):
    client.show(TEXT)
    text = client.at("hover", TEXT, word)["contents"]["value"]
    assert [part for part in expected if part not in text] == []


def test_hover_on_nothing_is_nothing(client: Client):
    client.show(TEXT)
    assert client.at("hover", TEXT, "kind = ") is None


@pytest.mark.parametrize(
    ("word", "target", "number"),
    [("%y : tensor", "%y", 0), ("%x)", "%x", 0), ("@cpu}", "@cpu", 0), ('batch", ""', "batch", 0)],
)
def test_go_to_definition(word: str, target: str, number: int, client: Client):
    client.show(TEXT)
    assert client.at("definition", TEXT, word) == {"uri": URI, "range": place(TEXT, target, number)}


def test_references_with_and_without_the_definition(client: Client):
    client.show(TEXT)
    found = client.at("references", TEXT, "%x)", context={"includeDeclaration": True})
    assert [item["range"] for item in found] == [place(TEXT, "%x"), place(TEXT, "%x", 1)]
    found = client.at("references", TEXT, "%x)", context={"includeDeclaration": False})
    assert [item["range"] for item in found] == [place(TEXT, "%x", 1)]
    assert len(client.at("references", TEXT, "@cpu", context={"includeDeclaration": True})) == 2
    assert len(client.at("references", TEXT, 'batch", ""', context={"includeDeclaration": True})) == 6


def test_a_name_is_looked_up_in_its_own_scope(client: Client):
    text = (
        "func.func @f(%v: i32) -> i32 { func.return %v : i32 }\nfunc.func @g(%v: i64) -> i64 { func.return %v : i64 }\n"
    )
    client.show(text)
    assert client.at("definition", text, "%v : i64")["range"] == place(text, "%v", 2)


def test_columns_count_in_utf16(client: Client):
    op = '"test.op"(%v) {note = "𝄞é"} : (i32) -> ()'
    text = f"func.func @f(%v: i32) {{\n  {op} {op}\n  func.return }}\n"
    assert client.show(text) == []
    found = client.at("references", text, "%v", context={"includeDeclaration": True})
    line = text.splitlines()[1]
    assert found[2]["range"]["start"]["character"] == len(line[: line.rindex("%v")]) + 1


def test_the_outline_has_functions_devices_and_values(client: Client):
    client.show(TEXT)

    def names(symbols: list[dict[str, Any]]) -> list[Any]:
        return [(item["name"], names(item["children"])) for item in symbols]

    found = client.ask("textDocument/documentSymbol", {"textDocument": {"uri": URI}})
    assert names(found) == [("module", [("@rack", [("@cpu", [])]), ("@main", [("%y", [])])])]


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(sys.modules, "pygls.lsp.server", None)
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 3
    assert "pip install 'gimlet-compiler[lsp]'" in capsys.readouterr().err
