"""What the owner of an environment has made before we come: its bucket, its role, its network, and its request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

PUBLIC_ACCESS_BLOCK = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
ZONES = ("us-east-1a", "us-east-1b")


def make_bucket(s3: Any, bucket: str) -> None:
    """Versioned, and closed to the public, as MWAA wants it."""
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(PUBLIC_ACCESS_BLOCK, True))


def make_role(iam: Any, name: str, policy_arn: str) -> str:
    """An execution role that MWAA may assume, with the rights our export needs. Returns its ARN."""
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": ["airflow.amazonaws.com", "airflow-env.amazonaws.com"]},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    role = iam.create_role(Path="/service-role/", RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    iam.attach_role_policy(RoleName=name, PolicyArn=policy_arn)
    return str(role["Role"]["Arn"])


def make_network(ec2: Any) -> dict[str, list[str]]:
    """Two subnets in two zones and a security group, as NetworkConfiguration."""
    vpc = ec2.create_vpc(CidrBlock="10.192.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.192.{number}.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
        for number, zone in enumerate(ZONES, start=20)
    ]
    group = ec2.create_security_group(VpcId=vpc, GroupName="airflow", Description="MWAA")["GroupId"]
    return {"SubnetIds": subnets, "SecurityGroupIds": [group]}


def environment_request(
    cloud: Any, outputs: Mapping[str, str], name: str, bucket: str, **members: Any
) -> dict[str, Any]:
    """CreateEnvironment's members for an environment of the stack with these outputs; `members` replace or add."""
    make_bucket(cloud.client("s3"), bucket)
    version = cloud.client("s3").put_object(Bucket=bucket, Key="requirements.txt", Body=b"pyarrow>=16\n")["VersionId"]
    return {
        "Name": name,
        "AirflowVersion": "2.11.2",
        "EnvironmentClass": "mw1.small",
        "ExecutionRoleArn": make_role(cloud.client("iam"), f"airflow-{name}", outputs["EnvironmentPolicyArn"]),
        "SourceBucketArn": f"arn:aws:s3:::{bucket}",
        "DagS3Path": "dags",
        "RequirementsS3Path": "requirements.txt",
        "RequirementsS3ObjectVersion": version,
        "NetworkConfiguration": make_network(cloud.client("ec2")),
        "WebserverAccessMode": "PUBLIC_ONLY",
        "MinWebservers": 2,
        "MaxWebservers": 3,
        "AirflowConfigurationOptions": {
            "transient_mwaa.bucket": outputs["DataBucketName"],
            "transient_mwaa.kms_key_arn": outputs["DataKeyArn"],
            "smtp.smtp_password": "in-the-configuration-s3cret",
        },
        "Tags": {"team": "sales"},
        **members,
    }
