"""Whether a data bucket that others have made is as safe as one that the stack would make itself."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from transient_mwaa.domain import layout

BLOCKS = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
_USES = ("kms:Decrypt", "kms:GenerateDataKey")
_ONLY_READS = re.compile(r"s3:(get|list)", re.IGNORECASE)
_FROZEN = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes from which nothing can be read at once."""
_PLAIN_HTTP = {"Bool": {"aws:SecureTransport": "false"}}
_NOT_ONLY_IF_NEW = {"Null": {"s3:if-none-match": "true"}}
_ANYTHING = "\0" * 64
"""Stands for what a wildcard may be, and is matched by nothing but another."""


class BucketRefused(Exception):
    """The existing bucket is less safe than ours. CloudFormation shows it; no state machine ever sees it."""


@dataclass(frozen=True)
class Asked:
    """What the stack was told, and where it is."""

    environment: str
    bucket: str
    key_arn: str
    partition: str
    region: str
    account: str


@dataclass(frozen=True)
class Found:
    """What S3 and KMS answer, in the shapes of their APIs; empty where there is nothing."""

    region: str
    versioning: str
    ownership: tuple[str, ...]
    public_access_block: Mapping[str, bool]
    encryption: tuple[Mapping[str, Any], ...]
    """ApplyServerSideEncryptionByDefault of each rule."""
    policy: Mapping[str, Any]
    lifecycle: tuple[Mapping[str, Any], ...]
    key: Mapping[str, Any]
    """KeyMetadata."""
    key_policy: Mapping[str, Any]


def require_safe(asked: Asked, found: Found) -> None:
    """Raises BucketRefused with everything that is wrong, not with the first of it alone."""
    if wrong := objections(asked, found):
        raise BucketRefused(
            f"The data bucket {asked.bucket} is refused: {'; '.join(wrong)}. Mend it, or let the stack make a new one."
        )


def objections(asked: Asked, found: Found) -> list[str]:
    """Everything in which the bucket or its key fall short, each in words; nothing when they do not."""
    return [
        *_bucket(asked, found),
        *_policy(asked, found.policy),
        *(problem for rule in found.lifecycle for problem in _lifecycle(rule)),
        *_key(asked, found),
    ]


def _bucket(asked: Asked, found: Found) -> Iterable[str]:
    if found.region != asked.region:
        yield f"it is in {found.region}, not in {asked.region}"
    if found.versioning != "Enabled":
        yield "it does not keep versions"
    if found.ownership != ("BucketOwnerEnforced",):
        yield "its object ownership is not BucketOwnerEnforced"
    if not all(found.public_access_block.get(block) for block in BLOCKS):
        yield "it does not block all public access"
    named = {asked.key_arn, asked.key_arn.rpartition("/")[2]}
    by_default = [
        each.get("SSEAlgorithm") in {"aws:kms", "aws:kms:dsse"} and each.get("KMSMasterKeyID") in named
        for each in found.encryption
    ]
    if not by_default or not all(by_default):
        yield "it does not encrypt with ExistingDataKeyArn by default"


def _policy(asked: Asked, policy: Mapping[str, Any]) -> Iterable[str]:
    """What rests on the bucket's own policy today must be in this one; and what it allows, no role can take back."""
    statements = _several(policy.get("Statement", []))
    bucket = f"arn:{asked.partition}:s3:::{asked.bucket}"
    manifests = f"{bucket}/{layout.manifest(asked.environment, '*')}"
    if not _all_denied(statements, "s3:*", (bucket, f"{bucket}/*"), _PLAIN_HTTP):
        yield "its policy does not deny plain HTTP (aws:SecureTransport)"
    if not _all_denied(statements, "s3:PutObject", (manifests,), _NOT_ONLY_IF_NEW):
        yield "its policy does not deny replacing a manifest.json (s3:if-none-match)"
    for number, statement in enumerate(statements, start=1):
        actions = _several(statement.get("Action", "s3:*"))  # NotAction is nearly everything
        if statement["Effect"] == "Allow" and not all(map(_ONLY_READS.match, actions)):
            yield f"its policy allows more than reading ({statement.get('Sid') or f'statement {number}'})"


def _lifecycle(rule: Mapping[str, Any]) -> Iterable[str]:
    """A rule that asks for a tag is none of our business: our own tag says that something may expire, and nobody gives
    another one to what is ours."""
    asks = rule.get("Filter", {})
    both = asks.get("And", asks)
    prefix = both.get("Prefix", rule.get("Prefix", ""))
    touches_ours = any(ours.startswith(prefix) or prefix.startswith(ours) for ours in layout.FOLDERS)
    if rule["Status"] != "Enabled" or both.get("Tag") or both.get("Tags") or not touches_ours:
        return
    name = rule.get("ID") or "without a name"
    if {"Days", "Date"} & set(rule.get("Expiration", {})) or rule.get("NoncurrentVersionExpiration"):
        yield f"its lifecycle rule {name} deletes what is ours"
    moves = [*rule.get("Transitions", []), *rule.get("NoncurrentVersionTransitions", [])]
    if _FROZEN & {each.get("StorageClass") for each in moves}:
        yield f"its lifecycle rule {name} freezes what is ours"


def _key(asked: Asked, found: Found) -> Iterable[str]:
    if found.key.get("Arn") != asked.key_arn:
        yield "its key is not one of this account and region"
    if found.key.get("KeyState") != "Enabled":
        yield f"its key is not enabled ({found.key.get('KeyState')})"
    if found.key.get("KeyManager") != "CUSTOMER" or found.key.get("KeySpec") != "SYMMETRIC_DEFAULT":
        yield "its key is not a symmetric one of a customer"
    statements = _several(found.key_policy.get("Statement", []))
    account = {f"arn:{asked.partition}:iam::{asked.account}:root", asked.account}
    if not all(_some_allow(statements, use, "AWS", account, conditions=False) for use in _USES):
        yield "its key's policy does not let IAM of this account decide"
    alarms = {"cloudwatch.amazonaws.com"}
    if not all(_some_allow(statements, use, "Service", alarms, conditions=True) for use in _USES):
        yield "its key's policy does not let alarms reach the topic (cloudwatch.amazonaws.com)"


def _all_denied(
    statements: Iterable[Mapping[str, Any]], action: str, resources: Iterable[str], only_if: Mapping[str, Any]
) -> bool:
    """Whether statements that say just this deny it to everybody, on every one of the resources."""
    about = [
        statement
        for statement in statements
        if statement["Effect"] == "Deny"
        and statement.get("Principal") in ("*", {"AWS": "*"}, {"AWS": ["*"]})
        and _plain(statement.get("Condition", {})) == _plain(only_if)
        and any(_covers(pattern.lower(), action.lower()) for pattern in _several(statement.get("Action", [])))
    ]
    patterns = [pattern for statement in about for pattern in _several(statement.get("Resource", []))]
    return all(any(_covers(pattern, resource) for pattern in patterns) for resource in resources)


def _some_allow(
    statements: Iterable[Mapping[str, Any]], action: str, kind: str, principals: set[str], *, conditions: bool
) -> bool:
    """Whether some statement of a key's policy allows it to one of the principals; with a condition only on request."""
    return any(
        statement["Effect"] == "Allow"
        and isinstance(statement.get("Principal"), Mapping)
        and not principals.isdisjoint(_several(statement["Principal"].get(kind, [])))
        and (conditions or not statement.get("Condition"))
        and any(_covers(pattern.lower(), action.lower()) for pattern in _several(statement.get("Action", [])))
        for statement in statements
    )


def _covers(pattern: str, wanted: str) -> bool:
    """Whether IAM's pattern matches all that a pattern of ours does; both know * and, theirs alone, ?."""
    parts = [{"*": ".*", "?": "."}.get(each, re.escape(each)) for each in pattern]
    return re.fullmatch("".join(parts), wanted.replace("*", _ANYTHING), re.DOTALL) is not None


def _plain(condition: Mapping[str, Any]) -> dict[tuple[str, str], frozenset[str]]:
    """A condition, however it is written: IAM takes "false", false and ["false"], and keys in any case."""
    return {
        (operator, key.lower()): frozenset(str(value).lower() for value in _several(values))
        for operator, keys in condition.items()
        for key, values in keys.items()
    }


def _several(value: Any) -> list[Any]:
    """IAM writes a list of one as the element itself."""
    return list(value) if isinstance(value, list | tuple) else [value]
