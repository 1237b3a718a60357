"""Environments, their statuses and their errors, with an Airflow behind each.

Source of the behaviour: the service model mwaa/2020-07-01 and the MWAA user guide. Assumed, as neither says it: tokens
for an environment that does not run are ResourceNotFoundException, and a create that cannot work is refused at once.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import trustme
from botocore.config import Config
from moto.backends import get_backend
from moto.core.base_backend import BackendDict, BaseBackend
from moto.core.exceptions import ServiceException

from local.airflow_protocol import Airflow, AirflowFailed, MakeAirflow
from local.clock import Clock
from local.gateway import Gateway

STATUSES = frozenset(
    [
        "CREATING",
        "CREATE_FAILED",
        "AVAILABLE",
        "UPDATING",
        "DELETING",
        "DELETED",
        "UNAVAILABLE",
        "UPDATE_FAILED",
        "ROLLING_BACK",
        "CREATING_SNAPSHOT",
        "PENDING",
        "MAINTENANCE",
    ]
)
BUSY = frozenset({"CREATING", "DELETING", "UPDATING", "ROLLING_BACK", "CREATING_SNAPSHOT", "PENDING", "MAINTENANCE"})
GONE = "gone"
"""A scripted status: GetEnvironment answers 404 from here on."""
LATEST_AIRFLOW = "2.11.2"
TOKEN_SECONDS = 60
QUOTA = 10
LOG_MODULES = {
    "DagProcessingLogs": "DAGProcessing", "SchedulerLogs": "Scheduler", "TaskLogs": "Task",
    "WebserverLogs": "WebServer", "WorkerLogs": "Worker",
}  # fmt: skip


@dataclass
class Site:
    """What the control plane needs of the local cloud."""

    clock: Clock
    make_airflow: MakeAirflow
    environ: Mapping[str, str]
    endpoint: str | None
    """None: boto3 calls are answered in this process."""
    home: Path
    authority: trustme.CA | None
    """None: gateways have no sockets."""
    real_time: bool
    """Airflow takes its own time to come up and go (in a thread); otherwise the clock says when it has."""
    creation: timedelta = timedelta(minutes=25)
    deletion: timedelta = timedelta(minutes=10)
    update: timedelta = timedelta(minutes=15)
    lingering_deleted: bool = False
    """A deleted environment answers DELETED instead of 404."""
    unsupported_versions: set[str] = field(default_factory=set)
    """Airflow versions past their end of support: CreateEnvironment refuses them."""
    used_ports: set[int] = field(default_factory=set)


_site: Site | None = None


def open_site(site: Site | None) -> None:
    """Sets (or with None, takes away) the local cloud that all backends of this process belong to."""
    global _site
    _site = site


class MwaaError(ServiceException):
    """An error by its documented name. Defined here because moto finds the service model by an exception's module."""


def invalid(message: str) -> MwaaError:
    return MwaaError("ValidationException", message)


def not_found(name: str) -> MwaaError:
    return MwaaError("ResourceNotFoundException", f"Environment {name} not found.")


class RestApiFailed(MwaaError):
    """RestApiClientException or RestApiServerException, with Airflow's own status and answer."""

    def __init__(self, status: int, answer: Any) -> None:
        kind = "RestApiServerException" if status >= 500 else "RestApiClientException"
        super().__init__(kind, f"The Airflow REST API answered {status}.")
        self.RestApiStatusCode = status
        self.RestApiResponse = answer


@dataclass
class _Script:
    statuses: list[str]
    error: str


class Environment:
    """One incarnation."""

    def __init__(self, arn: str, members: dict[str, Any], tags: dict[str, str], home: Path) -> None:
        self.arn = arn
        self.members = members
        """As GetEnvironment answers, without Status, Tags and LastUpdate."""
        self.tags = tags
        self.home = home
        self.status = "CREATING"
        self.last_update: dict[str, Any] | None = None
        self.airflow: Airflow | None = None
        self.gateway: Gateway | None = None
        self.operation = 0
        """Grows with each operation, so that a late step of an old one is ignored."""

    @property
    def name(self) -> str:
        return self.members["Name"]

    def described(self) -> dict[str, Any]:
        answer = {**self.members, "Status": self.status}
        if self.tags:
            answer["Tags"] = dict(self.tags)
        if self.last_update:
            answer["LastUpdate"] = self.last_update
        return answer


class MWAABackend(BaseBackend):
    """All environments of one account and region, and what a test may do to them: `script`, `set_status`, `fail`."""

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.environments: dict[str, Environment] = {}
        self.calls: list[tuple[str, str]] = []
        """(operation, environment) of every call, in order."""
        self._scripts: dict[tuple[str, str], deque[_Script]] = defaultdict(deque)
        self._failures: dict[str, deque[MwaaError]] = defaultdict(deque)
        self._last_created: dict[str, datetime] = {}
        self._lock = threading.RLock()
        self._incarnations = itertools.count(1)

    @property
    def site(self) -> Site:
        if _site is None:
            raise RuntimeError("No local cloud stands. Enter a LocalCloud first.")
        return _site

    # --- For tests ---

    def script(
        self,
        name: str,
        *,
        create: list[str] | None = None,
        update: list[str] | None = None,
        delete: list[str] | None = None,
        error: str = "Scripted failure.",
    ) -> None:
        """Statuses that the next such operation goes through, first to last, GONE included; one script per operation.

        `error` is LastUpdate.Error.ErrorMessage of a failed one.
        """
        for operation, statuses in (("create", create), ("update", update), ("delete", delete)):
            if statuses:
                if unknown := set(statuses) - STATUSES - {GONE}:
                    raise ValueError(f"MWAA has no status {sorted(unknown)}.")
                self._scripts[operation, name].append(_Script(statuses, error))

    def set_status(self, name: str, status: str) -> None:
        """Puts an environment into a status at once; what was under way no longer counts."""
        if status not in STATUSES:
            raise ValueError(f"MWAA has no status {status}.")
        with self._lock:
            environment = self.environments[name]
            environment.operation += 1
            environment.status = status

    def fail(self, operation: str, error: str, message: str, times: int = 1) -> None:
        """The next calls of an operation ("create_environment") end in that error ("ServiceUnavailableException")."""
        self._failures[operation].extend(MwaaError(error, message) for _ in range(times))

    # --- Operations ---

    def _called(self, operation: str, name: str) -> None:
        self.calls.append((operation, name))
        if self._failures[operation]:
            raise self._failures[operation].popleft()

    def _find(self, name: str) -> Environment:
        environment = self.environments.get(name)
        if environment is None:
            raise not_found(name)
        return environment

    def create_environment(self, request: dict[str, Any]) -> str:
        name = request["Name"]
        self._called("create_environment", name)
        with self._lock:
            old = self.environments.get(name)
            if old is not None and old.status != "DELETED":
                raise invalid(f"Environment {name} already exists.")
            if len([each for each in self.environments.values() if each.status != "DELETED"]) >= QUOTA:
                raise invalid(f"The maximum of {QUOTA} environments in this Region is reached.")
            self._check_creatable(request)
            created_at = self.site.clock.now().replace(microsecond=0)
            if name in self._last_created:
                created_at = max(created_at, self._last_created[name] + timedelta(seconds=1))
            self._last_created[name] = created_at
            arn = f"arn:{self.partition}:airflow:{self.region_name}:{self.account_id}:environment/{name}"
            home = self.site.home / "environments" / f"{name}-{next(self._incarnations)}"
            home.mkdir(parents=True, exist_ok=True)  # after a fork another process may have the same one
            environment = Environment(arn, self._filled(request, arn, created_at), request.get("Tags", {}), home)
            self.environments[name] = environment
            self._begin(environment, "create", ["CREATING", "AVAILABLE"], self.site.creation)
        return arn

    def get_environment(self, Name: str) -> dict[str, Any]:  # noqa: N803
        self._called("get_environment", Name)
        with self._lock:
            return self._find(Name).described()

    def update_environment(self, request: dict[str, Any]) -> str:
        name = request["Name"]
        self._called("update_environment", name)
        with self._lock:
            environment = self._find(name)
            self._check_idle(environment)
            changes = {key: value for key, value in request.items() if key in _environment_members() - {"Name"}}
            if network := changes.pop("NetworkConfiguration", None):
                changes["NetworkConfiguration"] = {**environment.members["NetworkConfiguration"], **network}
            environment.members.update(changes)
            environment.last_update = {
                "Status": "PENDING",
                "CreatedAt": self.site.clock.now(),
                "WorkerReplacementStrategy": request.get("WorkerReplacementStrategy", "FORCED"),
            }
            self._begin(environment, "update", ["UPDATING", "AVAILABLE"], self.site.update)
        return environment.arn

    def delete_environment(self, Name: str) -> None:  # noqa: N803
        self._called("delete_environment", Name)
        with self._lock:
            environment = self._find(Name)
            if environment.status == "DELETED":
                raise invalid("Environments with DELETED status cannot be deleted")
            self._check_idle(environment)
            last = "DELETED" if self.site.lingering_deleted else GONE
            self._begin(environment, "delete", ["DELETING", last], self.site.deletion)

    def list_environments(self, MaxResults: int = 25, NextToken: str = "") -> dict[str, Any]:  # noqa: N803
        self._called("list_environments", "")
        names = sorted(self.environments)
        rest = [name for name in names if name > NextToken]
        answer: dict[str, Any] = {"Environments": rest[:MaxResults]}
        if len(rest) > MaxResults:
            answer["NextToken"] = rest[MaxResults - 1]
        return answer

    def _by_arn(self, arn: str) -> Environment:
        return self._find(arn.rsplit("/", 1)[-1])

    def tag_resource(self, ResourceArn: str, Tags: dict[str, str]) -> None:  # noqa: N803
        self._called("tag_resource", ResourceArn)
        if any(key.startswith("aws:") for key in Tags):
            raise invalid("Tag keys that begin with aws: are reserved.")
        self._by_arn(ResourceArn).tags.update(Tags)

    def untag_resource(self, arn: str, keys: list[str]) -> None:
        self._called("untag_resource", arn)
        for key in keys:
            self._by_arn(arn).tags.pop(key, None)

    def list_tags_for_resource(self, ResourceArn: str) -> dict[str, str]:  # noqa: N803
        self._called("list_tags_for_resource", ResourceArn)
        return dict(self._by_arn(ResourceArn).tags)

    def _reachable(self, name: str) -> tuple[Airflow, Gateway]:
        environment = self._find(name)
        if environment.airflow is None or environment.gateway is None:
            raise not_found(name)
        return environment.airflow, environment.gateway

    def create_cli_token(self, Name: str) -> dict[str, str]:  # noqa: N803
        self._called("create_cli_token", Name)
        _, gateway = self._reachable(Name)
        return {"CliToken": gateway.cli_token(TOKEN_SECONDS), "WebServerHostname": gateway.hostname}

    def create_web_login_token(self, Name: str) -> dict[str, str]:  # noqa: N803
        self._called("create_web_login_token", Name)
        _, gateway = self._reachable(Name)
        return {
            "WebToken": gateway.web_token(TOKEN_SECONDS),
            "WebServerHostname": gateway.hostname,
            "IamIdentity": f"arn:{self.partition}:sts::{self.account_id}:assumed-role/Admin/local",
            "AirflowIdentity": "assumed-role/Admin",
        }

    def invoke_rest_api(self, request: dict[str, Any]) -> dict[str, Any]:
        self._called("invoke_rest_api", request["Name"])
        airflow, _ = self._reachable(request["Name"])
        status, answer = airflow.rest(
            request["Method"], request["Path"], request.get("QueryParameters") or {}, request.get("Body")
        )
        if status >= 400:
            raise RestApiFailed(status, answer)
        return {"RestApiStatusCode": status, "RestApiResponse": answer}

    # --- Checks and defaults ---

    def _check_idle(self, environment: Environment) -> None:
        if environment.status in BUSY:
            raise invalid(
                f"Environments with {environment.status} status must complete previous operation before initiating a "
                "new operation"
            )

    def _check_creatable(self, request: dict[str, Any]) -> None:
        """What is known to make MWAA refuse: version, subnets, tags, bucket, pinned objects."""
        version = request.get("AirflowVersion", LATEST_AIRFLOW)
        if version in self.site.unsupported_versions:
            raise invalid(f"Airflow version {version} is not supported.")
        network = request["NetworkConfiguration"]
        if len(network.get("SubnetIds", [])) != 2:
            raise invalid("Exactly 2 subnets are required.")
        if not 1 <= len(network.get("SecurityGroupIds", [])) <= 5:
            raise invalid("Between 1 and 5 security groups are required.")
        if any(key.startswith("aws:") for key in request.get("Tags", {})):
            raise invalid("Tag keys that begin with aws: are reserved.")
        bucket = request["SourceBucketArn"].rsplit(":", 1)[-1]
        s3 = get_backend("s3")[self.account_id]["aws"]
        if bucket not in s3.buckets:
            raise invalid(f"Unable to access bucket {bucket}")
        block = s3.buckets[bucket].public_access_block
        if block is None or not all(str(each).lower() == "true" for each in vars(block).values()):
            raise invalid(f"Bucket {bucket} must block public access.")
        for kind in ("Requirements", "Plugins", "StartupScript"):
            if path := request.get(f"{kind}S3Path"):
                version_id = request.get(f"{kind}S3ObjectVersion")
                if s3.head_object(bucket, path, version_id) is None:
                    raise invalid(f"Unable to access version {version_id} of {bucket}/{path}")

    def _filled(self, request: dict[str, Any], arn: str, created_at: datetime) -> dict[str, Any]:
        """The request with MWAA's defaults and the members that only MWAA sets."""
        name = request["Name"]
        here = f"{self.region_name}:{self.account_id}"
        members: dict[str, Any] = {
            "AirflowVersion": LATEST_AIRFLOW,
            "EnvironmentClass": "mw1.small",
            "MinWorkers": 1,
            "MaxWorkers": 10,
            "Schedulers": 2,
            "MinWebservers": 2,
            "MaxWebservers": 2,
            "WebserverAccessMode": "PRIVATE_ONLY",
            "EndpointManagement": "SERVICE",
            "WeeklyMaintenanceWindowStart": "SUN:03:30",
            "AirflowConfigurationOptions": {},
            **{key: value for key, value in request.items() if key != "Tags"},
            "Arn": arn,
            "CreatedAt": created_at,
            "ServiceRoleArn": f"arn:{self.partition}:iam::{self.account_id}:role/aws-service-role/"
            "airflow.amazonaws.com/AWSServiceRoleForAmazonMWAA",
            "CeleryExecutorQueue": f"arn:{self.partition}:sqs:{here}:airflow-celery-{secrets.token_hex(8)}",
            "DatabaseVpcEndpointService": f"com.amazonaws.vpce.{self.region_name}.vpce-svc-{secrets.token_hex(8)}",
        }
        if members["WebserverAccessMode"] != "PUBLIC_ONLY":
            members["WebserverVpcEndpointService"] = (
                f"com.amazonaws.vpce.{self.region_name}.vpce-svc-{secrets.token_hex(8)}"
            )
        logging = {}
        logs = get_backend("logs")[self.account_id][self.region_name]
        for module, label in LOG_MODULES.items():
            asked = request.get("LoggingConfiguration", {}).get(module, {})
            logging[module] = {"Enabled": asked.get("Enabled", False), "LogLevel": asked.get("LogLevel", "INFO")}
            if logging[module]["Enabled"]:
                group = f"airflow-{name}-{label}"
                logging[module]["CloudWatchLogGroupArn"] = f"arn:{self.partition}:logs:{here}:log-group:{group}"
                if group not in logs.groups:
                    logs.create_log_group(group, {})
        members["LoggingConfiguration"] = logging
        return members

    # --- Operations under way ---

    def _begin(self, environment: Environment, operation: str, statuses: list[str], duration: timedelta) -> None:
        """Enters the first status now, the others on the way, the last one when the work is done."""
        scripts = self._scripts[operation, environment.name]
        script = scripts.popleft() if scripts else _Script(statuses, "")
        environment.operation += 1
        number = environment.operation
        environment.status = script.statuses[0]
        rest = script.statuses[1:]

        def enter(status: str) -> None:
            if environment.operation == number:
                self._enter(environment, operation, status, script.error)

        if not rest:
            return
        if self.site.real_time:
            threading.Thread(
                target=lambda: [enter(status) for status in rest], name=f"{operation} {environment.name}", daemon=True
            ).start()
        else:
            for step, status in enumerate(rest, 1):
                when = self.site.clock.now() + duration * step / len(rest)
                self.site.clock.at(when, lambda status=status: enter(status))

    def _enter(self, environment: Environment, operation: str, status: str, error: str) -> None:
        """The work of a step, outside the lock: it may take minutes."""
        code = "INCORRECT_CONFIGURATION"
        if operation == "create" and status == "AVAILABLE":
            try:
                self._bring_up(environment)
            except Exception as problem:  # whatever it is, the environment shows it, as MWAA does
                self._bring_down(environment)
                status, error = "CREATE_FAILED", str(problem)
                code = "INCORRECT_CONFIGURATION" if isinstance(problem, AirflowFailed) else "INTERNAL_ERROR"
        if operation == "delete" and status in {"DELETED", GONE}:
            self._bring_down(environment)
        with self._lock:
            if status == GONE:
                if self.environments.get(environment.name) is environment:
                    del self.environments[environment.name]
                return
            environment.status = status
            if status in {"CREATE_FAILED", "UPDATE_FAILED", "UNAVAILABLE"}:
                environment.last_update = {
                    "Status": "FAILED",
                    "CreatedAt": self.site.clock.now(),
                    "Error": {"ErrorCode": code, "ErrorMessage": error},
                }
            elif status == "AVAILABLE" and operation != "delete":
                environment.last_update = {"Status": "SUCCESS", "CreatedAt": self.site.clock.now()}

    def _bring_up(self, environment: Environment) -> None:
        site = self.site
        gateway = Gateway(environment.name, site.authority, site.clock, site.used_ports)
        environment.members["WebserverUrl"] = gateway.hostname
        environment.airflow = site.make_airflow(
            name=environment.name,
            environment=environment.described(),
            environ=self._airflow_environ(environment),
            home=environment.home,
        )
        environment.airflow.start()
        gateway.serve(environment.airflow)
        environment.gateway = gateway

    def _bring_down(self, environment: Environment) -> None:
        gateway, environment.gateway = environment.gateway, None
        airflow, environment.airflow = environment.airflow, None
        if gateway is not None:
            gateway.stop()
        if airflow is not None:
            airflow.stop()

    def _airflow_environ(self, environment: Environment) -> dict[str, str]:
        site = self.site
        sts = _session.client(
            "sts", self.region_name, endpoint_url=site.endpoint, aws_access_key_id="local",
            aws_secret_access_key="local", config=Config(inject_host_prefix=False),
        )  # fmt: skip
        role = sts.assume_role(RoleArn=environment.members["ExecutionRoleArn"], RoleSessionName="AmazonMWAA-airflow")
        options = environment.members.get("AirflowConfigurationOptions", {})
        return {
            **site.environ,
            "AWS_ACCESS_KEY_ID": role["Credentials"]["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": role["Credentials"]["SecretAccessKey"],
            "AWS_SESSION_TOKEN": role["Credentials"]["SessionToken"],
            "AIRFLOW_ENV_NAME": environment.name,
            **{configuration_variable(option): value for option, value in options.items()},
        }

    def close(self) -> None:
        """Stops every Airflow; for the end of a local cloud."""
        for environment in list(self.environments.values()):
            environment.operation += 1
            self._bring_down(environment)
        self.environments.clear()


_session = boto3.session.Session()


def configuration_variable(option: str) -> str:
    """`core.dag_concurrency` to AIRFLOW__CORE__DAG_CONCURRENCY. The section ends at the first dot."""
    section, _, key = option.partition(".")
    return f"AIRFLOW__{section.upper()}__{key.upper()}"


def _environment_members() -> set[str]:
    return set(botocore.session.get_session().get_service_model("mwaa").shape_for("Environment").members)


mwaa_backends = BackendDict(MWAABackend, "mwaa")
