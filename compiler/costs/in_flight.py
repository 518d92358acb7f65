"""Keeps several requests in flight, as a program does that is given one before the last has ended."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

Request = Callable[[], None]

_BATCH_SECONDS = 0.005
"""Requests follow each other for so long on each thread: handing work to the threads then hardly counts."""
_LEAST, _MOST = 2, 50


class InFlight:
    """As many threads as there are requests in flight. A context manager that ends them."""

    def __init__(self, requests: int) -> None:
        self.requests = requests
        self.repeats = 1
        self._threads = ThreadPoolExecutor(requests, thread_name_prefix="gimlet-trial") if requests > 1 else None

    def fit(self, alternatives: Sequence[Sequence[Request]]) -> None:
        """Sets how often a request is repeated in a run: the same for all, by the quickest of these alone."""
        if self._threads is None or not alternatives:
            return
        quickest = min(_seconds(each[0]) for each in alternatives)
        self.repeats = min(_MOST, max(_LEAST, math.ceil(_BATCH_SECONDS / max(quickest, 1e-6))))

    def run(self, alternative: Sequence[Request]) -> None:
        """Runs each request `repeats` times, on a thread of its own. Raises what a request raised."""
        if self._threads is None:
            alternative[0]()
            return
        for _ in self._threads.map(self._repeat, alternative):
            pass

    def _repeat(self, request: Request) -> None:
        for _ in range(self.repeats):
            request()

    def per_request(self, seconds: float) -> float:
        """The seconds from one request's end to the next one's, of the seconds of a run."""
        return seconds / (self.requests * self.repeats)

    def __enter__(self) -> InFlight:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._threads is not None:
            self._threads.shutdown()


def _seconds(request: Request) -> float:
    request()
    start = time.perf_counter()
    request()
    return time.perf_counter() - start
