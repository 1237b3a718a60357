"""A custom resource that does nothing, and will not be deleted while an environment sleeps."""

from collections.abc import Mapping
from typing import Any, Self

from transient_mwaa.aws.records import Records
from transient_mwaa.domain.uninstall import require_deletable


class Refusal:
    """Says no to a Delete by the environment's record. Every other request is welcome."""

    def __init__(self, records: Records) -> None:
        self._records = records

    @classmethod
    def from_env(cls) -> Self:
        return cls(Records.from_env())

    def weigh(self, event: Mapping[str, Any]) -> dict[str, str]:
        """Raises DeletionRefused; what keeps the record from being read is a no as well, and rises as it is."""
        if event["RequestType"] == "Delete":
            require_deletable(self._records.read(event["ResourceProperties"]["EnvironmentName"]))
        return {}
