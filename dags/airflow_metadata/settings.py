"""The owner's settings, from Airflow's configuration: never from DAG conf, which any Airflow user may write."""

from __future__ import annotations

import os
from dataclasses import dataclass

from airflow_metadata.errors import SettingMissing

SECTION = "transient_mwaa"


@dataclass(frozen=True)
class Settings:
    """Where exports go. `kms_key_arn` is the ARN of a key, not of an alias (the encryption SDK compares it)."""

    bucket: str
    kms_key_arn: str
    environment: str
    history_tables: tuple[str, ...] = ()  # more tables for the lake, by name
    accepted_tables: tuple[str, ...] = ()  # patterns of tables, not Airflow's, whose rows may be left behind

    @classmethod
    def from_airflow(cls) -> Settings:
        """Read [transient_mwaa] bucket, kms_key_arn and environment (default: AIRFLOW_ENV_NAME, set by MWAA), and
        history_tables and accepted_tables (names with commas between; default: none).

        Raises SettingMissing.
        """
        return cls(
            bucket=_option("bucket"),
            kms_key_arn=_option("kms_key_arn"),
            environment=_option("environment", os.environ.get("AIRFLOW_ENV_NAME", "")),
            history_tables=_names("history_tables"),
            accepted_tables=_names("accepted_tables"),
        )

    @property
    def snapshots(self) -> str:
        """Prefix of this environment's exports."""
        return f"snapshots/environment={self.environment}/"

    @property
    def records(self) -> str:
        """Prefix of what the core keeps about this environment."""
        return f"environments/{self.environment}/"


def _names(name: str) -> tuple[str, ...]:
    from airflow.configuration import conf

    named = conf.get(SECTION, name, fallback="")
    return tuple(each.strip() for each in named.split(",") if each.strip())


def _option(name: str, default: str = "") -> str:
    from airflow.configuration import conf

    value: str = conf.get(SECTION, name, fallback="") or default
    if not value:
        raise SettingMissing(
            f"Airflow's configuration has no {SECTION}.{name}. "
            f"Set it as a configuration option of the environment ({SECTION}.{name})."
        )
    return value
