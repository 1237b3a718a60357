"""Stands for an Airflow worker: runs under that Airflow's Python, imports it once and forks for every task.

One JSON command a line on stdin: {"call": "export" | "restore" | "task" | "python", "environ": {...}, ...};
one JSON answer a line on stdout: {"result": ...} or {"error": class name, "message": ...}.
"""

from __future__ import annotations

import functools
import gc
import json
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Any

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what Airflow prints, even as it is imported, must not end up among the answers

import airflow.models  # noqa: E402
import airflow_metadata.export  # noqa: E402
import airflow_metadata.restore  # noqa: E402
import boto3  # noqa: E402
import botocore.session  # noqa: E402
from airflow import settings  # noqa: E402

airflow.models.import_all_models()
# The descriptions of services take long to read: once for all sessions, also for those of the encryption SDK. The
# tasks inherit them, and what else Python loads when a client is made.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)
boto3.client("s3")
boto3.client("kms")
gc.freeze()  # the tasks need not look through what all of them share


def call(command: dict[str, Any]) -> Any:
    os.environ.update(command["environ"])
    settings.configure_vars()
    settings.configure_orm()
    if command["call"] != "python" and airflow.__version__.startswith("3."):
        # What Airflow does to the process of every task.
        from airflow.sdk.execution_time.supervisor import block_orm_access

        block_orm_access()
    if command["call"] == "export":
        return airflow_metadata.export.export_metadata(command["run_id"], "db_export_dag", command["incarnation"])
    if command["call"] == "restore":
        return airflow_metadata.restore.restore_metadata(command["run_id"])
    scope: dict[str, Any] = {}
    exec(command["source"], scope)
    return scope["answer"]


def answer(command: dict[str, Any]) -> dict[str, Any]:
    with Path(command["log"]).open("a") as log:
        os.dup2(log.fileno(), 2)
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, force=True)
        try:
            return {"result": call(command)}
        except Exception as error:  # noqa: BLE001 - whatever a task raises, the test gets to see
            traceback.print_exc()
            return {"error": type(error).__name__, "message": str(error)}


def main() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        child = os.fork()
        if child == 0:
            answers.write(json.dumps(answer(command)) + "\n")
            answers.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:  # it was killed, and has answered nothing
            answers.write('{"error": "WorkerDied", "message": "see its log"}\n')
            answers.flush()


if __name__ == "__main__":
    main()
