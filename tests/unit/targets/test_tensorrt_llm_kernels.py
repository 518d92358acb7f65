"""Kernels of language models: which one an op is, what it has to do, and their times from figures and from tables."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.unit.targets.conftest import main_of
from xdsl.ir import Operation

from gimlet.compiler.costs.table import TableCosts
from gimlet.compiler.hardware import load_kind
from gimlet.compiler.placement.reading.graph import read_graph
from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.errors import MissingError, UsageError
from gimlet.targets.api import Device, HardwareKind, MemoryLevel
from gimlet.targets.tensorrt import tables
from gimlet.targets.tensorrt.llm_kernels import Decode, Experts, Kernel, Prefill, Product, kernel_of, model_seconds
from gimlet.targets.tensorrt.target import TensorRTTarget

FIGURES = {"compute": 0.5, "memory": 0.5, "item_s": 1e-12, "kernel_s": 1e-5}
KIND = HardwareKind(
    name="vendor/part",
    targets=("tensorrt",),
    peak={"bf16": 1e15, "fp8": 2e15, "vector": 1e13},
    memory=(MemoryLevel("hbm", 1 << 36, 1e12),),
    load_w=500.0,
    options={"kernels": {"product_bf16": FIGURES, "product_fp8": FIGURES, "decode_bf16": FIGURES}, "tables": "part"},
)
DEVICE = Device("gpu0", KIND)


@pytest.fixture
def op(import_onnx):
    """The last op of a model of one op over inputs (or, after `weights`, initializers) of these shapes."""
    kept: list[Any] = []

    def run(name: str, *shapes: list[int], weights: int = 0, domain: str = "", outputs: int = 1, **attributes: Any):
        names = [f"v{index}" for index in range(len(shapes))]
        first_weight = len(shapes) - weights
        values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True)]
        made = [
            helper.make_tensor(n, TensorProto.FLOAT, s, [0.0] * _count(s))
            for n, s in zip(names[first_weight:], shapes[first_weight:], strict=True)
        ]
        results = [f"y{index}" for index in range(outputs)]
        node = helper.make_node(
            name, [n if s else "" for n, s in zip(names, shapes, strict=True)], results, domain=domain, **attributes
        )
        given_values = [v for v, s in zip(values[:first_weight], shapes, strict=False) if s]
        result = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in results]
        graph = helper.make_graph([node], "g", given_values, result, made)
        opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
        module, _ = import_onnx(helper.make_model(graph, opset_imports=opsets, ir_version=10))
        kept.append(module)
        return next(o for o in main_of(module).body.block.ops if isinstance(o, OnnxOp) and o.op_type == name)

    return run


def _count(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def test_which_kernel_an_op_is(op):
    assert kernel_of(op("MatMul", [2, 3, 8], [8, 16], weights=1), {}, "fp8") == Product("fp8", 6, 16, 8)
    assert kernel_of(op("Gemm", [8, 3], [8, 16], weights=1, transA=1), {}, "bf16") == Product("bf16", 3, 16, 8)
    heads = [2, 8, 4, 16], [2, 2, 4, 16], [2, 2, 4, 16]
    assert kernel_of(op("Attention", *heads, is_causal=1), {}, "bf16") == Prefill("bf16", 2, 4, 8, 2, 16)
    one = [2, 8, 1, 16], [2, 2, 1, 16], [2, 2, 1, 16], [], [2, 2, 9, 16], [2, 2, 9, 16]
    assert kernel_of(op("Attention", *one, outputs=3), {}, "bf16") == Decode("bf16", 2, 10, 8, 2, 16)


def test_which_ops_are_none(op):
    assert kernel_of(op("MatMul", [3, 8], [8, 16]), {}, "bf16") is None
    fewer = [1, 8, 4, 16], [1, 2, 3, 16], [1, 2, 3, 16]
    assert kernel_of(op("Attention", *fewer, is_causal=1), {}, "bf16") is None
    assert kernel_of(op("Relu", [3, 8]), {}, "bf16") is None


def test_attention_that_is_not_causal_sees_everything_and_reads_its_mask(op):
    heads, keys = [2, 8, 4, 16], [2, 2, 6, 16]
    plain = kernel_of(op("Attention", heads, keys, keys), {}, "bf16")
    assert plain == Prefill("bf16", 2, 4, 8, 2, 16, causal=False, past=2)
    assert (plain.load().flops, plain.load().items) == (4 * 2 * 8 * 4 * 6 * 16, 2 * 8 * 4 * 6)
    assert plain.load().bytes_moved == 2 * (2 * 2 * 8 * 4 * 16 + 2 * 2 * 2 * 6 * 16)
    masked = kernel_of(op("Attention", heads, keys, keys, [2, 1, 4, 6]), {}, "bf16")
    assert masked.load().bytes_moved == plain.load().bytes_moved + 2 * 2 * 4 * 6
    fewer = kernel_of(op("Attention", heads, [2, 2, 3, 16], [2, 2, 3, 16]), {}, "bf16")
    assert fewer.load().flops == 4 * 2 * 8 * 4 * 3 * 16
    assert tables.table_seconds(masked, "b200_sxm") is None, "the tables have causal attention of new positions alone"


def test_experts_of_a_layer(op):
    layer = op("MoE", [10, 8], [10, 4], [4, 16, 8], [], [4, 8, 16], [], [4, 16, 8], domain="com.microsoft", k=2)
    assert kernel_of(layer, {}, "bf16") == Experts("bf16", 10, 8, 16, 2, 4)


def test_loads_by_hand():
    product = Product("fp8", 4, 8, 16).load()
    assert (product.flops, product.bytes_moved, product.items) == (
        2 * 4 * 8 * 16,
        8 * 16 + 4 * 16 + 2 * 4 * 8,
        3 * 4 * 16,
    )
    assert Product("bf16", 4, 8, 16).load().items == 0
    assert Prefill("bf16", 1, 4, 2, 1, 8).load().items == 2 * (1 + 2 + 3 + 4)
    assert Prefill("bf16", 1, 4, 2, 1, 8, window=2).load().items == 2 * (1 + 2 + 2 + 2)
    decode = Decode("bf16", 3, 65, 4, 2, 8).load()
    assert decode.bytes_moved == 2 * 3 * 2 * 128 * 8 * 2 + 2 * 3 * 4 * 8 * 2
    all_of_them = Experts("bf16", 1, 8, 16, 4, 4).load()
    assert all_of_them.flops == 2 * 4 * 3 * 8 * 16
    assert all_of_them.bytes_moved == pytest.approx(4 * 3 * 8 * 16 * 2 + 4 * (2 * 8 * 2 + 3 * 16 * 2))


def test_the_model_by_hand():
    product = Product("bf16", 1000, 1000, 1000)
    assert model_seconds(product, KIND) == pytest.approx(max(2e9 / 5e14, 6e6 / 5e11) + 1e-5)
    decode = Decode("bf16", 1, 64, 1, 1, 64)
    load = decode.load()
    assert model_seconds(decode, KIND) == pytest.approx(load.flops / 5e14 + load.bytes_moved / 5e11 + 1e-12 + 1e-5)
    assert model_seconds(Product("fp16", 1000, 1000, 1000), KIND) is None
    assert model_seconds(Experts("bf16", 1, 8, 8, 1, 2), KIND) is None


@given(st.integers(1, 4096), st.integers(1, 4096), st.sampled_from(["bf16", "fp8"]), st.floats(1, 8))
def test_larger_is_never_quicker_and_more_bandwidth_never_slower(m: int, k: int, fmt: str, factor: float):
    faster = HardwareKind("f", (), KIND.peak, (MemoryLevel("hbm", 1 << 36, factor * 1e12),), options=KIND.options)
    seconds = model_seconds(Product(fmt, m, 512, k), KIND)
    assert seconds is not None
    for larger in (Product(fmt, m + 1, 512, k), Product(fmt, m, 512, k + 1)):
        assert (model_seconds(larger, KIND) or 0) >= seconds
    assert (model_seconds(Product(fmt, m, 512, k), faster) or 1) <= seconds * (1 + 1e-9)


GRID = {(n, k, m): 1e-9 * n * k * m for n in (64, 128) for k in (64, 256) for m in (1, 16, 64)}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch):
    """A table of products whose time is their work."""
    monkeypatch.setattr(tables, "table", lambda part, kernel: {("bfloat16",): GRID} if kernel == "product" else {})
    tables.table_seconds.cache_clear()
    yield
    tables.table_seconds.cache_clear()


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(("m", "n", "k"), [(1, 64, 64), (4, 64, 64), (7, 100, 200), (128, 128, 256), (3, 512, 64)])
def test_between_measured_sizes_times_follow_the_work(m: int, n: int, k: int):
    assert tables.table_seconds(Product("bf16", m, n, k), "part") == pytest.approx(1e-9 * m * n * k)


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("kernel", [Product("fp8", 1, 64, 64), Decode("bf16", 1, 64, 1, 1, 64)])
def test_what_was_not_measured_has_no_time(kernel: Kernel):
    assert tables.table_seconds(kernel, "part") is None


def test_one_measured_size_says_nothing_of_others():
    assert tables.interpolated({(8,): 1.0}, (8,)) == 1.0
    assert tables.interpolated({(8,): 1.0}, (9,)) is None


def test_rows_that_are_no_kernel_here(monkeypatch: pytest.MonkeyPatch):
    row = {"moe_ep_size": 1, "distribution": "balanced", "kernel_source": "cutlass", "inter_size": 32, "moe_tp_size": 2}
    row |= {"moe_dtype": "bfloat16", "hidden_size": 8, "topk": 2, "num_experts": 4, "num_tokens": 3, "latency": 2.0}
    others = [{**row, "moe_ep_size": 2}, {**row, "distribution": "power_law"}, {**row, "kernel_source": "x_nongated"}]
    slower = {**row, "latency": 3.0}
    monkeypatch.setattr(tables, "rows", lambda part, kernel: [*others, slower, row])
    tables.table.cache_clear()
    assert tables.table("other", "experts") == {("bfloat16", 8, 16, 2, 4): {(3,): 2e-3}}
    tables.table.cache_clear()


def test_published_times_are_read():
    """Two rows of aiconfigurator-core 0.12.0: `gemm_perf` of b200_sxm, `generation_attention_perf` of h100_sxm."""
    product = Product("bf16", 16384, 65536, 51200)
    assert tables.table_seconds(product, "b200_sxm") == pytest.approx(86.48777262369792e-3)
    assert tables.table_seconds(Decode("bf16", 32, 2, 64, 64, 64), "h100_sxm") == pytest.approx(23.930666347344715e-6)


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="aiconfigurator-core and pyarrow"):
        tables.rows("part", "product")


@pytest.mark.usefixtures("measured")
def test_the_provider_says_what_is_from_tables(import_onnx):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Softmax", ["a"], ["y"]),
    ]
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [16, 64]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], [helper.make_tensor("w", 1, [64, 64], [0.0] * 4096)])
    module, _ = import_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    units = read_graph(module, {})
    found = TableCosts().costs(units, [0, 1], TensorRTTarget(), DEVICE, "bf16")
    assert found.costs[0].seconds == pytest.approx(1e-9 * 16 * 64 * 64)
    assert found.costs[0].joules == pytest.approx(500.0 * found.costs[0].seconds)
    softmax: Operation = units.units[1].ops[0]
    assert found.costs[1] == TensorRTTarget().op_cost(softmax, DEVICE, "bf16", {})
    assert found.notes == ("gpu0: 1 ops' costs from tables, the rest by the model: Softmax 1",)


def test_a_device_without_tables_is_refused(import_onnx):
    plain = HardwareKind("vendor/other", ("tensorrt",), KIND.peak, KIND.memory)
    with pytest.raises(UsageError, match="no tables of measured kernels"):
        TableCosts().costs(
            read_graph(main_module(import_onnx), {}), [], TensorRTTarget(), Device("gpu0", plain), "bf16"
        )


def main_module(import_onnx):
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    return import_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))[0]


@pytest.mark.parametrize("name", ["nvidia/b200", "nvidia/h100"])
def test_shipped_kinds_have_all_kernels(name: str):
    kind = load_kind(name)
    kernels = Product("bf16", 8, 4096, 4096), Prefill("fp8", 1, 512, 32, 8, 128), Decode("fp8", 8, 512, 32, 8, 128)
    for kernel in (*kernels, Experts("bf16", 64, 2880, 2880, 4, 128)):
        seconds = model_seconds(kernel, kind)
        assert seconds is not None
        assert 1e-6 < seconds < 1e-2
    assert kind.sources["options.kernels.product_bf16.compute"].startswith("fitted by benchmarks/gpu_kernels.py")
