"""What can be compiled, and what is said about the rest."""

import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper
from tests.unit.dialects.onnx_cases import context, exported, model_of, run
from torch.export import Dim
from xdsl.dialects.func import FuncOp

from gimlet.compiler.frontends import load
from gimlet.compiler.frontends.python_callable import looks_like_callable
from gimlet.compiler.pipeline import NORMALIZE, run_passes
from gimlet.dialects.onnx import InitializerOp, OnnxOp, dims_of
from gimlet.dialects.onnx.provenance import scope_of
from gimlet.runtime.errors import GimletError, InputError, UsageError

RELU = model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": ["n", 4]}, {"y": ["n", 4]})


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
        self.head = torch.nn.Linear(8, 1000)

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean((2, 3))) * scale


def net() -> tuple:
    """A source for `package.module:callable`."""
    batch, width = Dim("batch", min=1, max=64), Dim("width", min=8)
    shapes = {"x": {0: batch, 3: width}, "scale": {0: batch}}
    return Net(), (torch.randn(2, 3, 8, 16), torch.ones(2, 1)), {}, shapes


def relu() -> onnx.ModelProto:
    return RELU


def five() -> tuple:
    return 1, 2, 3, 4, 5


NOT_A_FUNCTION = 3


def dims(module) -> list[list[str]]:
    main = module.body.block.first_op
    assert isinstance(main, FuncOp)
    return [[str(dim) for dim in dims_of(argument)] for argument in main.args]


def test_an_onnx_file(tmp_path: Path):
    onnx.save(RELU, tmp_path / "m.onnx")
    for source in (tmp_path / "m.onnx", str(tmp_path / "m.onnx"), RELU, ir.from_proto(RELU)):
        assert dims(load(source, ctx=context())) == [["n", "4"]]


def test_a_module_is_itself():
    module = load(RELU, ctx=context())
    assert load(module, ctx=context()) is module


def test_a_linked_model_reads_data_beside_its_target(tmp_path: Path):
    """As download caches have it: the names are links to files in another folder."""
    weights = {"w": np.ones((64, 64), np.float32), "b": np.ones(64, np.float32)}
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"])
    model = model_of([node], {"x": ["n", 64]}, {"y": ["n", 64]}, weights=weights)
    blobs, names = tmp_path / "blobs", tmp_path / "names"
    blobs.mkdir()
    names.mkdir()
    onnx.save(model, blobs / "a1", save_as_external_data=True, location="m.data", size_threshold=0)
    (names / "m.onnx").symlink_to(blobs / "a1")
    (names / "m.data").symlink_to(blobs / "m.data")
    ctx = context()
    load(names / "m.onnx", ctx=ctx)
    assert ctx.weights["w"].array().sum() == 4096


def test_the_models_own_functions_are_kept_until_normalize():
    body = helper.make_function(
        "com.example", "Act", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    model = model_of(
        [helper.make_node("Act", ["x"], ["y"], domain="com.example")],
        {"x": [4]},
        {"y": [4]},
        opsets=[helper.make_opsetid("com.example", 1)],
        functions=[body],
    )
    ctx = context()
    module = load(model, ctx=ctx)
    assert [op.name for op in module.walk() if isinstance(op, OnnxOp)] == ["onnx.custom", "onnx.Relu"]
    run_passes(module, ctx, NORMALIZE)
    assert [op.name for op in module.walk() if isinstance(op, OnnxOp)] == ["onnx.Relu"]


def test_equal_operations_share_the_size_that_depends_on_data():
    nodes = [helper.make_node("NonZero", ["x"], [name]) for name in "ab"]
    nodes += [helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Cast", ["c"], ["y"], to=TensorProto.FLOAT)]
    model = model_of(nodes, {"x": [6]}, {"y": [1, "n"]})
    ctx = context()
    module = load(model, ctx=ctx)
    run_passes(module, ctx, NORMALIZE)
    found, added, _ = [op for op in module.walk() if isinstance(op, OnnxOp)]
    assert [found.op_type, added.op_type] == ["NonZero", "Add"]
    assert list(added.operands) == [found.results[0]] * 2


DATA = RELU.SerializeToString()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"not a model at all", "not an ONNX model, or is cut short"),
        (DATA[: len(DATA) // 2], "not an ONNX model, or is cut short"),
        (b"\x08\x0a", "there is no graph in it"),
        (onnx.ModelProto(graph=RELU.graph).SerializeToString(), "does not say which opset it is for"),
    ],
)
def test_files_that_are_no_model(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load(path, ctx=context())
    assert error.value.where == str(path)
    assert error.value.hint


def test_every_cut_is_found(tmp_path: Path):
    """A file that ends too early is refused wherever it ends, or is whole."""
    path = tmp_path / "m.onnx"
    for end in range(len(DATA)):
        path.write_bytes(DATA[:end])
        with pytest.raises(GimletError):
            load(path, ctx=context())


def test_a_node_that_does_not_fit_its_operator():
    node = helper.make_node("Relu", ["x", "x"], ["y"], name="bad")
    with pytest.raises(InputError, match=r"Relu takes 1 inputs") as error:
        load(model_of([node], {"x": [4]}, {"y": [4]}), ctx=context())
    assert error.value.where == "node 'bad'"
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.onnx", r"there is no file missing\.onnx"),
        ("missing.pt2", r"there is no file missing\.pt2"),
        (".", r"\. is a folder, not a model"),
        (__file__, r"test_frontends\.py is not a kind of model that gimlet knows"),
        ("no_such_package.module:make", r"there is no module 'no_such_package\.module'"),
        (f"{__name__}:missing", r"has no 'missing'"),
        (f"{__name__}:NOT_A_FUNCTION", r"NOT_A_FUNCTION is not a function"),
        (f"{__name__}:five", r"it returned 5 values"),
        (3, r"a int is not a model"),
        (Net(), r"Net needs example inputs"),
    ],
)
def test_sources_that_are_spelled_wrong(source: object, message: str):
    with pytest.raises(UsageError, match=message) as error:
        load(source, ctx=context())
    assert error.value.hint


def test_a_source_that_needs_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "needy.py").write_text("import no_such_package\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="needy needs the package 'no_such_package'"):
        load("needy:make", ctx=context())
    assert str(tmp_path) not in sys.path


def test_what_is_a_callable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert looks_like_callable("examples.minilm:encoder")
    assert not looks_like_callable("model.onnx")
    assert not looks_like_callable("C:/model.onnx")
    monkeypatch.chdir(tmp_path)
    Path("a:b").touch()
    assert not looks_like_callable("a:b")


def test_a_callable_that_returns_an_onnx_model():
    assert dims(load(f"{__name__}:relu", ctx=context())) == [["n", "4"]]


def test_a_pytorch_module():
    ctx = context()
    module = load(f"{__name__}:net", ctx=ctx)
    assert dims(module) == [["batch", "3", "8", "width"], ["batch", "1"]]
    assert str(module.attributes["onnx.dim_bounds"]) == "{batch = array<i64: 1, 2, 64>}"
    assert "features.0" in {scope_of(op) for op in module.walk()}
    assert str(Path.cwd()) not in str(module)
    x, scale = torch.randn(5, 3, 8, 40), torch.rand(5, 1)
    with torch.no_grad():
        expected = Net().eval()(x, scale).numpy()
    (found,) = run(exported(module, ctx), {"x": x.numpy(), "scale": scale.numpy()}).values()
    assert np.allclose(found, expected, atol=1e-5)


def test_dimensions_without_names():
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1

    cls = type("Add", (torch.nn.Module,), {"forward": forward})
    module = load(cls(), args=(torch.ones(2, 4),), dynamic_shapes=({0: Dim.DYNAMIC},), ctx=context())
    assert dims(module) == [["x_d0", "4"]]
    assert "onnx.dim_bounds" not in module.attributes


def test_a_model_on_the_meta_device():
    with torch.device("meta"):
        model, args = Net(), (torch.empty(2, 3, 8, 16), torch.empty(2, 1))
    ctx = context()
    module = load(model, args=args, ctx=ctx)
    weights = [op.key for op in module.walk() if isinstance(op, InitializerOp) and op.key]
    assert "head.weight" in weights
    assert not any(ctx.weights[key].has_data for key in weights if key in dict(model.named_parameters()))


def test_a_module_that_cannot_be_traced():
    class Branch(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if x.sum() > 0 else x

    with pytest.raises(InputError, match=r"torch\.export cannot trace Branch: ") as error:
        load(Branch(), args=(torch.ones(4),), ctx=context())
    assert "test_frontends.py:" in str(error.value.where)


def test_an_operator_that_the_exporter_lacks():
    class Special(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.airy_ai(x)

    with pytest.raises(InputError, match=r"PyTorch's ONNX exporter cannot convert aten\.special_airy_ai\.default: "):
        load(Special(), args=(torch.ones(4),), ctx=context())


def save_program(path: Path) -> Path:
    model, args, _, shapes = net()
    torch.export.save(torch.export.export(model.eval(), args, dynamic_shapes=shapes), path)
    return path


def test_a_program_file(tmp_path: Path):
    ctx = context()
    module = load(save_program(tmp_path / "net.pt2"), ctx=ctx)
    assert dims(module) == [["x_d0", "3", "8", "x_d3"], ["x_d0", "1"]]
    x, scale = torch.randn(5, 3, 8, 40), torch.rand(5, 1)
    with torch.no_grad():
        expected = Net().eval()(x, scale).numpy()
    (found,) = run(exported(module, ctx), {"x": x.numpy(), "scale": scale.numpy()}).values()
    assert np.allclose(found, expected, atol=1e-5)


class Bomb:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def rewritten(path: Path, replace: dict[str, bytes], add: dict[str, bytes]) -> Path:
    target = path.with_name("bad.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for item in old.infolist():
            content = next((v for part, v in replace.items() if part in item.filename), old.read(item))
            new.writestr(item.filename, content)
        root = old.namelist()[0].partition("/")[0]
        for name, content in add.items():
            new.writestr(f"{root}/{name}", content)
    return target


def test_a_program_file_never_runs_its_pickles(tmp_path: Path):
    path, fuse = save_program(tmp_path / "net.pt2"), tmp_path / "fuse"
    torch.save((Bomb(fuse),), tmp_path / "bomb.pt")
    bad = rewritten(path, {"data/sample_inputs": (tmp_path / "bomb.pt").read_bytes()}, {})
    with pytest.raises(InputError, match=r"unrestricted pickle|cannot be loaded"):
        load(bad, ctx=context())
    assert not fuse.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("data/constants/opaque_obj_0", "it holds a Python object"),
        ("data/constants/custom_obj_0", "it holds an object of a custom class"),
        ("data/aotinductor/model/code.so", "it holds compiled code"),
    ],
)
def test_program_files_with_objects_are_refused(tmp_path: Path, name: str, message: str):
    bad = rewritten(save_program(tmp_path / "net.pt2"), {}, {name: pickle.dumps(3)})
    with pytest.raises(InputError, match=message):
        load(bad, ctx=context())


@pytest.mark.parametrize("content", [b"", b"PK", b"nothing"])
def test_program_files_that_are_none(tmp_path: Path, content: bytes):
    path = tmp_path / "m.pt2"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not an exported program, or is cut short"):
        load(path, ctx=context())


def test_other_archives_of_pytorch(tmp_path: Path):
    torch.save({"w": torch.ones(4)}, tmp_path / "m.pt2")
    with pytest.raises(InputError, match="holds no exported program"):
        load(tmp_path / "m.pt2", ctx=context())


def test_pytorch_is_not_loaded_for_onnx(tmp_path: Path):
    onnx.save(RELU, tmp_path / "m.onnx")
    code = (
        "import sys; from gimlet.compiler.frontends import load; from gimlet.dialects.context import GimletContext;"
        f"load({str(tmp_path / 'm.onnx')!r}, ctx=GimletContext()); sys.exit('torch' in sys.modules)"
    )
    import subprocess

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
