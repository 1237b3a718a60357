"""DAGs: pause state and next run come back, and on Airflow 3 the versions that old runs show.

Staged rows lie in temporary tables (see merge.py).
"""

# ruff: noqa: S608 - SQL is made of the catalogue's names, quoted; values pass through literal()

from __future__ import annotations

import logging

from airflow_metadata.database import Session, Table, literal, quote
from airflow_metadata.merge import staged
from airflow_metadata.tables import OWN_DAGS, RULES

log = logging.getLogger(__name__)

EARLY = tuple(name for name, rule in RULES.items() if rule.early)
_OWN = ", ".join(map(literal, OWN_DAGS))
# What the scheduler writes, and what tells whether the parser found another schedule; as far as the version has it.
_NEXT_RUN = (
    "next_dagrun",
    "next_dagrun_data_interval_start",
    "next_dagrun_data_interval_end",
    "next_dagrun_partition_key",
    "next_dagrun_partition_date",
    "next_dagrun_create_after",
)
_STATE = ("is_paused", "exceeds_max_non_backfill")
_SCHEDULE = ("schedule_interval", "timetable_type", "timetable_summary", "timetable_description")


def _among(names: tuple[str, ...], table: Table) -> list[str]:
    return [name for name in names if name in table.names]


def add_missing(session: Session, dag: Table) -> None:
    """DAGs that the live environment has not parsed yet, as inactive ones: parsing wakes them."""
    asleep = {"is_active": "false", "is_stale": "true", "pickle_id": "NULL"}
    # The parser may add the same DAG at this moment: then we wait for it here, and its row stays.
    session.execute(
        f"INSERT INTO dag ({', '.join(map(quote, dag.names))}) "
        f"SELECT {', '.join(asleep.get(c, f's.{quote(c)}') for c in dag.names)} FROM {staged('dag')} s "
        "WHERE NOT EXISTS (SELECT 1 FROM dag l WHERE l.dag_id = s.dag_id) ORDER BY s.dag_id ON CONFLICT DO NOTHING"
    )


def place(session: Session, dag: Table) -> int:
    """Pause state and next run of each DAG; answers how many. Makes the temporary table `unparsed`.

    The rows are locked in the order in which the parser locks them. Where the schedule changed overnight the evening's
    next run is none of the new schedule's: the next parse computes it.
    """
    session.rows("SELECT dag_id FROM dag ORDER BY dag_id FOR UPDATE")
    add_missing(session, dag)
    inactive = "l.is_active IS NOT TRUE" if "is_active" in dag.names else "l.is_stale IS TRUE"
    session.execute(
        f"CREATE TEMP TABLE unparsed ON COMMIT DROP AS SELECT dag_id::text FROM dag l WHERE {inactive} "
        f"AND EXISTS (SELECT 1 FROM {staged('dag')} s WHERE s.dag_id = l.dag_id)"
    )
    ours = f"l.dag_id = s.dag_id AND l.dag_id NOT IN ({_OWN})"
    changed = " OR ".join(f"l.{c} IS DISTINCT FROM s.{c}" for c in _among(_SCHEDULE, dag))
    for (dag_id,) in session.rows(
        f"SELECT l.dag_id FROM dag l, {staged('dag')} s WHERE {ours} AND ({changed}) ORDER BY 1"
    ):
        log.info("The schedule of DAG %s changed: its next run is computed by the next parse", dag_id)
    changes = [f"{c} = s.{c}" for c in _among(_STATE, dag)]
    for column in _among(_NEXT_RUN, dag):
        live = "NULL" if column == "next_dagrun_create_after" else f"l.{column}"
        changes.append(f"{column} = CASE WHEN {changed} THEN {live} ELSE s.{column} END")
    updated = session.execute(f"UPDATE dag l SET {', '.join(changes)} FROM {staged('dag')} s WHERE {ours}")
    own = session.value(f"SELECT count(*) FROM unparsed WHERE dag_id IN ({_OWN})")
    return updated + int(own)


def place_versions(session: Session, live: dict[str, Table]) -> None:
    """Versions of DAGs under their own uuids, and the DAGs that they belong to; doing it twice changes nothing.

    Locks what the parser locks, so it is a short transaction of its own, before history. The latest version must
    stay the live one, and numbers are given once for each DAG: live versions get numbers above the evening's.
    """
    session.execute("SET LOCAL lock_timeout = '10s'")
    for name in EARLY:
        if name == "dag_bundle":
            _add_missing(session, live[name])
            session.rows("SELECT dag_id FROM dag ORDER BY dag_id FOR UPDATE")
            add_missing(session, live["dag"])
            _raise_live_numbers(session)
        elif name in live:
            _add_missing(session, live[name])


def _add_missing(session: Session, table: Table) -> None:
    columns, key = ", ".join(map(quote, table.names)), ", ".join(map(quote, table.key))
    session.execute(
        f"INSERT INTO {quote(table.name)} ({columns}) SELECT {columns} FROM {staged(table.name)} "
        f"ON CONFLICT ({key}) DO NOTHING"
    )


def _raise_live_numbers(session: Session) -> None:
    restored = f"EXISTS (SELECT 1 FROM {staged('dag_version')} s WHERE s.id = l.id)"
    session.execute(
        f"CREATE TEMP TABLE raised ON COMMIT DROP AS SELECT l.id, l.version_number + t.top AS number "
        f"FROM dag_version l JOIN (SELECT dag_id, max(version_number) AS top FROM {staged('dag_version')} "
        f"GROUP BY dag_id) t ON t.dag_id = l.dag_id WHERE NOT {restored} AND EXISTS (SELECT 1 FROM dag_version l "
        "WHERE l.dag_id = t.dag_id AND l.version_number <= t.top AND NOT "
        f"{restored})"
    )
    # By way of negative numbers, since each number must be given once at every moment.
    for sign in ("-", ""):
        session.execute(f"UPDATE dag_version l SET version_number = {sign}r.number FROM raised r WHERE r.id = l.id")
