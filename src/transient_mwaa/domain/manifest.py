"""The manifest: what one export promises, as the database itself counted it in the exporting transaction.

Written by `dags/airflow_metadata` on the worker, read here. It is parsed strictly: a member that is missing, unknown or
of another type makes the whole manifest invalid, with every reason named.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, get_args

from transient_mwaa.domain import layout
from transient_mwaa.domain.cycle import EXPORT_DAG
from transient_mwaa.domain.errors import ManifestInvalid

MANIFEST_VERSION = 1
MEASURES = ("integer", "boolean", "float", "timestamp", "text", "bytes")
ROLES = ("snapshot", "history")
Mode = Literal["complete", "history"]
"""complete: the whole metadata, from which a morning restores. history: changed rows for the lake, and nothing else."""
CARRIERS = ("snapshot", "secrets", "excluded")

SECRET_TABLES = frozenset({"connection", "variable"})
"""Tables whose rows are secrets: they never become Parquet."""
SECRET_COLUMNS = {"trigger": "kwargs", "ab_user": "password"}
"""Columns left out of a table's Parquet; they travel in secrets.enc."""
SECRET_KINDS = ("variable", "connection", "trigger", "ab_user")

NEVER_PARQUET = SECRET_TABLES | {"ab_register_user", "connection_test_request", "revoked_token", "session"}
"""Tables of passwords and tokens: whatever an owner or an exporter asks for, none of them is a Parquet file."""

# fmt: off
NEVER_LEFT_OUT = frozenset({
    "ab_role", "ab_user", "ab_user_role", "asset", "asset_alias", "asset_alias_asset_event",
    "asset_dag_run_queue", "asset_event", "asset_partition_dag_run", "asset_state_store", "backfill",
    "backfill_dag_run", "callback", "dag", "dag_run", "dag_run_note", "dag_version", "dagrun_asset_event",
    "dagrun_dataset_event", "dataset", "dataset_alias", "dataset_alias_dataset_event", "dataset_dag_run_queue",
    "dataset_event", "deadline", "deadline_alert", "hitl_detail", "hitl_detail_history", "job", "log",
    "log_template", "partitioned_asset_key_log", "rendered_task_instance_fields", "sla_miss", "slot_pool",
    "task_fail", "task_instance", "task_instance_history", "task_instance_note", "task_map", "task_reschedule",
    "task_state_store", "trigger", "xcom",
})
"""Tables that an export may not call "excluded": Airflow's memory, of version 2 and 3, as far as a schema has them."""
ALWAYS_THERE = frozenset(
    {"connection", "dag", "dag_run", "log", "log_template", "slot_pool", "task_instance", "trigger", "variable", "xcom"}
)
"""Tables of every Airflow from 2.10 to 3.3: a list without one of them is not the list of a live schema."""
_OF_BOTH = frozenset({
    "ab_role", "ab_user", "ab_user_role", "dag_run_note", "job", "rendered_task_instance_fields",
    "task_instance_history", "task_instance_note", "task_map", "task_reschedule",
})
EXPECTED_TABLES = {
    "2": ALWAYS_THERE | _OF_BOTH | {
        "dagrun_dataset_event", "dataset", "dataset_alias", "dataset_alias_dataset_event",
        "dataset_dag_run_queue", "dataset_event", "sla_miss", "task_fail",
    },
    "3": ALWAYS_THERE | _OF_BOTH | {
        "asset", "asset_alias", "asset_alias_asset_event", "asset_dag_run_queue", "asset_event", "backfill",
        "backfill_dag_run", "dag_version", "dagrun_asset_event", "deadline",
    },
}
"""Airflow's major version -> what of its memory every version from 2.10, or from 3.0, has: the writer asks the live
schema, and this is what it must have seen there. An exporter whose role may not see a table would not list it."""
KEYS = {
    "dag": ("dag_id",),
    "dag_run": ("dag_id", "run_id"),
    "log": ("id",),
    "log_template": ("id",),
    "slot_pool": ("id",),
    "task_instance": ("dag_id", "task_id", "run_id", "map_index"),
    "trigger": ("id",),
    "xcom": ("dag_id", "task_id", "run_id", "map_index", "key"),
}
# fmt: on
"""Columns that identify a row on every version: never null, by our own knowledge, whatever the writer calls a key."""

_HEX_256 = re.compile(r"[0-9a-f]{64}")
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_COUNT = re.compile(r"0|[1-9][0-9]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")


@dataclass(frozen=True)
class Sums:
    """What one column holds. `count` is of values that are not null; min, max and sum are texts:

    integer    decimal numbers
    boolean    sum = number of true; min and max are null
    float      Python's repr, "NaN" greatest; sum = sum of the IEEE-754 bits read as signed 64-bit integers
    timestamp  microseconds since 1970 UTC
    text       sum = octets of UTF-8; min and max in byte order, as SHA-256 of their UTF-8
    bytes      sum = octets; min and max in byte order, as SHA-256
    Nothing but null in a column: min, max and sum are null.
    """

    measure: str
    count: int
    min: str | None
    max: str | None
    sum: str | None


@dataclass(frozen=True)
class Column:
    """A column's name and its Arrow storage type as pyarrow prints it."""

    name: str
    type: str


@dataclass(frozen=True)
class ExportFile:
    """One promised Parquet file."""

    table: str
    role: Literal["snapshot", "history"]
    part: int
    key: str
    version_id: str
    bytes: int
    sha256: str
    rows: int
    schema: tuple[Column, ...]
    key_columns: tuple[str, ...]
    sums: Mapping[str, Sums]


@dataclass(frozen=True)
class Table:
    """One table of the live schema, its rows by SELECT count(*), and how it is carried."""

    rows: int
    carried: Literal["snapshot", "secrets", "excluded"]
    reason: str | None


@dataclass(frozen=True)
class Secrets:
    """The encrypted object and how many rows of each kind it holds."""

    key: str
    version_id: str
    bytes: int
    sha256: str
    rows: Mapping[str, int]


@dataclass(frozen=True)
class Manifest:
    """One export's promise. Times are aware; `incarnation` is empty when the export was not started by us.

    One of the mode history promises no tables and no secrets.
    """

    mode: Mode
    export_id: str
    environment: str
    incarnation: str
    airflow_version: str
    alembic_revision: str
    snapshot_at: datetime
    max_log_id: int
    history_since: datetime | None
    watermark: datetime
    history_rows: Mapping[str, int]
    tables: Mapping[str, Table]
    files: tuple[ExportFile, ...]
    secrets: Secrets | None

    @property
    def rows(self) -> int:
        """Rows that are carried, in snapshots and secrets; of an extract, all rows of its files."""
        if self.mode == "history":
            return sum(file.rows for file in self.files)
        return sum(table.rows for table in self.tables.values() if table.carried != "excluded")

    @property
    def history_files(self) -> tuple[ExportFile, ...]:
        return tuple(file for file in self.files if file.role == "history")

    def file(self, index: int) -> ExportFile:
        """Raises ManifestInvalid when the manifest has no file of this number."""
        if not 0 <= index < len(self.files):
            raise ManifestInvalid(f"The manifest has no file {index}. Start the evening again.")
        return self.files[index]

    def require_incarnation(self, incarnation: str) -> None:
        """Raises ManifestInvalid unless the export was made in this incarnation of the environment."""
        if not incarnation or self.incarnation != incarnation:
            raise _invalid([f"it was made by the incarnation {self.incarnation or 'unknown'}, not by {incarnation}"])


# Whoever reads back one file of hundreds is asked for the next one in the same process.
@lru_cache(maxsize=1)
def parse(body: bytes, environment: str, export_id: str, mode: Mode = "complete") -> Manifest:
    """The manifest of this export of this environment, which must be of this mode: nothing that proves, deletes or
    restores ever asks for another one than complete. Raises ManifestInvalid naming every reason.
    """
    reader = _Reader()
    try:
        document = json.loads(body, object_pairs_hook=_no_name_twice)
    except (ValueError, RecursionError) as error:
        raise _invalid([f"it is not JSON ({error})"]) from None
    manifest = _manifest(reader, document)
    if manifest is not None and not reader.problems:
        reader.problems += _disagreements(manifest, environment, export_id, mode)
    if reader.problems or manifest is None:
        raise _invalid(reader.problems)
    return manifest


def _invalid(problems: list[str]) -> ManifestInvalid:
    # Thousands of reasons would not fit into a Step Functions error; the first ones say enough.
    shown = problems[:50] + ([f"and {len(problems) - 50} more"] if len(problems) > 50 else [])
    return ManifestInvalid(
        f"The export's manifest cannot be trusted: {'; '.join(shown)}. "
        "The environment stays; look at the export DAG's log and at the versions of dags/ and of this stack."
    )


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = Counter(name for name, _ in pairs)
    twice = sorted(name for name, times in names.items() if times > 1)
    if twice:
        raise ValueError(f"the member {twice[0]!r} stands there twice")
    return dict(pairs)


class _Reader:
    """Takes members out of JSON objects by name and type, and collects what is wrong with them."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def members(self, value: Any, where: str, names: str) -> dict[str, Any]:
        """The object with exactly these members; absent ones come back as None and are named."""
        wanted = names.split()
        if not isinstance(value, dict):
            self.problems.append(f"{where} is not an object")
            value = {}
        else:
            self.problems += [f"{where} lacks {name}" for name in wanted if name not in value]
            self.problems += [f"{where} has the unknown member {name}" for name in sorted(set(value) - set(wanted))]
        return {name: value.get(name) for name in wanted}

    def mapping(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.problems.append(f"{where} is not an object")
            return {}
        return value

    def items(self, value: Any, where: str) -> list[Any]:
        if not isinstance(value, list):
            self.problems.append(f"{where} is not a list")
            return []
        return value

    def count(self, value: Any, where: str, least: int = 0) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.problems.append(f"{where} is not a whole number from {least} on")
            return least
        return value

    def text(self, value: Any, where: str, shape: Callable[[str], object] = bool) -> str:
        if not isinstance(value, str) or not shape(value):
            self.problems.append(f"{where} is not a text of the right shape")
            return ""
        return value

    def text_or_none(self, value: Any, where: str) -> str | None:
        return None if value is None else self.text(value, where)

    def one_of(self, value: Any, where: str, choices: tuple[str, ...]) -> Any:
        if value not in choices:
            self.problems.append(f"{where} is not one of {', '.join(choices)}")
            return choices[0]
        return value

    def moment(self, value: Any, where: str) -> datetime:
        try:
            moment = datetime.fromisoformat(value)
        except (TypeError, ValueError):
            moment = datetime(1, 1, 1)  # noqa: DTZ001 - stands for "no zone", refused in the next line
        if moment.tzinfo is None:
            self.problems.append(f"{where} is not an ISO 8601 time with an offset")
            return datetime.min.replace(tzinfo=UTC)
        return moment


def _manifest(read: _Reader, document: Any) -> Manifest | None:
    version = document.get("manifest_version") if isinstance(document, dict) else None
    if type(version) is not int or version != MANIFEST_VERSION:
        read.problems.append(f"manifest_version is {version!r}, and only {MANIFEST_VERSION} is understood")
        return None
    top = read.members(
        document,
        "the manifest",
        "manifest_version mode export_id environment incarnation dag_id run_id reader airflow_version alembic_revision"
        " snapshot_at max_log_id history tables files secrets",
    )
    read.one_of(top["dag_id"], "dag_id", (EXPORT_DAG,))
    read.one_of(top["reader"], "reader", ("database",))
    if top["run_id"] != top["export_id"]:
        read.problems.append("run_id differs from export_id")
    history = read.members(top["history"], "history", "since watermark rows")
    history_rows = read.mapping(history["rows"], "history.rows")
    tables = read.mapping(top["tables"], "tables")
    files = read.items(top["files"], "files")
    mode: Mode = read.one_of(top["mode"], "mode", get_args(Mode))
    return Manifest(
        mode=mode,
        export_id=read.text(top["export_id"], "export_id"),
        environment=read.text(top["environment"], "environment"),
        incarnation=read.text_or_none(top["incarnation"], "incarnation") or "",
        airflow_version=read.text(top["airflow_version"], "airflow_version"),
        alembic_revision=read.text(top["alembic_revision"], "alembic_revision"),
        snapshot_at=read.moment(top["snapshot_at"], "snapshot_at"),
        max_log_id=read.count(top["max_log_id"], "max_log_id"),
        history_since=None if history["since"] is None else read.moment(history["since"], "history.since"),
        watermark=read.moment(history["watermark"], "history.watermark"),
        history_rows={name: read.count(rows, f"history.rows of {name}") for name, rows in history_rows.items()},
        tables={name: _table(read, value, f"table {name}") for name, value in tables.items()},
        files=tuple(_file(read, value, f"file {index}") for index, value in enumerate(files)),
        secrets=None if mode == "history" and top["secrets"] is None else _secrets(read, top["secrets"]),
    )


def _table(read: _Reader, value: Any, where: str) -> Table:
    own = read.members(value, where, "rows carried reason")
    return Table(
        rows=read.count(own["rows"], f"{where}: rows"),
        carried=read.one_of(own["carried"], f"{where}: carried", CARRIERS),
        reason=read.text_or_none(own["reason"], f"{where}: reason"),
    )


def _file(read: _Reader, value: Any, where: str) -> ExportFile:
    own = read.members(value, where, "table role part key version_id bytes sha256 rows schema key_columns sums")
    sums = read.mapping(own["sums"], f"{where}: sums")
    return ExportFile(
        table=read.text(own["table"], f"{where}: table", _NAME.fullmatch),
        role=read.one_of(own["role"], f"{where}: role", ROLES),
        part=read.count(own["part"], f"{where}: part"),
        key=read.text(own["key"], f"{where}: key"),
        version_id=read.text(own["version_id"], f"{where}: version_id", _is_version),
        bytes=read.count(own["bytes"], f"{where}: bytes", least=1),
        sha256=read.text(own["sha256"], f"{where}: sha256", _HEX_256.fullmatch),
        rows=read.count(own["rows"], f"{where}: rows"),
        schema=tuple(_column(read, pair, where) for pair in read.items(own["schema"], f"{where}: schema")),
        key_columns=tuple(
            read.text(name, f"{where}: a key column")
            for name in read.items(own["key_columns"], f"{where}: key_columns")
        ),
        sums={name: _sums(read, entry, f"{where}: sums of {name}") for name, entry in sums.items()},
    )


def _is_version(text: str) -> bool:
    return text not in ("", "null")  # "null" is S3's version id of an object written without versioning


def _column(read: _Reader, pair: Any, where: str) -> Column:
    if not (isinstance(pair, list) and len(pair) == 2):
        read.problems.append(f"{where}: a column of the schema is not [name, type]")
        return Column("", "")
    return Column(read.text(pair[0], f"{where}: a column's name"), read.text(pair[1], f"{where}: a column's type"))


def _sums(read: _Reader, value: Any, where: str) -> Sums:
    own = read.members(value, where, "measure count min max sum")
    sums = Sums(
        measure=read.one_of(own["measure"], f"{where}: measure", MEASURES),
        count=read.count(own["count"], f"{where}: count"),
        min=read.text_or_none(own["min"], f"{where}: min"),
        max=read.text_or_none(own["max"], f"{where}: max"),
        sum=read.text_or_none(own["sum"], f"{where}: sum"),
    )
    extreme, total = _SHAPES[sums.measure]
    if sums.count == 0:
        extreme = total = _absent
    for name, shape in (("min", extreme), ("max", extreme), ("sum", total)):
        if not shape(getattr(sums, name)):
            read.problems.append(f"{where}: {name} does not fit a {sums.measure} column with {sums.count} values")
    return sums


def _absent(text: str | None) -> bool:
    return text is None


def _matches(pattern: re.Pattern[str]) -> Callable[[str | None], bool]:
    return lambda text: text is not None and pattern.fullmatch(text) is not None


def _is_float(text: str | None) -> bool:
    """Whether it is what repr(float) prints, and with "NaN" for not a number."""
    if text is None or text == "NaN":
        return text is not None
    try:
        return repr(float(text)) == text and text != "nan"
    except ValueError:
        return False


_SHAPES: Mapping[str, tuple[Callable[[str | None], bool], Callable[[str | None], bool]]] = {
    "integer": (_matches(_INTEGER), _matches(_INTEGER)),
    "boolean": (_absent, _matches(_COUNT)),
    "float": (_is_float, _matches(_INTEGER)),
    "timestamp": (_matches(_INTEGER), _matches(_INTEGER)),
    "text": (_matches(_HEX_256), _matches(_COUNT)),
    "bytes": (_matches(_HEX_256), _matches(_COUNT)),
}


def _secrets(read: _Reader, value: Any) -> Secrets:
    own = read.members(value, "secrets", "key version_id bytes sha256 rows")
    rows = read.members(own["rows"], "secrets: rows", " ".join(SECRET_KINDS))
    return Secrets(
        key=read.text(own["key"], "secrets: key"),
        version_id=read.text(own["version_id"], "secrets: version_id", _is_version),
        bytes=read.count(own["bytes"], "secrets: bytes", least=1),
        sha256=read.text(own["sha256"], "secrets: sha256", _HEX_256.fullmatch),
        rows={kind: read.count(rows[kind], f"secrets: rows of {kind}") for kind in SECRET_KINDS},
    )


def _disagreements(manifest: Manifest, environment: str, export_id: str, mode: Mode) -> list[str]:
    """What does not fit together in a manifest whose every member has the right type."""
    problems: list[str] = []
    if manifest.mode != mode:
        problems.append(f"it is an export of the mode {manifest.mode}, not {mode}")
    if manifest.environment != environment:
        problems.append(f"it is about the environment {manifest.environment}, not {environment}")
    if manifest.export_id != export_id:
        problems.append(f"it is about the export {manifest.export_id}, not {export_id}")
    if manifest.watermark > manifest.snapshot_at:
        problems.append("history.watermark lies after snapshot_at")
    if manifest.history_since is not None and manifest.history_since > manifest.watermark:
        problems.append("history.since lies after history.watermark")
    for index, file in enumerate(manifest.files):
        problems += [f"file {index}: {problem}" for problem in _file_problems(file, environment, export_id)]
    keys = Counter([*(file.key for file in manifest.files), *([manifest.secrets.key] if manifest.secrets else [])])
    problems += [f"{key} stands there {times} times" for key, times in sorted(keys.items()) if times > 1]
    problems += _history_row_problems(manifest)
    if manifest.mode == "history":
        return problems + _history_problems(manifest)
    problems += _table_problems(manifest) + _secret_problems(manifest, environment, export_id)
    return problems + _log_problems(manifest)


def _history_row_problems(manifest: Manifest) -> list[str]:
    """Whether the history files hold what the database counted; a table without news has no file."""
    held = Counter[str]()
    for file in manifest.history_files:
        held[file.table] += file.rows
    return [
        f"the history of {name} has {manifest.history_rows.get(name, 0)} rows, its files hold {held[name]}"
        for name in sorted({*manifest.history_rows, *held})
        if manifest.history_rows.get(name, 0) != held[name]
    ]


def _history_problems(manifest: Manifest) -> list[str]:
    """What an export that holds nothing but history must not have."""
    problems = [f"file {index} is no history" for index, file in enumerate(manifest.files) if file.role != "history"]
    problems += ["it lists tables"] if manifest.tables else []
    problems += ["it has secrets"] if manifest.secrets else []
    return problems


def _file_problems(file: ExportFile, environment: str, export_id: str) -> list[str]:
    problems: list[str] = []
    part_of = layout.snapshot_part if file.role == "snapshot" else layout.history_part
    expected_key = part_of(environment, export_id, file.table, file.part)
    if file.key != expected_key:
        problems.append(f"its key is {file.key}, not {expected_key}")
    names = [column.name for column in file.schema]
    if not names:
        problems.append("it has no columns")
    problems += [f"the column {name} stands there twice" for name, times in Counter(names).items() if times > 1]
    problems += [f"no sums for the column {name}" for name in names if name not in file.sums]
    problems += [f"sums for the unknown column {name}" for name in file.sums if name not in names]
    keys = tuple(dict.fromkeys((*(KEYS.get(file.table, ()) if file.role == "snapshot" else ()), *file.key_columns)))
    problems += ["it names no key column"] if not file.key_columns else []
    problems += [f"the key column {name} is not in its schema" for name in keys if name not in names]
    problems += [
        f"{name} has {sums.count} values in {file.rows} rows"
        for name, sums in file.sums.items()
        if sums.count > file.rows
    ]
    problems += [
        f"the key column {name} is empty in {file.rows - file.sums[name].count} rows"
        for name in keys
        if name in file.sums and file.sums[name].count != file.rows
    ]
    if file.table in NEVER_PARQUET:
        problems.append(f"the table {file.table} holds secrets and must not be Parquet")
    if SECRET_COLUMNS.get(file.table) in names:
        problems.append(f"the column {file.table}.{SECRET_COLUMNS[file.table]} holds secrets and must not be Parquet")
    return problems


def _table_problems(manifest: Manifest) -> list[str]:
    expected = EXPECTED_TABLES.get(manifest.airflow_version.partition(".")[0], frozenset())
    problems = [] if expected else [f"nobody knows which tables Airflow {manifest.airflow_version} has"]
    problems += [f"the table {name} is not in the list" for name in sorted(expected - manifest.tables.keys())]
    carried_rows = Counter[str]()
    snapshots: dict[str, tuple[Column, ...]] = {}
    for file in manifest.files:
        if file.role == "snapshot":
            carried_rows[file.table] += file.rows
            if snapshots.setdefault(file.table, file.schema) != file.schema:
                problems.append(f"the parts of {file.table} have different columns")
    for name, table in sorted(manifest.tables.items()):
        if table.carried == "snapshot" and name not in snapshots and (table.rows or name in ALWAYS_THERE):
            problems.append(f"the table {name} has no file")
        elif table.carried == "snapshot" and carried_rows[name] != table.rows:
            problems.append(f"the table {name} has {table.rows} rows, its files hold {carried_rows[name]}")
        if table.carried != "snapshot" and name in snapshots:
            problems.append(f"the table {name} is {table.carried} and has a file")
        if table.carried == "excluded" and not table.reason:
            problems.append(f"the table {name} is excluded without a reason")
        if table.carried == "excluded" and name in NEVER_LEFT_OUT:
            problems.append(f"the table {name} may not be excluded")
        if (table.carried == "secrets") != (name in SECRET_TABLES):
            problems.append(f"the table {name} may not be carried as {table.carried}")
    problems += [f"a file of the unknown table {name}" for name in sorted(snapshots.keys() - manifest.tables.keys())]
    return problems


def _secret_problems(manifest: Manifest, environment: str, export_id: str) -> list[str]:
    if manifest.secrets is None:
        return ["it has no secrets"]
    problems: list[str] = []
    expected_key = layout.secrets(environment, export_id)
    if manifest.secrets.key != expected_key:
        problems.append(f"secrets: its key is {manifest.secrets.key}, not {expected_key}")
    for kind, rows in manifest.secrets.rows.items():
        expected = manifest.tables[kind].rows if kind in manifest.tables else 0
        if rows != expected:
            problems.append(f"secrets: {rows} rows of {kind}, the table has {expected}")
    return problems


def _log_problems(manifest: Manifest) -> list[str]:
    """The last look asks for whatever came after max_log_id, so it must be the greatest id in the exported log."""
    logs = [file.sums.get("id") for file in manifest.files if file.role == "snapshot" and file.table == "log"]
    greatest = max((int(sums.max) for sums in logs if sums and sums.measure == "integer" and sums.max), default=0)
    if manifest.max_log_id == greatest:
        return []
    return [f"max_log_id is {manifest.max_log_id}, the greatest id in the exported log is {greatest}"]
