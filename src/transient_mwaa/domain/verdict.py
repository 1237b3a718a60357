"""The verdict: is every promised row safe in S3? Whatever cannot be checked counts against the export."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from transient_mwaa.domain.errors import ExportNotVerified
from transient_mwaa.domain.evidence import FileEvidence, Finding, SecretsEvidence
from transient_mwaa.domain.manifest import ExportFile, Manifest, Mode, Sums

OLDEST_SNAPSHOT = timedelta(hours=2)
CLOCK_SKEW = timedelta(minutes=5)
"""How far the database's clock may be ahead of ours."""

_COUNTED_BY_AIRFLOW = frozenset({"connection", "dag_run", "slot_pool", "variable"})
"""Tables that Airflow's REST API must have counted as well; it may count more."""
# Writer and reader have different pyarrow versions: newer ones name these storage types by their meaning.
_STORAGE_TYPES = {"extension<arrow.uuid>": "fixed_size_binary[16]", "extension<arrow.json>": "string"}


@dataclass(frozen=True)
class Verdict:
    """Good without a reason, bad with every reason; about one version of one manifest.

    `mode` says of what it is a verdict: one about a history extract proves nothing about a night.
    """

    mode: Mode
    environment: str
    export_id: str
    manifest_key: str
    manifest_version_id: str
    files: int
    rows: int
    reasons: tuple[str, ...]
    judged_at: str

    @property
    def good(self) -> bool:
        return not self.reasons

    def to_json(self) -> dict[str, Any]:
        return {
            "mode": self.mode,
            "environment": self.environment,
            "export_id": self.export_id,
            "manifest_key": self.manifest_key,
            "manifest_version_id": self.manifest_version_id,
            "files": self.files,
            "rows": self.rows,
            "good": self.good,
            "reasons": list(self.reasons),
            "judged_at": self.judged_at,
        }

    def is_about_totals(self, manifest: Manifest, totals: Mapping[str, int]) -> bool:
        """Whether the export is whole, and nothing but Airflow's own totals says otherwise."""
        return not self.good and set(self.reasons) == set(_totals_reasons(manifest, totals))

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Raises KeyError, TypeError or ValueError when it is not what `to_json` makes."""
        own = dict(document)
        good = own.pop("good")
        verdict = cls(**{**own, "reasons": tuple(own["reasons"])})
        if good is not verdict.good:
            raise ValueError("good and reasons disagree")
        return verdict


@dataclass(frozen=True)
class VerifiedExport:
    """The last export of its mode that was found good: environments/<env>/verified_export.json (complete) and
    verified_history.json (history). Times are ISO 8601; `replaces` is the export before it, "" for none.
    """

    export_id: str
    manifest_key: str
    manifest_version_id: str
    manifest_sha256: str
    watermark: str
    incarnation: str
    verified_at: str
    replaces: str = ""


def file_reasons(promised: ExportFile, found: FileEvidence) -> tuple[str, ...]:
    """Everything in which one file differs from its promise; empty when it is as promised."""
    reasons: list[str] = []
    if found.bytes != promised.bytes:
        reasons.append(f"{promised.bytes} bytes were promised, {found.bytes} are there")
    if found.sha256 != promised.sha256:
        reasons.append("its bytes are not the promised ones (SHA-256 differs)")
    if found.problem is not None:
        reasons.append(f"it could not be checked: {found.problem}")
        return tuple(reasons)
    if found.rows != promised.rows:
        reasons.append(f"{promised.rows} rows were promised, {found.rows} are there")
    if _columns(found) != _columns(promised):
        reasons.append(f"its columns are {_columns(found)}, promised were {_columns(promised)}")
    nulls = found.key_nulls or {}
    reasons += [
        f"the key column {name} is empty in {nulls.get(name, 'uncounted')} rows"
        for name in promised.key_columns
        if nulls.get(name) != 0
    ]
    sums = found.sums or {}
    for name in sorted({*promised.sums, *sums}):
        reasons += _column_reasons(name, promised.sums.get(name), sums.get(name))
    return tuple(reasons)


def _columns(file: ExportFile | FileEvidence) -> list[tuple[str, str]]:
    return [(column.name, _STORAGE_TYPES.get(column.type, column.type)) for column in file.schema]


def _column_reasons(name: str, promised: Sums | None, found: Sums | None) -> list[str]:
    if promised is None or found is None:
        return [f"{name}: its sums were not {'promised' if promised is None else 'computed'}"]
    return [
        f"{name}: {measure} is {there}, promised was {wanted}"
        for measure, wanted, there in (
            ("measure", promised.measure, found.measure),
            ("count", promised.count, found.count),
            ("min", _one_zero(promised, promised.min), _one_zero(found, found.min)),
            ("max", _one_zero(promised, promised.max), _one_zero(found, found.max)),
            ("sum", promised.sum, found.sum),
        )
        if wanted != there
    ]


def _one_zero(sums: Sums, text: str | None) -> str | None:
    """PostgreSQL and Arrow may each call either zero the smallest; the sum over the bits tells them apart."""
    return "0.0" if sums.measure == "float" and text == "-0.0" else text


def judge(
    manifest: Manifest,
    manifest_key: str,
    manifest_version_id: str,
    findings: Iterable[Finding | None],
    secrets: SecretsEvidence,
    totals: Mapping[str, int],
    incarnation: str,
    verified: Collection[VerifiedExport],
    now: datetime,
) -> Verdict:
    """Holds everything that was found against the manifest of a complete export. `findings` are in any order, None for
    one that is missing or cannot be read; `totals` are rows by table as Airflow's REST API counts them; `verified` are
    the pointers to what was verified last, of either mode.
    """
    reasons = [] if manifest.mode == "complete" else ["it holds nothing but history"]
    reasons += _common_reasons(manifest, manifest_key, manifest_version_id, findings, incarnation, verified, now)
    reasons += [f"secrets: {reason}" for reason in _secrets_reasons(manifest, secrets)]
    reasons += _totals_reasons(manifest, totals)
    return _verdict(manifest, manifest_key, manifest_version_id, reasons, now)


def judge_extract(
    manifest: Manifest,
    manifest_key: str,
    manifest_version_id: str,
    findings: Iterable[Finding | None],
    incarnation: str,
    verified: Collection[VerifiedExport],
    now: datetime,
) -> Verdict:
    """The same for a history extract, which has neither secrets nor whole tables."""
    reasons = [] if manifest.mode == "history" else ["it is no history extract"]
    reasons += _common_reasons(manifest, manifest_key, manifest_version_id, findings, incarnation, verified, now)
    return _verdict(manifest, manifest_key, manifest_version_id, reasons, now)


def _common_reasons(
    manifest: Manifest,
    manifest_key: str,
    manifest_version_id: str,
    findings: Iterable[Finding | None],
    incarnation: str,
    verified: Collection[VerifiedExport],
    now: datetime,
) -> list[str]:
    reasons = _origin_reasons(manifest, incarnation, now)
    reasons += _continuity_reasons(manifest, verified)
    about: dict[int, list[Finding]] = defaultdict(list)
    for finding in filter(None, findings):
        about[finding.index].append(finding)
    for index, file in enumerate(manifest.files):
        expected = (manifest.environment, manifest.export_id, manifest_key, manifest_version_id, index)
        found = [reason for finding in about[index] for reason in _finding_reasons(file, finding, expected)]
        reasons += [f"{file.key}: {reason}" for reason in (found if about[index] else ["nobody has verified it"])]
    return reasons


def _verdict(
    manifest: Manifest, manifest_key: str, manifest_version_id: str, reasons: Sequence[str], now: datetime
) -> Verdict:
    return Verdict(
        mode=manifest.mode,
        environment=manifest.environment,
        export_id=manifest.export_id,
        manifest_key=manifest_key,
        manifest_version_id=manifest_version_id,
        files=len(manifest.files),
        rows=manifest.rows,
        reasons=tuple(reasons),
        judged_at=now.isoformat(timespec="seconds"),
    )


def require_good(
    verdict: Verdict | None,
    environment: str,
    export_id: str,
    manifest_key: str,
    manifest_version_id: str,
    mode: Mode = "complete",
) -> None:
    """Raises ExportNotVerified unless this verdict is good, of this mode and about this version of the manifest."""
    if verdict is None:
        problem = "there is no verdict"
    elif verdict.mode != mode:
        problem = f"the verdict is about an export of the mode {verdict.mode}, not {mode}"
    elif verdict.manifest_version_id != manifest_version_id or verdict.manifest_key != manifest_key:
        problem = "the verdict is about another version of the manifest"
    elif verdict.environment != environment or verdict.export_id != export_id:
        problem = "the verdict is about another export"
    elif not verdict.good:
        problem = f"it was found bad for {len(verdict.reasons)} reasons, the first: {verdict.reasons[0]}"
    else:
        return
    raise ExportNotVerified(
        f"The export {export_id} of {environment} is not verified: {problem}. "
        "The environment stays; read the verdict in the data bucket, then let the evening run again."
    )


def _origin_reasons(manifest: Manifest, incarnation: str, now: datetime) -> list[str]:
    reasons: list[str] = []
    if not incarnation or manifest.incarnation != incarnation:
        reasons.append(f"it was made by the incarnation {manifest.incarnation or 'unknown'}, not by {incarnation}")
    if now - manifest.snapshot_at > OLDEST_SNAPSHOT:
        reasons.append(f"its snapshot of {manifest.snapshot_at.isoformat()} is too old")
    if manifest.snapshot_at - now > CLOCK_SKEW:
        reasons.append(f"its snapshot of {manifest.snapshot_at.isoformat()} lies in the future")
    return reasons


def newest_watermark(verified: Collection[VerifiedExport]) -> datetime | None:
    """Up to when the lake holds everything that changed; None while it is empty."""
    return max((datetime.fromisoformat(each.watermark) for each in verified), default=None)


def _continuity_reasons(manifest: Manifest, verified: Collection[VerifiedExport]) -> list[str]:
    """History may begin earlier than the lake ends, since repeats do no harm, and never later: that would be a gap."""
    end, since = newest_watermark(verified), manifest.history_since
    if since is None or (end is not None and since <= end):
        return []
    ends = "is empty" if end is None else f"ends at {end.isoformat()}"
    return [f"its history begins at {since.isoformat()}, but what was verified {ends}"]


def _finding_reasons(file: ExportFile, finding: Finding, expected: tuple[str, str, str, str, int]) -> tuple[str, ...]:
    about = (
        finding.environment,
        finding.export_id,
        finding.manifest_key,
        finding.manifest_version_id,
        finding.index,
    )
    if about != expected:
        return ("its finding is about another manifest or another file",)
    if (finding.key, finding.version_id, finding.sha256) != (file.key, file.version_id, file.sha256):
        return ("its finding is about other bytes",)
    # Compared once more from the evidence: a finding is not believed for saying that it is good.
    return tuple(dict.fromkeys((*finding.reasons, *file_reasons(file, finding.evidence))))


def _secrets_reasons(manifest: Manifest, found: SecretsEvidence) -> list[str]:
    promised = manifest.secrets
    if promised is None:
        return ["none were promised"]
    reasons: list[str] = []
    if (found.bytes, found.sha256) != (promised.bytes, promised.sha256):
        size = f"{promised.bytes} bytes were promised, {found.bytes} are there"
        content = "the bytes are not the promised ones (SHA-256 differs)"
        reasons.append(size if found.bytes != promised.bytes else content)
    if found.problem is not None or found.rows is None:
        reasons.append(f"they could not be checked: {found.problem}")
        return reasons
    reasons += [
        f"{rows} rows of {kind} were promised, {found.rows.get(kind, 0)} are there"
        for kind, rows in promised.rows.items()
        if found.rows.get(kind) != rows
    ]
    return reasons


def _totals_reasons(manifest: Manifest, totals: Mapping[str, int]) -> list[str]:
    reasons: list[str] = []
    for table in sorted(_COUNTED_BY_AIRFLOW | totals.keys()):
        promised = manifest.tables[table].rows if table in manifest.tables else "nothing"
        counted = totals.get(table, "nothing")
        if counted != promised or table not in manifest.tables:
            reasons.append(f"{table}: Airflow's REST API counts {counted}, the database counted {promised}")
    return reasons
