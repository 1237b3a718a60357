"""What people do between the snapshot and the delete is seen, and exported again, or the night is postponed."""

from datetime import timedelta

import pytest

from local.airflow_in_memory import Task
from tests.stories.conftest import SLEEP_AT
from tests.stories.test_evening import stays_awake_as_it_was
from transient_mwaa.domain.last_look import LOG_AHEAD

pytestmark = pytest.mark.stories

SLOWLY = timedelta(seconds=30)


def last_run(airflow, dag_id):
    return [row["run_id"] for row in airflow.rows("dag_run") if row["dag_id"] == dag_id][-1]


DEEDS = {
    "adds a variable": lambda airflow: airflow.set_variable("new", "since the snapshot"),
    "edits a variable": lambda airflow: airflow.set_variable("colour", "red"),
    "triggers a run": lambda airflow: airflow.trigger("resting"),
    "adds a DAG": lambda airflow: airflow.add_dag("newcomer", every=timedelta(hours=1), active=False),
    "unpauses a DAG": lambda airflow: airflow.pause("resting", paused=False),
    "clears a task": lambda airflow: airflow.clear("producer", last_run(airflow, "producer")),
}


def once_before(function, night, deed):
    """Does it right before this function is called for the first time; answers what was done, for later."""
    done = []

    def do(_event):
        if not done:
            done.append("done")
            deed()

    night.cloud.before(function, do)
    return done


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("function", ["judge_export", "delete_environment"])
def test_what_somebody_does_after_the_snapshot_is_exported_again(night, function, deed):
    once_before(function, night, lambda: DEEDS[deed](night.airflow))
    night.run()
    assert night.ended == "Asleep"
    assert night.execution.path.count("Start the export") == 2
    assert len(night.calls("delete_environment")) == 1


def test_what_is_logged_before_the_snapshot_and_done_after_it_is_exported_again(night):
    """Airflow commits its entry of the audit log first; the value is overwritten, so nothing counts otherwise."""
    edit = once_before("start_export", night, lambda: night.airflow.set_variable("colour", "red", SLOWLY))
    night.run()
    assert edit == ["done"]
    assert night.ended == "Asleep"
    assert night.execution.path.count("Start the export") == 2
    night.wake()
    assert night.airflow.tables["variable"].one(key="colour")["val"] == "red"


def test_an_edit_long_before_the_export_is_exported_once(night):
    night.at(SLEEP_AT - timedelta(minutes=3))
    night.airflow.set_variable("colour", "red", SLOWLY)
    night.run()
    assert night.ended == "Asleep"
    assert night.execution.path.count("Start the export") == 1


def test_the_next_export_waits_until_what_was_logged_has_taken_effect(night):
    """However slow the deed that was seen at the last look: it is not a reason for a third export."""
    once_before("delete_environment", night, lambda: night.airflow.set_variable("colour", "red", LOG_AHEAD))
    night.run()
    assert night.ended == "Asleep"
    assert night.execution.path.count("Start the export") == 2
    night.wake()
    assert night.airflow.tables["variable"].one(key="colour")["val"] == "red"


def test_an_environment_that_changes_again_and_again_stays_and_gets_its_dags_back(night):
    night.cloud.before("delete_environment", lambda _: DEEDS["edits a variable"](night.airflow))
    night.run()
    assert night.ended == "Still awake: it changed again and again"
    assert night.execution.path.count("Start the export") == 3
    assert "Let the work go on for a while" in night.execution.path
    assert stays_awake_as_it_was(night)


def test_the_run_of_an_owed_dag_whose_file_is_gone_keeps_nobody_awake(night):
    """It goes nowhere, and is carried over the night as it is."""
    night.airflow.add_dag("gone", tasks=(Task(lasts=timedelta(minutes=5)), Task("never")))
    night.at(SLEEP_AT - timedelta(minutes=1))
    run_id = night.airflow.trigger("gone")
    seen = []

    def remove(_event):
        seen.append("look")
        if len(seen) == 2:
            night.airflow.remove_dag("gone")

    night.cloud.before("quiesce", remove)
    night.cloud.before("delete_environment", lambda _: seen.append(night.airflow.run("gone", run_id)["state"]))
    night.run()
    assert night.ended == "Asleep"
    assert night.execution.path.count("Start the export") == 1
    assert "gone" in night.read("environments/dev/owed_dags.json")["dag_ids"]
    assert seen[-1] == "running"


def test_an_update_of_the_environment_while_it_drains_is_not_lost(night):
    night.airflow.busy_until(SLEEP_AT + timedelta(minutes=40))
    night.active_dags_before = night.active_dags

    def update(_event):
        night.cloud.mwaa.script("dev", update=["AVAILABLE"])
        night.cloud.client("mwaa").update_environment(Name="dev", MaxWorkers=7)

    night.cloud.before("start_export", update)
    night.run()
    assert night.ended == "Still awake: the delete was refused"
    assert night.execution.error == "BlueprintChanged"
    assert "MaxWorkers" in night.messages[-1][1]
    assert stays_awake_as_it_was(night)
