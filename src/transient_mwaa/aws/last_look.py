"""The last look at a living Airflow, before its environment is deleted."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from transient_mwaa.aws.airflow_rest import AirflowRest
from transient_mwaa.aws.bucket import Bucket
from transient_mwaa.aws.owed_dags import OwedDags
from transient_mwaa.aws.records import Records
from transient_mwaa.domain import layout
from transient_mwaa.domain.cycle import Record
from transient_mwaa.domain.deletion import cut_off_runs
from transient_mwaa.domain.last_look import LOG_AHEAD, LogEntry, changes, differences, require_unchanged
from transient_mwaa.domain.manifest import Manifest
from transient_mwaa.domain.verdict import Verdict


class LastLook:
    """Compares Airflow as it is now with one export. Failures of the REST API rise by their names."""

    def __init__(self, records: Records, bucket: Bucket, rest: AirflowRest, owed: OwedDags) -> None:
        self._records = records
        self._bucket = bucket
        self._rest = rest
        self._owed = owed

    @classmethod
    def from_env(cls) -> Self:
        return cls(Records.from_env(), Bucket.from_env(), AirflowRest.from_env(), OwedDags.from_env())

    def take(self, manifest: Manifest, record: Record) -> None:
        """Raises ChangedSinceExport when Airflow holds anything else than this export does."""
        name = manifest.environment
        found = differences(self._rest.totals(name), manifest)
        require_unchanged(name, manifest.export_id, (*self._changes(manifest, record), *found))

    def explain(self, verdict: Verdict, manifest: Manifest, totals: Mapping[str, int]) -> None:
        """Raises ChangedSinceExport when the verdict is bad for the totals alone and Airflow has moved on since the
        snapshot: the export was whole, and is too old already. Where nothing is known to have happened, it is bad."""
        if verdict.is_about_totals(manifest, totals):
            record = self._records.read(manifest.environment)
            require_unchanged(manifest.environment, manifest.export_id, self._changes(manifest, record))

    def _changes(self, manifest: Manifest, record: Record) -> tuple[str, ...]:
        name = manifest.environment
        cut_off = self._bucket.find(layout.cut_off(name))
        excused = cut_off_runs(cut_off.json() if cut_off else None, record)
        # The audit log comes last: whatever happens while the rest is being read is in it.
        look = self._rest.look(name)
        rows = self._rest.event_logs_after(name, manifest.max_log_id, manifest.snapshot_at - LOG_AHEAD)
        entries = [_entry(row) for row in rows]
        return changes(look, self._owed.read(name), excused, entries, manifest.max_log_id, manifest.snapshot_at)


def _entry(row: dict[str, Any]) -> LogEntry:
    return LogEntry(
        int(row["event_log_id"]),
        row.get("dag_id") or "",
        str(row.get("event") or "something"),
        datetime.fromisoformat(row["when"]) if row.get("when") else None,
        row.get("try_number") is not None,
    )
