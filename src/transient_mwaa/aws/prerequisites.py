"""What MWAA needs outside the environment, and whether it is still there."""

import os
from collections.abc import Callable, Mapping
from typing import Any, Self

from botocore.exceptions import ClientError

from transient_mwaa.aws import passing
from transient_mwaa.aws.source_bucket import bucket_name
from transient_mwaa.domain import execution_role

BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


class Prerequisites:
    """Role, bucket, network and key of an environment. A check that may not be made rises as botocore's error.

    `key_arn` is the environment's own KMS key as the stack was told of it, "" for none: the function that creates the
    environment has rights on no other.
    """

    def __init__(self, iam: Any, s3: Any, ec2: Any, kms: Any, key_arn: str) -> None:
        self._iam = iam
        self._s3 = s3
        self._ec2 = ec2
        self._kms = kms
        self._key_arn = key_arn

    @classmethod
    def from_env(cls) -> Self:
        iam, s3, ec2, kms = (passing.client(service) for service in ("iam", "s3", "ec2", "kms"))
        return cls(iam, s3, ec2, kms, os.environ.get("ENVIRONMENT_KEY_ARN", ""))

    def problems(self, request: Mapping[str, Any]) -> list[str]:
        """Everything that would make CreateEnvironment fail tomorrow, each in words."""
        return [
            *self._role(request["ExecutionRoleArn"]),
            *(problem for name in _buckets(request) for problem in self._bucket(name)),
            *self._network(request["NetworkConfiguration"]),
            *_endpoints(request.get("EndpointManagement", "")),
            *(self._key(request["KmsKey"]) if "KmsKey" in request else ()),
        ]

    def _role(self, arn: str) -> list[str]:
        name = arn.rpartition("/")[2]
        answer = _found(lambda: self._iam.get_role(RoleName=name), "NoSuchEntity")
        if answer is None:
            return [f"the execution role {name} does not exist"]
        objections = execution_role.objections(answer["Role"].get("AssumeRolePolicyDocument") or {})
        return [f"MWAA cannot assume the execution role {name}: {objection}" for objection in objections]

    def _bucket(self, name: str) -> list[str]:
        if _found(lambda: self._s3.head_bucket(Bucket=name), "NoSuchBucket", "NotFound", "404") is None:
            return [f"the bucket {name} does not exist"]
        problems = []
        block = _found(lambda: self._s3.get_public_access_block(Bucket=name), "NoSuchPublicAccessBlockConfiguration")
        configuration = block["PublicAccessBlockConfiguration"] if block else {}
        if not all(configuration.get(part) for part in BLOCKS):
            problems.append(f"the bucket {name} does not block public access")
        if self._s3.get_bucket_versioning(Bucket=name).get("Status") != "Enabled":
            problems.append(f"the bucket {name} does not keep versions")
        return problems

    def _network(self, network: Mapping[str, Any]) -> list[str]:
        subnets, groups = network.get("SubnetIds", []), network.get("SecurityGroupIds", [])
        # Filters, not ids: one missing id would be an error that hides the others.
        found_subnets = self._ec2.describe_subnets(Filters=[{"Name": "subnet-id", "Values": subnets}])["Subnets"]
        found_groups = self._ec2.describe_security_groups(Filters=[{"Name": "group-id", "Values": groups}])
        there = {subnet["SubnetId"] for subnet in found_subnets}
        there |= {group["GroupId"] for group in found_groups["SecurityGroups"]}
        kinds = dict.fromkeys(subnets, "subnet") | dict.fromkeys(groups, "security group")
        return [f"the {kind} {name} does not exist" for name, kind in kinds.items() if name not in there]

    def _key(self, key: str) -> list[str]:
        description = _found(lambda: self._kms.describe_key(KeyId=key), "NotFoundException")
        if description is None:
            return [f"the KMS key {key} does not exist"]
        # The environment may name its key by id or alias; the stack knows it by ARN.
        arn, state = description["KeyMetadata"]["Arn"], description["KeyMetadata"]["KeyState"]
        problems = [] if state == "Enabled" else [f"the KMS key {key} is not enabled ({state})"]
        if arn != self._key_arn:
            problems.append(
                f"this stack has no rights on the KMS key {arn} (it was told of {self._key_arn or 'none'}): "
                f"deploy it with the parameter EnvironmentKeyArn={arn}"
            )
        return problems


def _buckets(request: Mapping[str, Any]) -> list[str]:
    """The environment's bucket, and those of its teams."""
    arns = [request["SourceBucketArn"], *(team["SourceBucketArn"] for team in request.get("Teams", {}).values())]
    return list(dict.fromkeys(map(bucket_name, arns)))


def _endpoints(management: str) -> list[str]:
    if management != "CUSTOMER":
        return []
    problem = (
        "its VPC endpoints are made by its owner (EndpointManagement CUSTOMER), so that it would stay PENDING in the "
        "morning until somebody makes them"
    )
    return [problem]


def _found(ask: Callable[[], Any], *missing: str) -> Any:
    """The answer, or None when it fails with one of the codes that mean "there is none"."""
    try:
        return ask()
    except ClientError as error:
        if passing.code_of(error) in missing:
            return None
        raise
