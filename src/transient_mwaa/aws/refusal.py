"""A custom resource that does nothing, but says no when the stack of a sleeping environment would go or move."""

from collections.abc import Mapping
from typing import Any, Self

from transient_mwaa.aws import passing
from transient_mwaa.aws.custom_resource import rolls_back
from transient_mwaa.aws.records import Records
from transient_mwaa.domain.uninstall import moves, require_deletable, require_detached

_LISTED = {"PolicyRoles": "RoleName", "PolicyUsers": "UserName", "PolicyGroups": "GroupName"}


class Refusal:
    """Asks the environment's record, and IAM who still has the stack's policies."""

    def __init__(self, records: Records, iam: Any, cloudformation: Any) -> None:
        self._records = records
        self._iam = iam
        self._cloudformation = cloudformation

    @classmethod
    def from_env(cls) -> Self:
        return cls(Records.from_env(), passing.client("iam"), passing.client("cloudformation"))

    def weigh(self, event: Mapping[str, Any]) -> dict[str, str]:
        """Raises DeletionRefused; what keeps the record from being read is a no as well, and rises as it is."""
        now, before = event["ResourceProperties"], event.get("OldResourceProperties", {})
        if event["RequestType"] == "Delete":
            require_deletable(self._records.read(now["EnvironmentName"]))
            own = {now.get("OwnRole", "")}
            require_detached({arn: self._attached(arn) - own for arn in now.get("PolicyArns", [])})
        elif moves(before, now) and not rolls_back(self._cloudformation, event):
            require_deletable(self._records.read(before["EnvironmentName"]))
        return {}

    def _attached(self, arn: str) -> set[str]:
        """Names of the roles, users and groups that have the policy."""
        try:
            pages = list(self._iam.get_paginator("list_entities_for_policy").paginate(PolicyArn=arn))
        except self._iam.exceptions.NoSuchEntityException:
            return set()
        return {each[name] for page in pages for kind, name in _LISTED.items() for each in page[kind]}
