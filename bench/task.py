"""One competitor in one process, as a task of Airflow runs it: `python bench/task.py COMPETITOR ARGUMENTS` by Airflow's
Python, with Airflow's configuration in the environment.

Says {"ready": true} when Airflow and the competitor's modules are imported, as they are when a task begins; waits for a
line on stdin; works; answers one line of JSON and ends.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

# What is printed, even as Airflow is imported, must not end up among the answers.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

DAG_ID = "db_export_dag"
INCARNATION = "2026-06-01T06:00:00+00:00"
Work = Callable[[], Any]


def ours_export_of_runs(export_id: str) -> Work:
    """export_metadata as it is, but for the files of other tables and of history: dag_run and task_instance alone.

    Secrets stay: they are a file of their own in every export.
    """
    from airflow_metadata import export

    wanted = {"dag_run", "task_instance", "variable", "connection"}
    rules = export._rules
    export._rules = lambda *arguments: {n: rule for n, rule in rules(*arguments).items() if n in wanted}
    export._history_pieces = lambda *_: []
    return lambda: export.export_metadata(export_id, DAG_ID, INCARNATION)


def ours_export(export_id: str) -> Work:
    """export_metadata: everything, with history from the beginning."""
    from airflow_metadata.export import export_metadata

    return lambda: export_metadata(export_id, DAG_ID, INCARNATION)


def ours_restore(restore_id: str) -> Work:
    """restore_metadata: what environments/bench/restore_order.json orders."""
    from airflow_metadata.restore import restore_metadata

    return lambda: restore_metadata(restore_id)


def blog_export(bucket: str) -> Work:
    """As amazon-mwaa-extract-metadata does it: all objects of a model at once, their vars() as CSV, one put_object."""
    import boto3
    from airflow.models import DagRun, TaskInstance
    from airflow.utils.session import create_session

    def work() -> None:
        s3 = boto3.client("s3")
        with create_session() as session:
            for model in (DagRun, TaskInstance):
                rows = session.query(model).all()
                name = model.__name__.lower()
                file = io.StringIO()
                writer = csv.DictWriter(file, vars(rows[0]).keys())
                writer.writeheader()
                for row in rows:
                    writer.writerow(vars(row))
                s3.put_object(Bucket=bucket, Key=f"blog/{name}.csv", Body=file.getvalue())

    return work


def _mwaa_dr(dag_module: str, bucket: str) -> Callable[[str], Work]:
    """Answers what runs a task of a DAG of mwaa-dr, by its id."""
    # Behind Airflow's own packages, as if installed among them.
    sys.path.append(os.environ["MWAA_DR"])
    import importlib

    dag = importlib.import_module(f"mwaa_dr.{dag_module}").dag
    context = {"dag_run": SimpleNamespace(conf={"bucket": bucket})}
    return lambda task_id: lambda: dag.get_task(task_id).python_callable(**context)


def mwaa_dr_export(bucket: str) -> Work:
    """The tasks of its backup DAG for both tables, which nothing orders: two processes at once."""
    task = _mwaa_dr("backup_metadata", bucket)

    def work() -> None:
        children = []
        for task_id in ("export_tables.export_dag_runs", "export_tables.export_task_instances"):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    task(task_id)()
                    status = 0
                finally:
                    os._exit(status)
            children.append(child)
        statuses = [os.waitpid(child, 0)[1] for child in children]
        if any(statuses):
            raise RuntimeError("a task of mwaa-dr failed")

    return work


def mwaa_dr_restore(bucket: str) -> Work:
    """The tasks of its restore DAG for both tables, one after the other as its DAG orders them."""
    task = _mwaa_dr("restore_metadata", bucket)

    def work() -> None:
        task("restore_dag_run")()
        task("restore_task_instance")()

    return work


def main() -> None:
    """See the module."""
    import airflow.models
    import boto3  # noqa: F401 - every Airflow on AWS has imported it

    airflow.models.import_all_models()
    competitors = (ours_export_of_runs, ours_export, ours_restore, blog_export, mwaa_dr_export, mwaa_dr_restore)
    name, *arguments = sys.argv[1:]
    work = next(c for c in competitors if c.__name__ == name)(*arguments)
    print('{"ready": true}', file=answers, flush=True)
    sys.stdin.readline()
    answer = work()
    print(json.dumps({"answer": answer}), file=answers, flush=True)


if __name__ == "__main__":
    main()
