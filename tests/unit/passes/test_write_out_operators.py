"""Large operators that a model has itself: what they are written out as computes what ONNX Runtime's kernels do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
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
    Case("QuickGelu", [ROWS], {"alpha": 1.3}, MICROSOFT, opset=17),
    Case("Gelu", [ROWS], {}, MICROSOFT, opset=17),
    Case("FastGelu", [ROWS, WIDE], {}, MICROSOFT, opset=17),
    Case("FastGelu", [ROWS], {}, MICROSOFT),
    Case("BiasGelu", [ROWS, WIDE], {}, MICROSOFT),
    Case("FusedMatMul", [(2, 3, 4), (2, 5, 4)], {"transB": 1, "alpha": 0.5}, MICROSOFT, opset=17),
    Case("FusedMatMul", [(2, 4, 3), (2, 4, 5)], {"transA": 1}, MICROSOFT),
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
            [batch or 2, *array.shape[1:]] if array.ndim > 1 and array.shape[0] == 2 else array.shape,
        )
        for name, array in given.items()
    ]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in case.outputs if name]
    opsets = [helper.make_opsetid("", case.opset)]
    opsets += [helper.make_opsetid(case.domain, 1)] if case.domain else []
    graph = helper.make_graph([node], "alone", values, results)
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


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


@pytest.mark.parametrize(
    "case",
    [
        Case("FusedMatMul", [(2, 4, 3), (2, 4, 5)], {"transA": 1, "transBatchA": 1}, MICROSOFT),
        Case("MultiHeadAttention", [FLAT, FLAT, FLAT], {"num_heads": 4, "unidirectional": 1}, MICROSOFT),
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


QUICK = ("SkipSimplifiedLayerNormalization", "MultiHeadAttention", "GroupNormalization")


@pytest.mark.parametrize("device", ["cpu:openvino", "sram0", "gpu0"])
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[] if case.op_type in QUICK else pytest.mark.full, id=case.label()) for case in CASES],
)
def test_every_target_computes_it(case: Case, device: str, tmp_path: Path):
    source = str(tmp_path / "alone.onnx")
    onnx.save(model_of(case), source)
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
