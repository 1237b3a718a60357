"""Every member of the service model survives the way from GetEnvironment to CreateEnvironment, or is named."""

import copy
import hashlib
from datetime import UTC, date, datetime, timedelta

import botocore.session
import pytest
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from transient_mwaa.aws.mwaa import plain_shape
from transient_mwaa.domain import airflow_versions, blueprint
from transient_mwaa.domain.errors import BlueprintChanged

pytestmark = pytest.mark.unit

MODEL = botocore.session.get_session().get_service_model("mwaa")
CREATE_MODEL = MODEL.operation_model("CreateEnvironment").input_shape
CREATE = plain_shape(CREATE_MODEL)
ENVIRONMENT = plain_shape(MODEL.shape_for("Environment"))
READ_ONLY = set(ENVIRONMENT["members"]) - set(CREATE["members"])
TEXT = st.text("abcXYZ0-_:/. ", min_size=3, max_size=8)  # 3 letters satisfy every minimum of the model


def values(shape):
    """Anything a member of this shape may hold."""
    kind = shape["type"]
    if kind == "structure":
        return st.fixed_dictionaries({name: values(member) for name, member in shape["members"].items()})
    if kind == "list":
        return st.lists(values(shape["element"]), min_size=max(1, shape["min"]), max_size=min(3, shape["max"] or 3))
    if kind == "map":
        keys = TEXT.filter(lambda key: not key.startswith("aws:"))
        return st.dictionaries(keys, values(shape["value"]), min_size=1, max_size=20)  # MWAA's limit of tags
    return {
        "integer": st.integers(1, min(25, shape["max"] or 25)),
        "boolean": st.booleans(),
        "timestamp": st.just(datetime(2026, 11, 1, tzinfo=UTC)),
    }.get(kind, TEXT)


def answers():
    """Any answer of GetEnvironment: what CreateEnvironment needs, and any of the rest."""
    members = {name: values(shape) for name, shape in ENVIRONMENT["members"].items()}
    required = {name: members.pop(name) for name in CREATE["required"]}
    return st.fixed_dictionaries(required, optional=members)


def derive(answer):
    return blueprint.derive(answer, CREATE, ENVIRONMENT)


def without_read_only(value, shape):
    if shape["type"] == "structure":
        return {
            name: without_read_only(value[name], shape["members"][name]) for name in value if name in shape["members"]
        }
    return value


def test_the_model_can_be_read_back_whole():
    """What MWAA's model promises, and the blueprint lives on: no member can be set and not be read."""
    assert set(CREATE["members"]) <= set(ENVIRONMENT["members"])


# As it was when somebody last thought about each of them. A line is a member, indented by where it is.
REVIEWED = """
AirflowConfigurationOptions AirflowVersion DagS3Path EndpointManagement EnvironmentClass ExecutionRoleArn
IdentityCenterConfiguration.IdentityStoreId IdentityCenterConfiguration.StartUrl KmsKey
LoggingConfiguration.DagProcessingLogs.Enabled LoggingConfiguration.DagProcessingLogs.LogLevel
LoggingConfiguration.SchedulerLogs.Enabled LoggingConfiguration.SchedulerLogs.LogLevel
LoggingConfiguration.TaskLogs.Enabled LoggingConfiguration.TaskLogs.LogLevel
LoggingConfiguration.WebserverLogs.Enabled LoggingConfiguration.WebserverLogs.LogLevel
LoggingConfiguration.WorkerLogs.Enabled LoggingConfiguration.WorkerLogs.LogLevel
MaxWebservers MaxWorkers MinWebservers MinWorkers Name NetworkConfiguration.SecurityGroupIds
NetworkConfiguration.SubnetIds PluginsS3ObjectVersion PluginsS3Path RequirementsS3ObjectVersion RequirementsS3Path
Schedulers SourceBucketArn StartupScriptS3ObjectVersion StartupScriptS3Path Tags
Teams{}.DagS3Path Teams{}.SourceBucketArn WebserverAccessMode WeeklyMaintenanceWindowStart
"""
REVIEWED_READ_ONLY = """
Arn CeleryExecutorQueue CreatedAt DatabaseVpcEndpointService LastUpdate ServiceRoleArn Status
WebserverUrl WebserverVpcEndpointService
"""


def leaves(shape, path=""):
    """Every member that holds a value, by its path."""
    if shape["type"] == "structure":
        for name, member in shape["members"].items():
            yield from leaves(member, f"{path}.{name}" if path else name)
    elif shape["type"] == "map" and shape["value"]["type"] == "structure":
        yield from leaves(shape["value"], f"{path}{{}}")
    else:
        yield path


def test_a_member_that_botocore_adds_is_looked_at_by_somebody():
    """It would survive; but has it to be checked in the evening, is it secret, does it name something outside?

    Answer that, see to aws/prerequisites.py and to the functions' rights in template.yaml, then add it to the list.
    """
    assert sorted(leaves(CREATE)) == sorted(REVIEWED.split())
    assert sorted(READ_ONLY) == sorted(REVIEWED_READ_ONLY.split())


@settings(max_examples=60, deadline=None)
@given(answers())
def test_nothing_is_lost(answer):
    derived = derive(answer)
    whole = {**derived.request, **derived.sensitive}
    assert derived.problems == ()
    assert whole == without_read_only(answer, CREATE)
    assert not set(whole) & READ_ONLY
    assert ParamValidator().validate(whole, CREATE_MODEL).generate_report() == ""


@settings(max_examples=60, deadline=None)
@given(answers(), st.data())
def test_a_member_that_the_model_does_not_know_is_named(answer, data):
    structures = [((), answer)] + [
        ((name,), value)
        for name, value in answer.items()
        if ENVIRONMENT["members"][name]["type"] == "structure" and name in CREATE["members"]
    ]
    path, structure = data.draw(st.sampled_from(structures))
    structure["NovelMember"] = "something"
    assert any(problem.startswith(".".join([*path, "NovelMember"])) for problem in derive(answer).problems)


ANSWER = {
    "Name": "dev",
    "Arn": "arn:aws:airflow:eu-central-1:123456789012:environment/dev",
    "Status": "AVAILABLE",
    "ExecutionRoleArn": "arn:aws:iam::123456789012:role/service-role/airflow",
    "SourceBucketArn": "arn:aws:s3:::dags",
    "DagS3Path": "dags",
    "NetworkConfiguration": {"SubnetIds": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]},
    "RequirementsS3Path": "requirements.txt",
    "RequirementsS3ObjectVersion": "v1",
    "AirflowConfigurationOptions": {"smtp.smtp_password": "hunter2"},
    "MinWebservers": 2,
    "MaxWebservers": 3,
    "LoggingConfiguration": {
        "TaskLogs": {"Enabled": True, "LogLevel": "INFO", "CloudWatchLogGroupArn": "arn:aws:logs:x"}
    },
    "Tags": {"team": "data", "aws:cloudformation:stack-name": "mwaa"},
}


def changed(**members):
    answer = copy.deepcopy(ANSWER)
    answer.update(members)
    return {name: value for name, value in answer.items() if value is not ...}


def test_webserver_counts_stay():
    request = derive(ANSWER).request
    assert (request["MinWebservers"], request["MaxWebservers"]) == (2, 3)


def test_secrets_are_split_off():
    derived = derive(ANSWER)
    assert derived.sensitive == {"AirflowConfigurationOptions": {"smtp.smtp_password": "hunter2"}}
    assert "hunter2" not in str(derived.request)


def test_log_group_arns_are_not_sent_back():
    assert derive(ANSWER).request["LoggingConfiguration"] == {"TaskLogs": {"Enabled": True, "LogLevel": "INFO"}}


def test_tags_of_awss_own_are_left_out():
    assert derive(ANSWER).request["Tags"] == {"team": "data"}


@pytest.mark.parametrize(
    ("tags", "problem"),
    [
        ({f"tag{n}": "x" for n in range(50)}, None),
        ({f"tag{n}": "x" for n in range(51)}, "Tags: 51 is out of bounds, MWAA takes 1 to 50"),
        ({f"tag{n}": "x" for n in range(50)} | {"aws:cloudformation:stack-name": "mwaa"}, None),
        ({"k" * 128: "v" * 256}, None),
        ({"k" * 129: "v"}, f"Tags[{'k' * 20}] (key): 129 is out of bounds, MWAA takes 1 to 128"),
        ({"team": "v" * 257}, "Tags[team]: 257 is out of bounds, MWAA takes 1 to 256"),
        ({"team": ""}, "Tags[team]: 0 is out of bounds, MWAA takes 1 to 256"),
    ],
)
def test_tags_beyond_the_limits_are_a_problem(tags, problem):
    assert derive(changed(Tags=tags)).problems == ((problem,) if problem else ())


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"Schedulers": 6}, "Schedulers: 6 is out of bounds, MWAA takes 0 to 5"),
        ({"MaxWorkers": 0}, "MaxWorkers: 0 is out of bounds, MWAA takes 1 to any"),
        (
            {"NetworkConfiguration": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}},
            "NetworkConfiguration.SubnetIds: 1 is out of bounds, MWAA takes 2 to 2",
        ),
        (
            {"AirflowConfigurationOptions": {"smtp.smtp_password": "s3cret" * 11000}},
            "AirflowConfigurationOptions[smtp.smtp_password]: 66000 is out of bounds, MWAA takes 1 to 65536",
        ),
    ],
)
def test_so_is_any_other_member_beyond_the_model_s_bounds(members, problem):
    """botocore itself would refuse some of them, but only in the morning; no value is quoted."""
    assert derive(changed(**members)).problems == (problem,)


@pytest.mark.parametrize("tags", [{}, {"aws:cloudformation:stack-name": "mwaa"}, None, ...])
def test_no_tags_is_no_member(tags):
    assert "Tags" not in derive(changed(Tags=tags)).request


def test_empty_and_null_say_nothing():
    derived = derive(changed(WeeklyMaintenanceWindowStart="", KmsKey=None, Novel=None))
    assert not {"WeeklyMaintenanceWindowStart", "KmsKey", "Novel"} & set(derived.request)
    assert derived.problems == ()


def test_an_empty_path_is_kept():
    """The model allows it, so it is not ours to drop."""
    assert derive(changed(PluginsS3Path="")).request["PluginsS3Path"] == ""


def test_a_missing_required_member_is_named():
    assert "DagS3Path is required" in derive(changed(DagS3Path=...)).problems[0]
    logs = {"TaskLogs": {"Enabled": True}}
    assert derive(changed(LoggingConfiguration=logs)).problems == (
        "LoggingConfiguration.TaskLogs.LogLevel is required and missing",
    )


def test_the_files_it_is_made_with():
    request = derive(changed(PluginsS3Path="plugins.zip", StartupScriptS3Path="")).request
    assert blueprint.files_of(request) == {
        "requirements": ("requirements.txt", "v1"),
        "plugins": ("plugins.zip", ""),
    }
    assert blueprint.with_versions(request, {"requirements": "v2"})["RequirementsS3ObjectVersion"] == "v2"
    assert all(f"{theirs}S3ObjectVersion" in CREATE["members"] for theirs in blueprint.FILES.values())


DOCUMENT = {"blueprint_version": 1, "environment": "dev"}


def test_the_recorded_bytes_are_read():
    body = blueprint.to_bytes(DOCUMENT)
    assert blueprint.read(body, "dev", hashlib.sha256(body).hexdigest()) == DOCUMENT


@pytest.mark.parametrize("document", [DOCUMENT | {"environment": "prod"}, DOCUMENT | {"blueprint_version": 2}])
def test_a_blueprint_of_another(document):
    body = blueprint.to_bytes(document)
    with pytest.raises(BlueprintChanged):
        blueprint.read(body, "dev", hashlib.sha256(body).hexdigest())


def test_bytes_that_were_changed():
    body = blueprint.to_bytes(DOCUMENT)
    with pytest.raises(BlueprintChanged, match="not the one that was recorded"):
        blueprint.read(body + b" ", "dev", hashlib.sha256(body).hexdigest())


TOMORROW = timedelta(days=1)


def objection(version, today, ends=airflow_versions.END_OF_SUPPORT):
    return airflow_versions.objection(version, today, today + TOMORROW, ends)


def test_a_version_past_its_end_of_support_would_not_come_back():
    assert objection("2.10.3", date(2026, 11, 23)) is None
    assert objection("2.6.3", date(2025, 12, 1)) is None
    assert "2025-12-30" in objection("2.6.3", date(2025, 12, 24))  # it would sleep past the date
    assert "upgrade" in objection("2.0.2", date(2026, 11, 23))


def test_the_list_of_versions_is_refreshed_by_a_parameter_of_the_stack():
    today = date(2026, 11, 23)
    ends = airflow_versions.refreshed("2.7.2=2026-11-25,2.6.3=2027-06-30")
    assert "2026-11-25" in objection("2.7.2", today, ends)
    assert objection("2.6.3", today, ends) is None, "a date can be put off, too"
    assert objection("2.5.1", today, ends)
    assert airflow_versions.refreshed("") == airflow_versions.END_OF_SUPPORT


def test_whatever_the_calendar_says_it_must_still_be_creatable_when_it_wakes():
    today = date(2026, 12, 18)
    ends = airflow_versions.refreshed("2.7.2=2027-01-08")
    assert airflow_versions.objection("2.7.2", today, today + TOMORROW, ends) is None
    assert airflow_versions.objection("2.7.2", today, date(2027, 1, 5), ends) is None
    for holidays_end in (date(2027, 1, 6), date(2027, 1, 8), date(2027, 1, 11)):
        said = airflow_versions.objection("2.7.2", today, holidays_end, ends)
        assert holidays_end.isoformat() in said, "a morning that fails needs a day or two to be mended"
    assert "2027-12-19" in airflow_versions.objection("2.7.2", today, None, ends), "a calendar without any morning"
    assert airflow_versions.objection("2.10.3", today, None, ends) is None


def test_a_list_that_is_too_old_to_know_says_so_and_what_to_do():
    """AWS announces an end 180 days ahead: until then a version that is not on the list has none."""
    last_day = airflow_versions.READ_ON + airflow_versions.ANNOUNCED_AHEAD
    assert airflow_versions.remark("2.10.3", last_day) is None
    said = airflow_versions.remark("2.10.3", last_day + TOMORROW)
    assert "deploy with EndOfSupport=2.10.3=" in said
    assert last_day.isoformat() in said
    assert airflow_versions.SOURCE in said
    told = airflow_versions.refreshed("2.10.3=2030-01-01")
    assert airflow_versions.remark("2.10.3", date(2029, 1, 1), told) is None
    assert airflow_versions.remark("2.11.2", date(2029, 1, 1), told), "another version was not looked up"
    assert airflow_versions.remark("2.6.3", date(2029, 1, 1)) is None, "that it has ended is said by a refusal"


@pytest.mark.parametrize("nonsense", ["2.7.2", "2.7.2=soon", "2.7.2:2027-03-31"])
def test_a_refreshed_list_that_cannot_be_read_is_no_list(nonsense):
    with pytest.raises(ValueError, match="Invalid isoformat"):
        airflow_versions.refreshed(nonsense)


@pytest.mark.parametrize(("value", "problems"), [("True", 0), ("False", 1), ("0", 1)])
def test_dags_that_would_run_before_their_history_is_back_are_a_problem(value, problems):
    derived = derive(changed(AirflowConfigurationOptions={"core.dags_are_paused_at_creation": value}))
    assert len([problem for problem in derived.problems if "dags_are_paused_at_creation" in problem]) == problems
