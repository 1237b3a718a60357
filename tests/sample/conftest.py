"""An account with the sample's buckets, a door for answers, and functions loaded as Lambda loads them."""

import importlib.util
import json
import os
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from moto import mock_aws
from moto.cloudformation.models import cloudformation_backends
from moto.core import DEFAULT_ACCOUNT_ID

from local.custom_resources import Door

ROOT = Path(__file__).parents[2]
STACK = "arn:aws:cloudformation:us-east-1:123456789012:stack/night-Sample-1ABC/0d1e"
CONTEXT = SimpleNamespace(
    function_name="f", memory_limit_in_mb=256, invoked_function_arn="arn:f", aws_request_id="1",
    get_remaining_time_in_millis=lambda: 300_000,
)  # fmt: skip
WARM = {}
"""Making clients takes far longer than using them."""


def load(path, **variables):
    """A function's module; variables are those of its template."""
    if path not in WARM:
        os.environ.update(variables)
        sys.path.insert(0, str(ROOT / "sample"))
        try:
            spec = importlib.util.spec_from_file_location(f"loaded_{path.parent.name}", path)
            WARM[path] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(WARM[path])
        finally:
            sys.path.remove(str(ROOT / "sample"))
            for name in variables:
                os.environ.pop(name)
    return WARM[path]


@pytest.fixture
def door():
    with Door() as door:
        yield door


@pytest.fixture
def aws():
    with mock_aws():
        s3 = boto3.client("s3")
        for bucket in ("dags", "data"):
            s3.create_bucket(Bucket=bucket)
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        yield SimpleNamespace(s3=s3, dynamodb=boto3.client("dynamodb"))


@pytest.fixture
def stack(aws):
    """Makes a stack and returns its ARN; every stack shows the status that is told."""

    def made(status):
        cloudformation = boto3.client("cloudformation")
        template = json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}})
        arn = cloudformation.create_stack(StackName=f"night-{uuid.uuid4()}", TemplateBody=template)["StackId"]
        cloudformation_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].stacks[arn].status = status
        return arn

    return made


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch):
    monkeypatch.setattr("transient_mwaa.aws.custom_resource.PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr("transient_mwaa.aws.custom_resource.ALLOWED_AFTER", (0.0, 0.0, 0.0, 0.0))
