"""Extracts of a running environment, and what they do to the evenings and mornings beside them: nothing."""

from datetime import timedelta

import pytest

from tests.stories.conftest import MONDAY, SLEEP_AT, WAKE_AT

pytestmark = pytest.mark.stories

NOON = MONDAY + timedelta(hours=4)
UP_TO_DATE, NOTHING, WAITS = "The lake is up to date", "Nothing to do", "The lake waits for the next extract"


def extract(night, at=NOON, request=None):
    night.at(at)
    return night.finish(night.begin("extract", request))


def manifest_of(night, pointer):
    return night.read(night.read(f"environments/dev/{pointer}.json")["manifest_key"])


def lake(night):
    return {key.rpartition("dev-")[2].removesuffix("-0.parquet") for key in night.keys("export/dag_run/")}


def test_history_comes_into_the_lake_while_people_work(night):
    extract(night)
    assert night.ended == UP_TO_DATE
    assert night.active_dags == night.active_dags_before
    assert night.record == {}, "it takes no lease and writes no record"
    assert night.messages == []
    assert night.keys("environments/dev/") == ["environments/dev/verified_history.json"]
    assert lake(night) == {night.read("environments/dev/verified_history.json")["export_id"]}
    assert not [key for key in night.keys("snapshots/") if "/history/" not in key and "manifest.json" not in key]


def test_each_extract_goes_on_where_the_last_one_ended_and_so_does_the_evening(night):
    extract(night)
    first = manifest_of(night, "verified_history")
    extract(night, NOON + timedelta(hours=1))
    second = manifest_of(night, "verified_history")
    assert second["history"]["since"] == first["history"]["watermark"]
    night.sleep()
    assert night.ended == "Asleep"
    evening = manifest_of(night, "verified_export")
    assert evening["history"]["since"] == second["history"]["watermark"]
    assert lake(night) == {manifest["export_id"] for manifest in (first, second, evening)}
    night.wake()
    assert night.ended == "Awake"
    extract(night, WAKE_AT + timedelta(hours=3))
    assert night.ended == UP_TO_DATE
    assert manifest_of(night, "verified_history")["history"]["since"] == evening["history"]["watermark"]


def test_by_hand(night):
    extract(night, request={"environment": "dev"})
    assert night.ended == UP_TO_DATE


def test_there_is_nothing_to_extract_at_night(night):
    night.sleep()
    files = night.keys("export/")
    extract(night, SLEEP_AT + timedelta(hours=4))
    assert night.ended == NOTHING
    assert "asleep" in night.execution.output["reason"]
    assert night.keys("export/") == files
    assert [subject for subject, _ in night.messages] == ["Asleep: dev"]


def test_an_evening_at_work_is_given_way(night):
    night.airflow.busy_until(SLEEP_AT + timedelta(minutes=20))
    night.at(SLEEP_AT)
    evening = night.begin("sleep")
    while "Give running tasks a moment" not in night.cloud.execution(evening).path:
        night.cloud.clock.sleep(1)
    night.finish(night.begin("extract"))
    assert night.ended == NOTHING
    assert "holds the lease" in night.execution.output["reason"]
    assert night.finish(evening).path[-1] == "Asleep"


def test_an_evening_that_took_the_lease_a_moment_ago_is_given_way_too(night):
    """Between the first look at the record and the run, an evening has begun."""
    night.at(SLEEP_AT)
    night.cloud.before("start_extract", lambda event: night.set_record(lease_owner="an evening", phase="awake"))
    night.finish(night.begin("extract"))
    assert night.ended == NOTHING
    assert "holds the lease" in night.execution.output["reason"]
    assert night.airflow.rows("dag_run") == [r for r in night.airflow.rows("dag_run") if r["dag_id"] != "db_export_dag"]


def test_an_extract_that_goes_on_when_the_evening_comes_delays_it_a_little(night):
    night.airflow.script.export_takes = timedelta(minutes=8)
    night.at(SLEEP_AT - timedelta(minutes=3))
    extracting = night.begin("extract")
    while "Give the extract a moment" not in night.cloud.execution(extracting).path:
        night.cloud.clock.sleep(1)
    night.sleep()
    assert night.ended == "Asleep"
    assert "Export once more" not in night.execution.path
    assert night.entered("Read the manifest") >= SLEEP_AT + timedelta(minutes=12), "one after the other"
    assert night.cloud.wait(extracting).path[-1] == UP_TO_DATE
    evening, history = (manifest_of(night, name) for name in ("verified_export", "verified_history"))
    assert (evening["mode"], history["mode"]) == ("complete", "history")
    assert night.record["export_id"] == evening["export_id"] != history["export_id"]
    assert lake(night) == {evening["export_id"], history["export_id"]}
    night.wake()
    assert night.ended == "Awake"
    assert night.active_dags == night.active_dags_before


def test_an_extract_that_hangs_until_its_time_out_does_not_keep_the_environment_up(night):
    """db_export_dag gives up (after 3 h) before an evening does (after 4): its own run comes next."""
    night.airflow.script.export_takes = timedelta(hours=1)
    night.airflow.fails_export()
    night.at(SLEEP_AT - timedelta(minutes=5))
    extracting = night.begin("extract")
    while "Give the extract a moment" not in night.cloud.execution(extracting).path:
        night.cloud.clock.sleep(1)
    night.airflow.script.export_takes = timedelta(minutes=2)
    night.sleep()
    assert night.ended == "Asleep"
    assert night.cloud.wait(extracting).path[-1] == WAITS


def test_an_extract_between_the_snapshot_and_the_delete_is_exported_too(night):
    """Its run is one that the export lacks: the last look counts runs, whoever's they are."""
    conf = {"incarnation": night.created_at.isoformat(), "mode": "history"}
    extracts = iter([lambda: night.airflow.trigger("db_export_dag", "x-1", conf)])
    night.cloud.before("delete_environment", lambda event: next(extracts, lambda: None)())
    night.run()
    assert night.ended == "Asleep"
    assert night.execution.path.count("Export once more") == 1


def test_no_second_extract_queues_behind_one_that_goes_on(night):
    night.airflow.script.export_takes = timedelta(minutes=8)
    night.at(NOON)
    first = night.begin("extract")
    while "Give the extract a moment" not in night.cloud.execution(first).path:
        night.cloud.clock.sleep(1)
    night.finish(night.begin("extract"))
    assert night.ended == NOTHING
    assert "goes on" in night.execution.output["reason"]
    assert [row["dag_id"] for row in night.airflow.rows("dag_run")].count("db_export_dag") == 1
    assert night.finish(first).path[-1] == UP_TO_DATE
    assert night.messages == []


def does_no_harm(night):
    assert night.execution.status == "FAILED"
    assert night.ended == WAITS
    assert night.active_dags == night.active_dags_before
    assert night.record == {}
    assert night.keys("export/") == night.keys("environments/") == []
    (message,) = night.messages
    assert message[0] == "Transient MWAA: the lake waits"
    assert night.execution.error in message[1]
    return True


def test_a_failed_extract_tells_a_human_once_and_does_no_harm(night):
    night.airflow.fails_export()
    extract(night)
    assert night.execution.error == "DagRunFailed"
    assert does_no_harm(night)
    extract(night, NOON + timedelta(hours=1))
    assert night.ended == UP_TO_DATE


@pytest.mark.parametrize("fault", ["loses_rows", "corrupts_file", "drops_file"])
def test_what_cannot_be_read_back_stays_out_of_the_lake(night, fault):
    getattr(night.airflow, fault)("log", *([1] if fault == "loses_rows" else []))
    extract(night)
    assert night.execution.error == "ExportNotVerified"
    assert does_no_harm(night)


def test_an_extract_that_disguises_itself_as_a_night_or_is_of_another_environment_is_refused(night):
    night.airflow.changes_manifest(lambda manifest: manifest.update(mode="complete"))
    extract(night)
    assert night.execution.error == "ManifestInvalid"
    assert does_no_harm(night)


def test_a_night_whose_manifest_is_an_extracts_is_refused(night):
    def shrink(manifest):
        files = [file for file in manifest["files"] if file["role"] == "history"]
        manifest.update(mode="history", tables={}, files=files, secrets=None)

    night.airflow.changes_manifest(shrink)
    night.run()
    assert night.ended == "Still awake: the export could not be verified"
    assert night.execution.error == "ManifestInvalid"
    assert night.calls("delete_environment") == []
    assert night.active_dags == night.active_dags_before


def test_without_an_environment_that_was_ever_there_a_human_is_told(night):
    extract(night, request={"environment": "nobody"})
    assert night.ended == WAITS
    assert night.execution.error == "EnvironmentNotFound"


def test_an_environment_that_is_updating_is_left_alone(night):
    night.cloud.mwaa.set_status("dev", "UPDATING")
    extract(night)
    assert night.ended == NOTHING
    assert "UPDATING" in night.execution.output["reason"]


def test_an_environment_that_goes_away_under_an_extract_is_no_alarm(night):
    night.airflow.export_hangs()
    night.at(NOON)
    extracting = night.begin("extract")
    while "Give the extract a moment" not in night.cloud.execution(extracting).path:
        night.cloud.clock.sleep(1)
    night.set_record(phase="asleep", blueprint_key="environments/dev/blueprints/x.json")
    night.cloud.client("mwaa").delete_environment(Name="dev")
    night.finish(extracting)
    assert "Look whether the evening has come" in night.execution.path
    assert night.ended == NOTHING
    assert night.messages == []


def test_a_human_may_give_up_rows_that_have_no_place_and_nobody_else(morning):
    morning.folder.when_created(lambda airflow: airflow.fails_restore())
    morning.run()
    assert morning.read("environments/dev/restore_order.json")["accept_clashes"] is False
    morning.finish(morning.begin("wake", {"environment": "dev", "accept_clashes": True}))
    assert morning.ended == "Awake"
    assert morning.read("environments/dev/restore_order.json")["accept_clashes"] is True
