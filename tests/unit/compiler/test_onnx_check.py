"""Bad models: each refused with a message of its own that names what is wrong, and where."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from tests.unit.dialects.test_onnx_structures import captured_values, functions, sparse_constants, sparse_initializer

from gimlet.compiler.frontends import load
from gimlet.compiler.pipeline import NORMALIZE, run_passes
from gimlet.compiler.sources import load_dialects
from gimlet.dialects.context import GimletContext
from gimlet.runtime.errors import InputError

Change = Callable[[onnx.ModelProto], Any]


def small() -> onnx.ModelProto:
    """y = relu(x + w), with an attribute of most kinds on an operator of another domain."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Add", ["x", "w"], ["h"], name="add0"),
        helper.make_node("Relu", ["h"], ["y"], name="relu0"),
        helper.make_node(
            "Use", ["h"], ["z"], domain="com.example", name="use0", s=["a"],
            t=numpy_helper.from_array(np.array(["p", "q"], dtype=object), "t"),
            tp=helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2])),
        ),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["n", 4])],
        [value("y", TensorProto.FLOAT, ["n", 4]), value("z", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def weight(**fields: Any) -> Change:
    """Changes fields of the weight `w`."""

    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(tensor, name)[:] = value
            else:
                setattr(tensor, name, value)

    return change


def external(**entries: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)

    return change


def unreadable_text(place: Callable[[onnx.ModelProto], Any], field: str) -> Change:
    """A text that is not UTF-8, which protobuf itself takes from a file but not from Python."""

    def change(model: onnx.ModelProto) -> onnx.ModelProto:
        setattr(place(model), field, "MARKED")
        return onnx.ModelProto.FromString(model.SerializeToString().replace(b"MARKED", b"MARK\xff\xfe"))

    return change


def node(index: int) -> Callable[[onnx.ModelProto], onnx.NodeProto]:
    return lambda model: model.graph.node[index]


def dims(*sizes: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        shape = model.graph.input[0].type.tensor_type.shape
        del shape.dim[:]
        for size in sizes:
            shape.dim.add().dim_value = size

    return change


def cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "y"


CASES: list[tuple[Change, str]] = [
    # names
    (lambda m: m.graph.input.append(m.graph.input[0]), "graph 'g': two of its values are called 'x'"),
    (lambda m: m.graph.initializer.append(m.graph.initializer[0]), "graph 'g': two of its values are called 'w'"),
    (lambda m: setattr(m.graph.initializer[0], "name", ""), "graph 'g': one of its values has no name"),
    (lambda m: setattr(m.graph.output[0], "name", ""), "graph 'g': an input or output has no name"),
    (lambda m: m.graph.node[1].output.__setitem__(0, "h"), r"node 'relu0' \(Relu\): it makes 'h', which there is"),
    (lambda m: m.graph.node[1].output.__setitem__(0, "x"), r"node 'relu0' \(Relu\): it makes 'x', which there is"),
    (lambda m: m.graph.node[1].input.__setitem__(0, "gone"), "'gone' is read, but neither an input nor an init"),
    (lambda m: setattr(m.graph.output[0], "name", "gone"), "'gone' is read, but neither an input nor an init"),
    (cycle, "the nodes of graph 'g' form a cycle"),
    (lambda m: setattr(m.graph.node[0], "op_type", ""), "node 'add0' .*the name of an operator is empty"),
    (lambda m: setattr(m.graph.node[0], "op_type", "Äd"), "'Äd' is not a name of an operator: ONNX has ASCII there"),
    (lambda m: setattr(m.graph.node[0], "domain", "\x01"), "is not a domain: ONNX has ASCII there"),
    (lambda m: setattr(m.graph.node[2].attribute[0], "name", "s.t"), "the attribute 's.t' has a dot in its name"),
    (lambda m: setattr(m.graph.node[2].attribute[0], "name", "graphs"), "keeps the attribute name graphs for itself"),
    (unreadable_text(node(0), "doc_string"), r"node 'add0' \(Add\): one of its texts is not UTF-8"),
    (unreadable_text(lambda m: m, "producer_name"), "the model: one of its texts is not UTF-8"),
    (unreadable_text(lambda m: m.metadata_props.add(key="k"), "value"), "the metadata of the model: one of its texts"),
    # opsets and operators
    (lambda m: setattr(m.opset_import[0], "version", 0), "the model: it imports opset 0 of 'ai.onnx'"),
    (lambda m: setattr(m.opset_import[0], "version", 10**6), "imports opset 1000000 of ai.onnx, and the newest known"),
    (lambda m: setattr(m.opset_import[1], "domain", "ai.onnx"), "the model: it imports two opsets of one domain"),
    (lambda m: m.opset_import.pop(0), r"node 'add0' \(ai.onnx.Add\): the model does not say which opset of ai.onnx"),
    (lambda m: m.graph.node[0].input.pop(), "onnx.Add takes 2 inputs"),
    (lambda m: setattr(m.graph.node[0].attribute.add(name="axis", i=1), "type", AttributeProto.INT), "no attribute"),
    # attributes
    (lambda m: m.graph.node[2].attribute.append(m.graph.node[2].attribute[0]), "one of its attributes is there twice"),
    (lambda m: m.graph.node[2].attribute[0].ClearField("type"), "attribute 's' of .*: it does not say of which kind"),
    (lambda m: m.graph.node[2].attribute[0].strings.append(b"\xff"), "one of its strings is not UTF-8"),
    (lambda m: m.graph.node[2].attribute[1].t.string_data.__setitem__(0, b"\xff"), "one of its strings is not UTF-8"),
    # tensors
    (weight(data_type=0), "weight 'w': its element type 0 is not one of ONNX's"),
    (weight(data_type=255), "weight 'w': its element type 255 is not one of ONNX's"),
    (weight(dims=[-4]), r"weight 'w': it has a negative dimension: \[-4\]"),
    (weight(dims=[1 << 62]), "weight 'w': its dimensions .* are more than any machine holds"),
    (weight(dims=[1 << 40, 1 << 40]), "weight 'w': its dimensions .* are more than any machine holds"),
    (weight(dims=[0, 1 << 62]), "weight 'w': its dimensions .* are more than any machine holds"),
    (weight(dims=[4] + [1] * 64), "weight 'w': it has 65 dimensions, and numpy at most 64"),
    (weight(dims=[5]), r"weight 'w': it holds 16 bytes, and its dimensions \[5\] need 20"),
    (weight(dims=[3], raw_data=b"\0" * 13), "weight 'w': it holds 13 bytes"),
    (lambda m: m.graph.initializer[0].ClearField("raw_data"), "weight 'w': it holds 0 floats"),
    (weight(data_type=TensorProto.STRING), "weight 'w': it holds 0 strings"),
    (lambda m: m.graph.initializer[0].segment.SetInParent(), "weight 'w': it is a segment of a tensor"),
    # types of values
    (dims(-2), r"value 'x': it has a negative dimension: \[-2\]"),
    (dims(*[1] * 65), "value 'x': it has 65 dimensions, and numpy at most 64"),
    (dims(1 << 62), "value 'x': its dimensions .* are more than any machine holds"),
    (dims(1 << 40, 1 << 40), "value 'x': its dimensions .* are more than any machine holds"),
    (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 99), "value 'x': its element type 99 is not"),
    (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 7), "they share the type T"),
    (lambda m: m.graph.input[0].type.sequence_type.SetInParent(), "value 'x': its type is a sequence or an"),
    (lambda m: setattr(m.graph.input[0].type.map_type, "key_type", 1), "value 'x': the keys of its map are of element"),
    (lambda m: m.graph.input[0].type.opaque_type.SetInParent(), "value 'x': its type is of the kind opaque_type"),
    # external data
    (lambda m: weight(data_type=8)(m) or external(location="w.bin")(m), "weight 'w': its strings are external data"),
    (external(), "weight 'w': its data is external, and it does not say in which file"),
    (external(location="a\0b"), "weight 'w': the name of its data file has a zero byte"),
    (external(location="w.bin", offset="-1"), "weight 'w': the offset of its external data is '-1'"),
    (external(location="w.bin", length="many"), "weight 'w': the length of its external data is 'many'"),
    (external(location="w.bin", offset="9" * 400), "weight 'w': the offset of its external data is '99"),
    (external(location="missing.bin"), "there is no file .*missing.bin"),
    (external(location="w.bin", offset="8"), "ends at byte 24 of .*w.bin, which has 16"),
    (external(location="w.bin", offset="17"), "ends at byte 33 of .*w.bin, which has 16"),
    (external(location="w.bin", length="15"), "takes 16 bytes, but says 15"),
    (external(location="../secret.bin"), "is in .*secret.bin, outside the model's folder"),
    (external(location="/etc/hostname"), "is in /etc/hostname, outside the model's folder"),
    (external(location="link.bin"), "is in .*secret.bin, outside the model's folder"),
    (external(location="folder"), "there is no file .*folder"),
]  # fmt: skip


def outcome(model: onnx.ModelProto, folder: Path) -> None:
    path = folder / "model" / "model.onnx"
    path.parent.mkdir()
    (path.parent / "w.bin").write_bytes(b"\0" * 16)
    (path.parent / "folder").mkdir()
    (folder / "secret.bin").write_bytes(b"\0" * 16)
    (path.parent / "link.bin").symlink_to(folder / "secret.bin")
    path.write_bytes(model.SerializeToString())
    ctx = GimletContext()
    load_dialects(ctx)
    run_passes(load(path, ctx=ctx), ctx, NORMALIZE)


def test_the_model_itself_is_fine(tmp_path: Path):
    outcome(small(), tmp_path)


def test_an_opset_that_is_imported_twice_is_fine(tmp_path: Path):
    """Quantisation of a merged model leaves that, and ONNX Runtime takes it."""
    model = small()
    model.opset_import.extend([helper.make_opsetid("ai.onnx", 21), helper.make_opsetid("com.example", 1)])
    outcome(model, tmp_path)


def test_external_data_in_the_folder_is_fine(tmp_path: Path):
    model = small()
    external(location="./w.bin", offset="0", length="16")(model)
    outcome(model, tmp_path)


@pytest.mark.parametrize(("change", "message"), CASES, ids=[message for _, message in CASES])
def test_a_bad_model_is_refused(change: Change, message: str, tmp_path: Path):
    model = small()
    changed = change(model)
    with pytest.raises(InputError, match=message):
        outcome(changed if isinstance(changed, onnx.ModelProto) else model, tmp_path)


@pytest.mark.parametrize(
    ("build", "change", "message"),
    [
        (functions, lambda m: m.functions.append(m.functions[0]), "Leaky': the model has it twice"),
        (functions, lambda m: m.functions[0].output.append("q"), "function 'Leaky': its output 'q' is not made by any"),
        (functions, lambda m: m.functions[0].input.append("a"), "function 'Leaky': two of its values are called 'a'"),
        (functions, lambda m: setattr(m.functions[0], "name", ""), "the name of a function is empty"),
        (functions, lambda m: setattr(m.functions[0].opset_import[0], "version", -1), "it imports opset -1"),
        (functions, lambda m: setattr(m.functions[0].node[0], "op_type", "Gone\n"), "is not a name of an operator"),
        (captured_values, lambda m: m.graph.node[0].attribute[0].g.input.pop(0), "'state' is read, but neither"),
        (sparse_initializer, lambda m: m.graph.sparse_initializer[0].dims.__setitem__(0, -3), "a negative dimension"),
        (sparse_initializer, lambda m: m.graph.sparse_initializer[0].dims.append(1 << 60), "more than any machine"),
        (sparse_initializer, lambda m: m.graph.sparse_initializer[0].indices.dims.pop(), "the indices of sparse w"),
        (
            sparse_initializer,
            lambda m: setattr(m.graph.sparse_initializer[0].indices, "data_type", TensorProto.DOUBLE),
            "the indices of a sparse tensor are of type int64",
        ),
        (sparse_constants, lambda m: m.graph.node[0].attribute[0].sparse_tensor.dims.pop(), "index is outside"),
    ],
)  # fmt: skip
def test_bad_functions_and_subgraphs(
    build: Callable[[], onnx.ModelProto], change: Change, message: str, tmp_path: Path
):
    model = build()
    change(model)
    with pytest.raises(InputError, match=message):
        outcome(model, tmp_path)


def test_a_string_that_does_not_end_is_refused_at_once():
    """The lexer's own expression takes time exponential in its length, years for this one."""
    from xdsl.parser import Parser
    from xdsl.utils.exceptions import ParseError

    with pytest.raises(ParseError):
        Parser(GimletContext(), f'"{"a" * 200}\n"').parse_module()
