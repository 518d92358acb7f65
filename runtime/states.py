"""What a program keeps from run to run: a `State` is one sequence, with its own memory on the devices.

    program(ids)                        # the program's own state
    program.reset()                     # zeros again
    other = program.state()             # another sequence
    other(ids); other.values(); other.load({"past": array}); other.close()

A state serves one run at a time. A run that fails before it starts, or that writes nothing in place, leaves it as it
was; otherwise it must be reset, and says so.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gimlet.runtime.errors import InputError
from gimlet.runtime.frame import Frame, Machinery
from gimlet.runtime.state_memory import RESET, Part, Shape

if TYPE_CHECKING:
    from concurrent.futures import Future

Run = Callable[[Mapping[str, Any]], dict[str, Any]]
Shapes = tuple[Shape, ...]
Task = tuple["Future[Any]", Callable[[], Any]]


@dataclass(frozen=True)
class Hooks:
    """What a state asks of its program: a run on it, one in the form of a call, a thread, sizes, to be forgotten."""

    run: Callable[[State, Mapping[str, Any]], dict[str, Any]]
    call: Callable[[Run, Sequence[Any], Mapping[str, Any]], Any]
    on_thread: Callable[[Callable[[], None]], None]
    initial_sizes: Callable[[Shapes], dict[str, int]]
    forget: Callable[[State], None]


class State:
    """One sequence: what a program has left of the runs before, and the memory of one run on it."""

    def __init__(self, machinery: Machinery, hooks: Hooks) -> None:
        self._hooks = hooks
        places = machinery.schedule.places
        self.parts = [Part(machinery.allocate, places[each.read], each) for each in machinery.schedule.states]
        self.frame = Frame(machinery)
        self._running = threading.Lock()
        self._queueing = threading.Lock()
        self._waiting: deque[Task] = deque()
        self._draining = False
        self._begun = self._torn = self._closed = False

    def __call__(self, /, *args: Any, **inputs: Any) -> Any:
        """As a call of the program, on this state."""
        return self._hooks.call(self.run, args, inputs)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """As `Program.run`, on this state.

        InputError as for it, where another run of this state is under way, and after one that was torn.
        """
        if not self._running.acquire(blocking=False):
            raise InputError(
                "the state is in use by another run",
                hint="wait for that run, or make a state for each sequence with program.state()",
            )
        try:
            return self._hooks.run(self, inputs)
        finally:
            self._running.release()

    def submit(self, /, *args: Any, **inputs: Any) -> Future[Any]:
        """As a call, on another thread, after what was submitted on this state before."""
        return self._enqueue(partial(self._hooks.call, partial(self._hooks.run, self), args, inputs))

    def submit_run(self, inputs: Mapping[str, Any]) -> Future[dict[str, Any]]:
        """As `run`, on another thread, after what was submitted on this state before."""
        return self._enqueue(partial(self._hooks.run, self, inputs))

    def _enqueue(self, function: Callable[[], Any]) -> Future[Any]:
        from concurrent.futures import Future

        future: Future[Any] = Future()
        with self._queueing:
            if not self._draining:
                self._hooks.on_thread(self._drain)
                self._draining = True
            self._waiting.append((future, function))
        return future

    def _drain(self) -> None:
        while True:
            with self._queueing:
                if not self._waiting:
                    self._draining = False
                    return
                future, function = self._waiting.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                with self._running:
                    result = function()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

    def shapes(self, given: Shapes) -> Shapes:
        """The shapes that the state has in a run whose inputs have the shapes `given`.

        At the start they are what the inputs say, and else the least that the bundle was compiled for. InputError after
        a torn run, and once it is closed.
        """
        if self._closed:
            raise InputError("the state was closed", hint="make another one with program.state()")
        if self._torn:
            raise InputError("the run before has failed and may have left a part of a step in the state", hint=RESET)
        if not self._begun:
            self.begin(given)
        return tuple(part.shape for part in self.parts)

    def begin(self, given: Shapes) -> None:
        """Puts zeros in, in the shapes that a first run has whose inputs have the shapes `given`."""
        sizes = self._hooks.initial_sizes(given)
        for part in self.parts:
            part.put(np.zeros(part.shape_at(sizes), part.spec.numpy_type))

    def keep(self) -> None:
        """What is there now is what the next run finds. Until then a run that fails leaves the state at its start."""
        self._begun, self._torn = True, False

    def write(self) -> None:
        """A run starts to write. If it fails, what it writes in place may be there in part."""
        self._torn = any(part.places.entry.in_place for part in self.parts)

    def reset(self) -> None:
        """Zeros again. InputError while a run is under way."""
        self._alone(self._forget)

    def _forget(self) -> None:
        self._begun = self._torn = False

    def values(self) -> dict[str, np.ndarray]:
        """What the state holds, as copies by the names of the model's inputs; nothing before the first run."""
        found: dict[str, np.ndarray] = {}

        def read() -> None:
            if self._begun:
                found.update({part.name: part.now.read(part.shape) for part in self.parts})

        self._alone(read)
        return found

    def load(self, values: Mapping[str, Any]) -> None:
        """Puts arrays in, by the names of the model's inputs, all of them: a prefix, or what `values` gave.

        InputError for a name that is missing or unknown, and for another type or a shape that there is no room for.
        """
        arrays = {part.name: part.checked(values) for part in self.parts}
        for name in values:
            if name not in arrays:
                raise InputError(f"there is no such state; there are {', '.join(arrays)}", where=f"state {name!r}")

        def put() -> None:
            for part in self.parts:
                part.put(arrays[part.name])
            self._begun, self._torn = True, False

        self._alone(put)

    def _alone(self, function: Callable[[], None]) -> None:
        if not self._running.acquire(blocking=False):
            raise InputError("the state is in use by a run", hint="wait for that run")
        try:
            function()
        finally:
            self._running.release()

    def close(self) -> None:
        """Frees its memory, after the run that is under way. A second call does nothing."""
        with self._running:
            if self._closed:
                return
            self._closed = True
            self.frame.close()
            for part in self.parts:
                part.free()
        self._hooks.forget(self)

    def __enter__(self) -> State:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
