"""One export's papers in the data bucket: manifest, findings, verdict, and the pointer to the last verified export."""

import hashlib
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Self

from transient_mwaa.aws.bucket import Bucket, ObjectMissing, StoredObject
from transient_mwaa.aws.encryption import Encryption, Undecryptable
from transient_mwaa.domain import layout, verdict
from transient_mwaa.domain.errors import ExportNotVerified, ManifestInvalid, ManifestMissing
from transient_mwaa.domain.evidence import Finding, SecretsEvidence, secret_rows
from transient_mwaa.domain.manifest import Manifest, parse
from transient_mwaa.domain.verdict import Verdict, VerifiedExport


class Exports:
    """Reads and writes the papers. AWS failures that pass rise as ServiceUnavailable."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    @classmethod
    def from_env(cls) -> Self:
        return cls(Bucket.from_env())

    def newest_manifest(self, environment: str, export_id: str) -> tuple[StoredObject, Manifest]:
        """The manifest as it lies there now. Raises ManifestMissing, ManifestInvalid."""
        return self._manifest(environment, export_id, layout.manifest(environment, export_id), None)

    def manifest(self, environment: str, export_id: str, key: str, version_id: str) -> Manifest:
        """This very version of the manifest. Raises ManifestMissing, ManifestInvalid."""
        if key != layout.manifest(environment, export_id):
            raise ManifestInvalid(f"{key} is not where this export's manifest lies. Start the evening again.")
        return self._manifest(environment, export_id, key, version_id)[1]

    def _manifest(
        self, environment: str, export_id: str, key: str, version_id: str | None
    ) -> tuple[StoredObject, Manifest]:
        try:
            stored = self._bucket.fetch(key, version_id)
        except ObjectMissing:
            raise ManifestMissing(
                f"The export {export_id} of {environment} says that it succeeded, but {key} is not there. "
                "The environment stays; check the bucket and the rights of the environment's execution role."
            ) from None
        return stored, parse(stored.body, environment, export_id)

    def write_finding(self, finding: Finding) -> None:
        key = layout.finding(finding.environment, finding.export_id, finding.index)
        self._bucket.write_json(key, finding.to_json())

    def findings(self, manifest: Manifest) -> list[Finding | None]:
        """One for each file of the manifest, in its order; None where there is none that can be read."""
        return [self._finding(manifest, index) for index in range(len(manifest.files))]

    def _finding(self, manifest: Manifest, index: int) -> Finding | None:
        stored = self._bucket.find(layout.finding(manifest.environment, manifest.export_id, index))
        try:
            return None if stored is None else Finding.from_json(stored.json())
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def write_verdict(self, found: Verdict) -> str:
        """Returns its key."""
        key = layout.verdict(found.environment, found.export_id)
        self._bucket.write_json(key, found.to_json())
        return key

    def verdict(self, environment: str, export_id: str) -> Verdict | None:
        """None when there is none that can be read."""
        stored = self._bucket.find(layout.verdict(environment, export_id))
        try:
            return None if stored is None else Verdict.from_json(stored.json())
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def require_good_verdict(self, environment: str, export_id: str, manifest_key: str, version_id: str) -> None:
        """Raises ExportNotVerified."""
        found = self.verdict(environment, export_id)
        verdict.require_good(found, environment, export_id, manifest_key, version_id)

    def last_verified(self, environment: str) -> VerifiedExport | None:
        stored = self._bucket.find(layout.verified_export(environment))
        if stored is None:
            return None
        document = stored.json()
        return VerifiedExport(**{name: document[name] for name in VerifiedExport.__annotations__})

    def promote(self, environment: str, export_id: str, key: str, version_id: str, now: datetime) -> dict[str, int]:
        """Copies the verified history into the lake, then makes this the last verified export. Repeating it changes
        nothing. Raises ExportNotVerified without a good verdict, or when a later export was verified meanwhile."""
        self.require_good_verdict(environment, export_id, key, version_id)
        stored, manifest = self._manifest(environment, export_id, key, version_id)
        last = self.last_verified(environment)
        if last is not None and datetime.fromisoformat(last.watermark) > manifest.watermark:
            raise ExportNotVerified(
                f"The export {last.export_id} of {environment} was verified after {export_id}. "
                "The older one stays where it is; start the evening again."
            )
        day = manifest.snapshot_at.astimezone(UTC).date()
        for file in manifest.history_files:
            lake_key = layout.lake_file(file.table, day, environment, export_id, file.part)
            # What lies there already is this file: queries that are reading it must not see it change under them.
            if self._bucket.size(lake_key) != file.bytes:
                self._bucket.copy(file.key, file.version_id, lake_key)
        verified = VerifiedExport(
            export_id=export_id,
            manifest_key=key,
            manifest_version_id=version_id,
            manifest_sha256=stored.sha256,
            watermark=manifest.watermark.isoformat(),
            incarnation=manifest.incarnation,
            verified_at=now.isoformat(timespec="seconds"),
        )
        if last is None or last.manifest_version_id != version_id:
            self._bucket.write_json(layout.verified_export(environment), asdict(verified))
        files = manifest.history_files
        return {"files": len(files), "rows": sum(file.rows for file in files)}


class SealedSecrets:
    """secrets.enc: opened in memory, counted, forgotten."""

    def __init__(self, bucket: Bucket, encryption: Encryption) -> None:
        self._bucket = bucket
        self._encryption = encryption

    @classmethod
    def from_env(cls) -> Self:
        return cls(Bucket.from_env(), Encryption.from_env())

    def examine(self, manifest: Manifest) -> SecretsEvidence:
        """What lies there under the promised version. What cannot be opened becomes its `problem`."""
        promised = manifest.secrets
        try:
            sealed = self._bucket.read(promised.key, promised.version_id)
        except ObjectMissing:
            return SecretsEvidence(0, "", None, "this version of the object does not exist")
        size, sha256 = len(sealed), hashlib.sha256(sealed).hexdigest()
        context = {"environment": manifest.environment, "export_id": manifest.export_id, "content": "secrets"}
        try:
            rows = secret_rows(self._encryption.decrypt(sealed, context))
        except (Undecryptable, ValueError) as error:
            return SecretsEvidence(size, sha256, None, str(error))
        return SecretsEvidence(size, sha256, rows)
