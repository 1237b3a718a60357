"""One export's papers in the data bucket: manifest, findings, verdict, and the pointer to the last verified export."""

from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Self, get_args

from transient_mwaa.aws.bucket import Bucket, ObjectMissing, StoredObject
from transient_mwaa.domain import layout, verdict
from transient_mwaa.domain.errors import ExportNotVerified, ManifestInvalid, ManifestMissing
from transient_mwaa.domain.evidence import Finding
from transient_mwaa.domain.manifest import Manifest, Mode, parse
from transient_mwaa.domain.verdict import Verdict, VerifiedExport


class Exports:
    """Reads and writes the papers. AWS failures that pass rise as ServiceUnavailable."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    @classmethod
    def from_env(cls) -> Self:
        return cls(Bucket.from_env())

    def newest_manifest(
        self, environment: str, export_id: str, mode: Mode = "complete"
    ) -> tuple[StoredObject, Manifest]:
        """The manifest as it lies there now. Raises ManifestMissing, ManifestInvalid."""
        return self._manifest(environment, export_id, layout.manifest(environment, export_id), None, mode)

    def manifest(
        self, environment: str, export_id: str, key: str, version_id: str, mode: Mode = "complete"
    ) -> Manifest:
        """This very version of the manifest. Raises ManifestMissing, ManifestInvalid."""
        if key != layout.manifest(environment, export_id):
            raise ManifestInvalid(f"{key} is not where this export's manifest lies. Start the same run again.")
        return self._manifest(environment, export_id, key, version_id, mode)[1]

    def _manifest(
        self, environment: str, export_id: str, key: str, version_id: str | None, mode: Mode
    ) -> tuple[StoredObject, Manifest]:
        try:
            stored = self._bucket.fetch(key, version_id)
        except ObjectMissing:
            raise ManifestMissing(
                f"The export {export_id} of {environment} says that it succeeded, but {key} is not there. "
                "The environment stays; check the bucket and the rights of the environment's execution role."
            ) from None
        return stored, parse(stored.body, environment, export_id, mode)

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

    def require_good_verdict(
        self, environment: str, export_id: str, manifest_key: str, version_id: str, mode: Mode = "complete"
    ) -> None:
        """Raises ExportNotVerified."""
        found = self.verdict(environment, export_id)
        verdict.require_good(found, environment, export_id, manifest_key, version_id, mode)

    def last_verified(self, environment: str, mode: Mode = "complete") -> VerifiedExport | None:
        """The last good export of this mode; None before the first."""
        stored = self._bucket.find(_POINTERS[mode](environment))
        if stored is None:
            return None
        document = stored.json()
        return VerifiedExport(**{name: document[name] for name in VerifiedExport.__annotations__ if name in document})

    def verified(self, environment: str) -> list[VerifiedExport]:
        """The last good export of each mode, as far as there is one."""
        return [found for mode in get_args(Mode) if (found := self.last_verified(environment, mode))]

    def promote(
        self, environment: str, export_id: str, key: str, version_id: str, recorded: str, now: datetime
    ) -> dict[str, int]:
        """Copies the verified history into the lake, then makes this the last verified export. Repeating it changes
        nothing. `recorded` is the export that the environment's record names, from which a morning would restore.
        Raises ExportNotVerified without a good verdict, or when a later export was verified meanwhile."""
        self.require_good_verdict(environment, export_id, key, version_id)
        stored, manifest = self._manifest(environment, export_id, key, version_id, "complete")
        last = self.last_verified(environment)
        if last is not None and datetime.fromisoformat(last.watermark) > manifest.watermark:
            raise ExportNotVerified(
                f"The export {last.export_id} of {environment} was verified after {export_id}. "
                "The older one stays where it is; start the evening again."
            )
        self._copy_into_the_lake(manifest)
        if last is not None and last.export_id != export_id:
            self._let_expire(environment, last, kept={export_id, recorded})
        self._point_to(stored, manifest, last, now)
        return _counts(manifest)

    def _let_expire(self, environment: str, last: VerifiedExport, kept: Set[str]) -> None:
        """Marks the files of the export that two later ones have followed, and of what was made until the first of
        them: extracts, and exports that were never verified. Their manifests stay: nobody touches what was promised."""
        if not last.replaces:
            return
        for export_id in self._bucket.folders(layout.exports(environment)):
            if export_id in kept or not last.replaces <= export_id < last.export_id:
                continue
            files = set(self._bucket.keys(layout.export_prefix(environment, export_id)))
            for key in sorted(files - {layout.manifest(environment, export_id)}):
                with suppress(ObjectMissing):
                    self._bucket.tag(key, *layout.SUPERSEDED)

    def promote_extract(
        self, environment: str, export_id: str, key: str, version_id: str, now: datetime
    ) -> dict[str, int]:
        """Copies a verified extract into the lake, then makes it the last verified one, unless a later one is that
        already: rows that come twice count once. Repeating it changes nothing, and the complete exports are left
        alone. Raises ExportNotVerified without a good verdict."""
        self.require_good_verdict(environment, export_id, key, version_id, "history")
        stored, manifest = self._manifest(environment, export_id, key, version_id, "history")
        self._copy_into_the_lake(manifest)
        last = self.last_verified(environment, "history")
        if last is None or datetime.fromisoformat(last.watermark) <= manifest.watermark:
            self._point_to(stored, manifest, last, now)
        return _counts(manifest)

    def _copy_into_the_lake(self, manifest: Manifest) -> None:
        day = manifest.snapshot_at.astimezone(UTC).date()
        for file in manifest.history_files:
            lake_key = layout.lake_file(file.table, day, manifest.environment, manifest.export_id, file.part)
            # What lies there already is this file: queries that are reading it must not see it change under them.
            if self._bucket.size(lake_key) != file.bytes:
                self._bucket.copy(file.key, file.version_id, lake_key)

    def _point_to(self, stored: StoredObject, manifest: Manifest, last: VerifiedExport | None, now: datetime) -> None:
        if last is not None and last.manifest_version_id == stored.version_id:
            return
        verified = VerifiedExport(
            export_id=manifest.export_id,
            manifest_key=stored.key,
            manifest_version_id=stored.version_id,
            manifest_sha256=stored.sha256,
            watermark=manifest.watermark.isoformat(),
            incarnation=manifest.incarnation,
            verified_at=now.isoformat(timespec="seconds"),
            replaces=_before(last, manifest.export_id),
        )
        self._bucket.write_json(_POINTERS[manifest.mode](manifest.environment), asdict(verified))


_POINTERS: Mapping[Mode, Callable[[str], str]] = {
    "complete": layout.verified_export,
    "history": layout.verified_history,
}


def _before(last: VerifiedExport | None, export_id: str) -> str:
    """The id of the export that this one replaces; "" for none."""
    if last is None:
        return ""
    return last.replaces if last.export_id == export_id else last.export_id


def _counts(manifest: Manifest) -> dict[str, int]:
    files = manifest.history_files
    return {"files": len(files), "rows": sum(file.rows for file in files)}
