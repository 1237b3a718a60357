"""What the templates promise about the sample and about their own deletion."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from local import deploy
from local.deploy import read_yaml, translate

pytestmark = pytest.mark.template
ROOT = Path(__file__).parents[2]
CORE = {"EnvironmentName": "dev", "EnvironmentBucketName": "an-environment-bucket", "DeploySample": "true"}
SAMPLE = {
    "EnvironmentName": "dev", "EnvironmentBucketName": "dags", "DataBucketName": "data", "DataKeyArn": "arn:key",
    "EnvironmentPolicyArn": "arn:policy", "CoreLayerArn": "arn:layer", "RefuseDeletionFunctionArn": "arn:function",
}  # fmt: skip
TEMPLATES = [(ROOT / "template.yaml", CORE), (ROOT / "sample/template.yaml", SAMPLE)]


def named(node, resources):
    """Logical ids that Ref, Fn::GetAtt and Fn::Sub below this node name."""
    if isinstance(node, list):
        for each in node:
            yield from named(each, resources)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "Ref":
                yield value
            elif key == "Fn::GetAtt":
                yield (value if isinstance(value, str) else value[0]).split(".")[0]
            elif key == "Fn::Sub":
                text = value if isinstance(value, str) else value[0]
                yield from (name.split(".")[0] for name in re.findall(r"\$\{([^}!]+)\}", text))
                yield from named(value[1:] if isinstance(value, list) else [], resources)
            else:
                yield from named(value, resources)


def dependencies(resources):
    """Logical id to those that it waits for."""
    found = {}
    for logical_id, resource in resources.items():
        explicit = resource.get("DependsOn", [])
        found[logical_id] = {
            *([explicit] if isinstance(explicit, str) else explicit),
            *(set(named(resource.get("Properties", {}), resources)) & resources.keys()),
        }
    return found


@pytest.mark.parametrize(("path", "parameters"), TEMPLATES, ids=["core", "sample"])
@pytest.mark.parametrize("conditions", [True, False], ids=["all conditions true", "all false"])
def test_cloudformation_asks_before_it_deletes_anything(path, parameters, conditions):
    """It deletes a resource only once all that depend on it are gone. So the one that says no depends on all."""
    resources = translate(path, parameters)[0]["Resources"]
    resources = {name: each for name, each in resources.items() if conditions or "Condition" not in each}
    waits_for = dependencies(resources)
    reached, new = set(), {"NotWhileItSleeps"}
    while new:
        reached |= new
        new = {each for name in new for each in waits_for[name] if each in resources} - reached
    missing = resources.keys() - reached
    first = {each for each in missing if not any(each in waits_for[other] for other in missing - {each})}
    assert not missing, f"add to the DependsOn of NotWhileItSleeps in {path.name}: {sorted(first)}"


@pytest.mark.parametrize(("path", "parameters"), TEMPLATES, ids=["core", "sample"])
def test_buckets_keys_and_tables_outlive_the_stack_and_are_named(path, parameters):
    template = translate(path, parameters)[0]
    keeps = {"AWS::S3::Bucket", "AWS::KMS::Key", "AWS::DynamoDB::Table"}
    kept = {name: each for name, each in template["Resources"].items() if each["Type"] in keeps}
    for name, resource in kept.items():
        assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("Retain", "Retain"), name
    output = template["Outputs"]["LeftAfterDeletion"]
    assert set(named(output["Value"], template["Resources"])) >= kept.keys()
    assert "empty" in output["Description"]


@pytest.mark.parametrize(("path", "parameters"), TEMPLATES, ids=["core", "sample"])
def test_what_a_change_has_replaced_of_a_layer_goes(path, parameters):
    """Its id follows its content: each change is another resource, and SAM would retain the one before for ever."""
    resources = translate(path, parameters)[0]["Resources"].values()
    layers = [each for each in resources if each["Type"] == "AWS::Lambda::LayerVersion"]
    assert layers
    assert {each["DeletionPolicy"] for each in layers} == {"Delete"}


def test_the_core_gives_the_sample_what_it_asks_for():
    core, sample = read_yaml(ROOT / "template.yaml"), read_yaml(ROOT / "sample/template.yaml")
    given = core["Resources"]["Sample"]["Properties"]["Parameters"]
    assert given.keys() <= sample["Parameters"].keys()
    assert {name for name, each in sample["Parameters"].items() if "Default" not in each} <= given.keys()
    assert core["Resources"]["Sample"]["Condition"] == "DeploySample"
    assert core["Parameters"]["DeploySample"]["Default"] == "false"


def test_the_sample_s_role_lies_where_the_core_may_pass_roles():
    core, sample = read_yaml(ROOT / "template.yaml"), read_yaml(ROOT / "sample/template.yaml")
    path = sample["Resources"]["AirflowRole"]["Properties"]["Path"]
    assert path == f"/{core['Parameters']['ExecutionRolePath']['Default']}"


def test_the_sample_s_environment_has_our_configuration():
    environment = read_yaml(ROOT / "sample/template.yaml")["Resources"]["Airflow"]["Properties"]
    assert environment["AirflowConfigurationOptions"].keys() == {
        "transient_mwaa.bucket", "transient_mwaa.kms_key_arn", "transient_mwaa.environment",
    }  # fmt: skip
    assert environment["RequirementsS3ObjectVersion"] == {"Fn::GetAtt": ["SampleFiles", "RequirementsVersion"]}


def test_the_glue_jobs_are_called_like_the_tasks_that_start_them():
    sample = read_yaml(ROOT / "sample/template.yaml")["Resources"]
    jobs = [each["Properties"] for each in sample.values() if each["Type"] == "AWS::Glue::Job"]
    tasks = set(re.findall(r'glue_job\("(\w+)"\)', (ROOT / "dags/glue_etl.py").read_text()))
    assert {each["Name"] for each in jobs} == tasks
    for job in jobs:
        script = job["Command"]["ScriptLocation"]["Fn::Sub"].rpartition("/glue/")[2]
        assert script == f"{job['Name']}.py"
        assert (ROOT / "sample/glue" / script).exists()


def test_whatever_of_the_files_changes_cloudformation_asks_for_them_again(monkeypatch):
    """It does when a property changes. sam deploy calls what it uploads by a hash of it, and SAM's ids follow that."""

    def asked(code):
        monkeypatch.setattr(deploy, "LOCAL_CODE", code)
        template, folders = translate(ROOT / "sample/template.yaml", SAMPLE)
        return template["Resources"]["SampleFiles"]["Properties"], folders

    (before, folders), (after, _) = asked("one"), asked("another")
    assert {name for name in before if before[name] != after[name]} == {"Dags", "Scripts"}
    for name, made, lies in (
        ("Dags", "DagFiles", ROOT / "dags"),
        ("Scripts", "UploadFilesFunction", ROOT / "sample/glue"),
        ("Scripts", "UploadFilesFunction", ROOT / "sample/customer_activity.py"),
    ):
        assert after[name]["Ref"].startswith(made)
        assert lies.is_relative_to(folders[made])


def test_the_upload_may_read_and_put_its_own_files_only():
    resources = read_yaml(ROOT / "sample/template.yaml")["Resources"]
    assert resources["UploadFilesFunction"]["Properties"]["Role"] == {"Fn::GetAtt": ["UploadFilesRole", "Arn"]}
    (policy,) = resources["UploadFilesRole"]["Properties"]["Policies"]
    *files, logs = policy["PolicyDocument"]["Statement"]
    actions = {action for statement in files for action in statement["Action"]}
    assert actions == {"s3:GetObject", "s3:PutObject", "s3:ListBucket", "kms:Decrypt", "kms:GenerateDataKey"}
    assert "*" not in [statement["Resource"] for statement in files]
    assert logs["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]
    assert logs["Resource"] == {"Fn::GetAtt": ["UploadLogs", "Arn"]}


def test_cfn_lint_is_content_with_the_transformed_sample(tmp_path):
    translated, _ = translate(ROOT / "sample/template.yaml", SAMPLE)
    path = tmp_path / "transformed.json"
    path.write_text(json.dumps(translated, default=str))
    lint = [Path(sys.executable).parent / "cfn-lint", "--regions", "us-east-1", "--format", "parseable"]
    for each in (path, ROOT / "sample/template.yaml"):
        answer = subprocess.run([*lint, each], capture_output=True, text=True, check=False)
        assert (answer.stdout, answer.returncode) == ("", 0), answer.stderr
