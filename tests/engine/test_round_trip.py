"""Whatever a database of Airflow holds in the evening, it holds in the morning, column by column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.engine import generated
from tests.engine.conftest import SCHEMAS, USUAL, Airflow, Bucket, Schema
from tests.engine.generated import Palette, palettes, portrait
from tests.engine.verifying import differences

# The same examples in every run; a failure prints how to get its example again.
every_night = settings(
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.generate],  # an example is two databases: too dear to make it small
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
# What the morning changes on purpose.
CHANGED = {
    "trigger": {"triggerer_id": None},  # the old triggerer is gone
    "dag": {"is_active": "false", "is_stale": "true", "pickle_id": None},  # not parsed yet
}
# All that may stay behind, in some version or other: what the parser, the triggerer or a login writes anew.
LEFT_BEHIND = {
    *("ab_register_user", "asset_active", "asset_trigger", "asset_watcher", "callback_request", "dag_bundle_team"),
    *("connection_test_request", "dag_code", "dag_pickle", "dag_priority_parsing_request", "dag_warning"),
    *("import_error", "revoked_token", "serialized_dag", "session"),
}
# Here the evening's rows replace those of the fresh environment.
REPLACED = ("variable", "connection", "slot_pool")
LIVING = Palette(
    texts=["alive"],
    jsons=[],
    floats=[],
    times=[],
    blobs=[],
    integers=[],
    shift=1,
    rows=6,
    first_id=1,
    empty=frozenset(),
)


def expected(table: str, rows: Counter[Any]) -> Counter[Any]:
    """The evening's rows as the morning should have them."""
    changes = CHANGED.get(table, {})
    answer: Counter[Any] = Counter()
    for row, times in rows.items():
        answer[tuple((name, changes.get(name, value)) for name, value in row)] += times
    return answer


def one_night(schema: Schema, cloud: str, folder: Path, palette: Palette) -> None:
    """Export, verify, restore into an environment that has rows of its own, compare everything."""
    bucket = Bucket(cloud)
    evening = Airflow(schema, bucket, "evening")
    morning = Airflow(schema, bucket, "morning")
    try:
        common = portrait(evening.connection, evening.fernet)  # roles and the like: the same thing in both
        evening.run("DELETE FROM log")
        generated.fill(evening.connection, evening.fernet, palette)
        generated.fill(morning.connection, morning.fernet, LIVING, tag="living: ")
        memory = portrait(evening.connection, evening.fernet)
        fresh = portrait(morning.connection, morning.fernet)

        evening.export("night-1")
        assert differences(bucket, folder, "night-1") == []
        assert portrait(evening.connection, evening.fernet) == memory
        bucket.order("morning-1", "night-1")
        assert morning.restore("morning-1")["clashes"] == 0

        now = portrait(morning.connection, morning.fernet)
        carried = {name: table["carried"] for name, table in bucket.manifest("night-1")["tables"].items()}
        left_behind = {table for table in memory if carried[table] == "excluded"}
        assert left_behind <= LEFT_BEHIND - ({"dag_code", "serialized_dag"} if schema.family == 3 else set())
        for table, rows in memory.items():
            wanted = Counter() if carried[table] == "excluded" else expected(table, rows - common[table])
            if table in REPLACED:
                default = Counter(row for row in fresh[table] if ("pool", "default_pool") in row)
                assert now[table] == wanted | default, table
                continue
            added = now[table] - fresh[table]
            if table == "log":
                (marker,) = (row for row in added if ("event", "transient_mwaa_restore") in row)
                added -= Counter([marker])
            assert not fresh[table] - now[table], f"{table}: living rows are gone"
            assert wanted - added == Counter(), f"{table}: lost or changed"
            assert added - wanted == Counter(), f"{table}: from nowhere"
    finally:
        evening.drop()
        morning.drop()


@settings(every_night, max_examples=10)
@given(palette=palettes())
def test_evening_equals_morning(
    schema: Callable[[str], Schema], cloud: str, tmp_path_factory: pytest.TempPathFactory, palette: Palette
) -> None:
    one_night(schema(USUAL), cloud, tmp_path_factory.getbasetemp(), palette)


@pytest.mark.parametrize("version", [version for version in SCHEMAS if version != USUAL])
@settings(every_night, max_examples=3)
@given(palette=palettes())
def test_evening_equals_morning_on_every_schema(
    schema: Callable[[str], Schema],
    cloud: str,
    tmp_path_factory: pytest.TempPathFactory,
    version: str,
    palette: Palette,
) -> None:
    one_night(schema(version), cloud, tmp_path_factory.getbasetemp(), palette)
