"""One environment's cycle of sleeping and waking: its record, its phases and the names of its runs."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from transient_mwaa.domain import patience
from transient_mwaa.domain.errors import LeaseHeldTooLong, LeaseLost

EXPORT_DAG = "db_export_dag"
RESTORE_DAG = "db_restore_dag"
OWN_DAGS = frozenset({EXPORT_DAG, RESTORE_DAG})
"""Never paused, never owed, and no running work."""


class Phase(StrEnum):
    """Where an environment is in its cycle."""

    AWAKE = "awake"
    FALLING_ASLEEP = "falling_asleep"
    DELETE_ACCEPTED = "delete_accepted"
    ASLEEP = "asleep"
    WAKING = "waking"


@dataclass(frozen=True)
class Record:
    """The DynamoDB item of one environment; "" and 0 stand for an attribute that is absent.

    Times are ISO 8601 with offset. The state machines write it, the functions read it.
    """

    environment: str
    lease_owner: str = ""
    lease_fence: int = 0
    lease_taken_at: str = ""
    cycle_id: str = ""
    """The night or the morning that has taken it last: the name of its record in the ledger."""
    phase: str = ""
    incarnation: str = ""
    restored_incarnation: str = ""
    blueprint_key: str = ""
    blueprint_sha256: str = ""
    export_id: str = ""
    manifest_key: str = ""
    manifest_version_id: str = ""
    deleted_at: str = ""
    deleting: str = ""
    """The incarnation that the last fence was about to ask MWAA to delete; gone once it is known to stay awake."""
    hold_until: str = ""
    webserver_url: str = ""
    interrupted: str = ""
    """The dead execution whose lease `recover` has taken over, until its work is set right."""
    told: str = ""
    """What a human was told by `recover`: JSON, see recovery.Told."""
    wakes: int = 0
    """Mornings that `recover` has begun again since the delete at `wakes_of`, the last one at `woken_at`."""
    wakes_of: str = ""
    woken_at: str = ""

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Self:
        """From attribute values as plain Python; attributes that are not ours are left alone."""
        known = {field.name: item[field.name] for field in fields(cls) if item.get(field.name) is not None}
        known |= {name: int(known.get(name, 0)) for name in ("lease_fence", "wakes")}
        return cls(**known)

    def require_lease(self, owner: str, fence: int | str) -> None:
        """Raises LeaseLost unless this owner holds the lease under this fencing number."""
        if self.lease_owner != owner or self.lease_fence != int(fence):
            message = (
                f"The lease of {self.environment} belongs to {self.lease_owner or 'nobody'} "
                f"(fence {self.lease_fence}), not to {owner} (fence {fence}). "
                "Let that run finish; this one has done nothing."
            )
            raise LeaseLost(message)

    def require_lease_in_time(self, waiting_since: str, now: datetime) -> None:
        """Raises LeaseHeldTooLong for whoever has waited since then; "" for one who does not wait."""
        if waiting_since and patience.overdue(patience.moment(waiting_since), patience.LEASE, now):
            message = (
                f"{self.lease_owner} has held the lease of {self.environment} since before {waiting_since}. "
                "Look at that execution; stop it if it hangs, then start this one again."
            )
            raise LeaseHeldTooLong(message)

    @property
    def delete_is_ours(self) -> bool:
        """Whether an evening has asked MWAA to delete this incarnation, though its answer may have been lost. Without
        this an environment that goes while it falls asleep is somebody else's deed: nothing of its day was exported.
        """
        if self.phase == Phase.DELETE_ACCEPTED:
            return True  # recorded only behind a verified export
        return self.phase == Phase.FALLING_ASLEEP and bool(self.deleting) and self.deleting == self.incarnation

    def is_unrestored(self, incarnation: str) -> bool:
        """Whether this incarnation came after the recorded deletion and has not got its memory back."""
        if not (incarnation and self.deleted_at):
            return False
        born_later = datetime.fromisoformat(incarnation) > datetime.fromisoformat(self.deleted_at)
        return born_later and self.restored_incarnation != incarnation


def incarnation_of(created_at: datetime) -> str:
    """An environment's CreatedAt as `2026-11-22T08:00:00+00:00`: the name of this incarnation."""
    return created_at.astimezone(UTC).replace(microsecond=0).isoformat()


def run_name(at: datetime, execution: str) -> str:
    """`20261122T230501Z-1a2b3c4d`: the moment and the execution that asked, so that asking twice is one run."""
    digest = hashlib.sha256(execution.encode()).hexdigest()[:8]
    return f"{at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{digest}"
