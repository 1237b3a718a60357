"""Deletes a living environment: the only place that does, behind every fence there is."""

from datetime import datetime
from typing import Any, Self

from botocore.exceptions import ClientError

from transient_mwaa.aws import passing
from transient_mwaa.aws.airflow_rest import AirflowRest
from transient_mwaa.aws.bucket import Bucket
from transient_mwaa.aws.exports import Exports
from transient_mwaa.aws.mwaa import Mwaa, incarnation, status_of
from transient_mwaa.aws.owed_dags import OwedDags
from transient_mwaa.aws.records import Records
from transient_mwaa.domain import layout
from transient_mwaa.domain.deletion import GONE, DeletionOrder, cut_off_runs
from transient_mwaa.domain.errors import DeleteRefused
from transient_mwaa.domain.last_look import LogEntry, changes, require_unchanged


class Deletion:
    """Checks everything that a DeletionOrder believes, takes the last look, and deletes at once."""

    def __init__(
        self, records: Records, bucket: Bucket, exports: Exports, mwaa: Mwaa, rest: AirflowRest, owed: OwedDags
    ) -> None:
        self._records = records
        self._bucket = bucket
        self._exports = exports
        self._mwaa = mwaa
        self._rest = rest
        self._owed = owed

    @classmethod
    def from_env(cls) -> Self:
        return cls(
            Records.from_env(),
            Bucket.from_env(),
            Exports.from_env(),
            Mwaa.from_env(),
            AirflowRest.from_env(),
            OwedDags.from_env(),
        )

    def carry_out(self, order: DeletionOrder, now: datetime) -> None:
        """Returns once MWAA has accepted the delete, now or in an earlier try of the same order.

        Raises LeaseLost, EnvironmentReplaced, BlueprintChanged, ExportNotVerified, StillBusy, ChangedSinceExport,
        DeleteRefused.
        """
        name = order.environment
        record = self._records.read(name)
        order.require_record(record)
        self._exports.require_good_verdict(name, order.export_id, order.manifest_key, order.manifest_version_id)
        order.require_last_verified(self._exports.last_verified(name))
        blueprint = self._bucket.find(order.blueprint_key)
        order.require_blueprint(blueprint.body if blueprint else None)
        environment = self._mwaa.describe(name)
        status = status_of(environment)
        if status in GONE:
            return
        order.require_incarnation(incarnation(environment))
        if status == "DELETING":
            return
        order.require_deletable(record, status)
        order.require_in_time(now)
        cut_off = self._bucket.find(layout.cut_off(name))
        self._look_once_more(order, cut_off_runs(cut_off.json() if cut_off else None, record))
        self._records.mark_deleting(name, order.owner, order.fence, order.incarnation, now)
        self._delete(name)

    def _look_once_more(self, order: DeletionOrder, cut_off: frozenset[tuple[str, str]]) -> None:
        name = order.environment
        manifest = self._exports.manifest(name, order.export_id, order.manifest_key, order.manifest_version_id)
        # The audit log comes last: whatever happens while the rest is being read is in it.
        look = self._rest.look(name)
        entries = [_entry(row) for row in self._rest.event_logs_after(name, manifest.max_log_id)]
        found = changes(look, self._owed.read(name), cut_off, entries, manifest.max_log_id)
        require_unchanged(name, order.export_id, found)

    def _delete(self, name: str) -> None:
        try:
            self._mwaa.delete(name)
        except ClientError as error:
            if passing.code_of(error) == "ResourceNotFoundException":
                return
            raise DeleteRefused(
                f"MWAA did not accept the deletion of {name}: {error.response['Error'].get('Message', '')} "
                f"({passing.code_of(error)}). The environment stays; see its status in the MWAA console."
            ) from error


def _entry(row: dict[str, Any]) -> LogEntry:
    return LogEntry(int(row["event_log_id"]), row.get("dag_id") or "", str(row.get("event") or "something"))
