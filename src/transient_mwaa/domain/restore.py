"""Whether an environment may get its memory back, the order that allows the restore DAG to do it, and its proof."""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from transient_mwaa.domain.cycle import Phase, Record
from transient_mwaa.domain.errors import RestoreNotProven, RestoreRefused

RESTORE_EVENT = "transient_mwaa_restore"
"""The entry of Airflow's audit log that db_restore_dag writes in the transaction of the restore itself."""


def require_restorable(record: Record, incarnation: str, living: str) -> None:
    """Raises RestoreRefused unless the record says waking and names an export, and this incarnation is the living one,
    came after the recorded deletion and was not restored yet.
    """
    objections = {
        f"its record says {record.phase or 'nothing'}, not waking": record.phase != Phase.WAKING,
        f"the living environment was created at {living}, not at {incarnation}": living != incarnation,
        "its record names no verified export": not (record.manifest_key and record.manifest_version_id),
        "this incarnation is restored already": record.restored_incarnation == incarnation,
        f"this incarnation is not younger than the recorded deletion ({record.deleted_at or 'none'})": (
            record.restored_incarnation != incarnation and not record.is_unrestored(incarnation)
        ),
    }
    found = [objection for objection, holds in objections.items() if holds]
    if found:
        message = (
            f"The restore of {record.environment} is refused: {'; '.join(found)}. "
            "Compare the environment with its record; nothing was written."
        )
        raise RestoreRefused(message)


def order(
    record: Record, incarnation: str, restore_id: str, manifest: bytes, ordered_at: datetime, accept_clashes: bool
) -> dict[str, Any]:
    """environments/<env>/restore_order.json: this export, into this incarnation, by this run, and no other.

    With `accept_clashes`, which only a human says, rows without a place are named and left out.
    """
    return {
        "restore_id": restore_id,
        "export_id": record.export_id,
        "manifest_key": record.manifest_key,
        "manifest_version_id": record.manifest_version_id,
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        "incarnation": incarnation,
        "ordered_at": ordered_at.isoformat(),
        "accept_clashes": accept_clashes,
    }


def require_restored(entry: Mapping[str, Any] | None, export_id: str, run_id: str) -> None:
    """Raises RestoreNotProven unless the newest entry of a restore in Airflow's audit log is about this export.

    Whoever uses Airflow can set the state of a run; the entry is there only together with the rows.
    """
    restored = json.loads(entry["extra"])["export_id"] if entry else "no export"
    if restored != export_id:
        message = (
            f"The run {run_id} of db_restore_dag is in the state success, but the last restore in Airflow's audit log "
            f"is of {restored}, not of {export_id}: somebody may have marked the run as success. "
            "Start spin_up again and let its new run of db_restore_dag end."
        )
        raise RestoreNotProven(message)
