"""A custom resource that looks at a data bucket which others have made, before anything of the stack uses it."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from botocore.exceptions import ClientError

from transient_mwaa.aws import passing
from transient_mwaa.aws.custom_resource import once_allowed, rolls_back
from transient_mwaa.domain.existing_bucket import Asked, BucketRefused, Found, require_safe


class ExistingBucket:
    """Asks S3 and KMS, and refuses what is less safe than a new bucket would be."""

    def __init__(self, s3: Any, kms: Any, cloudformation: Any, sleep: Callable[[float], None] = time.sleep) -> None:
        self._s3 = s3
        self._kms = kms
        self._cloudformation = cloudformation
        self._sleep = sleep

    @classmethod
    def from_env(cls) -> Self:
        return cls(passing.client("s3"), passing.client("kms"), passing.client("cloudformation"))

    def admit(self, event: Mapping[str, Any]) -> dict[str, str]:
        """BucketName and KeyArn, once they are found to be safe. Raises BucketRefused. Deleting it touches nothing, and
        the bucket that a failed update goes back to is the one that was in use."""
        told = event["ResourceProperties"]
        if event["RequestType"] != "Delete" and not rolls_back(self._cloudformation, event):
            _, partition, _, region, account, _ = event["StackId"].split(":", 5)
            asked = Asked(told["EnvironmentName"], told["BucketName"], told["KeyArn"], partition, region, account)
            require_safe(asked, self._found(asked))
        return {"BucketName": told["BucketName"], "KeyArn": told["KeyArn"]}

    def _found(self, asked: Asked) -> Found:
        try:
            return once_allowed(lambda: self._look(asked), self._sleep)
        except ClientError as error:
            raise _refused(asked, error) from error

    def _look(self, asked: Asked) -> Found:
        # A bucket of the same name in another account answers AccessDenied.
        bucket = {"Bucket": asked.bucket, "ExpectedBucketOwner": asked.account}
        s3, kms = self._s3, self._kms
        location = s3.get_bucket_location(**bucket).get("LocationConstraint") or "us-east-1"
        ownership = _found(lambda: s3.get_bucket_ownership_controls(**bucket), "OwnershipControlsNotFoundError")
        block = _found(lambda: s3.get_public_access_block(**bucket), "NoSuchPublicAccessBlockConfiguration")
        encryption = _found(
            lambda: s3.get_bucket_encryption(**bucket), "ServerSideEncryptionConfigurationNotFoundError"
        )
        policy = _found(lambda: s3.get_bucket_policy(**bucket), "NoSuchBucketPolicy")
        lifecycle = _found(lambda: s3.get_bucket_lifecycle_configuration(**bucket), "NoSuchLifecycleConfiguration")
        key = _found(lambda: kms.describe_key(KeyId=asked.key_arn), "NotFoundException")
        key_policy = _found(lambda: kms.get_key_policy(KeyId=asked.key_arn, PolicyName="default"), "NotFoundException")
        rules = encryption.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
        return Found(
            region={"EU": "eu-west-1"}.get(location, location),  # as S3 once called it
            versioning=s3.get_bucket_versioning(**bucket).get("Status", ""),
            ownership=tuple(
                rule["ObjectOwnership"] for rule in ownership.get("OwnershipControls", {}).get("Rules", [])
            ),
            public_access_block=block.get("PublicAccessBlockConfiguration", {}),
            encryption=tuple(rule.get("ApplyServerSideEncryptionByDefault", {}) for rule in rules),
            policy=json.loads(policy.get("Policy", "{}")),
            lifecycle=tuple(lifecycle.get("Rules", [])),
            key=key.get("KeyMetadata", {}),
            key_policy=json.loads(key_policy.get("Policy", "{}")),
        )


def _found(ask: Callable[[], Any], *missing: str) -> dict[str, Any]:
    """The answer, or nothing when it fails with one of the codes that mean "there is none"."""
    try:
        return dict(ask())
    except ClientError as error:
        if passing.code_of(error) in missing:
            return {}
        raise


def _refused(asked: Asked, error: ClientError) -> BucketRefused:
    """What keeps it from being looked at is a no as well."""
    if passing.code_of(error) == "NoSuchBucket":
        return BucketRefused(f"There is no data bucket {asked.bucket}. Correct ExistingDataBucketName.")
    return BucketRefused(
        f"The data bucket {asked.bucket} or its key could not be looked at ({error}). They must be of this account and "
        "region, and the policies of both must let its IAM decide."
    )
