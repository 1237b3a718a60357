"""One environment's day, night and morning in the local cloud, step by step: for the demo and for tests of the whole.

with Story(home) as story:
    story.deploy()
    story.work()
    night = story.sleep()
    morning = story.wake()
    comparison = story.compare()
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow.parquet as pq
from moto.backends import get_backend

from local import finder
from local.cloud import Execution, LocalCloud
from local.comparison import Comparison, Database, Export, compare, read_database
from local.workload.people import EVERY_MINUTE, OWN_DAGS, People, Secrets
from sample import customer_activity
from transient_mwaa.domain.last_look import LOG_AHEAD

ROOT = Path(__file__).parents[1]
STACK = "transient-mwaa"
ENVIRONMENT = "dev"
BUCKET = "airflow-dev-environment"
ROLE = "AmazonMWAA-dev"
HOURS_OF_CATCHUP = 50
GLUE_JOBS = {
    "glue_csv_to_parquet": ("raw/customer_activity.csv", "optimised/customer_activity/"),
    "glue_transform": ("optimised/customer_activity/", "conformed/customer_activity/"),
}

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Chapter:
    """A night or a morning: its execution, and how long it took by the clock on the wall."""

    execution: Execution
    seconds: float

    @property
    def states(self) -> list[tuple[str, float]]:
        return [(name, seconds) for name, _, seconds in self.execution.states]


@dataclass
class Story:
    """The cloud, the environment and what was seen. `told` hears of each step, and of a state when first entered."""

    home: Path
    wait_scale: float = 0.05
    told: Progress = field(default=lambda text: None)

    def __post_init__(self) -> None:
        self.cloud = LocalCloud(self.home, airflow="process", wait_scale=self.wait_scale)
        self.secrets = Secrets()
        self.evening: Database | None = None
        self.morning: Database | None = None
        self.export: Export | None = None
        self.active_before: list[str] = []
        self.active_after: list[str] = []
        self._waking = False

    def __enter__(self) -> Self:
        self.cloud.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cloud.__exit__(kind, error, at)

    # --- the day -----------------------------------------------------------------------------------------------------

    def deploy(self) -> None:
        """The stack, with an evening now and a morning far enough away for a night to be worth it."""
        now = datetime.now(UTC)
        stack = self.cloud.deploy(
            ROOT / "template.yaml",
            {
                "EnvironmentName": ENVIRONMENT,
                "EnvironmentBucketName": BUCKET,
                "SleepAt": now.strftime("%H:%M"),
                "WakeAt": (now + timedelta(hours=10)).strftime("%H:%M"),
                "WorkDays": "MON-SUN",
                "TimeZone": "UTC",
            },
            name=STACK,
        )
        self.data_bucket = stack.outputs["DataBucketName"]
        self.outputs = stack.outputs
        # The database the moment before it is deleted, and the new one before DAGs run in it again.
        self.cloud.before("delete_environment", self._read_evening)
        self.cloud.before("give_back", self._read_morning)

    def create_environment(self) -> None:
        """Bucket, role, network, Glue jobs, and the environment itself, as their owner would have made them."""
        self._make_bucket()
        role = self._make_role()
        self._make_glue_jobs(role)
        started_at = (datetime.now(UTC) - timedelta(hours=HOURS_OF_CATCHUP)).replace(minute=0, second=0, microsecond=0)
        self.cloud.create_environment(
            Name=ENVIRONMENT,
            AirflowVersion="2.11.2",
            EnvironmentClass="mw1.small",
            ExecutionRoleArn=role,
            SourceBucketArn=f"arn:aws:s3:::{BUCKET}",
            DagS3Path="dags",
            RequirementsS3Path="requirements.txt",
            RequirementsS3ObjectVersion=self._requirements_version,
            NetworkConfiguration=self._make_network(),
            WebserverAccessMode="PUBLIC_ONLY",
            MinWorkers=1,
            MaxWorkers=3,
            LoggingConfiguration={"TaskLogs": {"Enabled": True, "LogLevel": "INFO"}},
            AirflowConfigurationOptions={
                "transient_mwaa.bucket": self.data_bucket,
                "transient_mwaa.kms_key_arn": self.outputs["DataKeyArn"],
                "workload.started_at": started_at.isoformat(),
                **self.secrets.options,
            },
            Tags={"team": "sales", "cost-centre": "4711"},
        )
        self.people = People(self.cloud.client("mwaa"), ENVIRONMENT)
        self.airflow_version = self._airflow().version

    def _make_bucket(self) -> None:
        s3 = self.cloud.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        blocks = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
        s3.put_public_access_block(Bucket=BUCKET, PublicAccessBlockConfiguration=dict.fromkeys(blocks, True))
        for folder, prefix in ((ROOT / "dags", "dags"), (ROOT / "local/workload/dags", "dags/workload")):
            for path in sorted(folder.rglob("*.py")):
                s3.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(folder).as_posix()}")
        if (ROOT / "dags/.airflowignore").exists():
            s3.upload_file(str(ROOT / "dags/.airflowignore"), BUCKET, "dags/.airflowignore")
        body = (ROOT / "dags/requirements.txt").read_bytes()
        self._requirements_version = s3.put_object(Bucket=BUCKET, Key="requirements.txt", Body=body)["VersionId"]

    def _make_role(self) -> str:
        iam = self.cloud.client("iam")
        trust = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": ["airflow.amazonaws.com", "airflow-env.amazonaws.com"]},
                    "Action": "sts:AssumeRole",
                }
            ],
        }
        role = iam.create_role(Path="/service-role/", RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(trust))
        iam.attach_role_policy(RoleName=ROLE, PolicyArn=self.outputs["EnvironmentPolicyArn"])
        return str(role["Role"]["Arn"])

    def _make_network(self) -> dict[str, list[str]]:
        ec2 = self.cloud.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.192.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.192.{number}.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
            for number, zone in ((20, "us-east-1a"), (21, "us-east-1b"))
        ]
        group = ec2.create_security_group(VpcId=vpc, GroupName="airflow-dev", Description="MWAA environment dev")
        return {"SubnetIds": subnets, "SecurityGroupIds": [group["GroupId"]]}

    def _make_glue_jobs(self, role: str) -> None:
        s3, glue = self.cloud.client("s3"), self.cloud.client("glue")
        activity = self.home / "customer_activity.csv"
        customer_activity.write(activity)
        s3.upload_file(str(activity), self.data_bucket, "raw/customer_activity.csv")
        for job, (source, destination) in GLUE_JOBS.items():
            s3.upload_file(str(ROOT / f"sample/glue/{job}.py"), self.data_bucket, f"scripts/{job}.py")
            glue.create_job(
                Name=job,
                Role=role,
                GlueVersion="5.0",
                WorkerType="G.1X",
                NumberOfWorkers=2,
                Command={
                    "Name": "glueetl",
                    "PythonVersion": "3",
                    "ScriptLocation": f"s3://{self.data_bucket}/scripts/{job}.py",
                },
                DefaultArguments={
                    "--input": f"s3://{self.data_bucket}/{source}",
                    "--output": f"s3://{self.data_bucket}/{destination}",
                },
            )

    def work(self) -> None:
        """A day's work, until it has come to rest."""
        self.told("Waiting for the DAGs to be parsed")
        self.people.await_dags()
        self.told("Setting variables, connections, a pool; starting DAGs")
        self.people.set_up(self.secrets)
        self.people.unpause()
        self.people.start_dags()
        self.told("Waiting for every run to end")
        self.people.await_runs(HOURS_OF_CATCHUP)
        self.people.leave_notes()
        # Waits are scaled, people are not: a deed of a moment ago would be exported once more, to be safe.
        self.told(f"Going home: what people did shall be {LOG_AHEAD.total_seconds():.0f} seconds old in the evening")
        time.sleep(LOG_AHEAD.total_seconds())

    def glue_runs(self) -> list[dict[str, Any]]:
        """Every Glue job run so far, as Glue describes it."""
        glue = self.cloud.client("glue")
        return [run for job in GLUE_JOBS for run in glue.get_job_runs(JobName=job)["JobRuns"]]

    # --- the night and the morning -----------------------------------------------------------------------------------

    def sleep(self) -> Chapter:
        """Fires the evening's schedule and follows it to its end."""
        self.active_before = self.people.active_dags()
        self.database_uri_before = self._airflow().database_uri
        return self._follow(f"{STACK}-sleep")

    def wake(self) -> Chapter:
        """Fires the morning's schedule and follows it to its end."""
        self._waking = True
        chapter = self._follow(f"{STACK}-wake")
        if chapter.execution.status == "SUCCEEDED":
            self.active_after = self.people.active_dags()
        return chapter

    def _follow(self, schedule: str) -> Chapter:
        began = time.monotonic()
        arn = self.cloud.fire_schedule(schedule)
        told: set[str] = set()
        while True:
            execution = self.cloud.execution(arn)
            for name in execution.path:
                if name not in told:  # a poll is told once
                    self.told(name)
                    told.add(name)
            if execution.status != "RUNNING":
                return Chapter(self.cloud.wait(arn), time.monotonic() - began)
            time.sleep(0.2)

    def _airflow(self) -> Any:
        airflow = self.cloud.environment(ENVIRONMENT)
        if airflow is None:
            raise LookupError(f"Environment {ENVIRONMENT} does not run.")
        return airflow

    def _read(self) -> Database:
        airflow = self._airflow()
        return read_database(airflow.database_uri, airflow.fernet_key)

    def _read_evening(self, event: Any) -> None:
        self.evening = self._read()
        manifest = json.loads(self._object(event["manifest_key"]))
        self.export = Export(manifest["dag_id"], manifest["run_id"], manifest["max_log_id"])

    def _read_morning(self, _: Any) -> None:
        # The evening gives back, too, when it fails; and a second look of the morning comes when DAGs run already.
        if self._waking and self.morning is None:
            self.morning = self._read()

    # --- looking around ----------------------------------------------------------------------------------------------

    def environment_status(self) -> str:
        """MWAA's word for it, or "gone"."""
        mwaa = self.cloud.client("mwaa")
        try:
            return str(mwaa.get_environment(Name=ENVIRONMENT)["Environment"]["Status"])
        except mwaa.exceptions.ResourceNotFoundException:
            return "gone"

    def database_is_gone(self) -> bool:
        """Whether the evening's metadata database no longer answers, and its files are away."""
        socket_folder = Path(str(self.database_uri_before).partition("host=")[2])
        left = [path.parent for path in self.home.glob("environments/*/data/**/PG_VERSION")]
        return not socket_folder.exists() and not left

    def objects(self, prefix: str = "") -> list[tuple[str, int]]:
        """(key, bytes) of the newest version of everything in the data bucket."""
        pages = (
            self.cloud.client("s3").get_paginator("list_objects_v2").paginate(Bucket=self.data_bucket, Prefix=prefix)
        )
        return [(found["Key"], found["Size"]) for page in pages for found in page.get("Contents", ())]

    def _object(self, key: str) -> bytes:
        return bytes(self.cloud.client("s3").get_object(Bucket=self.data_bucket, Key=key)["Body"].read())

    def history_rows(self) -> dict[str, int]:
        """Rows in each table of the lake."""
        rows: Counter[str] = Counter()
        for key, _ in self.objects("export/"):
            rows[key.split("/")[1]] += pq.read_metadata(io.BytesIO(self._object(key))).num_rows
        return dict(sorted(rows.items()))

    def books(self) -> list[dict[str, Any]]:
        """The ledger, in order of time."""
        records = [json.loads(self._object(key)) for key, _ in self.objects("ledger/")]
        return sorted(records, key=lambda record: record["ended_at"])

    def compare(self) -> Comparison:
        """The morning's database, as it was before DAGs ran again, against the evening's. Raises LookupError."""
        if self.evening is None or self.morning is None or self.export is None:
            raise LookupError("There is no night and morning to compare: one of them did not come that far.")
        return compare(self.evening, self.morning, self.export)

    def watch(self, seconds: float = 20, at_most: float = 75) -> tuple[list[str], int]:
        """Watches the awake environment: past runs that ran again, each in words, and how many new intervals ran.

        Looks for at least `seconds`, and goes on until a schedule has gone on or `at_most` seconds are over.
        """
        began = time.monotonic()
        while True:
            time.sleep(1)
            passed = time.monotonic() - began
            if passed >= seconds:
                again, new = self._runs_since()
                if again or new or passed >= at_most:
                    return again, new

    def _runs_since(self) -> tuple[list[str], int]:
        if self.evening is None:
            raise LookupError("There was no evening to compare with.")
        known = {(row["dag_id"], row["run_id"]): row for row in self.evening.rows["dag_run"]}
        newest: dict[str | None, str] = {}
        for row in known.values():
            if row["run_type"] == "scheduled":
                newest[row["dag_id"]] = max(newest.get(row["dag_id"], ""), row["execution_date"] or "")
        again, new = [], 0
        for row in self._read().rows["dag_run"]:
            name = f"{row['dag_id']} {row['run_id']}"
            before = known.get((row["dag_id"], row["run_id"]))
            if before is not None:
                own = row["dag_id"] in OWN_DAGS
                if not own and any(
                    row[column] != before[column] for column in ("start_date", "end_date", "clear_number")
                ):
                    again.append(f"{name} ran a second time")
            elif row["run_type"] == "scheduled":
                if (row["execution_date"] or "") <= newest.get(row["dag_id"], ""):
                    again.append(f"{name} is an interval of the past")
                else:
                    new += 1
            elif row["run_type"] in ("dataset_triggered", "backfill"):
                again.append(f"{name} was started by what lies in the past")
        return again, new

    # --- secrets -----------------------------------------------------------------------------------------------------

    def searched(self) -> finder.Cloud:
        """All places where a secret must not be in clear: buckets, records, histories, messages, and every log."""
        return finder.Cloud(self.cloud.client, (self.home,), self.messages)

    def messages(self) -> Iterator[str]:
        """What was published to every topic."""
        for topic in get_backend("sns")[self.cloud.account][self.cloud.region].topics.values():
            for notification in topic.sent_notifications:
                yield json.dumps(notification, default=str)

    def plaintext_secrets(self) -> set[finder.Finding]:
        """The environment's secrets, wherever they can be read."""
        return finder.find(self.secrets.values, self.searched().places())

    @contextlib.contextmanager
    def canaries(self) -> Iterator[finder.Canaries]:
        """Secrets in clear, planted for as long as the context lasts."""
        planted = finder.Canaries(self.searched(), self.data_bucket, self.home / "canaries")
        planted.plant()
        try:
            yield planted
        finally:
            planted.remove()


__all__ = ["ENVIRONMENT", "EVERY_MINUTE", "STACK", "Chapter", "Story"]
