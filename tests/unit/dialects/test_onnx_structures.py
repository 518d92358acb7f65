"""Everything a model can hold comes back from the IR and its text: what was exported is compared node for node."""

import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from tests.onnx_suite.compare import differences
from tests.onnx_suite.stages import exported, imported, parse, run_onnxruntime, text_of

from gimlet.dialects.onnx import InitializerOp, constant_value
from gimlet.runtime.errors import InputError

Model = onnx.ModelProto


def tensor(name: str, shape: list[int | str | None] | None, element: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)


def model(nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any], **options: Any) -> Model:
    opsets = [helper.make_opsetid("", options.pop("opset", 21)), *options.pop("opsets", ())]
    functions = options.pop("functions", ())
    graph = helper.make_graph(nodes, "g", inputs, outputs, **options)
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=12)


def again(source: Model) -> Model:
    """The model after import, text and export."""
    module, ctx = imported(source)
    return exported(parse(text_of(module), ctx), ctx)


def sparse(name: str, flat: bool) -> onnx.SparseTensorProto:
    values = numpy_helper.from_array(np.array([1.5, -2.0, 3.0], np.float32), name)
    places = np.array([1, 5, 11], np.int64)
    indices = places if flat else np.stack(np.unravel_index(places, (3, 4)), axis=1)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(indices, f"{name}.indices"), [3, 4])


def sparse_initializer() -> Model:
    add = helper.make_node("Add", ["x", "w"], ["y"])
    return model([add], [tensor("x", [3, 4])], [tensor("y", [3, 4])], sparse_initializer=[sparse("w", flat=False)])


def sparse_constants() -> Model:
    nodes = [
        helper.make_node("Constant", [], ["c"], sparse_value=sparse("", flat=True)),
        helper.make_node("Add", ["x", "c"], ["y"]),
        helper.make_node("Table", ["y"], ["z"], domain="com.example", rows=[sparse("", flat=True)] * 2),
    ]
    example = helper.make_opsetid("com.example", 3)
    return model(nodes, [tensor("x", [3, 4])], [tensor("y", [3, 4]), tensor("z", [3])], opsets=[example])


def maps_and_sequences() -> Model:
    nodes = [helper.make_node("ZipMap", ["x"], ["m"], domain="ai.onnx.ml", classlabels_int64s=[1, 2, 3])]
    number = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    inner = helper.make_map_type_proto(TensorProto.INT64, number)
    output = helper.make_value_info("m", helper.make_sequence_type_proto(inner))
    return model(nodes, [tensor("x", ["n", 3])], [output], opsets=[helper.make_opsetid("ai.onnx.ml", 1)])


def a_map_of_maps() -> Model:
    inner = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.DOUBLE, [2, "k"]))
    outer = helper.make_map_type_proto(TensorProto.INT64, inner)
    nodes = [helper.make_node("Look", ["x"], ["y"], domain="com.example", type=outer)]
    values = [helper.make_value_info(name, helper.make_optional_type_proto(outer)) for name in "xy"]
    return model(nodes, values[:1], values[1:], opsets=[helper.make_opsetid("com.example", 1)])


def optionals() -> Model:
    type_ = helper.make_optional_type_proto(
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [None, 2]))
    )
    nodes = [
        helper.make_node("Optional", [], ["none"], type=type_.optional_type.elem_type),
        helper.make_node("OptionalHasElement", ["x"], ["has"]),
    ]
    outputs = [helper.make_value_info("none", type_), tensor("has", [], TensorProto.BOOL)]
    return model(nodes, [helper.make_value_info("x", type_)], outputs)


def strings() -> Model:
    words = np.array([["ab", ""], ['é\n"', "\\"]], dtype=object)
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(words, "words")),
        helper.make_node("StringConcat", ["x", "c"], ["y"]),
        helper.make_node("Constant", [], ["d"], value_strings=["p", "q"]),
    ]
    kinds = TensorProto.STRING
    return model(nodes, [tensor("x", [2, 2], kinds)], [tensor("y", [2, 2], kinds), tensor("d", [2], kinds)])


def every_element_type() -> Model:
    rng = np.random.default_rng(0)
    weights: list[TensorProto] = []
    for name, code in TensorProto.DataType.items():
        if code in (TensorProto.UNDEFINED, TensorProto.STRING):
            continue
        dtype = helper.tensor_dtype_to_np_dtype(code)
        for size in (3, 1001):
            array = rng.integers(0, 256, size * dtype.itemsize).astype(np.uint8)
            if dtype == np.bool_:
                array &= 1
            elif dtype.name in ("int4", "uint4", "float4_e2m1fn"):
                array &= 15
            elif dtype.name in ("int2", "uint2"):
                array &= 3
            elif dtype.name.startswith("float6"):
                array &= 63
            weights.append(numpy_helper.from_array(array.view(dtype), f"{name}{size}"))
    nodes = [helper.make_node("Use", [weight.name], [f"{weight.name}.y"], domain="com.example") for weight in weights]
    outputs = [tensor(f"{weight.name}.y", [*weight.dims], weight.data_type) for weight in weights]
    return model(nodes, [], outputs, initializer=weights, opsets=[helper.make_opsetid("com.example", 1)])


def captured_values() -> Model:
    """If in Loop in Scan, each of which reads values of the graphs around it."""
    then = helper.make_graph([helper.make_node("Add", ["h", "w"], ["t"])], "then", [], [tensor("t", [2])])
    other = helper.make_graph([helper.make_node("Sub", ["h", "inner"], ["e"])], "else", [], [tensor("e", [2])])
    loop = helper.make_graph(
        [
            helper.make_node("Less", ["i", "limit"], ["small"]),
            helper.make_node("If", ["small"], ["r"], then_branch=then, else_branch=other),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "loop",
        [tensor("i", [], TensorProto.INT64), tensor("go", [], TensorProto.BOOL), tensor("h", [2])],
        [tensor("on", [], TensorProto.BOOL), tensor("r", [2])],
        initializer=[numpy_helper.from_array(np.full(2, 0.25, np.float32), "inner")],
    )
    scan = helper.make_graph(
        [
            helper.make_node("Add", ["state", "row"], ["start"]),
            helper.make_node("Loop", ["count", "yes", "start"], ["end"], body=loop),
            helper.make_node("Identity", ["end"], ["seen"]),
        ],
        "scan",
        [tensor("state", [2]), tensor("row", [2])],
        [tensor("end", [2]), tensor("seen", [2])],
    )
    weights = {
        "w": np.array([10, 20], np.float32), "limit": np.array(1, np.int64), "count": np.array(3, np.int64),
        "yes": np.array(True),
    }  # fmt: skip
    return model(
        [helper.make_node("Scan", ["s", "rows"], ["last", "all"], num_scan_inputs=1, body=scan, name="outer")],
        [tensor("s", [2]), tensor("rows", ["n", 2])],
        [tensor("last", [2]), tensor("all", ["n", 2])],
        initializer=[numpy_helper.from_array(array, name) for name, array in weights.items()],
    )


def functions() -> Model:
    """One calls another, with an attribute that has a default and one that has none, and an overload."""
    leaky = helper.make_function(
        "com.example", "Leaky", ["a"], ["b"],
        [
            helper.make_node("LeakyRelu", ["a"], ["b"]),
        ],
        [helper.make_opsetid("", 21)], ["unused"],
        attribute_protos=[helper.make_attribute("slope", 0.5)],
    )  # fmt: skip
    reference = leaky.node[0].attribute.add()
    reference.name, reference.ref_attr_name, reference.type = "alpha", "slope", AttributeProto.FLOAT
    twice = helper.make_function(
        "com.example", "Twice", ["x"], ["y"],
        [
            helper.make_node("Leaky", ["x"], ["h"], domain="com.example", unused=1),
            helper.make_node("Add", ["h", "h"], ["y"]),
        ],
        [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)], overload="f32",
    )  # fmt: skip
    twice.doc_string = "doubles"
    node = helper.make_node("Twice", ["x"], ["y"], domain="com.example", overload="f32", name="call")
    example = helper.make_opsetid("com.example", 1)
    return model([node], [tensor("x", [4])], [tensor("y", [4])], functions=[leaky, twice], opsets=[example])


def opaque_domains() -> Model:
    """Training operators, and one of a domain that nobody knows, with attributes of every kind."""
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["t"])], "branch", [], [tensor("t", [4])])
    nodes = [
        helper.make_node(
            "Momentum", ["r", "t", "x", "g", "v"], ["nx", "nv"], domain="ai.onnx.preview.training",
            alpha=0.9, beta=0.8, mode="standard", norm_coefficient=0.1,
        ),
        helper.make_node(
            "Anything", ["x", "", "nx"], ["", "q"], domain="org.unknown", name="q0",
            i=3, f=0.5, s="text", ints=[1, 2], floats=[0.5, 2.0], strings=["a", "b"], graph=branch,
            graphs=[branch, branch], t=numpy_helper.from_array(np.eye(2, dtype=np.float16), "t"),
            ts=[numpy_helper.from_array(np.arange(3), "u")] * 2,
            type=helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.INT8, ["n"])),
        ),
    ]  # fmt: skip
    nodes[1].attribute.add(name="bytes", s=b"\xff\xfe", type=AttributeProto.STRING)
    inputs = [tensor("r", []), tensor("t", [], TensorProto.INT64), *(tensor(name, [4]) for name in "xgv")]
    domains = [helper.make_opsetid("ai.onnx.preview.training", 1), helper.make_opsetid("org.unknown", 7)]
    return model(nodes, inputs, [tensor("nx", [4]), tensor("nv", [4]), tensor("q", [4])], opsets=domains)


def training_information() -> Model:
    found = model([helper.make_node("Relu", ["x"], ["y"])], [tensor("x", [4])], [tensor("y", [4])])
    found.training_info.add().algorithm.node.append(helper.make_node("Neg", ["y"], ["loss"]))
    return found


def texts() -> Model:
    """Doc strings and metadata wherever ONNX has room for them."""
    body = helper.make_graph([helper.make_node("Neg", ["x"], ["t"])], "then-branch", [], [tensor("t", [4])])
    body.doc_string = "when true"
    body.metadata_props.add(key="k", value="body")
    nodes = [
        helper.make_node("If", ["c"], ["h"], then_branch=body, else_branch=body, name="if0"),
        helper.make_node("Add", ["h", "w"], ["y"], doc_string="adds the bias", name="add/0"),
    ]
    nodes[1].metadata_props.add(key="owner", value="me")
    weight = numpy_helper.from_array(np.ones(4, np.float32), "w")
    weight.doc_string = "the bias"
    found = model(
        nodes, [tensor("c", [], TensorProto.BOOL), tensor("x", [4])], [tensor("y", [4])], initializer=[weight]
    )
    inner = found.graph.value_info.add()
    inner.CopyFrom(tensor("h", [4]))
    inner.doc_string = "before the bias"
    for holder, name in ((found, "model"), (found.graph, "graph"), (inner, "value"), (found.graph.input[1], "input")):
        holder.metadata_props.add(key="where", value=name)
        holder.metadata_props.add(key="Wörter", value="ü")
        holder.doc_string = f"of the {name}, “quoted”"
    found.graph.output[0].doc_string = "the result"
    found.producer_name, found.producer_version, found.domain, found.model_version = "tests", "1.0", "com.example", 7
    return found


def quantization() -> Model:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q0", axis=1, block_size=2),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="dq0", axis=1, block_size=2),
    ]
    weights = {"s": np.full((2, 2), 0.5, np.float32), "z": np.zeros((2, 2), ml_dtypes.uint4)}
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    found = model(nodes, [tensor("x", [2, 4])], [tensor("y", [2, 4])], initializer=initializers)
    found.graph.node[0].output[0] = found.graph.node[1].input[0] = "größe"
    for name in ("x", "größe", "y"):
        annotation = found.graph.quantization_annotation.add(tensor_name=name)
        annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
        annotation.quant_parameter_tensor_names.add(key="ZERO_POINT_TENSOR", value="z")
    return found


def inputs_with_defaults() -> Model:
    """An input that has an initializer may be left out by the caller; it stays where it was in their order."""
    nodes = [helper.make_node("Add", ["w", "x"], ["h"]), helper.make_node("Mul", ["h", "v"], ["y"])]
    weights = [numpy_helper.from_array(np.full(4, size, np.float32), name) for name, size in (("w", 1), ("v", 2))]
    inputs = [tensor("w", [4]), tensor("x", [4]), tensor("v", [4])]
    return model(nodes, inputs, [tensor("y", [4])], initializer=weights)


def names() -> Model:
    awkward = ["/a/b.c:0", "ünï", "x_1", "1", "a b", "%$", "_", "x_1_1"]
    nodes = [helper.make_node("Relu", [left], [right], name=f"node {right}") for left, right in pairwise(awkward)]
    return model(nodes, [tensor(awkward[0], ["n", "seq-len"])], [tensor(awkward[-1], ["n", "seq-len"])])


BUILDERS: list[Callable[[], Model]] = [
    sparse_initializer, sparse_constants, maps_and_sequences, a_map_of_maps, optionals, strings, every_element_type,
    captured_values, functions, opaque_domains, training_information, texts, quantization, inputs_with_defaults, names,
]  # fmt: skip
NOT_FOR_THE_CHECKER = {"every_element_type", "training_information"}


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_nothing_changes(build: Callable[[], Model]):
    source = build()
    result = again(source)
    assert differences(source, result) == []
    if build.__name__ not in NOT_FOR_THE_CHECKER:
        onnx.checker.check_model(result)


@pytest.mark.parametrize(
    ("build", "feeds"),
    [
        (sparse_initializer, {"x": np.ones((3, 4), np.float32)}),
        (captured_values, {"s": np.zeros(2, np.float32), "rows": np.arange(6, dtype=np.float32).reshape(3, 2)}),
        (functions, {"x": np.array([-2, -1, 0, 3], np.float32)}),
        (inputs_with_defaults, {"x": np.arange(4, dtype=np.float32)}),
        (inputs_with_defaults, {"x": np.arange(4, dtype=np.float32), "w": np.full(4, 9, np.float32)}),
    ],
)
def test_it_computes_the_same(build: Callable[[], Model], feeds: dict[str, Any]):
    source = build()
    expected, found = run_onnxruntime(source, feeds), run_onnxruntime(again(source), feeds)
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_the_comparison_sees_a_difference():
    source = texts()
    for change in (
        lambda m: m.graph.node[1].input.reverse(),
        lambda m: m.graph.node[0].attribute[0].g.node[0].ClearField("name") or m.graph.node[0].attribute.pop(),
        lambda m: setattr(m.graph.initializer[0], "raw_data", b"\0" * 16),
        lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", TensorProto.DOUBLE),
        lambda m: m.metadata_props.pop(),
    ):
        other = Model()
        other.CopyFrom(source)
        change(other)
        assert differences(source, other) != []


def test_a_sparse_weight_is_dense_to_who_reads_it():
    source = sparse_initializer()
    module, ctx = imported(source)
    (op,) = [op for op in module.walk() if isinstance(op, InitializerOp)]
    assert op.sparse is not None
    dense = np.zeros((3, 4), np.float32)
    dense[0, 1], dense[1, 1], dense[2, 3] = 1.5, -2, 3
    value = constant_value(op.results[0], ctx)
    assert value is not None
    assert np.array_equal(value, dense)


def test_a_text_with_an_index_outside_is_refused_where_it_is_read():
    module, ctx = imported(sparse_constants())
    text = text_of(module).replace("dense<[1, 5, 11]>", "dense<[1, 5, 12]>")
    (op,) = [op for op in parse(text, ctx).walk() if op.name == "onnx.Constant"]
    with pytest.raises(InputError, match=r"an index is outside of the dimensions \[3, 4\]"):
        constant_value(op.results[0], ctx)


def test_a_sparse_tensor_that_is_huge_when_dense_is_refused(monkeypatch: pytest.MonkeyPatch):
    module, ctx = imported(sparse_initializer())
    (op,) = [op for op in module.walk() if isinstance(op, InitializerOp)]
    monkeypatch.setattr("gimlet.dialects.onnx.sparse.LARGEST_DENSE", 47)
    with pytest.raises(InputError, match=r"of shape \[3, 4\] takes 0\.0 GB"):
        constant_value(op.results[0], ctx)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([1, 5], "values of shape \\[3\\] and indices of shape \\[2\\]"),
        ([1, 5, 12], "an index is outside of the dimensions \\[3, 4\\]"),
        ([-1, 5, 11], "an index is outside of the dimensions \\[3, 4\\]"),
        ([[0, 0, 0]] * 3, "values of shape \\[3\\] and indices of shape \\[3, 3\\]"),
    ],
)
def test_sparse_tensors_that_do_not_fit(indices: list[Any], message: str):
    source = sparse_initializer()
    source.graph.sparse_initializer[0].indices.CopyFrom(numpy_helper.from_array(np.array(indices), "i"))
    with pytest.raises(InputError, match=message), warnings.catch_warnings():
        imported(source)
