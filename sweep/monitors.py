"""What must hold, whatever has happened. Each finding begins with the name of the law that was broken."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pyarrow.parquet as pq

from sweep.world import ENVIRONMENT, SECRETS, World
from transient_mwaa.domain import layout

LAWS = {
    "S1": "no delete of a living environment without a verified export of this very run and a blueprint",
    "S2": "only who holds the lease changes an environment or its record, and nobody takes it from the living",
    "S3": "the DAGs that were active are active, or the environment is asleep",
    "S4": "no secret in any log, history, object, record or notification",
    "S5": "no history holds States.Runtime or States.DataLimitExceeded",
    "S6": "no restore into an incarnation that has its memory or is older than the delete",
    "S7": "what Airflow knew when it was deleted, it knows again",
    "S8": "the last state of an execution tells the truth",
    "S9": "an execution that nobody stopped ends in a state that says how",
    "S10": "who has begun closes the books, however it ends, and tries to tell",
    "S11": "a human is told of one trouble once, and mornings that are begun again are counted",
    "S12": "nothing is deleted when the sleep would be too short to be worth it",
    "S13": "nothing enters the lake, and nothing is deleted, but what was read back as it was promised",
    "S14": "no function breaks down with an error that nobody has named",
    "L1": "in the end awake, asleep, or a human was told",
    "L2": "the lease is free, or held by an execution that runs",
    "L3": "recover or the next schedule brings it to where it should be",
    "L4": "a track in which nothing else goes wrong ends as it should",
}
MUTATING = ("dags pause", "dags unpause", "dags trigger", "dags delete", "variables set", "connections add")
RESTORE_EVENT = "transient_mwaa_restore"
UNRECOVERABLE = ("States.Runtime", "States.DataLimitExceeded")

BREAKDOWNS = ("AttributeError", "IndexError", "KeyError", "NameError", "TypeError", "UnboundLocalError", "ValueError")
"""What only a mistake in the code raises."""

OVERTAKEN = "Still awake: another run has taken over"
"""Says nothing of what the other run does."""
WITHOUT_LEASE = {"told", "wakes", "wakes_of", "woken_at"}
"""Members of the record that may be written by whoever looks after it."""


class Monitors:
    """Looks over the shoulder of one world; `broken` lists what it has seen."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.broken: list[str] = []
        self.deletes = 0
        self.known: Any = None
        """What Airflow knew when its environment was last deleted."""
        self._deleted_at: datetime | None = None
        self._phase_by = ""
        """The execution that has written the phase last."""
        self.told_of: list[str] = []
        """Troubles of which `recover` has told."""
        self.stale_mornings: list[str] = []
        """Mornings that had ended before `recover` said that they begin again: then nobody has counted them."""
        self._began = world.now
        self._known = frozenset(world.objects())
        self._messages_before = len(world.messages)
        self._watch_mwaa()
        self._watch_record()
        self._watch_airflow(world.airflow) if world.airflow else None
        world.folder.when_created(self._watch_airflow)

    def break_(self, law: str, what: str) -> None:
        """Notes that a law was broken, once per wording."""
        finding = f"{law} {what}"
        if finding not in self.broken:
            self.broken.append(finding)

    # --- While it happens ---

    def _watch_mwaa(self) -> None:
        backend = self.world.cloud.mwaa
        delete, create = backend.delete_environment, backend.create_environment

        def delete_environment(Name: str) -> None:  # noqa: N803
            environment = backend.environments.get(Name)
            living = environment is not None and environment.status in ("AVAILABLE", "UPDATE_FAILED")
            knows = environment.airflow.what_airflow_knows() if living else None  # type: ignore[union-attr]
            if environment is not None and not living and self._machine() == "spin-down":
                self.break_("S1", f"deleted while it was {environment.status}")
            delete(Name=Name)
            if living and environment is not None:
                self._check_delete(environment)
                self.known, self._deleted_at = knows, self.world.now
                self.deletes += 1
            self._check_holder(f"delete_environment({Name})")

        def create_environment(request: dict[str, Any]) -> str:
            arn = create(request)
            self._check_holder(f"create_environment({request['Name']})")
            return arn

        backend.delete_environment = delete_environment
        backend.create_environment = create_environment

    def _watch_record(self) -> None:
        def is_write(service: str, operation: str) -> bool:
            return service == "dynamodb" and operation in ("UpdateItem", "PutItem", "DeleteItem")

        def before(service: str, operation: str, params: Any) -> None:
            if (service, operation) == ("mwaa", "InvokeRestApi"):
                self._check_look()
            if (service, operation) == ("s3", "CopyObject") and params["Key"].startswith("export/"):
                self._check_proved(params["Key"].partition(f"{ENVIRONMENT}-")[2].rpartition("-")[0])
            if is_write(service, operation):
                self._record_before = self.world.record

        def after(service: str, operation: str, _: Any) -> None:
            if is_write(service, operation) and self.world.engine.current:
                self._check_write(self._record_before, self.world.record)

        self.world.intercept(hook=before, after=after)

    def _check_proved(self, export_id: str) -> None:
        """Every file of an export was found to be as its manifest says."""
        key = layout.manifest(ENVIRONMENT, export_id)
        versions = {version for other, version in self.world.objects() if other == key}
        manifest = self.world.read(key) or {}
        pools = len(self.world.airflow.rows("slot_pool"))  # of which nobody makes a new one
        if self._machine() == "spin-down" and manifest["tables"]["slot_pool"]["rows"] != pools:
            self.break_("S13", f"not every one of the {pools} pools was exported")
        self._check_times(manifest)
        sealed = self.world.body(layout.secrets(ENVIRONMENT, export_id)) or b""
        promise = manifest["secrets"] or {"bytes": len(sealed), "sha256": hashlib.sha256(sealed).hexdigest()}
        if (promise["bytes"], promise["sha256"]) != (len(sealed), hashlib.sha256(sealed).hexdigest()):
            self.break_("S13", "the secrets are not as promised")
        for index, promised in enumerate(manifest["files"]):
            finding = self.world.read(layout.finding(ENVIRONMENT, export_id, index)) or {}
            found = finding.get("evidence", {})
            if finding.get("manifest_version_id") not in versions or finding.get("key") != promised["key"]:
                self.break_("S13", f"{promised['key']} was found by another manifest, or is another")
            if any(found.get(member) != promised[member] for member in ("bytes", "sha256", "rows")):
                self.break_("S13", f"{promised['key']} is not as promised")
            columns, there = promised["schema"], found.get("schema", [])
            nulls = found.get("key_nulls") or {}
            if _names(columns) != _names(there):
                self.break_("S13", f"{promised['key']} has other columns")
            if any(nulls.get(name) != 0 for name in promised["key_columns"]):
                self.break_("S13", f"{promised['key']} has empty keys")
            if found.get("problem", "nobody looked") is not None or found["sums"].keys() != promised["sums"].keys():
                self.break_("S13", f"{promised['key']} was not checked")

    def _check_times(self, manifest: dict[str, Any]) -> None:
        """An export is of the night that made it, and leaves no gap between itself and what the lake has."""
        began = self.world.engine.runs[self.world.engine.current[-1].execution_arn].history[0].at
        if not began <= datetime.fromisoformat(manifest["snapshot_at"]) <= self.world.now:
            self.break_("S13", f"the snapshot is of {manifest['snapshot_at']}")
        pointers = (layout.verified_export(ENVIRONMENT), layout.verified_history(ENVIRONMENT))
        known = [datetime.fromisoformat(found["watermark"]) for each in pointers if (found := self.world.read(each))]
        since = manifest["history"]["since"]
        if since is not None and datetime.fromisoformat(since) > max(known, default=self.world.now):
            self.break_("S13", f"what happened before {since} is in no export")

    def _check_look(self) -> None:
        """The last look before a delete is taken by who holds the lease, at the environment of the record."""
        if not self.world.engine.current or "DeleteEnvironment" not in self.world.engine.current[-1].resource:
            return
        task, record = self.world.engine.current[-1], self.world.record
        if record.get("lease_owner") != task.execution_arn:
            self.break_("S2", f"{self._machine()} looks for the last time without the lease")
        if record.get("incarnation") != task.arguments["incarnation"]:
            self.break_("S1", f"{self._machine()} looks for the last time at another environment than the record's")

    def _check_write(self, before: dict[str, str], now: dict[str, str]) -> None:
        me, owner = self.world.engine.current[-1].execution_arn, before.get("lease_owner", "")
        changed = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)} - WITHOUT_LEASE
        if "phase" in changed:
            self._phase_by = me
        half_asleep = now.get("phase") in ("falling_asleep", "delete_accepted") and self._phase_by == me
        if owner == me and not now.get("lease_owner") and half_asleep:
            self.break_("S2", f"{self._machine()} frees the lease of an environment that it has left {now['phase']}")
        if "wakes" in now and _mornings(now) < _mornings(before):
            self.break_("S11", f"{self._machine()} counts {_mornings(now)} after {_mornings(before)}")
        if owner == me or not changed:
            return
        what = f"{self._machine()} writes {sorted(changed)}"
        if self._lives(owner):
            self.break_("S2", f"{what} while {owner} holds the lease")
        elif now.get("lease_owner", "") != me and changed - {"lease_owner", "interrupted"}:
            self.break_("S2", f"{what} without the lease")

    def _lives(self, holder: str) -> bool:
        """Whether somebody holds the lease who has not ended: an execution that runs, or a human."""
        run = self.world.engine.runs.get(holder)
        return bool(holder) and (run is None or run.outcome is None)

    def _watch_airflow(self, airflow: Any) -> None:
        run_command = airflow.cli

        def cli(command: str) -> Any:
            answer = run_command(command)
            if command.startswith(MUTATING) and self._machine() != "extract-history":
                self._check_holder(command)
            return answer

        airflow.cli = cli

    def _machine(self) -> str:
        current = self.world.engine.current
        return self.world.engine.machine_of(current[-1].execution_arn) if current else ""

    def _check_holder(self, what: str) -> None:
        current = self.world.engine.current
        owner = self.world.record.get("lease_owner")
        if not current:
            return
        task = current[-1]
        if owner != task.execution_arn:
            self.break_("S2", f"{what.split(' --')[0]} by {self._machine()}, {task.state!r}, which holds no lease")

    def _check_delete(self, environment: Any) -> None:
        """The environment is being deleted now: was it allowed?"""
        current = self.world.engine.current
        born = environment.members["CreatedAt"].isoformat(timespec="seconds")
        record = self.world.record
        if not current:
            self.break_("S1", "deleted by nobody we know")
            return
        digest = hashlib.sha256(current[-1].execution_arn.encode()).hexdigest()[:8]
        verified = self.world.read(f"environments/{ENVIRONMENT}/verified_export.json") or {}
        if not str(verified.get("export_id", "")).endswith(digest):
            self.break_("S1", f"the last verified export {verified.get('export_id')} is not of this run")
        if datetime.fromisoformat(verified.get("incarnation") or "1970-01-01T00:00:00+00:00") != datetime.fromisoformat(
            born
        ):
            self.break_("S1", "the last verified export is of another incarnation")
        if record.get("export_id") != verified.get("export_id"):
            self.break_("S1", "the record names another export than the verified one")
        verdict = self.world.read(layout.verdict(ENVIRONMENT, record.get("export_id", ""))) or {}
        about = [verdict.get(name) for name in ("good", "mode", "export_id", "manifest_version_id")]
        if about != [True, "complete", record.get("export_id"), record.get("manifest_version_id")]:
            self.break_("S1", "there is no good verdict on the manifest that the record names")
        if (record.get("incarnation"), record.get("phase")) != (born, "falling_asleep"):
            self.break_("S1", f"the record is about {record.get('incarnation')}, {record.get('phase')}")
        blueprint = self.world.body(record.get("blueprint_key", "none"))
        if blueprint is None or hashlib.sha256(blueprint).hexdigest() != record.get("blueprint_sha256"):
            self.break_("S1", "the recorded blueprint is not there as recorded")
        elif json.loads(blueprint)["request"]["MaxWorkers"] != environment.members["MaxWorkers"]:
            self.break_("S1", "the blueprint is not of the environment as it was")
        self._check_proved(record.get("export_id", ""))
        if datetime.fromisoformat(current[-1].arguments["give_up_at"]) <= self.world.now:
            self.break_("S12", f"deleted at {self.world.now:%H:%M}")

    # --- At rest ---

    @property
    def told(self) -> bool:
        """Whether a human was told since these monitors look."""
        return len(self.world.messages) > self._messages_before

    @property
    def asleep(self) -> bool:
        return self.world.environment is None

    @property
    def dying(self) -> bool:
        """Whether its delete was accepted."""
        environment = self.world.environment
        return bool(environment and self._deleted_at and environment.members["CreatedAt"] <= self._deleted_at)

    def unwell(self) -> list[str]:
        """Why the environment is not awake and whole; empty when it is."""
        environment = self.world.environment
        if environment is None:
            return ["it is gone"]
        if environment.status not in ("AVAILABLE", "UPDATE_FAILED"):
            return [f"it is {environment.status}"]
        found = []
        active = set(self.world.airflow.active_dags)
        if missing := self.world.expected_active - active:
            found.append(f"paused: {sorted(missing)}")
        if extra := active - self.world.expected_active - self.world.undecided:
            found.append(f"active, but nobody wanted it: {sorted(extra)}")
        if self._deleted_at and environment.members["CreatedAt"] > self._deleted_at:
            incarnation = environment.members["CreatedAt"].isoformat(timespec="seconds")
            if self.world.record.get("restored_incarnation") != incarnation:
                found.append("it has no memory")
        return found

    def rest(self, when: str) -> None:
        """Nothing is going on for the moment, or nothing should be."""
        unwell = self.unwell()
        if self.asleep and not self.deletes:
            self.break_("S1", f"{when}: the environment is gone, and nobody has seen it go")
        if not self.asleep and unwell and not self.told and not self._somebody_at_work():
            self.break_("L1", f"{when}: {unwell}, and nobody was told")
        owner = self.world.record.get("lease_owner")
        if owner and self.world.engine.runs[owner].outcome is not None:
            self.break_("L2", f"{when}: the lease belongs to {self.world.engine.machine_of(owner)}, which has ended")

    def _somebody_at_work(self) -> bool:
        return any(run.outcome is None for run in self.world.engine.runs.values())

    def ended(self, arn: str) -> None:
        """An execution is over: does its last state tell the truth?"""
        path = self.world.path(arn)
        outcome = self.world.engine.runs[arn].outcome
        if not path or outcome is None or outcome.status in ("ABORTED", "TIMED_OUT"):
            return
        if any(event.type == "ExecutionRedriven" for event in self.world.engine.runs[arn].history):
            return  # it speaks of its own night
        last, machine = path[-1], self.world.engine.machine_of(arn)
        if last not in self.world.engine.ends_of(machine):
            self.break_("S9", f"{machine} just ends at {last!r}")
        failed = outcome.status == "FAILED" and last in self.world.engine.ends_of(machine)
        if failed and machine in ("spin-down", "spin-up") and "Tell a human" not in path:
            self.break_("S10", f"{machine} ends at {last!r} and has told nobody")
        if last in ("Asleep", "Awake") and not {"Close the books", "Tell everyone"} <= set(path):
            self.break_("S10", f"{machine} says {last!r} without a word or a record")
        if failed and machine in ("spin-down", "spin-up") and not _closed_as_begun(path):
            self.break_("S10", f"{machine} ends at {last!r} and leaves its books open, or never opened them")
        if last in ("Asleep after all", "Awake again"):
            books = self.world.engine.runs[arn].variables["diagnosis"]["books"]
            if bool(books) != ("Close the books" in path):
                self.break_("S10", f"{machine} says {last!r}, and its books are {books or 'not to be closed'}")
        variables = self.world.engine.runs[arn].variables
        if machine == "recover" and "Tell what was done" in path and not failed:
            self.told_of.append(variables["trouble"])
        if machine == "recover" and "Tell a human" in path and failed:
            self.told_of.append(f"{variables['problem']['Error']} on {self.world.now:%A}")
        if last == "The morning begins again" and (name := self._ended_before(arn)):
            self.stale_mornings.append(name)
        if last == "Awake" and "Record the new incarnation" in path and "Publish its address" not in path:
            self.break_("S10", f"{machine} says {last!r} and nobody knows where")
        holder = self.world.record.get("lease_owner", "")
        if holder == arn and last.startswith(("Asleep", "Awake", "Already")) and not self._let_go(path, machine):
            self.break_("S2", f"{machine} ends at {last!r} and keeps the lease")
        if holder != arn and self._lives(holder):
            return  # the next one is already at work
        if last in ("Asleep", "Already asleep") and not self.asleep:
            self.break_("S8", f"{machine} says {last!r}, but it is there")
        deleted_at = datetime.fromisoformat(self.world.record.get("deleted_at") or "1970-01-01T00:00:00+00:00")
        if last == "Asleep" and self._deleted_at and abs(deleted_at - self._deleted_at) > timedelta(minutes=10):
            self.break_("S8", f"{machine} says {last!r}, but its record that it was deleted at {deleted_at}")
        if last in ("Awake", "Already awake") and self.unwell():
            self.break_("S8", f"{machine} says {last!r}, but {self.unwell()}")
        if last.startswith("Still awake") and last != OVERTAKEN and self.dying:
            self.break_("S8", f"{machine} says {last!r}, but it is being deleted")
        if last.startswith("Still awake") and self.asleep:
            self.break_("S8", f"{machine} says {last!r}, but it is gone")
        if last.startswith("Not awake") and not self.unwell():
            self.break_("S8", f"{machine} says {last!r}, but it is")

    def _ended_before(self, arn: str) -> str:
        """The name of the morning that this `recover` began, if it had ended before."""
        run = self.world.engine.runs[arn]
        name = str(run.variables["diagnosis"]["name"])
        begun = [other for other in self.world.engine.runs.values() if other.name == name]
        is_new = any(other.outcome is None or other.history[-1].at >= run.history[0].at for other in begun)
        return "" if is_new else name

    def _let_go(self, path: list[str], machine: str) -> bool:
        """Whether it has tried to free the lease."""
        return any("REMOVE lease_owner" in update for update in self.world.engine.updates_of(machine, path))

    def once(self) -> None:
        """Nothing went wrong but what the track is about: then nothing is said twice."""
        if twice := [trouble for trouble, times in Counter(self.told_of).items() if times > 1]:
            self.break_("S11", f"a human was told more than once of {twice}")
        if self.stale_mornings:
            self.break_("S11", f"begun again, it is said, but ended before: {self.stale_mornings}")

    def whole(self, when: str) -> None:
        """By now it must be awake, with everything it knew."""
        if unwell := self.unwell():
            if any(each.startswith(("paused", "active")) for each in unwell):
                self.break_("S3", f"{when}: {unwell}")
            self.break_("L3", f"{when}: {unwell}")
            return
        if self.deletes:
            knows = self.world.airflow.what_airflow_knows()
            edited = self._deleted_at is not None and self.world.last_edit > self._deleted_at
            undecided = self.world.undecided.intersection(self.world.airflow.active_dags)
            for difference in self.known.lost_until(knows, active=self.world.expected_active | undecided):
                if not (edited and difference.endswith("is another")):  # as people wanted it in the morning
                    self.break_("S7", f"{when}: {difference}")

    def afterwards(self) -> None:
        """Looks through everything that was left behind."""
        for arn, run in self.world.engine.runs.items():
            for event in run.history:
                text = json.dumps(event.details, default=str)
                if any(name in text for name in UNRECOVERABLE):
                    self.break_("S5", f"{self.world.engine.machine_of(arn)} {event.state}: {text[:200]}")
                if event.details.get("error") in BREAKDOWNS:
                    self.break_("S14", f"{self.world.engine.machine_of(arn)} {event.state}: {text[:200]}")
                if _secret(text):
                    self.break_("S4", f"in the history of {self.world.engine.machine_of(arn)} at {event.state}")
        for subject, message in self.world.messages:
            if _secret(subject + message):
                self.break_("S4", f"in the notification {subject!r}")
        if _secret(json.dumps(self.world.record)):
            self.break_("S4", "in the record")
        for (key, version_id), body in self.world.objects().items():
            if (key, version_id) not in self._known and _secret(_text(key, body)):
                self.break_("S4", f"in the object {key}")
        for log in sorted((self.world.cloud.home / "logs").glob("*.log")):
            if _secret(log.read_text()):
                self.break_("S4", f"in the log {log.name}")
        if self.world.airflow is not None:
            self._check_restores()

    def _check_restores(self) -> None:
        born = self.world.environment.members["CreatedAt"]
        new = [
            row
            for row in self.world.airflow.rows("log")
            if row["event"] == RESTORE_EVENT and row["dttm"] > max(born, self._began)
        ]
        if len(new) > 1:
            self.break_("S6", f"{len(new)} restores into one incarnation")
        if new and (self._deleted_at is None or born < self._deleted_at):
            self.break_("S6", "a restore into an incarnation older than the delete")


def _names(schema: list[Any]) -> list[str]:
    """Of columns: the manifest has pairs, a finding has objects."""
    return [each["name"] if isinstance(each, dict) else each[0] for each in schema]


def _mornings(record: dict[str, str]) -> tuple[str, int]:
    """Of which delete mornings were begun again, and how many."""
    return record.get("wakes_of", ""), int(record.get("wakes", 0))


def _begun(path: list[str]) -> bool:
    """Whether an evening or a morning has got the lease."""
    return "Look at the environment" in path


def _closed_as_begun(path: list[str]) -> bool:
    """Once, or not at all; who could not, has tried."""
    return sum(state in path for state in ("Close the books", "Write down how it failed")) == _begun(path)


def _secret(text: str) -> bool:
    return any(secret in text for secret in SECRETS)


def _text(key: str, body: bytes) -> str:
    """What can be read in an object; the columns of a Parquet file included."""
    if not key.endswith(".parquet"):
        return body.decode("latin-1")
    try:
        return str(pq.ParquetFile(io.BytesIO(body)).read(use_threads=False).to_pydict())
    except Exception:  # a corrupted file: nothing to be read in it but its bytes
        return body.decode("latin-1")
