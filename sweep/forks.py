"""Children of this process, only so many at a time, each of which reports one line."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sweep.scenarios import Played

SECONDS = 180
"""A child that takes longer hangs."""


class Hangs(BaseException):
    """A child took too long."""


class Forks:
    """Hands out so many tokens; children give theirs back when they end, however they end."""

    def __init__(self, at_a_time: int, reports: Path) -> None:
        self._take, self._give = os.pipe()
        os.write(self._give, b"." * at_a_time)
        reports.write_bytes(b"")
        # Children that collect garbage would copy every page of this process.
        gc.collect()
        gc.freeze()
        self._reports = reports
        self.name = ""
        """Of the child that this process is."""

    def child(self, name: str, *, counted: bool = True, seconds: int = SECONDS) -> bool:
        """Forks. True in the child, which must end by `ends`; in the parent False, at once."""
        if counted:
            os.read(self._take, 1)
        self._reap(os.WNOHANG)
        sys.stdout.flush()
        if os.fork():
            return False
        gc.disable()
        self.name, self._counted = name, counted
        signal.signal(signal.SIGALRM, _hangs)
        signal.alarm(seconds if counted else 0)
        return True

    @contextlib.contextmanager
    def ends(self) -> Iterator[None]:
        """In a child: reports whatever happens inside, and ends the process."""
        try:
            yield
        except BaseException as error:
            last = traceback.format_exception(error)
            self.report(Played(self.name, [f"crashed: {''.join(last[-6:])}"]))
        finally:
            if self._counted:
                os.write(self._give, b".")
            os._exit(0)

    def run(self, name: str, work: Callable[[], Played], *, counted: bool = True, seconds: int = SECONDS) -> None:
        """Does some work in a child, and reports it."""
        if self.child(name, counted=counted, seconds=seconds):
            with self.ends():
                self.report(work())

    def report(self, played: Any) -> None:
        """One line, written at once, so that lines of several processes do not mix."""
        line = json.dumps(dataclasses.asdict(played)).encode() + b"\n"
        with self._reports.open("ab", buffering=0) as file:
            file.write(line)

    def wait(self) -> None:
        """Until all children of this process have ended."""
        self._reap(0)

    def read(self) -> list[dict[str, Any]]:
        """All reports so far."""
        with self._reports.open() as lines:
            return [json.loads(line) for line in lines]

    @staticmethod
    def _reap(flags: int) -> None:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, flags)[0]:
                pass


def in_a_copy(work: Callable[[], list[str]]) -> list[str]:
    """What some work finds in a copy of this process; what it raises is a finding."""
    receive, send = os.pipe()
    if os.fork() == 0:
        try:
            signal.alarm(SECONDS)
            found = work()
        except BaseException as error:
            found = [f"crashed: {error!r}"]
        os.write(send, json.dumps([each[:1000] for each in found[:5]]).encode())
        os._exit(0)
    os.close(send)
    answer = os.read(receive, 65536)
    os.close(receive)
    os.wait()
    return list(json.loads(answer)) if answer else ["crashed"]


def _hangs(*_: object) -> None:
    raise Hangs("it took too long")
