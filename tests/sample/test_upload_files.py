"""The sample's files: what is put where, again, and never taken away."""

import csv
import io
import shutil

import pytest
from botocore.exceptions import ClientError

from local.custom_resources import request
from tests.sample.conftest import CONTEXT, ROOT, STACK, load

pytestmark = pytest.mark.functions
PROPERTIES = {"EnvironmentBucket": "dags", "DataBucket": "data", "Dags": "arn:layer:1"}


@pytest.fixture
def app(aws):
    return load(ROOT / "sample/functions/upload_files/app.py", DAGS_FOLDER=str(ROOT / "dags"))


@pytest.fixture
def upload(app, door):
    def run(kind, properties=PROPERTIES, physical_id=None):
        app.handler(request(kind, door.url, "SampleFiles", STACK, properties, physical_id), CONTEXT)
        assert door.answers.qsize() == 1
        return door.answers.get_nowait()

    return run


def keys(s3, bucket):
    return {each["Key"] for each in s3.list_objects_v2(Bucket=bucket).get("Contents", ())}


def versions(s3):
    return {
        (each["Key"], each["VersionId"])
        for bucket in ("dags", "data")
        for each in s3.list_object_versions(Bucket=bucket)["Versions"]
    }


def test_everything_is_put_in_place(aws, upload):
    answer = upload("Create")
    assert answer["Status"] == "SUCCESS", answer
    assert keys(aws.s3, "data") == {"raw/customer_activity.csv"}
    dags = {
        f"dags/{path.relative_to(ROOT / 'dags')}"
        for path in [*(ROOT / "dags").rglob("*.py"), ROOT / "dags/.airflowignore"]
    }
    scripts = {f"glue/{path.name}" for path in (ROOT / "sample/glue").glob("*.py")}
    assert len(scripts) == 2
    assert keys(aws.s3, "dags") == dags | scripts | {"requirements.txt"}
    found = aws.s3.get_object(Bucket="dags", Key="requirements.txt")
    assert found["Body"].read() == (ROOT / "dags/requirements.txt").read_bytes()
    assert answer["Data"] == {"RequirementsVersion": found["VersionId"]}


def test_the_data_is_the_generator_s(aws, upload):
    upload("Create")
    text = aws.s3.get_object(Bucket="data", Key="raw/customer_activity.csv")["Body"].read().decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 5000
    assert {row["activity"] for row in rows} == {"view", "add_to_basket", "purchase", "return"}


def test_an_update_puts_what_has_changed_and_nothing_else(aws, upload):
    created = upload("Create")
    before = versions(aws.s3)
    aws.s3.put_object(Bucket="dags", Key="dags/glue_etl.py", Body=b"# an old one")
    aws.s3.put_object(Bucket="dags", Key="dags/theirs.py", Body=b"# not ours")
    updated = upload("Update", physical_id=created["PhysicalResourceId"])
    assert updated["Data"] == created["Data"]  # the same version of requirements.txt: no environment is updated for it
    assert updated["PhysicalResourceId"] == created["PhysicalResourceId"]
    new = [key for key, _ in versions(aws.s3) - before]
    assert sorted(new) == ["dags/glue_etl.py", "dags/glue_etl.py", "dags/theirs.py"]
    assert aws.s3.get_object(Bucket="dags", Key="dags/theirs.py")["Body"].read() == b"# not ours"


def test_a_delete_takes_nothing_away(aws, upload):
    created = upload("Create")
    before = versions(aws.s3)
    assert upload("Delete", physical_id=created["PhysicalResourceId"])["Status"] == "SUCCESS"
    assert versions(aws.s3) == before
    assert all("DeleteMarkers" not in aws.s3.list_object_versions(Bucket=bucket) for bucket in ("dags", "data"))


def test_a_missing_bucket_is_named_and_the_rollback_goes_through(upload):
    failed = upload("Create", {**PROPERTIES, "EnvironmentBucket": "nobody-s"})
    assert failed["Status"] == "FAILED"
    assert "NoSuchBucket" in failed["Reason"]
    rolled_back = upload(
        "Delete", {**PROPERTIES, "EnvironmentBucket": "nobody-s"}, physical_id=failed["PhysicalResourceId"]
    )
    assert (rolled_back["Status"], rolled_back["PhysicalResourceId"]) == ("SUCCESS", failed["PhysicalResourceId"])


@pytest.mark.parametrize(("operation", "code"), [("PutObject", "SlowDown"), ("GetObject", "AccessDenied")])
def test_an_s3_that_fails_is_an_answer(app, upload, operation, code):
    def fail(**_):
        raise ClientError({"Error": {"Code": code, "Message": "no"}}, operation)

    event = f"before-call.s3.{operation}"
    app.s3.meta.events.register(event, fail)
    try:
        answer = upload("Create")
    finally:
        app.s3.meta.events.unregister(event, fail)
    assert answer["Status"] == "FAILED"
    assert code in answer["Reason"]
    assert upload("Create")["Status"] == "SUCCESS"  # and the next one is none the worse


@pytest.mark.parametrize(("times", "ends"), [(4, "SUCCESS"), (5, "FAILED")])
def test_a_role_that_was_made_a_moment_ago_is_given_a_minute(app, upload, times, ends):
    left = [times]

    def forbid(**_):
        left[0] -= 1
        if left[0] >= 0:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "not yet"}}, "GetObject")

    app.s3.meta.events.register("before-call.s3.GetObject", forbid)
    try:
        assert upload("Create")["Status"] == ends
    finally:
        app.s3.meta.events.unregister("before-call.s3.GetObject", forbid)


def test_a_request_without_properties_is_answered(upload):
    answer = upload("Update", {})
    assert (answer["Status"], answer["Reason"]) == ("FAILED", "KeyError: 'EnvironmentBucket'")


def test_what_other_layers_have_in_the_same_folder_is_no_dag(app, aws, upload, monkeypatch, tmp_path):
    """Lambda unpacks all layers of a function into /opt."""
    shutil.copytree(ROOT / "dags", tmp_path, dirs_exist_ok=True)
    shutil.copytree(ROOT / "src", tmp_path / "python")
    monkeypatch.setattr(app, "DAGS", tmp_path)
    upload("Create")
    assert not [key for key in keys(aws.s3, "dags") if "transient_mwaa" in key]


def test_a_layer_that_is_missing_is_answered(app, upload, monkeypatch, tmp_path):
    monkeypatch.setattr(app, "DAGS", tmp_path)
    assert upload("Create")["Reason"] == "KeyError: 'requirements.txt'"
