"""Which permissions the stories take: every AWS API call of every function, state machine and of the environment."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from botocore.client import BaseClient
from botocore.exceptions import ClientError

from sweep.scenarios import Scenario, play
from sweep.world import World
from tests.template.api_permissions import Around, needs
from tests.template.iam import Need, allows

Taken = dict[str, dict[Need, str]]
"""Caller (folder of a function, name of a state machine without the stack's, or "environment") to what it needed and
the API call that needed it."""


class Recorder:
    """Inside `listening`, takes down who calls what; what forked children have taken down comes back in a file."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.taken: Taken = {}
        self._calling = ""
        roles = world.cloud.client("iam").get_paginator("list_roles").paginate().build_full_result()["Roles"]
        self._roles = {role["RoleName"]: role["Arn"] for role in roles}

    @contextmanager
    def listening(self) -> Iterator[None]:
        def make_api_call(client: Any, operation: str, params: dict[str, Any]) -> Any:
            self._calling = self._caller(client) or ""
            if self._calling:
                self._take(self._calling, client.meta.service_model.service_name, operation, params)
            return original(client, operation, params)

        original = BaseClient._make_api_call
        with mock.patch.object(BaseClient, "_make_api_call", make_api_call):
            yield

    def play(self, story: str | Callable[[], Any]) -> list[str]:
        """Plays a track of the sweep, or anything else, in a copy of the world. Answers which laws it broke."""
        file = Path(self._world.cloud.home) / "taken.json"
        file.write_text(json.dumps([[f"{story} crashed"], []]))
        if os.fork() == 0:
            try:
                broken = self._track(story) if isinstance(story, str) else story() or []
                lines = [
                    [caller, need.action, need.resource, need.context, call]
                    for caller, taken in self.taken.items()
                    for need, call in taken.items()
                ]
                file.write_text(json.dumps([broken, lines]))
            except BaseException:  # noqa: BLE001 - a child has nobody to raise to
                file.write_text(json.dumps([traceback.format_exc().splitlines()[-6:], []]))
            finally:
                os._exit(0)
        os.wait()
        broken, lines = json.loads(file.read_text())
        for caller, action, resource, context, call in lines:
            need = Need(action, resource, tuple((key, value) for key, value in context))
            self.taken.setdefault(caller, {}).setdefault(need, call)
        return list(broken)

    def _track(self, name: str) -> list[str]:
        """Functions are called by machines without the API: taken from the states that were visited."""
        played = play(self._world, Scenario(name))
        for machine, state, resource in played.visited:
            if ":lambda:" in resource:
                self._take(machine, "lambda", "Invoke", {"FunctionName": resource}, f"in {state!r}")
        return played.broken

    def enforce(self, statements: Mapping[str, list[dict[str, Any]]]) -> None:
        """Inside `listening`: from now on everybody is refused what is not allowed, as AWS would."""

        def before(service: str, operation: str, params: dict[str, Any]) -> None:
            for need in needs(service, operation, params, self._around) if self._calling else ():
                if not allows(statements[self._calling], need):
                    error = {"Code": "AccessDeniedException", "Message": f"{self._calling} is not authorized: {need}"}
                    raise ClientError({"Error": error}, operation)

        self._world.intercept(hook=before)

    def _caller(self, client: Any) -> str | None:
        """None: the sweep itself. The Airflow stand-in alone has the credentials of an assumed role."""
        if client._request_signer._credentials.token not in (None, os.environ.get("AWS_SESSION_TOKEN")):
            return "environment"
        if function := self._world.cloud.functions.running:
            return function
        tasks = self._world.engine.current
        return self._world.engine.machine_of(tasks[-1].execution_arn) if tasks else None

    @property
    def _around(self) -> Around:
        environment = self._world.environment
        return Around(
            data_bucket=self._world.bucket,
            data_key=self._world.outputs["DataKeyArn"],
            role_arns=self._roles,
            tags=environment.tags if environment else {},
        )

    def _take(self, caller: str, service: str, operation: str, params: dict[str, Any], call: str = "") -> None:
        for need in needs(service, operation, params, self._around):
            self.taken.setdefault(caller, {}).setdefault(need, call or f"{service} {operation}")


def statements_of(world: World, role_arn: str) -> list[dict[str, Any]]:
    """All that a role of the deployed stack is allowed, as the local cloud keeps it: intrinsic functions resolved."""
    iam, name = world.cloud.client("iam"), role_arn.rpartition("/")[2]
    documents = [
        iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]
    ]
    for policy in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
        documents.append(document_of(world, policy["PolicyArn"]))
    return [statement for document in documents for statement in document["Statement"]]


def document_of(world: World, policy_arn: str) -> dict[str, Any]:
    iam = world.cloud.client("iam")
    version = iam.get_policy(PolicyArn=policy_arn)["Policy"]["DefaultVersionId"]
    found: dict[str, Any] = iam.get_policy_version(PolicyArn=policy_arn, VersionId=version)["PolicyVersion"]["Document"]
    return found


def role_arns(world: World) -> dict[str, str]:
    """Caller to its role: every function by its folder, every state machine by its name without the stack's."""
    lambdas = world.cloud.client("lambda").get_paginator("list_functions").paginate().build_full_result()["Functions"]
    functions = [world.cloud.functions.find(each["FunctionName"]) for each in lambdas]
    steps = world.cloud.client("stepfunctions")
    machines = steps.list_state_machines()["stateMachines"]
    return {function.folder.name: function.role_arn for function in functions} | {
        machine["name"].removeprefix("transient-mwaa-"): steps.describe_state_machine(
            stateMachineArn=machine["stateMachineArn"]
        )["roleArn"]
        for machine in machines
    }


def pairs(statements: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each action with each resource that some statement allows, and that statement narrowed to the two."""
    for statement in statements:
        actions, resources = statement["Action"], statement["Resource"]
        for action in actions if isinstance(actions, list) else [actions]:
            for resource in resources if isinstance(resources, list) else [resources]:
                yield action, resource, {**statement, "Action": action, "Resource": resource}
