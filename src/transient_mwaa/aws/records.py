"""The DynamoDB table with one item per environment."""

import os
from datetime import datetime
from typing import Any, Self

from boto3.dynamodb.types import TypeDeserializer
from botocore.exceptions import ClientError

from transient_mwaa.aws import passing
from transient_mwaa.domain.cycle import Phase, Record
from transient_mwaa.domain.errors import LeaseLost


class Records:
    """Reads records; the state machines write them, conditional on the lease (and `mark_deleting`, likewise).

    Only `write_told` needs no lease: what a human was told belongs to no run.
    """

    def __init__(self, table: str, dynamodb: Any) -> None:
        self._table = table
        self._dynamodb = dynamodb
        self._deserializer = TypeDeserializer()

    @classmethod
    def from_env(cls) -> Self:
        return cls(os.environ["RECORDS_TABLE"], passing.client("dynamodb"))

    def read(self, environment: str) -> Record:
        """The environment's record as of now; an empty one when there is none yet."""
        answer = self._dynamodb.get_item(
            TableName=self._table, Key={"environment": {"S": environment}}, ConsistentRead=True
        )
        item = {name: self._deserializer.deserialize(value) for name, value in answer.get("Item", {}).items()}
        return Record.from_item({"environment": environment, **item})

    def mark_deleting(self, environment: str, owner: str, fence: int | str, incarnation: str, now: datetime) -> None:
        """The last fence before a delete: writes down what is about to be deleted, only while this owner holds the
        lease and the environment is falling asleep. Raises LeaseLost.

        `deleted_at` is written already here, for now: a run that dies after MWAA has accepted the delete cannot record
        it, and the next incarnation must still count as one without its memory. Where the delete is refused it says
        nothing wrong about the living incarnation, which is older.
        """
        try:
            self._dynamodb.update_item(
                TableName=self._table,
                Key={"environment": {"S": environment}},
                UpdateExpression="SET deleting = :incarnation, deleted_at = :now",
                ConditionExpression=(
                    "lease_owner = :me AND lease_fence = :fence AND phase = :phase AND incarnation = :incarnation"
                ),
                ExpressionAttributeValues={
                    ":me": {"S": owner},
                    ":fence": {"N": str(int(fence))},
                    ":phase": {"S": Phase.FALLING_ASLEEP.value},
                    ":incarnation": {"S": incarnation},
                    ":now": {"S": now.isoformat(timespec="seconds")},
                },
            )
        except ClientError as error:
            if passing.code_of(error) != "ConditionalCheckFailedException":
                raise
            message = (
                f"Another run has taken over {environment} at the last moment. "
                "Let it finish; this one has deleted nothing."
            )
            raise LeaseLost(message) from error

    def write_told(self, environment: str, before: str, after: str) -> bool:
        """Replaces what a human was told, and nothing else; False when somebody else was quicker.

        No lease: recovers that change nothing tell, too.
        """
        try:
            self._dynamodb.update_item(
                TableName=self._table,
                Key={"environment": {"S": environment}},
                UpdateExpression="SET told = :after",
                ConditionExpression="attribute_not_exists(told) OR told = :before",
                ExpressionAttributeValues={":before": {"S": before}, ":after": {"S": after}},
            )
        except ClientError as error:
            if passing.code_of(error) != "ConditionalCheckFailedException":
                raise
            return False
        return True
