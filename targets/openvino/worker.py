"""What OpenVINO does in a process of its own (`gimlet.targets.worker`): it builds models and tries ops.

Now and then a run ends in a null pointer of its CPU plug-in, and with it the process: with 2026.4.1 in two of some
fifteen runs over audio models, on a busy machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from gimlet.runtime.executors.openvino import settings_of
from gimlet.targets.openvino.library import DEVICE, core
from gimlet.targets.worker import Call, Payloads

_SETTINGS = settings_of({"threads": 1})


def build(arguments: dict[str, Any], payloads: Payloads) -> None:
    """Compiles the model in the files `model` and `constants`, as the executor will. RuntimeError with the message."""
    del payloads
    core().compile_model(core().read_model(arguments["model"], arguments["constants"]), DEVICE, _SETTINGS)


def run(arguments: dict[str, Any], payloads: Payloads) -> list[dict[str, Any]]:
    """Builds a model, and runs it where there are values: the type and shape of each output, in files of `folder`.

    The first payload is the ONNX model, the others are its inputs, of `dtypes` and `shapes`. RuntimeError with
    OpenVINO's message, and for a model that has other inputs or outputs than `inputs` and `outputs` in number.
    """
    import openvino

    compiled = core().compile_model(core().read_model(payloads[0]), DEVICE, _SETTINGS)
    if len(compiled.inputs) != arguments["inputs"] or len(compiled.outputs) != arguments["outputs"]:
        raise RuntimeError("OpenVINO's model has other inputs or outputs than the op")
    if not arguments["runs"]:
        return []
    request = compiled.create_infer_request()
    values = zip(payloads[1:], arguments["dtypes"], arguments["shapes"], strict=True)
    for position, (data, dtype, shape) in enumerate(values):
        array = np.frombuffer(data, getattr(ml_dtypes, dtype, dtype)).reshape(shape)
        request.set_input_tensor(position, openvino.Tensor(array.copy()))
    request.infer()
    found: list[dict[str, Any]] = []
    for position in range(arguments["outputs"]):
        array = np.array(request.get_output_tensor(position).data)
        array.tofile(Path(arguments["folder"]) / str(position))
        found.append({"dtype": array.dtype.name, "shape": array.shape})
    return found


def calls() -> dict[str, Call]:
    """What the process answers."""
    return {"build": build, "run": run}
