"""A process from its start to its end: how long it took, and how much memory it and its children held."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

_EVERY = 0.1  # seconds between two looks at the memory


class CompetitorFailed(Exception):
    """A process that is to be measured ended with an error; the message ends with what it said."""


@dataclass(frozen=True)
class Run:
    """One run. `seconds` is the work alone, `process_seconds` from start to exit, imports included.

    `peak_rss_mb` is of the process and all its children together (MB of 10^6 bytes), pages that they share counted for
    each of them; `idle_rss_mb` the same before the work began. `output` is what it printed.
    """

    seconds: float
    process_seconds: float
    peak_rss_mb: float
    idle_rss_mb: float
    output: str


class _Memory(threading.Thread):
    """Looks at the memory of a process tree until told to stop."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(pid)
        self._done = threading.Event()
        self.peak = 0.0

    def now(self) -> float:
        total = 0
        try:
            processes = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return 0.0
        for process in processes:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total / 1e6

    def run(self) -> None:
        while not self._done.wait(_EVERY):
            self.peak = max(self.peak, self.now())

    def stop(self) -> None:
        self._done.set()
        self.join()


def run(command: Sequence[str], environ: Mapping[str, str], is_task: bool) -> Run:
    """Start a command, wait for its end. A task (bench/task.py) says when it is ready, and is timed from then on.

    Raises CompetitorFailed.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    listener = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
    listener.start()
    memory = _Memory(process.pid)
    memory.start()
    begun, idle = started, 0.0
    if is_task and process.stdout.readline():
        idle = memory.now()
        begun = time.perf_counter()
        try:
            process.stdin.write("\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass
    output = process.stdout.readline() if is_task else process.stdout.read()
    answered = time.perf_counter()
    status = process.wait()
    ended = time.perf_counter()
    memory.stop()
    listener.join()
    process.stdin.close()
    process.stdout.close()
    process.stderr.close()
    if status or (is_task and not output):
        raise CompetitorFailed(f"{' '.join(command)} ended with {status}:\n{''.join(said)[-4000:]}")
    return Run(
        seconds=(answered if is_task else ended) - begun,
        process_seconds=ended - started,
        peak_rss_mb=memory.peak,
        idle_rss_mb=idle,
        output=output,
    )
