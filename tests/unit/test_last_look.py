from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import promise
from transient_mwaa.domain.errors import ChangedSinceExport
from transient_mwaa.domain.last_look import LOG_AHEAD, LogEntry, changes, differences, require_unchanged
from transient_mwaa.domain.quiesce import (
    UNFINISHED_TASKS,
    Dag,
    DagRun,
    Drain,
    Look,
    Owed,
    Policy,
    State,
    TaskInstance,
    plan_drain,
)

pytestmark = pytest.mark.unit

OWED = Owed("dev", frozenset({"etl"}), known=frozenset({"etl", "idle"}))
PROMISED = promise.parse(promise.document())
SNAPSHOT_AT = datetime(2026, 11, 23, 20, 5, tzinfo=UTC)
OWN = (Dag("db_export_dag", is_paused=False), Dag("db_restore_dag", is_paused=False))


def look(*, dags: tuple[Dag, ...] = (), runs: tuple[DagRun, ...] = (), tasks: tuple[TaskInstance, ...] = ()) -> Look:
    return Look((Dag("etl", is_paused=True), *OWN, *dags), runs, tasks, {})


def found(seen: Look, *entries: LogEntry, cut_off: frozenset[tuple[str, str]] = frozenset()) -> tuple[str, ...]:
    return changes(seen, OWED, cut_off, entries, 41, SNAPSHOT_AT)


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


def logged(event: str, before: timedelta, dag_id: str = "", *, of_task: bool = False) -> LogEntry:
    return LogEntry(40, dag_id, event, SNAPSHOT_AT - before, of_task)


def test_what_was_logged_just_before_the_snapshot_may_have_been_done_after_it() -> None:
    assert found(look(), logged("variable.edit", timedelta(seconds=1))) == ("variable.edit of no DAG (log entry 40)",)
    assert found(look(), logged("success", LOG_AHEAD, "etl")) == ("success of etl (log entry 40)",), "marked by a human"
    assert found(look(), logged("variable.edit", LOG_AHEAD + timedelta(seconds=1))) == ()


@pytest.mark.parametrize(
    "usual",
    [
        logged("cli_dag_pause", timedelta(seconds=5), "^(etl|idle)$"),
        logged("cli_dag_unpause", timedelta(seconds=5), "^(etl)$"),
        logged("cli_dag_trigger", timedelta(seconds=5), "db_export_dag"),
        logged("cli_task_run", timedelta(seconds=5), "etl"),
        logged("success", timedelta(seconds=5), "etl", of_task=True),
    ],
)
def test_what_every_evening_leaves_in_the_log_is_no_change(usual: LogEntry) -> None:
    assert found(look(), usual) == ()


def test_the_same_after_the_snapshot_is_a_change() -> None:
    after = LogEntry(42, "etl", "success", SNAPSHOT_AT + timedelta(minutes=1), of_task=True)
    unstamped = LogEntry(43, "^(etl)$", "cli_dag_unpause")
    assert found(look(), after, unstamped) == (
        "success of etl (log entry 42)",
        "cli_dag_unpause of ^(etl)$ (log entry 43)",
    )


def test_the_run_of_a_dag_whose_file_is_gone_lies_dormant_unless_it_is_at_work() -> None:
    gone = Look(OWN, (DagRun("etl", "r", "running"),), (), {})
    assert found(gone) == ()
    at_work = Look(OWN, gone.runs, (TaskInstance("etl", "r", "t", -1, "running"),), {})
    assert found(at_work) == ("the run r of etl is unfinished",)


IDS = st.sampled_from(["a", "b", "c", "db_export_dag"])
LOOKS = st.builds(
    lambda dags, runs, tasks: Look(
        tuple(Dag(dag_id, is_paused=paused) for dag_id, paused in sorted(dags.items())),
        tuple(DagRun(dag_id, "r", state) for dag_id, state in sorted(runs.items())),
        tuple(TaskInstance(dag_id, "r", "t", -1, state) for dag_id, state in sorted(tasks.items())),
        {},
    ),
    st.dictionaries(IDS, st.sampled_from([True, True, False])),
    st.dictionaries(IDS, st.sampled_from(["queued", "running"])),
    st.dictionaries(IDS, st.sampled_from(UNFINISHED_TASKS)),
)


@settings(max_examples=500)
@given(LOOKS, st.sets(IDS.filter(lambda dag_id: dag_id != "db_export_dag")), st.sampled_from(Policy), st.booleans())
def test_what_counts_as_quiet_in_the_evening_is_no_change_at_its_end(
    seen: Look, owed: set[str], policy: Policy, overdue: bool
) -> None:
    """Else it would be exported again and again, and never sleep."""
    drain = Drain(SNAPSHOT_AT, SNAPSHOT_AT + timedelta(hours=8), timedelta(minutes=30), policy)
    now = SNAPSHOT_AT + timedelta(hours=1 if overdue else 0)
    planned = plan_drain(seen, Owed("dev", frozenset(owed)), drain, now)
    if planned.state is State.QUIET:
        cut_off = {(run.dag_id, run.run_id) for run in planned.cut_off}
        assert changes(seen, planned.owed, cut_off, (), 41, SNAPSHOT_AT) == ()


def test_changes_keep_the_environment() -> None:
    require_unchanged("dev", "x", ())
    with pytest.raises(ChangedSinceExport, match=r"thing 9 and 5 more\. The environment stays"):
        require_unchanged("dev", "x", tuple(f"thing {index}" for index in range(15)))
