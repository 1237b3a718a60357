"""One evening's export in a mocked account, with real Parquet and real ciphertext, and an Airflow that answers."""

import hashlib
import importlib.util
import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from botocore.awsrequest import AWSResponse

from tests.functions.sums_by_hand import by_hand
from transient_mwaa.aws import passing
from transient_mwaa.aws.airflow_rest import AirflowRest
from transient_mwaa.aws.encryption import Encryption
from transient_mwaa.aws.mwaa import Mwaa
from transient_mwaa.domain import layout
from transient_mwaa.domain.manifest import EXPECTED_TABLES, KEYS

ENVIRONMENT = "dev"
EXPORT_ID = "20261122T230501Z-1a2b3c4d"
CREATED_AT = datetime(2026, 11, 22, 8, tzinfo=UTC)
INCARNATION = CREATED_AT.isoformat()
OWNER = "arn:aws:states:us-east-1:123456789012:execution:spin-down:evening"
LEASE = {"owner": OWNER, "fence": "7"}
KNOWN_DAGS = ["db_export_dag", "etl", "paused_by_a_human"]
FUNCTIONS = Path(__file__).parents[2] / "functions"

AT = datetime(2026, 11, 22, 20, 0, 0, 123456, tzinfo=UTC)
DAG_RUN = {
    "dag_id": (pa.string(), "text", ["etl", "etl", "load", "load"]),
    "run_id": (pa.string(), "text", ["1", "2", "1", "2"]),
    "id": (pa.int32(), "integer", [1, 2, 3, None]),
    "huge": (pa.int64(), "integer", [2**63 - 1, 2**63 - 1, -(2**63), None]),
    "external": (pa.bool_(), "boolean", [True, None, False, True]),
    "share": (pa.float64(), "float", [float("nan"), -0.0, float("-inf"), 5e-324]),
    "started": (pa.timestamp("us", "UTC"), "timestamp", [AT, datetime(1, 1, 1, tzinfo=UTC), None, AT]),
    "naive": (pa.timestamp("us"), "timestamp", [AT.replace(tzinfo=None), None, None, datetime(9999, 12, 31)]),  # noqa: DTZ001
    "note": (pa.string(), "text", ["", 'line\nbreak, "quoted" \x00', "Zürich \U0001f600", "\uffff"]),
    "conf": (pa.binary(), "bytes", [b"\x80\x05}\x94.", b"", None, b"\xff\xfe"]),
    "never": (pa.string(), "text", [None, None, None, None]),
}
PLAIN = {"id": (pa.int64(), "integer", [1, 2]), "name": (pa.string(), "text", ["a", None])}
EMPTY = {"id": (pa.int64(), "integer", []), "name": (pa.string(), "text", [])}
HISTORY = {
    "environment": (pa.string(), "text", [ENVIRONMENT] * 3),
    "exported_at": (pa.timestamp("us", "UTC"), "timestamp", [AT] * 3),
    "run_id": (pa.string(), "text", ["a", "b", "c"]),
}
SECRETS = {
    "variable": [{"key": "token", "val": "hunter2", "is_encrypted": True}],
    "connection": [{"conn_id": "db", "password": "hunter2", "extra": None}, {"conn_id": "s3", "password": None}],
    "trigger": [],
    "ab_user": [{"username": "admin", "password": "pbkdf2:hunter2"}],
}
Columns = dict[str, tuple[pa.DataType, str, list[Any]]]


def keyed(table: str, columns: Columns) -> Columns:
    """The columns, with the table's own keys before them."""
    rows = range(len(next(iter(columns.values()))[2]))
    keys: Columns = {name: (pa.string(), "text", [f"{name} {row}" for row in rows]) for name in KEYS.get(table, ())}
    return {**keys, **columns}


def parquet(columns: Columns) -> bytes:
    schema = pa.schema([(name, kind) for name, (kind, _, _) in columns.items()])
    table = pa.table([pa.array(values, kind) for kind, _, values in columns.values()], schema=schema)
    body = io.BytesIO()
    pq.write_table(table, body, compression="zstd", row_group_size=3)
    return body.getvalue()


@dataclass
class Context:
    """What Lambda tells a handler about itself."""

    function_name: str = "step"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:123456789012:function:step"
    aws_request_id: str = "request"


class Airflow:
    """MWAA and the Airflow behind it, answering boto3 at the HTTP level."""

    def __init__(self) -> None:
        self.environment: dict[str, Any] | None = {
            "Name": ENVIRONMENT,
            "Status": "AVAILABLE",
            "CreatedAt": CREATED_AT.timestamp(),
            "ExecutionRoleArn": "arn:aws:iam::123456789012:role/service-role/airflow-dev",
            "SourceBucketArn": "arn:aws:s3:::airflow-dev",
            "DagS3Path": "dags",
            "EnvironmentClass": "mw1.small",
            "NetworkConfiguration": {"SubnetIds": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]},
            "AirflowConfigurationOptions": {"smtp.smtp_password": "hunter2"},
            "Tags": {"team": "data"},
        }
        self.totals = {"connections": 2, "dagRuns": 4, "pools": 2, "taskInstances": 2, "variables": 1}
        self.dags = [{"dag_id": "etl", "is_paused": True}, {"dag_id": "db_export_dag", "is_paused": False}]
        self.dag_runs: list[dict[str, Any]] = []
        self.task_instances: list[dict[str, Any]] = []
        self.event_logs: list[dict[str, Any]] = [{"event_log_id": 3, "dag_id": "db_export_dag", "event": "success"}]
        self.calls: list[str] = []
        self.refusal: tuple[int, str, str] | None = None
        self.before_delete: Any = None
        self.client = passing.new_client("mwaa")
        self.client.meta.events.register_first("before-send.mwaa", self._answer)

    @property
    def deleted(self) -> bool:
        return "DELETE" in self.calls

    def _answer(self, request: Any, **_: Any) -> AWSResponse:
        if request.method == "DELETE":
            return self._delete(request)
        if "/restapi/" in request.url:
            self.calls.append("REST")
            asked = json.loads(request.body)
            answer = self._rest(asked["Path"], asked.get("QueryParameters") or {}, asked.get("Body") or {})
            return reply(request, 200, {"RestApiStatusCode": 200, "RestApiResponse": answer})
        self.calls.append("GET")
        if self.environment is None:
            return reply(request, 404, {"message": "Environment dev not found."}, "ResourceNotFoundException")
        return reply(request, 200, {"Environment": self.environment})

    def _delete(self, request: Any) -> AWSResponse:
        self.calls.append("DELETE")
        if self.refusal:
            status, name, message = self.refusal
            return reply(request, status, {"message": message}, name)
        assert self.environment
        self.environment["Status"] = "DELETING"
        return reply(request, 200, {})

    def _rest(self, path: str, query: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        kind = path.removesuffix("/list").rsplit("/", 1)[-1]
        rows = {
            "dags": self.dags,
            "dagRuns": self.dag_runs,
            "taskInstances": self.task_instances,
            "eventLogs": sorted(self._logged_after(query.get("after")), key=lambda row: -row["event_log_id"]),
            "datasets": [],
        }.get(kind, [])
        asks_for_total = query.get("limit") == 1 or body.get("page_limit") == 1
        total = self.totals.get(kind, 0) if asks_for_total else len(rows)
        member = {"dagRuns": "dag_runs", "taskInstances": "task_instances", "eventLogs": "event_logs"}.get(kind, kind)
        return {member: rows, "total_entries": total}

    def _logged_after(self, since: str | None) -> list[dict[str, Any]]:
        if since is None:
            return self.event_logs
        stamped = [row for row in self.event_logs if row.get("when")]
        return [row for row in stamped if datetime.fromisoformat(row["when"]) > datetime.fromisoformat(since)]


def reply(request: Any, status: int, body: dict[str, Any], error: str = "") -> AWSResponse:
    class Raw(io.BytesIO):
        def stream(self, **_: Any) -> Any:
            yield self.read()

    headers = {"x-amzn-errortype": error} if error else {}
    return AWSResponse(request.url, status, headers, Raw(json.dumps(body).encode()))


class Night:
    """The evening up to the export's success. Change `files` or the manifest, then run the steps."""

    def __init__(self, now: datetime, key_arn: str, functions: dict[str, ModuleType]) -> None:
        self.now = now
        self.encryption = Encryption(key_arn)
        self._warm = functions
        self.s3 = passing.client("s3")
        self.s3.create_bucket(Bucket="data")
        self.s3.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Enabled"})
        self.dynamodb = passing.client("dynamodb")
        self.dynamodb.create_table(
            TableName="records",
            KeySchema=[{"AttributeName": "environment", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "environment", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        lease = {"lease_owner": {"S": OWNER}, "lease_fence": {"N": "7"}}
        self.dynamodb.put_item(TableName="records", Item={"environment": {"S": ENVIRONMENT}, **lease})
        self.airflow = Airflow()
        self.event: dict[str, Any] = {}
        self.manifest = self._export()
        owed = {"environment": ENVIRONMENT, "dag_ids": ["etl"], "since": now.isoformat(), "known": KNOWN_DAGS}
        self.put(layout.owed_dags(ENVIRONMENT), json.dumps(owed).encode())

    def put(self, key: str, body: bytes) -> str:
        return str(self.s3.put_object(Bucket="data", Key=key, Body=body)["VersionId"])

    def read(self, key: str) -> Any:
        return json.loads(self.s3.get_object(Bucket="data", Key=key)["Body"].read())

    def names(self, prefix: str = "") -> list[str]:
        return [row["Key"] for row in self.s3.list_objects_v2(Bucket="data", Prefix=prefix).get("Contents", [])]

    def store(self, entry: dict[str, Any], body: bytes, *, promised: bool = True) -> None:
        """Puts bytes under a file's key, and into its promise."""
        entry["version_id"] = self.put(entry["key"], body)
        if promised:
            entry.update(bytes=len(body), sha256=hashlib.sha256(body).hexdigest())

    def _file(self, table: str, role: str, columns: Columns) -> dict[str, Any]:
        part_of = layout.snapshot_part if role == "snapshot" else layout.history_part
        rows = len(next(iter(columns.values()))[2])
        full = [name for name, (_, _, values) in columns.items() if None not in values]
        entry = {
            "table": table,
            "role": role,
            "part": 0,
            "key": part_of(ENVIRONMENT, EXPORT_ID, table, 0),
            "rows": rows,
            "schema": [[name, str(kind)] for name, (kind, _, _) in columns.items()],
            "key_columns": full[:1],
            "sums": {name: by_hand(measure, values) for name, (_, measure, values) in columns.items()},
        }
        self.store(entry, parquet(columns))
        return entry

    def _export(self) -> dict[str, Any]:
        snapshot = dict.fromkeys(("dag", "log", "log_template", "slot_pool", "task_instance", "ab_user"), PLAIN) | {
            "dag_run": DAG_RUN,
            "trigger": EMPTY,
            "xcom": EMPTY,
        }
        files = [self._file(table, "snapshot", keyed(table, columns)) for table, columns in snapshot.items()]
        files += [self._file(table, "history", HISTORY) for table in ("dag_run", "task_instance")]
        tables = {
            file["table"]: {"rows": file["rows"], "carried": "snapshot", "reason": None}
            for file in files
            if file["role"] == "snapshot"
        }
        for name in EXPECTED_TABLES["2"] - tables.keys():
            tables[name] = {"rows": 0, "carried": "snapshot", "reason": None}
        for name in ("variable", "connection"):
            tables[name] = {"rows": len(SECRETS[name]), "carried": "secrets", "reason": None}
        tables["ab_user"]["rows"] = 2
        secrets = dict(SECRETS, ab_user=[*SECRETS["ab_user"], {"username": "guest", "password": ""}])
        snapshot_at = self.now - timedelta(minutes=10)
        manifest = {
            "manifest_version": 1,
            "mode": "complete",
            "export_id": EXPORT_ID,
            "environment": ENVIRONMENT,
            "incarnation": INCARNATION,
            "dag_id": "db_export_dag",
            "run_id": EXPORT_ID,
            "reader": "database",
            "airflow_version": "2.11.2",
            "alembic_revision": "5f2621c13b39",
            "snapshot_at": snapshot_at.isoformat(),
            "max_log_id": 2,
            "history": {
                "since": None,
                "watermark": (snapshot_at - timedelta(minutes=1)).isoformat(),
                "rows": {file["table"]: file["rows"] for file in files if file["role"] == "history"},
            },
            "tables": tables,
            "files": files,
            "secrets": {
                "key": layout.secrets(ENVIRONMENT, EXPORT_ID),
                "rows": {kind: len(rows) for kind, rows in secrets.items()},
            },
        }
        self.seal(manifest["secrets"], json.dumps(secrets).encode())
        return manifest

    def seal(self, entry: Any, plaintext: bytes, **context: str) -> None:
        """Encrypts and promises the secrets; `context` changes the encryption context."""
        usual = {"environment": ENVIRONMENT, "export_id": EXPORT_ID, "content": "secrets"}
        self.store(entry, self.encryption.encrypt(plaintext, usual | context))

    def file(self, table: str, role: str = "snapshot") -> dict[str, Any]:
        return next(file for file in self.manifest["files"] if (file["table"], file["role"]) == (table, role))

    # ------------------------------------------------------------ the steps

    def function(self, name: str) -> ModuleType:
        """A function, loaded once as a cold start does it."""
        if name not in self._warm:
            spec = importlib.util.spec_from_file_location(f"functions_{name}", FUNCTIONS / name / "app.py")
            assert spec
            assert spec.loader
            self._warm[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(self._warm[name])
        module = self._warm[name]
        if hasattr(module, "rest"):
            module.rest = AirflowRest(self.airflow.client, pause_for=lambda _: None)
        if hasattr(module, "secrets"):
            module.secrets._encryption = self.encryption  # each mocked account has a key of its own
        if hasattr(module, "last_look"):
            module.last_look._rest = module.rest
        if hasattr(module, "deletion"):
            module.deletion._last_look._rest = AirflowRest(self.airflow.client, pause_for=lambda _: None)
            module.deletion._mwaa = Mwaa(self.airflow.client)
            module.deletion._encryption = self.encryption
        return module

    def run(self, name: str, **more: Any) -> dict[str, Any]:
        answer = self.function(name).handler({**self.event, **more}, Context())
        assert json.loads(json.dumps(answer)) == answer
        return dict(answer)

    def becomes_an_extract(self) -> None:
        """From now on the manifest is that of a history extract."""
        files = [file for file in self.manifest["files"] if file["role"] == "history"]
        self.manifest = {**self.manifest, "mode": "history", "tables": {}, "files": files, "secrets": None}

    def read_manifest(self) -> dict[str, Any]:
        """Writes the manifest as it is now and reads it as the evening does."""
        self.put(layout.manifest(ENVIRONMENT, EXPORT_ID), json.dumps(self.manifest).encode())
        self.event = {"environment": ENVIRONMENT, "export_id": EXPORT_ID, "incarnation": INCARNATION, **LEASE}
        self.event["mode"] = self.manifest["mode"]
        pinned = self.run("read_manifest")
        self.event |= {name: pinned[name] for name in ("manifest_key", "manifest_version_id")}
        return pinned

    def verify(self) -> list[bool]:
        pinned = self.read_manifest()
        return [self.run("verify_file", index=index)["good"] for index in range(pinned["files"])]

    def verify_only(self, table: str) -> dict[str, Any]:
        """Verifies one table's snapshot; its finding."""
        self.read_manifest()
        index = self.manifest["files"].index(self.file(table))
        good = self.run("verify_file", index=index)["good"]
        finding = self.read(layout.finding(ENVIRONMENT, EXPORT_ID, index))
        assert finding["good"] is good
        return dict(finding)

    def judge(self) -> dict[str, Any]:
        """Verifies and judges; the answer, with the reasons' texts."""
        self.verify()
        return self.judge_again()

    def judge_again(self) -> dict[str, Any]:
        answer = self.run("judge_extract" if self.manifest["mode"] == "history" else "judge_export")
        written = self.read(answer["verdict_key"])
        assert written["good"] is answer["good"]
        assert len(written["reasons"]) == answer["reasons"]
        assert written["manifest_version_id"] == self.event["manifest_version_id"]
        return answer | {"texts": written["reasons"]}
