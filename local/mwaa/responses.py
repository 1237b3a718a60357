"""Requests in, answers out: input is checked against botocore's service model, errors have their documented names."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import botocore.session
import regex
from botocore.model import Shape
from botocore.validate import ParamValidator
from moto.core.responses import ActionResult, BaseResponse

from local.mwaa.models import MWAABackend, invalid, mwaa_backends

SERVICE = botocore.session.get_session().get_service_model("mwaa")


class MWAAResponse(BaseResponse):
    """One method per operation, named as moto looks them up."""

    def __init__(self) -> None:
        super().__init__(service_name="mwaa")

    @property
    def mwaa(self) -> MWAABackend:
        return mwaa_backends[self.current_account][self.region]

    def _input(self, operation: str) -> dict[str, Any]:
        """The request's members by their model names. Raises ValidationException as MWAA does."""
        shape = SERVICE.operation_model(operation).input_shape
        members: dict[str, Any] = json.loads(self.body) if self.body else {}
        for name, member in shape.members.items():
            place = member.serialization.get("location")
            if place == "uri":
                members[name] = unquote(self.path.split("/", 2)[2].removeprefix("environments/"))
            elif place == "querystring" and (values := self.querystring.get(member.serialization["name"])):
                members[name] = values if member.type_name == "list" else values[0]
                if member.type_name == "integer":
                    members[name] = int(values[0])
        problems = [ParamValidator().validate(members, shape).generate_report(), *constraint_problems(members, shape)]
        if any(problems):
            raise invalid("; ".join(problem for problem in problems if problem))
        return members

    def create_environment(self) -> ActionResult:
        return ActionResult({"Arn": self.mwaa.create_environment(self._input("CreateEnvironment"))})

    def get_environment(self) -> ActionResult:
        return ActionResult({"Environment": self.mwaa.get_environment(**self._input("GetEnvironment"))})

    def update_environment(self) -> ActionResult:
        return ActionResult({"Arn": self.mwaa.update_environment(self._input("UpdateEnvironment"))})

    def delete_environment(self) -> ActionResult:
        self.mwaa.delete_environment(**self._input("DeleteEnvironment"))
        return ActionResult({})

    def list_environments(self) -> ActionResult:
        return ActionResult(self.mwaa.list_environments(**self._input("ListEnvironments")))

    def tag_resource(self) -> ActionResult:
        self.mwaa.tag_resource(**self._input("TagResource"))
        return ActionResult({})

    def untag_resource(self) -> ActionResult:
        members = self._input("UntagResource")
        self.mwaa.untag_resource(members["ResourceArn"], members["tagKeys"])
        return ActionResult({})

    def list_tags_for_resource(self) -> ActionResult:
        return ActionResult({"Tags": self.mwaa.list_tags_for_resource(**self._input("ListTagsForResource"))})

    def create_cli_token(self) -> ActionResult:
        return ActionResult(self.mwaa.create_cli_token(**self._input("CreateCliToken")))

    def create_web_login_token(self) -> ActionResult:
        return ActionResult(self.mwaa.create_web_login_token(**self._input("CreateWebLoginToken")))

    def invoke_rest_api(self) -> ActionResult:
        return ActionResult(self.mwaa.invoke_rest_api(self._input("InvokeRestApi")))

    def publish_metrics(self) -> ActionResult:
        self._input("PublishMetrics")
        return ActionResult({})


def constraint_problems(value: Any, shape: Shape, path: str = "") -> list[str]:
    """What botocore's validator leaves to the service: patterns, enumerations, and upper bounds."""
    if value is None:
        return []
    problems: list[str] = []
    limits = shape.metadata
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            problems += constraint_problems(value.get(name), member, f"{path}.{name}".lstrip("."))
    elif shape.type_name == "map":
        problems += _size_problems(len(value), limits, path)
        for key, each in value.items():
            problems += constraint_problems(key, shape.key, f"{path} (key)")
            problems += constraint_problems(each, shape.value, f"{path}.{key}")
    elif shape.type_name == "list":
        problems += _size_problems(len(value), limits, path)
        for each in value:
            problems += constraint_problems(each, shape.member, path)
    elif shape.type_name == "string":
        problems += _size_problems(len(value), limits, path)
        if getattr(shape, "enum", None) and value not in shape.enum:
            problems.append(
                f"Value at '{path}' failed to satisfy constraint: Member must satisfy enum value set: {shape.enum}"
            )
        if "pattern" in limits and not regex.fullmatch(limits["pattern"], value):
            problems.append(
                f"Value at '{path}' failed to satisfy constraint: Member must satisfy regular expression pattern: "
                + limits["pattern"]
            )
    elif shape.type_name in {"integer", "long"}:
        problems += _size_problems(value, limits, path)
    return problems


def _size_problems(size: float, limits: dict[str, Any], path: str) -> list[str]:
    low, high = limits.get("min"), limits.get("max")
    if (low is not None and size < low) or (high is not None and size > high):
        return [f"Value at '{path}' failed to satisfy constraint: Member must lie between {low} and {high}"]
    return []
