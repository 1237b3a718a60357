"""What is there, what is to be done, the doing, and the look whether it was done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from botocore.exceptions import ClientError

from install import requirements
from transient_mwaa.aws import passing
from transient_mwaa.aws.airflow_rest import AirflowRest
from transient_mwaa.aws.mwaa import Mwaa, incarnation
from transient_mwaa.aws.records import Records
from transient_mwaa.domain.cycle import OWN_DAGS, Phase
from transient_mwaa.domain.errors import EnvironmentNotFound, RestApiUnavailable, ServiceUnavailable
from transient_mwaa.domain.status import CONDITIONS, Condition

REQUIREMENTS = "requirements.txt"
SECONDS_BETWEEN_LOOKS = 30.0
LOOKS_AT_THE_UPDATE = 240
"""Two hours: workers that still have tasks are waited for."""
LOOKS_AT_THE_DAGS = 30
MISSING = frozenset({"NoSuchKey", "NoSuchVersion", "404"})


class InstallFailed(Exception):
    """It was begun, and is not as it should be. The message says what is wrong, a line each."""


@dataclass(frozen=True)
class File:
    """A file of the environment's bucket to write. `etag` is that of the one it takes the place of, "" for none."""

    key: str
    body: bytes
    etag: str = ""
    version_id: str = ""
    """Not "": it lies there already, under this version."""


@dataclass(frozen=True)
class Plan:
    """All that would be done. `conflicts` must be empty before any of it is."""

    environment: str
    incarnation: str
    bucket: str
    dags: tuple[File, ...] = ()
    requirements: File | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    """All Airflow configuration options as they are to be. Secrets among them: never print their values."""
    ours: Mapping[str, str] = field(default_factory=dict)
    """Those of them that are ours."""
    update: Mapping[str, Any] = field(default_factory=dict)
    """UpdateEnvironment's members but for Name and the version of the requirements; empty when none is needed."""
    steps: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        return not self.steps


class Installer:
    """One account and region. `pause` waits for so many seconds."""

    def __init__(
        self, client: Callable[[str], Any], say: Callable[[str], None], pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._cloudformation, self._s3, self._iam = (client(name) for name in ("cloudformation", "s3", "iam"))
        self._dynamodb, self._client = client("dynamodb"), client("mwaa")
        self._mwaa = Mwaa(self._client)
        self._rest = AirflowRest(self._client, pause)
        self._say = say
        self._pause = pause

    @classmethod
    def from_env(cls, say: Callable[[str], None]) -> Self:
        return cls(passing.client, say)

    # --- Planning ---

    def plan(self, name: str, stack: str, folder: Path) -> Plan:
        """Looks at everything and changes nothing. `folder` holds our DAGs and their requirements.txt."""
        outputs, conflicts = self._stack(stack, name)
        environment = self._mwaa.require(name)
        condition = CONDITIONS.get(environment["Status"], Condition.BROKEN)
        if condition is not Condition.USABLE:
            conflicts.append(f"{name} is {environment['Status']}: wait until it is AVAILABLE")
        record = Records(outputs["RecordsTableName"], self._dynamodb).read(name)
        if record.lease_owner or record.phase not in {"", Phase.AWAKE}:
            conflicts.append(f"an evening or a morning is at work on {name}: wait until it has ended")

        bucket = environment["SourceBucketArn"].rpartition(":::")[2]
        dags, told_of_dags, troubles = self._dags(bucket, environment["DagS3Path"].strip("/"), folder)
        conflicts += troubles
        file, told_of_file, covered, troubles = self._requirements(bucket, environment, folder)
        conflicts += troubles
        ours = {
            "transient_mwaa.bucket": outputs["DataBucketName"],
            "transient_mwaa.kms_key_arn": outputs["DataKeyArn"],
            "transient_mwaa.environment": name,
        }
        there = dict(environment.get("AirflowConfigurationOptions", {}))
        conflicts += [
            f"the configuration option {option} is {there[option]}, and should be {value}: remove it, or change it"
            for option, value in ours.items()
            if there.get(option, value) != value
        ]
        missing = {option: value for option, value in ours.items() if option not in there}
        update: dict[str, Any] = {"AirflowConfigurationOptions": {**there, **ours}} if missing else {}
        if file is not None:
            update["RequirementsS3Path"] = file.key
        return Plan(
            environment=name,
            incarnation=incarnation(environment),
            bucket=bucket,
            dags=dags,
            requirements=file,
            options={**there, **ours},
            ours=ours,
            update=update,
            steps=(
                *told_of_file,
                *(f"set the configuration option {option} = {value}" for option, value in missing.items()),
                *(["update the environment, and wait until it is AVAILABLE (10 to 30 minutes)"] if update else []),
                *told_of_dags,
            ),
            kept=(
                *covered,
                *(f"configuration option {option}" for option in sorted(there.keys() - ours.keys())),
            ),
            notes=tuple(self._notes(environment, outputs["EnvironmentPolicyArn"])),
            conflicts=tuple(conflicts),
        )

    def _stack(self, stack: str, name: str) -> tuple[dict[str, str], list[str]]:
        """The core stack's outputs, and what speaks against it."""
        (found,) = self._cloudformation.describe_stacks(StackName=stack)["Stacks"]
        outputs = {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", ())}
        parameters = {each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", ())}
        of = parameters.get("EnvironmentName", "")
        return outputs, [] if of == name else [f"the stack {stack} is for the environment {of}: name another STACK"]

    def _dags(self, bucket: str, prefix: str, folder: Path) -> tuple[tuple[File, ...], list[str], list[str]]:
        """Files to write, in words, and conflicts."""
        files, told, conflicts = [], [], []
        for name, body in _our_dags(folder):
            key = f"{prefix}/{name}"
            there, etag, _ = self._read(bucket, key)
            if name == ".airflowignore":
                body = _with_lines(there or b"", body)
            elif there not in (None, body) and b"airflow_metadata" not in (there or b"") and "/" not in name:
                conflicts.append(f"s3://{bucket}/{key} is a DAG of yours: it needs another name, ours is fixed")
            if there != body:
                files.append(File(key, body, etag))
                told.append(f"{'replace' if there is not None else 'add'} s3://{bucket}/{key}")
        # The folder first: a DAG file that comes before what it imports is an import error.
        order = sorted(range(len(files)), key=lambda number: files[number].key.count("/"), reverse=True)
        return tuple(files[number] for number in order), [told[number] for number in order], conflicts

    def _requirements(
        self, bucket: str, environment: Mapping[str, Any], folder: Path
    ) -> tuple[File | None, list[str], list[str], list[str]]:
        """The file to write, in words, which of the owner's lines cover ours, and conflicts."""
        key = environment.get("RequirementsS3Path") or REQUIREMENTS
        newest, etag, newest_version = self._read(bucket, key)
        in_force: bytes | None = None
        if environment.get("RequirementsS3Path"):
            used = environment.get("RequirementsS3ObjectVersion", "")
            in_force, _, _ = self._read(bucket, key, used)
            if in_force is None:
                return None, [], [], [f"the version {used} of s3://{bucket}/{key}, which is in use, is gone"]
        text = (in_force or b"").decode(errors="surrogateescape")
        merged = requirements.merge(text, (folder / REQUIREMENTS).read_text())
        body = merged.text.encode(errors="surrogateescape")
        conflicts = [f"s3://{bucket}/{key}: {each}" for each in merged.conflicts]
        covered = [f"{each}, by your own line in {key}" for each in merged.covered]
        if newest not in (None, in_force, body):
            conflicts.append(f"s3://{bucket}/{key} has a version that is not in use: put it to use, or delete it")
        if merged.text == text:
            return None, [], covered, conflicts
        told = [f"add to s3://{bucket}/{key}: {line}" for line in merged.added if line not in text]
        told = told or [f"write our part of s3://{bucket}/{key} anew"]
        # After an update that failed it lies there already.
        there = newest_version if newest == body else ""
        return File(key, body, etag, there), told, covered, conflicts

    def _notes(self, environment: Mapping[str, Any], policy: str) -> Iterator[str]:
        """What is nobody's fault and not ours to do."""
        role = environment["ExecutionRoleArn"].rpartition("/")[2]
        try:
            pages = self._iam.get_paginator("list_attached_role_policies").paginate(RoleName=role)
            attached = {each["PolicyArn"] for page in pages for each in page["AttachedPolicies"]}
        except ClientError as error:
            yield f"whether the role {role} has the policy {policy} could not be seen ({passing.code_of(error)})"
        else:
            if policy not in attached:
                yield f"attach the policy {policy} to the role {role}: without it the export cannot be written"
        if environment.get("Tags", {}).get("transient-mwaa") != "managed":
            yield f"tag {environment['Arn']} with transient-mwaa=managed: without it this stack may not delete it"
        if environment.get("AirflowVersion", "2").startswith("3"):
            yield "on Airflow 3 tasks may not read the metadata database: every evening will end in DatabaseUnsupported"

    def _read(self, bucket: str, key: str, version_id: str = "") -> tuple[bytes | None, str, str]:
        """Content (None: not there), ETag and version id."""
        version = {"VersionId": version_id} if version_id else {}
        try:
            answer = self._s3.get_object(Bucket=bucket, Key=key, **version)
        except ClientError as error:
            if passing.code_of(error) in MISSING:
                return None, "", ""
            raise
        return answer["Body"].read(), answer["ETag"], answer.get("VersionId", "")

    # --- Doing ---

    def apply(self, plan: Plan) -> None:
        """Does all of it, and looks whether it is done. Raises InstallFailed.

        The DAGs come last: until MWAA has installed what they import they would be import errors, and when it cannot,
        nothing of ours is left in the environment.
        """
        if plan.conflicts:
            raise InstallFailed("\n".join(plan.conflicts))
        if plan.update:
            update = dict(plan.update)
            if plan.requirements is not None:
                update["RequirementsS3ObjectVersion"] = self._put(plan.bucket, plan.requirements)
            now = self._mwaa.require(plan.environment)
            options = {**now.get("AirflowConfigurationOptions", {}), **plan.ours}
            if incarnation(now) != plan.incarnation or options != plan.options:
                raise InstallFailed(f"{plan.environment} was changed in the meantime. Start again.")
            self._say(f"updating {plan.environment}; running tasks may end")
            # The default would cut running tasks off.
            self._client.update_environment(Name=plan.environment, WorkerReplacementStrategy="GRACEFUL", **update)
            self._wait(plan.environment)
        for file in plan.dags:
            self._put(plan.bucket, file)
            self._say(f"put s3://{plan.bucket}/{file.key}")
        if troubles := [*self._not_as_planned(plan), *self._not_parsed(plan)]:
            raise InstallFailed("\n".join(troubles))

    def _put(self, bucket: str, file: File) -> str:
        """Only in place of what was read. Returns the version id."""
        if file.version_id:
            return file.version_id
        guard = {"IfMatch": file.etag} if file.etag else {"IfNoneMatch": "*"}
        try:
            answer = self._s3.put_object(Bucket=bucket, Key=file.key, Body=file.body, **guard)
        except ClientError as error:
            if passing.code_of(error) not in {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"}:
                raise
            message = f"s3://{bucket}/{file.key} was changed in the meantime. It is as somebody left it; start again."
            raise InstallFailed(message) from error
        return str(answer.get("VersionId", ""))

    def _wait(self, name: str) -> None:
        for _ in range(LOOKS_AT_THE_UPDATE):
            self._pause(SECONDS_BETWEEN_LOOKS)
            environment = self._mwaa.require(name)
            condition = CONDITIONS.get(environment["Status"], Condition.BROKEN)
            if condition is not Condition.CHANGING:
                break
        if environment["Status"] != "AVAILABLE":
            reason = environment.get("LastUpdate", {}).get("Error", {}).get("ErrorMessage", "no reason was given")
            raise InstallFailed(
                f"{name} is {environment['Status']} after the update: {reason}. No DAG of ours was put in place."
            )

    # --- Looking ---

    def _not_as_planned(self, plan: Plan) -> Iterator[str]:
        environment = self._mwaa.require(plan.environment)
        options = environment.get("AirflowConfigurationOptions", {})
        for option in sorted(plan.options.keys() | options.keys()):
            if options.get(option) != plan.options.get(option):
                yield f"the configuration option {option} is not as planned"
        files = [*plan.dags, *([plan.requirements] if plan.requirements else [])]
        for file in files:
            version = environment.get("RequirementsS3ObjectVersion", "") if file is plan.requirements else ""
            if self._read(plan.bucket, file.key, version)[0] != file.body:
                yield f"s3://{plan.bucket}/{file.key} is not what was written"

    def _not_parsed(self, plan: Plan) -> list[str]:
        """Airflow reads the folder every few minutes."""
        missing, errors = sorted(OWN_DAGS), []
        for look in range(LOOKS_AT_THE_DAGS):
            self._pause(SECONDS_BETWEEN_LOOKS if look else 0.0)
            try:
                missing = [dag for dag in sorted(OWN_DAGS) if self._rest.dag(plan.environment, dag) is None]
                errors = [
                    f"{each['filename']} does not import: {each['stack_trace'].strip().splitlines()[-1]}"
                    for each in self._rest.import_errors(plan.environment)
                    if any(f"{dag}.py" in each["filename"] for dag in OWN_DAGS)
                ]
            except (RestApiUnavailable, ServiceUnavailable, EnvironmentNotFound) as error:
                return [f"Airflow could not be asked for the DAGs ({error}); look at its web page"]
            if not missing and not errors:
                return []
        return errors or [f"Airflow has not parsed {dag}" for dag in missing]


def _our_dags(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name below the DAG folder, and content. Our sample DAGs stay here: nobody asked for them."""
    for dag in sorted(OWN_DAGS):
        yield f"{dag}.py", (folder / f"{dag}.py").read_bytes()
    for path in sorted((folder / "airflow_metadata").rglob("*.py")):
        yield path.relative_to(folder).as_posix(), path.read_bytes()
    yield ".airflowignore", (folder / ".airflowignore").read_bytes()


def _with_lines(theirs: bytes, ours: bytes) -> bytes:
    """Theirs as it is, and those lines of ours that it has not."""
    has = {line.strip() for line in theirs.splitlines()}
    missing = [line for line in ours.splitlines() if line.strip() and line.strip() not in has]
    gap = b"" if not theirs or theirs.endswith(b"\n") or not missing else b"\n"
    return theirs + gap + b"".join(line + b"\n" for line in missing)
