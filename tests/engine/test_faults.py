"""What goes wrong on the way: each with the real fault, a named error, nothing half-written taken for whole, and a
second attempt that finds a clean place.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.engine.conftest import ENVIRONMENT, USUAL, Airflow, Bucket, Schema, TaskFailed, Worker
from tests.engine.evening import SECRETS
from tests.engine.failing_s3 import Answer, Door, Forward, Nth, Request, Rule, open_door, refusal
from tests.engine.generated import portrait
from tests.engine.verifying import differences

# Larger than three parts of an upload, so that the first is sent while rows still come; larger than a limit below which
# PostgreSQL could not write its own log; and random, so that nothing makes it small.
BIG_ROWS = 40
BIG_BYTES = 640_000
WAIT = 60


@pytest.fixture(scope="session")
def big(schema: Callable[[str], Schema], cloud: str) -> Iterator[Airflow]:
    """An evening with one large table, to be copied; its bucket has an export of it, night-1."""
    made = Airflow(schema(USUAL), Bucket(cloud), "big")
    made.fill()
    made.run(
        "INSERT INTO xcom (dag_run_id, dag_id, run_id, task_id, map_index, key, value, timestamp) "
        "SELECT 700, 'etl.daily', 'scheduled__1', 'done', -1, 'big ' || i, "
        "(SELECT string_agg(uuid_send(gen_random_uuid()), '') "
        f"FROM generate_series(1, {BIG_BYTES // 16}) WHERE i > 0), now() FROM generate_series(1, {BIG_ROWS}) i"
    )
    made.export("night-1")
    made.connection.close()
    yield made
    made.drop()


@pytest.fixture
def door(cloud: str) -> Iterator[Door]:
    with Door(cloud) as opened:
        yield opened


@pytest.fixture
def evening(big: Airflow, schema: Callable[[str], Schema], bucket: Bucket, door: Door) -> Iterator[Airflow]:
    """An evening with a large table, whose way to S3 leads through the door."""
    like_big = copy.copy(schema(USUAL))
    like_big.template = big.database
    made = Airflow(like_big, bucket, "evening")
    made.fernet_key, made.fernet = big.fernet_key, big.fernet
    made.environ["AIRFLOW__CORE__FERNET_KEY"] = big.fernet_key
    made.environ |= {"AWS_ENDPOINT_URL": door.url, "AWS_MAX_ATTEMPTS": "3"}
    yield made
    made.drop()


@pytest.fixture
def own_worker(schema: Callable[[str], Schema], tmp_path: Path) -> Iterator[Worker]:
    """A worker that may be killed."""
    usual = schema(USUAL)
    running = Worker(usual.bin / "python", usual.environ, tmp_path / "worker.log")
    yield running
    running.stop()


def file_of(request: Request, table: str) -> bool:
    """Whether a request is about a snapshot's file of a table."""
    return f"/{table}/part-" in request.key


def backends(airflow: Airflow, where: str = "true") -> list[int]:
    """Processes of the database that serve others than this test."""
    found = airflow.rows(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        f"AND backend_type = 'client backend' AND {where}"
    )
    return [pid for (pid,) in found]


def until(condition: Callable[[], Any], why: str) -> Any:
    """What the condition answers as soon as it answers something."""
    deadline = time.monotonic() + WAIT
    while not (answer := condition()):
        assert time.monotonic() < deadline, why
        time.sleep(0.05)
    return answer


def check_nothing_counts(bucket: Bucket, export_id: str) -> None:
    """No manifest says that this export is there, and no upload of it is under way."""
    keys = bucket.list_keys()
    assert f"snapshots/environment={ENVIRONMENT}/{export_id}/manifest.json" not in keys
    assert not bucket.s3.list_multipart_uploads(Bucket=bucket.name).get("Uploads")


def check_whole(airflow: Airflow, folder: Path, export_id: str) -> None:
    """The next attempt succeeds, and keeps every promise."""
    airflow.export(export_id)
    assert differences(airflow.bucket, folder, export_id) == []
    rows = airflow.bucket.manifest(export_id)["tables"]
    assert {name: table["rows"] for name, table in rows.items()} == airflow.counts()


def told(failed: pytest.ExceptionInfo[TaskFailed], airflow: Airflow) -> str:
    """The name of an error and its message, that holds no secret."""
    name, message = failed.value.args
    for secret in (*SECRETS.values(), airflow.fernet_key, "aws_secret_access_key", "testing"):
        assert secret not in message
    return f"{name}: {message}"


# Export


def test_a_connection_that_is_lost_while_rows_are_read(evening: Airflow, door: Door, tmp_path: Path) -> None:
    first = Nth()

    def rule(request: Request, forward: Forward) -> Answer:
        if request.operation == "UploadPart" and file_of(request, "xcom") and first():
            for pid in until(lambda: backends(evening, "wait_event = 'ClientWrite'"), "rows wait to be read"):
                evening.run("SELECT pg_terminate_backend(%s)", pid)
        return forward()

    door.rule = rule
    with pytest.raises(TaskFailed) as failed:
        evening.export("lost")
    assert told(failed, evening).startswith("DatabaseFailed: ")
    check_nothing_counts(evening.bucket, "lost")
    check_whole(evening, tmp_path, "again")


def test_a_database_that_lets_nobody_in(evening: Airflow) -> None:
    evening.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = "postgresql+psycopg2://airflow:hidden@localhost:1/airflow"
    with pytest.raises(TaskFailed) as failed:
        evening.export("closed")
    assert told(failed, evening).startswith("DatabaseFailed: ")
    assert "hidden" not in failed.value.args[1]


def busy() -> Rule:
    """Every request is refused when it comes first."""
    seen: set[Request] = set()

    def rule(request: Request, forward: Forward) -> Answer:
        if request in seen:
            return forward()
        seen.add(request)
        return refusal(503, "SlowDown")

    return rule


def test_s3_that_is_busy_now_and_then(evening: Airflow, door: Door, tmp_path: Path) -> None:
    door.rule = busy()
    check_whole(evening, tmp_path, "busy")


@pytest.mark.parametrize(
    ("operation", "key", "status", "code"),
    [
        ("PutObject", "/dag/part-", 503, "SlowDown"),
        ("PutObject", "secrets.enc", 500, "InternalError"),
        ("PutObject", "manifest.json", 503, "ServiceUnavailable"),
        ("UploadPart", "/xcom/part-", 403, "AccessDenied"),
        ("UploadPart", "/xcom/part-", 500, "InternalError"),
        ("CompleteMultipartUpload", "/xcom/part-", 403, "AccessDenied"),
        ("GenerateDataKey", "", 400, "AccessDeniedException"),
    ],
)
def test_s3_or_kms_that_refuses_for_good(
    evening: Airflow, door: Door, tmp_path: Path, operation: str, key: str, status: int, code: str
) -> None:
    may_pass = Nth(times=1 if operation == "UploadPart" else 0)  # the second part is refused: one is there already

    def rule(request: Request, forward: Forward) -> Answer:
        if request.operation != operation or key not in request.key or may_pass():
            return forward()
        if operation == "GenerateDataKey":
            kind = [("Content-Type", "application/x-amz-json-1.1")]
            return Answer(status, kind, json.dumps({"__type": code}).encode())
        return refusal(status, code)

    door.rule = rule
    with pytest.raises(TaskFailed) as failed:
        evening.export("refused")
    assert told(failed, evening).startswith("AwsRequestFailed: ")
    assert code in failed.value.args[1]
    check_nothing_counts(evening.bucket, "refused")
    door.rule = open_door
    check_whole(evening, tmp_path, "again")


def test_a_part_that_is_refused_and_cannot_be_cleared_away(evening: Airflow, door: Door) -> None:
    def rule(request: Request, forward: Forward) -> Answer:
        if request.operation == "UploadPart":
            return refusal(403, "AccessDenied")
        if request.operation == "AbortMultipartUpload":
            return refusal(500, "InternalError")
        return forward()

    door.rule = rule
    with pytest.raises(TaskFailed) as failed:
        evening.export("refused")
    assert "AbortMultipartUpload" in door.operations()
    assert "AccessDenied" in told(failed, evening), "what went wrong first is told"
    assert not [key for key in evening.bucket.list_keys() if key.endswith(("manifest.json", "/xcom/part-0.parquet"))]


def test_a_table_that_is_dropped_between_plan_and_reading(evening: Airflow, door: Door, tmp_path: Path) -> None:
    evening.run("CREATE TABLE kept AS SELECT * FROM sla_miss")
    evening.environ["AIRFLOW__TRANSIENT_MWAA__ACCEPTED_TABLES"] = "kept"
    with psycopg.connect(evening.uri) as dropping, ThreadPoolExecutor(1) as pool:
        dropping.execute("DROP TABLE sla_miss")  # not committed: the catalogue still shows the table
        export = pool.submit(evening.export, "dropped")
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        until(lambda: evening.rows(waiting), "the export wants to read the table")
        dropping.commit()
        with pytest.raises(TaskFailed) as failed:
            export.result(WAIT)
    error = told(failed, evening)  # of the session that came to it first
    assert error.startswith(("TableGone: ", "DatabaseFailed: "))
    assert "sla_miss" in error
    check_nothing_counts(evening.bucket, "dropped")
    evening.run("CREATE TABLE sla_miss AS SELECT * FROM kept")
    evening.run("ALTER TABLE sla_miss ADD PRIMARY KEY (task_id, dag_id, execution_date)")
    evening.run("DROP TABLE kept")
    del evening.environ["AIRFLOW__TRANSIENT_MWAA__ACCEPTED_TABLES"]
    check_whole(evening, tmp_path, "again")


def test_a_worker_that_is_killed_in_the_middle_of_an_export(
    evening: Airflow, door: Door, own_worker: Worker, tmp_path: Path
) -> None:
    reached, go_on, first = threading.Event(), threading.Event(), Nth()

    def rule(request: Request, forward: Forward) -> Answer:
        if request.operation == "UploadPart" and first():
            reached.set()
            go_on.wait(WAIT)
        return forward()

    door.rule = rule
    usual, evening.worker = evening.worker, own_worker
    with killed(evening, lambda: evening.export("killed"), reached):
        go_on.set()
    door.rule = open_door
    assert f"snapshots/environment={ENVIRONMENT}/killed/manifest.json" not in evening.bucket.list_keys()
    assert not [key for key in evening.bucket.list_keys() if "/killed/xcom/" in key], "half an object is no object"
    evening.worker = usual
    check_whole(evening, tmp_path, "again")


def test_the_export_needs_no_disk(evening: Airflow, tmp_path: Path) -> None:
    evening.python(
        "import resource, airflow_metadata.export as e\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"  # as on a full disk: not one byte into any file
        "answer = e.export_metadata('without', 'db_export_dag', None)"
    )
    assert differences(evening.bucket, tmp_path, "without") == []


@contextmanager
def killed(airflow: Airflow, task: Callable[[], Any], reached: threading.Event) -> Iterator[None]:
    """Kill the process of a task as the kernel does when memory is short; its children and connections end too."""
    with ThreadPoolExecutor(1) as pool:
        running: Future[Any] = pool.submit(task)
        assert reached.wait(WAIT) or running.result(0), "the task came to the point"
        (process,) = children(airflow.worker._process.pid)
        descendants = children(process)
        os.kill(process, signal.SIGKILL)
        yield
        with pytest.raises(TaskFailed, match="WorkerDied"):
            running.result(WAIT)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in descendants), "no child outlives the task")
    until(lambda: not backends(airflow), "no connection outlives the task")


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


# Restore


@pytest.fixture
def ordered(big: Airflow, schema: Callable[[str], Schema], door: Door) -> Iterator[Airflow]:
    """A fresh environment, whose way to S3 leads through the door, and for which the restore of `big` is ordered."""
    made = Airflow(schema(USUAL), big.bucket, "morning")
    made.wake()
    made.environ |= {"AWS_ENDPOINT_URL": door.url, "AWS_MAX_ATTEMPTS": "3"}
    big.bucket.order("morning-1", "night-1")
    yield made
    made.drop()


def unchanged_by(morning: Airflow, restore: Callable[[], Any]) -> str:
    """A restore that fails leaves every row as it was; answers its error."""
    before = portrait(morning.connection, morning.fernet)
    with pytest.raises(TaskFailed) as failed:
        restore()
    assert portrait(morning.connection, morning.fernet) == before
    return told(failed, morning)


def check_restored(morning: Airflow) -> None:
    """The same restore, tried again, is the first one that counts."""
    answer = morning.restore("morning-1")
    assert (answer["already_restored"], answer["clashes"]) == (0, 0)
    assert morning.value("SELECT count(*) FROM xcom WHERE key LIKE 'big %%'") == BIG_ROWS
    assert morning.value("SELECT sum(octet_length(value)) FROM xcom WHERE key LIKE 'big %%'") == BIG_ROWS * BIG_BYTES
    assert morning.restore("morning-1")["already_restored"] == 1


def slow_down(morning: Airflow, table: str) -> None:
    """Each row that is written to the table takes a while."""
    morning.run(
        "CREATE FUNCTION take_a_while() RETURNS trigger LANGUAGE plpgsql "
        "AS 'BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END'"
    )
    morning.run(f"CREATE TRIGGER slow BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION take_a_while()")


def speed_up(morning: Airflow) -> None:
    """As it was before."""
    morning.run("DROP FUNCTION take_a_while() CASCADE")


def writing(morning: Airflow) -> list[int]:
    """Processes of the database that are at a slow row."""
    return backends(morning, "wait_event = 'PgSleep'")


@pytest.mark.parametrize("table", ["task_instance", "dag_tag"])
def test_a_connection_that_is_lost_while_rows_are_written(ordered: Airflow, table: str) -> None:
    slow_down(ordered, table)

    def lose() -> Any:
        with ThreadPoolExecutor(1) as pool:
            restore = pool.submit(ordered.restore, "morning-1")
            for pid in until(lambda: writing(ordered), "rows are written"):
                ordered.run("SELECT pg_terminate_backend(%s)", pid)
            return restore.result(WAIT)

    assert unchanged_by(ordered, lose).startswith("DatabaseFailed: ")
    speed_up(ordered)
    check_restored(ordered)


def test_a_disk_of_the_database_that_is_full(ordered: Airflow, door: Door) -> None:
    """The kernel refuses to make a file of the database larger than 16 MB, which the log of PostgreSQL never is."""
    limit = 16 * 1024 * 1024
    first = Nth()

    def rule(request: Request, forward: Forward) -> Answer:
        if file_of(request, "xcom") and first():  # long before a row of it is written
            for pid in backends(ordered):
                owner = Path(f"/proc/{pid}").stat().st_uid  # root's tests run a server of another user
                subprocess.run(["prlimit", "--pid", str(pid), f"--fsize={limit}"], user=owner, check=True)
        return forward()

    door.rule = rule
    error = unchanged_by(ordered, lambda: ordered.restore("morning-1"))
    assert error.startswith("DatabaseFailed: ")
    assert "could not extend file" in error
    door.rule = open_door
    check_restored(ordered)


def test_s3_that_is_busy_in_the_morning(ordered: Airflow, door: Door) -> None:
    door.rule = busy()
    check_restored(ordered)


@pytest.mark.parametrize(
    ("file", "status", "code"),
    [("manifest.json", 503, "SlowDown"), ("/xcom/part-", 403, "AccessDenied"), ("secrets.enc", 500, "InternalError")],
)
def test_s3_that_refuses_in_the_morning(ordered: Airflow, door: Door, file: str, status: int, code: str) -> None:
    door.rule = lambda request, forward: refusal(status, code) if file in request.key else forward()
    error = unchanged_by(ordered, lambda: ordered.restore("morning-1"))
    assert error.startswith("AwsRequestFailed: ")
    assert code in error
    door.rule = open_door
    check_restored(ordered)


# The restore reads a file twice: to check it before the first row is written, and to write its rows. Where S3 has a
# checksum of its own boto is the first to see it; an object that came in parts has none.
@pytest.mark.parametrize("checked", [False, True], ids=["before it is checked", "after it was checked"])
@pytest.mark.parametrize("damage", [Answer.with_lost_connection, Answer.cut_short, Answer.with_flipped_bit])
def test_a_file_that_comes_damaged(
    ordered: Airflow, door: Door, damage: Callable[[Answer], Answer], checked: bool
) -> None:
    sequence = "SELECT last_value FROM job_id_seq"
    before = ordered.value(sequence)
    may_pass = Nth(times=int(checked))

    def rule(request: Request, forward: Forward) -> Answer:
        return damage(forward()) if file_of(request, "xcom") and not may_pass() else forward()

    door.rule = rule
    error = unchanged_by(ordered, lambda: ordered.restore("morning-1"))
    assert error.startswith(("ObjectChanged: ", "AwsRequestFailed: "))
    if not checked:
        assert ordered.value(sequence) == before, "before anything was prepared for the first row"
    door.rule = open_door
    check_restored(ordered)


@pytest.mark.parametrize("table", ["dag_run", "ab_role"])
def test_a_manifest_that_lacks_a_file(ordered: Airflow, table: str) -> None:
    bucket = ordered.bucket
    document = bucket.manifest("night-1")
    whole = copy.deepcopy(document)
    document["files"] = [f for f in document["files"] if (f["table"], f["role"]) != (table, "snapshot")]
    key = f"snapshots/environment={ENVIRONMENT}/night-1/manifest.json"
    before = ordered.value("SELECT last_value FROM job_id_seq")
    try:
        bucket.write_json(key, document)
        bucket.order("morning-1", "night-1")  # even if the core had believed it
        error = unchanged_by(ordered, lambda: ordered.restore("morning-1"))
    finally:
        bucket.write_json(key, whole)
        bucket.order("morning-1", "night-1")
    assert error.startswith("CountsDiffer: ")
    assert table in error
    assert ordered.value("SELECT last_value FROM job_id_seq") == before
    check_restored(ordered)


def test_a_worker_that_is_killed_in_the_middle_of_a_restore(ordered: Airflow, own_worker: Worker) -> None:
    before = portrait(ordered.connection, ordered.fernet)
    slow_down(ordered, "task_instance")
    reached = threading.Event()
    usual, ordered.worker = ordered.worker, own_worker
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: (until(lambda: writing(ordered), "rows are written"), reached.set()))
        with killed(ordered, lambda: ordered.restore("morning-1"), reached):
            pass
    assert portrait(ordered.connection, ordered.fernet) == before
    speed_up(ordered)
    ordered.worker = usual
    check_restored(ordered)
