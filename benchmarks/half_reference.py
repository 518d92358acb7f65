"""The reference of `--verify` in half precision against onnx's plain evaluator: `python benchmarks/half_reference.py`.

Operators on long axes: the relative L2 error of both against the same operator in float64 (Attention in float32). Then
layers of BERT and Llama as wide as the real ones, with random weights, as PyTorch's exporter writes them: how far the
host's bundle is from either, and the CPU time that the reference takes; bold is more than `--verify` allows.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import torch
import transformers as tf
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import gimlet
from gimlet.compiler.checking.half_evaluator import HalfEvaluator
from gimlet.compiler.checking.numerics import L2_TOLERANCE, deviation
from gimlet.compiler.checking.reference_corrections import corrections

FORMATS = {
    "fp16": (TensorProto.FLOAT16, np.dtype(np.float16), torch.float16),
    "bf16": (TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16), torch.bfloat16),
}
LAST = np.array([1])
# Operator, shapes of inputs, a constant behind them.
OPERATORS: list[tuple[str, list[list[int]], Any]] = [
    ("MatMul", [[4, 8192], [8192, 16]], None),
    ("Gemm", [[4, 4096], [4096, 16], [16]], None),
    ("Conv", [[1, 64, 20, 20], [32, 64, 3, 3]], None),
    ("ReduceSum", [[4, 8192]], LAST),
    ("ReduceMean", [[4, 8192]], LAST),
    ("ReduceL2", [[4, 8192]], LAST),
    ("CumSum", [[4, 8192]], np.array(1)),
    ("Softmax", [[4, 4096]], None),
    ("LayerNormalization", [[4, 4096], [4096]], None),
    ("RMSNormalization", [[4, 4096], [4096]], None),
    ("GlobalAveragePool", [[1, 4, 128, 128]], None),
    ("Gelu", [[4, 4096]], None),
    ("Attention", [[1, 4, 64, 64], [1, 4, 512, 64], [1, 4, 512, 64]], None),
]
WIDE = {"vocab_size": 1000, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 2}
TOKENS = 256


def _model(name: str, shapes: list[list[int]], constant: Any, code: int) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(f"x{i}", code, shape) for i, shape in enumerate(shapes)]
    constants = [] if constant is None else [numpy_helper.from_array(constant, "constant")]
    node = helper.make_node(name, [each.name for each in (*inputs, *constants)], ["y"])
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", code, None)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def _operator(name: str, shapes: list[list[int]], constant: Any, fmt: str) -> list[str]:
    code, dtype, _ = FORMATS[fmt]
    rng = np.random.default_rng(0)
    inputs = {f"x{i}": rng.standard_normal(shape).astype(dtype) for i, shape in enumerate(shapes)}
    if constant is not None:
        # What adds up to nearly nothing has no relative error.
        inputs = {key: np.abs(value) for key, value in inputs.items()}
    exact_code, exact = (TensorProto.FLOAT, np.float32) if name == "Attention" else (TensorProto.DOUBLE, np.float64)
    wide = {key: value.astype(exact) for key, value in inputs.items()}
    (expected,) = ReferenceEvaluator(_model(name, shapes, constant, exact_code)).run(None, wide)
    model = _model(name, shapes, constant, code)
    found = [evaluator(model).run(None, inputs)[0] for evaluator in (ReferenceEvaluator, HalfEvaluator)]
    return [_bold(deviation(each, expected).relative_l2, fmt) for each in found]


def _bold(error: float, fmt: str) -> str:
    return f"**{error:.1e}**" if error > L2_TOLERANCE[fmt] else f"{error:.1e}"


def _transformer(family: str, fmt: str, folder: Path) -> list[str]:
    torch.manual_seed(0)
    module: Any
    if family == "BERT":
        module = tf.BertModel(tf.BertConfig(**WIDE, num_attention_heads=12))
    else:
        module = tf.LlamaModel(tf.LlamaConfig(**WIDE, num_attention_heads=12, num_key_value_heads=4))
    module = module.eval().to(FORMATS[fmt][2])
    module.config.use_cache = module.config.return_dict = False
    path = folder / f"{family}-{fmt}.onnx"
    tokens = torch.randint(0, 999, (1, TOKENS))
    torch.onnx.export(module, (tokens,), path, dynamo=True, opset_version=23, verbose=False)
    bundle = gimlet.compile(path, output=folder / f"{family}-{fmt}.gimlet")
    inputs = {value.name: tokens.numpy() for value in onnx.load(path, load_external_data=False).graph.input}
    with gimlet.load(bundle.path) as program:
        outputs = list(program(**inputs).values())
    cells: list[str] = []
    for evaluator in (ReferenceEvaluator, HalfEvaluator):
        reference, start = evaluator(str(path), new_ops=corrections(path)), time.process_time()
        expected = reference.run(None, inputs)
        seconds = time.process_time() - start
        error = max(deviation(a, b).relative_l2 for a, b in zip(outputs, expected, strict=True))
        cells.append(f"{_bold(error, fmt)} in {seconds:.1f} s")
    return cells


def main() -> None:
    """Prints a row for each operator and transformer, with two columns for each format."""
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    print("| | fp16, as it is | in float32 | bf16, as it is | in float32 |\n|---|---|---|---|---|")
    for operator in OPERATORS:
        cells = [cell for fmt in FORMATS for cell in _operator(*operator, fmt)]
        print(f"| {operator[0]} | {' | '.join(cells)} |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for family in ("BERT", "Llama"):
            cells = [cell for fmt in FORMATS for cell in _transformer(family, fmt, Path(folder))]
            print(f"| two layers of {family} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
