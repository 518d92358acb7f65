"""OpenVINO's worker process."""

from functools import cache
from typing import Any

from gimlet.targets.worker import Worker, WorkerCrashError, started


@cache
def worker() -> Worker:
    """The compiler's worker for OpenVINO."""
    return started(Worker("OpenVINO", "gimlet.targets.openvino.worker"))


def check_build(model: str, constants: str) -> None:
    """Compiles a model from its files as the executor will, to see that it builds. RuntimeError with the message.

    Where that ends the process it is tried once more: it may have been another reason.
    """
    arguments: dict[str, Any] = {"model": model, "constants": constants}
    try:
        worker().call("build", **arguments)
    except WorkerCrashError:
        worker().call("build", **arguments)
