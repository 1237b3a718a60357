"""Moto with MWAA in it, one environment called dev, and the handlers loaded as Lambda loads them."""

import importlib.util
import json
import os
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import boto3
import trustme
from moto import mock_aws
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_api._internal import mock_random

from local import moto_seams
from local.mwaa.models import Site, mwaa_backends, open_site
from tests.functions.tiny_airflow import TinyAirflow

FUNCTIONS = Path(__file__).parents[2] / "functions"
REGION = "us-east-1"
CONTEXT = SimpleNamespace(
    function_name="f", memory_limit_in_mb=256, invoked_function_arn="arn:f", aws_request_id="1", function_version="1"
)
AUTHORITY = trustme.CA()
PASSWORD = "hunter2-in-configuration"
ME = "arn:aws:states:us-east-1:123456789012:execution:spin-up:now"
LEASE = {"owner": ME, "fence": "7"}
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": ["airflow.amazonaws.com", "airflow-env.amazonaws.com"]},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)

VARIABLES = {
    "DATA_BUCKET": "data",
    "RECORDS_TABLE": "records",
    "KEY_ARN": "",
    "TIME_ZONE": "Europe/Berlin",
    "WAKE_AT": "06:30",
    "READY_BY": "08:00",
    "WORK_DAYS": "MON-FRI",
    "HOLIDAYS": "DE-BW",
    "EXTRA_HOLIDAYS": "2026-12-24",
    "DRAIN_POLICY": "postpone",
    "DRAIN_MINUTES": "30",
    "ENVIRONMENT_KEY_ARN": "",
    "END_OF_SUPPORT": "",
    "ACCEPTED_EAGER_DAGS": "",
}


class Waiting:
    """A clock whose appointments are kept when the test says so."""

    def __init__(self):
        self.appointments = []

    def now(self):
        return datetime.now(UTC)

    def at(self, when, callback):
        self.appointments.append(callback)
        return lambda: self.appointments.remove(callback)

    def keep(self):
        """Lets time pass until nothing is under way."""
        while self.appointments:
            self.appointments.pop(0)()


class Cloud:
    """What a test arranges and looks at."""

    def __init__(self, home, monkeypatch):
        self.clock = Waiting()
        self.monkeypatch = monkeypatch
        self.airflow = TinyAirflow()
        self.home = home
        mock_random.seed(0)  # the same ids in each test, so that warm functions stay right
        for name, value in VARIABLES.items():
            monkeypatch.setenv(name, value)
        AUTHORITY.cert_pem.write_to_path(home / "ca.pem")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(home / "ca.pem"))
        monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
        monkeypatch.setenv("AWS_REGION", REGION)
        monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # hundreds of images that nobody looks at
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
        open_site(
            Site(
                clock=self.clock,
                make_airflow=lambda **_: self.airflow,
                environ={},
                endpoint=f"https://sts.{REGION}.amazonaws.com",
                home=home,
                authority=AUTHORITY,
                real_time=False,
            )
        )
        self.mwaa = mwaa_backends[DEFAULT_ACCOUNT_ID][REGION]
        self._build()

    def client(self, service):
        return client(service)

    def _build(self):
        s3, ec2, iam = self.client("s3"), self.client("ec2"), self.client("iam")
        for bucket in ("data", "dags"):
            s3.create_bucket(Bucket=bucket)
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        block = dict.fromkeys(
            ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
        )
        s3.put_public_access_block(Bucket="dags", PublicAccessBlockConfiguration=block)
        self.requirements = s3.put_object(Bucket="dags", Key="requirements.txt", Body=b"pyarrow>=16")["VersionId"]
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnets = [ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{n}.0/24")["Subnet"]["SubnetId"] for n in (1, 2)]
        self.group = ec2.create_security_group(GroupName="mwaa", Description="mwaa", VpcId=vpc)["GroupId"]
        role = iam.create_role(RoleName="airflow", Path="/service-role/", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
        self.key = self.client("kms").create_key()["KeyMetadata"]["Arn"]
        self.client("dynamodb").create_table(
            TableName="records",
            KeySchema=[{"AttributeName": "environment", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "environment", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        self.monkeypatch.setenv("KEY_ARN", self.key)
        self.monkeypatch.setenv("ENVIRONMENT_KEY_ARN", self.key)
        self.request = {
            "Name": "dev",
            "ExecutionRoleArn": role,
            "SourceBucketArn": "arn:aws:s3:::dags",
            "DagS3Path": "dags",
            "NetworkConfiguration": {"SubnetIds": self.subnets, "SecurityGroupIds": [self.group]},
            "RequirementsS3Path": "requirements.txt",
            "RequirementsS3ObjectVersion": self.requirements,
            "AirflowConfigurationOptions": {"smtp.smtp_password": PASSWORD},
            "AirflowVersion": "2.11.2",
            "EnvironmentClass": "mw1.small",
            "MinWebservers": 2,
            "MaxWebservers": 3,
            "KmsKey": self.key,
            "Tags": {"team": "data"},
        }

    def create(self, **changes):
        request = {**self.request, **changes}
        self.client("mwaa").create_environment(**{name: value for name, value in request.items() if value is not None})
        self.clock.keep()

    def delete(self):
        self.client("mwaa").delete_environment(Name="dev")
        self.clock.keep()

    def environment(self):
        return self.client("mwaa").get_environment(Name="dev")["Environment"]

    @property
    def incarnation(self):
        return self.environment()["CreatedAt"].astimezone(UTC).replace(microsecond=0).isoformat()

    def leased(self, **members):
        """Writes a record whose lease LEASE holds."""
        self.record(lease_owner=LEASE["owner"], lease_fence=LEASE["fence"], **members)

    def record(self, **members):
        item = {name: {"N": str(value)} if name == "lease_fence" else {"S": value} for name, value in members.items()}
        self.client("dynamodb").put_item(TableName="records", Item={"environment": {"S": "dev"}, **item})

    def body(self, key):
        return self.client("s3").get_object(Bucket="data", Key=key)["Body"].read()

    def json(self, key):
        return json.loads(self.body(key))

    def stored(self, prefix=""):
        return [
            item["Key"] for item in self.client("s3").list_objects_v2(Bucket="data", Prefix=prefix).get("Contents", [])
        ]

    def module(self, name, **variables):
        """A function's module; loaded once for the same variables, as in a warm Lambda."""
        for variable, value in variables.items():
            self.monkeypatch.setenv(variable, value)
        return warm(name, tuple(os.environ[variable] for variable in VARIABLES))

    def function(self, name, **variables):
        """Its handler, with events and answers that went through JSON."""
        module = self.module(name, **variables)
        return lambda event: json.loads(json.dumps(module.handler(json.loads(json.dumps(event)), CONTEXT)))

    def call(self, function, **event):
        return self.function(function)({"environment": "dev", **event})


@cache
def warm(name, _variables):
    """A function's module, loaded by its path as Lambda loads it."""
    spec = importlib.util.spec_from_file_location(f"function_{name}", FUNCTIONS / name / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def client(service):
    """Moto answers a client of any test; making one is what takes long."""
    return boto3.client(service, region_name=REGION)


@contextmanager
def standing(home, monkeypatch):
    with mock_aws(), moto_seams.Replacer() as replace:
        moto_seams.register_mwaa_and_pricing(replace)
        cloud = Cloud(home, monkeypatch)
        try:
            yield cloud
        finally:
            cloud.mwaa.close()
            open_site(None)


def ago(**duration):
    return (datetime.now(UTC) - timedelta(**duration)).isoformat()


__all__ = ["LEASE", "ME", "PASSWORD", "Cloud", "ago", "standing"]
