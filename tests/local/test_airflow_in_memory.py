"""The Airflow that stories run on behaves like the real one, and the core reads its exports."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest
import time_machine
from moto import mock_aws

from local.airflow_in_memory import EXPORT_DAG, RESTORE_DAG, DagFolder, InMemoryAirflow, Task
from transient_mwaa.aws.export_files import measure
from transient_mwaa.domain.errors import ManifestInvalid
from transient_mwaa.domain.manifest import Manifest, parse
from transient_mwaa.domain.verdict import file_reasons

pytestmark = pytest.mark.local

EVENING = datetime(2026, 11, 23, 19, 0, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
DATA, DEV = "data-bucket", {"Name": "dev"}
EXPORT = "20261123T190500Z-1a2b3c4d"
INCARNATION = "2026-11-23T08:00:00+00:00"


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(EVENING, tick=False) as clock:
        yield clock


@pytest.fixture
def aws(clock: time_machine.Traveller) -> Iterator[dict[str, str]]:
    with mock_aws():
        s3 = boto3.client("s3", "us-east-1")
        s3.create_bucket(Bucket=DATA)
        s3.put_bucket_versioning(Bucket=DATA, VersioningConfiguration={"Status": "Enabled"})
        key = boto3.client("kms", "us-east-1").create_key()["KeyMetadata"]["Arn"]
        yield {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AIRFLOW__TRANSIENT_MWAA__BUCKET": DATA,
            "AIRFLOW__TRANSIENT_MWAA__KMS_KEY_ARN": key,
        }


@pytest.fixture
def folder() -> DagFolder:
    return DagFolder()


@pytest.fixture
def airflow(aws: dict[str, str], folder: DagFolder, tmp_path: Path) -> InMemoryAirflow:
    return create(aws, folder, tmp_path)


def create(aws: dict[str, str], folder: DagFolder, home: Path) -> InMemoryAirflow:
    airflow = InMemoryAirflow(name="dev", environment=DEV, environ=aws, home=home / "dev-1", folder=folder)
    airflow.start()
    return airflow


def printed(answer: tuple[int, str, str]) -> Any:
    """The JSON that a command printed after its log lines."""
    code, stdout, stderr = answer
    assert code == 0, stderr
    first, *_, last = stdout.splitlines()
    assert first.startswith("[2026-")  # and a client that takes the first bracket for JSON is wrong
    return json.loads(last)


def state(airflow: InMemoryAirflow, dag_id: str, run_id: str) -> str:
    return airflow.rest("GET", f"/dags/{dag_id}/dagRuns/{run_id}", {}, None)[1]["state"]


def total(airflow: InMemoryAirflow, path: str) -> int:
    return airflow.rest("GET", path, {"limit": 1}, None)[1]["total_entries"]


# --- The passing of time ---------------------------------------------------------------------------------------------


def test_a_run_takes_the_time_of_its_tasks(airflow: InMemoryAirflow, clock: time_machine.Traveller):
    airflow.add_dag("etl", tasks=(Task("extract", 5 * MINUTE), Task("load", 10 * MINUTE)))
    airflow.cli("dags trigger etl -r one -o json")
    clock.shift(6 * MINUTE)
    assert state(airflow, "etl", "one") == "running"
    _, running = airflow.rest("POST", "/dags/~/dagRuns/~/taskInstances/list", {}, {"state": ["running"]})
    assert [row["task_id"] for row in running["task_instances"]] == ["load"]
    clock.shift(10 * MINUTE)
    assert state(airflow, "etl", "one") == "success"
    assert airflow.run("etl", "one")["end_date"] == EVENING + 15 * MINUTE + timedelta(seconds=1)


def test_a_paused_dag_does_not_finish_its_run(airflow: InMemoryAirflow, clock: time_machine.Traveller):
    airflow.add_dag("etl", tasks=(Task("extract", MINUTE), Task("load", MINUTE)))
    airflow.trigger("etl", "one")
    clock.shift(30)
    airflow.pause("etl")
    clock.shift(HOUR)
    _, instances = airflow.rest("GET", "/dags/etl/dagRuns/one/taskInstances", {}, None)
    assert [row["state"] for row in instances["task_instances"]] == ["success", None]
    assert state(airflow, "etl", "one") == "running"
    airflow.pause("etl", paused=False)
    clock.shift(2 * MINUTE)
    assert state(airflow, "etl", "one") == "success"


def test_schedules_run_at_the_end_of_each_interval_unless_paused(
    airflow: InMemoryAirflow, clock: time_machine.Traveller
):
    airflow.add_dag("hourly", every=HOUR)
    clock.shift(2 * HOUR + MINUTE)
    assert [run["run_id"] for run in airflow.rows("dag_run")] == [
        f"scheduled__2026-11-23T{hour}:00:00+00:00" for hour in (18, 19, 20)
    ]
    airflow.pause("hourly")
    clock.shift(5 * HOUR)
    assert total(airflow, "/dags/~/dagRuns") == 3
    airflow.pause("hourly", paused=False)  # without catchup only the latest interval is run
    clock.shift(MINUTE)
    assert total(airflow, "/dags/~/dagRuns") == 4


def test_datasets_start_consumers_and_forget_paused_ones(airflow: InMemoryAirflow, clock: time_machine.Traveller):
    airflow.add_dag("producer", tasks=(Task(produces=("s3://a",)),))
    airflow.add_dag("consumer", after=("s3://a",))
    airflow.trigger("producer", "one")
    clock.shift(5 * MINUTE)
    assert [run["run_type"] for run in airflow.rows("dag_run")] == ["manual", "dataset_triggered"]
    airflow.pause("consumer")
    airflow.trigger("producer", "two")
    clock.shift(5 * MINUTE)
    airflow.pause("consumer", paused=False)
    clock.shift(5 * MINUTE)
    assert [run["run_type"] for run in airflow.rows("dag_run")] == ["manual", "dataset_triggered", "manual"]
    _, answer = airflow.rest("GET", "/datasets", {}, None)
    assert [row["dag_id"] for row in answer["datasets"][0]["consuming_dags"]] == ["consumer"]
    assert [row["dag_id"] for row in answer["datasets"][0]["producing_tasks"]] == ["producer"]


def test_busy_failing_late_and_broken_dags(airflow: InMemoryAirflow, clock: time_machine.Traveller, aws, tmp_path):
    run_id = airflow.busy_until(EVENING + HOUR)
    airflow.add_dag("bad", tasks=(Task(fails=True),))
    airflow.trigger("bad", "one")
    clock.shift(59 * MINUTE)
    assert (state(airflow, "bad", "one"), state(airflow, "long_haul", run_id)) == ("failed", "running")
    clock.shift(2 * MINUTE)
    assert state(airflow, "long_haul", run_id) == "success"

    airflow.parses_dag_late("long_haul", 10 * MINUTE)
    airflow.folder.breaks("bad")
    successor = create(aws, airflow.folder, tmp_path)
    assert successor.rest("GET", "/dags/long_haul", {}, None)[0] == 404
    assert total(successor, "/importErrors") == 1
    clock.shift(10 * MINUTE)
    assert successor.rest("GET", "/dags/long_haul", {}, None)[0] == 200
    assert successor.cli("dags list-import-errors -o json")[0] == 1


# --- The command line ------------------------------------------------------------------------------------------------


def test_commands_print_noise_and_json_or_fail_with_a_traceback(airflow: InMemoryAirflow):
    airflow.add_dag("a.b")
    airflow.add_dag("axb")
    assert printed(airflow.cli("dags trigger a.b -r one -c '{\"n\": 1}' -o json"))[0]["conf"] == {"n": "1"}
    for command, error in (
        ("dags trigger a.b -r one -o json", "DagRunAlreadyExists"),
        ("dags trigger nobody -o json", "DagNotFound"),
        ("dags trigger a.b -c nonsense -o json", "JSONDecodeError"),
    ):
        code, _, stderr = airflow.cli(command)
        assert (code, error in stderr.splitlines()[-1]) == (1, True)
    pattern = '"^(a[.]b|nobody)$"'
    switched = printed(airflow.cli(f"dags pause --treat-dag-id-as-regex -y -o json {pattern}"))
    assert switched == [{"dag_id": "a.b", "is_paused": "True"}]
    assert airflow.active_dags == {"axb"}
    code, stdout, _ = airflow.cli(f"dags pause --treat-dag-id-as-regex -y -o json {pattern}")
    assert (code, stdout.splitlines()[-1]) == (0, "No unpaused DAGs were found")
    assert printed(airflow.cli("dags list-runs -d a.b -o json"))[0]["run_id"] == "one"
    assert airflow.cli("dags list-runs -d nobody -o json")[0] == 1
    assert airflow.cli("nonsense")[0] == 2
    assert {EXPORT_DAG, RESTORE_DAG} <= {row["dag_id"] for row in printed(airflow.cli("dags list -o json"))}


def test_scripted_refusals_pass(airflow: InMemoryAirflow):
    airflow.rest_answers(503, times=1)
    airflow.cli_answers(1, "", "OSError: no space", times=1)
    assert [airflow.rest("GET", "/dags", {}, None)[0] for _ in range(2)] == [503, 200]
    assert [airflow.cli("version")[0] for _ in range(2)] == [1, 0]


def test_a_stopped_airflow_is_gone(airflow: InMemoryAirflow):
    airflow.stop()
    airflow.stop()
    with pytest.raises(ConnectionError):
        airflow.cli("version")


# --- The REST API ----------------------------------------------------------------------------------------------------


def test_lists_come_in_pages_and_filters(airflow: InMemoryAirflow):
    for number in range(130):
        airflow.add_dag(f"dag_{number:03}", active=number % 2 == 0)
    _, page = airflow.rest("GET", "/dags", {"limit": "1000", "offset": "100", "order_by": "dag_id"}, None)
    assert (len(page["dags"]), page["total_entries"]) == (32, 132)
    assert len(airflow.rest("GET", "/dags", {"limit": 1000}, None)[1]["dags"]) == 100  # maximum_page_limit
    assert airflow.rest("GET", "/dags", {"paused": "true"}, None)[1]["total_entries"] == 65
    status, _ = airflow.rest("POST", "/dags/~/dagRuns/list", {}, {"nonsense": 1})
    assert status == 400


def test_what_people_do_stands_in_the_event_log(airflow: InMemoryAirflow, clock: time_machine.Traveller):
    last = airflow.rest("GET", "/eventLogs", {"limit": 1, "order_by": "-event_log_id"}, None)[1]["event_logs"][0]
    clock.shift(1)
    airflow.set_variable("secret", "s3cr3t")
    airflow.rest("PATCH", f"/dags/{EXPORT_DAG}", {}, {"is_paused": True})
    _, newer = airflow.rest("GET", "/eventLogs", {"after": EVENING.isoformat()}, None)
    assert [row["event"] for row in newer["event_logs"]] == ["variable.create", "api.patch_dag"]
    assert newer["event_logs"][0]["event_log_id"] > last["event_log_id"]
    assert airflow.rest("GET", "/eventLogs", {"order_by": "-id"}, None)[0] == 400


# --- Export and restore ----------------------------------------------------------------------------------------------


def export(airflow: InMemoryAirflow, clock: time_machine.Traveller, export_id: str = EXPORT) -> Manifest:
    airflow.cli(f"dags trigger {EXPORT_DAG} -r {export_id} -c '{json.dumps({'incarnation': INCARNATION})}' -o json")
    clock.shift(3 * MINUTE)
    assert state(airflow, EXPORT_DAG, export_id) == "success", airflow.logs
    return parse(read(f"snapshots/environment=dev/{export_id}/manifest.json"), "dev", export_id)


def read(key: str, version: str | None = None) -> bytes:
    which = {"VersionId": version} if version else {}
    return boto3.client("s3", "us-east-1").get_object(Bucket=DATA, Key=key, **which)["Body"].read()


def reasons(manifest: Manifest, folder: Path) -> dict[str, tuple[str, ...]]:
    """Table -> what the core finds wrong with its files."""
    found: dict[str, tuple[str, ...]] = {}
    for file in manifest.files:
        copy = folder / "copy.parquet"
        copy.write_bytes(read(file.key, file.version_id))
        evidence = measure(copy, file.bytes, file.sha256, file)
        if wrong := file_reasons(file, evidence):
            found[file.table] = wrong
    return found


def busy_day(airflow: InMemoryAirflow, clock: time_machine.Traveller) -> None:
    airflow.add_dag("etl", every=HOUR, tasks=(Task("extract", produces=("s3://a",)), Task("load")))
    airflow.add_dag("report", after=("s3://a",))
    airflow.add_dag("asleep", active=False)
    airflow.set_variable("password", "pässword")
    airflow.set_connection("warehouse", password="geheim", login="me", port=5439)
    airflow.set_pool("narrow", 3)
    clock.shift(3 * HOUR + 30 * MINUTE)
    for dag_id in airflow.active_dags:
        airflow.pause(dag_id)


def test_the_core_finds_an_export_as_promised(airflow: InMemoryAirflow, clock, tmp_path: Path):
    busy_day(airflow, clock)
    manifest = export(airflow, clock)
    manifest.require_incarnation(INCARNATION)
    assert reasons(manifest, tmp_path) == {}
    assert manifest.tables["dag_run"].rows == total(airflow, "/dags/~/dagRuns") > 5
    assert manifest.secrets.rows == {"variable": 1, "connection": 1, "trigger": 0, "ab_user": 1}
    assert {file.table for file in manifest.history_files} == {"dag_run", "task_instance", "log"}
    sealed = read(manifest.secrets.key)
    assert b"geheim" not in sealed
    newer = [row for row in airflow.rows("log") if row["id"] > manifest.max_log_id]
    assert {row["dag_id"] for row in newer} == {EXPORT_DAG}


def test_history_begins_where_the_last_verified_export_ended(airflow: InMemoryAirflow, clock, tmp_path: Path):
    busy_day(airflow, clock)
    first = export(airflow, clock)
    verified = json.dumps({"watermark": first.watermark.isoformat()}).encode()
    boto3.client("s3", "us-east-1").put_object(Bucket=DATA, Key="environments/dev/verified_export.json", Body=verified)
    clock.shift(HOUR)
    second = export(airflow, clock, "second-export")
    assert second.history_since == first.watermark
    assert {file.table: file.rows for file in second.history_files}["dag_run"] == 2  # both exports' own


def test_each_fault_shows(airflow: InMemoryAirflow, clock, tmp_path: Path):
    busy_day(airflow, clock)
    airflow.loses_rows("dag_run", 1)
    assert list(reasons(export(airflow, clock, "a"), tmp_path)) == ["dag_run"]

    airflow.is_healed()
    airflow.corrupts_file("log")
    broken = next(file for file in export(airflow, clock, "b").files if file.table == "log")
    with pytest.raises(Exception, match=r"footer|magic"):
        pq.read_table(_saved(tmp_path, read(broken.key, broken.version_id)))

    airflow.is_healed()
    airflow.drops_file("dag")
    gone = next(file for file in export(airflow, clock, "c").files if file.table == "dag")
    with pytest.raises(boto3.client("s3", "us-east-1").exceptions.ClientError, match=r"NoSuchVersion|NoSuchKey"):
        read(gone.key, gone.version_id)

    airflow.is_healed()
    airflow.changes_manifest(lambda document: document["tables"].pop("xcom"))
    with pytest.raises(ManifestInvalid, match="xcom"):
        export(airflow, clock, "d")

    airflow.is_healed()
    airflow.fails_export()
    airflow.cli(f"dags trigger {EXPORT_DAG} -r e")
    clock.shift(HOUR)
    assert state(airflow, EXPORT_DAG, "e") == "failed"
    assert "scripted" in airflow.logs[EXPORT_DAG, "e"]

    airflow.export_hangs()
    airflow.cli(f"dags trigger {EXPORT_DAG} -r f")
    clock.shift(10 * HOUR)
    assert state(airflow, EXPORT_DAG, "f") == "running"


def _saved(folder: Path, data: bytes) -> Path:
    (folder / "saved.parquet").write_bytes(data)
    return folder / "saved.parquet"


def test_a_bucket_that_refuses_fails_the_task(aws: dict[str, str], folder: DagFolder, tmp_path: Path, clock):
    airflow = create({**aws, "AIRFLOW__TRANSIENT_MWAA__BUCKET": "nobody"}, folder, tmp_path)
    airflow.cli(f"dags trigger {EXPORT_DAG} -r one")
    clock.shift(HOUR)
    assert state(airflow, EXPORT_DAG, "one") == "failed"
    assert "NoSuchBucket" in airflow.logs[EXPORT_DAG, "one"]


def order(manifest: Manifest, restore_id: str) -> None:
    s3 = boto3.client("s3", "us-east-1")
    key = f"snapshots/environment=dev/{manifest.export_id}/manifest.json"
    document = {
        "restore_id": restore_id,
        "export_id": manifest.export_id,
        "manifest_key": key,
        "manifest_version_id": s3.head_object(Bucket=DATA, Key=key)["VersionId"],
        "manifest_sha256": hashlib.sha256(read(key)).hexdigest(),
        "incarnation": "2026-11-24T07:00:00+00:00",
        "ordered_at": "2026-11-24T07:00:00+00:00",
    }
    s3.put_object(Bucket=DATA, Key="environments/dev/restore_order.json", Body=json.dumps(document).encode())


def picture(airflow: InMemoryAirflow) -> dict[str, Any]:
    """What must be the same in the morning, without ids and without our own DAGs."""

    def rows(table: str, *columns: str) -> list[Any]:
        return sorted(
            (tuple(str(row[column]) for column in columns) for row in airflow.rows(table) if not _is_own(row)),
        )

    return {
        "dag": rows("dag", "dag_id", "is_paused"),
        "dag_run": rows("dag_run", "dag_id", "run_id", "state", "start_date", "end_date", "conf"),
        "task_instance": rows("task_instance", "dag_id", "run_id", "task_id", "state", "try_number"),
        "xcom": rows("xcom", "dag_id", "run_id", "task_id", "key", "value"),
        "variable": rows("variable", "key", "val"),
        "connection": rows("connection", "conn_id", "password", "login", "port"),
        "slot_pool": rows("slot_pool", "pool", "slots"),
        "dataset_event": rows("dataset_event", "source_dag_id", "source_run_id"),
    }


def _is_own(row: dict[str, Any]) -> bool:
    return row.get("dag_id") in {EXPORT_DAG, RESTORE_DAG}


def test_morning_equals_evening(airflow: InMemoryAirflow, clock, aws: dict[str, str], tmp_path: Path):
    busy_day(airflow, clock)
    evening, manifest = picture(airflow), export(airflow, clock)
    airflow.stop()
    clock.shift(8 * HOUR)

    morning = create(aws, airflow.folder, tmp_path)
    assert morning.active_dags == set()
    morning.cli(f"dags trigger {RESTORE_DAG} -r not-ordered")
    clock.shift(5 * MINUTE)
    assert state(morning, RESTORE_DAG, "not-ordered") == "failed"
    order(manifest, "restore-1")
    morning.cli(f"dags trigger {RESTORE_DAG} -r restore-1")
    clock.shift(5 * MINUTE)
    assert state(morning, RESTORE_DAG, "restore-1") == "success", morning.logs
    assert picture(morning) == evening
    assert state(morning, EXPORT_DAG, EXPORT) == "success"
    assert len({row["id"] for row in morning.rows("log")}) == len(morning.rows("log"))

    morning.pause("etl", paused=False)  # it goes on with the interval that is due, and with no other
    clock.shift(5 * MINUTE)
    new = [run for run in morning.rows("dag_run") if run["start_date"] and run["start_date"] > EVENING + 8 * HOUR]
    assert [run["run_id"] for run in new if run["dag_id"] == "etl"] == ["scheduled__2026-11-24T05:00:00+00:00"]


def test_a_dag_that_is_parsed_late_remembers_that_it_was_paused_or_not(
    airflow: InMemoryAirflow, clock, aws: dict[str, str], tmp_path: Path
):
    airflow.add_dag("late")
    manifest = export(airflow, clock)
    airflow.parses_dag_late("late", HOUR)
    morning = create(aws, airflow.folder, tmp_path)
    order(manifest, "restore-1")
    morning.cli(f"dags trigger {RESTORE_DAG} -r restore-1")
    clock.shift(5 * MINUTE)
    assert "late" not in morning.active_dags
    clock.shift(HOUR)
    assert "late" in morning.active_dags


def test_deferred_tasks_go_on_after_a_restore(airflow: InMemoryAirflow, clock, aws: dict[str, str], tmp_path: Path):
    run_id = airflow.busy_until(EVENING + 4 * HOUR, state="deferred")
    clock.shift(MINUTE)
    manifest = export(airflow, clock)
    morning = create(aws, airflow.folder, tmp_path)
    order(manifest, "restore-1")
    morning.cli(f"dags trigger {RESTORE_DAG} -r restore-1")
    clock.shift(5 * MINUTE)
    assert [row["state"] for row in morning.rows("task_instance") if row["dag_id"] == "long_haul"] == ["deferred"]
    clock.shift(5 * HOUR)
    assert state(morning, "long_haul", run_id) == "success"


def test_tomorrows_airflow_can_be_scripted_today(airflow: InMemoryAirflow, clock, aws: dict[str, str], tmp_path: Path):
    airflow.folder.when_created(lambda tomorrow: tomorrow.fails_restore())
    manifest = export(airflow, clock)
    morning = create(aws, airflow.folder, tmp_path)
    order(manifest, "restore-1")
    morning.cli(f"dags trigger {RESTORE_DAG} -r restore-1")
    clock.shift(5 * MINUTE)
    assert state(morning, RESTORE_DAG, "restore-1") == "failed"
    assert morning.rows("variable") == []
