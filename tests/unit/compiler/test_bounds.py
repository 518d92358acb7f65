"""Bindings of dimensions: their spelling, their meaning, and what is refused."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block

from gimlet.compiler.api import resolve_topology, start
from gimlet.compiler.bounds import check_bounded, merge_bounds, parse_bindings, read_bounds, resolve_axes, write_bounds
from gimlet.compiler.options import CompileOptions
from gimlet.compiler.progress import Progress
from gimlet.compiler.sources import open_source
from gimlet.dialects.onnx.types import tensor_type
from gimlet.runtime.errors import InputError, UsageError
from gimlet.runtime.expr import Expr
from gimlet.targets.api import DimBound


def test_sizes_and_ranges_are_read() -> None:
    assert parse_bindings(["batch=1,width=32:320:2048", "p2o.Dim.0 = 4"]) == {
        "batch": DimBound(1, 1, 1),
        "width": DimBound(32, 320, 2048),
        "p2o.Dim.0": DimBound(4, 4, 4),
    }


@pytest.mark.parametrize("text", ["batch", "batch=", "=3", "batch=1:2", "batch=a", "batch=-1", "batch=1:2:3:4"])
def test_what_is_no_binding_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot read the binding"):
        parse_bindings([text])


def test_a_range_must_be_ordered() -> None:
    with pytest.raises(UsageError, match="range 8:4:16"):
        parse_bindings(["batch=8:4:16"])
    assert parse_bindings(["batch=0"])["batch"].maximum == 0


def test_a_dimension_is_bound_once() -> None:
    with pytest.raises(UsageError, match="bound twice"):
        parse_bindings(["batch=1", "batch=2"])


def test_an_axis_stands_for_its_dimension() -> None:
    shapes = {"x": [Expr.symbol("n"), Expr.const(3), Expr.parse("2*n")]}
    assert resolve_axes({"x[0]": DimBound(1, 1, 1), "m": DimBound(2, 2, 2)}, shapes) == {
        "n": DimBound(1, 1, 1),
        "m": DimBound(2, 2, 2),
    }
    for axis in (1, 7):
        with pytest.raises(UsageError, match="is not a dynamic dimension"):
            resolve_axes({f"x[{axis}]": DimBound(1, 1, 1)}, shapes)


@pytest.mark.parametrize(
    ("dim", "given", "expected"),
    [
        ("2*n", DimBound(4, 8, 16), DimBound(2, 4, 8)),
        ("3*n + 1", DimBound(4, 4, 10), DimBound(1, 1, 3)),
        ("10 - n", DimBound(2, 4, 9), DimBound(1, 6, 8)),
    ],
)
def test_a_bound_of_a_derived_dimension_is_one_of_its_symbol(dim: str, given: DimBound, expected: DimBound) -> None:
    assert resolve_axes({"x[0]": given}, {"x": [Expr.parse(dim)]}) == {"n": expected}


@pytest.mark.parametrize(
    ("dim", "reason"),
    [
        ("2*n", r"x\[0\] is 2\*n: no size of n makes it 3"),
        ("n + 4", r"x\[0\] is n \+ 4: no size of n makes it 3"),
        ("floordiv(n, 2)", "does not tell what n is"),
        ("n*n", "does not tell what n is"),
        ("m*n", "is not a dynamic dimension"),
    ],
)
def test_a_bound_that_tells_no_single_size_is_refused(dim: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        resolve_axes({"x[0]": DimBound(3, 3, 3)}, {"x": [Expr.parse(dim)]})


def test_two_bindings_of_one_dimension_agree() -> None:
    shapes = {"x": [Expr.parse("2*n"), Expr.symbol("n")]}
    assert resolve_axes({"x[0]": DimBound(4, 4, 4), "x[1]": DimBound(2, 2, 2)}, shapes) == {"n": DimBound(2, 2, 2)}
    with pytest.raises(UsageError, match="binds dimension 'n' to other sizes than before"):
        resolve_axes({"x[0]": DimBound(4, 4, 4), "x[1]": DimBound(3, 3, 3)}, shapes)


def test_a_binding_comes_before_the_models_own_range() -> None:
    model = {"batch": DimBound(1, 2, 8), "width": DimBound(1, 1, 4)}
    merged = merge_bounds({"batch", "width"}, model, {"batch": DimBound(3, 3, 3)})
    assert merged == {"batch": DimBound(3, 3, 3), "width": DimBound(1, 1, 4)}


def test_an_unknown_dimension_is_refused_with_the_closest_name() -> None:
    with pytest.raises(UsageError, match="no dimension 'widht'") as caught:
        merge_bounds({"batch", "width"}, {}, {"widht": DimBound(1, 1, 1)})
    assert caught.value.hint == "did you mean 'width'?"


def test_an_exporters_name_is_refused_with_the_dimensions_own() -> None:
    with pytest.raises(UsageError, match="no dimension 'unk__653'") as caught:
        merge_bounds({"x_d0"}, {}, {"unk__653": DimBound(1, 1, 1)})
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("a name that an exporter made up")
    assert caught.value.hint.endswith("x_d0")


def test_a_dimension_without_a_range_is_named_with_what_to_write() -> None:
    with pytest.raises(UsageError, match="dynamic dimension width") as caught:
        check_bounded({"batch", "width"}, {"batch": DimBound(1, 1, 1)}, Block())
    assert "--bind 'width=1:1:8'" in (caught.value.hint or "")


def test_a_module_remembers_its_ranges() -> None:
    module = ModuleOp([])
    write_bounds(module, {"width": DimBound(32, 320, 2048)})
    assert read_bounds(module) == {"width": DimBound(32, 320, 2048)}
    write_bounds(module, {})
    assert read_bounds(module) == {}


def test_an_axis_is_bound_by_the_input_s_own_name(tmp_path: Path) -> None:
    """TensorFlow's names have a colon, which no SSA name may have."""
    info = helper.make_tensor_value_info("serving_x:0", TensorProto.FLOAT, ["unk__1", 4])
    output = helper.make_empty_tensor_value_info("y")
    graph = helper.make_graph([helper.make_node("Relu", ["serving_x:0"], ["y"])], "g", [info], [output])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    options = CompileOptions(resolve_topology(None), bindings={"serving_x:0[0]": DimBound(3, 3, 3)})
    compilation = start(open_source(str(tmp_path / "m.onnx")), options, Progress(quiet=True))
    compilation.bind()
    assert "tensor<3x4xf32>" in str(compilation.module)


def windowed(path: Path, length: int | str) -> str:
    """A convolution whose kernel is 320 long, of an input of this length."""
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, length])
    kernel = numpy_helper.from_array(np.ones((4, 1, 320), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="windows", strides=[160])
    graph = helper.make_graph([node], "g", [info], [helper.make_empty_tensor_value_info("y")], [kernel])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return str(path)


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        ("length=100", "onnx.Conv 'windows': dimension 2 of 'y' would be -1"),
        ("length=100:1000:2000", "onnx.Conv 'windows': dimension 2 of 'y' is .*, -1 at length = 100"),
        ("length=100:200:2000", "onnx.Conv 'windows': dimension 2 of 'y' is .*, -1 at length = 100"),
        ("length=319", "onnx.Conv 'windows': dimension 2 of 'y' would be 0"),
        ("length=319:400:2000", "onnx.Conv 'windows': dimension 2 of 'y' is .*, 0 at length = 319"),
    ],
)
def test_sizes_at_which_nothing_could_run_are_refused(tmp_path: Path, bindings: str, message: str) -> None:
    options = CompileOptions(resolve_topology(None), bindings=parse_bindings(["batch=1:2:4", bindings]))
    compilation = start(open_source(windowed(tmp_path / "m.onnx", "length")), options, Progress(quiet=True))
    with pytest.raises(InputError, match=message):
        compilation.run_to("place")


@pytest.mark.parametrize("batch", ["batch=0", "batch=0:2:4", "batch=1,length=320", "batch=1,length=320:400:480"])
def test_no_images_are_no_window_that_is_too_large(tmp_path: Path, batch: str) -> None:
    bindings = parse_bindings([batch, *(() if "length" in batch else ["length=400"])])
    options = CompileOptions(resolve_topology(None), bindings=bindings)
    start(open_source(windowed(tmp_path / "m.onnx", "length")), options, Progress(quiet=True)).run_to("place")


def test_a_window_over_nothing_is_not_refused(tmp_path: Path) -> None:
    """What depends on data may be empty at its least, and never is in a run."""
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, "length"])
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2], strides=[2])
    graph = helper.make_graph([node], "g", [info], [helper.make_empty_tensor_value_info("y")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    for least, refused in (("0", False), ("1", True)):
        options = CompileOptions(resolve_topology(None), bindings=parse_bindings([f"length={least}:4:8"]))
        with pytest.raises(InputError, match="0 at length = 1") if refused else nullcontext():
            start(open_source(str(tmp_path / "m.onnx")), options, Progress(quiet=True)).run_to("place")


def test_sizes_are_suggested_at_which_windows_fit(tmp_path: Path) -> None:
    compilation = start(
        open_source(windowed(tmp_path / "m.onnx", "length")),
        CompileOptions(resolve_topology(None)),
        Progress(quiet=True),
    )
    with pytest.raises(UsageError, match="dynamic dimensions batch, length") as caught:
        compilation.run_to("place")
    assert "--bind 'batch=1:1:8,length=512:512:4096'; the shapes allow no less" in (caught.value.hint or "")


def squeezed(path: Path) -> str:
    """A Squeeze without axes, which drops the batch too where that is 1."""
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 3])
    node = helper.make_node("Squeeze", ["x"], ["y"], name="rows")
    graph = helper.make_graph([node], "g", [info], [helper.make_empty_tensor_value_info("y")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return str(path)


def test_a_range_over_which_a_rank_changes_is_refused(tmp_path: Path) -> None:
    options = CompileOptions(resolve_topology(None), bindings=parse_bindings(["batch=1:2:4"]))
    compilation = start(open_source(squeezed(tmp_path / "m.onnx")), options, Progress(quiet=True))
    with pytest.raises(InputError, match=r"onnx\.Squeeze 'rows': it drops .* depends on batch") as caught:
        compilation.run_to("place")
    assert caught.value.hint == "bind batch so that it always is 1, or never"


def test_no_range_is_suggested_over_which_a_rank_changes(tmp_path: Path) -> None:
    compilation = start(
        open_source(squeezed(tmp_path / "m.onnx")), CompileOptions(resolve_topology(None)), Progress(quiet=True)
    )
    with pytest.raises(UsageError, match="dynamic dimension batch") as caught:
        compilation.run_to("place")
    assert "--bind 'batch=1'" in (caught.value.hint or "")


@pytest.mark.parametrize("batch", ["batch=1", "batch=2:2:4"])
def test_a_range_over_which_no_rank_changes_is_taken(tmp_path: Path, batch: str) -> None:
    options = CompileOptions(resolve_topology(None), bindings=parse_bindings([batch]))
    start(open_source(squeezed(tmp_path / "m.onnx")), options, Progress(quiet=True)).run_to("place")


def test_a_model_whose_window_never_fits_is_refused(tmp_path: Path) -> None:
    options = CompileOptions(resolve_topology(None), bindings=parse_bindings(["batch=1"]))
    compilation = start(open_source(windowed(tmp_path / "m.onnx", 100)), options, Progress(quiet=True))
    with pytest.raises(InputError, match=r"onnx\.Conv 'windows': dimension 2 of 'y' would be -1"):
        compilation.run_to("normalize")


def test_a_dimension_below_0_is_unknown_in_a_type() -> None:
    assert str(tensor_type(np.float32, [2, Expr.const(-1)])) == str(tensor_type(np.float32, [2, None]))
