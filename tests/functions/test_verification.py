import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.functions.night import (
    DAG_RUN,
    ENVIRONMENT,
    EXPORT_ID,
    HISTORY,
    INCARNATION,
    Columns,
    Context,
    Night,
    parquet,
    reply,
)
from transient_mwaa.domain import layout
from transient_mwaa.domain.errors import (
    ChangedSinceExport,
    ExportNotVerified,
    LeaseLost,
    ManifestInvalid,
    ManifestMissing,
    ServiceUnavailable,
)

pytestmark = pytest.mark.functions


def test_a_whole_export_is_good_and_its_history_enters_the_lake(night: Night) -> None:
    assert all(night.verify())
    judged = night.judge_again()
    assert judged["good"], judged["texts"]
    assert judged["rows"] == sum(table["rows"] for table in night.manifest["tables"].values())
    assert not night.names("export/")
    assert night.run("promote_export") == {"files": 2, "rows": 6}
    day = night.manifest["snapshot_at"][:10]
    assert night.names("export/") == [
        f"export/{table}/dt={day}/{ENVIRONMENT}-{EXPORT_ID}-0.parquet" for table in ("dag_run", "task_instance")
    ]
    pointer = night.read(layout.verified_export(ENVIRONMENT))
    assert pointer["export_id"] == EXPORT_ID
    assert pointer["watermark"] == night.manifest["history"]["watermark"]
    assert pointer["incarnation"] == INCARNATION
    assert pointer["manifest_version_id"] == night.event["manifest_version_id"]


def versions(night: Night) -> list[tuple[str, str]]:
    listed = night.s3.list_object_versions(Bucket="data")["Versions"]
    return sorted((row["Key"], row["VersionId"]) for row in listed)


def test_every_step_can_be_run_again(night: Night) -> None:
    assert night.judge()["good"]
    first = night.run("promote_export")
    before = versions(night)
    assert night.run("promote_export") == first
    assert versions(night) == before
    assert night.judge_again()["good"]
    assert night.run("promote_export") == first


def test_the_copy_in_the_lake_is_of_the_verified_version(night: Night) -> None:
    own = night.file("dag_run", "history")
    verified = night.s3.get_object(Bucket="data", Key=own["key"])["Body"].read()
    assert night.judge()["good"]
    night.put(own["key"], b"written over by somebody")
    night.run("promote_export")
    lake = night.names("export/dag_run/")[0]
    assert night.s3.get_object(Bucket="data", Key=lake)["Body"].read() == verified


def test_an_export_without_a_manifest_is_missing_one(night: Night) -> None:
    night.event = {"environment": ENVIRONMENT, "export_id": EXPORT_ID, "incarnation": INCARNATION, "mode": "complete"}
    with pytest.raises(ManifestMissing):
        night.run("read_manifest")


def test_the_manifest_is_pinned_by_its_version(night: Night) -> None:
    pinned = night.read_manifest()
    night.put(pinned["manifest_key"], b"{}")
    assert night.run("verify_file", index=0)["good"]
    with pytest.raises(ManifestMissing):
        night.run("verify_file", index=0, manifest_version_id="00000000-0000-0000-0000-000000000000")
    with pytest.raises(ManifestInvalid):
        night.run("verify_file", index=0, manifest_key=layout.secrets(ENVIRONMENT, EXPORT_ID))
    with pytest.raises(ManifestInvalid):
        night.run("verify_file", index=99)


def test_the_manifest_of_another_incarnation_is_refused(night: Night) -> None:
    night.manifest["incarnation"] = "2026-11-21T08:00:00+00:00"
    with pytest.raises(ManifestInvalid, match="made by the incarnation 2026-11-21"):
        night.read_manifest()


# ---------------------------------------------------------------- files that are not as promised


def judged_bad(night: Night, *reasons: str) -> None:
    judged = night.judge()
    assert not judged["good"]
    for reason in reasons:
        assert any(reason in text for text in judged["texts"]), judged["texts"]
    with pytest.raises(ExportNotVerified):
        night.run("promote_export")
    assert not night.names("export/")
    assert not night.names(layout.verified_export(ENVIRONMENT))


def found_bad(night: Night, table: str, reason: str) -> None:
    finding = night.verify_only(table)
    assert not finding["good"]
    assert any(reason in text for text in finding["reasons"]), finding["reasons"]


@pytest.mark.parametrize("place", [0, 4, 200, -9, -1])
def test_one_flipped_bit_is_noticed(night: Night, place: int) -> None:
    body = bytearray(parquet(DAG_RUN))
    body[place] ^= 1
    night.store(night.file("dag_run"), bytes(body), promised=False)
    found_bad(night, "dag_run", "its bytes are not the promised ones")


def without(columns: Columns, row: int) -> Columns:
    return {name: (kind, m, values[:row] + values[row + 1 :]) for name, (kind, m, values) in columns.items()}


def altered(column: str, row: int, value: Any) -> Columns:
    kind, measure, values = DAG_RUN[column]
    return DAG_RUN | {column: (kind, measure, [*values[:row], value, *values[row + 1 :]])}


def test_a_valid_file_of_as_many_rows_is_not_the_promised_one(night: Night) -> None:
    night.store(night.file("dag_run"), parquet(altered("note", 0, "other")), promised=False)
    found_bad(night, "dag_run", "other bytes are not looked into")
    found_bad(night, "dag_run", "its bytes are not the promised ones")


def test_a_bad_file_makes_the_export_bad(night: Night) -> None:
    night.store(night.file("dag_run"), parquet(without(DAG_RUN, 2)))
    judged_bad(night, "dag_run/part-0.parquet: 4 rows were promised, 3 are there")


@pytest.mark.parametrize("row", range(4))
def test_a_row_lost_between_database_and_file_is_noticed(night: Night, row: int) -> None:
    # The worker hashed what it wrote: only the database's own count and sums can tell.
    night.store(night.file("dag_run"), parquet(without(DAG_RUN, row)))
    found_bad(night, "dag_run", "4 rows were promised, 3 are there")


@pytest.mark.parametrize(
    ("column", "row", "value"),
    [
        ("huge", 0, 2**63 - 2),
        ("huge", 3, 0),
        ("external", 0, False),
        ("external", 1, False),
        ("share", 0, 1.0),
        ("share", 1, 0.0),
        ("share", 3, 1e-323),
        ("started", 2, DAG_RUN["started"][2][0]),
        ("started", 0, DAG_RUN["started"][2][0].replace(microsecond=0)),
        ("naive", 0, None),
        ("note", 0, None),
        ("note", 1, 'line\rbreak, "quoted" \x00 '),
        ("note", 3, "\ufffe"),
        ("conf", 1, None),
        ("conf", 2, b""),
        ("conf", 0, b"\x80\x05}\x94"),
        ("never", 0, ""),
    ],
)
def test_one_value_changed_between_database_and_file_is_noticed(
    night: Night, column: str, row: int, value: Any
) -> None:
    night.store(night.file("dag_run"), parquet(altered(column, row, value)))
    found_bad(night, "dag_run", f"{column}: ")


def test_an_empty_file_for_a_full_table_is_noticed(night: Night) -> None:
    none = {name: (kind, measure, []) for name, (kind, measure, _) in DAG_RUN.items()}
    night.store(night.file("dag_run"), parquet(none))
    judged_bad(night, "4 rows were promised, 0 are there")


def test_a_file_of_another_schema_is_noticed(night: Night) -> None:
    night.store(night.file("log"), parquet(HISTORY))
    found_bad(night, "log", "its columns are")


def test_a_file_that_is_gone_is_noticed(night: Night) -> None:
    own = night.file("log")
    night.s3.delete_object(Bucket="data", Key=own["key"], VersionId=own["version_id"])
    found_bad(night, "log", "it could not be checked: this version of the object does not exist")


def test_a_file_under_a_delete_marker_is_still_there_by_its_version(night: Night) -> None:
    night.s3.delete_object(Bucket="data", Key=night.file("log")["key"])
    assert night.judge()["good"]


def test_a_file_that_is_no_parquet_is_noticed(night: Night) -> None:
    night.store(night.file("log"), b"PAR1 and so on")
    found_bad(night, "log", "it could not be checked: ArrowInvalid")


def test_nothing_is_left_on_the_disk(night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night.read_manifest()
    module = night.function("verify_file")
    monkeypatch.setattr(module.export_files, "_folder", tmp_path)
    module.handler({**night.event, "index": 0}, Context())
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_look_surfaces_to_be_retried(night: Night) -> None:
    night.read_manifest()
    module = night.function("verify_file")
    events = module.export_files._bucket._s3.meta.events

    def throttled(request: Any, **_: Any) -> Any:
        return reply(request, 503, {"message": "Please reduce your request rate."})

    events.register_first("before-send.s3", throttled)
    try:
        with pytest.raises(ServiceUnavailable):
            module.handler({**night.event, "index": 0}, Context())
    finally:
        events.unregister("before-send.s3", throttled)


# ---------------------------------------------------------------- findings


def test_every_finding_is_needed(night: Night) -> None:
    count = len(night.verify())
    for index in range(count):
        key = layout.finding(ENVIRONMENT, EXPORT_ID, index)
        body = night.s3.get_object(Bucket="data", Key=key)["Body"].read()
        night.s3.delete_object(Bucket="data", Key=key)
        assert night.judge_again()["texts"] == [f"{night.manifest['files'][index]['key']}: nobody has verified it"]
        night.put(key, body)
    assert night.judge_again()["good"]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"good": true}', b"null"])
def test_a_finding_that_cannot_be_read_is_none(night: Night, body: bytes) -> None:
    night.verify()
    night.put(layout.finding(ENVIRONMENT, EXPORT_ID, 0), body)
    assert "nobody has verified it" in night.judge_again()["texts"][0]


def test_yesterdays_findings_do_not_count_for_a_new_manifest(night: Night) -> None:
    assert all(night.verify())
    night.manifest["alembic_revision"] = "another"
    night.read_manifest()
    judged = night.judge_again()
    assert judged["reasons"] == len(night.manifest["files"])
    assert all("about another manifest" in text for text in judged["texts"])


def test_a_finding_that_calls_a_bad_file_good_is_not_believed(night: Night) -> None:
    night.store(night.file("dag_run"), parquet(without(DAG_RUN, 0)))
    goods = night.verify()
    index = goods.index(False)
    key = layout.finding(ENVIRONMENT, EXPORT_ID, index)
    night.put(key, json.dumps(night.read(key) | {"good": True, "reasons": []}).encode())
    assert not night.judge_again()["good"]


# ---------------------------------------------------------------- secrets, totals, origin


def secrets_of(night: Night) -> dict[str, Any]:
    entry = night.manifest["secrets"]
    context = {"environment": ENVIRONMENT, "export_id": EXPORT_ID, "content": "secrets"}
    sealed = night.s3.get_object(Bucket="data", Key=entry["key"])["Body"].read()
    return dict(json.loads(night.encryption.decrypt(sealed, context)))


def test_secrets_that_cannot_be_opened_are_bad(night: Night) -> None:
    night.store(night.manifest["secrets"], b"not a ciphertext at all")
    judged_bad(night, "secrets: they could not be checked: The ciphertext cannot be opened")


def test_secrets_are_read_by_the_promised_version(night: Night) -> None:
    night.manifest["secrets"]["version_id"] = "00000000-0000-0000-0000-000000000000"
    judged_bad(night, "secrets: they could not be checked: this version of the object does not exist")


def test_damaged_secrets_are_bad(night: Night) -> None:
    entry = night.manifest["secrets"]
    body = bytearray(night.s3.get_object(Bucket="data", Key=entry["key"])["Body"].read())
    body[len(body) // 2] ^= 1
    night.store(entry, bytes(body), promised=False)
    judged_bad(night, "secrets: the bytes are not the promised ones")


@pytest.mark.parametrize("name", ["environment", "export_id", "content"])
def test_secrets_of_another_export_are_bad(night: Night, name: str) -> None:
    night.seal(night.manifest["secrets"], json.dumps(secrets_of(night)).encode(), **{name: "other"})
    judged_bad(night, "made for another purpose")


def test_a_lost_variable_is_bad(night: Night) -> None:
    night.seal(night.manifest["secrets"], json.dumps(secrets_of(night) | {"variable": []}).encode())
    judged_bad(night, "secrets: 1 rows of variable were promised, 0 are there")


def test_no_secret_leaves_the_vault(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    night.seal(night.manifest["secrets"], json.dumps(secrets_of(night) | {"variable": ["hunter2"]}).encode())
    assert not night.judge()["good"]
    stored = b"".join(night.s3.get_object(Bucket="data", Key=key)["Body"].read() for key in night.names())
    written = capsys.readouterr()
    assert b"hunter2" not in stored
    assert "hunter2" not in written.out + written.err


@pytest.mark.parametrize("kind", ["connections", "dagRuns", "pools", "taskInstances", "variables"])
def test_a_row_that_airflow_knows_and_the_export_does_not_is_bad(night: Night, kind: str) -> None:
    night.airflow.totals[kind] += 1
    judged_bad(night, "Airflow's REST API counts")


@pytest.mark.parametrize("kind", ["connections", "dagRuns", "pools", "variables"])
def test_what_was_added_before_the_verdict_is_a_change_and_no_bad_export(night: Night, kind: str) -> None:
    """Where Airflow has moved on, the export is made again; where nobody knows why it counts otherwise, it is bad."""
    night.verify()
    night.airflow.totals[kind] += 1
    night.airflow.event_logs.append({"event_log_id": 4, "dag_id": None, "event": "variable.create"})
    with pytest.raises(ChangedSinceExport, match=r"variable\.create of no DAG"):
        night.run("judge_export")
    with pytest.raises(ExportNotVerified):
        night.run("promote_export")
    assert not night.names("export/")
    night.airflow.event_logs.pop()
    assert not night.judge_again()["good"]


def test_a_bad_export_is_bad_however_much_has_changed_since(night: Night) -> None:
    night.airflow.event_logs.append({"event_log_id": 4, "dag_id": None, "event": "variable.create"})
    night.airflow.totals["variables"] += 1
    night.store(night.file("dag_run"), parquet(without(DAG_RUN, 2)))
    judged_bad(night, "4 rows were promised, 3 are there", "variable: Airflow's REST API counts 2")


def test_an_old_snapshot_is_bad(night: Night) -> None:
    night.manifest["snapshot_at"] = (night.now - timedelta(hours=2, minutes=1)).isoformat()
    night.manifest["history"]["watermark"] = night.manifest["snapshot_at"]
    judged_bad(night, "is too old")


def test_another_incarnation_is_bad(night: Night) -> None:
    night.verify()
    night.event["incarnation"] = "2026-11-22T09:00:00+00:00"
    assert "it was made by the incarnation" in night.judge_again()["texts"][0]


def test_history_may_not_begin_after_the_last_verified_export_ended(night: Night) -> None:
    assert night.judge()["good"]
    night.run("promote_export")
    night.manifest["alembic_revision"] = "another"  # another export, as far as its manifest goes
    end = datetime.fromisoformat(night.read(layout.verified_export(ENVIRONMENT))["watermark"])
    night.manifest["history"]["watermark"] = night.manifest["snapshot_at"]
    for since, good in ((end, True), (end - timedelta(hours=1), True), (end + timedelta(microseconds=1), False)):
        night.manifest["history"]["since"] = since.isoformat()
        assert night.judge()["good"] is good, since


# ---------------------------------------------------------------- promotion


def test_nothing_is_promoted_without_a_verdict_about_this_very_manifest(night: Night) -> None:
    assert night.judge()["good"]
    night.put(night.event["manifest_key"], json.dumps(night.manifest).encode())
    newer = night.s3.head_object(Bucket="data", Key=night.event["manifest_key"])["VersionId"]
    with pytest.raises(ExportNotVerified, match="another version of the manifest"):
        night.run("promote_export", manifest_version_id=newer)
    night.s3.delete_object(Bucket="data", Key=layout.verdict(ENVIRONMENT, EXPORT_ID))
    with pytest.raises(ExportNotVerified, match="there is no verdict"):
        night.run("promote_export")
    night.put(layout.verdict(ENVIRONMENT, EXPORT_ID), b'{"good": true}')
    with pytest.raises(ExportNotVerified, match="there is no verdict"):
        night.run("promote_export")
    assert not night.names("export/")


def test_nothing_is_promoted_by_whoever_lost_the_lease(night: Night) -> None:
    assert night.judge()["good"]
    for lost in ({"owner": "somebody"}, {"fence": "6"}):
        with pytest.raises(LeaseLost, match="this one has done nothing"):
            night.run("promote_export", **lost)
    assert not night.names("export/")
    assert not night.names(layout.verified_export(ENVIRONMENT))


def test_an_older_export_does_not_replace_a_later_one(night: Night) -> None:
    assert night.judge()["good"]
    night.run("promote_export")
    key = layout.verified_export(ENVIRONMENT)
    later = night.read(key) | {"watermark": (night.now + timedelta(days=1)).isoformat(), "export_id": "later"}
    night.put(key, json.dumps(later).encode())
    with pytest.raises(ExportNotVerified, match="was verified after"):
        night.run("promote_export")
    assert night.read(key) == later


def test_a_promotion_that_broke_off_is_finished_by_the_next(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    assert night.judge()["good"]
    module = night.function("promote_export")
    copy, done = module.exports._bucket.copy, []

    def breaks(*where: str) -> str:
        if done:
            raise ServiceUnavailable("S3 is throttling.")
        done.append(where)
        return str(copy(*where))

    with monkeypatch.context() as patched:
        patched.setattr(module.exports._bucket, "copy", breaks)
        with pytest.raises(ServiceUnavailable):
            module.handler(night.event, Context())
    assert not night.names(layout.verified_export(ENVIRONMENT))
    assert night.run("promote_export") == {"files": 2, "rows": 6}
    assert len(night.names("export/")) == 2


# ---------------------------------------------------------------- what may expire


BEFORE, FIRST, FAILED, EXTRACT, SECOND, TONIGHT = (
    f"{time}-0000000{number}"
    for number, time in enumerate(
        ("20261119T210000Z", "20261120T210000Z", "20261120T230000Z", "20261121T120000Z", "20261121T210000Z",
         "20261122T210000Z")
    )
)  # fmt: skip


@pytest.fixture
def third_night(night: Night) -> Night:
    """A good export, after two others that were verified, FIRST and SECOND, and three that were not, between them."""
    assert night.judge()["good"]
    for export_id in (BEFORE, FIRST, FAILED, EXTRACT, SECOND, TONIGHT):
        for name in ("manifest.json", "dag_run/part-0.parquet", "secrets.enc"):
            night.put(layout.export_prefix(ENVIRONMENT, export_id) + name, b"x")
    watermark = (night.now - timedelta(days=1)).isoformat()
    names = ("manifest_key", "manifest_version_id", "manifest_sha256", "incarnation", "verified_at")
    last = dict.fromkeys(names, "x") | {"export_id": SECOND, "watermark": watermark, "replaces": FIRST}
    night.put(layout.verified_export(ENVIRONMENT), json.dumps(last).encode())
    return night


def marked(night: Night) -> set[str]:
    """The exports of which something carries the tag."""
    found = set()
    for key in night.names():
        tags = night.s3.get_object_tagging(Bucket="data", Key=key)["TagSet"]
        if (*layout.SUPERSEDED,) in {(tag["Key"], tag["Value"]) for tag in tags}:
            found.add(key.split("/")[2])
    return found


def files(night: Night, export_id: str) -> list[str]:
    """The keys of an export, without its manifest, which stays."""
    keys = night.names(layout.export_prefix(ENVIRONMENT, export_id))
    return [key for key in keys if not key.endswith("/manifest.json")]


def test_the_last_two_verified_exports_never_expire_and_all_else_does_once(third_night: Night) -> None:
    """What came before FIRST was marked a night ago, and what came after SECOND will be in the next one."""
    assert marked(third_night) == set()
    for _ in range(2):
        third_night.run("promote_export")
        assert marked(third_night) == {FIRST, FAILED, EXTRACT}
        assert third_night.read(layout.verified_export(ENVIRONMENT))["replaces"] == SECOND
    for key in files(third_night, FIRST):
        assert third_night.s3.get_object_tagging(Bucket="data", Key=key)["TagSet"], "all of it expires"
    promise = third_night.s3.get_object_tagging(Bucket="data", Key=layout.manifest(ENVIRONMENT, FIRST))
    assert promise["TagSet"] == []


def test_nothing_expires_before_the_second_export_after_it(night: Night) -> None:
    assert night.judge()["good"]
    night.run("promote_export")
    assert night.read(layout.verified_export(ENVIRONMENT))["replaces"] == ""
    night.event["export_id"] = "none"
    assert marked(night) == set()


def test_what_a_morning_would_restore_never_expires(third_night: Night) -> None:
    """The record names an older export as long as the evening has not got further."""
    key = {"environment": {"S": ENVIRONMENT}}
    value = {":export": {"S": FIRST}}
    third_night.dynamodb.update_item(
        TableName="records", Key=key, UpdateExpression="SET export_id = :export", ExpressionAttributeValues=value
    )
    third_night.run("promote_export")
    assert marked(third_night) == {FAILED, EXTRACT}


def test_what_broke_off_while_it_marked_is_finished_by_the_next(
    third_night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pointer moves last: until then the next try knows what to mark."""
    bucket = third_night.function("promote_export").exports._bucket
    tag, done = bucket.tag, []

    def breaks(*what: str) -> None:
        if done:
            raise ServiceUnavailable("S3 is throttling.")
        done.append(what)
        tag(*what)

    with monkeypatch.context() as patched:
        patched.setattr(bucket, "tag", breaks)
        with pytest.raises(ServiceUnavailable):
            third_night.run("promote_export")
    assert third_night.read(layout.verified_export(ENVIRONMENT))["export_id"] == SECOND
    third_night.run("promote_export")
    for key in files(third_night, FIRST):
        assert third_night.s3.get_object_tagging(Bucket="data", Key=key)["TagSet"], key


def test_what_expires_at_this_moment_is_in_nobody_s_way(third_night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = third_night.function("promote_export").exports._bucket
    listed = files(third_night, FIRST)
    third_night.s3.delete_object(Bucket="data", Key=listed[0])
    monkeypatch.setattr(bucket, "keys", lambda _: iter(listed))
    assert third_night.run("promote_export")["files"] == 2
    assert third_night.s3.get_object_tagging(Bucket="data", Key=listed[1])["TagSet"]


def test_a_pointer_written_before_there_was_expiry_is_read(third_night: Night) -> None:
    key = layout.verified_export(ENVIRONMENT)
    old = {name: value for name, value in third_night.read(key).items() if name != "replaces"}
    third_night.put(key, json.dumps(old).encode())
    third_night.run("promote_export")
    assert marked(third_night) == set()
    assert third_night.read(key)["replaces"] == SECOND


def test_rows_are_counted_for_the_dashboard(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    judged = night.judge()
    night.run("promote_export")
    written = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    assert [(each["environment"], each.get("ExportedRows"), each.get("LakeRows")) for each in written] == [
        (ENVIRONMENT, [judged["rows"]], None),
        (ENVIRONMENT, None, [6]),
    ]
