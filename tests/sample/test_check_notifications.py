"""The function that waits for a confirmed address, against SNS itself, in which a person clicks or does not."""

import re

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.core import DEFAULT_ACCOUNT_ID
from moto.sns.models import sns_backends

from local.custom_resources import request
from local.deploy import translate
from tests.sample.conftest import CONTEXT, ROOT, STACK, load
from transient_mwaa.aws.notifications import LOOKS, PAUSE, Notifications
from transient_mwaa.domain.errors import ServiceUnavailable

pytestmark = pytest.mark.functions
ADDRESS = "you@example.com"
PENDING, DELETED = "PendingConfirmation", "Deleted"


class Person:
    """Owns the address, and does something while the function waits. moto confirms at once, SNS does not."""

    def __init__(self, sns, topic):
        self.sns, self.topic = sns, topic
        self.waited = 0.0
        self.does = {}
        """Seconds that were waited -> what the person does then."""

    @property
    def subscriptions(self):
        return list(sns_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].subscriptions.values())

    def shows(self, state):
        """Has SNS list all subscriptions like this."""
        for each in self.subscriptions:
            each.arn = state

    def confirms(self):
        self.shows(f"{self.topic}:5be8a4a7-0001")

    def sleep(self, seconds):
        self.waited += seconds
        self.does.get(self.waited, lambda: None)()


@pytest.fixture
def person(aws):
    sns = boto3.client("sns")
    person = Person(sns, sns.create_topic(Name="notifications")["TopicArn"])
    sns.subscribe(TopicArn=person.topic, Protocol="email", Endpoint=ADDRESS)
    person.shows(PENDING)
    return person


@pytest.fixture
def ask(person, door, monkeypatch):
    module = load(ROOT / "functions/check_notifications/app.py")

    def run(kind="Create", stack=STACK, sns=person.sns):
        cloudformation = boto3.client("cloudformation")
        monkeypatch.setattr(module, "notifications", Notifications(sns, cloudformation, sleep=person.sleep))
        told = {"TopicArn": person.topic, "Address": ADDRESS, "Subscription": person.topic}
        there = None if kind == "Create" else "there"
        module.handler(request(kind, door.url, "NotificationsConfirmed", stack, told, there), CONTEXT)
        return door.answers.get_nowait()

    return run


@pytest.mark.parametrize("kind", ["Create", "Update"])
def test_a_confirmed_address_switches_the_schedules_on_at_once(ask, person, kind):
    person.confirms()
    answer = ask(kind)
    assert (answer["Status"], answer["Data"]) == ("SUCCESS", {"SchedulesState": "ENABLED"})
    assert person.waited == 0


def test_somebody_who_clicks_after_five_minutes_is_waited_for(ask, person):
    person.does[300] = person.confirms
    assert ask()["Status"] == "SUCCESS"
    assert person.waited == 300


@pytest.mark.parametrize("kind", ["Create", "Update"])
@pytest.mark.parametrize("state", [PENDING, DELETED])
def test_an_address_that_nobody_confirms_fails_the_deployment(ask, person, state, kind):
    person.shows(state)
    answer = ask(kind)
    assert answer["Status"] == "FAILED"
    assert "Data" not in answer
    assert answer["Reason"].startswith(f"AddressNotConfirmed: {ADDRESS} has not confirmed")
    assert person.waited == 600


def test_a_failed_update_goes_back_to_the_older_address_without_a_question(ask, person, stack):
    """A no would leave the stack where nobody can update it."""
    assert ask("Update", stack("UPDATE_IN_PROGRESS"))["Status"] == "FAILED"
    person.waited = 0
    answer = ask("Update", stack("UPDATE_ROLLBACK_IN_PROGRESS"))
    assert (answer["Status"], answer["Data"]) == ("SUCCESS", {"SchedulesState": "ENABLED"})
    assert person.waited == 0


def test_another_s_confirmation_counts_for_nothing(ask, person):
    for protocol, endpoint in (("email", "somebody-else@example.com"), ("email-json", ADDRESS), ("sms", "+15550100")):
        person.sns.subscribe(TopicArn=person.topic, Protocol=protocol, Endpoint=endpoint)
    elsewhere = person.sns.create_topic(Name="another")["TopicArn"]
    person.sns.subscribe(TopicArn=elsewhere, Protocol="email", Endpoint=ADDRESS)
    assert ask()["Status"] == "FAILED"


def test_the_address_is_found_among_hundreds(ask, person):
    for number in range(250):
        person.sns.subscribe(TopicArn=person.topic, Protocol="email", Endpoint=f"colleague-{number}@example.com")
    ours = person.subscriptions[0]
    backend = sns_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].subscriptions
    backend[ours.arn] = backend.pop(next(key for key, each in backend.items() if each is ours))
    person.confirms()
    assert ask()["Status"] == "SUCCESS"


@pytest.fixture
def mails(person, monkeypatch):
    """When SNS sent a link: seconds that had been waited."""
    sent = []
    subscribe = person.sns.subscribe

    def mail(**told):
        assert told == {"TopicArn": person.topic, "Protocol": "email", "Endpoint": ADDRESS}
        sent.append(person.waited)
        answered = subscribe(**told)
        person.shows(PENDING)
        return answered

    monkeypatch.setattr(person.sns, "subscribe", mail)
    return sent


def test_the_link_is_sent_again_after_a_minute_and_once(ask, mails):
    assert ask()["Status"] == "FAILED"
    assert mails == [60]


def test_a_subscription_that_sns_has_forgotten_is_made_again(ask, person, mails):
    """After 48 hours without an answer; CloudFormation still believes in it."""
    sns_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].subscriptions.clear()
    person.does[120] = person.confirms
    assert ask("Update")["Status"] == "SUCCESS"
    assert mails == [60]


def test_a_reminder_that_fails_is_sent_at_the_next_look(ask, person, mails, monkeypatch):
    subscribe, throttled = person.sns.subscribe, []

    def throttle(**told):
        if not throttled:
            throttled.append(told)
            raise ServiceUnavailable("SNS is throttling.")
        return subscribe(**told)

    monkeypatch.setattr(person.sns, "subscribe", throttle)
    assert ask()["Status"] == "FAILED"
    assert mails == [60 + PAUSE]


def test_who_clicks_at_once_gets_no_second_link(ask, person, mails):
    person.does[50] = person.confirms
    assert ask()["Status"] == "SUCCESS"
    assert mails == []


class Refusing:
    """SNS that fails the first `times` questions."""

    def __init__(self, sns, times, error):
        self._sns, self._times, self._error = sns, times, error

    def get_paginator(self, name):
        self._times -= 1
        if self._times >= 0:
            raise self._error
        return self._sns.get_paginator(name)


FORBIDDEN = ClientError({"Error": {"Code": "AuthorizationError", "Message": "not yet"}}, "ListSubscriptionsByTopic")
GONE = ClientError({"Error": {"Code": "NotFound", "Message": "no such topic"}}, "ListSubscriptionsByTopic")


@pytest.mark.parametrize("error", [FORBIDDEN, ServiceUnavailable("SNS is throttling.")])
def test_a_role_that_was_made_a_moment_ago_and_a_throttled_question_are_given_time(ask, person, error):
    person.confirms()
    assert ask(sns=Refusing(person.sns, 3, error))["Status"] == "SUCCESS"
    assert person.waited == 3 * PAUSE
    answer = ask(sns=Refusing(person.sns, LOOKS, error))
    assert answer["Status"] == "FAILED"
    assert str(error) in answer["Reason"]


def test_a_topic_that_is_not_there_is_not_waited_for(ask, person):
    assert ask(sns=Refusing(person.sns, 1, GONE))["Reason"].startswith("ClientError: ")
    assert person.waited == 0


def test_deleting_it_asks_nothing(ask, person):
    assert ask("Delete", sns=Refusing(person.sns, 1, GONE))["Status"] == "SUCCESS"
    assert person.waited == 0


def test_its_role_allows_what_it_asks_and_lambda_lets_it_wait():
    resources = translate(ROOT / "template.yaml", {})[0]["Resources"]
    (policy,) = resources["CheckNotificationsRole"]["Properties"]["Policies"]
    allowed = {action for statement in policy["PolicyDocument"]["Statement"] for action in statement["Action"]}
    source = (ROOT / "src/transient_mwaa/aws/notifications.py").read_text()
    asked = {name.title().replace("_", "") for name in re.findall(r'(?:paginator\("|_sns\.(?!get_))(\w+)', source)}
    assert {f"sns:{name}" for name in asked} | {"cloudformation:DescribeStacks"} == allowed
    timeout = resources["CheckNotificationsFunction"]["Properties"]["Timeout"]
    assert LOOKS * (PAUSE + 1) + 20 <= timeout < resources["NotificationsConfirmed"]["Properties"]["ServiceTimeout"]
