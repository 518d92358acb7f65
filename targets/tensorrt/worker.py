"""What TensorRT does in a process of its own (`gimlet.targets.worker`).

It prints on standard output and error what cannot be turned off, a failed assertion of its own ends the process, and a
build peaks at several times the weights.
"""

from __future__ import annotations

import importlib
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from gimlet.targets.tensorrt import engine
from gimlet.targets.worker import Call, Payloads


def hello(trt: Any, arguments: dict[str, Any], payloads: Payloads) -> dict[str, str]:
    """The library's version; answers as soon as it is loaded."""
    del arguments, payloads
    return {"version": str(trt.__version__)}


def operators(trt: Any, arguments: dict[str, Any], payloads: Payloads) -> list[str]:
    """Those of the operators in `names` that the parser has an importer for."""
    del payloads
    network = engine.builder(trt).create_network(0)
    parser = trt.OnnxParser(network, engine.messages(trt).logger)
    return [name for name in arguments["names"] if parser.supports_operator(name)]


def supports(trt: Any, arguments: dict[str, Any], payloads: Payloads) -> list[list[str]]:
    """For each model what the parser has against it; empty where nothing."""
    del arguments
    return [_objections(trt, model) for model in payloads]


def _objections(trt: Any, model: bytes) -> list[str]:
    log = engine.messages(trt)
    log.take()
    network = engine.builder(trt).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.logger)
    if parser.supports_model_v2(model):
        return []
    return engine.parser_errors(parser) or log.take()[0] or ["the parser does not support it"]


def probe(trt: Any, arguments: dict[str, Any], payloads: Payloads) -> list[list[str]]:
    """For each model why its engine does not build; empty where it does. `profiles` holds one profile a model."""
    found: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for profile, model in zip(arguments["profiles"], payloads, strict=True):
            path = Path(folder) / "probe.onnx"
            path.write_bytes(model)
            job = engine.BuildJob(
                str(path), folder, str(path.with_suffix(".trt")), profile, arguments["compute_capability"]
            )
            found.append(engine.build(trt, job).errors)
    return found


def build(trt: Any, arguments: dict[str, Any], payloads: Payloads) -> dict[str, Any]:
    """The report of one build job."""
    del payloads
    return engine.build(trt, engine.BuildJob(**arguments)).to_json()


def calls(module: str) -> dict[str, Call]:
    """What the process answers, with the library that Python imports as `module`."""
    library = importlib.import_module(module)
    return {call.__name__: partial(call, library) for call in (hello, operators, supports, probe, build)}
