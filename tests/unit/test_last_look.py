import pytest

from tests.unit import promise
from transient_mwaa.domain.errors import ChangedSinceExport
from transient_mwaa.domain.last_look import LogEntry, changes, differences, require_unchanged
from transient_mwaa.domain.quiesce import Dag, DagRun, Look, Owed, TaskInstance

pytestmark = pytest.mark.unit

OWED = Owed("dev", frozenset({"etl"}), known=frozenset({"etl", "idle"}))
PROMISED = promise.parse(promise.document())
OWN = (Dag("db_export_dag", is_paused=False), Dag("db_restore_dag", is_paused=False))


def look(*, dags: tuple[Dag, ...] = (), runs: tuple[DagRun, ...] = (), tasks: tuple[TaskInstance, ...] = ()) -> Look:
    return Look((Dag("etl", is_paused=True), *OWN, *dags), runs, tasks, {})


def found(seen: Look, *entries: LogEntry, cut_off: frozenset[tuple[str, str]] = frozenset()) -> tuple[str, ...]:
    return changes(seen, OWED, cut_off, entries, max_log_id=41)


def test_a_sleeping_airflow_has_not_changed() -> None:
    own_run = DagRun("db_export_dag", "x", "running")
    own_task = TaskInstance("db_export_dag", "x", "export", -1, "running")
    entries = (LogEntry(41, "etl", "success"), LogEntry(42, "db_export_dag", "success"), LogEntry(7, "", "cli"))
    assert found(look(runs=(own_run,), tasks=(own_task,)), *entries) == ()


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_run_that_is_not_finished_is_named(state: str) -> None:
    assert found(look(runs=(DagRun("etl", "manual 1", state),))) == ("the run manual 1 of etl is unfinished",)


@pytest.mark.parametrize("state", ["queued", "running", "deferred", "restarting"])
def test_a_task_at_work_is_named_even_in_a_run_that_counts_as_finished(state: str) -> None:
    assert found(look(tasks=(TaskInstance("idle", "r", "t", -1, state),))) == ("the run r of idle is unfinished",)


def test_the_dormant_run_of_a_dag_that_a_human_paused_is_in_the_export() -> None:
    dormant = look(dags=(Dag("idle", is_paused=True),), runs=(DagRun("idle", "r", "running"),))
    assert found(dormant) == ()
    waking = look(
        dags=(Dag("idle", is_paused=True),),
        runs=(DagRun("idle", "r", "running"),),
        tasks=(TaskInstance("idle", "r", "t", 3, "queued"),),
    )
    assert found(waking) == ("the run r of idle is unfinished",)


def test_a_run_that_was_cut_off_by_name_is_no_change_but_its_neighbour_is() -> None:
    seen = look(runs=(DagRun("etl", "1", "running"), DagRun("etl", "2", "running")))
    assert found(seen, cut_off=frozenset({("etl", "1")})) == ("the run 2 of etl is unfinished",)


def test_a_dag_that_was_unpaused_is_named() -> None:
    assert found(look(dags=(Dag("idle", is_paused=False),))) == ("the DAG idle is active",)


def test_a_dag_that_was_added_is_named_even_if_it_is_paused() -> None:
    assert found(look(dags=(Dag("new", is_paused=True),))) == ("the DAG new is new",)


def test_a_dag_that_has_gone_takes_nothing_away() -> None:
    assert found(Look(OWN, (), (), {})) == ()


def test_rows_that_came_or_went_without_an_entry_are_named() -> None:
    held = {name: PROMISED.tables[name].rows for name in ("connection", "slot_pool", "variable")}
    assert differences(held, PROMISED) == ()
    assert differences(held | {"variable": 1, "connection": 3}, PROMISED) == (
        "connection has 3 rows, in the export it has 2",
        "variable has 1 rows, in the export it has 2",
    )


def test_whatever_the_audit_log_learned_is_named() -> None:
    entries = (LogEntry(43, "", "variable.create"), LogEntry(42, "etl", "clear"), LogEntry(41, "etl", "old"))
    assert found(look(), *entries) == (
        "clear of etl (log entry 42)",
        "variable.create of no DAG (log entry 43)",
    )


def test_changes_keep_the_environment() -> None:
    require_unchanged("dev", "x", ())
    with pytest.raises(ChangedSinceExport, match=r"thing 9 and 5 more\. The environment stays"):
        require_unchanged("dev", "x", tuple(f"thing {index}" for index in range(15)))
