"""A deployed cloud forks, and every process goes on with a night of its own: what a sweep of scenarios relies on."""

import json
import os
import select
import signal

import pytest

from .conftest import ENVIRONMENT

pytestmark = pytest.mark.stories
SECONDS = 120


def in_a_fork(work):
    """What `work` returns in a child process, by JSON; its failure as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = json.dumps(work()).encode()
        except BaseException as problem:  # noqa: BLE001 - nothing may leave a child that is to end here
            answer = json.dumps(f"{type(problem).__name__}: {problem}").encode()
        os.write(writing, answer)
        os._exit(0)
    os.close(writing)
    try:
        ready, _, _ = select.select([reading], [], [], SECONDS)
        if not ready:
            os.kill(child, signal.SIGKILL)
        with os.fdopen(reading, "rb") as pipe:
            return json.loads(pipe.read() or b'"The child hangs."')
    finally:
        os.waitpid(child, 0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_each_process_has_its_own_night(night):
    night.cloud.functions.load()
    calls = len(night.cloud.mwaa.calls)

    def one_night():
        night.run()
        return [night.ended, night.exists, len(night.keys("snapshots/")) > 0]

    def night_and_morning():
        night.sleep()
        night.wake()
        return [night.ended, night.exists, sorted(night.active_dags) == sorted(night.active_dags_before)]

    assert in_a_fork(one_night) == ["Asleep", False, True]
    assert in_a_fork(night_and_morning) == ["Awake", True, True]
    assert in_a_fork(night_and_morning) == ["Awake", True, True]
    assert night.exists
    assert night.keys("snapshots/") == []
    assert len(night.cloud.mwaa.calls) == calls
    night.run()
    assert night.ended == "Asleep"
    assert ENVIRONMENT not in night.cloud.mwaa.environments
