"""Large operators that a model has itself: what they are written out as computes what ONNX Runtime's kernels do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession
from tests.e2e.test_pytorch import RACK

import gimlet
from gimlet.compiler.checking.verify import verify_bundle
from gimlet.compiler.frontends import load
from gimlet.compiler.pipeline import NORMALIZE, run_passes
from gimlet.compiler.sources import open_source
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp, is_own
from gimlet.dialects.onnx.exporter import export_module
from gimlet.passes.write_out_operators import WriteOutOperatorsPass

OPSET = 24


@dataclass(frozen=True)
class Case:
    """An operator, the shapes of its inputs (None where left out), its attributes and number of outputs."""

    op_type: str
    shapes: Sequence[Sequence[int] | None]
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    domain: str = ""
    outputs: Sequence[str] = ("y",)
    opset: int = OPSET

    def label(self) -> str:
        return " ".join([self.op_type, *(f"{name}={value}" for name, value in self.attributes.items())])


ROWS, WIDE = (2, 3, 8), (8,)
HEADS, KEYS = (2, 4, 3, 8), (2, 2, 5, 8)
MICROSOFT = "com.microsoft"
FLAT = (2, 3, 32)

GROUPS = {"num_heads": 4, "kv_num_heads": 2}
PAST = [(1, 2, 4, 8), (1, 2, 4, 8), (1,), ()]
GIVEN = ("y", "k", "v")
HEADS_PAST = [(2, 4, 5, 8), (2, 4, 5, 8)]

FILTER, PADDED = ((4, 3, 3, 3), (4,)), {"pads": [1, 1, 1, 1]}
CLIPPED = {"activation": "Clip", "activation_params": [0.0, 6.0]}

CASES = [
    Case("Attention", [HEADS, KEYS, KEYS], {"scale": 0.3}),
    Case("Attention", [HEADS, KEYS, KEYS, (3, 5)], {"softcap": 2.0}),
    Case("Attention", [(2, 4, 5, 8), KEYS, KEYS], {"is_causal": 1}),
    Case("Attention", [FLAT, (2, 5, 16), (2, 5, 16)], {"q_num_heads": 4, "kv_num_heads": 2}),
    Case("Attention", [HEADS, KEYS, KEYS, None, (2, 2, 4, 8), (2, 2, 4, 8)], outputs=("y", "k", "v")),
    Case("RMSNormalization", [ROWS, WIDE], {"epsilon": 1e-3}),
    Case("RMSNormalization", [ROWS, (3, 8)], {"axis": 1}),
    Case("LayerNormalization", [ROWS, WIDE, WIDE], {"epsilon": 1e-3}),
    Case("LayerNormalization", [ROWS, WIDE], opset=17),
    Case("GroupNormalization", [(2, 8, 5, 3), WIDE, WIDE], {"num_groups": 4}),
    Case("RotaryEmbedding", [HEADS, (2, 3, 4), (2, 3, 4)]),
    Case("RotaryEmbedding", [HEADS, (2, 3, 2), (2, 3, 2)], {"rotary_embedding_dim": 4, "interleaved": 1}),
    Case("RotaryEmbedding", [FLAT, (2, 3, 4), (2, 3, 4)], {"num_heads": 4}),
    Case("Gelu", [ROWS], {"approximate": "tanh"}, opset=20),
    Case("Swish", [ROWS], {"alpha": 1.5}),
    Case("HardSwish", [ROWS], opset=17),
    Case("Mish", [ROWS], opset=18),
    Case("MeanVarianceNormalization", [(2, 3, 4, 5)], opset=17),
    Case("Einsum", [(2, 3, 8), (2, 5, 8)], {"equation": "bqd,bkd->bkq"}, opset=17),
    Case("QuickGelu", [ROWS], {"alpha": 1.3}, MICROSOFT, opset=17),
    Case("Gelu", [ROWS], {}, MICROSOFT, opset=17),
    Case("FastGelu", [ROWS, WIDE], {}, MICROSOFT, opset=17),
    Case("FastGelu", [ROWS], {}, MICROSOFT),
    Case("BiasGelu", [ROWS, WIDE], {}, MICROSOFT),
    Case("FusedMatMul", [(2, 3, 4), (2, 5, 4)], {"transB": 1, "alpha": 0.5}, MICROSOFT, opset=17),
    Case("FusedMatMul", [(2, 4, 3), (2, 4, 5)], {"transA": 1}, MICROSOFT),
    Case("FusedGemm", [(3, 4), (5, 4), (5,)], {"transB": 1, "alpha": 0.5, "activation": "Tanh"}, MICROSOFT, opset=17),
    Case("FusedGemm", [(3, 4), (4, 5)], {"activation": "LeakyRelu", "activation_alpha": 0.25}, MICROSOFT),
    Case("FusedConv", [(2, 3, 6, 5), *FILTER], PADDED | {"activation": "Relu"}, MICROSOFT, opset=17),
    Case("FusedConv", [(2, 3, 6, 5), *FILTER, (2, 4, 6, 5)], PADDED | {"activation": "Sigmoid"}, MICROSOFT),
    Case("FusedConv", [(2, 3, 6, 5), *FILTER], PADDED | CLIPPED, MICROSOFT),
    Case("SkipLayerNormalization", [ROWS, ROWS, WIDE, WIDE, WIDE], {"epsilon": 1e-3}, MICROSOFT, opset=17),
    Case("SkipLayerNormalization", [ROWS, ROWS, WIDE], {}, MICROSOFT, ("y", "", "", "sum")),
    Case("SkipSimplifiedLayerNormalization", [ROWS, ROWS, WIDE], {}, MICROSOFT, ("y", "", "", "sum"), 17),
    Case("SkipSimplifiedLayerNormalization", [ROWS, ROWS, WIDE, WIDE], {"epsilon": 1e-3}, MICROSOFT),
    Case("MultiHeadAttention", [FLAT, (2, 5, 32), (2, 5, 16)], {"num_heads": 4}, MICROSOFT, opset=17),
    Case(
        "MultiHeadAttention",
        [FLAT, (2, 5, 32), (2, 5, 32), (96,), None, (1, 4, 3, 5)],
        {"num_heads": 4, "scale": 0.4},
        MICROSOFT,
    ),
    Case("MultiHeadAttention", [FLAT, FLAT, FLAT], {"num_heads": 4, "unidirectional": 1}, MICROSOFT),
    Case("MultiHeadAttention", [FLAT, (2, 5, 32), (2, 5, 32), None, (2, 5)], {"num_heads": 4}, MICROSOFT),
    Case("Attention", [FLAT, (32, 96), (96,)], {"num_heads": 4}, MICROSOFT, opset=17),
    Case("Attention", [FLAT, (32, 96), (96,), (2, 3)], {"num_heads": 4, "unidirectional": 1}, MICROSOFT),
    Case(
        "Attention",
        [FLAT, (32, 80), (80,), None, None, (2, 4, 3, 3)],
        {"num_heads": 4, "qkv_hidden_sizes": [32, 32, 16]},
        MICROSOFT,
    ),
    Case("GroupQueryAttention", [FLAT, (2, 3, 16), (2, 3, 16), None, None, (2,), ()], GROUPS, MICROSOFT, GIVEN, 17),
    Case("GroupQueryAttention", [(1, 3, 64), None, None, *PAST], GROUPS | {"softcap": 2.0}, MICROSOFT, GIVEN),
    Case("GroupQueryAttention", [(1, 3, 32), (1, 3, 16), (1, 3, 16), *PAST], GROUPS | {"scale": 0.3}, MICROSOFT, GIVEN),
    Case(
        "GroupQueryAttention",
        [(2, 1, 64), (2, 1, 32), (2, 1, 32), (2, 2, 4, 16), (2, 2, 4, 16), (2,), (), (16, 8), (16, 8)],
        GROUPS | {"do_rotary": 1, "local_window_size": 3},
        MICROSOFT,
        GIVEN,
    ),
    Case(
        "GroupQueryAttention",
        [(2, 5, 64), (2, 5, 32), (2, 5, 32), None, None, (2,), (), (16, 8), (16, 8)],
        GROUPS | {"do_rotary": 1, "rotary_interleaved": 1, "local_window_size": 2},
        MICROSOFT,
        GIVEN,
    ),
    Case(
        "GroupQueryAttention",
        [
            (1, 3, 64),
            (1, 3, 32),
            (1, 3, 32),
            (1, 2, 4, 16),
            (1, 2, 4, 16),
            (1,),
            (),
            (16, 8),
            (16, 8),
            (1, 3),
            None,
            (4,),
        ],
        GROUPS | {"do_rotary": 1, "scale": 0.5},
        MICROSOFT,
        GIVEN,
    ),
    Case("GroupQueryAttention", [(1, 3, 64), None, None, *PAST], GROUPS | {"smooth_softmax": 1}, MICROSOFT, GIVEN),
    Case(
        "MultiHeadAttention",
        [FLAT, FLAT, FLAT, (96,), (2, 8), (1, 4, 3, 8), *HEADS_PAST],
        {"num_heads": 4, "unidirectional": 1},
        MICROSOFT,
        GIVEN,
    ),
    Case("MultiHeadAttention", [FLAT, FLAT, FLAT, None, (2, 3, 3)], {"num_heads": 4}, MICROSOFT, GIVEN),
    Case("MultiHeadAttention", [FLAT, *HEADS_PAST, (96,)], {"num_heads": 4, "scale": 0.5}, MICROSOFT, opset=17),
    Case(
        "Attention",
        [FLAT, (32, 96), (96,), (2, 8), (2, 2, 4, 5, 8)],
        {"num_heads": 4, "unidirectional": 1},
        MICROSOFT,
        ("y", "present"),
    ),
    Case("RotaryEmbedding", [FLAT, None, (16, 4), (16, 4)], {"num_heads": 4}, MICROSOFT, opset=17),
    Case("RotaryEmbedding", [HEADS, None, (16, 4), (16, 4)], {"interleaved": 1}, MICROSOFT),
    Case("RotaryEmbedding", [FLAT, None, (16, 2), (16, 2)], {"num_heads": 4, "rotary_embedding_dim": 4}, MICROSOFT),
]


def inputs_of(case: Case) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}
    for index, shape in enumerate(case.shapes):
        if shape is not None:
            found[f"x{index}"] = generator.standard_normal(shape).astype(np.float32)
    if case.domain and case.op_type == "RotaryEmbedding":
        found["x1"] = np.array([[0, 4, 2], [7, 1, 3]])
    if case.op_type == "GroupQueryAttention":
        total = found["x0"].shape[1] + (found["x3"].shape[2] if "x3" in found else 0)
        # The sequences are as long as each other: what a shorter one's cache holds behind its end is not said.
        found |= {"x5": np.full(len(found["x0"]), total - 1, np.int32), "x6": np.array(total, np.int32)}
        if "x9" in found:
            found["x9"] = np.array([[2, 7, 5]])
    elif case.op_type in ("Attention", "MultiHeadAttention") and case.domain:
        name = "x3" if case.op_type == "Attention" else "x4"
        if name in found:
            found[name] = (found[name] > -0.5).astype(np.int32)
    return found


def model_of(case: Case, batch: str | None = None) -> onnx.ModelProto:
    """A model of the operator alone, with a batch of any size where it is given a name."""
    given = inputs_of(case)
    names = [f"x{index}" if f"x{index}" in given else "" for index in range(len(case.shapes))]
    node = helper.make_node(case.op_type, names, list(case.outputs), "op", domain=case.domain, **case.attributes)
    values = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(array.dtype),
            _named(array.shape, batch or 2),
        )
        for name, array in given.items()
    ]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in case.outputs if name]
    opsets = [helper.make_opsetid("", case.opset)]
    opsets += [helper.make_opsetid(case.domain, 1)] if case.domain else []
    graph = helper.make_graph([node], "alone", values, results)
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _named(shape: Sequence[int], batch: str | int) -> list[str | int]:
    """A past of five dimensions has keys and values in the first."""
    at = 1 if len(shape) == 5 else 0
    return [batch if axis == at and size == 2 else size for axis, size in enumerate(shape)]


def _fix(model: onnx.ModelProto, values: Mapping[str, np.ndarray]) -> None:
    """Makes constants of inputs that random numbers are no values for."""
    kept = [value for value in model.graph.input if value.name not in values]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in values.items())


def run(model: onnx.ModelProto, given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return InferenceSession(model.SerializeToString()).run(None, dict(given))


def written_out(model: onnx.ModelProto, *, keep_parts: bool = False) -> tuple[Any, GimletContext]:
    ctx = GimletContext()
    module = load(model, ctx=ctx)
    run_passes(module, ctx, [*NORMALIZE, WriteOutOperatorsPass(keep_parts=keep_parts)])
    return module, ctx


def operators(module: Any) -> list[str]:
    return [op.op_type for op in module.walk() if isinstance(op, OnnxOp)]


@pytest.mark.parametrize("batch", [None, "n"])
@pytest.mark.parametrize("case", CASES, ids=Case.label)
def test_it_computes_what_the_kernel_does(case: Case, batch: str | None):
    model = model_of(case, batch)
    module, ctx = written_out(model)
    left = operators(module)
    assert len(left) > 1
    assert not any(op.domain for op in module.walk() if isinstance(op, OnnxOp))
    assert case.op_type not in left or case.domain
    after = ir.to_proto(export_module(module, ctx))
    for mine, wanted in zip(run(after, inputs_of(case)), run(model, inputs_of(case)), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=3e-5, atol=3e-5)


def test_packed_queries_keys_and_values():
    """ONNX Runtime's CPU kernel does not take them: compared with what they are packed of."""
    packed = Case("MultiHeadAttention", [(2, 3, 4, 3, 8)], {"num_heads": 4}, MICROSOFT)
    apart = Case("MultiHeadAttention", [FLAT, FLAT, FLAT], {"num_heads": 4}, MICROSOFT)
    module, ctx = written_out(model_of(packed))
    given = inputs_of(apart)
    stacked = np.stack([array.reshape(2, 3, 4, 8) for array in given.values()], axis=3)
    (found,) = run(ir.to_proto(export_module(module, ctx)), {"x0": stacked})
    np.testing.assert_allclose(found, run(model_of(apart), given)[0], rtol=3e-5, atol=3e-5)


@pytest.mark.parametrize("seed", range(6))
def test_sequences_of_their_own_lengths(seed: int):
    """Each has a cache filled to another length; what is behind its end in the new cache is not said."""
    generator = np.random.default_rng(seed)
    past = int(generator.integers(1, 6))
    cache = (3, 2, past, 16)
    shapes = [(3, 1, 64), (3, 1, 32), (3, 1, 32), cache, cache, (3,), (), (16, 8), (16, 8)]
    case = Case("GroupQueryAttention", shapes, GROUPS | {"do_rotary": 1}, MICROSOFT, GIVEN)
    model, given = model_of(case), inputs_of(case)
    lengths = generator.integers(0, past + 1, 3).astype(np.int32)
    lengths[0] = past
    given["x5"] = lengths
    module, ctx = written_out(model)
    mine, wanted = run(ir.to_proto(export_module(module, ctx)), given), run(model, given)
    np.testing.assert_allclose(mine[0], wanted[0], rtol=3e-5, atol=3e-5)
    for index, length in enumerate(lengths):
        for new, theirs in zip(mine[1:], wanted[1:], strict=True):
            np.testing.assert_allclose(new[index, :, : length + 1], theirs[index, :, : length + 1], atol=1e-6)


def test_a_past_that_is_a_buffer_stays_as_long_as_it_is():
    """The kernel puts zeros behind the new keys and values."""
    buffer = [(2, 2, 9, 8), (2, 2, 9, 8), (2,), ()]
    case = Case("GroupQueryAttention", [(2, 1, 32), (2, 1, 16), (2, 1, 16), *buffer], GROUPS, MICROSOFT, GIVEN)
    model = model_of(case)
    given = inputs_of(case) | {"x5": np.array([5, 3], np.int32), "x6": np.array(6, np.int32)}
    lengths = {name: given.pop(name) for name in ("x5", "x6")}
    _fix(model, lengths)
    module, ctx = written_out(model)
    assert "GroupQueryAttention" not in operators(module)
    for mine, wanted in zip(run(ir.to_proto(export_module(module, ctx)), given), run(model, given), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=3e-5, atol=3e-5)


@pytest.mark.parametrize(
    "case",
    [
        Case("FusedMatMul", [(2, 4, 3), (2, 4, 5)], {"transA": 1, "transBatchA": 1}, MICROSOFT),
        Case("FusedGemm", [(3, 4), (4, 5)], {"activation": "ThresholdedRelu"}, MICROSOFT),
        Case("MultiHeadAttention", [FLAT, FLAT, FLAT], {"num_heads": 5}, MICROSOFT),
        Case("GroupQueryAttention", [FLAT, FLAT, FLAT, None, None, (2,), ()], GROUPS | {"kv_num_heads": 3}, MICROSOFT),
        Case("Attention", [FLAT, (32, 95), (95,)], {"num_heads": 4}, MICROSOFT),
        Case("RotaryEmbedding", [FLAT, None, (16, 4), (16, 4)], {"num_heads": 4, "scale": 2.0}, MICROSOFT),
        Case("QuickGelu", [ROWS], {}, MICROSOFT, opset=13),
    ],
    ids=Case.label,
)
def test_what_has_no_definition_here_is_left(case: Case):
    module, _ = written_out(model_of(case), keep_parts=True)
    (left,) = (op for op in module.walk() if isinstance(op, OnnxOp))
    assert not is_own(left)


def test_equal_operators_share_one_definition():
    nodes = [
        helper.make_node("QuickGelu", [given], [made], domain=MICROSOFT)
        for given, made in (("x", "a"), ("a", "b"), ("b", "y"))
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "three", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    module, _ = written_out(helper.make_model(graph, opset_imports=opsets, ir_version=10), keep_parts=True)
    assert str(module).count("func.func private @parts.QuickGelu") == 1
    assert sum(is_own(op) for op in module.walk()) == 3


CONSTANTS = {"FusedConv": ("x1", "x2"), "GroupQueryAttention": ("x5", "x6")}
"""Inputs that a target may want to know: parts of an operator know them as well."""
QUICK = ("FusedConv", "SkipSimplifiedLayerNormalization", "MultiHeadAttention", "GroupNormalization")


@pytest.mark.parametrize("device", ["cpu:openvino", "sram0", "gpu0"])
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[] if case.op_type in QUICK else pytest.mark.full, id=case.label()) for case in CASES],
)
def test_every_target_computes_it(case: Case, device: str, tmp_path: Path):
    source = str(tmp_path / "alone.onnx")
    model = model_of(case)
    if case.op_type in CONSTANTS:
        _fix(model, {name: array for name, array in inputs_of(case).items() if name in CONSTANTS[case.op_type]})
    onnx.save(model, source)
    topology = None if device.startswith("cpu") else RACK
    bundle = gimlet.compile(source, pins={".*": device}, topology=topology, output=tmp_path / "alone.gimlet")
    for found in verify_bundle(bundle.path, open_source(source)):
        assert found.ok, found.outputs
    portable = bundle.manifest.segments[0].portable
    if case.domain and device == "sram0" and case.op_type not in ("FastGelu", "Gelu"):
        assert portable is not None
        nodes = onnx.load(bundle.path / portable.files[0], load_external_data=False).graph.node
        # The accelerator has those two itself.
        assert not any(node.domain for node in nodes), "the portable form has what the target runs"
