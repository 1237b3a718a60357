"""A custom resource that does nothing; while an environment sleeps it is not deleted, nor told another data bucket."""

from collections.abc import Mapping
from typing import Any, Self

from transient_mwaa.aws.records import Records
from transient_mwaa.domain.uninstall import require_deletable


class Refusal:
    """Says no by the environment's record, to a Delete and to another data bucket or key. All else is welcome."""

    def __init__(self, records: Records) -> None:
        self._records = records

    @classmethod
    def from_env(cls) -> Self:
        return cls(Records.from_env())

    def weigh(self, event: Mapping[str, Any]) -> dict[str, str]:
        """Raises DeletionRefused; what keeps the record from being read is a no as well, and rises as it is."""
        if event["RequestType"] == "Delete" or _moves(event):
            require_deletable(self._records.read(event["ResourceProperties"]["EnvironmentName"]))
        return {}


def _moves(event: Mapping[str, Any]) -> bool:
    """Whether an Update names another data bucket or key than before."""
    before, now = event.get("OldResourceProperties", {}), event["ResourceProperties"]
    return any(name in before and before[name] != now.get(name) for name in ("DataBucketName", "DataKeyArn"))
