"""The time that state machines, schedules and environments of the local cloud live in.

RealClock     wall time; waits can be scaled down, so that ten minutes of polling take six seconds.
VirtualClock  discrete events: time stands still while anything works and jumps when all executions wait.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

import time_machine

POLL_SECONDS = 0.02
"""How often a sleeper looks whether it is still wanted (its execution may have been stopped)."""


class Clock(Protocol):
    """What the seams in moto and the MWAA control plane ask of time."""

    def now(self) -> datetime:
        """UTC."""

    def sleep(self, seconds: float, execution: str | None = None, wanted: Callable[[], bool] = lambda: True) -> None:
        """Returns after that many seconds of this clock, or soon after `wanted` turned false."""

    def at(self, when: datetime, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls back once at that time. Returns a function that cancels."""

    def execution_started(self, execution: str) -> None:
        """A state machine execution began; time may not jump over its work."""

    def execution_ended(self, execution: str) -> None:
        """It is over."""

    def worked(self) -> None:
        """A function was invoked."""


class RealClock:
    """Wall time. `scale` 0.01 makes an ASL Wait of 60 s, a retry's delay, and `at`, take a hundredth."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self._timers: set[threading.Timer] = set()

    def __enter__(self) -> RealClock:
        return self

    def __exit__(self, *_: object) -> None:
        for timer in list(self._timers):
            timer.cancel()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float, execution: str | None = None, wanted: Callable[[], bool] = lambda: True) -> None:
        deadline = time.monotonic() + seconds * self.scale
        while wanted() and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))

    def at(self, when: datetime, callback: Callable[[], None]) -> Callable[[], None]:
        delay = max(0.0, (when - self.now()).total_seconds()) * self.scale

        def ring() -> None:
            self._timers.discard(timer)
            callback()

        timer = threading.Timer(delay, ring)
        timer.daemon = True
        self._timers.add(timer)
        timer.start()
        return timer.cancel

    def execution_started(self, execution: str) -> None:
        pass

    def execution_ended(self, execution: str) -> None:
        pass

    def worked(self) -> None:
        pass


@dataclass(eq=False)
class _Sleeper:
    wake_at: datetime
    execution: str | None
    woken: bool = False


@dataclass(order=True)
class _Timer:
    when: datetime
    number: int
    callback: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)


class VirtualClock:
    """A clock that this whole process sees: datetime.now, time.time, boto3, moto and handlers run in process.

    It jumps to the earliest sleeper or timer once every running execution waits and nobody holds it. Each invocation
    of a function moves it by `call_seconds`, so that things which follow one another have different times. Child
    processes keep the machine's time: use it with functions in process and an Airflow in memory.
    """

    def __init__(self, start: datetime, call_seconds: float = 1.0) -> None:
        if start.tzinfo is None:
            raise ValueError("The start of a virtual clock needs a time zone.")
        self._start = start.astimezone(UTC)
        self._call = timedelta(seconds=call_seconds)
        self._changed = threading.Condition(threading.RLock())
        self._executions: set[str] = set()
        self._sleepers: list[_Sleeper] = []
        self._timers: list[_Timer] = []
        self._numbers = itertools.count()
        self._holds = 0
        self._travel: time_machine.travel | None = None
        self._now: time_machine.Traveller | None = None

    def __enter__(self) -> VirtualClock:
        self._travel = time_machine.travel(self._start, tick=False)
        self._now = self._travel.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._travel is not None:
            self._travel.stop()
        self._travel = self._now = None

    def now(self) -> datetime:
        return datetime.now(UTC)

    def at(self, when: datetime, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls back in whichever thread makes time jump; time stands still meanwhile."""
        timer = _Timer(when.astimezone(UTC), next(self._numbers), callback)
        with self._changed:
            heapq.heappush(self._timers, timer)

        def cancel() -> None:
            timer.cancelled = True

        return cancel

    def sleep(self, seconds: float, execution: str | None = None, wanted: Callable[[], bool] = lambda: True) -> None:
        with self._changed:
            sleeper = _Sleeper(self.now() + timedelta(seconds=max(0.0, seconds)), execution)
            self._sleepers.append(sleeper)
            try:
                while not sleeper.woken and wanted():
                    if not self._jump():
                        self._changed.wait(POLL_SECONDS)
            finally:
                if sleeper in self._sleepers:
                    self._sleepers.remove(sleeper)
                self._changed.notify_all()

    def sleep_until(self, when: datetime) -> None:
        """For a story's own thread: lets everything that happens before then happen."""
        self.sleep((when - self.now()).total_seconds())

    def step(self) -> bool:
        """For whoever drives everything from one thread: the next thing that waits for its time happens now, if time
        may jump. False: it may not, or nothing waits."""
        with self._changed:
            return self._jump()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Time stands still inside, for example while two executions are started at the same moment."""
        with self._changed:
            self._holds += 1
        try:
            yield
        finally:
            with self._changed:
                self._holds -= 1
                self._changed.notify_all()

    def execution_started(self, execution: str) -> None:
        with self._changed:
            self._executions.add(execution)

    def execution_ended(self, execution: str) -> None:
        with self._changed:
            self._executions.discard(execution)
            self._changed.notify_all()

    def worked(self) -> None:
        self.pass_time(self._call.total_seconds())

    def pass_time(self, seconds: float) -> None:
        """Work took that long; nothing else happens meanwhile."""
        with self._changed:
            if self._now is not None:
                self._now.move_to(self.now() + timedelta(seconds=seconds), tick=False)

    def _jump(self) -> bool:
        """One step forward if all are idle: fires one timer or wakes one sleeper. Called with the lock held once."""
        if self._holds or self._now is None:
            return False
        if self._executions - {sleeper.execution for sleeper in self._sleepers}:
            return False
        while self._timers and self._timers[0].cancelled:
            heapq.heappop(self._timers)
        sleeper = min(self._sleepers, key=lambda each: each.wake_at, default=None)
        if self._timers and (sleeper is None or self._timers[0].when <= sleeper.wake_at):
            timer = heapq.heappop(self._timers)
            self._move_to(timer.when)
            self._holds += 1
            self._changed.release()
            try:
                timer.callback()
            finally:
                self._changed.acquire()
                self._holds -= 1
                self._changed.notify_all()
            return True
        if sleeper is None:
            return False
        self._move_to(sleeper.wake_at)
        sleeper.woken = True
        self._sleepers.remove(sleeper)
        self._changed.notify_all()
        return True

    def _move_to(self, when: datetime) -> None:
        if self._now is not None and when > self.now():
            self._now.move_to(when, tick=False)
