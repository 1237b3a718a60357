"""The order to delete a living environment, and everything that must still be as it says."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from transient_mwaa.domain import patience
from transient_mwaa.domain.cycle import Phase, Record
from transient_mwaa.domain.errors import (
    BlueprintChanged,
    DeleteRefused,
    EnvironmentReplaced,
    ExportNotVerified,
    StillBusy,
)
from transient_mwaa.domain.status import CONDITIONS, Condition
from transient_mwaa.domain.verdict import VerifiedExport

GONE = frozenset({"", "DELETED"})
"""Statuses of an environment that is no more; "" when MWAA no longer knows it."""


@dataclass(frozen=True)
class DeletionOrder:
    """What the evening believes to be true when it asks for the delete; past `give_up_at` (ISO 8601) it is void."""

    environment: str
    owner: str
    fence: str
    incarnation: str
    give_up_at: str
    export_id: str
    manifest_key: str
    manifest_version_id: str
    blueprint_key: str
    blueprint_sha256: str

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Self:
        """Raises KeyError for a member that is absent: an order with a gap is none."""
        return cls(**{name: str(event[name]) for name in cls.__annotations__})

    def require_record(self, record: Record) -> None:
        """Raises LeaseLost, EnvironmentReplaced, BlueprintChanged or ExportNotVerified unless the record agrees."""
        record.require_lease(self.owner, self.fence)
        if not self.incarnation or record.incarnation != self.incarnation:
            raise EnvironmentReplaced(
                f"The record of {self.environment} is about the incarnation {record.incarnation or 'none'}, not about "
                f"{self.incarnation}. Nothing was deleted; start the evening again."
            )
        if (record.blueprint_key, record.blueprint_sha256) != (self.blueprint_key, self.blueprint_sha256):
            raise BlueprintChanged(
                f"The record of {self.environment} names another blueprint than this run wrote. "
                "Nothing was deleted; start the evening again."
            )
        recorded = (record.export_id, record.manifest_key, record.manifest_version_id)
        if recorded != (self.export_id, self.manifest_key, self.manifest_version_id):
            raise ExportNotVerified(
                f"The record of {self.environment} names the export {record.export_id or 'none'}, or another version "
                f"of its manifest, not {self.export_id}. Nothing was deleted; start the evening again."
            )

    def require_configuration(
        self, recorded: Mapping[str, Any], living: Mapping[str, Any], problems: Collection[str]
    ) -> None:
        """Raises BlueprintChanged unless the recorded CreateEnvironment request says what the living environment is;
        members are named, values are not: some are secrets.
        """
        differing = sorted(name for name in {*recorded, *living} if recorded.get(name) != living.get(name))
        if differing or problems:
            raise BlueprintChanged(
                f"{self.environment} has been updated since its blueprint was written: "
                f"{', '.join([*differing, *problems])}. Nothing was deleted; start the evening again."
            )

    def require_last_verified(self, last: VerifiedExport | None) -> None:
        """Raises ExportNotVerified unless this export is the last one that was verified, of this incarnation."""
        if last is None or (last.export_id, last.manifest_key, last.manifest_version_id, last.incarnation) != (
            self.export_id,
            self.manifest_key,
            self.manifest_version_id,
            self.incarnation,
        ):
            raise ExportNotVerified(
                f"The last verified export of {self.environment} is {last.export_id if last else 'none'}, not "
                f"{self.export_id} of this incarnation. Nothing was deleted; start the evening again."
            )

    def require_incarnation(self, incarnation: str) -> None:
        """Raises EnvironmentReplaced when the living environment is a successor of the same name."""
        if incarnation != self.incarnation:
            raise EnvironmentReplaced(
                f"{self.environment} was created at {incarnation}, not at {self.incarnation}: it is another one. "
                "Nothing was deleted; start the evening again."
            )

    def require_deletable(self, record: Record, status: str) -> None:
        """Raises DeleteRefused unless the record says that it falls asleep and MWAA that it is usable."""
        if record.phase != Phase.FALLING_ASLEEP:
            raise DeleteRefused(
                f"The record of {self.environment} says {record.phase or 'nothing'}, not that it is falling asleep. "
                "Nothing was deleted; start the evening again."
            )
        if CONDITIONS.get(status) is not Condition.USABLE:
            raise DeleteRefused(
                f"{self.environment} is {status}, and only a settled environment is deleted. "
                "Nothing was deleted; the next evening tries again."
            )

    def require_in_time(self, now: datetime) -> None:
        """Raises StillBusy once the sleep would be too short to be worth it."""
        if now >= patience.moment(self.give_up_at):
            raise StillBusy(
                f"It is too late in the night to delete: {self.environment} had to be asleep before {self.give_up_at}. "
                "Nothing was deleted; the next evening tries again. Let it begin earlier if this happens often."
            )


def cut_off_runs(document: Mapping[str, Any] | None, record: Record) -> frozenset[tuple[str, str]]:
    """Runs that the policy `force` has cut off since this run took the lease; none when the note is an older one's."""
    if document is None or not record.lease_taken_at:
        return frozenset()
    if datetime.fromisoformat(document["cut_off_at"]) < datetime.fromisoformat(record.lease_taken_at):
        return frozenset()
    return frozenset((run["dag_id"], run["run_id"]) for run in document["runs"])
