"""The permissions that an AWS API call takes, where they are not simply those of the same name.

Sources: Service Authorization Reference; Amazon S3 API Reference ("Permissions" of each operation) and User Guide
("Enforce conditional writes"); KMS Developer Guide ("How Amazon DynamoDB uses AWS KMS", "kms:ViaService"); SNS
Developer Guide ("Key management": publishers to an encrypted topic); MWAA user guide ("Accessing an environment").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.template.iam import Need

REGION, ACCOUNT = "us-east-1", "123456789012"


@dataclass(frozen=True)
class Around:
    """What a call's parameters do not say."""

    data_bucket: str
    data_key: str
    role_arns: Mapping[str, str]
    """Role name to ARN, with its path."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Of the environment as it is now."""


def needs(service: str, operation: str, params: Mapping[str, Any], around: Around) -> list[Need]:
    """Everything that the caller must be allowed. Raises LookupError for a call that this table does not know."""
    if (service, operation) not in _TABLE:
        raise LookupError(f"Which permissions does {service} {operation} take? Add it to {__name__}.")
    return list(_TABLE[service, operation](params, around))


# --- S3 ---


def _object(params: Mapping[str, Any]) -> str:
    return f"arn:aws:s3:::{params['Bucket']}/{params['Key']}"


def _get(params: Mapping[str, Any], around: Around, *, body: bool = True) -> Iterator[Need]:
    """Without the right to list, S3 answers 403 instead of 404 to what is not there, and no error would be named."""
    bucket = f"arn:aws:s3:::{params['Bucket']}"
    yield Need("s3:ListBucket", bucket)
    if params.get("VersionId"):
        yield Need("s3:GetObjectVersion", _object(params))
        yield Need("s3:ListBucketVersions", bucket)
    else:
        yield Need("s3:GetObject", _object(params))
    if body and params["Bucket"] == around.data_bucket:
        yield _via("s3", "kms:Decrypt", around)


def _head(params: Mapping[str, Any], around: Around) -> Iterator[Need]:
    return _get(params, around, body=False)


def _put(params: Mapping[str, Any], around: Around) -> Iterator[Need]:
    condition = (("s3:if-none-match", params["IfNoneMatch"]),) if "IfNoneMatch" in params else ()
    yield Need("s3:PutObject", _object(params), condition)
    if params["Bucket"] == around.data_bucket:
        yield _via("s3", "kms:GenerateDataKey", around)


def _copy(params: Mapping[str, Any], around: Around) -> Iterator[Need]:
    """Tags are replaced, so that they are not read (s3:GetObjectTagging)."""
    if params.get("TaggingDirective") != "REPLACE":
        raise ValueError("Not in this table: a copy that reads tags.")
    source = params["CopySource"]
    if isinstance(source, str):  # as botocore rewrites it on the way
        path, _, version = source.partition("?versionId=")
        bucket, _, key = path.partition("/")
        source = {"Bucket": bucket, "Key": unquote(key), "VersionId": version}
    yield from _get(source, around)
    yield from _put({"Bucket": params["Bucket"], "Key": params["Key"]}, around)


def _on_bucket(action: str) -> Callable[[Mapping[str, Any], Around], Iterator[Need]]:
    return lambda params, _: iter([Need(action, f"arn:aws:s3:::{params['Bucket']}")])


# --- KMS ---


def _via(service: str, action: str, around: Around) -> Need:
    """What a service does with our key on behalf of the caller."""
    return Need(action, around.data_key, (("kms:ViaService", f"{service}.{REGION}.amazonaws.com"),))


def _kms(action: str) -> Callable[[Mapping[str, Any], Around], Iterator[Need]]:
    return lambda params, around: iter([Need(action, params.get("KeyId") or around.data_key)])


# --- Airflow ---


def _environment(params: Mapping[str, Any]) -> str:
    return f"arn:aws:airflow:{REGION}:{ACCOUNT}:environment/{params['Name']}"


def _on_environment(operation: str) -> Callable[[Mapping[str, Any], Around], Iterator[Need]]:
    def found(params: Mapping[str, Any], around: Around) -> Iterator[Need]:
        tags = tuple((f"aws:ResourceTag/{key}", value) for key, value in around.tags.items())
        yield Need(f"airflow:{operation}", _environment(params), tags)

    return found


def _invoke_rest_api(params: Mapping[str, Any], _: Around) -> Iterator[Need]:
    """Authorised on the Airflow role that the caller gets, which is the mightiest that it may have."""
    yield Need("airflow:InvokeRestApi", f"arn:aws:airflow:{REGION}:{ACCOUNT}:role/{params['Name']}/Admin")


def _create(params: Mapping[str, Any], _: Around) -> Iterator[Need]:
    """Besides the two, MWAA does on the caller's behalf what CREATION lists."""
    tags = tuple((f"aws:RequestTag/{key}", value) for key, value in params.get("Tags", {}).items())
    yield Need("airflow:CreateEnvironment", _environment(params), tags)
    if tags:
        yield Need("airflow:TagResource", _environment(params), tags)
    passed = (("iam:PassedToService", "airflow.amazonaws.com"),)
    yield Need("iam:PassRole", params["ExecutionRoleArn"], passed)
    for action in ("s3:GetEncryptionConfiguration", "s3:GetBucketPublicAccessBlock"):
        yield Need(action, params["SourceBucketArn"])
    for action in ("DescribeRouteTables", "DescribeSecurityGroups", "DescribeSubnets", "DescribeVpcs"):
        yield Need(f"ec2:{action}", "*")
    network = params["NetworkConfiguration"]
    made = {"ec2:CreateNetworkInterface": "network-interface", "ec2:CreateVpcEndpoint": "vpc-endpoint"}
    for action, kind in made.items():
        yield Need(action, _ec2(f"{kind}/new"))
        for each in network["SubnetIds"]:
            yield Need(action, _ec2(f"subnet/{each}"))
        for each in network["SecurityGroupIds"]:
            yield Need(action, _ec2(f"security-group/{each}"))
    yield Need("ec2:CreateVpcEndpoint", _ec2("vpc/vpc-1"))
    yield Need("ec2:CreateVpcEndpoint", _ec2("route-table/rtb-1"))


def _ec2(resource: str) -> str:
    return f"arn:aws:ec2:{REGION}:{ACCOUNT}:{resource}"


# --- The others ---


def _on_table(action: str) -> Callable[[Mapping[str, Any], Around], Iterator[Need]]:
    def found(params: Mapping[str, Any], around: Around) -> Iterator[Need]:
        yield Need(action, f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{params['TableName']}")
        yield _via("dynamodb", "kms:Decrypt", around)

    return found


def _publish(params: Mapping[str, Any], around: Around) -> Iterator[Need]:
    yield Need("sns:Publish", params["TopicArn"])
    yield _via("sns", "kms:Decrypt", around)
    yield _via("sns", "kms:GenerateDataKey", around)


def _named(action: str, parameter: str, prefix: str = "") -> Callable[[Mapping[str, Any], Around], Iterator[Need]]:
    return lambda params, _: iter([Need(action, prefix + params[parameter])])


_TABLE: dict[tuple[str, str], Callable[[Mapping[str, Any], Around], Iterator[Need]]] = {
    ("s3", "GetObject"): _get,
    ("s3", "HeadObject"): _head,
    ("s3", "PutObject"): _put,
    ("s3", "CopyObject"): _copy,
    ("s3", "PutObjectTagging"): lambda params, _: iter([Need("s3:PutObjectTagging", _object(params))]),
    ("s3", "HeadBucket"): _on_bucket("s3:ListBucket"),
    ("s3", "ListObjectsV2"): _on_bucket("s3:ListBucket"),
    ("s3", "ListObjectVersions"): _on_bucket("s3:ListBucketVersions"),
    ("s3", "GetBucketLocation"): _on_bucket("s3:GetBucketLocation"),
    ("s3", "GetBucketVersioning"): _on_bucket("s3:GetBucketVersioning"),
    ("s3", "GetPublicAccessBlock"): _on_bucket("s3:GetBucketPublicAccessBlock"),
    ("kms", "Decrypt"): _kms("kms:Decrypt"),
    ("kms", "Encrypt"): _kms("kms:Encrypt"),
    ("kms", "GenerateDataKey"): _kms("kms:GenerateDataKey"),
    ("kms", "DescribeKey"): _kms("kms:DescribeKey"),
    ("mwaa", "GetEnvironment"): _on_environment("GetEnvironment"),
    ("mwaa", "DeleteEnvironment"): _on_environment("DeleteEnvironment"),
    ("mwaa", "CreateCliToken"): _on_environment("CreateCliToken"),
    ("mwaa", "InvokeRestApi"): _invoke_rest_api,
    ("mwaa", "CreateEnvironment"): _create,
    ("dynamodb", "GetItem"): _on_table("dynamodb:GetItem"),
    ("dynamodb", "UpdateItem"): _on_table("dynamodb:UpdateItem"),
    ("iam", "GetRole"): lambda params, around: iter([Need("iam:GetRole", around.role_arns[params["RoleName"]])]),
    ("ec2", "DescribeSubnets"): lambda *_: iter([Need("ec2:DescribeSubnets", "*")]),
    ("pricing", "GetProducts"): lambda *_: iter([Need("pricing:GetProducts", "*")]),
    ("ec2", "DescribeSecurityGroups"): lambda *_: iter([Need("ec2:DescribeSecurityGroups", "*")]),
    ("sns", "Publish"): _publish,
    ("ssm", "PutParameter"): _named("ssm:PutParameter", "Name", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter"),
    ("stepfunctions", "StartExecution"): _named("states:StartExecution", "stateMachineArn"),
    ("stepfunctions", "DescribeExecution"): _named("states:DescribeExecution", "executionArn"),
    ("lambda", "Invoke"): _named("lambda:InvokeFunction", "FunctionName"),
}
