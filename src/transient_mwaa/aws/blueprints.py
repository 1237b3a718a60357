"""Writes and reads blueprints in the data bucket, with the files that the environment is made with."""

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from typing import Any, Self

from transient_mwaa.aws.bucket import Bucket, ObjectMissing
from transient_mwaa.aws.encryption import Encryption, Undecryptable
from transient_mwaa.aws.prerequisites import Prerequisites
from transient_mwaa.aws.source_bucket import SourceBucket, bucket_name
from transient_mwaa.domain import airflow_versions, blueprint, layout
from transient_mwaa.domain.eager import Schedule
from transient_mwaa.domain.errors import BlueprintChanged, NotCreatableAgain


class Blueprints:
    """The stored configuration of sleeping environments. Sensitive members lie encrypted; they are never logged.

    `prerequisites` are made when a blueprint is written: only then are they asked, and reading EC2's service model for
    their sake would be a seventh of a cold start.
    """

    def __init__(
        self,
        bucket: Bucket,
        encryption: Encryption,
        source: SourceBucket,
        prerequisites: Callable[[], Prerequisites],
        ends_of_support: Mapping[str, date] = airflow_versions.END_OF_SUPPORT,
    ) -> None:
        self._bucket = bucket
        self._encryption = encryption
        self._source = source
        self._prerequisites = prerequisites
        self._ends_of_support = ends_of_support

    @classmethod
    def from_env(cls) -> Self:
        ends_of_support = airflow_versions.refreshed(os.environ.get("END_OF_SUPPORT", ""))
        parts = (Bucket.from_env(), Encryption.from_env(), SourceBucket.from_env(), Prerequisites.from_env)
        return cls(*parts, ends_of_support)

    def write(
        self,
        environment: str,
        incarnation: str,
        derived: blueprint.Derived,
        eager: Iterable[Schedule],
        next_wake: datetime | None,
        now: datetime,
    ) -> tuple[str, str]:
        """Stores what brings the environment back at `next_wake` (None: the calendar has no morning), and names the
        DAGs that will start by themselves (`eager`).

        Returns (key, SHA-256). Raises NotCreatableAgain that names every problem at once; nothing is stored then.
        """
        request = derived.request
        files, missing = self._copy_files(environment, request)
        version, ends = request.get("AirflowVersion", ""), self._ends_of_support
        objection = airflow_versions.objection(version, now.date(), next_wake.date() if next_wake else None, ends)
        problems = [*derived.problems, *self._prerequisites().problems(request), *missing, *filter(None, [objection])]
        if problems:
            message = (
                f"{environment} could not be created again: {'; '.join(problems)}. "
                "Mend this, or leave the environment up; it was not touched."
            )
            raise NotCreatableAgain(message)
        sealed = self._encryption.encrypt(json.dumps(derived.sensitive).encode(), _context(environment))
        document = {
            "blueprint_version": blueprint.BLUEPRINT_VERSION,
            "environment": environment,
            "incarnation": incarnation,
            "written_at": now.isoformat(),
            "airflow_version": version,
            "eager_dags": [dag.dag_id for dag in eager],
            "remarks": list(filter(None, [airflow_versions.remark(version, now.date(), ends)])),
            "request": request,
            "sensitive": base64.b64encode(sealed).decode(),
            "files": files,
        }
        body = blueprint.to_bytes(document)
        sha256 = hashlib.sha256(body).hexdigest()
        key = layout.blueprint(environment, sha256)
        self._bucket.write(key, body, "application/json")
        return key, sha256

    def read(self, environment: str, key: str, sha256: str) -> dict[str, Any]:
        """The blueprint's document; raises BlueprintChanged when it is missing or not the recorded one."""
        try:
            return blueprint.read(self._bucket.read(key), environment, sha256)
        except ObjectMissing as error:
            message = f"The blueprint of {environment} is missing ({key}). Restore the object's last version in S3."
            raise BlueprintChanged(message) from error

    def request(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The whole CreateEnvironment request, secrets included. Puts files back that have vanished since."""
        recorded = recorded_request(document, self._encryption)
        return blueprint.with_versions(recorded, self._put_back_what_vanished(document))

    def _copy_files(self, environment: str, request: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Copies the files' bytes into our bucket; returns their description and what is missing."""
        source = bucket_name(request["SourceBucketArn"])
        files: dict[str, Any] = {}
        missing: list[str] = []
        for name, (path, version_id) in blueprint.files_of(request).items():
            file = self._source.read(source, path, version_id)
            if file is None:
                pinned = f" (version {version_id})" if version_id else ""
                missing.append(f"s3://{source}/{path}{pinned} does not exist")
                continue
            sha256 = hashlib.sha256(file.body).hexdigest()
            copy_key = layout.copied_file(environment, sha256)
            self._bucket.write(copy_key, file.body)
            files[name] = {
                "bucket": source,
                "path": path,
                "version_id": version_id or file.version_id,
                "copy_key": copy_key,
                "sha256": sha256,
            }
        return files, missing

    def _put_back_what_vanished(self, document: Mapping[str, Any]) -> dict[str, str]:
        """File name -> new version id, for files whose recorded version is gone from the environment's bucket."""
        versions: dict[str, str] = {}
        for name, file in document["files"].items():
            if self._source.exists(file["bucket"], file["path"], file["version_id"]):
                continue
            body = self._bucket.read(file["copy_key"])
            if hashlib.sha256(body).hexdigest() != file["sha256"]:
                message = f"Our copy of {file['path']} is not what was recorded ({file['copy_key']}). Restore it in S3."
                raise BlueprintChanged(message)
            versions[name] = self._source.put_back(file["bucket"], file["path"], body)
        return versions


def recorded_request(document: Mapping[str, Any], encryption: Encryption) -> dict[str, Any]:
    """The whole CreateEnvironment request as it was recorded, secrets included. Raises BlueprintChanged."""
    environment = document["environment"]
    try:
        opened = encryption.decrypt(base64.b64decode(document["sensitive"]), _context(environment))
    except Undecryptable as error:
        message = f"The configuration options of {environment} cannot be decrypted. Check the stack's KMS key."
        raise BlueprintChanged(message) from error
    return {**document["request"], **json.loads(opened)}


def _context(environment: str) -> dict[str, str]:
    return {"environment": environment, "content": "blueprint"}
