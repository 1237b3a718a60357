"""Deletes a living environment: the only place that does, behind every fence there is."""

from datetime import datetime
from typing import Any, Self

from botocore.exceptions import ClientError

from transient_mwaa.aws import passing
from transient_mwaa.aws.blueprints import recorded_request
from transient_mwaa.aws.bucket import Bucket
from transient_mwaa.aws.encryption import Encryption
from transient_mwaa.aws.exports import Exports
from transient_mwaa.aws.last_look import LastLook
from transient_mwaa.aws.mwaa import Mwaa, incarnation, status_of
from transient_mwaa.aws.records import Records
from transient_mwaa.domain import blueprint
from transient_mwaa.domain.deletion import GONE, DeletionOrder
from transient_mwaa.domain.errors import DeleteRefused


class Deletion:
    """Checks everything that a DeletionOrder believes, takes the last look, and deletes at once."""

    def __init__(
        self, records: Records, bucket: Bucket, encryption: Encryption, exports: Exports, mwaa: Mwaa, look: LastLook
    ) -> None:
        self._records = records
        self._bucket = bucket
        self._encryption = encryption
        self._exports = exports
        self._mwaa = mwaa
        self._last_look = look

    @classmethod
    def from_env(cls) -> Self:
        return cls(
            Records.from_env(),
            Bucket.from_env(),
            Encryption.from_env(),
            Exports.from_env(),
            Mwaa.from_env(),
            LastLook.from_env(),
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
        environment = self._mwaa.describe(name)
        if status_of(environment) in GONE:
            return
        order.require_incarnation(incarnation(environment))
        if status_of(environment) == "DELETING":
            return
        order.require_deletable(record, status_of(environment))
        order.require_in_time(now)
        self._require_recorded_configuration(order, environment or {})
        manifest = self._exports.manifest(name, order.export_id, order.manifest_key, order.manifest_version_id)
        self._last_look.take(manifest, record)
        self._records.mark_deleting(name, order.owner, order.fence, order.incarnation, now)
        self._delete(order)

    def _require_recorded_configuration(self, order: DeletionOrder, environment: dict[str, Any]) -> None:
        """Whoever updates the environment while it drains would find yesterday's configuration in the morning."""
        stored = self._bucket.find(order.blueprint_key)
        document = blueprint.read(stored.body if stored else b"", order.environment, order.blueprint_sha256)
        derived = blueprint.derive(environment, self._mwaa.create_shape(), self._mwaa.environment_shape())
        living = {**derived.request, **derived.sensitive}
        order.require_configuration(recorded_request(document, self._encryption), living, derived.problems)

    def _delete(self, order: DeletionOrder) -> None:
        try:
            self._mwaa.delete(order.environment)
        except ClientError as error:
            # A second delete is refused while the first is under way, and the first one's answer may have been lost.
            if passing.code_of(error) == "ResourceNotFoundException" or self._is_going(order):
                return
            raise DeleteRefused(
                f"MWAA did not accept the deletion of {order.environment}: "
                f"{error.response['Error'].get('Message', '')} ({passing.code_of(error)}). "
                "The environment stays; see its status in the MWAA console."
            ) from error

    def _is_going(self, order: DeletionOrder) -> bool:
        environment = self._mwaa.describe(order.environment)
        status = status_of(environment)
        return status in GONE or (status == "DELETING" and incarnation(environment) == order.incarnation)
