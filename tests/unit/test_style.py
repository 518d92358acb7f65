"""The rules of CONTRIBUTING.md that a program can check, over every file of the package."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("compiler", "dialects", "passes", "runtime", "targets", "tools")
EVERYWHERE = (*PACKAGES, "benchmarks", "examples", "tests")
LONGEST_FILE = 600

# Turns what is left over into a bug report, what a user's own file raises into an error about that file, or hands what
# a run raises to whoever waits for it.
# The model's own function may raise anything, and so may a user's pass.
MAY_CATCH_EVERYTHING = {
    "tools/cli.py", "compiler/plugins.py", "compiler/frontends/python_callable.py", "runtime/states.py"
}  # fmt: skip

VENDORS = re.compile(
    r"(?i)nvidia|tensorrt|trtexec|cuda|corsair|d-?matrix|migraphx|rocm|openvino|\bamd\b|\bintel\b|\b(a100|h100|h200|b200|l40s|mi300x)\b"
)
# Where vendors are the subject: their own folders, the hardware's description, the table that finds them, and the page
# that sets them side by side.
POSSESSIVE_GROUP = r"\)[*+?}]\+(?!\+)"
MAY_NAME_VENDORS = re.compile(
    r"targets/[^/]+/|compiler/hardware/|runtime/executors/|(targets/registry|tools/support_matrix)\.py$"
)


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), path.name)


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(syntax(path)))


def tokens(path: Path) -> Iterator[tokenize.TokenInfo]:
    return tokenize.generate_tokens(io.StringIO(path.read_text()).readline)


def docstrings(path: Path) -> set[int]:
    """The lines on which the file's docstrings start."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        node.body[0].lineno
        for node in nodes(path)
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None
    }


def pass_classes(path: Path) -> list[ast.ClassDef]:
    return [
        node
        for node in syntax(path).body
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Pass") for base in node.bases)
    ]


PASSES = [path for path in files("passes") if pass_classes(path)]


def test_no_file_is_too_long():
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in files(*EVERYWHERE)}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_every_module_says_what_it_is():
    written = (path for path in files(*PACKAGES) if path.stat().st_size)
    assert [name_of(path) for path in written if not ast.get_docstring(syntax(path))] == []


def blind_handlers(path: Path) -> Iterator[int]:
    for node in nodes(path):
        if isinstance(node, ast.ExceptHandler):
            caught = "" if node.type is None else ast.unparse(node.type)
            if node.type is None or re.search(r"\b(Base)?Exception\b", caught):
                yield node.lineno


def blind_raises(path: Path) -> Iterator[int]:
    for node in nodes(path):
        if isinstance(node, ast.Raise) and node.exc is not None:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if ast.unparse(raised) in {"Exception", "BaseException", "NotImplementedError"}:
                yield node.lineno


def test_errors_are_caught_and_raised_by_name():
    raised = [f"{name_of(path)}:{line}" for path in files(*PACKAGES) for line in blind_raises(path)]
    assert raised == []
    held = (path for path in files(*PACKAGES) if name_of(path) not in MAY_CATCH_EVERYTHING)
    assert [f"{name_of(path)}:{line}" for path in held for line in blind_handlers(path)] == []


def test_nothing_is_left_for_later():
    later = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    suspects = (path for path in files(*PACKAGES) if later.search(path.read_text()))
    found = [
        f"{name_of(path)}:{t.start[0]}: {t.string}"
        for path in suspects
        for t in tokens(path)
        if t.type == tokenize.COMMENT and later.search(t.string)
    ]
    assert found == []


def test_groups_of_expressions_may_go_back():
    """Python before 3.11.5 matches a possessive quantifier of a group wrongly; one of a class of characters is fine."""
    assert re.search(POSSESSIVE_GROUP, r"(?:a|b)" + "*+")
    texts = (node.value for path in files(*PACKAGES) for node in nodes(path) if isinstance(node, ast.Constant))
    assert [text for text in texts if isinstance(text, str) and re.search(POSSESSIVE_GROUP, text)] == []


def vendors_named(path: Path) -> Iterator[str]:
    if not VENDORS.search(path.read_text()):
        return
    skipped = docstrings(path)
    code = (t for t in tokens(path) if t.type in {tokenize.NAME, tokenize.STRING} and t.start[0] not in skipped)
    yield from (f"{name_of(path)}:{t.start[0]}: {t.string}" for t in code if VENDORS.search(t.string))


def test_vendors_are_named_in_their_own_folders_only():
    held = (path for path in files(*PACKAGES) if not MAY_NAME_VENDORS.match(name_of(path)))
    assert [found for path in held for found in vendors_named(path)] == []


@pytest.mark.parametrize("path", PASSES, ids=name_of)
def test_a_pass_has_one_spelling(path: Path):
    (definition,) = pass_classes(path)
    assert definition.name == "".join(word.capitalize() for word in path.stem.split("_")) + "Pass"
    names = [
        node.value.value
        for node in definition.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(node.value, ast.Constant)
        and ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target) == "name"
    ]
    spelled = path.stem.replace("_", "-")
    assert names == [spelled]
    assert (ROOT / "tests" / "filecheck" / "passes" / f"{spelled}.mlir").is_file()


@pytest.mark.parametrize("path", PASSES, ids=name_of)
def test_a_pass_is_documented_by_example(path: Path):
    text = ast.get_docstring(pass_classes(path)[0]) or ""
    sentence = text.split("\n\n")[0].rstrip()
    assert sentence.endswith(".")
    assert len(re.findall(r"^```mlir$", text, re.MULTILINE)) == 2, "one fence before, one after"


def test_the_registry_lists_every_pass():
    table = (ROOT / "passes" / "registry.py").read_text()
    listed = set(re.findall(r'"gimlet\.passes\.(\w+):(\w+)"', table))
    assert listed == {(path.stem, pass_classes(path)[0].name) for path in PASSES}


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `code`."""
    program = f"import sys\n{code}\nsys.stderr.write(' '.join(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_the_runtime_starts_without_the_compiler():
    loaded = modules_after("import gimlet.runtime")
    assert "gimlet" in loaded
    assert loaded & {"torch", "xdsl", "onnx", "onnx_ir", "onnxscript", "ortools", "pydantic", "rich", "sympy"} == set()


@pytest.mark.parametrize("tool", sorted(path.stem for path in (ROOT / "tools").glob("gimlet_*.py")))
def test_help_is_quick(tool: str):
    """No tool loads torch, the solver or a vendor's library to say how it is called."""
    code = f"""
from gimlet.tools.{tool} import main
try:
    main(["--help"])
except SystemExit as stop:
    assert stop.code in (0, None)
"""
    assert modules_after(code) & {"torch", "transformers", "ortools", "tensorrt_rtx", "onnxscript"} == set()


def test_ir_is_read_and_printed_without_what_reads_models(tmp_path: Path):
    """`onnx_ir` loads sympy, and both take longer than all else that gimlet-opt does with a small file."""
    (tmp_path / "relu.mlir").write_text(
        """func.func @main(%x : tensor<4xf32>) -> tensor<4xf32> {
  %y = "onnx.Relu"(%x) : (tensor<4xf32>) -> tensor<4xf32>
  func.return %y : tensor<4xf32>
}
"""
    )
    code = f"""
from gimlet.tools.gimlet_opt import main
try:
    main([{str(tmp_path / "relu.mlir")!r}, "-p", "canonicalize-onnx"])
except SystemExit as stop:
    assert not stop.code
"""
    loaded = modules_after(code)
    assert "xdsl" in loaded
    assert loaded & {"onnx", "onnx_ir", "sympy", "torch", "ortools"} == set()
