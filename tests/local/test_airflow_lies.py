"""Every lie that an exporter could tell is seen by the gate, and for the reason that it should be.

The gate is the real one: the manifest is parsed, every file is read back and measured, the secrets are opened, and
Airflow's own totals are asked for.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
import time_machine
from moto import mock_aws

from local.airflow_in_memory import EXPORT_DAG, DagFolder, InMemoryAirflow
from local.airflow_lies import LIES, meaning
from transient_mwaa.aws.airflow_rest import TOTALS
from transient_mwaa.aws.bucket import Bucket
from transient_mwaa.aws.encryption import Encryption
from transient_mwaa.aws.export_files import ExportFiles
from transient_mwaa.aws.exports import Exports
from transient_mwaa.aws.sealed_secrets import SealedSecrets
from transient_mwaa.domain.errors import ManifestInvalid, ManifestMissing
from transient_mwaa.domain.evidence import Finding
from transient_mwaa.domain.verdict import file_reasons, judge

pytestmark = [
    pytest.mark.local,
    # Secrets that are cut off leave the library's reader unclosed.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

DATA, INCARNATION = "data-bucket", "2026-11-23T08:00:00+00:00"

SEEN_BY: dict[str, str] = {
    # lie: a regular expression for the gate's reasons, joined by semicolons
    "hidden_run": r"dag_run: .* counts 3, the database counted 2",
    "hidden_task_instance": r"task_instance: .* counts 3, the database counted 2",
    "hidden_variable": r"variable: .* counts 2, the database counted 1",
    "hidden_connection": r"connection: .* counts 1, the database counted 0",
    "hidden_pool": r"slot_pool: .* counts 2, the database counted 1",
    "invented_run": r"dag_run: .* counts 3, the database counted 4",
    "lost_row": r"rows were promised",
    "repeated_row": r"rows were promised",
    "emptied_value": r"event: count is \d+, promised was \d+",
    "changed_sum": r"event: sum is",
    "changed_minimum": r"event: min is",
    "changed_maximum": r"event: max is",
    "widened_times": r"dttm: min is .*; .*dttm: max is",
    "hidden_null_key": r"the key column id is empty in 1 rows",
    "null_key": r"the key column id is empty in 1 rows",
    "wrong_schema": r"its columns are",
    "wrong_type": r"its columns are .*'int32'",
    "lost_column": r"its columns are .*; .*owner: its sums were not computed",
    "no_parquet": r"it could not be checked: Arrow",
    "corrupted_byte": r"SHA-256 differs",
    "truncated_file": r"bytes were promised",
    "padded_file": r"bytes were promised",
    "dropped_file": r"this version of the object does not exist",
    "missing_table": r"the table xcom is not in the list",
    "unseen_table": r"the table job is not in the list",
    "missing_file": r"the table log has no file",
    "excluded_table": r"the table dag_run may not be excluded",
    "unexplained_exclusion": r"import_error is excluded without a reason",
    "miscounted_table": r"the table log has \d+ rows, its files hold \d+",
    "unlisted_table": r"a file of the unknown table worker",
    "secrets_in_parquet": r"the table variable holds secrets and must not be Parquet",
    "file_twice": r"log/part-0.parquet stands there 2 times",
    "file_elsewhere": r"its key is .*another-export",
    "unversioned_file": r"version_id is not",
    "unpromised_sums": r"no sums for the column owner",
    "wrong_measure": r"dttm: measure is timestamp, promised was integer",
    "wrong_digest": r"SHA-256 differs",
    "lost_history": r"the history of dag_run has \d+ rows, its files hold",
    "different_parts": r"the parts of log have different columns",
    "column_twice": r"the column \w+ stands there twice",
    "unknown_key": r"the key column uuid is not in its schema",
    "no_key": r"it names no key column",
    "too_many_values": r"event has \d+ values in \d+ rows",
    "secret_column": r"the column trigger.kwargs holds secrets",
    "wrong_carrier": r"the table variable may not be carried as excluded",
    "lost_secret": r"secrets: 2 rows of variable were promised, 1 are there",
    "repeated_secret": r"secrets: .* a row of variable stands there twice",
    "hollow_secret": r"secrets: .* a row of connection lacks its conn_id or its password",
    "lost_kind": r"secrets: .* do not hold exactly",
    "foreign_secrets": r"secrets: .*its encryption context differs",
    "corrupted_secrets": r"secrets: .*SHA-256 differs",
    "truncated_secrets": r"secrets: \d+ bytes were promised",
    "dropped_secrets": r"secrets: .* does not exist",
    "no_secrets": r"secrets is not an object",
    "miscounted_secrets": r"secrets: 1 rows of variable, the table has 2",
    "other_secrets": r"secrets: .*SHA-256 differs",
    "secrets_elsewhere": r"secrets: its key is .*another-export",
    "wrong_environment": r"it is about the environment another",
    "wrong_export": r"it is about the export another-export",
    "wrong_run": r"run_id differs from export_id",
    "wrong_incarnation": r"made by the incarnation 2020",
    "no_incarnation": r"made by the incarnation unknown",
    "stale_export": r"is too old",
    "future_export": r"lies in the future",
    "watermark_gap": r"its history begins at .* what was verified is empty",
    "watermark_after_snapshot": r"history.watermark lies after snapshot_at",
    "history_after_watermark": r"history.since lies after history.watermark",
    "history_mode": r"of the mode history, not complete",
    "unknown_member": r"the unknown member remark",
    "lost_member": r"lacks max_log_id",
    "high_log_id": r"max_log_id is \d+, the greatest id in the exported log is",
    "newer_manifest": r"manifest_version is 2",
    "other_reader": r"reader is not one of database",
    "unknown_airflow": r"nobody knows which tables Airflow 9.0.0 has",
    "said_twice": r"the member 'files' stands there twice",
    "no_json": r"it is not JSON",
    "no_manifest": r"manifest.json is not there",
}


class Night:
    """An Airflow with something of everything, and the gate."""

    def __init__(self, home: Path, clock: time_machine.Traveller) -> None:
        self.clock = clock
        s3 = boto3.client("s3", "us-east-1")
        s3.create_bucket(Bucket=DATA)
        s3.put_bucket_versioning(Bucket=DATA, VersioningConfiguration={"Status": "Enabled"})
        key = boto3.client("kms", "us-east-1").create_key()["KeyMetadata"]["Arn"]
        environ = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AIRFLOW__TRANSIENT_MWAA__BUCKET": DATA,
            "AIRFLOW__TRANSIENT_MWAA__KMS_KEY_ARN": key,
        }
        self.airflow = InMemoryAirflow(
            name="dev", environment={"Name": "dev"}, environ=environ, home=home, folder=DagFolder(), small=True
        )
        bucket = Bucket(DATA, s3)
        self.exports, self.files = Exports(bucket), ExportFiles(bucket)
        self.secrets = SealedSecrets(bucket, Encryption(key))
        self.airflow.start()
        self.airflow.add_dag("orders")
        self.airflow.set_variable("colour", "blue")
        self.airflow.set_variable("taste", "sweet")
        self.airflow.set_connection("warehouse", password="the-warehouse-s3cret")
        self.airflow.set_pool("narrow", 3)
        for run_id in ("one", "two"):
            self.airflow.trigger("orders", run_id)
            clock.shift(timedelta(minutes=5))
        self.airflow.pause("orders")

    def reasons(self, export_id: str) -> list[str]:
        """What the gate has against an export made now; empty when it finds it good."""
        conf = json.dumps({"incarnation": INCARNATION})
        self.airflow.cli(f"dags trigger {EXPORT_DAG} -r {export_id} -c '{conf}' -o json")
        self.clock.shift(timedelta(minutes=3))
        run = self.airflow.run(EXPORT_DAG, export_id)
        assert run is not None
        assert run["state"] == "success", self.airflow.logs
        try:
            stored, manifest = self.exports.newest_manifest("dev", export_id)
        except (ManifestInvalid, ManifestMissing) as error:
            return [str(error)]
        where = {"environment": "dev", "export_id": export_id, "manifest_key": stored.key}
        findings = []
        for index, file in enumerate(manifest.files):
            evidence = self.files.examine(file)
            findings.append(
                Finding.about(
                    file,
                    file_reasons(file, evidence),
                    evidence,
                    **where,
                    manifest_version_id=stored.version_id,
                    index=index,
                )
            )
        verdict = judge(
            manifest,
            stored.key,
            stored.version_id,
            findings=findings,
            secrets=self.secrets.examine(manifest),
            totals=self.totals(),
            incarnation=INCARNATION,
            verified=[],
            now=datetime.now(UTC),
        )
        return list(verdict.reasons)

    def totals(self) -> dict[str, int]:
        """As AirflowRest reads them."""
        bodies: dict[str, Any] = {"GET": None, "POST": {"page_limit": 1}}
        return {
            table: self.airflow.rest(method, path, {}, bodies[method])[1]["total_entries"]
            for table, (method, path) in TOTALS.items()
        }


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Night]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with time_machine.travel(datetime(2026, 11, 23, 19, 0, tzinfo=UTC), tick=False) as clock, mock_aws():
        yield Night(tmp_path / "dev-1", clock)


def test_the_gate_sees_every_lie(night: Night) -> None:
    assert night.reasons("the-truth") == []
    unseen: dict[str, list[str]] = {}
    for lie in LIES:
        night.airflow.is_healed()
        night.airflow.script.faults.lie(lie)
        night.airflow.tables["dag_run"].remove(dag_id=EXPORT_DAG)  # so that every export counts the same
        night.airflow.tables["task_instance"].remove(dag_id=EXPORT_DAG)
        found = night.reasons(f"with-{lie.replace('_', '-')}")
        if not re.search(SEEN_BY[lie], "; ".join(found)):
            unseen[lie] = found
    assert not unseen, unseen
    night.airflow.is_healed()
    assert night.reasons("the-truth-again") == []


def test_every_lie_has_a_meaning_and_a_reason() -> None:
    assert SEEN_BY.keys() == set(LIES)
    assert all(meaning(lie).endswith(".") or meaning(lie).endswith(")") for lie in LIES)
    with pytest.raises(KeyError):
        InMemoryAirflow(name="dev", environment={}, environ={}, home=Path()).script.faults.lie("nothing")
