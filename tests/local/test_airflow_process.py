"""A real Airflow comes up, works, and leaves nothing behind but its logs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import psutil
import psycopg
import pytest
from moto.server import ThreadedMotoServer

from local.airflow_in_memory import DagFolder, InMemoryAirflow, Task
from local.airflow_process import ProcessAirflow
from local.airflow_protocol import AirflowFailed

pytestmark = pytest.mark.cycle

BUCKET = "dags-of-dev"
HELLO = """
import os, pendulum
from airflow.decorators import dag, task

@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1), is_paused_upon_creation=False)
def hello():
    @task
    def say():
        print("hello from", os.environ["AIRFLOW_ENV_NAME"])
    say()

hello()
"""


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    yield {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
    server.stop()


@pytest.fixture(scope="module")
def s3(environ: dict[str, str]) -> Any:
    s3 = boto3.client(
        "s3",
        endpoint_url=environ["AWS_ENDPOINT_URL"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="dags/hello.py", Body=HELLO)
    return s3


@pytest.fixture(scope="module")
def make(environ: dict[str, str], s3: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ProcessAirflow]:
    homes = tmp_path_factory.mktemp("homes")

    def make(home: str, **environment: Any) -> ProcessAirflow:
        description = {"Name": "dev", "SourceBucketArn": f"arn:aws:s3:::{BUCKET}", "DagS3Path": "dags"} | environment
        return ProcessAirflow(name="dev", environment=description, environ=environ, home=homes / home)

    return make


@pytest.fixture(scope="module")
def airflow(make: Callable[..., ProcessAirflow]) -> Iterator[ProcessAirflow]:
    with pytest.MonkeyPatch.context() as developer:
        developer.setenv("AIRFLOW__CORE__PARALLELISM", "99")
        airflow = make("first", AirflowConfigurationOptions={"transient_mwaa.bucket": "data-bucket"})
        airflow.start()
    yield airflow
    airflow.stop()


def until[T](look: Callable[[], T], seconds: float = 60) -> T:
    """The first true answer. Fails after `seconds`."""
    end = time.monotonic() + seconds
    while not (answer := look()):
        assert time.monotonic() < end, look
        time.sleep(0.2)
    return answer


def processes_of(airflow: ProcessAirflow) -> list[psutil.Process]:
    assert airflow._host is not None
    host = psutil.Process(airflow._host.pid)
    return [host, *host.children(recursive=True)]


def run_hello(airflow: ProcessAirflow, run_id: str) -> None:
    until(lambda: airflow.rest("GET", "/dags/hello", {}, None)[0] == 200)
    code, stdout, stderr = airflow.cli(f"dags trigger hello -r {run_id} -c '{{\"a\": 1}}' -o json")
    assert code == 0, stderr
    assert json.loads(stdout.splitlines()[-1])[0]["dag_run_id"] == run_id
    until(lambda: airflow.rest("GET", f"/dags/hello/dagRuns/{run_id}", {}, None)[1]["state"] == "success")


def test_a_run_succeeds_and_rest_and_the_database_see_it(airflow: ProcessAirflow):
    run_hello(airflow, "first-run")

    status, runs = airflow.rest("POST", "/dags/~/dagRuns/list", {}, {"states": ["success"]})
    assert status == 200
    assert [(run["dag_run_id"], run["conf"]) for run in runs["dag_runs"]] == [("first-run", {"a": 1})]
    assert airflow.database_uri is not None
    with psycopg.connect(airflow.database_uri) as database:
        assert database.execute("SELECT run_id, state FROM dag_run").fetchall() == [("first-run", "success")]
        role = database.execute("SELECT rolsuper, current_user FROM pg_roles WHERE rolname = current_user").fetchone()
    assert role == (False, "airflow")  # as on MWAA, nothing may need a superuser
    log = airflow.logs / "tasks/dag_id=hello/run_id=first-run/task_id=say/attempt=1.log"
    assert "hello from dev" in log.read_text()


def test_its_configuration_is_the_environments_and_not_the_developers(airflow: ProcessAirflow):
    assert airflow.cli("config get-value transient_mwaa bucket")[1].splitlines()[-1] == "data-bucket"
    assert airflow.cli("config get-value core parallelism")[1].splitlines()[-1] == "4"


def test_a_failed_command_says_so(airflow: ProcessAirflow):
    code, _, stderr = airflow.cli("dags trigger nobody -o json")
    assert (code, stderr.splitlines()[-1].split(":")[0]) == (1, "airflow.exceptions.DagNotFound")
    assert airflow.cli("dags 'unfinished")[0] == 2
    assert airflow.cli("no such command")[0] == 2
    assert airflow.rest("GET", "/dags/nobody", {}, None)[0] == 404


def test_the_dag_folder_follows_the_bucket(airflow: ProcessAirflow, s3: Any):
    s3.put_object(Bucket=BUCKET, Key="dags/more/later.py", Body=HELLO.replace("hello", "later"))
    until(lambda: airflow.rest("GET", "/dags/later", {}, None)[0] == 200)
    s3.delete_object(Bucket=BUCKET, Key="dags/more/later.py")
    until(lambda: not (airflow.data / "dags/more/later.py").exists())


FAMILY = """
import pendulum
from airflow.datasets import Dataset
from airflow.decorators import dag, task

START = pendulum.datetime(2026, 1, 1)

@dag(schedule=None, start_date=START, is_paused_upon_creation=False)
def maker():
    @task(outlets=[Dataset("s3://made")])
    def make(): pass
    make()

@dag(schedule=[Dataset("s3://made")], start_date=START, is_paused_upon_creation=False)
def taker():
    @task
    def take(): pass
    take()

@dag(schedule="@hourly", start_date=START, catchup=False)
def hourly():
    @task
    def work(): pass
    work()

maker()
taker()
hourly()
"""
COMMANDS = [
    "version",
    "dags trigger maker -r one -c '{\"a\": 1}' -o json",
    "dags trigger maker -r one -o json",
    "dags trigger maker -r two -c nonsense -o json",
    "dags trigger nobody -r one -o json",
    "dags pause --treat-dag-id-as-regex -y -o json '^(hello|hourly|maker)$'",
    "dags pause --treat-dag-id-as-regex -y -o json '^(hello|hourly|maker)$'",
    "dags unpause --treat-dag-id-as-regex -y -o json '^(hello|maker)$'",
    "dags unpause -y -o json '^(hello|maker)$'",
    "dags list -o json",
    "dags list-runs -d taker -o json",
    "dags list-runs -d nobody -o json",
    "dags list-import-errors -o json",
    "nonsense",
]
CALLS: list[tuple[str, str, dict[str, Any], Any]] = [
    ("GET", "/health", {}, None),
    ("GET", "/version", {}, None),
    ("GET", "/dags", {"limit": 100, "offset": 0, "order_by": "dag_id"}, None),
    ("GET", "/dags", {"limit": 2, "offset": 3}, None),
    ("GET", "/dags", {"only_active": "true", "paused": "true"}, None),
    ("GET", "/dags/maker", {}, None),
    ("GET", "/dags/maker/details", {}, None),
    ("GET", "/dags/hourly/details", {}, None),
    ("GET", "/dags/nobody", {}, None),
    ("GET", "/dags/nobody/details", {}, None),
    ("PATCH", "/dags/hourly", {}, {"is_paused": True}),
    ("PATCH", "/dags/nobody", {}, {"is_paused": True}),
    ("PATCH", "/dags/maker", {}, {"is_paused": "perhaps"}),
    ("POST", "/dags/~/dagRuns/list", {}, {"states": ["success"]}),
    ("POST", "/dags/~/dagRuns/list", {}, {"states": ["queued", "running"], "page_limit": 100, "page_offset": 0}),
    ("POST", "/dags/~/dagRuns/list", {}, {"dag_ids": ["maker"], "page_limit": 1}),
    ("POST", "/dags/~/dagRuns/list", {}, {"nonsense": 1}),
    ("GET", "/dags/~/dagRuns", {"limit": 1}, None),
    ("GET", "/dags/maker/dagRuns", {}, None),
    ("GET", "/dags/maker/dagRuns/one", {}, None),
    ("GET", "/dags/maker/dagRuns/two", {}, None),
    ("POST", "/dags/~/dagRuns/~/taskInstances/list", {}, {"state": ["success"], "page_limit": 1}),
    ("POST", "/dags/~/dagRuns/~/taskInstances/list", {}, {"state": ["running", "deferred"]}),
    ("POST", "/dags/~/dagRuns/~/taskInstances/list", {}, {"nonsense": 1}),
    ("GET", "/dags/maker/dagRuns/one/taskInstances", {}, None),
    ("POST", "/dags/maker/clearTaskInstances", {}, {"dag_run_id": "one", "dry_run": False, "only_failed": False}),
    ("POST", "/dags/maker/clearTaskInstances", {}, {"dag_run_id": "nothing", "dry_run": False}),
    ("POST", "/dags/nobody/clearTaskInstances", {}, {"dry_run": False}),
    ("POST", "/dags/maker/dagRuns", {}, {"dag_run_id": "one"}),
    ("POST", "/dags/nobody/dagRuns", {}, {"dag_run_id": "one"}),
    ("POST", "/variables", {}, {"key": "new", "value": "value"}),
    ("POST", "/connections", {}, {"connection_id": "new", "conn_type": "http", "port": 80}),
    ("POST", "/connections", {}, {"connection_id": "new", "conn_type": "http"}),
    ("POST", "/pools", {}, {"name": "new", "slots": 3}),
    ("POST", "/pools", {}, {"name": "new", "slots": 3}),
    ("GET", "/variables", {"limit": 1}, None),
    ("GET", "/connections", {"limit": 1}, None),
    ("GET", "/pools", {"limit": 1}, None),
    ("GET", "/eventLogs", {"limit": 1, "order_by": "-event_log_id"}, None),
    ("GET", "/eventLogs", {"limit": 1, "order_by": "-id"}, None),
    ("GET", "/eventLogs", {"limit": 1, "after": "2026-01-01T00:00:00+00:00", "dag_id": "maker"}, None),
    ("GET", "/importErrors", {"limit": 100}, None),
    ("GET", "/datasets", {"limit": 1}, None),
    ("GET", "/assets", {"limit": 1}, None),
]
FREE = {"rendered_fields", "schedule_interval"}  # what differs by the kind of operator and of schedule
COUNTED = ("/eventLogs",)  # the real one writes more events than are modelled


def test_the_stand_in_answers_like_the_real_one(airflow: ProcessAirflow, s3: Any, tmp_path: Path):
    until(lambda: airflow.rest("GET", "/dags/later", {}, None)[1].get("is_active") is not True)
    folder = DagFolder()
    for dag_id in ("db_export_dag", "db_restore_dag"):
        folder.remove(dag_id)
    soon = timedelta(milliseconds=10)
    folder.add("hello", tasks=(Task("say", soon),), paused_upon_creation=False)
    folder.add("maker", tasks=(Task("make", soon, produces=("s3://made",)),), paused_upon_creation=False)
    folder.add("taker", tasks=(Task("take", soon),), after=("s3://made",), paused_upon_creation=False)
    folder.add("hourly", every=timedelta(hours=1))
    folder.add("broken")
    folder.breaks("broken")
    stand_in = InMemoryAirflow(name="dev", environment={}, environ={}, home=tmp_path, folder=folder)
    stand_in.start()
    stand_in.trigger("hello", "first-run", {"a": 1})
    s3.put_object(Bucket=BUCKET, Key="dags/family.py", Body=FAMILY)
    s3.put_object(Bucket=BUCKET, Key="dags/broken.py", Body="from airflow import DAG\n1 / 0\n")
    until(lambda: airflow.rest("GET", "/dags/hourly", {}, None)[0] == 200)
    until(lambda: airflow.rest("GET", "/importErrors", {}, None)[1]["total_entries"])
    for each in (airflow, stand_in):
        assert each.cli("variables set key value")[0] == 0
        assert each.cli("connections add there --conn-type http")[0] == 0

    for command in COMMANDS:
        real, modelled = printed(airflow.cli(command)), printed(stand_in.cli(command))
        assert modelled == real, command
        if "-r one -c" in command:
            for each in (airflow, stand_in):
                until(
                    lambda each=each: each.rest("GET", "/dags/taker/dagRuns", {"state": "success"}, None)[1]["dag_runs"]
                )
    wrong: list[str] = []
    for method, path, query, body in CALLS:
        answers = [each.rest(method, path, query, body) for each in (airflow, stand_in)]
        (real_status, real_answer), (modelled_status, modelled_answer) = answers
        found = differences(real_answer, modelled_answer, path)
        if modelled_status != real_status:
            found.append(f"{method} {path}: {real_status}, modelled as {modelled_status}")
        if not path.startswith(COUNTED) and modelled_answer.get("total_entries") != real_answer.get("total_entries"):
            counts = (real_answer.get("total_entries"), modelled_answer.get("total_entries"))
            found.append(f"{method} {path} {query} {body}: {counts[0]} entries, modelled as {counts[1]}")
        wrong += found
    assert not wrong, "\n".join(wrong)


def printed(answer: tuple[int, str, str]) -> tuple[Any, ...]:
    """Exit code, JSON (its rows without what differs by time and folder) and the name of the error."""
    code, stdout, stderr = answer
    *noise, last = stdout.splitlines() or [""]
    error = stderr.splitlines()[-1].split(":")[0] if code and stderr else ""
    if code == 2:  # the usage, which goes on for pages
        return code, "", error
    try:
        rows = json.loads(last)
    except ValueError:
        return code, last if "INFO" not in last else "", error
    assert noise
    assert noise[0].startswith("[20")
    constant = ("dag_id", "is_paused", "state", "conf", "run_type", "external_trigger", "dag_run_id")
    shown = [(sorted(row), [row.get(name) for name in constant]) for row in rows]
    return code, sorted(shown, key=repr), error  # the database gives them in an order of its own


def differences(real: Any, modelled: Any, where: str = "") -> list[str]:
    """Where keys or types differ; null goes with everything, and of lists the first element is compared."""
    if real is None or modelled is None or where.rsplit(".", 1)[-1] in FREE:
        return []
    if type(real) is not type(modelled):
        return [f"{where}: {real!r}, modelled as {modelled!r}"]
    if isinstance(real, dict):
        missing = [f"{where}: only one of both has {name}" for name in sorted(real.keys() ^ modelled.keys())]
        return missing + [
            found
            for name in real.keys() & modelled.keys()
            for found in differences(real[name], modelled[name], f"{where}.{name}")
        ]
    if isinstance(real, list) and bool(real) != bool(modelled):
        return [f"{where}: {len(real)} elements, modelled as {len(modelled)}"]
    return differences(real[0], modelled[0], f"{where}[]") if isinstance(real, list) and real else []


def test_a_component_that_dies_comes_back(airflow: ProcessAirflow):
    old = airflow._ask({"serving": True})["triggerer"]
    psutil.Process(old).kill()
    until(lambda: airflow._ask({"serving": True}).get("triggerer", old) != old)


def test_stop_destroys_data_and_processes_and_keeps_the_logs(make: Callable[..., ProcessAirflow]):
    airflow = make("second")
    airflow.start()
    assert airflow.rest("GET", "/dags/~/dagRuns", {}, None)[1]["total_entries"] == 0  # its namesake's life is not in it
    run_hello(airflow, "second-run")
    processes, uri = processes_of(airflow), airflow.database_uri
    assert len(processes) > 8

    airflow.stop()
    airflow.stop()  # harmless

    assert not [process for process in processes if process.is_running()]
    assert not airflow.data.exists()
    assert (airflow.logs / "tasks/dag_id=hello/run_id=second-run/task_id=say/attempt=1.log").exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(str(uri))


def test_nothing_outlives_a_killed_parent(make: Callable[..., ProcessAirflow], environ: dict[str, str]):
    airflow = make("orphaned")
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTS, json.dumps([airflow.environment, environ, str(airflow.data.parent)])],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "started\n"
    processes = psutil.Process(parent.pid).children(recursive=True)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until(lambda: not [process for process in processes if process.is_running()], seconds=20)
    until(lambda: not airflow.data.exists(), seconds=20)


STARTS = """
import json, sys, time
from pathlib import Path
from local.airflow_in_memory import DagFolder, InMemoryAirflow, Task
from local.airflow_process import ProcessAirflow
environment, environ, home = json.loads(sys.argv[1])
airflow = ProcessAirflow(name="dev", environment=environment, environ=environ, home=Path(home))
airflow.start()
print("started", flush=True)
time.sleep(600)
"""


def test_a_start_that_fails_says_why_and_leaves_nothing(make: Callable[..., ProcessAirflow]):
    with pytest.raises(AirflowFailed, match=r"Airflow 2\.4\.3 was asked for"):
        make("old", AirflowVersion="2.4.3").start()

    airflow = make("broken", AirflowConfigurationOptions={"logging.logging_config_class": "no.such.CONFIG"})
    with pytest.raises(AirflowFailed, match="could not be imported"):
        airflow.start()
    assert airflow._host is None
    assert not airflow.data.exists()
