"""CloudFormation gets its answer, whatever happens."""

import json
import threading
from types import SimpleNamespace

import pytest

from local.custom_resources import Door, request
from tests.sample.conftest import CONTEXT, STACK
from transient_mwaa.aws.custom_resource import answer
from transient_mwaa.domain.errors import ServiceUnavailable

pytestmark = pytest.mark.functions


def asked(kind, door, physical_id=None, **properties):
    return request(kind, door.url, "Files", STACK, properties, physical_id)


def told(door):
    """The one answer that came."""
    assert door.answers.qsize() == 1
    return door.answers.get_nowait()


def test_success_carries_the_attributes(door):
    event = asked("Create", door)
    assert answer(event, CONTEXT, lambda _: {"Version": "v1"}) == {"status": "SUCCESS"}
    assert told(door) == {
        "Status": "SUCCESS",
        "Data": {"Version": "v1"},
        "PhysicalResourceId": "night-Sample-1ABC-Files",
        "StackId": STACK,
        "RequestId": event["RequestId"],
        "LogicalResourceId": "Files",
    }
    assert door.content_types == [""]  # the URL is signed for none


@pytest.mark.parametrize("kind", ["Create", "Update", "Delete"])
@pytest.mark.parametrize("problem", [ValueError("no such thing"), KeyError("Bucket"), SystemExit(3), RecursionError()])
def test_an_error_is_an_answer(door, kind, problem):
    def work(_):
        raise problem

    answer(asked(kind, door), CONTEXT, work)
    answered = told(door)
    assert answered["Status"] == "FAILED"
    assert answered["Reason"] == f"{type(problem).__name__}: {problem}"
    assert "Data" not in answered


def test_the_physical_id_stays(door):
    """A new one would make CloudFormation delete the old resource, which is the new one."""

    def fails(_):
        raise ValueError

    answer(asked("Create", door), CONTEXT, lambda _: {})
    first = told(door)["PhysicalResourceId"]
    for kind, work in (("Update", lambda _: {}), ("Update", fails), ("Delete", fails), ("Delete", lambda _: {})):
        answer(asked(kind, door, first), CONTEXT, work)
        assert told(door)["PhysicalResourceId"] == first
    # A failed Create tells the same id, which the rollback's Delete then names.
    answer(asked("Create", door), CONTEXT, fails)
    assert told(door)["PhysicalResourceId"] == first


def test_a_reason_fits_into_an_answer(door):
    def work(_):
        raise ValueError("x" * 100_000)

    answer(asked("Create", door), CONTEXT, work)
    assert len(json.dumps(told(door))) < 4096


def test_work_that_takes_too_long_is_answered_before_lambda_ends_it(door):
    never = threading.Event()
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 0)
    answer(asked("Create", door), context, lambda _: never.wait() and {})
    answered = told(door)
    assert (answered["Status"], "out of time" in answered["Reason"]) == ("FAILED", True)


def test_an_answer_that_is_turned_away_is_repeated():
    with Door(refusals=3) as door:
        answer(asked("Create", door), CONTEXT, lambda _: {})
        assert told(door)["Status"] == "SUCCESS"


def test_an_answer_that_never_gets_through_is_lambda_s_to_repeat_and_its_url_stays_secret():
    with Door(refusals=100) as door:
        with pytest.raises(ServiceUnavailable) as raised:
            answer(asked("Create", door), CONTEXT, lambda _: {})
        assert door.answers.empty()
        assert "signature" not in str(raised.value)
        assert raised.value.__cause__ is None
        assert raised.value.__context__ is None
