"""The DynamoDB table with one item per environment."""

import os
from typing import Any, Self

from boto3.dynamodb.types import TypeDeserializer

from transient_mwaa.aws import passing
from transient_mwaa.domain.cycle import Record


class Records:
    """Reads records; the state machines write them, conditional on the lease."""

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
