"""Step Functions executions, as holders of leases."""

from typing import Any, Self

from botocore.exceptions import ClientError

from transient_mwaa.aws import passing

GOING_ON = frozenset({"RUNNING", "PENDING_REDRIVE"})


class Executions:
    """Tells whether an execution has ended."""

    def __init__(self, stepfunctions: Any) -> None:
        self._stepfunctions = stepfunctions

    @classmethod
    def from_env(cls) -> Self:
        return cls(passing.client("stepfunctions"))

    def has_ended(self, arn: str) -> bool:
        """Also true for one that Step Functions has forgotten (it keeps ended ones for 90 days)."""
        try:
            return self._stepfunctions.describe_execution(executionArn=arn)["status"] not in GOING_ON
        except ClientError as error:
            if passing.code_of(error) == "ExecutionDoesNotExist":
                return True
            raise
