"""Evidence: what was found when an export was read back from S3, to be held against the manifest."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from transient_mwaa.domain.manifest import SECRET_KINDS, Column, ExportFile, Sums

_IDENTITIES = {"variable": "key", "connection": "conn_id", "trigger": "id", "ab_user": "username"}
_CONTENTS = {"variable": "val", "connection": "password", "trigger": "kwargs", "ab_user": "password"}


@dataclass(frozen=True)
class FileEvidence:
    """One file as it lies in S3. When `problem` is set, the file was not read to its end and the rest is what was
    seen until then."""

    bytes: int
    sha256: str
    rows: int = 0
    schema: tuple[Column, ...] = ()
    key_nulls: Mapping[str, int] | None = None
    sums: Mapping[str, Sums] | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError when it is not what `to_json` makes."""
        nulls, sums = document["key_nulls"], document["sums"]
        return cls(
            bytes=document["bytes"],
            sha256=document["sha256"],
            rows=document["rows"],
            schema=tuple(_column(**column) for column in document["schema"]),
            key_nulls=None if nulls is None else dict(nulls),
            sums=None if sums is None else {name: Sums(**entry) for name, entry in sums.items()},
            problem=document["problem"],
        )


def _column(name: str, type: str) -> Column:  # noqa: A002 - as it is stored
    if not (isinstance(name, str) and isinstance(type, str)):
        raise TypeError("a column is not [name, type]")
    return Column(name, type)


@dataclass(frozen=True)
class Finding:
    """What `verify_file` says about the manifest's file number `index`, and which bytes it means."""

    environment: str
    export_id: str
    manifest_key: str
    manifest_version_id: str
    index: int
    key: str
    version_id: str
    sha256: str
    reasons: tuple[str, ...]
    evidence: FileEvidence

    @classmethod
    def about(cls, file: ExportFile, reasons: tuple[str, ...], evidence: FileEvidence, **where: Any) -> Self:
        """`where` = environment, export_id, manifest_key, manifest_version_id, index."""
        return cls(
            key=file.key, version_id=file.version_id, sha256=file.sha256, reasons=reasons, evidence=evidence, **where
        )

    @property
    def good(self) -> bool:
        return not self.reasons

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "good": self.good}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError when it is not what `to_json` makes."""
        own = dict(document)
        finding = cls(
            **{
                **{name: value for name, value in own.items() if name != "good"},
                "reasons": tuple(own["reasons"]),
                "evidence": FileEvidence.from_json(own["evidence"]),
            }
        )
        if type(finding.index) is not int:
            raise TypeError("index is no number")
        if own["good"] is not finding.good:
            raise ValueError("good and reasons disagree")
        return finding


@dataclass(frozen=True)
class SecretsEvidence:
    """secrets.enc as it lies in S3; `rows` is None when it could not be opened, and `problem` says why."""

    bytes: int
    sha256: str
    rows: Mapping[str, int] | None
    problem: str | None = None


def secret_rows(plaintext: bytes) -> dict[str, int]:
    """Rows of each kind in the opened secrets. Raises ValueError, whose message never holds any content."""
    try:
        document = json.loads(plaintext)
    except (ValueError, RecursionError):
        raise ValueError("the secrets are not JSON") from None
    if not isinstance(document, dict) or set(document) != set(SECRET_KINDS):
        raise ValueError(f"the secrets do not hold exactly {', '.join(SECRET_KINDS)}")
    return {kind: _rows_of(kind, document[kind]) for kind in SECRET_KINDS}


def _rows_of(kind: str, rows: Any) -> int:
    identity, content = _IDENTITIES[kind], _CONTENTS[kind]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"the secrets of {kind} are not a list of rows")
    if not all(identity in row and content in row for row in rows):
        raise ValueError(f"a row of {kind} lacks its {identity} or its {content}")
    if len({json.dumps(row[identity], sort_keys=True) for row in rows}) != len(rows):
        raise ValueError(f"a row of {kind} stands there twice")
    return len(rows)
