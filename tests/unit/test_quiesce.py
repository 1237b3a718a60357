"""Bringing Airflow to rest and giving the DAGs back, one look at a time."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transient_mwaa.domain.errors import DagsStillMissing, HistoryNotBack, StillBusy
from transient_mwaa.domain.quiesce import (
    Dag,
    DagRun,
    Drain,
    Look,
    Owed,
    Policy,
    State,
    TaskInstance,
    cut_off_json,
    plan_drain,
    plan_give_back,
    require_given_back,
)
from transient_mwaa.domain.readiness import compare

pytestmark = pytest.mark.unit

START = datetime(2026, 11, 23, 20, tzinfo=UTC)
LIMIT = timedelta(minutes=30)
NOTHING = Owed("dev")


def look(active=(), paused=(), runs=(), tasks=(), consumers=None):
    dags = [Dag(dag_id, False) for dag_id in active] + [Dag(dag_id, True) for dag_id in paused]
    return Look(
        tuple(dags),
        tuple(DagRun(dag_id, "r1", state) for dag_id, state in runs),
        tuple(TaskInstance(dag_id, "r1", "t", -1, state) for dag_id, state in tasks),
        consumers or {},
    )


def plan(seen, owed=NOTHING, policy=Policy.POSTPONE, minutes=0, give_up_hours=8):
    now = START + timedelta(minutes=minutes)
    return plan_drain(seen, owed, Drain(START, START + timedelta(hours=give_up_hours), LIMIT, policy), now)


def owed(*dag_ids):
    return Owed("dev", frozenset(dag_ids), START.isoformat())


def test_idle_dags_are_paused_and_owed():
    planned = plan(look(active=["a", "b"], paused=["c"]))
    assert planned.state == State.DRAINING
    assert planned.pause == ("a", "b")
    assert planned.owed.dag_ids == {"a", "b"}
    assert planned.owed.paused == {"c"}
    assert planned.owed.known == {"a", "b", "c"}
    assert planned.owed.since == START.isoformat()


def test_what_is_still_owed_from_a_crashed_run_stays_owed():
    planned = plan(look(active=["b"], paused=["a", "c"]), owed("a"))
    assert planned.owed.dag_ids == {"a", "b"}
    assert planned.owed.paused == {"c"}


def test_a_running_dag_finishes_first():
    planned = plan(look(active=["a", "b"], runs=[("a", "running")]))
    assert planned.pause == ("b",)
    assert [run.dag_id for run in planned.blocking] == ["a"]
    assert plan(look(active=["a"], runs=[("a", "queued")])).pause == ()


def test_quiet_is_only_what_this_very_look_found():
    assert plan(look(active=["a"])).state == State.DRAINING
    assert plan(look(paused=["a"]), owed("a")).state == State.QUIET


def test_consumers_are_paused_after_their_producers():
    chain = {"middle": ["producer"], "last": ["middle"]}
    assert plan(look(active=["producer", "middle", "last"], consumers=chain)).pause == ("producer",)
    assert plan(look(["middle", "last"], ["producer"], consumers=chain), owed("producer")).pause == ("middle",)
    assert plan(look(["last"], ["producer", "middle"], consumers=chain), owed("producer", "middle")).pause == ("last",)


def test_a_consumer_waits_for_its_producers_last_run():
    seen = look(["consumer"], ["producer"], tasks=[("producer", "running")], consumers={"consumer": ["producer"]})
    assert plan(seen, owed("producer", "consumer")).pause == ()


def test_consumers_in_a_ring_are_paused_together():
    ring = {"a": ["b"], "b": ["a"], "self": ["self"]}
    assert plan(look(active=["self", "a", "b"], consumers=ring)).pause == ("self",)
    assert plan(look(["a", "b"], ["self"], consumers=ring), owed("self")).pause == ("a", "b")


def test_a_dag_that_we_paused_and_that_was_triggered_since_drains_again():
    planned = plan(look(paused=["a", "human"], runs=[("a", "queued"), ("human", "queued")]), owed("a"))
    assert planned.unpause == ("a",)
    assert planned.state == State.DRAINING


@pytest.mark.parametrize("state", ["running", "queued", "deferred"])
def test_a_task_at_work_in_a_dag_paused_by_a_human_is_waited_for(state):
    planned = plan(look(paused=["human"], runs=[("human", "running")], tasks=[("human", state)]))
    assert planned.state == State.DRAINING
    assert planned.unpause == ()


@pytest.mark.parametrize("state", ["up_for_reschedule", "up_for_retry"])
def test_a_dormant_run_of_a_dag_paused_by_a_human_is_not(state):
    assert plan(look(paused=["human"], runs=[("human", "running")], tasks=[("human", state)])).state == State.QUIET


def test_a_task_that_outlives_its_run_is_waited_for():
    assert [run.dag_id for run in plan(look(paused=["a"], tasks=[("a", "running")])).blocking] == ["a"]


def test_our_own_dags_are_never_touched():
    own = ["db_export_dag", "db_restore_dag"]
    planned = plan(look(active=own, runs=[("db_export_dag", "running")], tasks=[("db_export_dag", "running")]))
    assert planned.state == State.QUIET
    assert planned.owed.dag_ids == frozenset()


BUSY = look(active=["a", "b"], runs=[("a", "running")], tasks=[("a", "running")])


def test_at_the_deadline_it_is_postponed():
    assert plan(BUSY, minutes=30).state == State.DRAINING
    late = plan(BUSY, minutes=31)
    assert (late.state, late.pause, late.owed.dag_ids) == (State.POSTPONED, (), {"a", "b"})


def test_at_the_deadline_force_pauses_everything_and_names_what_it_cuts_off():
    late = plan(BUSY, policy=Policy.FORCE, minutes=31)
    assert (late.state, late.pause) == (State.DRAINING, ("a", "b"))
    still = look(paused=["a", "b"], runs=[("a", "running")], tasks=[("a", "running")])
    cut = plan(still, late.owed, Policy.FORCE, minutes=32)
    assert (cut.state, cut.unpause) == (State.QUIET, ())
    assert cut_off_json("dev", cut.cut_off, still.tasks, START)["runs"] == [
        {
            "dag_id": "a",
            "run_id": "r1",
            "state": "running",
            "tasks": [{"task_id": "t", "map_index": -1, "state": "running"}],
        }
    ]


def test_before_the_deadline_force_waits_as_well():
    assert plan(BUSY, policy=Policy.FORCE, minutes=5).pause == ("b",)


def test_when_it_is_not_worth_it_any_more_somebody_is_told_what_ran():
    with pytest.raises(StillBusy, match=r"a \(r1, running\)"):
        plan(BUSY, minutes=5, give_up_hours=0)


def test_force_does_not_pause_for_ever_what_is_unpaused_again_and_again():
    assert plan(BUSY, policy=Policy.FORCE, minutes=479).pause == ("a", "b")
    with pytest.raises(StillBusy, match=r"in spite of the drain policy force.*: a, b\. Find out who"):
        plan(BUSY, policy=Policy.FORCE, minutes=480)
    still = look(paused=["a", "b"], runs=[("a", "running")], tasks=[("a", "running")])
    late = plan(still, owed("a", "b"), Policy.FORCE, minutes=481)
    assert (late.state, [run.dag_id for run in late.cut_off]) == (State.QUIET, ["a"])


def test_quiet_is_quiet_also_late():
    assert plan(look(paused=["a"]), owed("a"), minutes=600).state == State.QUIET


names = st.sampled_from("abcdef")
looks = st.builds(
    look,
    active=st.just(()),
    paused=st.just(()),
    runs=st.lists(st.tuples(names, st.sampled_from(["queued", "running"])), max_size=4),
    tasks=st.lists(st.tuples(names, st.sampled_from(["running", "deferred", "up_for_retry"])), max_size=4),
    consumers=st.dictionaries(names, st.sets(names, max_size=3), max_size=4),
)


@given(seen=looks, active=st.sets(names), paused=st.sets(names), before=st.sets(names))
def test_whatever_is_seen(seen, active, paused, before):
    paused -= active
    dags = tuple([Dag(dag_id, False) for dag_id in sorted(active)] + [Dag(dag_id, True) for dag_id in sorted(paused)])
    planned = plan(Look(dags, seen.runs, seen.tasks, seen.consumers), owed(*before))
    busy = {run.dag_id for run in seen.runs}
    assert planned.owed.dag_ids == before | active  # nothing owed is ever forgotten
    assert not set(planned.pause) & busy  # a run is never stopped half-way
    assert set(planned.pause) <= active
    assert set(planned.unpause) <= before & paused
    if active - busy and not busy and not seen.tasks:
        assert planned.pause  # it always gets on
    if planned.state == State.QUIET:
        assert not active


@given(active=st.sets(names), consumers=st.dictionaries(names, st.sets(names, max_size=3)))
def test_an_idle_airflow_always_comes_to_rest(active, consumers):
    paused, state = set(), NOTHING
    for _ in range(len(active) + 1):
        planned = plan(look(sorted(active - paused), sorted(paused), consumers=consumers), state)
        paused, state = paused | set(planned.pause), planned.owed
    assert planned.state == State.QUIET
    assert planned.owed.dag_ids == active


class TestGiveBack:
    owed = Owed("dev", frozenset({"a", "b", "new"}), paused=frozenset({"human", "starter"}))
    dags = (Dag("a", True), Dag("b", False), Dag("human", True), Dag("starter", False))

    def test_exactly_what_is_owed(self):
        given_back = plan_give_back(self.dags, self.owed, waking=False)
        assert (given_back.unpause, given_back.pause, given_back.missing) == (("a",), (), ("new",))
        assert given_back.owed.dag_ids == {"a", "new"}  # b is seen active

    def test_in_the_morning_what_started_by_itself_is_paused_again(self):
        assert plan_give_back(self.dags, self.owed, waking=True).pause == ("starter",)

    def test_a_dag_that_is_not_parsed_in_time(self):
        everything_back = plan_give_back([Dag("a", False)], owed("a"), waking=True)
        waited_for = plan_give_back(self.dags, self.owed, waking=True)
        require_given_back(everything_back, START, START + timedelta(days=1))
        require_given_back(waited_for, START, START + timedelta(minutes=45))
        with pytest.raises(DagsStillMissing, match="new"):
            require_given_back(waited_for, START, START + timedelta(minutes=46))


DUE = "2026-11-23T21:00:00+00:00"
LONG_AGO = "2026-01-01T00:00:00Z"  # Airflow 3 writes UTC like this


class TestTheNextRun:
    """A DAG whose history is not back would begin with the past, as its next run tells."""

    def test_it_is_noted_in_the_evening(self):
        seen = Look((Dag("a", False, DUE), Dag("by hand", False), Dag("human", True, DUE)), (), (), {})
        assert plan(seen).owed.next_runs == {"a": DUE}

    def test_a_run_that_ended_meanwhile_moves_it_on(self):
        earlier = Owed("dev", frozenset("a"), next_runs={"a": LONG_AGO})
        for paused in (True, False):
            assert plan(Look((Dag("a", paused, DUE),), (), (), {}), earlier).owed.next_runs == {"a": DUE}

    def test_what_was_held_this_morning_is_still_due_when_it_was_due(self):
        held = Owed("dev", frozenset("a"), next_runs={"a": DUE})
        assert plan(Look((Dag("a", True, LONG_AGO),), (), (), {}), held).owed.next_runs == {"a": DUE}

    def test_what_a_human_unpaused_in_spite_of_that_is_due_when_airflow_says(self):
        held = Owed("dev", frozenset("a"), next_runs={"a": DUE})
        assert plan(Look((Dag("a", False, LONG_AGO),), (), (), {}), held).owed.next_runs == {"a": LONG_AGO}

    @pytest.mark.parametrize(
        ("now_due", "held"),
        [(DUE, ()), ("2026-11-24T06:00:00Z", ()), (None, ()), ("2026-11-23T20:59:59Z", ("a",)), (LONG_AGO, ("a",))],
    )
    def test_only_one_that_lies_before_the_evenings_is_held(self, now_due, held):
        due = Owed("dev", frozenset("ab"), next_runs={"a": DUE})
        left = plan_give_back([Dag("a", True, now_due), Dag("b", True, LONG_AGO)], due, waking=True)
        assert left.held == held
        assert left.unpause == tuple(sorted({"a", "b"} - set(held)))
        assert left.owed.dag_ids == {"a", "b"}

    def test_the_evening_that_paused_it_gives_it_back_whatever_it_says(self):
        due = Owed("dev", frozenset("a"), next_runs={"a": DUE})
        left = plan_give_back([Dag("a", True, LONG_AGO)], due, waking=False, falling_asleep=True)
        assert (left.unpause, left.held) == (("a",), ())

    def test_whoever_is_active_in_spite_of_that_is_given_back(self):
        due = Owed("dev", frozenset("a"), next_runs={"a": DUE})
        left = plan_give_back([Dag("a", False, LONG_AGO)], due, waking=True)
        assert (left.held, left.owed.dag_ids) == ((), frozenset())

    def test_it_is_named_once_there_was_time_enough(self):
        due = Owed("dev", frozenset({"late", "new"}), next_runs={"late": DUE})
        held = plan_give_back([Dag("late", True, LONG_AGO), Dag("new", False)], due, waking=True)
        require_given_back(held, START, START + timedelta(minutes=45))
        with pytest.raises(HistoryNotBack, match=r"1 DAGs stay paused.*: late\."):
            require_given_back(held, START, START + timedelta(minutes=46))
        held_and_missing = plan_give_back([Dag("late", True, LONG_AGO)], due, waking=True)
        with pytest.raises(DagsStillMissing, match=r"not parsed 1 DAGs.*: new\. 1 DAGs stay paused.*: late\."):
            require_given_back(held_and_missing, START, START + timedelta(minutes=46))


def test_what_is_owed_is_written_and_read():
    before = Owed("dev", frozenset("ab"), START.isoformat(), frozenset("abc"), frozenset("c"), {"a": DUE})
    stored = before.as_json()
    assert stored["dag_ids"] == ["a", "b"]
    assert Owed.from_json("dev", stored) == before
    assert Owed.from_json("dev", None) == NOTHING
    assert Owed.from_json("dev", {"environment": "dev", "dag_ids": ["a"], "since": "x"}).dag_ids == {"a"}


def test_readiness_is_yesterdays_list_against_todays():
    readiness = compare(["a", "new"], ["a", "b"], 3)
    assert (readiness.import_errors, readiness.dags_missing) == (3, ("b",))
