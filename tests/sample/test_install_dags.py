"""An environment that is there already gets our DAGs: its owner loses nothing, and is told of everything."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from install.__main__ import run
from install.installer import Installer
from tests.functions.cloud import PASSWORD, standing

pytestmark = pytest.mark.functions
DAGS = Path(__file__).parents[2] / "dags"
OUTPUTS = ("DataBucketName", "DataKeyArn", "RecordsTableName", "EnvironmentPolicyArn")
NOTHING = {"Effect": "Deny", "Action": "s3:PutObject", "Resource": "*"}
POLICY = "arn:aws:iam::123456789012:policy/export"
GIVEN = {
    "DataBucketName": "data",
    "DataKeyArn": "arn:key",
    "RecordsTableName": "records",
    "EnvironmentPolicyArn": POLICY,
}


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    with standing(tmp_path, monkeypatch) as cloud:
        cloud.create()
        template = {
            "Parameters": {name: {"Type": "String"} for name in ("EnvironmentName", *OUTPUTS)},
            "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
            "Outputs": {name: {"Value": {"Ref": name}} for name in OUTPUTS},
        }
        cloud.client("cloudformation").create_stack(
            StackName="core",
            TemplateBody=json.dumps(template),
            Parameters=[
                {"ParameterKey": name, "ParameterValue": value}
                for name, value in {"EnvironmentName": "dev", **GIVEN}.items()
            ],
        )
        yield cloud


@pytest.fixture
def install(cloud):
    """Runs it; answers its exit code and what it said."""

    def go(name="dev", stack="core", apply=True, on_pause=None):
        said = []

        def pause(_seconds):
            (on_pause or cloud.clock.keep)()

        monkey = Installer(cloud.client, said.append, pause)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("install.__main__.say", said.append)
            code = run(name, stack, DAGS, apply=apply, installer=monkey)
        text = "\n".join(said)
        assert PASSWORD not in text
        return SimpleNamespace(code=code, text=text)

    return go


def listed(cloud):
    return {each["Key"] for each in cloud.client("s3").list_objects_v2(Bucket="dags").get("Contents", ())}


def text(cloud, key, **version):
    return cloud.client("s3").get_object(Bucket="dags", Key=key, **version)["Body"].read().decode()


def put(cloud, key, body):
    return cloud.client("s3").put_object(Bucket="dags", Key=key, Body=body.encode())["VersionId"]


def use(cloud, body):
    """The owner's own requirements, in use."""
    version = put(cloud, "requirements.txt", body)
    cloud.client("mwaa").update_environment(Name="dev", RequirementsS3ObjectVersion=version)
    cloud.clock.keep()


def updates(cloud):
    return [name for operation, name in cloud.mwaa.calls if operation == "update_environment"]


def test_a_dry_run_says_everything_and_does_nothing(cloud, install):
    before, environment = listed(cloud), cloud.environment()
    said = install(apply=False)
    assert said.code == 0
    assert "add s3://dags/dags/db_export_dag.py" in said.text
    assert "add to s3://dags/requirements.txt: aws-encryption-sdk==4.0.7" in said.text
    assert "set the configuration option transient_mwaa.bucket = data" in said.text
    assert "attach the policy" in said.text
    assert f"tag {environment['Arn']} with transient-mwaa=managed" in said.text
    assert "configuration option smtp.smtp_password" in said.text
    assert "Nothing was changed" in said.text
    assert (listed(cloud), cloud.environment()) == (before, environment)
    assert updates(cloud) == []


def test_everything_is_put_in_place_and_nothing_of_theirs_is_lost(cloud, install):
    use(cloud, "# ours\ndbt-core==1.8\npyarrow==18.1.0\n")
    put(cloud, "dags/theirs.py", "# theirs")
    put(cloud, "dags/.airflowignore", "scratch/")
    said = install()
    assert said.code == 0, said.text
    environment = cloud.environment()
    assert environment["AirflowConfigurationOptions"] == {
        "smtp.smtp_password": PASSWORD,
        "transient_mwaa.bucket": "data",
        "transient_mwaa.kms_key_arn": "arn:key",
        "transient_mwaa.environment": "dev",
    }
    in_use = text(cloud, "requirements.txt", VersionId=environment["RequirementsS3ObjectVersion"])
    assert in_use.startswith("# ours\ndbt-core==1.8\npyarrow==18.1.0\n")
    assert "adbc-driver-postgresql>=1.11\n" in in_use
    assert "pyarrow>=16" not in in_use
    assert text(cloud, "dags/.airflowignore") == "scratch/\nairflow_metadata/\n"
    ours = {f"dags/{path.relative_to(DAGS)}" for path in DAGS.glob("airflow_metadata/*.py")}
    expected = ours | {"dags/db_export_dag.py", "dags/db_restore_dag.py", "dags/.airflowignore"}
    assert listed(cloud) == expected | {"dags/theirs.py", "requirements.txt"}  # the sample's DAGs stay at home
    assert text(cloud, "dags/theirs.py") == "# theirs"


def test_again_there_is_nothing_to_do(cloud, install):
    assert install().code == 0
    before = len(updates(cloud))
    said = install()
    assert (said.code, "has everything" in said.text) == (0, True)
    assert len(updates(cloud)) == before


def test_a_new_release_changes_the_dags_alone(cloud, install):
    assert install().code == 0
    before = len(updates(cloud))
    put(cloud, "dags/airflow_metadata/ids.py", "# an old release")
    said = install()
    assert said.code == 0
    assert "replace s3://dags/dags/airflow_metadata/ids.py" in said.text
    assert text(cloud, "dags/airflow_metadata/ids.py") == (DAGS / "airflow_metadata/ids.py").read_text()
    assert len(updates(cloud)) == before


def test_an_environment_without_requirements_gets_a_file(cloud, install):
    cloud.delete()
    cloud.client("s3").delete_object(Bucket="dags", Key="requirements.txt", VersionId=cloud.requirements)
    cloud.create(RequirementsS3Path=None, RequirementsS3ObjectVersion=None, AirflowConfigurationOptions=None)
    assert install().code == 0
    environment = cloud.environment()
    assert environment["RequirementsS3Path"] == "requirements.txt"
    assert "pyarrow>=16" in text(cloud, "requirements.txt", VersionId=environment["RequirementsS3ObjectVersion"])


def conflict(cloud, install, told):
    before, calls = listed(cloud), len(updates(cloud))
    said = install()
    assert said.code == 1
    assert told in said.text
    assert "In the way" in said.text
    assert (listed(cloud), len(updates(cloud))) == (before, calls)


def test_a_pin_in_the_way_is_named(cloud, install):
    use(cloud, "pyarrow==14.0.2\n")
    conflict(cloud, install, "“pyarrow==14.0.2” does not fit pyarrow>=16")


def test_a_dag_of_theirs_under_our_name_is_not_overwritten(cloud, install):
    put(cloud, "dags/db_export_dag.py", "from airflow import DAG  # the blog's")
    conflict(cloud, install, "s3://dags/dags/db_export_dag.py is a DAG of yours")
    assert text(cloud, "dags/db_export_dag.py").endswith("the blog's")


def test_another_bucket_in_the_configuration_is_named(cloud, install):
    cloud.client("mwaa").update_environment(Name="dev", AirflowConfigurationOptions={"transient_mwaa.bucket": "other"})
    cloud.clock.keep()
    conflict(cloud, install, "transient_mwaa.bucket is other, and should be data")


def test_requirements_that_are_not_in_use_are_not_put_to_use_unasked(cloud, install):
    put(cloud, "requirements.txt", "half-finished\n")
    conflict(cloud, install, "has a version that is not in use")


def test_a_requirements_file_that_nobody_asked_mwaa_to_install_stays_unused(cloud, install):
    cloud.delete()
    cloud.create(RequirementsS3Path=None, RequirementsS3ObjectVersion=None)
    conflict(cloud, install, "has a version that is not in use")


def test_an_environment_that_changes_is_left_alone(cloud, install):
    cloud.mwaa.set_status("dev", "UPDATING")
    conflict(cloud, install, "dev is UPDATING")


@pytest.mark.parametrize("record", [{"phase": "awake", "lease_owner": "arn:evening"}, {"phase": "waking"}])
def test_a_night_at_work_is_waited_for(cloud, install, record):
    cloud.record(**record)
    conflict(cloud, install, "is at work on dev")


def test_the_stack_of_another_environment(cloud, install):
    cloud.delete()
    cloud.create(Name="other")
    said = install(name="other")
    assert (said.code, "the stack core is for the environment dev" in said.text) == (1, True)


def test_no_such_environment_and_no_such_stack(install):
    assert install(name="nobody").code == 1
    assert install(stack="nothing").code == 1


def test_an_update_that_fails_leaves_no_dag_and_the_next_try_goes_on(cloud, install):
    cloud.mwaa.script("dev", update=["UPDATING", "ROLLING_BACK", "UPDATE_FAILED"], error="pip could not")
    said = install()
    assert said.code == 1
    assert "pip could not" in said.text
    assert not [key for key in listed(cloud) if key.startswith("dags/")]
    versions = cloud.client("s3").list_object_versions(Bucket="dags", Prefix="requirements.txt")["Versions"]
    # MWAA rolls back; the stand-in keeps the new members, so they are put back by hand.
    cloud.mwaa.environments["dev"].members.update(
        RequirementsS3ObjectVersion=cloud.requirements, AirflowConfigurationOptions={"smtp.smtp_password": PASSWORD}
    )
    assert install().code == 0
    again = cloud.client("s3").list_object_versions(Bucket="dags", Prefix="requirements.txt")["Versions"]
    assert len(again) == len(versions)  # the file lay there already


def test_what_somebody_changes_meanwhile_stays_theirs(cloud, install):
    def meddle():
        put(cloud, "dags/db_export_dag.py", "# somebody was quicker")
        cloud.clock.keep()

    said = install(on_pause=meddle)
    assert said.code == 1
    assert "was changed in the meantime" in said.text
    assert text(cloud, "dags/db_export_dag.py") == "# somebody was quicker"


def test_dags_that_airflow_does_not_know_or_cannot_import_are_told(cloud, install):
    del cloud.airflow.paused["db_restore_dag"]
    assert "Airflow has not parsed db_restore_dag" in install().text
    cloud.airflow.import_errors.append(
        {"filename": "/usr/local/airflow/dags/db_restore_dag.py", "stack_trace": "Traceback\nModuleNotFoundError: adbc"}
    )
    put(cloud, "dags/airflow_metadata/ids.py", "# so that there is something to do")
    said = install()
    assert (said.code, "ModuleNotFoundError: adbc" in said.text) == (1, True)


def test_an_airflow_that_cannot_be_asked_is_told(cloud, install):
    cloud.airflow.broken = 500
    said = install()
    assert (said.code, "Airflow could not be asked" in said.text) == (1, True)


def test_the_role_that_has_our_policy_needs_nothing(cloud, install):
    iam = cloud.client("iam")
    document = json.dumps({"Version": "2012-10-17", "Statement": [NOTHING]})
    arn = iam.create_policy(PolicyName="export", PolicyDocument=document)["Policy"]["Arn"]
    assert arn == POLICY
    iam.attach_role_policy(RoleName="airflow", PolicyArn=arn)
    assert "attach the policy" not in install(apply=False).text


def test_airflow_3_is_told_what_to_expect(cloud, install):
    cloud.delete()
    cloud.create(AirflowVersion="3.0.6")
    assert "DatabaseUnsupported" in install(apply=False).text
