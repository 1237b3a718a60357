"""Every error that has a name, in alphabetical order.

A class name here crosses into Step Functions as the error's name, so `ErrorEquals` in `statemachine/` and this file
must agree. A message is two sentences: what happened, and what to do.
"""


class TransientMwaaError(Exception):
    """The parent of all our errors; never raised itself."""


class BlueprintChanged(TransientMwaaError):
    """The stored blueprint is not the one that was recorded (missing, or its SHA-256 differs)."""


class CalendarUnreadable(TransientMwaaError):
    """The stack's parameters name no calendar: a country, a date, a time or a time zone that nobody knows."""


class ChangedSinceExport(TransientMwaaError):
    """Airflow has learned something after the snapshot; deleting now would lose it."""


class CliTokenExpired(TransientMwaaError):
    """The web server refused the CLI token (it lives 60 seconds); a new one is taken with each command."""


class CommandFailed(TransientMwaaError):
    """An Airflow command failed in a way that has no name of its own."""


class CommandNotAllowed(TransientMwaaError):
    """MWAA's CLI endpoint does not offer this Airflow command."""


class DagNotFound(TransientMwaaError):
    """Airflow does not know the DAG (not uploaded, not parsed yet, or it does not import)."""


class DagRunAlreadyExists(TransientMwaaError):
    """A run of this DAG with this run id exists already."""


class DagRunFailed(TransientMwaaError):
    """The DAG run ended in the state failed."""


class DagRunNotFound(TransientMwaaError):
    """Airflow does not know this run."""


class DagRunOverdue(TransientMwaaError):
    """The DAG run did not end in time."""


class DagsStillMissing(TransientMwaaError):
    """Some of the DAGs that are owed their activity were not parsed in time."""


class DeleteRefused(TransientMwaaError):
    """MWAA did not accept the deletion; the environment stays."""


class EagerDags(TransientMwaaError):
    """DAGs would start by themselves in the morning before their history is back, and nobody has accepted that."""


class EnvironmentCreateFailed(TransientMwaaError):
    """MWAA could not create the environment, and trying again has been used up."""


class EnvironmentNotFound(TransientMwaaError):
    """No environment has this name, and none was put to sleep under it."""


class EnvironmentReplaced(TransientMwaaError):
    """The environment of this name is not the one this run began with (another incarnation)."""


class EnvironmentStillChanging(TransientMwaaError):
    """The environment did not reach a settled status in time."""


class ExportNotVerified(TransientMwaaError):
    """No good verdict exists for this very export."""


class ExtractGivesWay(TransientMwaaError):
    """An evening, a morning or another export is at work, so nothing is extracted now."""


class HistoryNotBack(TransientMwaaError):
    """DAGs that are owed their activity would run past intervals again, since their history is not back."""


class InvalidInput(TransientMwaaError):
    """The execution input cannot be used."""


class LeaseHeldTooLong(TransientMwaaError):
    """The execution that holds the environment's lease did not end in time."""


class LeaseLost(TransientMwaaError):
    """The environment's lease belongs to another execution."""


class ManifestInvalid(TransientMwaaError):
    """The export's manifest is not one that can be trusted."""


class ManifestMissing(TransientMwaaError):
    """The export says it succeeded but left no manifest."""


class NotCreatableAgain(TransientMwaaError):
    """The environment could not be created again from its recorded configuration."""


class RestApiUnavailable(TransientMwaaError):
    """Airflow's REST API did not answer, or not with success."""


class RestoreNotProven(TransientMwaaError):
    """The restore says it succeeded, but the mark that it leaves with its rows is not there."""


class RestoreRefused(TransientMwaaError):
    """The record does not allow a restore into this environment."""


class ServiceUnavailable(TransientMwaaError):
    """An AWS service is throttling or failing for the moment."""


class StillBusy(TransientMwaaError):
    """Work, or the evening itself, went on until it was no longer worth going to sleep."""


class WebServerUnavailable(TransientMwaaError):
    """Airflow's web server did not answer, or with an error of its own."""
