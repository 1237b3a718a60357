"""Asks MWAA to create an environment from its blueprint."""

from collections.abc import Iterable

from botocore.exceptions import ClientError

from transient_mwaa.aws import passing
from transient_mwaa.aws.blueprints import Blueprints
from transient_mwaa.aws.mwaa import Mwaa, status_of
from transient_mwaa.domain.creation import require_attempts_left
from transient_mwaa.domain.cycle import Record
from transient_mwaa.domain.errors import ServiceUnavailable

REFUSED = "REFUSED"
"""Our own word for: MWAA did not take the request, and there is no environment."""


class Creation:
    """Creates environments; looks before and after, since MWAA has no idempotency token."""

    def __init__(self, mwaa: Mwaa, blueprints: Blueprints) -> None:
        self._mwaa = mwaa
        self._blueprints = blueprints

    def create(self, record: Record, key: str, sha256: str, attempt: int) -> str:
        """The status that the environment has now, or REFUSED. `attempt` counts creations asked for before this one.

        Raises BlueprintChanged, EnvironmentCreateFailed, ServiceUnavailable.
        """
        name = record.environment
        if status := self._living_status(name):
            return status
        request = self._blueprints.request(self._blueprints.read(name, key, sha256))
        refusal = ""
        secrets = request.get("AirflowConfigurationOptions", {}).values()
        try:
            self._mwaa.create(request)
        except ServiceUnavailable:
            # The answer was lost or late; the environment itself knows whether it was created.
            if status := self._living_status(name):
                return status
            raise
        except ClientError as error:
            # ValidationException says "exists already", "this role is too young to be seen" and "never like this".
            if passing.code_of(error) != "ValidationException":
                raise
            refusal = _without(secrets, str(error.response["Error"].get("Message", "")))[:500]
        status = self._living_status(name)
        if not status and refusal:
            require_attempts_left(name, attempt + 1, refusal)
        return status or REFUSED

    def _living_status(self, name: str) -> str:
        status = status_of(self._mwaa.describe(name))
        return "" if status == "DELETED" else status


def _without(secrets: Iterable[str], text: str) -> str:
    """MWAA may quote what it refuses; configuration options must not reach an execution's history."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text
