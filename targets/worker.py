"""A library in a process of its own, which the compiler asks over a pipe: its prints and its crashes stay there.

A request is a line of JSON, `{"call": NAME, "arguments": {…}, "sizes": [n, …]}`, followed by as many payloads of those
sizes in bytes; an answer is a line of JSON, `{"result": …}` or `{"error": "…"}`. The process ends with its input.

It runs `python -m gimlet.targets.worker MODULE ARGUMENT…`: the module's `calls(ARGUMENT, …)` are what answers.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, BinaryIO, TypeAlias

Payloads: TypeAlias = Sequence[bytes]
Call: TypeAlias = Callable[[dict[str, Any], Payloads], Any]

_LAST_WORDS = 2000
_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, OSError, MemoryError)


class WorkerError(RuntimeError):
    """A request without a result: the library raised something, or the worker died. The message says what it left."""


class WorkerCrashError(WorkerError):
    """The worker died over a request."""


class Worker:
    """One worker process: started when first needed, and again after it has died. Calls from threads take turns.

    `module` is the one whose `calls` it asks for, with `arguments`; `name` is what messages call it. `tidy` makes the
    library's messages readable.
    """

    def __init__(self, name: str, module: str, *arguments: str, tidy: Callable[[str], str] = str.strip) -> None:
        self.name = name
        self._command = [sys.executable, "-m", __name__, module, *arguments]
        self._tidy = tidy
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
                raise WorkerCrashError(self._epitaph(process))
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(self._tidy(answer["error"]))
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
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._printed
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
            text = self._tidy(self._printed.read().decode(errors="replace")[-_LAST_WORDS:])
            self._printed.close()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        self._process = self._printed = None
        ended = f"signal {-code}" if code < 0 else f"exit status {code}"
        return f"{self.name} ended with {ended}" + (f": {text}" if text else "")


def started(worker: Worker) -> Worker:
    """The worker, which ends with this process."""
    atexit.register(worker.close)
    return worker


def main() -> None:
    """In the process itself: answers requests until there are no more.

    What is printed goes to standard error, which the parent keeps in a file, from before the module is imported: its
    library may print as it loads.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    module, *arguments = sys.argv[1:]
    _serve(importlib.import_module(module).calls(*arguments), sys.stdin.buffer, answers)


def _serve(calls: Mapping[str, Call], requests: BinaryIO, answers: BinaryIO) -> None:
    for line in requests:
        request = json.loads(line)
        payloads = [requests.read(size) for size in request["sizes"]]
        try:
            answer = {"result": calls[request["call"]](request["arguments"], payloads)}
        except _ERRORS as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
