"""A blueprint there and back: what is created from it is what it was written of, over and over again."""

import hashlib
import json
from typing import Any

import pytest
from botocore.validate import ParamValidator
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.unit.test_blueprint import CREATE, CREATE_MODEL, ENVIRONMENT, READ_ONLY, answers, derive
from tests.unit.test_deletion import ORDER
from transient_mwaa.domain import blueprint
from transient_mwaa.domain.errors import BlueprintChanged

pytestmark = pytest.mark.unit


def created(request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """GetEnvironment's answer about an environment that was created by this request: its own times and addresses."""
    return {**{name: answer[name] for name in READ_ONLY & answer.keys()}, **request}


def whole(derived: blueprint.Derived) -> dict[str, Any]:
    assert not set(derived.request) & set(derived.sensitive), "a member is stored once, in clear or sealed"
    return {**derived.request, **derived.sensitive}


@settings(deadline=None)
@given(answers())
def test_what_is_created_from_a_blueprint_has_the_same_blueprint(answer: dict[str, Any]) -> None:
    first = derive(answer)
    assume(not first.problems)
    request = whole(first)
    assert not ParamValidator().validate(request, CREATE_MODEL).has_errors()
    second = derive(created(request, answer))
    assert second == first
    # And through the bucket: as bytes, whose hash is what the record names.
    document = {"environment": "dev", "blueprint_version": blueprint.BLUEPRINT_VERSION, "request": first.request}
    body = blueprint.to_bytes(document)
    assert blueprint.to_bytes(json.loads(body)) == body


@settings(deadline=None)
@given(answers(), st.data())
def test_any_change_of_the_configuration_stops_the_delete(answer: dict[str, Any], data: st.DataObject) -> None:
    recorded = whole(derive(answer))
    ORDER.require_configuration(recorded, whole(derive(dict(answer))), ())
    other = data.draw(answers())
    changeable = sorted(set(CREATE["members"]) & (answer.keys() | other.keys()) - set(CREATE["required"]))
    assume(changeable)
    name = data.draw(st.sampled_from(changeable))
    changed = {member: value for member, value in answer.items() if member != name}
    changed |= {name: other[name]} if name in other else {}
    living = whole(derive(changed))
    assume(living != recorded)
    with pytest.raises(BlueprintChanged, match=name):
        ORDER.require_configuration(recorded, living, ())


@settings(deadline=None)
@given(answers(), st.data())
def test_what_the_environment_alone_decides_never_stops_a_delete(answer: dict[str, Any], data: st.DataObject) -> None:
    """Its address and its last update are its own, and new after each creation."""
    other = data.draw(answers())
    moved = {**answer, **{name: other[name] for name in READ_ONLY & other.keys()}}
    moved = {name: value for name, value in moved.items() if name in ENVIRONMENT["members"]}
    assert whole(derive(moved)) == whole(derive(answer))


@settings(deadline=None)
@given(answers(), st.integers(0), st.integers(1, 255))
def test_any_changed_byte_of_a_stored_blueprint_is_noticed(answer: dict[str, Any], place: int, bits: int) -> None:
    document = {"environment": "dev", "blueprint_version": blueprint.BLUEPRINT_VERSION}
    body = blueprint.to_bytes({**document, "request": derive(answer).request})
    sha256 = hashlib.sha256(body).hexdigest()
    assert blueprint.read(body, "dev", sha256)["request"] == json.loads(json.dumps(derive(answer).request))
    broken = bytearray(body)
    broken[place % len(body)] ^= bits
    with pytest.raises(BlueprintChanged):
        blueprint.read(bytes(broken), "dev", sha256)
