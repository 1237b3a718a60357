"""The functions that speak with Airflow: its REST API and CLI stand behind the local MWAA."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from tests.functions.cloud import LEASE, ME, ago, standing
from tests.functions.tiny_airflow import TinyAirflow
from transient_mwaa.aws import passing
from transient_mwaa.aws.airflow_rest import AirflowRest
from transient_mwaa.domain.errors import (
    DagNotFound,
    DagRunFailed,
    DagRunNotFound,
    DagsStillMissing,
    ExtractGivesWay,
    HistoryNotBack,
    LeaseLost,
    RestApiUnavailable,
    RestoreNotProven,
    RestoreRefused,
    StillBusy,
)

pytestmark = pytest.mark.functions


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    with standing(tmp_path, monkeypatch) as cloud:
        cloud.create()
        cloud.leased()
        yield cloud


def quiesce(cloud, since=0, give_up=-8, **variables):
    event = {"environment": "dev", "waiting_since": ago(minutes=since), "give_up_at": ago(hours=give_up), **LEASE}
    return cloud.function("quiesce", **variables)(event)


class TestQuiesce:
    def test_idle_dags_are_paused_once_and_stay_owed(self, cloud):
        cloud.airflow.paused |= {"a.b": False, "c": False, "human": True}
        assert quiesce(cloud) == {"state": "draining", "active": 2, "unfinished": 0, "owed": 2, "cut_off": 0}
        assert cloud.airflow.paused == {
            "a.b": True, "c": True, "human": True, "db_export_dag": False, "db_restore_dag": False
        }  # fmt: skip
        assert quiesce(cloud) == {"state": "quiet", "active": 0, "unfinished": 0, "owed": 2, "cut_off": 0}
        owed = cloud.json("environments/dev/owed_dags.json")
        assert (owed["environment"], owed["dag_ids"], owed["paused"]) == ("dev", ["a.b", "c"], ["human"])
        assert owed["known"] == ["a.b", "c", "db_export_dag", "db_restore_dag", "human"]

    def test_owed_is_written_before_the_first_pause(self, cloud):
        cloud.airflow.paused |= {"a": False}

        def stored(command):
            assert cloud.json("environments/dev/owed_dags.json")["dag_ids"] == ["a"]
            return TinyAirflow.cli(cloud.airflow, command)

        cloud.airflow.cli = stored
        quiesce(cloud)
        assert cloud.airflow.paused["a"]

    def test_a_function_that_outlives_its_execution_overwrites_nothing(self, cloud):
        """Whoever took over has written what is owed since this one read it: the union must survive."""
        cloud.airflow.paused |= {"a": False, "b": True}
        rest = cloud.airflow.rest

        def meanwhile(*request):
            owed = {"environment": "dev", "dag_ids": ["b"], "paused": [], "known": ["a", "b"], "since": ago(minutes=1)}
            cloud.client("s3").put_object(
                Bucket="data", Key="environments/dev/owed_dags.json", Body=json.dumps(owed).encode()
            )
            return rest(*request)

        cloud.airflow.rest = meanwhile
        with pytest.raises(LeaseLost, match="Another run has written"):
            quiesce(cloud)
        assert cloud.json("environments/dev/owed_dags.json")["dag_ids"] == ["b"]
        assert not cloud.airflow.paused["a"]

    def test_a_function_that_loses_the_lease_on_its_way_pauses_nothing(self, cloud):
        cloud.airflow.paused |= {"a": False}
        rest = cloud.airflow.rest

        def meanwhile(*request):
            cloud.record(lease_owner="another", lease_fence=LEASE["fence"])
            return rest(*request)

        cloud.airflow.rest = meanwhile
        with pytest.raises(LeaseLost):
            quiesce(cloud)
        assert not cloud.airflow.paused["a"]

    def test_a_consumer_is_paused_after_its_producer(self, cloud):
        cloud.airflow.paused |= {"consumer": False, "producer": False}
        cloud.airflow.assets = [
            {"consuming_dags": [{"dag_id": "consumer"}], "producing_tasks": [{"dag_id": "producer", "task_id": "t"}]}
        ]
        quiesce(cloud)
        assert (cloud.airflow.paused["producer"], cloud.airflow.paused["consumer"]) == (True, False)
        quiesce(cloud)
        assert cloud.airflow.paused["consumer"]

    def test_work_is_waited_for_then_postponed(self, cloud):
        cloud.airflow.paused |= {"a": False}
        cloud.airflow.run("a", tasks=["running"])
        assert quiesce(cloud)["state"] == "draining"
        assert quiesce(cloud, since=31)["state"] == "postponed"
        assert not cloud.airflow.paused["a"]
        with pytest.raises(StillBusy, match=r"a \(r1, running\)"):
            quiesce(cloud, give_up=0)

    def test_force_names_what_it_cuts_off(self, cloud):
        cloud.airflow.paused |= {"a": False}
        cloud.airflow.run("a", tasks=["running"])
        assert quiesce(cloud, since=31, DRAIN_POLICY="force")["state"] == "draining"
        assert quiesce(cloud, since=31, DRAIN_POLICY="force") == {
            "state": "quiet", "active": 0, "unfinished": 0, "owed": 1, "cut_off": 1
        }  # fmt: skip
        (run,) = cloud.json("environments/dev/cut_off.json")["runs"]
        assert (run["dag_id"], run["tasks"][0]["state"]) == ("a", "running")


class TestGiveBack:
    def give(self, cloud, since=0):
        return cloud.call("give_back", waiting_since=ago(minutes=since), **LEASE)

    def owe(self, cloud, *dag_ids, paused=()):
        value = {"environment": "dev", "dag_ids": list(dag_ids), "since": ago(hours=1), "paused": list(paused)}
        cloud.client("s3").put_object(Bucket="data", Key="environments/dev/owed_dags.json", Body=json.dumps(value))

    def test_nothing_owed_asks_nobody(self, cloud):
        cloud.airflow.broken = 500
        assert self.give(cloud) == {"done": True, "given": 0, "missing": 0}

    def test_exactly_what_was_owed(self, cloud):
        cloud.airflow.paused |= {"a": True, "human": True}
        self.owe(cloud, "a", "new")
        assert self.give(cloud) == {"done": False, "given": 1, "missing": 1}
        assert cloud.airflow.paused["a"] is False
        assert cloud.airflow.paused["human"] is True
        assert cloud.json("environments/dev/owed_dags.json")["dag_ids"] == ["new"]
        cloud.airflow.paused["new"] = True
        assert self.give(cloud) == {"done": True, "given": 1, "missing": 0}
        assert cloud.json("environments/dev/owed_dags.json")["dag_ids"] == []

    def test_a_dag_that_never_comes_is_named_and_stays_owed(self, cloud):
        self.owe(cloud, "new")
        with pytest.raises(DagsStillMissing, match="new"):
            self.give(cloud, since=46)
        assert cloud.json("environments/dev/owed_dags.json")["dag_ids"] == ["new"]

    @pytest.mark.parametrize("version", ["2.11.2", "3.0.6"])
    @pytest.mark.parametrize("phase", ["waking", "awake"])
    def test_a_dag_whose_history_is_not_back_is_held_and_named(self, cloud, version, phase):
        cloud.airflow.version = version
        cloud.airflow.paused |= {"past": False, "present": False}
        cloud.airflow.schedules = {name: {"next_run_at": "2026-11-23T21:00:00+00:00"} for name in ("past", "present")}
        quiesce(cloud)
        cloud.airflow.schedules["past"]["next_run_at"] = "2026-01-01T00:00:00Z"
        cloud.leased(phase=phase)
        assert self.give(cloud) == {"done": False, "given": 1, "missing": 0}
        assert (cloud.airflow.paused["past"], cloud.airflow.paused["present"]) == (True, False)
        with pytest.raises(HistoryNotBack, match="past"):
            self.give(cloud, since=46)
        cloud.airflow.schedules["past"]["next_run_at"] = "2026-11-23T21:00:00Z"
        assert self.give(cloud)["done"]
        assert cloud.airflow.paused["past"] is False

    def test_nothing_is_given_back_before_the_restore(self, cloud):
        """Whatever the state machine says: the record knows that this incarnation has no memory."""
        cloud.airflow.paused |= {"a": True}
        self.owe(cloud, "a")
        waking = {"phase": "waking", "deleted_at": ago(hours=9), "incarnation": cloud.incarnation}
        cloud.leased(**waking)
        with pytest.raises(HistoryNotBack, match="1 DAGs stay paused: a"):
            self.give(cloud)
        assert cloud.airflow.paused["a"] is True
        with pytest.raises(HistoryNotBack, match="1 DAGs stay paused: a"):
            cloud.call("check_readiness", export_id="e")
        cloud.leased(**waking, restored_incarnation=cloud.incarnation)
        assert self.give(cloud)["done"]
        assert cloud.call("check_readiness", export_id="e")

    def test_the_evening_that_paused_it_gives_it_back_at_once(self, cloud):
        cloud.airflow.paused |= {"past": False}
        cloud.airflow.schedules = {"past": {"next_run_at": "2026-11-23T21:00:00Z"}}
        quiesce(cloud)
        cloud.airflow.schedules["past"]["next_run_at"] = "2026-01-01T00:00:00Z"
        cloud.leased(phase="falling_asleep")
        assert self.give(cloud)["done"]

    @pytest.mark.parametrize(("phase", "paused"), [("waking", True), ("falling_asleep", False)])
    def test_what_starts_by_itself_in_the_morning_is_paused(self, cloud, phase, paused):
        cloud.airflow.paused |= {"starter": False}
        cloud.leased(phase=phase)
        self.owe(cloud, paused=["starter"])
        assert self.give(cloud)["done"]
        assert cloud.airflow.paused["starter"] is paused


ASKED = {"asked_at": "2026-11-23T20:05:01.123Z", "execution": ME, "incarnation": "2026-11-01T08:00:00+00:00", **LEASE}


class TestOwnRuns:
    def test_asking_twice_is_one_export(self, cloud):
        started = cloud.call("start_export", **ASKED)
        assert started["export_id"].startswith("20261123T200501Z-")
        assert started["dag_id"] == "db_export_dag"
        assert cloud.call("start_export", **ASKED) == started
        assert [run["dag_run_id"] for run in cloud.airflow.runs] == [started["export_id"]]
        later = cloud.call("start_export", **{**ASKED, "asked_at": "2026-11-23T20:15:00Z"})
        assert later != started

    def test_our_own_dag_is_unpaused_first(self, cloud):
        cloud.airflow.paused["db_export_dag"] = True
        cloud.call("start_export", **ASKED)
        assert cloud.airflow.paused["db_export_dag"] is False

    def test_our_own_dag_is_not_there(self, cloud):
        del cloud.airflow.paused["db_export_dag"]
        with pytest.raises(DagNotFound, match="Upload"):
            cloud.call("start_export", **ASKED)

    def test_the_run_is_followed(self, cloud):
        export_id = cloud.call("start_export", **ASKED)["export_id"]
        event = {"dag_id": "db_export_dag", "run_id": export_id, "waiting_since": ago(minutes=1)}
        assert cloud.call("check_dag_run", **event) == {"state": "running"}
        cloud.airflow.runs[0]["state"] = "success"
        assert cloud.call("check_dag_run", **event) == {"state": "success"}
        cloud.airflow.runs[0]["state"] = "failed"
        with pytest.raises(DagRunFailed):
            cloud.call("check_dag_run", **event)
        with pytest.raises(DagRunNotFound):
            cloud.call("check_dag_run", **{**event, "run_id": "other"})


def mark(log_id, export_id, event="transient_mwaa_restore"):
    """What a restore leaves in the audit log."""
    return {"event_log_id": log_id, "event": event, "extra": json.dumps({"export_id": export_id, "blocks": {}})}


class TestProofOfARestore:
    @pytest.fixture
    def look(self, cloud):
        """At a run of db_restore_dag in the state success, which is to have restored the export "night-2"."""
        cloud.airflow.run("db_restore_dag", "r", "success")
        event = {"dag_id": "db_restore_dag", "run_id": "r", "waiting_since": ago(minutes=1), "export_id": "night-2"}
        return lambda **changes: cloud.call("check_dag_run", **{**event, **changes})

    def test_the_mark_that_it_leaves(self, cloud, look):
        """Marks of earlier nights come back with the rows."""
        cloud.airflow.logs = [mark(7, "night-1"), mark(8, "night-2"), mark(9, "night-1", "running")]
        assert look() == {"state": "success"}

    @pytest.mark.parametrize("logs", [
        [], [mark(7, "night-1")], [mark(7, "night-2"), mark(8, "night-1")], [mark(7, "night-2", "running")],
    ])  # fmt: skip
    def test_without_it_nobody_is_believed(self, cloud, look, logs):
        cloud.airflow.logs = logs
        with pytest.raises(RestoreNotProven, match="marked the run as success"):
            look()

    def test_who_does_not_say_which_export_has_no_proof(self, cloud, look):
        cloud.airflow.logs = [mark(8, "night-2")]
        with pytest.raises(RestoreNotProven):
            look(export_id="")

    def test_one_that_goes_on_is_waited_for(self, cloud, look):
        cloud.airflow.runs[0]["state"] = "running"
        assert look() == {"state": "running"}


EXTRACT_ASKED = {name: value for name, value in ASKED.items() if name not in LEASE}


class TestExtracts:
    @pytest.fixture
    def awake(self, cloud):
        cloud.record(phase="awake")
        return cloud

    def test_asking_twice_is_one_run_which_is_asked_for_history(self, awake):
        started = awake.call("start_extract", **EXTRACT_ASKED)
        assert awake.call("start_extract", **EXTRACT_ASKED) == started, "its own run does not keep it waiting"
        (run,) = awake.airflow.runs
        assert (run["dag_id"], run["dag_run_id"]) == ("db_export_dag", started["export_id"])
        assert run["conf"] == {"incarnation": EXTRACT_ASKED["incarnation"], "mode": "history"}

    def test_it_queues_behind_no_other_export(self, awake):
        awake.airflow.run("db_export_dag", "somebody", "running")
        with pytest.raises(ExtractGivesWay, match="The export somebody goes on"):
            awake.call("start_extract", **EXTRACT_ASKED)
        assert len(awake.airflow.runs) == 1
        awake.airflow.runs[0]["state"] = "success"
        assert awake.call("start_extract", **EXTRACT_ASKED)

    @pytest.mark.parametrize("members", [{"phase": "asleep"}, {"phase": "awake", "lease_owner": "the evening"}])
    def test_it_gives_way_at_the_last_moment(self, cloud, members):
        cloud.record(**members)
        with pytest.raises(ExtractGivesWay, match="Nothing to do"):
            cloud.call("start_extract", **EXTRACT_ASKED)
        assert cloud.airflow.runs == []


class TestRestore:
    @pytest.fixture
    def waking(self, cloud):
        manifest = cloud.client("s3").put_object(Bucket="data", Key="manifest.json", Body=b"{}")
        cloud.members = {
            "phase": "waking", "deleted_at": ago(hours=9), "export_id": "e", "manifest_key": "manifest.json",
            "manifest_version_id": manifest["VersionId"],
        }  # fmt: skip
        cloud.leased(**cloud.members)
        return cloud

    def start(self, cloud, **changes):
        event = {
            "asked_at": "2026-11-24T07:00:00Z", "execution": ME, "incarnation": cloud.incarnation,
            "accept_clashes": False, **LEASE,
        }  # fmt: skip
        return cloud.call("start_restore", **{**event, **changes})

    def test_the_order_is_written_and_the_run_started(self, waking):
        started = self.start(waking)
        order = waking.json("environments/dev/restore_order.json")
        assert order["restore_id"] == started["restore_id"]
        assert order["manifest_version_id"] == waking.members["manifest_version_id"]
        assert order["manifest_sha256"] == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        assert order["incarnation"] == waking.incarnation
        assert [(run["dag_id"], run["dag_run_id"]) for run in waking.airflow.runs] == [
            ("db_restore_dag", started["restore_id"])
        ]
        assert order["accept_clashes"] is False
        assert self.start(waking) == started
        assert len(waking.airflow.runs) == 1

    def test_rows_without_a_place_are_given_up_only_on_a_human_word(self, waking):
        self.start(waking, accept_clashes=True)
        assert waking.json("environments/dev/restore_order.json")["accept_clashes"] is True

    @pytest.mark.parametrize(
        "changes", [{"phase": "awake"}, {"deleted_at": ago(hours=-1)}, {"export_id": "e", "phase": ""}]
    )
    def test_it_is_refused_and_nothing_written(self, waking, changes):
        waking.leased(**{name: value for name, value in {**waking.members, **changes}.items() if value})
        with pytest.raises(RestoreRefused):
            self.start(waking)
        assert waking.airflow.runs == []
        assert "environments/dev/restore_order.json" not in waking.stored()

    def test_once_only(self, waking):
        waking.leased(**waking.members, restored_incarnation=waking.incarnation)
        with pytest.raises(RestoreRefused, match="restored already"):
            self.start(waking)


@pytest.mark.parametrize("lost", [{"owner": "somebody"}, {"fence": "6"}])
@pytest.mark.parametrize("function", ["quiesce", "start_export", "start_restore", "give_back"])
def test_whoever_lost_the_lease_touches_nothing(cloud, function, lost):
    cloud.airflow.paused |= {"a": False, "b": True}
    owed = {"environment": "dev", "dag_ids": ["b"]}
    cloud.client("s3").put_object(Bucket="data", Key="environments/dev/owed_dags.json", Body=json.dumps(owed))
    before = dict(cloud.airflow.paused)
    event = {**ASKED, "waiting_since": ago(minutes=1), "give_up_at": ago(hours=-8), **lost}
    with pytest.raises(LeaseLost, match="this one has done nothing"):
        cloud.call(function, **event)
    assert (cloud.airflow.paused, cloud.airflow.runs, cloud.airflow.asked) == (before, [], [])
    assert cloud.json("environments/dev/owed_dags.json") == owed
    assert cloud.stored() == ["environments/dev/owed_dags.json"]


def test_readiness_against_yesterday(cloud):
    cloud.airflow.paused |= {"a": False, "lost": False}
    quiesce(cloud)
    del cloud.airflow.paused["lost"]
    cloud.airflow.import_errors = [{"filename": "lost.py"}]
    ready = cloud.call("check_readiness", export_id="e")
    assert (ready["import_errors"], ready["dags_missing"]) == (1, 1)


class TestRest:
    @pytest.fixture
    def rest(self, cloud):
        return AirflowRest(passing.client("mwaa"), pause_for=lambda _: None)

    def test_lists_are_read_to_the_end(self, cloud, rest):
        cloud.airflow.paused |= {f"dag_{n}": True for n in range(250)}
        for n in range(205):
            cloud.airflow.run("dag_1", f"r{n}", "queued", ["running", "success"])
        cloud.airflow.run("dag_2", state="success")
        assert len(rest.dags("dev")) == 252
        assert len(rest.unfinished_dag_runs("dev")) == 205
        assert len(rest.task_instances("dev", ["running"])) == 205

    def test_pages_that_overlap_are_not_taken_for_the_whole_list(self, cloud, rest):
        """PostgreSQL orders nothing by itself, and Airflow 2 does not ask it to for task instances."""
        for n in range(150):
            cloud.airflow.run("dag_1", f"r{n}", "running", ["running"])
        in_order = cloud.airflow.rest
        pages = []

        def overlapping(method, path, query, body):
            pages.append(path)
            cloud.airflow.tasks.append(cloud.airflow.tasks.pop(99))  # the last row of one page is the last of the next
            return in_order(method, path, query, body)

        cloud.airflow.rest = overlapping
        with pytest.raises(RestApiUnavailable, match="counts 150 task_instances and has shown 149"):
            rest.task_instances("dev", ["running"])
        assert len(pages) == 2
        cloud.airflow.rest = in_order
        assert len({task.run_id for task in rest.task_instances("dev", ["running"])}) == 150

    def test_a_list_that_shrinks_while_it_is_read_is_read_to_its_end(self, cloud, rest):
        for n in range(150):
            cloud.airflow.run("dag_1", f"r{n}", "running", ["running"])
        whole = cloud.airflow.rest

        def shrinking(method, path, query, body):
            del cloud.airflow.tasks[-1]
            return whole(method, path, query, body)

        cloud.airflow.rest = shrinking
        assert len(rest.task_instances("dev", ["running"])) == 148

    def test_a_path_longer_than_mwaa_allows_is_not_asked_for(self, cloud, rest):
        dag_id, run_id = "d" * 40, "manual__2026-11-23T20:00:00+00:00"
        cloud.airflow.run(dag_id, run_id)
        assert rest.dag_run("dev", dag_id, run_id).run_id == run_id
        assert rest.dag_run("dev", dag_id, "other" * 10) is None
        assert max(len(path) for _, path, _ in cloud.airflow.asked) <= 64

    @pytest.mark.parametrize("version", ["2.11.2", "3.0.6"])
    def test_what_was_logged_since(self, cloud, rest, version):
        cloud.airflow.version = version
        cloud.airflow.logs = [{"event_log_id": n, "event": "paused"} for n in range(1, 301)]
        assert [row["event_log_id"] for row in rest.event_logs_after("dev", 150)] == list(range(300, 150, -1))
        assert rest.event_logs_after("dev", 300) == []

    @pytest.mark.parametrize("version", ["2.11.2", "3.0.6"])
    def test_the_newest_entry_of_an_event(self, cloud, rest, version):
        cloud.airflow.version = version
        cloud.airflow.logs = [{"event_log_id": n, "event": "abc"[n % 3]} for n in range(1, 301)]
        assert rest.newest_event("dev", "b") == {"event_log_id": 298, "event": "b"}
        assert rest.newest_event("dev", "d") is None

    @pytest.mark.parametrize("version", ["2.11.2", "3.0.6"])
    def test_what_was_stamped_since_is_found_behind_older_stamps(self, cloud, rest, version):
        cloud.airflow.version = version
        since = datetime(2026, 11, 23, 20, tzinfo=UTC)
        minutes = {1: -9, 2: 3, **dict.fromkeys(range(3, 203), -1), 203: 2, 204: -1, 205: 1}
        cloud.airflow.logs = [
            {"event_log_id": n, "event": "paused", "when": (since + timedelta(minutes=after)).isoformat()}
            for n, after in minutes.items()
        ]
        found = rest.event_logs_after("dev", 203, since.astimezone(timezone(timedelta(hours=5))))
        assert [row["event_log_id"] for row in found] == [205, 204, 203, 2]

    def test_assets_of_airflow_3(self, cloud, rest):
        cloud.airflow.version = "3.1.0"
        cloud.airflow.assets = [
            {"scheduled_dags": [{"dag_id": "c"}], "producing_tasks": [{"dag_id": "p"}]},
            {"scheduled_dags": [{"dag_id": "c"}], "producing_tasks": [{"dag_id": "q"}]},
        ]
        assert rest.dataset_consumers("dev") == {"c": {"p", "q"}}

    def test_totals(self, cloud, rest):
        cloud.airflow.run("a", tasks=["success"] * 5)
        assert rest.totals("dev") == {
            "connection": 2, "dag_run": 1, "slot_pool": 3, "task_instance": 5, "variable": 4
        }  # fmt: skip

    @pytest.mark.parametrize("status", [400, 403, 429, 500, 503])
    def test_an_airflow_that_answers_with_an_error(self, cloud, rest, status):
        cloud.airflow.broken = status
        with pytest.raises(RestApiUnavailable, match=str(status)) as error:
            rest.dags("dev")
        assert type(error.value) is RestApiUnavailable
