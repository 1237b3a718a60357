"""Batches that are made while others are used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_POLL_SECONDS = 0.5


@contextmanager
def ahead(batches: Iterator[Any], depth: int) -> Iterator[Iterator[Any]]:
    """The same batches, made by a thread of their own that is at most `depth` of them ahead.

    What the thread raises is raised where the batches are used. On leaving, the thread has ended.
    """
    made: queue.Queue[Any] = queue.Queue(depth)
    left = threading.Event()
    end = object()

    def hand_over(item: Any) -> bool:
        while not left.is_set():
            try:
                made.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for batch in batches:
                if not hand_over((batch, None)):
                    return
            hand_over((end, None))
        except BaseException as error:  # noqa: BLE001 - raised again by the other thread
            hand_over((end, error))

    def use() -> Iterator[Any]:
        while True:
            batch, error = made.get()
            if error is not None:
                raise error
            if batch is end:
                return
            yield batch

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        yield use()
    finally:
        left.set()
        thread.join()
