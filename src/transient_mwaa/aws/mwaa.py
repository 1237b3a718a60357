"""MWAA's control plane: look at, create and delete an environment."""

import json
from typing import Any, Self

from botocore.exceptions import ClientError, ParamValidationError
from botocore.model import Shape as ModelShape

from transient_mwaa.aws import passing
from transient_mwaa.domain.blueprint import Shape
from transient_mwaa.domain.cycle import incarnation_of
from transient_mwaa.domain.errors import EnvironmentCreateFailed, EnvironmentNotFound, EnvironmentReplaced


class Mwaa:
    """One region's environments. Passing failures of the service rise as ServiceUnavailable, others as botocore's."""

    def __init__(self, client: Any) -> None:
        self._client = client
        events = client.meta.events  # of a client that others may have, too
        events.register("before-parse.mwaa.GetEnvironment", _keep_raw, unique_id="transient-mwaa-raw")

    @classmethod
    def from_env(cls) -> Self:
        """Region, credentials and endpoint from the environment."""
        return cls(passing.client("mwaa"))

    def describe(self, name: str) -> dict[str, Any] | None:
        """GetEnvironment's Environment, or None when there is none.

        It holds secrets (AirflowConfigurationOptions): do not log it. Members that the installed botocore does not know
        are left in it as they came, so that nothing is lost unseen.
        """
        try:
            answer = self._client.get_environment(Name=name)
        except ClientError as error:
            if passing.code_of(error) == "ResourceNotFoundException":
                return None
            raise
        whole = _with_unknown(answer["Environment"], answer["RawEnvironment"], self._environment_model())
        return dict(whole)

    def require(self, name: str) -> dict[str, Any]:
        """Like `describe`; raises EnvironmentNotFound when there is none."""
        environment = self.describe(name)
        if environment is None or environment["Status"] == "DELETED":
            message = f"There is no environment {name}. Check the name, and whether it was deleted by hand."
            raise EnvironmentNotFound(message)
        return environment

    def create(self, request: dict[str, Any]) -> None:
        """CreateEnvironment; a refusal is botocore's ValidationException."""
        try:
            self._client.create_environment(**request)
        except ParamValidationError:
            # botocore quotes the values at fault, and some are secrets.
            message = (
                f"The request that would create {request.get('Name')} does not fit the installed botocore. "
                "Compare the blueprint with CreateEnvironment's members."
            )
            raise EnvironmentCreateFailed(message) from None

    def delete(self, name: str) -> None:
        """DeleteEnvironment; returning means that MWAA accepted it."""
        self._client.delete_environment(Name=name)

    def create_shape(self) -> Shape:
        """CreateEnvironment's input, as plain data for the blueprint."""
        return plain_shape(self._client.meta.service_model.operation_model("CreateEnvironment").input_shape)

    def environment_shape(self) -> Shape:
        """GetEnvironment's Environment, as plain data for the blueprint."""
        return plain_shape(self._environment_model())

    def _environment_model(self) -> Any:
        return self._client.meta.service_model.operation_model("GetEnvironment").output_shape.members["Environment"]


def status_of(environment: dict[str, Any] | None) -> str:
    """The status, or "" when there is no environment."""
    return str(environment["Status"]) if environment else ""


def incarnation(environment: dict[str, Any] | None) -> str:
    """The incarnation, or "" when there is no environment (any more)."""
    if not environment or environment["Status"] == "DELETED" or "CreatedAt" not in environment:
        return ""
    return incarnation_of(environment["CreatedAt"])


def require_incarnation(environment: dict[str, Any], expected: str) -> dict[str, Any]:
    """The environment itself; raises EnvironmentReplaced when it is another incarnation than this run began with."""
    if incarnation(environment) != expected:
        message = (
            f"The environment {environment['Name']} was created at {incarnation(environment)}, not at {expected}: "
            "somebody has replaced it. Start this again; nothing was done to it."
        )
        raise EnvironmentReplaced(message)
    return environment


def webserver_url(environment: dict[str, Any] | None) -> str:
    """The address of Airflow's web server, "" for none; GetEnvironment gives it with or without its scheme."""
    url = str((environment or {}).get("WebserverUrl", ""))
    return url if "://" in url or not url else f"https://{url}"


def plain_shape(shape: ModelShape) -> Shape:
    """A botocore shape as the plain data that domain/blueprint.py describes."""
    plain: dict[str, Any] = {
        "type": shape.type_name,
        "sensitive": bool(shape.metadata.get("sensitive")),
        "min": shape.metadata.get("min", 0),
        "max": shape.metadata.get("max"),
    }
    if shape.type_name == "structure":
        plain["required"] = list(shape.required_members)
        plain["members"] = {name: plain_shape(member) for name, member in shape.members.items()}
    elif shape.type_name == "list":
        plain["element"] = plain_shape(shape.member)
    elif shape.type_name == "map":
        plain["key"] = plain_shape(shape.key)
        plain["value"] = plain_shape(shape.value)
    return plain


def _keep_raw(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """botocore's parser drops what its model does not know; this keeps the body as MWAA sent it."""
    if response_dict["status_code"] < 300:
        customized_response_dict["RawEnvironment"] = json.loads(response_dict["body"])["Environment"]


def _with_unknown(parsed: Any, raw: Any, shape: Any) -> Any:
    if shape.type_name == "structure" and isinstance(raw, dict):
        unknown = {name: value for name, value in raw.items() if name not in shape.members}
        known = {name: _with_unknown(value, raw.get(name), shape.members[name]) for name, value in parsed.items()}
        return known | unknown
    if shape.type_name == "map" and isinstance(raw, dict):
        return {key: _with_unknown(value, raw.get(key), shape.value) for key, value in parsed.items()}
    if shape.type_name == "list" and isinstance(raw, list):
        return [_with_unknown(*pair, shape.member) for pair in zip(parsed, raw, strict=True)]
    return parsed
