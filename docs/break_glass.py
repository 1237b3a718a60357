"""Brings a sleeping environment back by hand, from the data bucket and without the stack: see break-glass.md.

    python3 break_glass.py ENVIRONMENT BUCKET [TABLE]

BUCKET holds the exports, TABLE the records (leave it out only if it is gone). It creates the environment from its last
blueprint, waits, lets db_restore_dag restore the last verified export, gives back the DAGs that were active, and
corrects the record. It deletes nothing and prints no configuration. Stopped at any point, it is simply started again.
"""
# ruff: noqa: T201, UP017 - it talks to a human, in a shell with whatever Python it has (3.9 or newer)

from __future__ import annotations

import base64
import hashlib
import json
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import boto3
from aws_encryption_sdk import CommitmentPolicy, DiscoveryAwsKmsMasterKeyProvider, EncryptionSDKClient
from aws_encryption_sdk.exceptions import AWSEncryptionSDKClientError
from botocore.exceptions import ClientError, ParamValidationError

ME = "break-glass"  # as owner of the lease; no state machine acts while it stands in the record
RESTORE = "/dags/db_restore_dag"
FILES = {"requirements": "Requirements", "plugins": "Plugins", "startup_script": "StartupScript"}


class Stop(Exception):
    """A human has to look at something first."""


def wait_for(what: str, look: Callable[[], Any], minutes: int) -> Any:
    """What `look` finds, asked every 30 seconds; None after so many minutes."""
    for _ in range(minutes * 2):
        if found := look():
            return found
        print(f"{datetime.now(timezone.utc):%H:%M:%S} {what}", flush=True)
        time.sleep(30)
    return None


# ---------------------------------------------------------------- nobody else may act


def take_lease(table: str, name: str) -> str:
    """From nobody, from ourselves, or from an execution that has ended; answers which incarnation has its memory."""
    dynamodb, key = boto3.client("dynamodb"), {"environment": {"S": name}}
    item = dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item", {})
    owner = item.get("lease_owner", {}).get("S", "")
    if owner not in ("", ME) and is_running(owner):
        raise Stop(f"{owner} is at work. Let it end, or: aws stepfunctions stop-execution --execution-arn {owner}")
    try:
        dynamodb.update_item(
            TableName=table,
            Key=key,
            UpdateExpression="SET lease_owner = :me, lease_taken_at = :now ADD lease_fence :one",
            ConditionExpression="attribute_not_exists(lease_owner) OR lease_owner = :owner",
            ExpressionAttributeValues={
                ":me": {"S": ME},
                ":owner": {"S": owner},
                ":now": {"S": datetime.now(timezone.utc).isoformat(timespec="seconds")},
                ":one": {"N": "1"},
            },
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        raise Stop("Somebody else was quicker. Start this again to see who.") from None
    return str(item.get("restored_incarnation", {}).get("S", ""))


def is_running(execution: str) -> bool:
    """False also for an execution that Step Functions does not know any more."""
    try:
        found = boto3.client("stepfunctions").describe_execution(executionArn=execution)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ExecutionDoesNotExist":
            raise
        return False
    return found["status"] in ("RUNNING", "PENDING_REDRIVE")


def end_lease(table: str, name: str, what: str = "", **values: str) -> None:
    """Frees the lease if it is ours; `what` is a SET clause before it."""
    boto3.client("dynamodb").update_item(
        TableName=table,
        Key={"environment": {"S": name}},
        UpdateExpression=f"{what} REMOVE lease_owner".strip(),
        ConditionExpression="lease_owner = :me",
        ExpressionAttributeValues={":me": {"S": ME}, **{f":{key}": {"S": value} for key, value in values.items()}},
    )


# ---------------------------------------------------------------- what lies in the bucket


def read(bucket: str, key: str, **version: str) -> bytes | None:
    """An object's bytes; None if there is none."""
    try:
        body: bytes = boto3.client("s3").get_object(Bucket=bucket, Key=key, **version)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("NoSuchKey", "NoSuchVersion"):
            raise
        return None
    return body


def write_json(bucket: str, key: str, value: dict[str, Any]) -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=json.dumps(value), ContentType="application/json")


def last_export(bucket: str, name: str) -> tuple[dict[str, Any], datetime]:
    """The pointer to the last verified export, and the moment whose memory it holds."""
    pointer = json.loads(read(bucket, f"environments/{name}/verified_export.json") or b"{}")
    if not pointer:
        raise Stop(f"s3://{bucket} holds no verified export of {name}. Check the bucket, the name and the region.")
    manifest = read(bucket, pointer["manifest_key"], VersionId=pointer["manifest_version_id"])
    if manifest is None or hashlib.sha256(manifest).hexdigest() != pointer["manifest_sha256"]:
        raise Stop(f"{pointer['manifest_key']} is not what was verified. Bring that version of the object back.")
    taken_at = datetime.fromisoformat(json.loads(manifest)["snapshot_at"])
    print(f"Memory: the export {pointer['export_id']}, as of {taken_at}.")
    return pointer, taken_at


def last_blueprint(bucket: str, name: str) -> dict[str, Any]:
    """The newest blueprint, whole."""
    pages = boto3.client("s3").get_paginator("list_objects_v2")
    found = [
        item
        for page in pages.paginate(Bucket=bucket, Prefix=f"environments/{name}/blueprints/")
        for item in page.get("Contents", [])
    ]
    if not found:
        raise Stop(f"s3://{bucket} holds no blueprint of {name}. Check the bucket, the name and the region.")
    key = max(found, key=lambda item: item["LastModified"])["Key"]
    body = read(bucket, key) or b""
    if hashlib.sha256(body).hexdigest() not in key:
        raise Stop(f"{key} is not what was written. Bring its first version back.")
    document: dict[str, Any] = json.loads(body)
    print(f"Configuration: {key}, as of {document['written_at']}.")
    return document


def secret_options(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The members of the request that lie encrypted; in memory only."""
    policy = CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
    sdk = EncryptionSDKClient(commitment_policy=policy, max_encrypted_data_keys=1)
    sealed = base64.b64decode(document["sensitive"])
    try:
        clear, header = sdk.decrypt(source=sealed, key_provider=DiscoveryAwsKmsMasterKeyProvider())
    except AWSEncryptionSDKClientError as error:
        raise Stop(f"KMS does not open the configuration ({type(error).__name__}). You need kms:Decrypt.") from None
    context = header.encryption_context
    if (context.get("environment"), context.get("content")) != (name, "blueprint"):
        raise Stop(f"The encrypted configuration is not that of {name}.")
    opened: dict[str, Any] = json.loads(clear)
    return opened


def put_back_files(bucket: str, document: dict[str, Any]) -> dict[str, str]:
    """Requirements, plugins and startup script from our copies, where the recorded version is gone."""
    versions = {}
    for ours, file in document["files"].items():
        if read(file["bucket"], file["path"], VersionId=file["version_id"]) is None:
            copy = read(bucket, file["copy_key"]) or b""
            if hashlib.sha256(copy).hexdigest() != file["sha256"]:
                raise Stop(f"{file['copy_key']} is not what was copied. Bring its first version back.")
            print(f"Putting {file['path']} back into {file['bucket']}.")
            put = boto3.client("s3").put_object(Bucket=file["bucket"], Key=file["path"], Body=copy)
            versions[f"{FILES[ours]}S3ObjectVersion"] = put["VersionId"]
    return versions


# ---------------------------------------------------------------- the environment


def environment_of(name: str) -> dict[str, Any] | None:
    """MWAA's answer once it is settled, with the status DELETED for none; None while it changes."""
    try:
        found: dict[str, Any] = boto3.client("mwaa").get_environment(Name=name)["Environment"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        return {"Status": "DELETED"}
    settled = ("AVAILABLE", "UPDATE_FAILED", "CREATE_FAILED", "UNAVAILABLE", "DELETED")
    return found if found["Status"] in settled else None


def create(bucket: str, name: str) -> None:
    document = last_blueprint(bucket, name)
    secrets = secret_options(document, name)
    request = {**document["request"], **secrets, **put_back_files(bucket, document)}
    try:
        boto3.client("mwaa").create_environment(**request)
    except ParamValidationError:  # it quotes what it does not like
        raise Stop("This botocore does not take the recorded request. Update boto3.") from None
    except ClientError as error:
        told = str(error)
        for value in sorted(secrets.get("AirflowConfigurationOptions", {}).values(), key=len, reverse=True):
            told = told.replace(value, "***") if value else told
        raise Stop(f"MWAA does not take the request: {told}") from None


def awake(bucket: str, name: str, taken_at: datetime) -> dict[str, Any]:
    """The new environment, created if it is not there."""
    found = wait_for(f"{name} is changing", lambda: environment_of(name), minutes=240)
    if found and found["Status"] == "DELETED":
        create(bucket, name)

        def born() -> dict[str, Any] | None:
            new = environment_of(name)
            return None if new and new["Status"] == "DELETED" else new  # MWAA may need a moment to know it

        found = wait_for(f"{name} is being created (20 to 30 minutes)", born, minutes=240)
    if found is None:
        raise Stop(f"{name} has not settled in 4 hours. Look at it in the MWAA console.")
    if found["CreatedAt"] <= taken_at:
        raise Stop(
            f"{name} (created {found['CreatedAt']}) is older than its export: it has its memory, and nothing is to be "
            "restored. If it was deleted a moment ago, start again in 15 minutes; otherwise unpause its DAGs by hand."
        )
    if found["Status"] not in ("AVAILABLE", "UPDATE_FAILED"):
        why = found.get("LastUpdate", {}).get("Error", {})
        raise Stop(f"{name} is {found['Status']}: {why.get('ErrorMessage', 'MWAA does not say why')}.")
    return dict(found)


# ---------------------------------------------------------------- Airflow


def rest(name: str, method: str, path: str, **more: Any) -> Any:
    """Airflow's answer; None, and a line, when it has none but an error."""
    try:
        return boto3.client("mwaa").invoke_rest_api(Name=name, Method=method, Path=path, **more)["RestApiResponse"]
    except ClientError as error:
        if not error.response["Error"]["Code"].startswith("RestApi"):
            raise
        print(f"Airflow answers {method} {path} with {error.response.get('RestApiStatusCode', 'an error')}.")
        return None


def is_restored(name: str, export_id: str) -> bool:
    """Whether the newest mark of a restore, which it leaves in the transaction of its rows, is of this export."""
    newest = {"event": "transient_mwaa_restore", "order_by": "-event_log_id", "limit": 1}
    found = rest(name, "GET", "/eventLogs", QueryParameters=newest) or {"event_logs": []}
    return any(json.loads(entry["extra"])["export_id"] == export_id for entry in found["event_logs"])


def restore(bucket: str, name: str, incarnation: str, export: dict[str, Any]) -> None:
    """Orders the restore and waits for it. One that goes on or has succeeded is not ordered again."""
    key = f"environments/{name}/restore_order.json"
    order = json.loads(read(bucket, key) or b"{}")
    ours = (order.get("export_id"), order.get("incarnation")) == (export["export_id"], incarnation)
    before = rest(name, "GET", f"{RESTORE}/dagRuns/{order['restore_id']}") if ours else None
    goes_on = before is not None and before["state"] not in ("success", "failed")
    if not goes_on and is_restored(name, export["export_id"]):
        return
    if not goes_on:
        now = datetime.now(timezone.utc)
        of_export = ("export_id", "manifest_key", "manifest_version_id", "manifest_sha256")
        order = {
            **{member: export[member] for member in of_export},
            "restore_id": f"{ME}-{now:%Y%m%dT%H%M%SZ}",
            "incarnation": incarnation,
            "ordered_at": now.isoformat(),
            "accept_clashes": False,
        }
        write_json(bucket, key, order)

    def ended() -> str | None:
        run = rest(name, "GET", f"{RESTORE}/dagRuns/{order['restore_id']}")
        if run:
            return str(run["state"]) if run["state"] in ("success", "failed") else None
        if dag := rest(name, "GET", RESTORE):
            if dag["is_paused"]:
                rest(name, "PATCH", RESTORE, Body={"is_paused": False})
            rest(name, "POST", f"{RESTORE}/dagRuns", Body={"dag_run_id": order["restore_id"], "conf": {}})
        return None

    wait_for("The memory is being restored", ended, minutes=240)
    if not is_restored(name, export["export_id"]):  # anybody can mark a run as success
        raise Stop(
            f"The run {order['restore_id']} of db_restore_dag has not succeeded, and nothing is half restored. See its "
            "log and the import errors in Airflow, mend that (runbook.md names the errors), then start this again."
        )


def give_back(bucket: str, name: str) -> list[str]:
    """Unpauses the DAGs that were active; answers those that are not active in the end. They stay owed."""
    key = f"environments/{name}/owed_dags.json"
    owed = json.loads(read(bucket, key) or b'{"dag_ids": []}')
    left: set[str] = set(owed["dag_ids"])

    def all_back() -> bool:
        for dag in dags(name):
            path = f"/dags/{dag['dag_id']}"
            due, next_run = owed.get("next_runs", {}).get(dag["dag_id"]), dag.get("next_dagrun_create_after")
            repeats = due and next_run and datetime.fromisoformat(next_run) < datetime.fromisoformat(due)
            if dag["dag_id"] not in left or repeats or len(path) > 64:  # MWAA takes no longer path
                continue
            if not dag["is_paused"] or rest(name, "PATCH", path, Body={"is_paused": False}):
                left.discard(dag["dag_id"])
        return not left

    wait_for("Waiting for DAGs to be parsed", all_back, minutes=15)
    if set(owed["dag_ids"]) != left:
        write_json(bucket, key, {**owed, "dag_ids": sorted(left)})
    return sorted(left)


def dags(name: str) -> list[dict[str, Any]]:
    """All DAGs that are parsed now."""
    found: list[dict[str, Any]] = []
    while page := rest(name, "GET", "/dags", QueryParameters={"limit": 100, "offset": len(found)}):
        found += page["dags"]
        if not page["dags"] or len(found) >= page["total_entries"]:
            break
    return found


# ---------------------------------------------------------------- all of it


def bring_back(name: str, bucket: str, table: str, restored: str) -> list[str]:
    """Answers the DAGs that are still owed their activity. The incarnation `restored` has its memory already."""
    export, taken_at = last_export(bucket, name)
    environment = awake(bucket, name, taken_at)
    incarnation = environment["CreatedAt"].astimezone(timezone.utc).replace(microsecond=0).isoformat()
    if incarnation != restored:
        restore(bucket, name, incarnation, export)
    left = give_back(bucket, name)
    url = (
        environment["WebserverUrl"]
        if "://" in environment["WebserverUrl"]
        else f"https://{environment['WebserverUrl']}"
    )
    boto3.client("ssm").put_parameter(
        Name=f"/transient-mwaa/{name}/webserver-url", Value=url, Type="String", Overwrite=True
    )
    if table:
        end_lease(
            table,
            name,
            "SET phase = :phase, incarnation = :at, restored_incarnation = :at, webserver_url = :url",
            phase="awake",
            at=incarnation,
            url=url,
        )
    print(f"Awake: {name}, {url}")
    return left


def main(name: str, bucket: str, table: str = "") -> int:
    """0: awake, with its memory and its DAGs; 1: a human has to look."""
    try:
        restored = take_lease(table, name) if table else ""
    except Stop as reason:
        print(f"STOP: {reason}")
        return 1
    try:
        left = bring_back(name, bucket, table, restored)
    except Stop as reason:
        if table:
            end_lease(table, name)
        print(f"STOP: {reason}")
        return 1
    if left:
        print(f"Not active: {', '.join(left)}. See Airflow's import errors, or unpause them in Airflow.")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
