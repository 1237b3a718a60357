"""Glue jobs run their own script: with Spark where Java is, and where it is not the job run says so."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from local.cloud import LocalCloud
from local.glue import LocalSpark
from sample import customer_activity

SCRIPTS = Path(__file__).parents[2] / "sample/glue"


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path / "cloud") as cloud:
        cloud.client("s3").create_bucket(Bucket="data")
        yield cloud


def run_job(cloud: LocalCloud, script: str, source: str, destination: str) -> dict[str, Any]:
    """A job run, once it has ended, as Glue describes it."""
    s3, glue = cloud.client("s3"), cloud.client("glue")
    s3.put_object(Bucket="data", Key="scripts/job.py", Body=script.encode())
    glue.create_job(
        Name="job",
        Role="arn:aws:iam::123456789012:role/glue",
        Command={"Name": "glueetl", "ScriptLocation": "s3://data/scripts/job.py"},
        DefaultArguments={"--input": "s3://data/nowhere", "--output": f"s3://data/{destination}"},
    )
    run_id = glue.start_job_run(JobName="job", Arguments={"--input": f"s3://data/{source}"})["JobRunId"]
    deadline = time.monotonic() + 120
    while (run := glue.get_job_run(JobName="job", RunId=run_id)["JobRun"])["JobRunState"] == "RUNNING":
        assert "CompletedOn" not in run
        assert time.monotonic() < deadline
        time.sleep(0.1)
    glue.delete_job(JobName="job")
    return run


# A script that needs no Spark, so that these tests are quick.
COPY = """
import argparse, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--input"); parser.add_argument("--output")
paths, _ = parser.parse_known_args()
source, output = pathlib.Path(paths.input), pathlib.Path(paths.output)
for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
    if path.is_file():
        target = output / (path.relative_to(source) if source.is_dir() else path.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes().upper())
"""


AGGREGATE = ("activity_date", "country", "activity", "activities", "customers", "amount")
BY_DUCKDB = """
    SELECT CAST(occurred_at AS DATE), country, activity, count(*), count(DISTINCT customer_id), sum(amount)
    FROM read_csv(?, header = true, types = {'amount': 'DECIMAL(12, 2)', 'occurred_at': 'TIMESTAMP'})
    GROUP BY ALL
"""


@pytest.mark.cycle
def test_the_real_scripts_make_parquet_and_an_aggregate(cloud: LocalCloud, tmp_path: Path) -> None:
    customer_activity.write(tmp_path / "activity.csv", rows=500)
    s3 = cloud.client("s3")
    s3.upload_file(str(tmp_path / "activity.csv"), "data", "raw/customer_activity.csv")
    for name, source, destination in (
        ("glue_csv_to_parquet", "raw/customer_activity.csv", "optimised/customer_activity/"),
        ("glue_transform", "optimised/customer_activity/", "conformed/customer_activity/"),
    ):
        run = run_job(cloud, (SCRIPTS / f"{name}.py").read_text(), source, destination)
        assert run["JobRunState"] == "SUCCEEDED", run
    keys = [found["Key"] for found in s3.list_objects_v2(Bucket="data", Prefix="conformed/")["Contents"]]
    (parquet,) = [key for key in keys if key.endswith(".parquet")]
    made = pq.read_table(io.BytesIO(s3.get_object(Bucket="data", Key=parquet)["Body"].read()))
    by_spark = sorted((tuple(row[name] for name in AGGREGATE) for row in made.to_pylist()), key=str)
    by_duckdb = duckdb.execute(BY_DUCKDB, [str(tmp_path / "activity.csv")]).fetchall()
    assert by_spark == sorted(by_duckdb, key=str)
    assert sum(row[3] for row in by_spark) == 500
    assert any(row[5] is None for row in by_spark)  # nothing was paid, which is not nought


def spark_is_any_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.cloud.LocalSpark", lambda s3, logs: LocalSpark(s3, logs, Path(sys.executable)))
    monkeypatch.setattr("local.glue.shutil.which", lambda *_, **__: "/usr/bin/java")


@pytest.mark.local
def test_inputs_are_fetched_and_the_output_prefix_is_replaced(
    cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    spark_is_any_python(monkeypatch)
    s3 = cloud.client("s3")
    for key in ("in/a.txt", "in/deep/b.txt", "in.txt", "out/old.txt", "outside.txt"):
        s3.put_object(Bucket="data", Key=key, Body=key.encode())
    assert run_job(cloud, COPY, "in/", "out/")["JobRunState"] == "SUCCEEDED"
    out = {found["Key"] for found in s3.list_objects_v2(Bucket="data", Prefix="out")["Contents"]}
    assert out == {"out/a.txt", "out/deep/b.txt", "outside.txt"}
    assert s3.get_object(Bucket="data", Key="out/deep/b.txt")["Body"].read() == b"IN/DEEP/B.TXT"
    assert run_job(cloud, COPY, "in.txt", "single/")["JobRunState"] == "SUCCEEDED"
    assert s3.get_object(Bucket="data", Key="single/in.txt")["Body"].read() == b"IN.TXT"


@pytest.mark.local
def test_a_script_that_fails_fails_the_run_and_leaves_the_output(
    cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    spark_is_any_python(monkeypatch)
    cloud.client("s3").put_object(Bucket="data", Key="in.txt", Body=b"x")
    cloud.client("s3").put_object(Bucket="data", Key="out/old.txt", Body=b"x")
    run = run_job(cloud, "raise SystemExit(3)", "in.txt", "out/")
    assert run["JobRunState"] == "FAILED"
    assert "ended with 3" in run["ErrorMessage"]
    assert cloud.client("s3").head_object(Bucket="data", Key="out/old.txt")


@pytest.mark.local
def test_a_missing_input_fails_the_run(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    spark_is_any_python(monkeypatch)
    run = run_job(cloud, COPY, "not-there.csv", "out/")
    assert (run["JobRunState"], "Nothing lies at s3://data/not-there.csv" in run["ErrorMessage"]) == ("FAILED", True)


@pytest.mark.local
def test_without_java_the_run_says_that_it_was_simulated(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.glue.shutil.which", lambda *_, **__: None)
    run = run_job(cloud, COPY, "not-there.csv", "out/")
    assert run["JobRunState"] == "SUCCEEDED"
    assert run["ErrorMessage"] == "Simulated, the script was not run: no Java here."


@pytest.mark.local
def test_the_sample_is_the_same_every_time() -> None:
    assert customer_activity.activities(100) == customer_activity.activities(200)[:100]
