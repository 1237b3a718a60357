"""What people do between the snapshot and the delete is seen, and exported again, or the night is postponed."""

from datetime import timedelta

import pytest

from tests.stories.conftest import SLEEP_AT
from tests.stories.test_evening import stays_awake_as_it_was

pytestmark = pytest.mark.stories


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


def once(night, function, deed):
    """Does it right before this function is called for the first time."""
    done = []

    def do(_event):
        if not done:
            done.append(deed)
            DEEDS[deed](night.airflow)

    night.cloud.before(function, do)


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("function", ["judge_export", "delete_environment"])
def test_what_somebody_does_after_the_snapshot_is_exported_again(night, function, deed):
    once(night, function, deed)
    night.run()
    assert night.ended == "Asleep"
    assert night.execution.path.count("Start the export") == 2
    assert len(night.calls("delete_environment")) == 1


def test_an_environment_that_changes_again_and_again_stays_and_gets_its_dags_back(night):
    night.cloud.before("delete_environment", lambda _: DEEDS["edits a variable"](night.airflow))
    night.run()
    assert night.ended == "Still awake: it changed again and again"
    assert night.execution.path.count("Start the export") == 3
    assert "Let the work go on for a while" in night.execution.path
    assert stays_awake_as_it_was(night)


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
