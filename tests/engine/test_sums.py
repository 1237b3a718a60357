"""The database vouches for itself: an exporter that loses or alters a value is caught, though its own hashes agree."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from tests.engine.conftest import USUAL, Airflow, Bucket, Schema, TaskFailed
from tests.engine.verifying import differences


class Alteration(NamedTuple):
    """What an exporter does wrong with one table: Python that makes the written table `t` another one, or if it is
    about one column, each of its values `v` (not null unless `nulls`) another value."""

    what: str
    table: str
    column: str
    code: str
    nulls: bool = False


EVERY_COLUMN = ""
ALTERATIONS = [
    Alteration("a row is lost", "log", EVERY_COLUMN, "t.slice(1)"),
    Alteration("a row comes twice", "job", EVERY_COLUMN, "pa.concat_tables([t, t.slice(0, 1)])"),
    Alteration("a row stands in place of another", "task_fail", "id", "t.take([1, *range(1, len(t))])"),
    Alteration("two columns are exchanged", "dag_tag", "name", "t.rename_columns(['dag_id', 'name']).select([1, 0])"),
    Alteration("a number is one too high", "task_reschedule", "try_number", "v + 1"),
    Alteration("a number loses its sign", "slot_pool", "slots", "abs(v)"),
    Alteration("zero becomes NULL", "dag_run", "clear_number", "v or None"),
    Alteration("a truth is turned", "dag", "is_paused", "not v"),
    Alteration("false becomes NULL", "dag", "is_active", "v or None"),
    Alteration("microseconds are cut off", "dag_run", "execution_date", "v.replace(microsecond=0)"),
    Alteration("a time is an hour late", "dag_run", "updated_at", "v + timedelta(hours=1)"),
    Alteration("a time that Arrow cannot hold is another", "dag_run", "start_date", "v - 1"),
    Alteration("an empty text becomes NULL", "dag_run_note", "content", "v or None"),
    Alteration("NULL becomes an empty text", "dag", "default_view", "v or ''", nulls=True),
    Alteration("a text is cut", "slot_pool", "description", "v[:20]"),
    Alteration("lines end otherwise", "dag", "description", "v.replace('\\r\\n', '\\n')"),
    Alteration("spaces are stripped", "dag", "owners", "v.strip()"),
    Alteration("an emoji becomes a question mark", "sla_miss", "description", "v.replace('🛌', '?')"),
    Alteration("a letter of the least text is another", "trigger", "classpath", "v.replace('.X', '.Y')"),
    Alteration("json null becomes SQL NULL", "rendered_task_instance_fields", "k8s_pod_yaml", "None"),
    Alteration("json is written anew", "task_map", "keys", "json.dumps(json.loads(v), separators=(',', ':'))"),
    Alteration("a float is rounded", "task_instance_history", "duration", "round(v, 3)"),
    Alteration("zero loses its sign", "task_instance", "duration", "v + 0.0"),
    Alteration("bytes end at the first zero", "xcom", "value", "v.partition(b'\\0')[0]"),
    Alteration("empty bytes become NULL", "dag_run", "conf", "v or None"),
]

EXPORTER = """
import json, pyarrow as pa, pyarrow.parquet as pq, airflow_metadata.export as export
from datetime import timedelta

ALTERATIONS = {alterations!r}

def altered(name, t):
    for what, table, column, code, nulls in ALTERATIONS:
        if table != name:
            continue
        if "t" in compile(code, "", "eval").co_names:
            t = eval(code, dict(globals(), t=t))
            continue
        values = [eval(code, dict(globals(), v=v)) if nulls or v is not None else v for v in t[column].to_pylist()]
        position = t.column_names.index(column)
        t = t.set_column(position, t.schema.field(position), pa.array(values, t.schema.field(position).type))
    return t

class Altering(pq.ParquetWriter):
    def __init__(self, where, *args, **kwargs):
        self.table_name = where.key.split("/")[-2]
        super().__init__(where, *args, **kwargs)

    def write_table(self, t, *args, **kwargs):
        return super().write_table(altered(self.table_name, t), *args, **kwargs)

pq.ParquetWriter = Altering
answer = export.export_metadata("altered", "db_export_dag", None)
"""


@pytest.fixture(scope="module")
def found(
    schema: Callable[[str], Schema], cloud: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, list[str]]]:
    """What the core finds in the export of an exporter with all these faults: table -> what it says of its file."""
    bucket = Bucket(cloud)
    airflow = Airflow(schema(USUAL), bucket, "altered")
    airflow.fill()
    airflow.run("UPDATE dag_run SET start_date = 'infinity' WHERE run_id = 'queued'")
    airflow.run("UPDATE dag SET owners = ' ada ' WHERE dag_id = 'producer'")
    airflow.python(EXPORTER.format(alterations=[tuple(each) for each in ALTERATIONS]))
    for file in bucket.manifest("altered")["files"]:
        assert hashlib.sha256(bucket.read(file["key"])).hexdigest() == file["sha256"], "its own hashes agree"
    reasons: dict[str, list[str]] = {}
    for reason in differences(bucket, tmp_path_factory.mktemp("core"), "altered"):
        key, _, said = reason.partition(": ")
        reasons.setdefault(key.split("/")[-2], []).append(said)
    yield reasons
    airflow.drop()


@pytest.mark.parametrize("alteration", ALTERATIONS, ids=lambda each: each.what)
def test_it_is_caught_when(found: dict[str, list[str]], alteration: Alteration) -> None:
    said = found[alteration.table]
    if alteration.column == EVERY_COLUMN:
        assert any("rows were promised" in each for each in said)
    assert any(each.startswith(f"{alteration.column or 'id'}: ") for each in said), said


def test_nothing_else_is_blamed(found: dict[str, list[str]]) -> None:
    assert found.keys() == {each.table for each in ALTERATIONS}
    of_columns = {each.table for each in ALTERATIONS if "t." not in each.code}
    for table in of_columns - {each.table for each in ALTERATIONS if "t." in each.code}:
        blamed = {each.partition(": ")[0] for each in found[table]}
        assert blamed == {each.column for each in ALTERATIONS if each.table == table}


def test_a_secret_that_is_lost_is_missed_at_once(make: Any) -> None:
    airflow = make("evening")
    airflow.fill()
    with pytest.raises(TaskFailed, match=r"CountsDiffer.*variable"):
        airflow.python(
            "import airflow_metadata.export as e, airflow_metadata.secrets as s\n"
            "read = s.read\n"
            "def loses(*args):\n"
            "    found = read(*args)\n"
            "    found['variable'].pop()\n"
            "    return found\n"
            "s.read = loses\n"
            "answer = e.export_metadata('altered', 'db_export_dag', None)"
        )
