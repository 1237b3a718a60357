"""A local cloud that was left leaves nothing behind: no process, no port, no change in moto, no state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import pytest
from moto.stepfunctions.parser.asl.jsonata import jsonata as moto_jsonata
from moto.stepfunctions.parser.asl.parse import asl_parser
from moto.stepfunctions.parser.utils import TMP_THREADS

from local.cloud import LocalCloud

from .conftest import SAMPLE, NotingAirflow, environment_request

pytestmark = pytest.mark.local


def test_seams_are_taken_out_again(tmp_path: Path) -> None:
    before = asl_parser.AmazonStateLanguageParser.parse
    with LocalCloud(tmp_path, airflow=lambda **_: None):
        assert asl_parser.AmazonStateLanguageParser.parse is not before
        assert "MOTO_PORT" in os.environ
    assert asl_parser.AmazonStateLanguageParser.parse is before
    assert moto_jsonata._eval_jsonata is None
    assert "MOTO_PORT" not in os.environ


def test_nothing_is_left(tmp_path: Path) -> None:
    with LocalCloud(tmp_path, airflow=NotingAirflow, wait_scale=0.001) as cloud:
        cloud.deploy(SAMPLE)
        airflow = cloud.create_environment(**environment_request(cloud))
        name = cloud.stack.resources["GreetFunction"]
        pid = json.load(cloud.client("lambda").invoke(FunctionName=name, Payload=b"{}")["Payload"])["pid"]
        hanging = cloud.start("tour-test", {"greet": "you", "count": 1})
        endpoint = cloud.endpoint
    assert airflow.stopped == 1
    assert not Path(f"/proc/{pid}").exists()
    assert hanging
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(endpoint, timeout=2)
    with LocalCloud(tmp_path / "next", airflow=NotingAirflow) as cloud:
        assert cloud.client("s3").list_buckets()["Buckets"] == []
        assert cloud.client("mwaa").list_environments()["Environments"] == []
        assert cloud.client("stepfunctions").list_state_machines()["stateMachines"] == []


def test_an_execution_that_ends_by_leaving_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("local.cloud.send_event", lambda *args: told.append(args[-1]["detail"]["status"]))
    with LocalCloud(tmp_path, airflow=NotingAirflow, wait_scale=0.001) as cloud:
        cloud.deploy(SAMPLE)
        before = len(TMP_THREADS)
        cloud.start("tour-test", {"greet": "you", "count": 1})
    for thread in TMP_THREADS[before:]:
        thread.join(20)
    assert told == []


def test_up_stays_until_it_is_told_to_go(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "local", "up", "--home", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, cwd=SAMPLE.parents[3], stdout=subprocess.PIPE, text=True) as up:
        shown: list[str] = []
        for line in up.stdout:
            shown.append(line.strip())
            if line.startswith("# SpinUpArn"):
                break
        endpoint = next(line.partition("=")[2] for line in shown if line.startswith("export AWS_ENDPOINT_URL="))
        machines = boto3.client("stepfunctions", endpoint_url=endpoint, region_name="us-east-1").list_state_machines()
        assert shown[-1].partition(": ")[2] in [each["stateMachineArn"] for each in machines["stateMachines"]]
        up.terminate()
        assert up.wait(20) == 0
