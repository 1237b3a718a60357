"""Lies that an exporter could tell, by name. With each, everything else about the export stays as it was promised.

Each is one function: its docstring says what is wrong, its stage where on the way from the database to S3 it happens.
File lies are about one file, that of `log`: the snapshot of a complete export, the history of an extract.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from local.airflow_tables import Row, Tables

TABLE = "log"
"""The table whose file is lied about: every Airflow has some rows in it."""

_STAGES: dict[str, str] = {}
_LIES: dict[str, Callable[[Any], Any]] = {}


def _lie(stage: str) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    def declare(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        _STAGES[function.__name__], _LIES[function.__name__] = stage, function
        return function

    return declare


def told(lies: Collection[str], stage: str, truth: Any) -> Any:
    """What becomes of the truth at one stage: database, rows, written, encoded, sent, secrets, sealing, sealed,
    document or body. A lie that changes it in place returns None; so does one that drops bytes, where None means gone.
    """
    for name in sorted(lies):
        if _STAGES[name] == stage:
            changed = _LIES[name](truth)
            truth = changed if stage in _OF_VALUES else truth
    return truth


_OF_VALUES = frozenset({"written", "encoded", "sent", "sealed", "body"})


# --- What the exporter sees of the database: its papers agree with each other, and only Airflow itself knows better ---


def _hide_last(tables: Tables, name: str) -> None:
    if not tables[name].rows:
        raise LookupError(f"There is no row in {name} to lie about.")
    tables[name].rows.pop()


@_lie("database")
def hidden_run(tables: Tables) -> None:
    """The exporter does not see the newest DAG run, and so neither exports nor counts it."""
    _hide_last(tables, "dag_run")


@_lie("database")
def hidden_task_instance(tables: Tables) -> None:
    """The exporter does not see the newest task instance."""
    _hide_last(tables, "task_instance")


@_lie("database")
def hidden_variable(tables: Tables) -> None:
    """The exporter does not see one variable."""
    _hide_last(tables, "variable")


@_lie("database")
def hidden_connection(tables: Tables) -> None:
    """The exporter does not see one connection."""
    _hide_last(tables, "connection")


@_lie("database")
def hidden_pool(tables: Tables) -> None:
    """The exporter does not see one pool."""
    _hide_last(tables, "slot_pool")


@_lie("database")
def invented_run(tables: Tables) -> None:
    """The exporter counts and exports a DAG run that Airflow does not have."""
    run = tables["dag_run"].rows[-1]
    tables["dag_run"].add(**{**run, "id": None, "run_id": f"{run['run_id']}-invented"})


# --- One file ---------------------------------------------------------------------------------------------------------


def _changed(table: pa.Table, column: str, change: Callable[[list[Any]], None]) -> pa.Table:
    position = table.column_names.index(column)
    field, values = table.schema.field(position), table[column].to_pylist()
    change(values)
    return table.set_column(position, field, pa.array(values, field.type))


def _first(values: list[Any], wanted: Callable[[Any], bool]) -> int:
    for place, value in enumerate(values):
        if wanted(value):
            return place
    raise LookupError("There is no value to lie about: the audit log should know of more than one kind of event.")


@_lie("written")
def lost_row(table: pa.Table) -> pa.Table:
    """The file lacks its last row."""
    return table.slice(0, table.num_rows - 1)


@_lie("written")
def repeated_row(table: pa.Table) -> pa.Table:
    """The file holds its first row twice."""
    return pa.concat_tables([table, table.slice(0, 1)])


@_lie("written")
def emptied_value(table: pa.Table) -> pa.Table:
    """A value has become null and another one longer by as much: the sum is as promised, the count is not."""

    def change(values: list[Any]) -> None:
        first = _first(values, lambda value: min(values) < value < max(values))
        second = _first(values, lambda value: values[first] < value < max(values))
        values[first], values[second] = None, values[second] + values[first]

    return _changed(table, "event", change)


@_lie("written")
def changed_sum(table: pa.Table) -> pa.Table:
    """A value in the middle has become another one; count, minimum and maximum are as promised."""

    def change(values: list[Any]) -> None:
        place = _first(values, lambda value: min(values) < value < max(values))
        values[place] += "_"

    return _changed(table, "event", change)


@_lie("written")
def changed_minimum(table: pa.Table) -> pa.Table:
    """The least value has become a lesser one of the same length; count, maximum and sum are as promised."""

    def change(values: list[Any]) -> None:
        place = values.index(min(values))
        values[place] = "!" + values[place][1:]

    return _changed(table, "event", change)


@_lie("written")
def changed_maximum(table: pa.Table) -> pa.Table:
    """The greatest value has become a greater one of the same length; count, minimum and sum are as promised."""

    def change(values: list[Any]) -> None:
        place = values.index(max(values))
        values[place] = "~" + values[place][1:]

    return _changed(table, "event", change)


@_lie("written")
def widened_times(table: pa.Table) -> pa.Table:
    """One time is a second earlier and another a second later: the sum is as promised, an extreme is not."""

    def change(values: list[Any]) -> None:
        earliest, latest = values.index(min(values)), len(values) - 1 - values[::-1].index(max(values))
        values[earliest] -= timedelta(seconds=1)
        values[latest] += timedelta(seconds=1)

    return _changed(table, "dttm", change)


@_lie("written")
def hidden_null_key(table: pa.Table) -> pa.Table:
    """A key column is empty in one row, which the promise does not say."""

    def change(values: list[Any]) -> None:
        values[0] = None

    return _changed(table, "id", change)


@_lie("rows")
def null_key(rows: list[Row]) -> None:
    """A key column is empty in one row, and the promise says so."""
    rows[0]["id"] = None


@_lie("written")
def wrong_schema(table: pa.Table) -> pa.Table:
    """The columns come in another order than promised."""
    return table.select(table.column_names[::-1])


@_lie("written")
def wrong_type(table: pa.Table) -> pa.Table:
    """A column holds the same numbers as another type."""
    position = table.column_names.index("id")
    return table.set_column(position, pa.field("id", pa.int32()), table["id"].cast(pa.int32()))


@_lie("written")
def lost_column(table: pa.Table) -> pa.Table:
    """A column is not in the file."""
    return table.drop_columns(["owner"])


@_lie("encoded")
def no_parquet(data: bytes) -> bytes:
    """The file is what was promised byte for byte, and no Parquet."""
    return data[::-1]


@_lie("sent")
def corrupted_byte(data: bytes) -> bytes:
    """One byte flips on its way to S3."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@_lie("sent")
def truncated_file(data: bytes) -> bytes:
    """S3 holds only the beginning of the file."""
    return data[:-1]


@_lie("sent")
def padded_file(data: bytes) -> bytes:
    """S3 holds more than was promised."""
    return data + b"\0"


@_lie("sent")
def dropped_file(data: bytes) -> None:
    """The promised version of the file is not in S3."""


# --- The manifest's list ----------------------------------------------------------------------------------------------


def _file(document: dict[str, Any]) -> dict[str, Any]:
    """The entry that is lied about."""
    role = "snapshot" if document["mode"] == "complete" else "history"
    found: dict[str, Any] = next(
        entry for entry in document["files"] if (entry["table"], entry["role"]) == (TABLE, role)
    )
    return found


def _without_files(document: dict[str, Any], table: str, *roles: str) -> None:
    document["files"] = [
        entry for entry in document["files"] if entry["table"] != table or (roles and entry["role"] not in roles)
    ]


@_lie("document")
def missing_table(document: dict[str, Any]) -> None:
    """A table that every Airflow has is neither in the list nor exported."""
    document["tables"].pop("xcom", None)
    _without_files(document, "xcom")


@_lie("document")
def unseen_table(document: dict[str, Any]) -> None:
    """The exporter's role may not see a table of this version of Airflow, and so does not list it."""
    document["tables"].pop("job", None)


@_lie("document")
def missing_file(document: dict[str, Any]) -> None:
    """A table is in the list, and no file is promised for it."""
    _without_files(document, TABLE, "snapshot")


@_lie("document")
def excluded_table(document: dict[str, Any]) -> None:
    """A part of Airflow's memory is called excluded."""
    document["tables"]["dag_run"].update(carried="excluded", reason="nobody needs it")
    _without_files(document, "dag_run", "snapshot")


@_lie("document")
def unexplained_exclusion(document: dict[str, Any]) -> None:
    """A table is left out without a reason."""
    document["tables"]["import_error"].update(carried="excluded", reason=None)


@_lie("document")
def miscounted_table(document: dict[str, Any]) -> None:
    """The database counted more rows than the promised files hold."""
    document["tables"][TABLE]["rows"] += 1


@_lie("document")
def unlisted_table(document: dict[str, Any]) -> None:
    """There is a file of a table that is not in the list."""
    document["files"].append(_copied(document, "worker"))


@_lie("document")
def secrets_in_parquet(document: dict[str, Any]) -> None:
    """Variables are promised as Parquet. (None are written: that would be more than a lie.)"""
    document["files"].append(_copied(document, "variable"))


def _copied(document: dict[str, Any], table: str) -> dict[str, Any]:
    entry = _file(document)
    return {**entry, "table": table, "key": entry["key"].replace(f"/{TABLE}", f"/{table}")}


@_lie("document")
def file_twice(document: dict[str, Any]) -> None:
    """The same object is promised twice."""
    document["files"].append(dict(_file(document)))


@_lie("document")
def file_elsewhere(document: dict[str, Any]) -> None:
    """The promised object lies outside this export's folder."""
    entry = _file(document)
    entry["key"] = entry["key"].replace(document["export_id"], "another-export")


@_lie("document")
def unversioned_file(document: dict[str, Any]) -> None:
    """The object was written without a version, so that it could be replaced."""
    _file(document)["version_id"] = "null"


@_lie("document")
def unpromised_sums(document: dict[str, Any]) -> None:
    """Nothing is promised of one column."""
    _file(document)["sums"].pop("owner")


@_lie("document")
def wrong_measure(document: dict[str, Any]) -> None:
    """What is promised of a column was measured in another way, with the same result."""
    _file(document)["sums"]["dttm"]["measure"] = "integer"


@_lie("document")
def wrong_digest(document: dict[str, Any]) -> None:
    """The promised SHA-256 is that of other bytes."""
    _file(document)["sha256"] = "0" * 64


@_lie("document")
def lost_history(document: dict[str, Any]) -> None:
    """The database counted more changed rows than the history files hold."""
    document["history"]["rows"]["dag_run"] += 1


@_lie("document")
def different_parts(document: dict[str, Any]) -> None:
    """A table has a second part, of other columns."""
    entry = _file(document)
    second = {**entry, "part": 1, "key": entry["key"].replace("-0.parquet", "-1.parquet"), "rows": 0}
    second["schema"], second["key_columns"] = [["id", "int64"]], ["id"]
    second["sums"] = {"id": {"measure": "integer", "count": 0, "min": None, "max": None, "sum": None}}
    document["files"].append(second)


@_lie("document")
def column_twice(document: dict[str, Any]) -> None:
    """A column is promised twice."""
    entry = _file(document)
    entry["schema"].append(list(entry["schema"][-1]))


@_lie("document")
def unknown_key(document: dict[str, Any]) -> None:
    """The key is a column that is not promised."""
    _file(document)["key_columns"].append("uuid")


@_lie("document")
def no_key(document: dict[str, Any]) -> None:
    """No column is said to identify a row."""
    _file(document)["key_columns"] = []


@_lie("document")
def too_many_values(document: dict[str, Any]) -> None:
    """A column has more values than there are rows."""
    entry = _file(document)
    entry["sums"]["event"]["count"] = entry["rows"] + 1


@_lie("document")
def secret_column(document: dict[str, Any]) -> None:
    """A column of secrets is promised in clear. (It is not written: that would be more than a lie.)"""
    trigger = next(entry for entry in document["files"] if entry["table"] == "trigger")
    trigger["schema"].append(["kwargs", "string"])
    trigger["sums"]["kwargs"] = {"measure": "text", "count": 0, "min": None, "max": None, "sum": None}


@_lie("document")
def wrong_carrier(document: dict[str, Any]) -> None:
    """Variables are said to be left out, and not to travel with the secrets."""
    document["tables"]["variable"].update(carried="excluded", reason="nobody needs them")


# --- Secrets ----------------------------------------------------------------------------------------------------------


@_lie("secrets")
def lost_secret(clear: dict[str, list[Row]]) -> None:
    """secrets.enc lacks one variable."""
    clear["variable"].pop()


@_lie("secrets")
def repeated_secret(clear: dict[str, list[Row]]) -> None:
    """secrets.enc holds one variable twice, in place of another if there is one."""
    variables = clear["variable"]
    if len(variables) > 1:
        variables.pop()
    variables.append(variables[0])


@_lie("secrets")
def hollow_secret(clear: dict[str, list[Row]]) -> None:
    """secrets.enc holds a connection's name without its password."""
    clear["connection"][-1].pop("password")


@_lie("secrets")
def lost_kind(clear: dict[str, list[Row]]) -> None:
    """secrets.enc holds no list of triggers at all."""
    clear.pop("trigger")


@_lie("sealing")
def foreign_secrets(context: dict[str, str]) -> None:
    """secrets.enc was sealed for another export."""
    context["export_id"] = "another-export"


@_lie("sealed")
def corrupted_secrets(sealed: bytes) -> bytes:
    """One byte of secrets.enc flips on its way to S3."""
    return corrupted_byte(sealed)  # type: ignore[no-any-return]


@_lie("sealed")
def truncated_secrets(sealed: bytes) -> bytes:
    """S3 holds only the beginning of secrets.enc."""
    return sealed[:-1]


@_lie("sealed")
def dropped_secrets(sealed: bytes) -> None:
    """The promised version of secrets.enc is not in S3."""


@_lie("document")
def no_secrets(document: dict[str, Any]) -> None:
    """No secrets are promised."""
    document["secrets"] = None


@_lie("document")
def miscounted_secrets(document: dict[str, Any]) -> None:
    """Fewer variables are promised than the table has rows."""
    document["secrets"]["rows"]["variable"] -= 1


@_lie("document")
def other_secrets(document: dict[str, Any]) -> None:
    """The promised hash is that of other secrets."""
    document["secrets"]["sha256"] = "0" * 64


@_lie("document")
def secrets_elsewhere(document: dict[str, Any]) -> None:
    """The promised secrets lie outside this export's folder."""
    document["secrets"]["key"] = document["secrets"]["key"].replace(document["export_id"], "another-export")


# --- Whose export it is, and of when ----------------------------------------------------------------------------------


@_lie("document")
def wrong_environment(document: dict[str, Any]) -> None:
    """It is about another environment."""
    document["environment"] = "another"


@_lie("document")
def wrong_export(document: dict[str, Any]) -> None:
    """It is about another export."""
    document["export_id"] = document["run_id"] = "another-export"


@_lie("document")
def wrong_run(document: dict[str, Any]) -> None:
    """Another run than the asked one wrote it."""
    document["run_id"] = "another-run"


@_lie("document")
def wrong_incarnation(document: dict[str, Any]) -> None:
    """A predecessor of the same name wrote it."""
    document["incarnation"] = "2020-01-01T00:00:00+00:00"


@_lie("document")
def no_incarnation(document: dict[str, Any]) -> None:
    """It does not say which incarnation wrote it."""
    document["incarnation"] = None


def _moved(document: dict[str, Any], by: timedelta) -> None:
    moved = (datetime.fromisoformat(document["snapshot_at"]) + by).isoformat()
    document["snapshot_at"] = document["history"]["watermark"] = moved


@_lie("document")
def stale_export(document: dict[str, Any]) -> None:
    """Its snapshot is three hours old."""
    _moved(document, timedelta(hours=-3))
    document["history"]["since"] = None


@_lie("document")
def future_export(document: dict[str, Any]) -> None:
    """Its snapshot lies an hour ahead."""
    _moved(document, timedelta(hours=1))


@_lie("document")
def watermark_gap(document: dict[str, Any]) -> None:
    """Its history begins after what was verified last (or begins somewhere, when nothing was yet)."""
    document["history"]["since"] = document["history"]["watermark"]


@_lie("document")
def watermark_after_snapshot(document: dict[str, Any]) -> None:
    """Its history claims to reach further than its snapshot."""
    watermark = datetime.fromisoformat(document["history"]["watermark"])
    document["history"]["watermark"] = (watermark + timedelta(minutes=1)).isoformat()


@_lie("document")
def history_after_watermark(document: dict[str, Any]) -> None:
    """Its history begins after its own end."""
    watermark = datetime.fromisoformat(document["history"]["watermark"])
    document["history"]["since"] = (watermark + timedelta(minutes=1)).isoformat()


@_lie("document")
def history_mode(document: dict[str, Any]) -> None:
    """It is an extract of history where a complete export was asked for, or the other way round."""
    document["mode"] = "history" if document["mode"] == "complete" else "complete"


# --- The manifest itself ----------------------------------------------------------------------------------------------


@_lie("document")
def unknown_member(document: dict[str, Any]) -> None:
    """It says something that nobody understands."""
    document["remark"] = "all is well"


@_lie("document")
def lost_member(document: dict[str, Any]) -> None:
    """It does not say up to which entry of the audit log it goes."""
    del document["max_log_id"]


@_lie("document")
def high_log_id(document: dict[str, Any]) -> None:
    """It claims to hold entries of the audit log that were not written yet: what people do now would not be seen."""
    document["max_log_id"] += 1_000_000


@_lie("document")
def newer_manifest(document: dict[str, Any]) -> None:
    """It is of a version that is not understood yet."""
    document["manifest_version"] += 1


@_lie("document")
def unknown_airflow(document: dict[str, Any]) -> None:
    """It is of an Airflow of which nobody knows the tables."""
    document["airflow_version"] = "9.0.0"


@_lie("document")
def other_reader(document: dict[str, Any]) -> None:
    """It was not read from the database."""
    document["reader"] = "rest"


@_lie("body")
def said_twice(body: bytes) -> bytes:
    """It names one member twice."""
    return b'{"files": [], ' + body.lstrip()[1:]


@_lie("body")
def no_json(body: bytes) -> bytes:
    """It was cut off in the middle."""
    return body[: len(body) // 2]


@_lie("body")
def no_manifest(body: bytes) -> None:
    """There is none."""


LIES: tuple[str, ...] = tuple(_LIES)
"""All of them, by name: the gate must see each."""


def meaning(name: str) -> str:
    """What the lie is, in a sentence. Raises KeyError for an unknown one."""
    return str(_LIES[name].__doc__)
