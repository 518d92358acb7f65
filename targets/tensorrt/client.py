"""TensorRT's worker processes, one for each of its libraries."""

from functools import cache

from gimlet.targets.tensorrt.engine import tidy
from gimlet.targets.worker import Worker, started


@cache
def worker(module: str) -> Worker:
    """The process's worker for a library, by the name that Python imports it by."""
    return started(worker_of(module))


def worker_of(module: str) -> Worker:
    """A worker of its own."""
    return Worker(module, "gimlet.targets.tensorrt.worker", module, tidy=tidy)
