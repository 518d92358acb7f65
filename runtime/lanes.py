"""Runs a schedule: on the caller's thread where nothing could overlap, on a thread a device where something can.

A *lane* is the thread of one device; it takes the device's steps in the schedule's order and waits for what other lanes
make. The caller is the lane of the device with the most steps, so a run hops to another thread only for the others.
Every request queues its lanes in one go: two requests that queued them in different orders could wait for each other.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING

from gimlet.runtime.executors.base import DONE, Event
from gimlet.runtime.frame import Action
from gimlet.runtime.schedule import LaunchStep, Schedule, ScheduleStep
from gimlet.runtime.trace import Trace

if TYPE_CHECKING:
    from concurrent.futures import Future


class Inline:
    """Runs the steps one after the other on the caller's thread."""

    def __init__(self, schedule: Schedule, *, asynchronous: bool) -> None:
        self._steps = schedule.steps
        self._asynchronous = asynchronous

    def run(self, actions: Sequence[Action], trace: Trace | None) -> None:
        """Runs a plan's actions. Everything is done when this returns, or raises what a step raised."""
        if trace is None and not self._asynchronous:
            for action in actions:
                action(())
            return
        events: list[Event] = []
        try:
            for step, action in zip(self._steps, actions, strict=True):
                events.append(run_step(step, action, events, trace))
        finally:
            for event in events:
                event.wait()

    def close(self) -> None:
        """There is nothing to close."""


def run_step(step: ScheduleStep, action: Action, events: Sequence[Event], trace: Trace | None) -> Event:
    """Starts one step after the events that it waits for. A traced step is waited for, so that its time is its own."""
    waits = [events[index] for index in step.after if events[index] is not DONE]
    if trace is None:
        return action(waits)
    for event in waits:
        event.wait()
    start = perf_counter_ns()
    event = action(())
    event.wait()
    name = step.segment if isinstance(step, LaunchStep) else "copy"
    trace.add(step.device, name, start, perf_counter_ns(), step=step.id)
    return event


class Lanes:
    """Runs the steps of each device on a thread of its own."""

    def __init__(self, schedule: Schedule) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._schedule = schedule
        by_device: dict[str, list[int]] = {}
        for step in schedule.steps:
            by_device.setdefault(step.device, []).append(step.index)
        lanes = sorted(by_device.items(), key=lambda lane: -len(lane[1]))
        self._own = lanes[0][1]
        self._others = [
            (indices, ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"gimlet-{device}"))
            for device, indices in lanes[1:]
        ]
        lane_of = {step.index: step.device for step in schedule.steps}
        self._signalled = {index for step in schedule.steps for index in step.after if lane_of[index] != step.device}
        self._queueing = threading.Lock()

    def run(self, actions: Sequence[Action], trace: Trace | None) -> None:
        """Runs a plan's actions. Everything is done when this returns, or raises what a step raised."""
        from concurrent.futures import wait

        run = _Run(self._schedule, actions, self._signalled, trace)
        futures: list[Future[None]] = []
        with self._queueing:
            for indices, thread in self._others:
                futures.append(thread.submit(run.lane, indices))
        try:
            run.lane(self._own)
        finally:
            wait(futures)
        for future in futures:
            future.result()
        for event in run.events:
            event.wait()

    def close(self) -> None:
        """Ends the threads once what they were given is done."""
        for _, thread in self._others:
            thread.shutdown(wait=True)


class _Run:
    """One run over several lanes. `events` holds what each step that has started returned."""

    def __init__(self, schedule: Schedule, actions: Sequence[Action], signalled: set[int], trace: Trace | None) -> None:
        self.events: list[Event] = [DONE] * len(actions)
        self._steps = schedule.steps
        self._actions = actions
        self._trace = trace
        self._started = {index: threading.Event() for index in signalled}
        self._failed = False

    def lane(self, indices: Sequence[int]) -> None:
        """Runs the steps of one lane in order. A failure wakes the other lanes, which then stop."""
        finished = False
        try:
            for index in indices:
                step = self._steps[index]
                for other in step.after:
                    if other in self._started:
                        self._started[other].wait()
                if self._failed:
                    break
                self.events[index] = run_step(step, self._actions[index], self.events, self._trace)
                if index in self._started:
                    self._started[index].set()
            finished = True
        finally:
            if not finished or self._failed:
                self._failed = True
                for started in self._started.values():
                    started.set()
