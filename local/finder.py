"""Looks for secret values in clear: every object in every version, every log, every record that the cloud keeps.

A secret is looked for as text in several encodings, inside gzip, zlib and zip, in every value of a Parquet file, and
behind base64, one inside the other to any sensible depth. Ciphertext is no finding: that is what encryption is for.

That nothing was found says something only when the finder can find. So canaries, random values of their own, are put in
clear into every kind of place, and each must be found.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import json
import re
import secrets
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

DEPTH = 8
# From 16 characters on: shorter ones hold nothing worth hiding, and every English word looks like base64.
BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}")
DATABASE_FILES = "PG_VERSION"  # the file that marks PostgreSQL's folder, which is Airflow's own store


UNREADABLE = "(cannot be read)"
"""Stands for a secret in a finding: this Parquet file is broken, so nobody knows what is in it."""


@dataclass(frozen=True)
class Finding:
    """A secret in clear: which one (its name, never its value), where, and through what it was read ("" = plainly)."""

    secret: str
    where: str
    through: str = ""


def new_secret() -> str:
    """A random value that no encoding changes and that nothing contains by chance."""
    return "s" + secrets.token_hex(12)


class Finder:
    """Finds `secrets` ({name: value}) in bytes. Values under 8 characters are refused: they are found anywhere."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        short = [name for name, value in secrets.items() if len(value) < 8]
        if short:
            raise ValueError(f"Too short to look for: {', '.join(short)}.")
        self.needles = [(name, needle) for name, value in secrets.items() for needle in _spellings(value)]

    def look(self, data: bytes, where: str) -> set[Finding]:
        """Every secret that can be read out of these bytes."""
        return set(self._look(data, where, ()))

    def _look(self, data: bytes, where: str, through: tuple[str, ...]) -> Iterator[Finding]:
        for name, needle in self.needles:
            if needle in data:
                yield Finding(name, where, " > ".join(through))
        if len(through) == DEPTH:
            return
        try:
            for how, inner in _unpacked(data):
                yield from self._look(inner, where, (*through, how))
        except (OSError, pa.ArrowException):
            yield Finding(UNREADABLE, where, " > ".join((*through, "parquet")))


def _spellings(value: str) -> set[bytes]:
    """The value in the encodings that a plain search would otherwise overlook."""
    utf8 = value.encode()
    return {
        utf8,
        value.encode("utf-16-le"),
        value.encode("utf-16-be"),
        utf8.hex().encode(),
        json.dumps(value)[1:-1].encode(),
        json.dumps(value, ensure_ascii=False)[1:-1].encode(),
    }


def _unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What lies inside these bytes, with the name of the wrapping."""
    if data.startswith(b"PAR1") and data.endswith(b"PAR1"):
        yield from (("parquet", value) for value in _parquet_values(data))
        return
    if data.startswith(b"\x1f\x8b"):
        inner = _tried(lambda: gzip.decompress(data))
        if inner is not None:
            yield "gzip", inner
        return
    if data.startswith(b"PK\x03\x04"):
        members = _tried(lambda: _zip_members(data))
        yield from (("zip", member) for member in members or ())
        return
    if data[:1] == b"\x78":
        inner = _tried(lambda: zlib.decompress(data))
        if inner is not None:
            yield "zlib", inner
            return
    for match in BASE64.finditer(data):
        inner = _from_base64(match.group())
        if inner is not None:
            yield "base64", inner


def _parquet_values(data: bytes) -> Iterator[bytes]:
    """Text of all columns at once, and each binary value by itself, since it may be packed again."""
    file = pq.ParquetFile(io.BytesIO(data))
    yield json.dumps({_text(key): _text(value) for key, value in (file.schema_arrow.metadata or {}).items()}).encode()
    for batch in file.iter_batches():
        for column in batch.columns:
            if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
                yield from (value for value in column.to_pylist() if value)
            elif not pa.types.is_primitive(column.type):
                yield "\n".join(str(value) for value in column.to_pylist() if value is not None).encode()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _zip_members(data: bytes) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [archive.read(name) for name in archive.namelist()]


def _from_base64(found: bytes) -> bytes | None:
    """What the longest decodable beginning says; None where it is no base64 after all."""
    letters = found.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
    letters = letters[: len(letters) - (len(letters) % 4 == 1)]
    return _tried(lambda: base64.b64decode(letters + b"=" * (-len(letters) % 4)))


def _tried[T](read: Callable[[], T]) -> T | None:
    """What it reads, or None where bytes only look like the format."""
    try:
        return read()
    except (
        OSError,
        EOFError,
        ValueError,
        zlib.error,
        zipfile.BadZipFile,
        binascii.Error,
        NotImplementedError,  # zipfile's word for a compression that it does not know
        KeyError,
    ):
        return None


@dataclass(frozen=True)
class Place:
    """Something the cloud keeps: a name for people, and its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Cloud:
    """All that is to be searched. `client` makes boto3 clients by service name; `folders` hold files on disk.

    notifications  what was published to SNS topics, each as one text: SNS itself keeps no message
    """

    client: Callable[[str], Any]
    folders: tuple[Path, ...] = ()
    notifications: Callable[[], Iterable[str]] = field(default=tuple)

    def places(self) -> Iterator[Place]:
        yield from self._objects()
        yield from self._executions()
        yield from self._logs()
        yield from self._parameters()
        yield from self._items()
        yield from self._functions()
        yield from self._schedules()
        for number, text in enumerate(self.notifications()):
            yield Place(f"notification {number}", text.encode())
        for folder in self.folders:
            yield from files(folder)

    def _objects(self) -> Iterator[Place]:
        s3 = self.client("s3")
        for bucket in (each["Name"] for each in s3.list_buckets()["Buckets"]):
            for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
                for version in page.get("Versions", ()):
                    wanted = {"Bucket": bucket, "Key": version["Key"]}
                    if version["VersionId"] != "null":
                        wanted["VersionId"] = version["VersionId"]
                    answer = s3.get_object(**wanted)
                    name = f"s3://{bucket}/{version['Key']}"
                    if not version["IsLatest"]:
                        name += f" (version {version['VersionId']})"
                    yield Place(name, answer["Body"].read())
                    yield Place(f"{name} (metadata)", _json([version["Key"], answer.get("Metadata")]))

    def _executions(self) -> Iterator[Place]:
        states = self.client("stepfunctions")
        for machine in _pages(states, "list_state_machines", "stateMachines"):
            arn = machine["stateMachineArn"]
            yield Place(f"state machine {machine['name']}", _json(states.describe_state_machine(stateMachineArn=arn)))
            for execution in _pages(states, "list_executions", "executions", stateMachineArn=arn):
                arn = execution["executionArn"]
                name = f"execution {execution['name']}"
                yield Place(name, _json(states.describe_execution(executionArn=arn)))
                history = list(_pages(states, "get_execution_history", "events", executionArn=arn))
                yield Place(f"{name} (history)", _json(history))

    def _logs(self) -> Iterator[Place]:
        logs = self.client("logs")
        for group in _pages(logs, "describe_log_groups", "logGroups"):
            name = group["logGroupName"]
            events = _pages(logs, "filter_log_events", "events", logGroupName=name)
            yield Place(f"log group {name}", "\n".join(event["message"] for event in events).encode())

    def _parameters(self) -> Iterator[Place]:
        ssm = self.client("ssm")
        for parameter in _pages(ssm, "describe_parameters", "Parameters"):
            # A SecureString stays encrypted this way: it is where a secret may be.
            answer = ssm.get_parameter(Name=parameter["Name"], WithDecryption=False)
            yield Place(f"parameter {parameter['Name']}", _json(answer["Parameter"]))

    def _items(self) -> Iterator[Place]:
        dynamodb = self.client("dynamodb")
        for table in _pages(dynamodb, "list_tables", "TableNames"):
            for item in _pages(dynamodb, "scan", "Items", TableName=table):
                yield Place(f"table {table}", _json(item))

    def _functions(self) -> Iterator[Place]:
        functions = self.client("lambda")
        for function in _pages(functions, "list_functions", "Functions"):
            yield Place(f"function {function['FunctionName']}", _json(function))

    def _schedules(self) -> Iterator[Place]:
        scheduler = self.client("scheduler")
        for schedule in _pages(scheduler, "list_schedules", "Schedules"):
            answer = scheduler.get_schedule(Name=schedule["Name"], GroupName=schedule["GroupName"])
            yield Place(f"schedule {schedule['Name']}", _json(answer))


def files(folder: Path) -> Iterator[Place]:
    """Every file below the folder. Not PostgreSQL's own: what Airflow's database stores is Airflow's to protect."""
    if (folder / DATABASE_FILES).exists():
        return
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            continue
        if path.is_dir():
            yield from files(path)
        elif path.is_file():
            yield Place(str(path), path.read_bytes())


def _pages(client: Any, operation: str, result: str, **request: Any) -> Iterator[Any]:
    if not client.can_paginate(operation):
        yield from getattr(client, operation)(**request)[result]
        return
    for page in client.get_paginator(operation).paginate(**request):
        yield from page[result]


def _json(value: Any) -> bytes:
    return json.dumps(value, default=str, ensure_ascii=False).encode()


def find(secrets: Mapping[str, str], places: Iterable[Place]) -> set[Finding]:
    """Every secret in clear, anywhere in the places."""
    finder = Finder(secrets)
    return {finding for place in places for finding in finder.look(place.data, place.name)}


# Canaries ------------------------------------------------------------------------------------------------------------


@dataclass
class Canaries:
    """Secrets of their own, put in clear into every kind of place, and taken away again.

    values    {name: value}, filled by `plant`
    """

    cloud: Cloud
    bucket: str
    folder: Path
    values: dict[str, str] = field(default_factory=dict)

    def plant(self) -> None:
        for name, pack in PACKED.items():
            self._put(f"canaries/{name}", pack(self._new(f"object, {name}")))
        # Gone at first sight, and still in the bucket: overwritten, and deleted.
        self._put("canaries/overwritten", self._new("object, older version").encode())
        self._put("canaries/overwritten", b"harmless")
        self._put("canaries/deleted", self._new("object, deleted").encode())
        self.cloud.client("s3").delete_object(Bucket=self.bucket, Key="canaries/deleted")

        logs = self.cloud.client("logs")
        logs.create_log_group(logGroupName="canaries")
        logs.create_log_stream(logGroupName="canaries", logStreamName="canary")
        now = int(time.time() * 1000)  # CloudWatch Logs takes events of about now only
        line = f"INFO the password is {self._new('log line')}"
        logs.put_log_events(
            logGroupName="canaries", logStreamName="canary", logEvents=[{"timestamp": now, "message": line}]
        )
        self.cloud.client("ssm").put_parameter(Name="/canaries/canary", Type="String", Value=self._new("parameter"))
        dynamodb = self.cloud.client("dynamodb")
        dynamodb.create_table(
            TableName="canaries",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
        dynamodb.put_item(TableName="canaries", Item={"id": {"S": "canary"}, "value": {"S": self._new("table item")}})
        self.folder.mkdir(parents=True, exist_ok=True)
        log = f"[2026-01-01T00:00:00+0000] INFO - conn {self._new('log file')}\n"
        (self.folder / "canary.log").write_text(log, encoding="utf-8")
        (self.folder / "canary.log.gz").write_bytes(gzip.compress(self._new("log file, gzip").encode()))

    def remove(self) -> None:
        """Takes everything away again, all versions."""
        s3 = self.cloud.client("s3")
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix="canaries/"):
            for version in [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]:
                s3.delete_object(Bucket=self.bucket, Key=version["Key"], VersionId=version["VersionId"])
        self.cloud.client("logs").delete_log_group(logGroupName="canaries")
        self.cloud.client("ssm").delete_parameter(Name="/canaries/canary")
        self.cloud.client("dynamodb").delete_table(TableName="canaries")
        for name in ("canary.log", "canary.log.gz"):
            (self.folder / name).unlink()
        self.folder.rmdir()

    def _new(self, name: str) -> str:
        self.values[name] = new_secret()
        return self.values[name]

    def _put(self, key: str, data: bytes) -> None:
        self.cloud.client("s3").put_object(Bucket=self.bucket, Key=key, Body=data)


def _base64_in_json(value: str) -> bytes:
    return _json({"stdout": base64.b64encode(f"the value is {value}".encode()).decode()})


def _parquet(values: pa.Array) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"id": pa.array([1] * len(values)), "value": values}), file, compression="zstd")
    return file.getvalue()


def _zip(value: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("variables.json", json.dumps({"token": value}))
    return file.getvalue()


PACKED: Mapping[str, Callable[[str], bytes]] = {
    "plain text": lambda value: f"password={value}\n".encode(),
    "json": lambda value: _json({"variable": [{"key": "token", "val": value}]}),
    "utf-16": lambda value: f"password {value}".encode("utf-16"),
    "gzip": lambda value: gzip.compress(value.encode()),
    "zip": _zip,
    "base64 in json": _base64_in_json,
    "gzip in base64 in gzip": lambda value: gzip.compress(base64.b64encode(gzip.compress(value.encode()))),
    "parquet text": lambda value: _parquet(pa.array(["harmless", f"conn://user:{value}@host"])),
    "parquet binary": lambda value: _parquet(pa.array([b"\x80\x05", f"pickled {value}".encode()], pa.binary())),
    "parquet binary, gzip": lambda value: _parquet(pa.array([gzip.compress(value.encode())], pa.binary())),
}
