"""Puts the sample's files in place: the activity of customers, the Glue scripts, our DAGs and their requirements.

A custom resource. Its properties: EnvironmentBucket, DataBucket. Its attribute: RequirementsVersion, the version id of
requirements.txt. Deleting it deletes nothing: what lies in the buckets stays.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import customer_activity
from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from transient_mwaa.aws.custom_resource import answer, once_allowed

logger = Logger()
s3 = boto3.client("s3")

OURS = Path(__file__).parents[2]
DAGS = Path(os.environ.get("DAGS_FOLDER", "/opt"))
REQUIREMENTS = "requirements.txt"


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: Any) -> dict[str, str]:
    """Puts the sample's files in place, and tells CloudFormation how it went, whatever happens."""
    return answer(event, context, lambda asked: once_allowed(lambda: put_in_place(asked)))


def put_in_place(event: Mapping[str, Any]) -> dict[str, str]:
    """Puts what has changed. A file that is there already keeps its version, so that nothing is updated for nothing."""
    if event["RequestType"] == "Delete":
        return {}
    asked = event["ResourceProperties"]
    environment_bucket, data_bucket = asked["EnvironmentBucket"], asked["DataBucket"]
    put(data_bucket, "raw/customer_activity.csv", activity())
    versions = {key: put(environment_bucket, key, body) for key, body in files()}
    return {"RequirementsVersion": versions[REQUIREMENTS]}


def files() -> Iterator[tuple[str, bytes]]:
    """Key in the environment's bucket, and content."""
    for script in sorted((OURS / "glue").glob("*.py")):
        yield f"glue/{script.name}", script.read_bytes()
    for path in sorted(DAGS.rglob("*")):
        name = path.relative_to(DAGS).as_posix()
        if name.startswith("python/"):  # what the core layer has in the same folder
            continue
        if name == REQUIREMENTS:
            yield REQUIREMENTS, path.read_bytes()
        elif path.suffix == ".py" or path.name == ".airflowignore":
            yield f"dags/{name}", path.read_bytes()


def activity() -> bytes:
    """customer_activity.csv, the same every time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "customer_activity.csv"
        customer_activity.write(path)
        return path.read_bytes()


def put(bucket: str, key: str, body: bytes) -> str:
    """Returns the version id; a bucket without versions gives ""."""
    try:
        there = s3.get_object(Bucket=bucket, Key=key)
        if there["Body"].read() == body:
            return str(there.get("VersionId", ""))
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchKey":
            raise
    logger.info("Putting a file", extra={"bucket": bucket, "key": key})
    return str(s3.put_object(Bucket=bucket, Key=key, Body=body).get("VersionId", ""))
