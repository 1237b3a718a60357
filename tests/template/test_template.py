"""template.yaml against the state machines and the functions that it names."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from local.deploy import read_yaml, translate
from transient_mwaa.domain import layout
from transient_mwaa.domain.recovery import EVENINGS

pytestmark = pytest.mark.template

ROOT = Path(__file__).parents[2]
PARAMETERS = {"EnvironmentName": "dev", "EnvironmentBucketName": "an-environment-bucket"}
# Deletes only in one status, and is done in every other.
LEAVES_EARLY = {"functions/clean_failed_creation"}
MACHINES = {
    "SpinDown": "spin_down.asl.yaml",
    "SpinUp": "spin_up.asl.yaml",
    "ExtractHistory": "extract_history.asl.yaml",
    "Recover": "recover.asl.yaml",
    "Watchdog": "watchdog.asl.yaml",
}
# A second call of a step, whose Comment says what for.
CALLED_AGAIN = {
    "Look whether the evening has come",
    "Say which DAGs wait for their history",
    "Remember what was told",
    "Ask whether a human knows of this failure",
    "Remember that a human was told",
}


@pytest.fixture(scope="module")
def template():
    return read_yaml(ROOT / "template.yaml")


@pytest.fixture(scope="module")
def functions(template):
    return {
        logical_id: resource["Properties"]
        for logical_id, resource in template["Resources"].items()
        if resource["Type"] == "AWS::Serverless::Function"
    }


def statements_of(template, logical_id):
    """All that a function or a state machine is allowed by its own role."""
    (role,) = template["Resources"][logical_id]["Properties"]["Role"].values()
    (policy,) = template["Resources"][role[0]]["Properties"]["Policies"]
    return policy["PolicyDocument"]["Statement"]


def handler(code_uri):
    module = ast.parse((ROOT / code_uri / "app.py").read_text())
    return next(node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "handler")


def test_every_function_has_its_folder_and_every_folder_its_function(functions):
    assert sorted(properties["CodeUri"] for properties in functions.values()) == sorted(
        f"functions/{path.parent.name}" for path in (ROOT / "functions").glob("*/app.py")
    )


def test_state_handler_and_function_say_the_same(functions):
    """One sentence says what a step does: the state's Comment, the handler's docstring, the function's Description."""
    told = {f"{logical_id}Arn": properties["Description"].strip() for logical_id, properties in functions.items()}
    for logical_id, properties in functions.items():
        assert (
            ast.get_docstring(handler(properties["CodeUri"]))
            .replace("\n", " ")
            .startswith(told[f"{logical_id}Arn"].rstrip("."))
        )
    for file in MACHINES.values():
        states = yaml.safe_load((ROOT / "statemachine" / file).read_text())["States"]
        inner = {
            name: state for s in states.values() for name, state in s.get("ItemProcessor", {}).get("States", {}).items()
        }
        for name, state in {**states, **inner}.items():
            called = re.fullmatch(r"\$\{(\w+FunctionArn)\}", state.get("Resource", ""))
            if called and called[1] in {"DescribeEnvironmentFunctionArn", "GiveBackFunctionArn"}:
                continue  # called at several points of the story, where the Comment says what for
            if called:
                assert state["Comment"] == told[called[1]] or name in CALLED_AGAIN, name


def test_handlers_are_thin(functions):
    """At most 40 lines: no loop, no try, no branch. Errors rise by name and the state machine decides."""
    for properties in functions.values():
        node = handler(properties["CodeUri"])
        assert node.end_lineno - node.lineno <= 40, properties["CodeUri"]
        for child in ast.walk(node):
            assert not isinstance(child, ast.For | ast.While | ast.Try), properties["CodeUri"]
        branches = [child for child in ast.walk(node) if isinstance(child, ast.If)]
        assert bool(branches) == (properties["CodeUri"] in LEAVES_EARLY), properties["CodeUri"]
        assert len((ROOT / properties["CodeUri"] / "app.py").read_text().splitlines()) <= 70, properties["CodeUri"]


@pytest.mark.parametrize("machine", MACHINES)
def test_a_machine_gets_what_it_names_and_may_invoke_it(template, machine):
    properties = template["Resources"][machine]["Properties"]
    text = (ROOT / properties["DefinitionUri"]).read_text()
    assert set(re.findall(r"\$\{(\w+)\}", text)) == set(properties["DefinitionSubstitutions"])
    substitutions = properties["DefinitionSubstitutions"]
    named = {value["Fn::GetAtt"][0] for key, value in substitutions.items() if key.endswith("FunctionArn")}
    statements = statements_of(template, machine)
    invokable = next(s["Resource"] for s in statements if s["Action"] == "lambda:InvokeFunction")
    assert {resource["Fn::GetAtt"][0] for resource in invokable} == named


def test_a_task_waits_longer_than_its_function_may_take(functions):
    for file in MACHINES.values():
        states = yaml.safe_load((ROOT / "statemachine" / file).read_text())["States"]
        inner = {
            name: state for s in states.values() for name, state in s.get("ItemProcessor", {}).get("States", {}).items()
        }
        for name, state in {**states, **inner}.items():
            called = re.fullmatch(r"\$\{(\w+Function)Arn\}", state.get("Resource", ""))
            if called:
                assert state["TimeoutSeconds"] > functions[called[1]]["Timeout"], name


def test_schedules_ship_disabled_and_never_fire_late():
    translated, _ = translate(ROOT / "template.yaml", PARAMETERS)
    schedules = [r for r in translated["Resources"].values() if r["Type"] == "AWS::Scheduler::Schedule"]
    assert len(schedules) == 4
    for schedule in schedules:
        properties = schedule["Properties"]
        assert properties["Target"]["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": ["MissedSchedules", "Arn"]}}
        confirmed = {"Fn::GetAtt": ["NotificationsConfirmed", "SchedulesState"]}
        assert properties["State"] == {"Fn::If": ["SchedulesAreEnabled", confirmed, "DISABLED"]}
        assert properties["Target"]["RetryPolicy"]["MaximumEventAgeInSeconds"] <= 900
        assert "<aws.scheduler.scheduled-time>" in json.dumps(properties["Target"]["Input"])
    assert translated["Parameters"]["SchedulesEnabled"]["Default"] == "false"


def test_an_extract_may_write_nothing_that_a_morning_relies_on(template):
    """Of the bucket: findings, verdicts, the lake and its own pointer. Of the record, the environment: nothing."""
    writes = {
        "StartExtractFunction": set(),
        "JudgeExtractFunction": {"verification/environment=${EnvironmentName}/*/verdict.json"},
        "PromoteExtractFunction": {
            "export/*/dt=*/${EnvironmentName}-????????T??????Z-*.parquet",
            "environments/${EnvironmentName}/verified_history.json",
        },
    }
    for logical_id, keys in writes.items():
        statements = statements_of(template, logical_id)
        actions = {action for statement in statements for action in statement["Action"]}
        assert not [a for a in actions if re.search(r"Delete|UpdateItem|PutItem|UpdateEnvironment", a)], logical_id
        put = [s["Resource"] for s in statements if "s3:PutObject" in s["Action"]]
        resources = [r for each in put for r in (each if isinstance(each, list) else [each])]
        bucket = "arn:${AWS::Partition}:s3:::${DataBucketName.Value}/"
        assert {r["Fn::Sub"].removeprefix(bucket) for r in resources} == keys, logical_id


def test_what_must_outlive_the_stack_is_retained(template):
    for logical_id in ("DataKey", "DataBucket", "DataBucketPolicy", "Records"):
        assert template["Resources"][logical_id]["DeletionPolicy"] == "Retain"
        assert template["Resources"][logical_id]["UpdateReplacePolicy"] == "Retain"


def test_only_what_chooses_between_a_new_data_bucket_and_an_existing_one_names_the_new_one(template):
    """All others ask the two parameters, so that none has the wrong one, or a bucket that nobody looked at."""

    def named(node):
        if isinstance(node, list):
            return set().union(*map(named, node))
        if not isinstance(node, dict):
            return set()
        found = set().union(*map(named, node.values()))
        for function, argument in node.items():
            if function in {"Ref", "Fn::GetAtt"}:
                found.add(argument if isinstance(argument, str) else argument[0])
            if function == "Fn::Sub":
                text = argument if isinstance(argument, str) else argument[0]
                found |= {each.partition(".")[0] for each in re.findall(r"\$\{([\w.]+)\}", text)}
        return found

    by_condition = {"DataKey", "DataBucket", "DataBucketPolicy"}
    check = {"ExistingDataBucket", "CheckExistingBucketFunction", "CheckExistingBucketRole"}
    resources = template["Resources"]
    for names, condition in ((by_condition, "CreatesDataBucket"), (check, "UsesExistingDataBucket")):
        assert {resources[name]["Condition"] for name in names} == {condition}
        assert {name for name, each in resources.items() if each.get("Condition") == condition} == names
    either = by_condition | check | {"ExistingDataBucketName", "ExistingDataKeyArn"}
    others = {name: each for name, each in resources.items() if name not in by_condition | check}
    choosing = {name: each for name, each in others.items() if named(each) & either}
    assert set(choosing) == {"DataBucketName", "DataKeyArn", "NotWhileItSleeps"}
    assert {name: choosing[name]["Properties"]["Value"] for name in ("DataBucketName", "DataKeyArn")} == {
        "DataBucketName": {
            "Fn::If": ["CreatesDataBucket", {"Ref": "DataBucket"}, {"Fn::GetAtt": ["ExistingDataBucket", "BucketName"]}]
        },
        "DataKeyArn": {
            "Fn::If": [
                "CreatesDataBucket",
                {"Fn::GetAtt": ["DataKey", "Arn"]},
                {"Fn::GetAtt": ["ExistingDataBucket", "KeyArn"]},
            ]
        },
    }
    policy = {"Fn::If": ["CreatesDataBucket", {"Ref": "DataBucketPolicy"}, "none"]}
    guard = choosing["NotWhileItSleeps"]["Properties"]
    assert policy in guard["DependsOnToo"]
    # It refuses another one while the environment sleeps.
    assert {name: guard[name] for name in ("DataBucketName", "DataKeyArn")} == {
        name: {"Fn::GetAtt": [name, "Value"]} for name in ("DataBucketName", "DataKeyArn")
    }
    outputs = {name: each for name, each in template["Outputs"].items() if name != "LeftAfterDeletion"}
    assert not named(outputs) & either
    assert template["Outputs"]["LeftAfterDeletion"]["Value"]["Fn::If"][0] == "CreatesDataBucket"
    assert not named(template["Globals"]) & either


def test_the_environment_may_put_but_never_delete(template):
    statements = template["Resources"]["EnvironmentPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    actions = {a for s in statements for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])}
    reading = {"s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket", "s3:ListBucketVersions", "kms:Decrypt"}
    assert actions == reading | {"s3:PutObject", "s3:AbortMultipartUpload", "kms:GenerateDataKey"}


def test_only_two_functions_may_delete_an_environment(template, functions):
    may = {
        properties["CodeUri"]
        for logical_id, properties in functions.items()
        if "airflow:DeleteEnvironment" in json.dumps(statements_of(template, logical_id))
    }
    assert may == {"functions/delete_environment", "functions/clean_failed_creation"}


def test_recover_may_start_stories_but_change_no_environment(template):
    statements = statements_of(template, "Recover")
    started = next(s["Resource"] for s in statements if "states:StartExecution" in s["Action"])
    assert started == [{"Ref": "SpinDown"}, {"Ref": "SpinUp"}]
    invoked = next(s["Resource"] for s in statements if s["Action"] == "lambda:InvokeFunction")
    for resource in invoked:
        actions = json.dumps(statements_of(template, resource["Fn::GetAtt"][0]))
        assert not re.search(r"airflow:(Delete|Create|Update)Environment", actions), resource


def test_the_watchdog_may_start_recover_and_nothing_else(template):
    statements = statements_of(template, "Watchdog")
    (started,) = [each["Resource"] for each in statements if "states:StartExecution" in each["Action"]]
    (invoked,) = [each["Resource"] for each in statements if each["Action"] == "lambda:InvokeFunction"]
    functions = [{"Fn::GetAtt": [name, "Arn"]} for name in ("DiagnoseFunction", "TellOnceFunction")]
    assert (started, invoked) == ({"Ref": "Recover"}, functions)
    kinds = {name: template["Resources"][name]["Properties"].get("Type", "STANDARD") for name in MACHINES}
    assert {name for name, kind in kinds.items() if kind == "EXPRESS"} == {"Watchdog"}


def test_recover_knows_the_calendar_that_the_schedules_follow(functions):
    decides, looks = (functions[name]["Environment"]["Variables"] for name in ("DecideFunction", "DiagnoseFunction"))
    assert looks == {**decides, "SLEEP_AT": {"Ref": "SleepAt"}}


def test_recover_hears_of_every_end_but_its_own_and_needs_none():
    translated, _ = translate(ROOT / "template.yaml", PARAMETERS)
    (rule,) = [r["Properties"] for r in translated["Resources"].values() if r["Type"] == "AWS::Events::Rule"]
    detail = rule["EventPattern"]["detail"]
    assert set(detail["status"]) == {"FAILED", "TIMED_OUT", "ABORTED"}
    assert detail["stateMachineArn"] == [{"Ref": "SpinDown"}, {"Ref": "SpinUp"}, {"Ref": "ExtractHistory"}]
    assert translated["Parameters"]["WatchdogSchedule"]["Default"] == "rate(15 minutes)"


def longest_rest(template):
    """Minutes between two looks of the watchdog, at most."""
    return max(int(re.sub(r"\D", "", rate)) for rate in template["Parameters"]["WatchdogSchedule"]["AllowedValues"])


def test_the_silence_of_the_watchdog_is_an_alarm(template):
    alarm = template["Resources"]["NotAwakeAsPlanned"]["Properties"]
    assert alarm["TreatMissingData"] == {"Fn::If": ["SchedulesAreEnabled", "breaching", "notBreaching"]}
    assert alarm["AlarmActions"] == [{"Ref": "Notifications"}]
    assert longest_rest(template) * 60 <= alarm["Period"]
    # As Powertools writes it: the service beside our own dimension.
    variables = template["Globals"]["Function"]["Environment"]["Variables"]
    assert {each["Name"]: each["Value"] for each in alarm["Dimensions"]} == {
        "environment": {"Ref": "EnvironmentName"},
        "service": variables["POWERTOOLS_SERVICE_NAME"],
    }
    assert alarm["Namespace"] == variables["POWERTOOLS_METRICS_NAMESPACE"]


def told_by(template):
    """Logical id to properties of the alarms that tell the topic, and are let in by its policy."""
    statements = template["Resources"]["NotificationsPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    (statement,) = [each for each in statements if each["Principal"] == {"Service": "cloudwatch.amazonaws.com"}]
    assert statement["Action"] == "sns:Publish"
    admitted = [each["Fn::GetAtt"][0] for each in statement["Condition"]["ArnEquals"]["aws:SourceArn"]]
    alarms = {
        logical_id: resource["Properties"]
        for logical_id, resource in template["Resources"].items()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    }
    assert sorted(admitted) == sorted(alarms)
    for logical_id, alarm in alarms.items():
        assert alarm["AlarmActions"] == [{"Ref": "Notifications"}], logical_id
    return alarms


@pytest.mark.parametrize("service", ["cloudwatch", "events"])
def test_the_topic_s_key_lets_alarms_and_rules_in(template, service):
    topic = template["Resources"]["Notifications"]["Properties"]
    assert topic["KmsMasterKeyId"] == {"Fn::GetAtt": ["DataKeyArn", "Value"]}
    statements = template["Resources"]["DataKey"]["Properties"]["KeyPolicy"]["Statement"]
    (admits,) = [each for each in statements if each["Principal"] == {"Service": f"{service}.amazonaws.com"}]
    assert set(admits["Action"]) == {"kms:Decrypt", "kms:GenerateDataKey"}


def test_rules_of_this_account_alone_may_tell(template):
    statements = template["Resources"]["NotificationsPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    (admits,) = [each for each in statements if each["Principal"] == {"Service": "events.amazonaws.com"}]
    (arn,) = admits["Condition"]["ArnLike"].values()
    assert admits["Action"] == "sns:Publish"
    assert arn["Fn::Sub"] == "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:rule/*"
    assert {each["Principal"]["Service"] for each in statements} == {"cloudwatch.amazonaws.com", "events.amazonaws.com"}


@pytest.mark.parametrize("machine", sorted(MACHINES.keys() - {"Watchdog"}))  # of which the silence is an alarm
def test_an_alarm_tells_of_every_bad_end_of_every_machine(template, machine):
    alarm = told_by(template)[f"{machine}Failed"]
    expression, *metrics = alarm["Metrics"]
    assert expression["Expression"] == "SUM(FILL(METRICS(), 0))"
    assert not any(each["ReturnData"] for each in metrics)
    watched = [each["MetricStat"] for each in metrics]
    assert {each["Metric"]["MetricName"] for each in watched} == {
        "ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted",
    }  # fmt: skip
    for each in watched:
        assert each["Metric"]["Namespace"] == "AWS/States"
        assert each["Metric"]["Dimensions"] == [{"Name": "StateMachineArn", "Value": {"Ref": machine}}]
        assert each["Stat"] == "Sum"
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("GreaterThanThreshold", 0)


def test_an_alarm_tells_of_late_nights_while_they_go_on_and_when_they_are_over(template):
    late = told_by(template)["LateNight"]
    expression, takes, took = late["Metrics"]
    # ExecutionTime is in milliseconds, and there once the execution is over.
    assert expression["Expression"] == {"Fn::Sub": "MAX([FILL(takes, 0), FILL(took, 0) / 60000]) - ${DrainMinutes}"}
    assert takes["MetricStat"]["Metric"] == {
        "Namespace": "TransientMWAA",
        "MetricName": "EveningMinutes",
        "Dimensions": template["Resources"]["NotAwakeAsPlanned"]["Properties"]["Dimensions"],
    }
    assert took["MetricStat"]["Metric"] == {
        "Namespace": "AWS/States",
        "MetricName": "ExecutionTime",
        "Dimensions": [{"Name": "StateMachineArn", "Value": {"Ref": "SpinDown"}}],
    }
    for name, each in {"takes": takes, "took": took}.items():
        assert (each["Id"], each["ReturnData"], each["MetricStat"]["Stat"]) == (name, False, "Maximum")
        assert each["MetricStat"]["Period"] >= 60 * longest_rest(template), "a rest of the watchdog would be an end"
    assert (late["ComparisonOperator"], late["Threshold"]) == ("GreaterThanThreshold", {"Ref": "LateNightMinutes"})
    assert late["EvaluationPeriods"] > late["DatapointsToAlarm"] == 1, "a look that comes late would be an end"


def test_the_watchdog_knows_an_evening_by_the_name_of_its_machine(template):
    names = {machine: template["Resources"][machine]["Properties"]["Name"]["Fn::Sub"] for machine in MACHINES}
    assert [machine for machine, name in names.items() if name.endswith(EVENINGS)] == ["SpinDown"]


def test_an_alarm_tells_of_schedules_that_started_nothing(template):
    alarms = told_by(template)
    missed = alarms["ScheduleMissed"]
    assert missed["Dimensions"] == [{"Name": "QueueName", "Value": {"Fn::GetAtt": ["MissedSchedules", "QueueName"]}}]
    assert (missed["Namespace"], missed["MetricName"]) == ("AWS/SQS", "ApproximateNumberOfMessagesVisible")
    assert (missed["ComparisonOperator"], missed["Threshold"]) == ("GreaterThanThreshold", 0)


def test_the_dashboard_shows_every_alarm_and_metrics_that_somebody_writes(template):
    text = template["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    first, *widgets = json.loads(text)["widgets"]
    assert sorted(first["properties"]["alarms"]) == sorted(f"${{{each}.Arn}}" for each in told_by(template))
    sources = "".join(path.read_text() for path in (ROOT / "functions").glob("*/app.py"))
    literal = set(re.findall(r'add_metric\("(\w+)"', sources))
    # close_cycle writes the outcome itself.
    outcomes = "".join((ROOT / "statemachine" / file).read_text() for file in MACHINES.values())
    written = literal | {name.capitalize() for name in re.findall(r"\boutcome: (\w+)", outcomes)}
    shown = set()
    for widget in widgets:
        (namespace, _, *dimensions), *_ = widget["properties"]["metrics"]
        names = {each[1] for each in widget["properties"]["metrics"] if each[0] != "..."}
        if namespace == "TransientMWAA":
            assert dimensions == ["environment", "${EnvironmentName}", "service", "transient-mwaa"]
            shown |= names
        else:
            assert (namespace, dimensions[0]) == ("AWS/States", "StateMachineArn")
    assert shown == {
        "Asleep", "Awake", "Failed", "AwakeAsPlanned", "HoursAsleep", "SavedUsd", "ExportedRows", "LakeRows",
    }  # fmt: skip
    assert shown <= written


def test_logs_end_and_hold_no_execution_data_and_traces_are_on(template, functions):
    groups = [r["Properties"] for r in template["Resources"].values() if r["Type"] == "AWS::Logs::LogGroup"]
    assert len(groups) == 2
    assert all(each["RetentionInDays"] == {"Ref": "LogRetentionDays"} for each in groups)
    for machine in MACHINES:
        properties = template["Resources"][machine]["Properties"]
        assert properties["Logging"]["IncludeExecutionData"] is False
        assert properties["Tracing"] == {"Enabled": True}
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", machine).lower()
        assert properties["Name"] == {"Fn::Sub": f"${{AWS::StackName}}-{name}"}
    shared = template["Globals"]["Function"]
    assert shared["Tracing"] == "Active"
    assert shared["LoggingConfig"]["LogGroup"] == {"Ref": "FunctionLogs"}
    assert not [each for each in functions.values() if {"Tracing", "LoggingConfig"} & each.keys()]


def test_every_parameter_is_in_a_group_of_the_console(template):
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(template["Parameters"])


def talks_to_airflow(template, logical_id):
    return bool(re.search("airflow:(InvokeRestApi|CreateCliToken)", json.dumps(statements_of(template, logical_id))))


def test_who_talks_to_airflow_can_be_put_beside_a_private_web_server_and_nobody_else(template, functions):
    inside = {name for name, properties in functions.items() if "VpcConfig" in properties}
    assert inside == {name for name in functions if talks_to_airflow(template, name)}
    for name in functions:
        policies = template["Resources"][name.replace("Function", "Role")]["Properties"]["ManagedPolicyArns"]
        joins = {"Fn::If": ["WebServerIsPrivate", {"Ref": "NetworkPolicy"}, {"Ref": "AWS::NoValue"}]}
        assert policies == [{"Ref": "FunctionsPolicy"}, *([joins] if name in inside else [])]
        if name in inside:
            condition, network, otherwise = functions[name]["VpcConfig"]["Fn::If"]
            assert (condition, otherwise) == ("WebServerIsPrivate", {"Ref": "AWS::NoValue"})
            assert network == {
                "SubnetIds": {"Fn::Split": [",", {"Ref": "FunctionSubnetIds"}]},
                "SecurityGroupIds": {"Fn::Split": [",", {"Ref": "FunctionSecurityGroupIds"}]},
            }
    assert template["Resources"]["NetworkPolicy"]["Condition"] == "WebServerIsPrivate"


def test_only_what_is_marked_as_superseded_ever_expires_and_what_athena_answered(template):
    """By age alone, the one copy of what a sleeping environment knew would go."""
    rules = template["Resources"]["DataBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    key, value = layout.SUPERSEDED
    _, superseded, answers = rules
    assert [rule["Id"] for rule in rules] == ["BrokenUploads", "SupersededExports", "QueryResults"]
    assert set(rules[0]) == {"Id", "Status", "AbortIncompleteMultipartUpload"}
    assert superseded["TagFilters"] == [{"Key": key, "Value": value}]
    assert superseded["Prefix"] == layout.export_prefix("dev", "x").partition("/")[0] + "/"
    assert superseded["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    work_group = template["Resources"]["LakeWorkGroup"]["Properties"]["WorkGroupConfiguration"]
    results = work_group["ResultConfiguration"]["OutputLocation"]
    assert results == {"Fn::Sub": f"s3://${{DataBucketName.Value}}/{answers['Prefix']}"}
    assert answers["Prefix"] == "queries/", "where layout.py puts nothing"


def test_cfn_lint_is_content_with_the_transformed_template(tmp_path):
    """`sam validate --lint` passes circular dependencies; cfn-lint on the transformed template finds them."""
    translated, _ = translate(ROOT / "template.yaml", PARAMETERS)
    for resource in translated["Resources"].values():
        # The definition in one long Fn::Join is too deep for cfn-lint; statelint reads it elsewhere.
        resource["Properties"].pop("DefinitionString", None)
        if resource["Type"] == "AWS::StepFunctions::StateMachine":
            resource["Properties"]["DefinitionS3Location"] = {"Bucket": "code", "Key": "machine"}
    path = tmp_path / "transformed.json"
    path.write_text(json.dumps(translated, default=str))
    lint = [Path(sys.executable).parent / "cfn-lint", "--regions", "us-east-1", "--format", "parseable", path]
    answer = subprocess.run(lint, capture_output=True, text=True, check=False)
    assert answer.stdout == ""
    assert answer.returncode == 0, answer.stderr
