"""The finder finds: in every packing and in every kind of place; and it stays silent where nothing is."""

from __future__ import annotations

import base64
import gzip
import json
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from local.finder import PACKED, UNREADABLE, Canaries, Cloud, Finder, Finding, Place, find, new_secret

pytestmark = pytest.mark.local

SECRET = "s3cr3t-" + "7f3a9c" * 3


def found(data: bytes, secret: str = SECRET) -> set[str]:
    """Through what the secret was found."""
    return {finding.through for finding in Finder({"password": secret}).look(data, "here")}


@pytest.mark.parametrize("packing", PACKED)
def test_each_packing_is_seen_through(packing: str) -> None:
    assert found(PACKED[packing](SECRET))


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
@pytest.mark.parametrize("after", ["", "z", "zz"])
def test_base64_is_seen_through_at_every_alignment(before: str, after: str) -> None:
    text = base64.b64encode(f"{before}{SECRET}{after}".encode()).decode()
    assert found(f'{{"stdout": "{text}"}}'.encode()) == {"base64"}
    assert found(f"token={text.rstrip('=')}&x=1".encode()) == {"base64"}


def test_url_safe_base64_is_seen_through() -> None:
    raw = bytes([0xFB, 0xEF, 0xFF]) + SECRET.encode()
    assert b"-" in base64.urlsafe_b64encode(raw)
    assert found(base64.urlsafe_b64encode(raw)) == {"base64"}


def test_packings_nest() -> None:
    data = SECRET.encode()
    for _ in range(3):
        data = json.dumps({"blob": base64.b64encode(gzip.compress(data)).decode()}).encode()
    assert found(data) == {"base64 > gzip > base64 > gzip > base64 > gzip"}


@pytest.mark.parametrize("secret", ["mit Ümläuten und 'quotes' und \"mehr\"", "two\nlines of it", "päßwörd-long"])
def test_awkward_values_are_found_in_json_and_in_pickles(secret: str) -> None:
    assert found(json.dumps({"v": secret}).encode(), secret)
    assert found(json.dumps({"v": secret}, ensure_ascii=False).encode(), secret)
    assert found(pickle.dumps({"v": secret}), secret)
    assert found(zlib.compress(secret.encode()), secret)


def test_what_only_looks_packed_does_no_harm() -> None:
    for data in (
        b"\x1f\x8bnot gzip",
        b"PK\x03\x04no zip",
        b"PAR1 no parquet",
        b"x no zlib",
        b"=" * 50,
        os.urandom(5000),
    ):
        assert not found(data)
    assert found(b"x, and then " + SECRET.encode()) == {""}


def test_a_broken_parquet_file_is_no_blind_spot() -> None:
    data = bytearray(PACKED["parquet text"]("harmless"))
    data[20] ^= 0xFF
    assert {finding.secret for finding in Finder({"password": SECRET}).look(bytes(data), "here")} == {UNREADABLE}


def test_ciphertext_is_no_finding() -> None:
    assert not found(bytes(byte ^ 0x5A for byte in SECRET.encode()) * 50)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="Too short to look for: pin"):
        Finder({"pin": "1234"})


def test_findings_name_the_secret_and_never_say_it() -> None:
    findings = find({"password": SECRET}, [Place("s3://b/k", SECRET.encode())])
    assert findings == {Finding("password", "s3://b/k")}
    assert SECRET not in repr(findings)


@pytest.fixture
def cloud(tmp_path: Path) -> Any:
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket="data")
        s3.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Enabled"})
        yield Cloud(lambda service: boto3.client(service, region_name="us-east-1"), (tmp_path,), lambda: ["Asleep."])


def test_every_canary_is_found_and_none_is_left(cloud: Cloud, tmp_path: Path) -> None:
    canaries = Canaries(cloud, "data", tmp_path / "canaries")
    canaries.plant()
    assert {finding.secret for finding in find(canaries.values, cloud.places())} == set(canaries.values)
    canaries.remove()
    assert find(canaries.values, cloud.places()) == set()


def test_notifications_executions_functions_and_names_are_read(cloud: Cloud) -> None:
    value = new_secret()
    cloud.client("s3").put_object(Bucket="data", Key=f"reports/{value}.txt", Body=b"")
    states = cloud.client("stepfunctions")
    definition = json.dumps({"StartAt": "End", "States": {"End": {"Type": "Succeed"}}})
    machine = states.create_state_machine(name="m", definition=definition, roleArn="arn:aws:iam::123456789012:role/x")
    states.start_execution(stateMachineArn=machine["stateMachineArn"], name="e", input=json.dumps({"password": value}))
    seen = {finding.where for finding in find({"password": value}, cloud.places())}
    assert f"s3://data/reports/{value}.txt (metadata)" in seen
    assert "execution e" in seen
    talkative = Cloud(cloud.client, notifications=lambda: [f"Awake, password {value}"])
    assert "notification 0" in {finding.where for finding in find({"password": value}, talkative.places())}


def test_the_database_folder_is_left_out_and_logs_beside_it_are_read(tmp_path: Path) -> None:
    database = tmp_path / "environment" / "database"
    database.mkdir(parents=True)
    (database / "PG_VERSION").write_text("18")
    (database / "1234").write_text(SECRET)
    (tmp_path / "environment" / "scheduler.log").write_text(f"starting with {SECRET}")
    nothing_else = Cloud(lambda service: _Empty(), (tmp_path,))
    where = {finding.where for finding in find({"password": SECRET}, nothing_else.places())}
    assert where == {str(tmp_path / "environment" / "scheduler.log")}


class _Empty:
    """A cloud in which there is nothing: answers every list with no entries."""

    def can_paginate(self, operation: str) -> bool:
        return True

    def get_paginator(self, operation: str) -> _Empty:
        return self

    def paginate(self, **request: Any) -> list[Any]:
        return []

    def list_buckets(self) -> dict[str, Any]:
        return {"Buckets": []}
