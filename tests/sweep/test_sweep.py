"""The sweep itself: tracks end well, monitors see what they are there for, mutants are found, names are replayed."""

import dataclasses
import json
import os
from datetime import timedelta

import pytest
from botocore.exceptions import ClientError

from local.interpreter import TaskFailed
from sweep import reading
from sweep.__main__ import EVERY_RESOURCE, pairs, parse, wrongs
from sweep.forks import Forks
from sweep.monitors import LAWS, Monitors
from sweep.mutants import mutants
from sweep.scenarios import BY_NAME, Player, Scenario, Where, play, task_states
from sweep.tracks import TRACKS
from sweep.world import SLEEP_AT, World
from transient_mwaa.aws import own_runs, passing
from transient_mwaa.aws.mwaa import Mwaa

pytestmark = pytest.mark.stories


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("sweep") / "home") as world:
        yield world


@pytest.fixture
def in_child(world, tmp_path):
    """Does something to a copy of the world, and gives back what it answers."""

    def run(work):
        answer = tmp_path / "answer"
        if os.fork() == 0:
            try:
                answer.write_text(json.dumps(work(world)))
            finally:
                os._exit(0)
        os.wait()
        return json.loads(answer.read_text())

    return run


def played(in_child, scenario):
    return in_child(lambda world: dataclasses.asdict(play(world, scenario)))


def test_every_track_ends_well_and_together_they_come_to_every_task_state(in_child):
    visited = set()
    for track in TRACKS:
        report = played(in_child, Scenario(track.name))
        assert report["broken"] == [], track.name
        visited |= {(machine, state) for machine, state, _ in report["visited"]}
    assert visited == set(task_states())


REST = ("RestApiStatusCode", "RestApiResponse")


def test_what_is_read_from_memory_is_what_aws_would_say(world, monkeypatch):
    s3, dynamodb, mwaa = (world.cloud.client(name) for name in ("s3", "dynamodb", "mwaa"))
    (key, version_id), *_ = [each for each in world.objects() if each[0].endswith("owed_dags.json")]
    environments = Mwaa(passing.client("mwaa"))
    requests = [{"Key": key}, {"Key": key, "VersionId": version_id}, {"Key": "none"}, {"Key": key, "VersionId": "none"}]
    keys = [{"environment": {"S": "dev"}}, {"environment": {"S": "none"}}]

    def answers():
        for request in requests:
            try:
                answer = s3.get_object(Bucket=world.bucket, **request)
                yield {**answer, "Body": answer["Body"].read()}
            except ClientError as error:
                yield {"code": error.response["Error"]["Code"]}
        for name in ("dev", "none"):
            yield {"environment": environments.describe(name)}
        for name, path in [("dev", "/dags"), ("dev", "/dags/none"), ("none", "/dags")]:
            try:
                yield mwaa.invoke_rest_api(Name=name, Method="GET", Path=path)
            except ClientError as error:
                answer = error.response
                yield {"code": answer["Error"]["Code"], **{each: answer.get(each) for each in REST}}
        for item in keys:
            yield dynamodb.get_item(TableName=world.outputs["RecordsTableName"], Key=item)

    quick = list(answers())
    monkeypatch.setattr(reading, "_object", lambda _: None)
    monkeypatch.setattr(reading, "_item", lambda *_: None)
    monkeypatch.setattr(reading, "_rest", lambda *_: None)
    monkeypatch.setattr(reading, "_environment", lambda *_: None)
    for told, truth in zip(quick, answers(), strict=True):
        told.pop("ResponseMetadata", None)
        assert told == {name: truth.get(name) for name in told}
    kinds = {"Body", "Item", "code", "RestApiResponse", "environment"}
    assert [set(each) & kinds for each in quick] == [
        {"Body"}, {"Body"}, {"code"}, {"code"}, {"environment"}, {"environment"},
        {"RestApiResponse"}, {"RestApiResponse", "code"}, {"RestApiResponse", "code"}, {"Item"}, set(),
    ]  # fmt: skip
    assert quick[0]["Body"] != quick[1]["Body"], "an older version is another one"
    assert [each["environment"] is None for each in quick[4:6]] == [False, True]


def test_what_is_written_to_memory_is_what_aws_would_keep(in_child, monkeypatch):
    def write(world):
        s3 = world.cloud.client("s3")
        for way in ("quick", "long"):
            for body in (b"first", b"second"):
                s3.put_object(Bucket=world.bucket, Key=way, Body=body, ContentType="text/plain")
            monkeypatch.setattr(reading, "_written", lambda _: None)
        found = []
        for way in ("quick", "long"):
            versions = s3.list_object_versions(Bucket=world.bucket, Prefix=way)["Versions"]
            head = s3.head_object(Bucket=world.bucket, Key=way)
            kept = ("ServerSideEncryption", "SSEKMSKeyId", "ContentLength", "ETag", "StorageClass")
            found.append([len(versions), len({each["VersionId"] for each in versions}), *map(head.get, kept)])
        return [*found, s3.get_object(Bucket=world.bucket, Key="quick")["Body"].read().decode()]

    quick, long, body = in_child(write)
    assert quick == long
    assert quick[:2] == [2, 2]
    assert body == "second"


def test_a_delete_by_hand_breaks_the_first_law(in_child):
    def deletes(world):
        monitors = Monitors(world)
        world.cloud.mwaa.delete_environment(Name="dev")
        return monitors.broken

    assert [each[:2] for each in in_child(deletes)] == ["S1"]


def test_an_execution_that_acts_without_the_lease_breaks_the_second(in_child):
    def loses_the_lease(world):
        player = Player(world, BY_NAME["evening"])
        player.prepare()
        table = world.outputs["RecordsTableName"]

        def rob(task, carry_out):
            if task.state == "Start the export":
                answer = carry_out()
                world.cloud.client("dynamodb").update_item(
                    TableName=table, Key={"environment": {"S": "dev"}}, UpdateExpression="SET lease_owner = :thief",
                    ExpressionAttributeValues={":thief": {"S": "thief"}},
                )  # fmt: skip
                world.airflow.cli("dags pause orders.hourly")
                raise TaskFailed(answer["export_id"])
            return carry_out()

        world.engine.attempt = rob
        world.until(SLEEP_AT)
        world.fire("sleep")
        world.until(SLEEP_AT + timedelta(minutes=5))
        return player.monitors.broken

    assert {each[:2] for each in in_child(loses_the_lease)} == {"S2"}


def test_a_dag_that_stays_paused_breaks_the_third_and_is_told(in_child):
    def forgets(world):
        monitors = Monitors(world)
        world.airflow.pause("orders.hourly")
        monitors.rest("now")
        monitors.whole("now")
        return monitors.broken

    assert [each[:2] for each in in_child(forgets)] == ["L1", "S3", "L3"]


def test_a_secret_in_clear_breaks_the_fourth(in_child):
    def leaks(world):
        monitors = Monitors(world)
        s3 = world.cloud.client("s3")
        s3.put_object(Bucket=world.bucket, Key="leak.json", Body=b'{"password": "the-warehouse-s3cret"}')
        monitors.afterwards()
        return monitors.broken

    assert in_child(leaks) == ["S4 in the object leak.json"]


def test_a_row_that_does_not_come_back_breaks_the_seventh(in_child):
    def loses(world):
        player = Player(world, BY_NAME["evening"])
        player.prepare()
        world.until(SLEEP_AT)
        world.settle([world.fire("sleep")])
        world.until(SLEEP_AT + timedelta(hours=11))
        world.settle([world.fire("wake")])
        world.airflow.tables["dag_run"].remove(dag_id="orders.hourly")
        player.monitors.whole("now")
        return player.monitors.broken

    assert {each[:2] for each in in_child(loses)} == {"S7"}


def test_a_scenario_is_replayed_by_its_name():
    for wrong in wrongs(EVERY_RESOURCE):
        scenario = Scenario("evening", ((Where("spin-down", "Start the export"), wrong),))
        assert parse(str(scenario)) == scenario
    visited = [("morning", "spin-up", "Take the lease", "arn:aws:states:::dynamodb:updateItem")]
    for scenario in pairs(visited, seed=7):
        assert parse(str(scenario)) == scenario
    with pytest.raises(ValueError, match="No scenario"):
        parse("evening | spin-down: Start the export / a meteorite")


def test_a_scenario_goes_the_same_way_each_time(in_child):
    scenario = parse("evening | spin-down: Take the lease / attempt 3: before")  # retries wait, with jitter

    def history(world):
        play(world, scenario)
        return [(arn, event.state, str(event.at)) for arn, run in world.engine.runs.items() for event in run.history]

    assert in_child(history) == in_child(history)


def test_a_child_that_crashes_is_a_finding(tmp_path):
    forks = Forks(1, tmp_path / "reports")
    forks.run("crashes", lambda: 1 / 0)
    forks.wait()
    assert "ZeroDivisionError" in forks.read()[0]["broken"][0]


MARKED = "morning | spin-up: Look at the restore / person: marks the restore as success"


def test_a_restore_that_somebody_marks_as_success_breaks_no_law(in_child):
    report = played(in_child, parse(MARKED))
    assert report["struck"]
    assert report["broken"] == []
    assert "Awake, but without its memory" in report["ends"]


def test_a_restore_that_is_believed_without_proof_breaks_the_seventh(in_child, monkeypatch):
    monkeypatch.setattr(own_runs, "require_restored", lambda *_: None)
    assert "S7" in {each[:2] for each in played(in_child, parse(MARKED))["broken"]}


def test_laws_and_mutants_are_what_the_documents_say():
    assert list(LAWS) == [*(f"S{number}" for number in range(1, 15)), *(f"L{number}" for number in range(1, 5))]
    names = [mutant.name for mutant in mutants()]
    assert len(names) == len(set(names)) > 100


@pytest.mark.parametrize(
    ("track", "name"),
    [
        ("evening", "spin-down: Is every row safe?: not ($verdict.good)"),
        ("morning", "spin-up: Check that it is ready: skips 'Record that it is awake'"),
    ],
)
def test_a_mutant_is_noticed(in_child, track, name):
    mutant = next(each for each in mutants() if each.name == name)

    def notices(world):
        mutant.apply(world)
        return play(world, Scenario(track)).broken

    assert in_child(notices)
