"""The grammar of our state machines: what every evening and every morning may rely on."""

import ast
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonata.jsonata import Jsonata

from transient_mwaa.domain import errors
from transient_mwaa.domain.last_look import LOG_AHEAD

pytestmark = pytest.mark.template

ROOT = Path(__file__).parents[2]
MACHINES = {path.name.split(".")[0]: path for path in sorted((ROOT / "statemachine").glob("*.asl.yaml"))}
EXPRESSION = re.compile(r"\{%(.*?)%\}", re.DOTALL)

# Caught, but the story goes on: each with its reason.
CAUGHT_AND_GOES_ON = {
    ("spin_down", "Delete the environment"): "the answer was lost; the environment itself is asked, and may be gone",
    ("spin_down", "Tell everyone"): "it is asleep; a lost good-night message is no reason for an alarm",
    ("extract_history", "Look at the extract"): "an evening deletes what an extract was reading, and carries its rows",
    ("spin_up", "Publish its address"): "its memory matters more; the last message names address and failure",
    ("spin_up", "Tell everyone"): "it is awake; a lost good-morning message is no reason for an alarm",
    ("spin_down", "Write down how it failed"): "a human was told already; the ledger lacks a night",
    ("spin_up", "Write down how it failed"): "likewise, a morning",
    ("recover", "Ask whether a human knows"): "the remedy matters more; and rather told twice than never",
    ("recover", "Remember what was told"): "a human was told; at worst once more",
    ("recover", "Remember that a human was told"): "likewise",
    ("watchdog", "Remember that a human was told"): "likewise",
    ("watchdog", "Find out whether anything is wrong"): "recover looks for itself, and tells a human when it cannot",
}
# Ends without a message: the same failure was told earlier on the same day.
TOLD_BEFORE = ("Not recovered, as a human knows already", "Not looked after, as a human knows already")
# What a Retry may name: failures that pass by themselves.
TRANSIENT = {
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.TooManyRequestsException",
    "Sandbox.Timedout",
    "DynamoDB.InternalServerErrorException",
    "DynamoDB.ProvisionedThroughputExceededException",
    "DynamoDB.RequestLimitExceededException",
    "DynamoDB.ThrottlingException",
    "DynamoDB.SdkClientException",
    "SNS.InternalErrorException",
    "SNS.ThrottledException",
    "SNS.SdkClientException",
    "Ssm.InternalServerErrorException",
    "Ssm.TooManyUpdatesException",
    "Ssm.ThrottlingException",
    "Ssm.SdkClientException",
    "StepFunctions.SdkClientException",
    "StepFunctions.ThrottlingException",
    "ServiceUnavailable",
    "WebServerUnavailable",
    "RestApiUnavailable",
    "CliTokenExpired",
    "DagNotFound",  # in the morning: not parsed yet
}


def definition(name):
    return yaml.safe_load(MACHINES[name].read_text())


def all_states(machine):
    """Yield (name, state, is inside a Map) of a machine, the Map's own states included."""
    for name, state in machine["States"].items():
        yield name, state, False
        for inner_name, inner in state.get("ItemProcessor", {}).get("States", {}).items():
            yield inner_name, inner, True


def expressions(value):
    if isinstance(value, str):
        yield from EXPRESSION.findall(value)
    elif isinstance(value, dict):
        for item in value.values():
            yield from expressions(item)
    elif isinstance(value, list):
        for item in value:
            yield from expressions(item)


def successors(state):
    targets = [state["Next"]] if "Next" in state else []
    targets += [rule["Next"] for rule in state.get("Choices", [])]
    targets += [state["Default"]] if "Default" in state else []
    targets += [catcher["Next"] for catcher in state.get("Catch", [])]
    return targets


def paths_to_an_end(machine, start):
    """Every way from a state to a terminal one, each state at most once: tuples of state names."""
    found, stack = [], [(start,)]
    while stack:
        path = stack.pop()
        following = [name for name in successors(machine["States"][path[-1]]) if name not in path]
        if machine["States"][path[-1]]["Type"] in {"Succeed", "Fail"}:
            found.append(path)
        stack.extend((*path, name) for name in following)
    return found


@pytest.fixture(params=sorted(MACHINES))
def name(request):
    return request.param


@pytest.fixture
def machine(name):
    return definition(name)


def test_everything_has_a_time_out(machine):
    assert machine["TimeoutSeconds"] <= 64800
    for state_name, state, _ in all_states(machine):
        if state["Type"] == "Task":
            assert 0 < state["TimeoutSeconds"] <= 930, state_name


def test_a_retry_names_transient_errors_and_is_bounded(machine):
    for state_name, state, _ in all_states(machine):
        if state["Type"] == "Task":
            assert state["Retry"], state_name
        for retrier in state.get("Retry", []):
            assert set(retrier["ErrorEquals"]) <= TRANSIENT, state_name
            assert retrier["MaxDelaySeconds"] <= 60, state_name
            assert retrier["JitterStrategy"] == "FULL", state_name


def test_dag_not_found_is_retried_only_where_a_dag_may_still_be_parsed():
    retried = {
        (machine_name, state_name)
        for machine_name in MACHINES
        for state_name, state, _ in all_states(definition(machine_name))
        for retrier in state.get("Retry", [])
        if "DagNotFound" in retrier["ErrorEquals"]
    }
    assert retried == {("spin_up", "Start the restore")}


def test_every_task_catches_everything(machine):
    for state_name, state, inside_a_map in all_states(machine):
        if state["Type"] in {"Task", "Map"} and not inside_a_map:
            assert state["Catch"][-1]["ErrorEquals"] == ["States.ALL"], state_name


def test_every_caught_failure_tells_a_human_and_ends_in_fail(name, machine):
    for state_name, state, _ in all_states(machine):
        for catcher in state.get("Catch", []):
            if catcher["ErrorEquals"] != ["States.ALL"] or (name, state_name) in CAUGHT_AND_GOES_ON:
                continue
            for path in paths_to_an_end(machine, catcher["Next"]):
                assert machine["States"][path[-1]]["Type"] == "Fail", (state_name, path)
                told = state_name == "Tell a human" or "Tell a human" in path or path[-1] in TOLD_BEFORE
                assert told, (state_name, path)


def test_a_failure_before_the_delete_gives_the_dags_back():
    machine = definition("spin_down")
    gave_up_after_pausing = [
        "Drain and pause", "Give the DAGs back for now", "Start the export", "Look at the export", "Read the manifest",
        "Verify the export", "Judge the export", "Put the history into the lake", "Record the export",
    ]  # fmt: skip
    for state_name in gave_up_after_pausing:
        assert machine["States"][state_name]["Catch"][-1]["Next"] == "Turn back", state_name
    for path in paths_to_an_end(machine, "Turn back"):
        assert "Give the DAGs back" in path


def test_a_morning_without_its_memory_names_the_dags_that_wait():
    machine = definition("spin_up")
    for state_name in ["Start the restore", "Look at the restore"]:
        assert machine["States"][state_name]["Catch"][-1]["Next"] == "Say which DAGs wait for their history", state_name
    for path in paths_to_an_end(machine, "Say which DAGs wait for their history"):
        assert "Give the DAGs back" not in path


def test_nobody_waits_for_the_address_and_every_message_can_name_its_failure():
    states = definition("spin_up")["States"]
    assert [catcher["Next"] for catcher in states["Publish its address"]["Catch"]] == ["Start the restore"]
    first = states[definition("spin_up")["StartAt"]]
    assert [way["Assign"]["remark"] for way in (first, *first["Catch"])] == ["", ""]
    for name, state in states.items():
        if "sns" in state.get("Resource", ""):
            assert "$remark" in state["Arguments"]["Message"], name


def test_nothing_is_deleted_unless_every_check_was_passed():
    machine = definition("spin_down")
    for check in [
        "Take the lease", "Write the blueprint", "Drain and pause", "Start the export", "Read the manifest",
        "Verify the export", "Judge the export", "Is every row safe?", "Record the export",
    ]:  # fmt: skip
        without = {**machine["States"]}
        if check == "Take the lease":  # the lease has two doors
            del without["Take over the lease"]
        del without[check]
        seen, stack = set(), [machine["StartAt"]]
        while stack:
            state_name = stack.pop()
            if state_name in without and state_name not in seen:
                seen.add(state_name)
                stack.extend(successors(without[state_name]))
        assert "Delete the environment" not in seen, f"reached without {check!r}"


def test_a_repeated_export_begins_when_what_was_logged_before_has_taken_effect():
    """Else the entry that the last look has found would make the repeated export useless, too."""
    again = definition("spin_down")["States"]["Export once more"]
    assert again["Seconds"] >= LOG_AHEAD.total_seconds()


def test_an_extract_takes_no_lease_and_writes_no_record():
    text = MACHINES["extract_history"].read_text()
    assert "dynamodb" not in text
    called = set(re.findall(r"\$\{(\w+)FunctionArn\}", text))
    assert called == {
        "Decide", "DescribeEnvironment", "StartExtract", "CheckDagRun", "ReadManifest", "VerifyFile", "JudgeExtract",
        "PromoteExtract",
    }  # fmt: skip


def test_recover_acts_on_a_record_only_under_the_lease():
    """What two recovers, or one that is redriven, could do twice is conditional."""
    machine = definition("recover")
    for name, state, _ in all_states(machine):
        if "dynamodb" in state.get("Resource", ""):
            condition = state["Arguments"]["ConditionExpression"]
            assert "lease_owner = :me" in condition or name == "Count this morning", name
        if "startExecution" in state.get("Resource", ""):
            assert state["Arguments"]["Name"] == "{% $diagnosis.name %}", name
            assert state["Catch"][0]["ErrorEquals"] == ["StepFunctions.ExecutionAlreadyExistsException"], name
    assert machine["States"]["Take over the lease"]["Arguments"]["ConditionExpression"].replace("\n", " ") == (
        "lease_owner = :me OR ((attribute_not_exists(lease_owner) OR lease_owner = :owner) "
        "AND (attribute_not_exists(lease_fence) OR lease_fence = :fence))"
    )
    # What the dead execution's last function did in the meantime counts: it is looked at again under the lease.
    assert machine["States"]["Take over the lease"]["Next"] == machine["StartAt"]
    called = set(re.findall(r"\$\{(\w+)FunctionArn\}", MACHINES["recover"].read_text()))
    assert called == {"Diagnose", "TellOnce", "GiveBack", "CloseCycle"}


def test_whoever_records_that_it_is_awake_forgets_a_delete_that_came_to_nothing():
    """Else the next delete, by other hands, would look like ours."""
    writes = [
        (name, state_name, state["Arguments"])
        for name in MACHINES
        for state_name, state, _ in all_states(definition(name))
        if state.get("Resource", "").endswith("dynamodb:updateItem")
    ]
    wakes = [
        (name, state_name, write["UpdateExpression"])
        for name, state_name, write in writes
        if {"S": "awake"} in write.get("ExpressionAttributeValues", {}).values()
    ]
    assert len(wakes) == 4
    for name, state_name, expression in wakes:
        assert "deleting" in expression.partition("REMOVE ")[2].split(", "), (name, state_name)


def test_the_watchdog_is_over_before_the_next_look_and_has_recover_do_the_rest():
    """An express workflow lasts five minutes at most, and may be started twice for one look."""
    machine = definition("watchdog")
    assert machine["TimeoutSeconds"] <= 300
    assert not [name for name, state, _ in all_states(machine) if state["Type"] == "Wait"]
    assert "dynamodb" not in MACHINES["watchdog"].read_text()
    look, recover = (definition(name)["States"] for name in ("watchdog", "recover"))
    same = [look["Find out whether anything is wrong"], recover["Find out what is wrong"]]
    assert same[0]["Arguments"] == same[1]["Arguments"]
    handed_on = look["Have recover look after it"]["Arguments"]["Input"]
    assert handed_on == "{% $states.context.Execution.Input %}"


def test_each_machine_reads_manifests_of_its_own_mode():
    modes = {"spin_down": "complete", "extract_history": "history"}
    for machine_name, mode in modes.items():
        machine = definition(machine_name)
        reads = [state for _, state, _ in all_states(machine) if "ReadManifest" in state.get("Resource", "")]
        verifies = [state for _, state, _ in all_states(machine) if state["Type"] == "Map"]
        assert [state["Arguments"]["mode"] for state in reads] == [mode]
        assert [state["ItemSelector"]["mode"] for state in verifies] == [mode]


def test_names_follow_the_grammar(machine):
    for state_name, state, _ in all_states(machine):
        assert state_name.endswith("?") == (state["Type"] == "Choice"), state_name
        assert len(state_name) <= 80, state_name


def test_a_choice_always_has_a_way_out_and_decides_by_words(machine):
    for state_name, state, _ in all_states(machine):
        if state["Type"] == "Choice":
            assert "Default" in state, state_name
            for rule in state["Choices"]:
                condition = re.sub(r"'[^']*'", "", rule["Condition"][2:-2])
                assert not re.search(r"[-+*/<>]", condition), (state_name, rule["Condition"])


def test_every_expression_is_jsonata_and_none_is_forbidden_on_aws(machine):
    found = 0
    for state_name, state, _ in all_states(machine):
        for expression in expressions(state):
            Jsonata(expression)
            assert "$eval" not in expression, state_name
            found += 1
    assert found > 10


def test_statelint_is_content(name, tmp_path):
    text = re.sub(
        r"\$\{(\w+)FunctionArn\}", r"arn:aws:lambda:us-east-1:123456789012:function:\1", MACHINES[name].read_text()
    )
    rendered = tmp_path / f"{name}.json"
    rendered.write_text(json.dumps(yaml.safe_load(text.replace("${Partition}", "aws"))))
    answer = subprocess.run(
        [Path(sys.executable).parent / "statelint", rendered], capture_output=True, text=True, check=False
    )
    complaints = [line.strip() for line in (answer.stdout + answer.stderr).splitlines() if "State Machine." in line]
    # statelint does not know that a JSONata string may stand for a timestamp.
    assert [line for line in complaints if "{%" not in line] == []
    assert len(complaints) == (1 if name == "spin_up" else 0)


def test_errors_have_one_name_on_both_sides():
    ours = {cls.__name__ for _, cls in inspect.getmembers(errors, inspect.isclass)} - {"TransientMwaaError"}
    named = {
        error
        for machine_name in MACHINES
        for _, state, _ in all_states(definition(machine_name))
        for rule in [*state.get("Retry", []), *state.get("Catch", [])]
        for error in rule["ErrorEquals"]
        if "." not in error
    }
    assert named <= ours, "the state machines name an error that nobody raises"
    lines = [line for path in (ROOT / "src").rglob("*.py") for line in path.read_text().splitlines()]
    used = " ".join(line for line in lines if not re.match(r"from |import |class |    \w+,$", line))
    unraised = {error for error in ours if not re.search(rf"\b{error}\b", used)}
    assert unraised == set(), "a named error that nothing raises"


def test_errors_are_in_alphabetical_order_and_say_what_they_are():
    tree = ast.parse(Path(errors.__file__).read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)][1:]
    assert [node.name for node in classes] == sorted(node.name for node in classes)
    assert all(ast.get_docstring(node) for node in classes)
