"""The functions of recover, against moto: what they look at, and how a human is told once."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from tests.functions.cloud import LEASE, ME, ago, standing
from transient_mwaa.aws import telling
from transient_mwaa.aws.executions import Executions
from transient_mwaa.aws.records import Records
from transient_mwaa.domain.errors import DagsStillMissing, InvalidInput, ServiceUnavailable
from transient_mwaa.domain.recovery import Ending

pytestmark = pytest.mark.functions

RECOVER = ME.replace("spin-up", "recover")
EVENING = ME.replace("spin-up", "transient-mwaa-spin-down")


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    with standing(tmp_path, monkeypatch) as cloud:
        yield cloud


def diagnose(cloud, **more):
    asked = {"environment": "dev", **more}
    return cloud.function("diagnose", SLEEP_AT="20:00")(
        {"input": asked, "execution": RECOVER, "waiting_since": ago(seconds=1)}
    )


class TestDiagnose:
    def test_all_is_well(self, cloud):
        cloud.create()
        found = diagnose(cloud)
        assert (found["remedy"], found["take"], found["trouble"]) == ("nothing", False, "")

    def test_a_holder_that_step_functions_has_forgotten_is_dead(self, cloud):
        cloud.create()
        cloud.leased(phase="falling_asleep", lease_taken_at=ago(hours=1), incarnation=cloud.incarnation)
        found = diagnose(cloud)
        assert (found["remedy"], found["take"], found["owner"]) == ("give_back", True, LEASE["owner"])
        assert found["fence"] == str(LEASE["fence"])
        assert found["webserver_url"].startswith("https://")

    def test_what_is_gone_is_asleep(self, cloud):
        cloud.leased(phase="delete_accepted", lease_taken_at=ago(hours=1), deleted_at=ago(minutes=40))
        found = diagnose(cloud)
        assert (found["remedy"], found["phase"], found["books"]) == ("finish_sleep", "asleep", "sleep")

    def test_owed_dags_are_given_back_unless_they_cannot_be(self, cloud):
        cloud.create()
        cloud.record(phase="awake", lease_taken_at=ago(hours=1))
        for named, remedy in (({}, "give_back"), ({"a": ago(hours=1)}, "nothing")):
            owed = {"environment": "dev", "dag_ids": ["a"], "since": ago(hours=1), "named": named}
            cloud.client("s3").put_object(Bucket="data", Key="environments/dev/owed_dags.json", Body=json.dumps(owed))
            assert diagnose(cloud)["remedy"] == remedy

    def test_only_the_watchdog_vouches_for_it(self, cloud, capsys):
        cloud.create()
        diagnose(cloud)
        assert "AwakeAsPlanned" not in capsys.readouterr().out
        diagnose(cloud, scheduled_time=ago(seconds=1))
        (metric,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "AwakeAsPlanned" in line]
        assert metric["AwakeAsPlanned"] == [1.0]
        assert metric["environment"] == "dev"

    def test_the_watchdog_says_how_old_an_evening_at_work_is(self, cloud, capsys, monkeypatch):
        def said(ending):
            monkeypatch.setattr(Executions, "ending", lambda *_: Ending(ending))
            capsys.readouterr()
            diagnose(cloud, scheduled_time=ago(seconds=1))
            (metric,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "AwakeAsPlanned" in line]
            return metric

        cloud.create()
        cloud.record(phase="falling_asleep", lease_owner=EVENING, lease_fence=7, lease_taken_at=ago(minutes=200))
        at_work = said("RUNNING")
        assert (at_work["environment"], at_work["EveningMinutes"]) == ("dev", [200.0])
        assert "EveningMinutes" not in said("SUCCEEDED")

    def test_a_request_that_cannot_be_used(self, cloud):
        with pytest.raises(InvalidInput):
            diagnose(cloud, ended=7)


class TestExecutions:
    def test_how_executions_have_ended(self):
        answers = {"a": {"status": "FAILED", "error": "States.Runtime"}, "b": {"status": "RUNNING"}}

        class StepFunctions:
            def describe_execution(self, executionArn):  # noqa: N803
                return answers[executionArn]

        executions = Executions(StepFunctions())
        assert executions.ending("a") == Ending("FAILED", "States.Runtime")
        assert executions.has_ended("a")
        assert not executions.has_ended("b")


class TestTellOnce:
    def test_of_two_who_ask_one_tells(self, cloud):
        asked = {"trouble": "stopped:x", "text": "x was stopped"}
        assert cloud.call("tell_once", **asked) == {"tell": True}
        assert cloud.call("tell_once", **asked) == {"tell": False}
        assert cloud.call("tell_once", told=["stopped:x"]) == {"tell": False}
        assert cloud.call("tell_once", **asked) == {"tell": False}
        assert cloud.call("tell_once", trouble="stopped:y", text="y") == {"tell": True}

    def test_no_trouble_writes_nothing(self, cloud):
        assert cloud.call("tell_once", trouble="", text="all is well") == {"tell": False}
        assert cloud.call("tell_once", told=[""]) == {"tell": False}
        assert cloud.client("dynamodb").scan(TableName="records")["Items"] == []

    def test_it_leaves_the_rest_of_the_record_alone(self, cloud):
        cloud.leased(phase="falling_asleep")
        cloud.call("tell_once", trouble="stopped:x", text="x")
        record = Records("records", cloud.client("dynamodb")).read("dev")
        assert (record.lease_owner, record.phase) == (LEASE["owner"], "falling_asleep")
        assert "stopped:x" in record.told

    def test_who_is_slower_asks_again(self, cloud, monkeypatch):
        records = Records("records", cloud.client("dynamodb"))
        assert records.write_told("dev", "{}", '{"a": 1}')
        assert not records.write_told("dev", "{}", '{"b": 1}')
        assert records.read("dev").told == '{"a": 1}'
        monkeypatch.setattr(records, "write_told", lambda *_: False)
        cloud.record()
        with pytest.raises(ServiceUnavailable):
            telling.Telling(records).undertake("dev", "a", "text", datetime.now(UTC))


class TestGiveBackOfWhatIsGone:
    def test_a_dag_that_is_gone_is_named_by_one_wait_alone(self, cloud):
        cloud.create()
        cloud.leased(phase="waking")
        owed = {"environment": "dev", "dag_ids": ["gone"], "since": ago(hours=1)}
        cloud.client("s3").put_object(Bucket="data", Key="environments/dev/owed_dags.json", Body=json.dumps(owed))
        since = datetime.now(UTC) - timedelta(minutes=46)
        for _ in range(2):  # a retry of the same step
            with pytest.raises(DagsStillMissing, match="gone"):
                cloud.call("give_back", waiting_since=since.isoformat(), **LEASE)
        answer = cloud.call("give_back", waiting_since=ago(minutes=50), **LEASE)
        assert answer == {"done": True, "given": 0, "missing": 1}
        assert cloud.json("environments/dev/owed_dags.json")["dag_ids"] == ["gone"]
        cloud.airflow.paused["gone"] = True
        assert cloud.call("give_back", waiting_since=ago(minutes=1), **LEASE)["given"] == 1
        assert cloud.json("environments/dev/owed_dags.json")["named"] == {}
