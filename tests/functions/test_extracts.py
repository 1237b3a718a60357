"""History extracts: verified like a night, they enter the lake, and touch nothing that nights and mornings rely on."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from tests.functions.night import ENVIRONMENT, EXPORT_ID, LEASE, Context, Night
from transient_mwaa.domain import layout
from transient_mwaa.domain.errors import ExportNotVerified, ManifestInvalid

pytestmark = pytest.mark.functions

POINTER = layout.verified_history(ENVIRONMENT)


@pytest.fixture
def extract(night: Night) -> Night:
    """An extract whose run has just succeeded; nobody holds the lease."""
    night.becomes_an_extract()
    night.dynamodb.delete_item(TableName="records", Key={"environment": {"S": ENVIRONMENT}})
    return night


def test_a_good_extract_enters_the_lake_and_has_a_pointer_of_its_own(extract: Night) -> None:
    judged = extract.judge()
    assert judged["good"], judged["texts"]
    assert judged["rows"] == 6
    assert not extract.names("export/")
    assert extract.run("promote_extract") == {"files": 2, "rows": 6}
    day = extract.manifest["snapshot_at"][:10]
    assert extract.names("export/") == [
        f"export/{table}/dt={day}/{ENVIRONMENT}-{EXPORT_ID}-0.parquet" for table in ("dag_run", "task_instance")
    ]
    assert extract.names("environments/dev/verified") == [POINTER], "the last verified export is left alone"
    assert extract.read(POINTER)["watermark"] == extract.manifest["history"]["watermark"]
    assert "REST" not in extract.airflow.calls, "an extract needs no Airflow to be judged"


def test_every_step_can_be_run_again(extract: Night) -> None:
    assert extract.judge()["good"]
    first = extract.run("promote_extract")
    before = extract.s3.list_object_versions(Bucket="data")["Versions"]
    assert extract.run("promote_extract") == first
    assert extract.s3.list_object_versions(Bucket="data")["Versions"] == before


def test_a_changed_file_keeps_the_extract_out_of_the_lake(extract: Night) -> None:
    own = extract.file("dag_run", "history")
    body = bytearray(extract.s3.get_object(Bucket="data", Key=own["key"])["Body"].read())
    body[-1] ^= 1
    extract.store(own, bytes(body), promised=False)
    assert not extract.judge()["good"]
    with pytest.raises(ExportNotVerified, match="it was found bad"):
        extract.run("promote_extract")
    assert not extract.names("export/")
    assert not extract.names("environments/dev/verified")


def test_a_gap_in_the_lake_is_refused(extract: Night) -> None:
    since = extract.now - timedelta(hours=1)
    extract.manifest["history"]["since"] = since.isoformat()
    assert "what was verified is empty" in extract.judge()["texts"][0]
    pointer = {"export_id": "e", "manifest_key": "k", "manifest_version_id": "v", "manifest_sha256": "s"}
    pointer |= {"incarnation": "i", "verified_at": "now"}
    for key, watermark, good in (
        (POINTER, since - timedelta(hours=1), False),
        (layout.verified_export(ENVIRONMENT), since, True),
        (POINTER, since, True),
    ):
        extract.put(key, json.dumps(pointer | {"watermark": watermark.isoformat()}).encode())
        assert extract.judge()["good"] is good, key


def test_a_later_extract_stays_the_last_one(extract: Night) -> None:
    assert extract.judge()["good"]
    extract.run("promote_extract")
    later = extract.read(POINTER) | {"watermark": extract.now.isoformat(), "manifest_version_id": "later"}
    extract.put(POINTER, json.dumps(later).encode())
    assert extract.run("promote_extract") == {"files": 2, "rows": 6}
    assert extract.read(POINTER) == later


def test_an_extract_proves_nothing_about_a_night(extract: Night) -> None:
    """Whatever the evening does with an extract's manifest or verdict, it comes to nothing."""
    assert extract.judge()["good"]
    lease = {"lease_owner": {"S": LEASE["owner"]}, "lease_fence": {"N": LEASE["fence"]}}
    extract.dynamodb.put_item(TableName="records", Item={"environment": {"S": ENVIRONMENT}, **lease})
    for step in ("read_manifest", "judge_export"):
        with pytest.raises(ManifestInvalid, match="of the mode history, not complete"):
            extract.run(step, mode="complete")
    with pytest.raises(ManifestInvalid, match="of the mode history, not complete"):
        extract.run("verify_file", index=0, mode="complete")
    with pytest.raises(ExportNotVerified, match="of the mode history, not complete"):
        extract.run("promote_export")
    assert extract.names("environments/dev/verified") == []


def test_an_extract_cannot_be_the_reason_to_delete(extract: Night) -> None:
    """A record and a pointer that name an extract, as no step of ours writes them."""
    assert extract.judge()["good"]
    extract.run("promote_extract")
    extract.put(layout.verified_export(ENVIRONMENT), json.dumps(extract.read(POINTER)).encode())
    blueprint = b"{}"
    sha256 = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    extract.put("environments/dev/blueprints/b.json", blueprint)
    order = {
        **extract.event,
        "give_up_at": (datetime.now(UTC) + timedelta(hours=8)).isoformat(),
        "blueprint_key": "environments/dev/blueprints/b.json",
        "blueprint_sha256": sha256,
    }
    members = ("incarnation", "export_id", "manifest_key", "manifest_version_id", "blueprint_key", "blueprint_sha256")
    item = {name: {"S": str(order[name])} for name in members}
    item |= {"lease_owner": {"S": LEASE["owner"]}, "lease_fence": {"N": LEASE["fence"]}}
    item["phase"] = {"S": "falling_asleep"}
    extract.dynamodb.put_item(TableName="records", Item={"environment": {"S": ENVIRONMENT}, **item})
    with pytest.raises(ExportNotVerified, match="of the mode history, not complete"):
        extract.function("delete_environment").handler(order, Context())
    assert not extract.airflow.deleted


def test_a_night_is_no_extract(night: Night) -> None:
    assert night.judge()["good"]
    with pytest.raises(ManifestInvalid, match="of the mode complete, not history"):
        night.run("judge_extract")
    with pytest.raises(ExportNotVerified, match="of the mode complete, not history"):
        night.run("promote_extract")
    assert not night.names("export/")


def test_the_night_goes_on_where_an_extract_ended(night: Night) -> None:
    complete = night.manifest
    night.becomes_an_extract()
    assert night.judge()["good"]
    night.run("promote_extract")
    night.manifest = {**complete, "history": {**complete["history"], "since": complete["history"]["watermark"]}}
    night.s3.delete_object(Bucket="data", Key=layout.verdict(ENVIRONMENT, EXPORT_ID))
    assert night.judge()["good"]
    night.run("promote_export")
    assert night.read(layout.verified_export(ENVIRONMENT))["watermark"] == complete["history"]["watermark"]
