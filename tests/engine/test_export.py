"""One export: what is promised, what lies in S3, and that both come from one moment of the database."""

from __future__ import annotations

import hashlib
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aws_encryption_sdk
import psycopg
import pyarrow as pa
import pytest
from cryptography.fernet import Fernet

from tests.engine.conftest import ENVIRONMENT, INCARNATION, TaskFailed
from tests.engine.evening import AWKWARD, EXPORTER, SECRETS, dag
from transient_mwaa.aws import export_files
from transient_mwaa.domain import manifest as manifests
from transient_mwaa.domain import verdict

EXPORT = EXPORTER[1]


def differences(bucket: Any, folder: Path, export_id: str) -> list[str]:
    """What the core finds: it knows nothing of the writer, and measures the Parquet by pyarrow alone."""
    body = bucket.read(f"snapshots/environment={ENVIRONMENT}/{export_id}/manifest.json")
    promised = manifests.parse(body, ENVIRONMENT, export_id)
    reasons = []
    for file in promised.files:
        answer = bucket.s3.get_object(Bucket=bucket.name, Key=file.key, VersionId=file.version_id)
        data = answer["Body"].read()
        path = folder / "file.parquet"
        path.write_bytes(data)
        found = export_files.measure(path, len(data), hashlib.sha256(data).hexdigest(), file)
        reasons += [f"{file.key}: {reason}" for reason in verdict.file_reasons(file, found)]
    return reasons


def test_every_promise_holds_when_recomputed_from_the_parquet(
    evening_airflow: Any, bucket: Any, tmp_path: Path
) -> None:
    counts = evening_airflow.counts()
    assert all(counts.values()), "a table without a row proves nothing"
    answer = evening_airflow.export(EXPORT)
    assert differences(bucket, tmp_path, EXPORT) == []
    document = bucket.manifest(EXPORT)
    assert {name: table["rows"] for name, table in document["tables"].items()} == counts
    assert answer["files"] == len(document["files"])
    assert document["max_log_id"] == evening_airflow.value("SELECT max(id) FROM log")
    measures = {kind["measure"] for file in document["files"] for kind in file["sums"].values()}
    assert measures == {"integer", "boolean", "float", "timestamp", "text", "bytes"}


def test_an_empty_environment_is_exported_too(make: Any, bucket: Any, tmp_path: Path) -> None:
    made = make("empty")
    made.export(EXPORT, incarnation=None)
    assert differences(bucket, tmp_path, EXPORT) == []
    assert bucket.manifest(EXPORT)["incarnation"] is None


def test_what_is_not_carried_is_named_with_a_reason(evening_airflow: Any, bucket: Any) -> None:
    evening_airflow.run("CREATE TABLE celery_taskmeta (id int)")
    evening_airflow.run("CREATE TABLE of_the_owner (id int, odd point)")
    evening_airflow.run("INSERT INTO of_the_owner VALUES (1, NULL)")
    evening_airflow.export(EXPORT)
    tables = bucket.manifest(EXPORT)["tables"]
    assert all(bool(table["reason"]) == (table["carried"] == "excluded") for table in tables.values())
    assert "Celery" in tables["celery_taskmeta"]["reason"]
    assert tables["of_the_owner"] == {"rows": 1, "carried": "excluded", "reason": "not a table of Airflow's"}
    reasons = evening_airflow.python("import airflow_metadata.tables as t; answer = t.excluded_reasons()")
    assert reasons["session"] == "web sessions: made anew at login"
    assert {t for t, e in tables.items() if e["carried"] == "excluded"} - reasons.keys() == {
        "celery_taskmeta",
        "of_the_owner",
    }


def test_a_table_or_reference_that_no_rule_knows_is_refused(evening_airflow: Any, bucket: Any) -> None:
    with pytest.raises(TaskFailed, match=r"UnknownTable.*asset"):
        evening_airflow.python("import airflow_metadata.tables as t; answer = t.rule_for('asset', {'asset'})")
    assert "task_instance" in evening_airflow.python(
        "import airflow_metadata.airflow_compat as c; answer = sorted(c.airflow_tables())"
    )
    assert "ab_user" in evening_airflow.python(
        "import airflow_metadata.airflow_compat as c; answer = sorted(c.airflow_tables())"
    )
    evening_airflow.run("ALTER TABLE dag_run ADD COLUMN backfill_id integer")
    with pytest.raises(TaskFailed, match=r"UnknownColumn.*dag_run.backfill_id"):
        evening_airflow.export(EXPORT)
    evening_airflow.run("ALTER TABLE dag_run DROP COLUMN backfill_id, ADD COLUMN price numeric")
    with pytest.raises(TaskFailed, match=r"UnknownColumn.*dag_run.price"):
        evening_airflow.export(EXPORT)
    assert not [key for key in bucket.list_keys() if key.endswith("manifest.json")]


def test_a_row_that_no_morning_could_place_is_refused_in_the_evening(evening_airflow: Any, bucket: Any) -> None:
    evening_airflow.run("UPDATE dataset_event SET dataset_id = 4711 WHERE id = 31")
    with pytest.raises(TaskFailed, match=r"ReferenceMissing.*1 rows of dataset_event.*dataset_id 4711.*stays up"):
        evening_airflow.export(EXPORT)
    assert bucket.list_keys() == []
    evening_airflow.run("DELETE FROM dagrun_dataset_event WHERE event_id = 31")
    evening_airflow.run("DELETE FROM dataset_event WHERE id = 31")
    assert evening_airflow.export(EXPORT)["rows"] > 0


def test_the_connection_is_kept_alive_as_airflow_has_it_or_by_default(evening_airflow: Any) -> None:
    dsn = "from airflow_metadata.airflow_compat import metadata_dsn; answer = metadata_dsn()"
    by_default = "keepalives='1' keepalives_idle='60' keepalives_interval='10' keepalives_count='6'"
    assert by_default in evening_airflow.python(dsn)
    evening_airflow.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] += "&keepalives_idle=20"
    assert by_default.replace("60", "20") in evening_airflow.python(dsn)


def test_no_secret_is_in_clear_anywhere(evening_airflow: Any, bucket: Any, worker: Any) -> None:
    answer = evening_airflow.export(EXPORT)
    seen = [json.dumps(answer).encode(), worker.log.read_bytes()]
    for key in bucket.list_keys():
        seen += [key.encode(), bucket.read(key)]
    for entry in bucket.manifest(EXPORT)["files"]:
        for column in bucket.parquet(entry).columns:
            if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
                seen += [v.encode() if isinstance(v, str) else v for v in column.to_pylist() if v is not None]
    clear = [*SECRETS.values(), "extra-secret-token", evening_airflow.fernet_key]
    assert not [secret for secret in clear if any(secret.encode() in data for data in seen)]


def test_values_that_airflow_notes_in_its_event_log_are_masked(
    evening_airflow: Any, bucket: Any, tmp_path: Path
) -> None:
    value, other = "noted-in-clear", '{"host_name": "worker", "full_command": "[\'airflow\', \'scheduler\']"}'
    notes = {
        "api.variable.create": json.dumps(
            {"key": "release_notes", "value": f'"key": "no", {value}', "description": None}
        ),
        "ui.connection.edit": json.dumps({"conn_id": "db", "login": value, "extra": {"sslmode": value}}),
        "cli_variables_set": json.dumps({"full_command": f"['airflow', 'variables', 'set', 'k', '{value}']"}),
        "cli_connections_add": None,
        "cli_scheduler": other,
    }
    for event, extra in notes.items():
        evening_airflow.run("INSERT INTO log (dttm, event, extra) VALUES (now(), %s, %s)", event, extra)
    evening_airflow.export(EXPORT)
    files = [file for file in bucket.manifest(EXPORT)["files"] if file["table"] == "log"]
    assert {file["role"] for file in files} == {"snapshot", "history"}
    for file in files:
        rows = {row["event"]: row["extra"] for row in bucket.parquet(file).to_pylist() if row["event"] in notes}
        assert value not in str(rows)
        assert json.loads(rows["api.variable.create"])["name"] == "release_notes"
        assert json.loads(rows["ui.connection.edit"])["name"] == "db"
        assert json.loads(rows["cli_variables_set"])["name"] is None
        assert (rows["cli_connections_add"], rows["cli_scheduler"]) == (None, other)
    assert differences(bucket, tmp_path, EXPORT) == []


def test_the_secrets_open_with_the_key_and_hold_everything(evening_airflow: Any, bucket: Any, monkeypatch: Any) -> None:
    evening_airflow.export(EXPORT)
    for name, value in {"AWS_ENDPOINT_URL": bucket.url, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}.items():
        monkeypatch.setenv(name, value)
    document = bucket.manifest(EXPORT)
    plain, header = aws_encryption_sdk.EncryptionSDKClient().decrypt(
        source=bucket.read(document["secrets"]["key"]),
        key_provider=aws_encryption_sdk.StrictAwsKmsMasterKeyProvider(key_ids=[bucket.key_arn]),
    )
    expected = {"environment": ENVIRONMENT, "export_id": EXPORT, "content": "secrets"}
    assert expected.items() <= header.encryption_context.items()
    opened = json.loads(plain)
    variables = {row["key"]: row["val"] for row in opened["variable"]}
    assert variables == {"plain": "in clear", "secret": SECRETS["variable"], "empty": "", "none": None}
    connections = {row["conn_id"]: (row["password"], row["extra"]) for row in opened["connection"]}
    assert connections["db"] == (SECRETS["password"], SECRETS["extra"])
    assert connections["open"] == (None, "")
    assert [SECRETS["trigger"] in row["kwargs"] for row in opened["trigger"]] == [True, True]
    assert {row["username"]: row["password"] for row in opened["ab_user"]} == {"ada": SECRETS["hash"], "bob": None}
    assert document["secrets"]["rows"] == {"variable": 4, "connection": 3, "trigger": 2, "ab_user": 2}


def test_an_old_fernet_key_still_decrypts_and_a_lost_one_is_named(evening_airflow: Any, bucket: Any) -> None:
    evening_airflow.environ["AIRFLOW__CORE__FERNET_KEY"] = (
        f"{Fernet.generate_key().decode()},{evening_airflow.fernet_key}"
    )
    evening_airflow.export("with-both-keys")
    evening_airflow.environ["AIRFLOW__CORE__FERNET_KEY"] = Fernet.generate_key().decode()
    with pytest.raises(TaskFailed, match=r"SecretUnreadable.*variable 'secret'") as failed:
        evening_airflow.export("with-a-lost-key")
    assert SECRETS["variable"] not in str(failed.value)
    assert f"snapshots/environment={ENVIRONMENT}/with-a-lost-key/manifest.json" not in bucket.list_keys()


def test_a_run_id_that_s3_cannot_carry_is_refused(evening_airflow: Any, bucket: Any) -> None:
    for run_id in ("manual__2026-11-22T23:05:01+00:00", "../elsewhere", "a/b", ".hidden", "", "line\nbreak"):
        with pytest.raises(TaskFailed, match=r"RunIdUnsafe.*airflow dags trigger"):
            evening_airflow.export(run_id)
    assert bucket.list_keys() == []


def test_an_export_is_never_written_over(evening_airflow: Any, bucket: Any) -> None:
    evening_airflow.export(EXPORT)
    before = bucket.read(f"snapshots/environment={ENVIRONMENT}/{EXPORT}/manifest.json")
    with pytest.raises(TaskFailed, match=r"ExportExists"):
        evening_airflow.export(EXPORT)
    source = "import airflow_metadata.storage as s; answer = s.Store({!r}).put_once({!r}, b'other')"
    with pytest.raises(TaskFailed, match=r"ExportExists"):
        evening_airflow.python(
            source.format(bucket.name, f"snapshots/environment={ENVIRONMENT}/{EXPORT}/manifest.json")
        )
    assert bucket.read(f"snapshots/environment={ENVIRONMENT}/{EXPORT}/manifest.json") == before


def test_a_missing_setting_is_named(evening_airflow: Any) -> None:
    evening_airflow.environ["AIRFLOW__TRANSIENT_MWAA__KMS_KEY_ARN"] = ""
    with pytest.raises(TaskFailed, match=r"SettingMissing.*transient_mwaa.kms_key_arn"):
        evening_airflow.export(EXPORT)


def test_a_bucket_without_versions_is_refused(evening_airflow: Any, bucket: Any) -> None:
    evening_airflow.environ["AIRFLOW__TRANSIENT_MWAA__BUCKET"] = "forgetful"
    bucket.s3.create_bucket(Bucket="forgetful")
    with pytest.raises(TaskFailed, match=r"versioning"):
        evening_airflow.export(EXPORT)


def test_large_tables_come_in_parts_and_large_files_in_several_requests(
    evening_airflow: Any, bucket: Any, tmp_path: Path
) -> None:
    evening_airflow.run(
        "INSERT INTO log (dttm, event, extra) "
        "SELECT now(), 'x', repeat(md5(i::text), 10) FROM generate_series(1, 3000) i"
    )
    evening_airflow.run(
        "INSERT INTO xcom (dag_run_id, dag_id, run_id, task_id, map_index, key, value, timestamp) "
        "SELECT 700, 'etl.daily', 'scheduled__1', 'done', -1, 'big' || i, "
        "(SELECT string_agg(decode(md5((i * j)::text), 'hex'), '') FROM generate_series(1, 40000) j), now() "
        "FROM generate_series(1, 18) i"
    )
    answer = evening_airflow.python(
        "import airflow_metadata.export as e, airflow_metadata.storage as s\n"
        "e.PART_BYTES = 300_000; s._PART_BYTES = 5 * 1024 * 1024\n"
        f"answer = e.export_metadata({EXPORT!r}, 'db_export_dag', {INCARNATION!r})"
    )
    parts = [f for f in bucket.manifest(EXPORT)["files"] if f["table"] == "log" and f["role"] == "snapshot"]
    assert len(parts) > 3
    assert sum(part["rows"] for part in parts) == evening_airflow.value("SELECT count(*) FROM log")
    assert answer["bytes"] > 10 * 1024 * 1024
    assert differences(bucket, tmp_path, EXPORT) == []
    ids = [i for part in parts for i in bucket.parquet(part)["id"].to_pylist()]
    assert sorted(ids) == [row[0] for row in evening_airflow.rows("SELECT id FROM log ORDER BY 1")]


def test_the_export_is_one_moment_although_writers_go_on(evening_airflow: Any, bucket: Any, tmp_path: Path) -> None:
    dag(evening_airflow.connection, "busy", paused=False, active=True)
    evening_airflow.run(
        "INSERT INTO log (dttm, event, extra) SELECT now(), 'x', repeat('y', 200) FROM generate_series(1, 60000) i"
    )
    stop = threading.Event()
    written = []

    def write() -> None:
        with psycopg.connect(evening_airflow.uri) as connection:
            number = 0
            while not stop.is_set():
                number += 1  # a run, its task and its log entry: all or none
                connection.execute(
                    "INSERT INTO dag_run (dag_id, run_id, execution_date, run_type, clear_number, updated_at) "
                    "VALUES ('busy', %s, now(), 'manual', 0, now())",
                    (f"run-{number}",),
                )
                connection.execute(
                    "INSERT INTO task_instance (dag_id, run_id, task_id, map_index, pool, pool_slots, updated_at) "
                    "VALUES ('busy', %s, 't', -1, 'p', 1, now())",
                    (f"run-{number}",),
                )
                connection.execute("INSERT INTO log (dttm, event, dag_id) VALUES (now(), 'busy', 'busy')")
                connection.execute("DELETE FROM xcom WHERE key = 'empty'")
                connection.commit()
                written.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        evening_airflow.export(EXPORT)
    finally:
        stop.set()
        writer.join()

    def rows(table: str, column: str, value: str) -> int:
        files = [f for f in bucket.manifest(EXPORT)["files"] if f["table"] == table and f["role"] == "snapshot"]
        return sum(bucket.parquet(f)[column].to_pylist().count(value) for f in files)

    seen = {rows("dag_run", "dag_id", "busy"), rows("task_instance", "dag_id", "busy"), rows("log", "event", "busy")}
    assert len(seen) == 1
    assert 0 < seen.pop() < len(written), "the writer wrote before and after the snapshot"
    assert differences(bucket, tmp_path, EXPORT) == []


def history(bucket: Any, export_id: str, table: str) -> list[dict[str, Any]]:
    files = [f for f in bucket.manifest(export_id)["files"] if f["table"] == table and f["role"] == "history"]
    return [row for file in files for row in bucket.parquet(file).to_pylist()]


def test_history_has_canonical_columns_and_every_try(evening_airflow: Any, bucket: Any) -> None:
    evening_airflow.export(EXPORT)
    runs = {(row["dag_id"], row["run_id"]): row for row in history(bucket, EXPORT, "dag_run")}
    assert len(runs) == 7
    run = runs["etl.daily", AWKWARD]
    assert (run["environment"], run["incarnation"], run["export_id"]) == (ENVIRONMENT, INCARNATION, EXPORT)
    assert run["logical_date"] == datetime(2026, 11, 22, 2, 59, 59, 999_997, UTC)
    tries = {
        (row["task_id"], row["map_index"], row["try_number"]): row["state"]
        for row in history(bucket, EXPORT, "task_instance")
    }
    assert tries["mapped", 0, 1] == "failed"
    assert tries["mapped", 0, 2] == "success"
    assert tries["retries", -1, 1] == "failed", "the recorded try stands for the one that waits"
    assert len(tries) == len(history(bucket, EXPORT, "task_instance")) == 14 + 3 - 1
    assert {row["dag_id"]: row["tags"] for row in history(bucket, EXPORT, "dag")}["etl.daily"] == "nightly"
    tables = {"dag_run", "task_instance", "task_fail", "log", "dag", "job", "sla_miss", "import_error", "dataset_event"}
    assert {f["table"] for f in bucket.manifest(EXPORT)["files"] if f["role"] == "history"} == tables


def test_history_goes_on_where_the_last_verified_export_ended(evening_airflow: Any, bucket: Any) -> None:
    evening_airflow.export("first")
    bucket.verify("first")
    changed = "UPDATE dag_run SET state = 'success', updated_at = now() WHERE run_id = 'queued'"
    evening_airflow.run(changed)
    evening_airflow.export("second")
    assert bucket.manifest("second")["history"]["since"] == bucket.manifest("first")["history"]["watermark"]
    assert [(row["run_id"], row["state"]) for row in history(bucket, "second", "dag_run")] == [("queued", "success")]
    assert history(bucket, "second", "job") == []


def test_a_row_stamped_before_and_committed_after_the_snapshot_is_in_the_next_history(
    evening_airflow: Any, bucket: Any
) -> None:
    evening_airflow.run("UPDATE dag_run SET updated_at = '2020-01-01'")
    with psycopg.connect(evening_airflow.uri) as slow:
        began = slow.execute("SELECT now()").fetchone()
        slow.execute("UPDATE dag_run SET updated_at = clock_timestamp() WHERE run_id = 'queued'")
        evening_airflow.export("first")
        slow.commit()
    assert began is not None
    assert datetime.fromisoformat(bucket.manifest("first")["history"]["watermark"]) <= began[0]
    bucket.verify("first")
    evening_airflow.export("second")
    assert [row["run_id"] for row in history(bucket, "second", "dag_run")] == ["queued"]


def test_times_that_arrow_cannot_hold_travel_as_text(evening_airflow: Any, bucket: Any, tmp_path: Path) -> None:
    evening_airflow.run("UPDATE dag_run SET start_date = 'infinity', end_date = '44000-01-01' WHERE run_id = 'queued'")
    evening_airflow.run("UPDATE dag_run SET start_date = '-infinity' WHERE run_id = 'running'")
    evening_airflow.export(EXPORT)
    assert differences(bucket, tmp_path, EXPORT) == []
    entry = next(f for f in bucket.manifest(EXPORT)["files"] if f["table"] == "dag_run")
    assert dict(entry["schema"])["start_date"] == "string"
    assert {"infinity", "-infinity"} <= set(bucket.parquet(entry)["start_date"].to_pylist())
    assert {r["run_id"]: r["start_date"] for r in history(bucket, EXPORT, "dag_run")}["queued"] is None


def test_microseconds_and_the_database_clock_are_exact(evening_airflow: Any, bucket: Any) -> None:
    before = datetime.now(UTC)
    evening_airflow.export(EXPORT)
    taken = datetime.fromisoformat(bucket.manifest(EXPORT)["snapshot_at"])
    assert abs(taken - before) < timedelta(seconds=30)
    entry = next(f for f in bucket.manifest(EXPORT)["files"] if f["table"] == "dag_run" and f["role"] == "snapshot")
    stamps = {row["run_id"]: row["execution_date"] for row in bucket.parquet(entry).to_pylist()}
    assert stamps["scheduled__1"].microsecond == 999_998
