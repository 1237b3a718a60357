"""Named errors. Each message says what happened and what to do."""

from __future__ import annotations


class MetadataError(Exception):
    """Base of all errors that this library raises on purpose."""


class AwsRequestFailed(MetadataError):
    """S3 or KMS refused a request, or went on failing it; nothing was committed."""


class CallbacksWaiting(MetadataError):
    """Callbacks of DAGs or tasks wait for the DAG processor; they are not carried over the night."""


class CountsDiffer(MetadataError):
    """Rows were lost or won on the way; nothing was committed."""


class DagsStartByThemselves(MetadataError):
    """Airflow is configured to run new DAGs at once: in the morning, before their history is back."""


class DatabaseFailed(MetadataError):
    """The metadata database refused a statement, or the connection broke; nothing was committed."""


class DatabaseUnsupported(MetadataError):
    """The metadata database cannot be read: not PostgreSQL, not UTF-8, or closed to tasks (Airflow 3)."""


class EditedMeanwhile(MetadataError):
    """Variables, connections or pools were edited during each attempt at a snapshot of them."""


class ExportExists(MetadataError):
    """An export of this id is complete; exports are never overwritten."""


class ForeignRows(MetadataError):
    """Tables that are not Airflow's hold rows, which would be gone with the environment."""


class HistoryTableRefused(MetadataError):
    """The owner named a table for history that is not there or must not be in the lake."""


class LogUnsettled(MetadataError):
    """Airflow's event log changed while the snapshot was taken, so that the snapshot may miss what it tells."""


class ModeUnknown(MetadataError):
    """An export of this mode is not known."""


class ObjectChanged(MetadataError):
    """An object in S3 is missing, or is not what the manifest promised."""


class ReferenceMissing(MetadataError):
    """Rows refer to something that is nowhere, so that no restore could place them."""


class RestoreClash(MetadataError):
    """Rows of the export have no place in the live environment; nothing was committed."""


class RestoreRefused(MetadataError):
    """There is no order for this restore, or the export does not fit this environment."""


class RunIdUnsafe(MetadataError):
    """The run id cannot be an export id, because it is not safe in an S3 key."""


class SecretUnreadable(MetadataError):
    """A stored secret cannot be decrypted with the environment's Fernet key."""


class SettingMissing(MetadataError):
    """The owner's Airflow configuration lacks an option of [transient_mwaa]."""


class TableGone(MetadataError):
    """A table was dropped while its export began."""


class TransactionUnseen(MetadataError):
    """A transaction stays open, and the database does not tell when it began."""


class UnknownColumn(MetadataError):
    """Airflow's schema holds a column that no rule covers."""


class UnknownTable(MetadataError):
    """Airflow's schema holds a table that no rule covers."""
