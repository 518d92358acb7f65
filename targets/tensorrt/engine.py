"""Builds an engine through the API that TensorRT and TensorRT for RTX share.

Runs in the worker process (or in `gimlet-compile finish`, on the GPU's host) and imports nothing but the standard
library and the module `trt` that it is given. The network is strongly typed: the precision is what the graph says.
TF32 is cleared unless the job allows it. Both libraries keep the first logger that a process registers and ignore
later ones, so there is one logger a process and each job reads the part of it that is its own.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

WARNING, ERROR = "warning", "error"

# "In validate at /_src/optimizer/api/network.cpp:4048" says where TensorRT noticed, not what is wrong.
_SOURCE = re.compile(r"\s*In \S+ at \S+\.(?:cpp|h):\d+|\(?\S*\.(?:cpp|h|cu)[:\w]*:\d+:?\)?|\[?Error Code \d+:\s*")
_LONGEST_MESSAGE = 400


@dataclass(frozen=True)
class BuildJob:
    """One engine to build. Paths are absolute.

    `model` is a serialised ONNX model whose external data is named relative to `root`. `profile` maps each input to its
    `min`, `opt` and `max` shape. `compute_capability` is empty where the library builds for the GPU at hand.
    """

    model: str
    root: str
    engine: str
    profile: Mapping[str, Mapping[str, list[int]]] = field(default_factory=dict[str, Mapping[str, list[int]]])
    compute_capability: str = ""
    allow_tf32: bool = False
    optimization_level: int | None = None


@dataclass(frozen=True)
class Binding:
    """An input or output of an engine: its name, numpy spelling of its type, and shape with -1 where dynamic."""

    name: str
    dtype: str
    shape: list[int]


@dataclass
class BuildReport:
    """What came of a job. `errors` is empty where the engine was written. `layers` counts them by TensorRT's type."""

    errors: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])
    inputs: list[Binding] = field(default_factory=list[Binding])
    outputs: list[Binding] = field(default_factory=list[Binding])
    layers: dict[str, int] = field(default_factory=dict[str, int])
    engine_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> BuildReport:
        edges: dict[str, Any] = {key: [Binding(**item) for item in data[key]] for key in ("inputs", "outputs")}
        return BuildReport(**(dict(data) | edges))


class Messages:
    """What the library logged: severity and text, in order."""

    def __init__(self, trt: Any) -> None:
        self.records: list[tuple[str, str]] = []
        severity = trt.ILogger.Severity
        names = {severity.INTERNAL_ERROR: ERROR, severity.ERROR: ERROR, severity.WARNING: WARNING}
        records = self.records

        class Recorder(trt.ILogger):
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                if severity in names:
                    records.append((names[severity], msg))

        self.logger: Any = Recorder()

    def take(self) -> tuple[list[str], list[str]]:
        """The errors and warnings since the last call, tidied, each once."""
        records, self.records[:] = list(self.records), []
        errors = [tidy(text) for kind, text in records if kind == ERROR]
        warnings = [tidy(text) for kind, text in records if kind == WARNING]
        return list(dict.fromkeys(errors)), list(dict.fromkeys(warnings))


@cache
def messages(trt: Any) -> Messages:
    """The process's one log of a library."""
    return Messages(trt)


@cache
def builder(trt: Any) -> Any:
    """The process's builder of a library; a builder is costly to make and holds no state between jobs."""
    return trt.Builder(messages(trt).logger)


def tidy(message: str) -> str:
    """A message of the library in one line, without source positions and of a readable length."""
    text = " ".join(_SOURCE.sub(" ", message).split()).strip(" ()")
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 1] + "…"


def parse(trt: Any, model: bytes, root: str) -> tuple[Any, list[str]]:
    """The network of a model, and why it could not be parsed (empty where it could)."""
    log = messages(trt)
    log.take()
    network = builder(trt).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.logger)
    if parser.parse(model, str(Path(root) / "model.onnx")):
        allow_decomposed_attention(trt, network)
        return network, []
    return network, parser_errors(parser) or log.take()[0] or ["the parser refused the model and said nothing"]


def parser_errors(parser: Any) -> list[str]:
    """What a parser complained about, each with the node that it names."""
    found: list[str] = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        node = error.node_name() or error.node_operator()
        text = tidy(error.desc())
        # The text of the check that always fails, of operators that it knows by name only.
        if text == "false":
            text = "the parser does not support this operator"
        found.append(f"{node}: {text}" if node else text)
    return list(dict.fromkeys(found))


def allow_decomposed_attention(trt: Any, network: Any) -> None:
    """Lets an attention without a fused kernel (all of them in float32) be built from matrix products and softmax."""
    kind = getattr(trt.LayerType, "ATTENTION_OUTPUT", None)
    for index in range(network.num_layers if kind is not None else 0):
        layer = network.get_layer(index)
        if layer.type == kind:
            # The bindings hand out every layer as the base class; this is how they are told what it is.
            layer.__class__ = trt.IAttentionOutputLayer
            layer.attention.decomposable = True


def shape_inputs(network: Any) -> list[str]:
    """Inputs whose values, not only whose shape, decide the shapes of other tensors."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    return [tensor.name for tensor in inputs if tensor.is_shape_tensor]


def configuration(trt: Any, job: BuildJob) -> Any:
    """The builder's configuration for a job."""
    config = builder(trt).create_builder_config()
    if not job.allow_tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if job.optimization_level is not None:
        config.builder_optimization_level = job.optimization_level
    if job.compute_capability:
        config.num_compute_capabilities = 1
        config.set_compute_capability(
            getattr(trt.ComputeCapability, compute_capability_name(job.compute_capability)), 0
        )
    if job.profile:
        profile = builder(trt).create_optimization_profile()
        for name, shape in job.profile.items():
            profile.set_shape(name, shape["min"], shape["opt"], shape["max"])
        config.add_optimization_profile(profile)
    return config


def compute_capability_name(capability: str) -> str:
    """TensorRT's name of a compute capability: "12.0" is SM120."""
    return "SM" + capability.replace(".", "")


def build(trt: Any, job: BuildJob, make_config: Callable[[Any, BuildJob], Any] = configuration) -> BuildReport:
    """Builds the engine of a job and writes it; the report says what is in it, or why there is none."""
    network, errors = parse(trt, Path(job.model).read_bytes(), job.root)
    if errors:
        return BuildReport(errors=errors)
    report = BuildReport(
        inputs=[_binding(trt, network.get_input(index)) for index in range(network.num_inputs)],
        outputs=[_binding(trt, network.get_output(index)) for index in range(network.num_outputs)],
        layers=count_layers(network),
    )
    for name in shape_inputs(network):
        report.errors.append(f"{name}: the value of this input is needed as a shape, which only a constant can be here")
    if report.errors:
        return report
    engine = builder(trt).build_serialized_network(network, make_config(trt, job))
    errors, report.warnings = messages(trt).take()
    if engine is None:
        report.errors = errors or ["the builder returned no engine and said nothing"]
        return report
    report.engine_bytes = int(engine.nbytes)
    partial = f"{job.engine}.{os.getpid()}"
    Path(partial).write_bytes(memoryview(engine))
    Path(partial).replace(job.engine)
    return report


def count_layers(network: Any) -> dict[str, int]:
    """How many layers of each type a network has."""
    kinds = Counter(str(network.get_layer(index).type).rpartition(".")[2] for index in range(network.num_layers))
    return dict(sorted(kinds.items()))


_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
    "FP8": "float8_e4m3fn",
    "INT4": "int4",
    "FP4": "float4_e2m1fn",
    "E8M0": "float8_e8m0fnu",
}


def _binding(trt: Any, tensor: Any) -> Binding:
    del trt
    name = str(tensor.dtype).rpartition(".")[2]
    return Binding(tensor.name, _DTYPES.get(name, name.lower()), list(tensor.shape))
