"""Step Functions executions, as holders of leases."""

from typing import Any, Self

from botocore.exceptions import ClientError

from transient_mwaa.aws import passing
from transient_mwaa.domain.recovery import Ending


class Executions:
    """Tells whether and how an execution has ended."""

    def __init__(self, stepfunctions: Any) -> None:
        self._stepfunctions = stepfunctions

    @classmethod
    def from_env(cls) -> Self:
        return cls(passing.client("stepfunctions"))

    def has_ended(self, arn: str) -> bool:
        """Also true for one that Step Functions has forgotten (it keeps ended ones for 90 days)."""
        return self.ending(arn).over

    def ending(self, arn: str) -> Ending:
        """How it stands; an empty Ending for one that Step Functions has forgotten."""
        try:
            found = self._stepfunctions.describe_execution(executionArn=arn)
        except ClientError as error:
            if passing.code_of(error) == "ExecutionDoesNotExist":
                return Ending()
            raise
        return Ending(found["status"], found.get("error") or "")
