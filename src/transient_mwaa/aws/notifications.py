"""A custom resource that waits until the address which is to be told has been confirmed.

SNS sends nothing to an e-mail address before its owner has followed the link in a first message. Source: "Subscription
lifecycle" and ListSubscriptionsByTopic in the SNS developer guide and API reference.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from botocore.exceptions import ClientError

from transient_mwaa.aws import passing
from transient_mwaa.aws.custom_resource import FORBIDDEN, rolls_back
from transient_mwaa.domain.errors import ServiceUnavailable

LOOKS = 60
PAUSE = 10.0
"""Seconds between two looks: ten minutes to read an e-mail."""
REMINDER = 6
"""After so many looks SNS is asked to send it again."""


class AddressNotConfirmed(Exception):
    """Nobody would learn of a night that fails."""


class Notifications:
    """Asks SNS about one address of one topic."""

    def __init__(self, sns: Any, cloudformation: Any, sleep: Callable[[float], None] = time.sleep) -> None:
        self._sns = sns
        self._cloudformation = cloudformation
        self._sleep = sleep

    @classmethod
    def from_env(cls) -> Self:
        return cls(passing.client("sns"), passing.client("cloudformation"))

    def await_confirmation(self, event: Mapping[str, Any]) -> dict[str, str]:
        """SchedulesState, which the schedules get, once the address is confirmed. Raises AddressNotConfirmed after ten
        minutes. Deleting it asks nothing, nor does going back to an older address when an update fails."""
        told = event["ResourceProperties"]
        if event["RequestType"] != "Delete" and not rolls_back(self._cloudformation, event):
            self._await(told["TopicArn"], told["Address"])
        return {"SchedulesState": "ENABLED"}

    def _await(self, topic: str, address: str) -> None:
        reminded = False
        for look in range(LOOKS):
            trouble = ""
            try:
                if any(state.startswith("arn:") for state in self._states(topic, address)):
                    return
                if look >= REMINDER and not reminded:
                    # Of an older deployment the e-mail may be lost; and what nobody has confirmed for 48 hours SNS
                    # forgets, which CloudFormation does not notice.
                    self._sns.subscribe(TopicArn=topic, Protocol="email", Endpoint=address)
                    reminded = True
            except ServiceUnavailable as error:
                trouble = f" {error}"
            except ClientError as error:
                # A role that was made a moment ago may not yet do what it is allowed.
                if passing.code_of(error) not in FORBIDDEN:
                    raise
                trouble = f" {error}"
            self._sleep(PAUSE)
        raise AddressNotConfirmed(
            f"{address} has not confirmed that it wants to be told, so the schedules stay off. Deploy again, and "
            f"follow the link in the e-mail from SNS within ten minutes.{trouble}"
        )

    def _states(self, topic: str, address: str) -> set[str]:
        """The address's subscriptions: ARNs, or what SNS writes in their place, such as PendingConfirmation."""
        pages = self._sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
        return {
            each["SubscriptionArn"]
            for page in pages
            for each in page["Subscriptions"]
            if each["Protocol"] == "email" and each["Endpoint"].casefold() == address.casefold()
        }
