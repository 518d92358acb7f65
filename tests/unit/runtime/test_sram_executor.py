"""The executor of programs: files, sizes from shapes, buffers, and nothing else loaded."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.runtime.sram_programs import matmul_program

from gimlet.runtime.errors import InputError
from gimlet.runtime.executors.base import DeviceSpec, SegmentArtifact
from gimlet.runtime.executors.sram import SramExecutor, solve
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.encoding import dumps
from gimlet.runtime.sram.program import Dim
from gimlet.runtime.tensors import TensorSpec

DEVICE = DeviceSpec("sram0", "example/sram")


def shape(*dims):
    return tuple(Expr.of(dim) for dim in dims)


def artifact(folder: Path, files=("program.sram",), **changes) -> SegmentArtifact:
    fields = {
        "segment": "s0",
        "format": "fp32",
        "root": folder,
        "files": files,
        "inputs": (TensorSpec("x", "float32", shape("m", 30)), TensorSpec("w", "float32", shape(30, 20))),
        "outputs": (TensorSpec("y", "float32", shape("m", 20)),),
        "open_file": lambda name: folder / name,
    }
    return SegmentArtifact(**{**fields, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "program.sram").write_text(dumps(matmul_program("m", 30, 20)))
    return tmp_path


def arrays(m: int):
    rng = np.random.default_rng(m)
    return rng.standard_normal((m, 30)).astype(np.float32), rng.standard_normal((30, 20)).astype(np.float32)


def test_runs_at_several_sizes_and_keeps_what_stays_bound(folder):
    executor = SramExecutor.load(artifact(folder), DEVICE)
    assert executor.emulation
    assert executor.memory == "host"
    x, w = arrays(7)
    bindings = executor.bind({"x": x, "w": w}, {"y": None})
    with pytest.raises(InputError, match="output 'y' was read before a run"):
        bindings.output("y")
    assert executor.submit(bindings).done
    np.testing.assert_allclose(bindings.output("y"), x @ w, rtol=1e-4, atol=1e-5)
    longer, _ = arrays(50)
    given = executor.alloc(np.dtype(np.float32), (50, 20))
    bindings.set_input("x", longer)
    bindings.set_output("y", given)
    executor.submit(bindings)
    assert bindings.output("y") is given
    np.testing.assert_allclose(given, longer @ w, rtol=1e-4, atol=1e-5)
    assert executor.timing({"x": longer, "w": w}).cycles > executor.timing({"x": x, "w": w}).cycles / 2


def test_a_buffer_of_the_wrong_shape(folder):
    executor = SramExecutor.load(artifact(folder), DEVICE)
    x, w = arrays(7)
    bindings = executor.bind({"x": x, "w": w}, {"y": np.empty((8, 20), np.float32)})
    with pytest.raises(InputError, match=r"output 'y' has shape \[7, 20\], its buffer \[8, 20\]"):
        executor.submit(bindings)


def test_buffers_are_host_memory(folder):
    executor = SramExecutor.load(artifact(folder), DEVICE)
    with pytest.raises(InputError, match="x: the emulator reads and writes host memory"):
        executor.bind({"x": object()}, {"y": None})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((301, 30), np.float32), "dimension m is 301, which no m from 1 to 300 gives"),
        (np.zeros((3, 31), np.float32), "a dimension should be 30, it is 31"),
        (np.zeros(30, np.float32), "input 'x' has 1 dimensions"),
    ],
)
def test_shapes_that_the_program_is_not_for(folder, x, message):
    executor = SramExecutor.load(artifact(folder), DEVICE)
    with pytest.raises(InputError, match=message):
        executor.submit(executor.bind({"x": x, "w": arrays(3)[1]}, {"y": None}))


def test_files_that_do_not_fit(folder):
    with pytest.raises(InputError, match=r"expected one \*program.sram file"):
        SramExecutor.load(artifact(folder, files=()), DEVICE)
    with pytest.raises(InputError, match="the program has output 'y', its segment has not"):
        SramExecutor.load(artifact(folder, outputs=()), DEVICE)
    (folder / "program.sram").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match=r"program\.sram is not text"):
        SramExecutor.load(artifact(folder), DEVICE)


def dim(name: str, low: int = 1, high: int = 100) -> Dim:
    return Dim(name, low, low, high)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("a", 7), ("b", 9)], {"a": 7, "b": 9}),
        ([("2*a + 1", 15), ("a*b", 63)], {"a": 7, "b": 9}),
        ([("floordiv(a, 8)", 3), ("b", 2), ("floordiv(a, 16)", 1)], {"a": 24, "b": 2}),
    ],
)
def test_sizes_from_shapes(pairs, expected):
    found = solve([dim("a"), dim("b")], [(Expr.parse(text), size) for text, size in pairs], "s0")
    assert found == expected


@given(st.integers(1, 64), st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), min_size=1, max_size=4))
def test_sizes_fit_every_shape(size: int, shapes: list[tuple[int, int]]):
    """Of sizes that several rounded shapes leave open, one is found that they all agree with."""
    expressions = [Expr.parse(f"floordiv(a + {added}, {divisor})") for added, divisor in shapes]
    pairs = [(expr, expr.evaluate({"a": size})) for expr in expressions]
    found = solve([dim("a")], pairs, "s0")
    assert [expr.evaluate(found) for expr in expressions] == [wanted for _, wanted in pairs]


def test_sizes_that_shapes_do_not_tell():
    with pytest.raises(InputError, match="do not tell the size of dimension 'b'"):
        solve([dim("a"), dim("b")], [(Expr.symbol("a"), 3)], "s0")
    with pytest.raises(InputError, match=r"a dimension should be 2\*a, it is 7 \(a = 3\)"):
        solve([dim("a")], [(Expr.symbol("a"), 3), (Expr.parse("2*a"), 7)], "s0")


def test_nothing_but_numpy_is_needed(folder):
    """The whole path with the compiler, ONNX and every other runtime out of reach."""
    np.save(folder / "x.npy", arrays(5)[0])
    np.save(folder / "w.npy", arrays(5)[1])
    code = f"""
import sys
for name in ("onnxruntime", "onnx", "onnx_ir", "xdsl", "torch", "ml_dtypes", "scipy"):
    sys.modules[name] = None
import numpy as np
from pathlib import Path
from gimlet.runtime.executors.base import DeviceSpec, SegmentArtifact
from gimlet.runtime.executors.registry import load_executor
from gimlet.runtime.expr import Expr
from gimlet.runtime.tensors import TensorSpec
folder = Path({str(folder)!r})
shape = lambda *dims: tuple(Expr.of(dim) for dim in dims)
artifact = SegmentArtifact("s0", "fp32", folder, ("program.sram",),
    (TensorSpec("x", "float32", shape("m", 30)), TensorSpec("w", "float32", shape(30, 20))),
    (TensorSpec("y", "float32", shape("m", 20)),), lambda name: folder / name)
executor = load_executor("sram").load(artifact, DeviceSpec("sram0", "example/sram"))
x, w = np.load(folder / "x.npy"), np.load(folder / "w.npy")
bindings = executor.bind({{"x": x, "w": w}}, {{"y": None}})
executor.submit(bindings)
np.testing.assert_allclose(bindings.output("y"), x @ w, rtol=1e-4, atol=1e-5)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_sizes_of_which_only_the_sum_is_told():
    found = solve([dim("a"), dim("b")], [(Expr.parse("a + b + 2"), 11)], "s0")
    assert found["a"] + found["b"] == 9
    assert solve([dim("a"), dim("b")], [(Expr.parse("a + b + 2"), 11)], "s0", {"a": 4, "c": 1}) == {"a": 4, "b": 5}
    with pytest.raises(InputError, match="a dimension should be"):
        solve([dim("a"), dim("b")], [(Expr.parse("2*a + 2*b"), 11)], "s0")
