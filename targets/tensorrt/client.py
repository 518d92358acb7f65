"""Asks the worker process: starts it when first needed, and starts another where one has died."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from functools import cache
from typing import IO, Any

from gimlet.targets.tensorrt.engine import tidy

_LAST_WORDS = 2000


class WorkerError(RuntimeError):
    """The worker died over a request, or its library raised something: the message says what was left to read."""


class Worker:
    """One worker process of one library. Calls from several threads take turns."""

    def __init__(self, module: str) -> None:
        self.module = module
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._printed: IO[bytes] | None = None

    def call(self, name: str, payloads: Sequence[bytes] = (), **arguments: Any) -> Any:
        """The result of a call. WorkerError where there is none."""
        request = {"call": name, "arguments": arguments, "sizes": [len(payload) for payload in payloads]}
        with self._lock:
            process = self._running()
            try:
                line = self._exchange(process, json.dumps(request).encode(), payloads)
            except BrokenPipeError:
                line = b""
            if not line:
                raise WorkerError(self._epitaph(process))
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(tidy(answer["error"]))
        return answer["result"]

    def close(self) -> None:
        """Ends the process. A later call starts another."""
        with self._lock:
            if self._process is not None:
                if self._process.stdin is not None:
                    self._process.stdin.close()
                self._process.wait()
                if self._process.stdout is not None:
                    self._process.stdout.close()
            if self._printed is not None:
                self._printed.close()
            self._process = self._printed = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._printed = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gimlet.targets.tensorrt.worker", self.module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._printed,
            )
        return self._process

    @staticmethod
    def _exchange(process: subprocess.Popen[bytes], request: bytes, payloads: Sequence[bytes]) -> bytes:
        if process.stdin is None or process.stdout is None:
            return b""
        process.stdin.write(request + b"\n")
        for payload in payloads:
            process.stdin.write(payload)
        process.stdin.flush()
        return process.stdout.readline()

    def _epitaph(self, process: subprocess.Popen[bytes]) -> str:
        code = process.wait()
        text = ""
        if self._printed is not None:
            self._printed.seek(0)
            text = tidy(self._printed.read().decode(errors="replace")[-_LAST_WORDS:])
            self._printed.close()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        self._process = self._printed = None
        ended = f"signal {-code}" if code < 0 else f"exit status {code}"
        return f"{self.module} ended with {ended}" + (f": {text}" if text else "")


@cache
def worker(module: str) -> Worker:
    """The process's worker for a library, by the name that Python imports it by."""
    found = Worker(module)
    atexit.register(found.close)
    return found
