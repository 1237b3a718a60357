"""Where everything lies in the data bucket: every S3 key is made here and nowhere else."""

from datetime import date

SUPERSEDED = ("transient-mwaa", "superseded")
"""The tag of what may expire: below snapshots/, the bucket's lifecycle deletes this and nothing else."""

FOLDERS = ("environments/", "export/", "ledger/", "snapshots/", "verification/")
"""All that is made here begins with one of these; queries/ and the sample's folders can be made again."""


def exports(environment: str) -> str:
    """All exports and extracts, each in a folder; ends in a slash. In the order of their names they were made."""
    return f"snapshots/environment={environment}/"


def export_prefix(environment: str, export_id: str) -> str:
    """The folder of one export; ends in a slash."""
    return f"{exports(environment)}{export_id}/"


def manifest(environment: str, export_id: str) -> str:
    """The promise of one export, written last."""
    return f"{export_prefix(environment, export_id)}manifest.json"


def secrets(environment: str, export_id: str) -> str:
    """Variables, connections, trigger arguments and password hashes, encrypted."""
    return f"{export_prefix(environment, export_id)}secrets.enc"


def snapshot_part(environment: str, export_id: str, table: str, part: int) -> str:
    """One Parquet file of a table as the database has it."""
    return f"{export_prefix(environment, export_id)}{table}/part-{part}.parquet"


def history_part(environment: str, export_id: str, table: str, part: int) -> str:
    """One Parquet file of changed rows in canonical columns."""
    return f"{export_prefix(environment, export_id)}history/{table}-{part}.parquet"


def finding(environment: str, export_id: str, index: int) -> str:
    """What `verify_file` found about the manifest's file number `index`."""
    return f"verification/environment={environment}/{export_id}/{index:05d}.json"


def verdict(environment: str, export_id: str) -> str:
    """What `judge_export` decided about the whole export."""
    return f"verification/environment={environment}/{export_id}/verdict.json"


def lake_file(table: str, day: date, environment: str, export_id: str, part: int) -> str:
    """One verified history file in the lake; `day` is the UTC date of the snapshot."""
    return f"export/{table}/dt={day.isoformat()}/{environment}-{export_id}-{part}.parquet"


def owed_dags(environment: str) -> str:
    """The DAGs that were active in the evening and are to be given back."""
    return f"environments/{environment}/owed_dags.json"


def blueprint(environment: str, sha256: str) -> str:
    """The configuration from which the environment is created again."""
    return f"environments/{environment}/blueprints/{sha256}.json"


def copied_file(environment: str, sha256: str) -> str:
    """Our copy of a requirements file, plugins archive or startup script."""
    return f"environments/{environment}/files/{sha256}"


def verified_export(environment: str) -> str:
    """A pointer to the last complete export whose verdict was good."""
    return f"environments/{environment}/verified_export.json"


def verified_history(environment: str) -> str:
    """A pointer to the last history extract whose verdict was good."""
    return f"environments/{environment}/verified_history.json"


def restore_order(environment: str) -> str:
    """What the restore DAG is allowed to put back."""
    return f"environments/{environment}/restore_order.json"


def cut_off(environment: str) -> str:
    """What the policy `force` cut off."""
    return f"environments/{environment}/cut_off.json"


def ledger(environment: str, cycle_id: str) -> str:
    """The record of one night or morning."""
    return f"ledger/environment={environment}/{cycle_id}.json"
