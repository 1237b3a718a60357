"""The moment of an export: what its snapshot holds for certain, though others go on writing.

A transaction that began before the snapshot and commits after it is not in the snapshot. Airflow stamps rows, and draws
ids of the event log, when it writes and not when it commits: both the watermark and the last id of the log must take
into account who was writing at that moment.
"""

# ruff: noqa: S608 - SQL is made of the catalogue's names, quoted; values pass through literal()

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from airflow_metadata.database import Session, quote
from airflow_metadata.errors import CallbacksWaiting, EditedMeanwhile, LogUnsettled, TransactionUnseen

PATIENCE = 60.0  # seconds; Airflow's own transactions take milliseconds
_LOOK_EVERY = 0.2

_ISO = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')"""
# pg_locks is open to every role, and each transaction holds a lock on its own virtual id. pg_stat_activity tells when a
# transaction began only to its own role, superusers and pg_read_all_stats. Prepared ones do not tell it to anybody.
_UNSEEN = """
    SELECT l.virtualtransaction, 'the role ' || a.usename
      FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
     WHERE l.locktype = 'virtualxid' AND l.granted AND a.datname = current_database() AND a.usesysid IS NOT NULL
       AND a.xact_start IS NULL AND a.pid <> pg_backend_pid()
     UNION ALL
    SELECT transaction::text, 'the prepared ' || gid FROM pg_prepared_xacts WHERE database = current_database()"""
# Taken before the id of an entry is drawn, and held until its transaction ends.
_WRITERS_OF_LOG = """
    SELECT l.virtualtransaction, 'the process ' || coalesce(l.pid::text, 'of a prepared transaction')
      FROM pg_locks l JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
     WHERE l.relation = 'log'::regclass AND l.mode = 'RowExclusiveLock'"""
# Callbacks of DAGs and tasks wait here for the DAG processor, which takes them within seconds. One of an hour ago is
# taken by nobody any more (its folder has no processor), and must not keep the environment awake for ever.
_CALLBACKS = """
    SELECT id::text, callback_type FROM callback_request
     WHERE created_at BETWEEN now() - interval '1 hour' AND now() + interval '1 hour'"""
# What people overwrite in place: no count tells of it, and the event log's entry may have come before the snapshot. The
# database alone sees the values, Fernet's ciphertext among them, which is another one after each save.
_EDITABLE = ("connection", "slot_pool", "variable")
_DIGEST = """
    SELECT encode(sha256(coalesce(string_agg(sha256(convert_to(t::text, 'UTF8')), ''::bytea ORDER BY t.id), '')), 'hex')
      FROM {} t"""
_ENTRIES = "SELECT count(*), coalesce(sum(id), 0)::text FROM log WHERE id <= {}"


@dataclass(frozen=True)
class Moment:
    """A snapshot: `id` to join it, the time `at` and the `watermark` as ISO 8601.

    Whatever is stamped before the watermark is in the snapshot.
    """

    id: str
    at: str
    watermark: str


@dataclass(frozen=True)
class EventLog:
    """The event log in a snapshot: its last id, number of entries, their ids' sum, and who was writing to it."""

    max_id: int
    entries: tuple[int, str]
    writers: dict[str, str]


def take(session: Session) -> Moment:
    """Begin the exporting transaction of a session. Raises TransactionUnseen."""
    # Read before the snapshot is taken: a transaction may stamp a row now and commit it after the snapshot, and every
    # such transaction is either open at this moment or begins after it.
    watermark = session.value(
        f"""SELECT {_ISO.format("least(now(), min(xact_start))")} FROM pg_stat_activity
             WHERE datname = current_database() AND usesysid IS NOT NULL AND pid <> pg_backend_pid()"""
    )
    unseen = dict(session.rows(_UNSEEN))
    # Where the beginning is not to be seen, the end must come before the snapshot: then what was stamped is in it.
    left = _wait(session, unseen, lambda: dict(session.rows(_UNSEEN)))
    if left:
        raise TransactionUnseen(
            f"A transaction of {', '.join(sorted(set(left.values())))} is open for more than {PATIENCE:.0f} s, and the "
            "database does not tell this role since when, so nobody can say what the next export must bring. "
            "End it, or grant pg_read_all_stats to Airflow's role; the environment stays up."
        )
    session.rollback()
    session.read_only_snapshot()
    snapshot, at = session.rows(f"SELECT pg_export_snapshot(), {_ISO.format('now()')}")[0]
    return Moment(snapshot, at, watermark)


def await_callbacks(session: Session) -> None:
    """Callbacks that the DAG processor is about to run are not carried, so they are waited for.

    To be called before the snapshot: nothing runs any more that would ask for another one. Raises CallbacksWaiting.
    """
    if session.value("SELECT to_regclass('public.callback_request')::text") is None:
        return
    left = _wait(session, dict(session.rows(_CALLBACKS)), lambda: dict(session.rows(_CALLBACKS)))
    session.rollback()
    if left:
        raise CallbacksWaiting(
            f"{len(left)} callbacks ({', '.join(sorted(set(left.values())))}) wait for the DAG processor for more than "
            f"{PATIENCE:.0f} s, and would be lost. See whether it runs, then export again; the environment stays up."
        )


def event_log(session: Session) -> EventLog:
    """The event log as a snapshot shows it; to be asked soon after the snapshot was taken."""
    writers = dict(session.rows(_WRITERS_OF_LOG))
    max_id = int(session.value("SELECT coalesce(max(id), 0)::bigint FROM log"))
    return EventLog(max_id, _entries(session, max_id), writers)


def check_event_log(session: Session, before: EventLog) -> None:
    """Every entry up to the last id of the snapshot is in the snapshot: whoever looks for later ids sees all the rest.

    An id that was drawn before the snapshot and committed after it would be seen by nobody. Raises LogUnsettled.
    """
    left = _wait(session, before.writers, lambda: dict(session.rows(_WRITERS_OF_LOG)))
    if left:
        raise LogUnsettled(
            f"A transaction of {', '.join(sorted(set(left.values())))} writes to Airflow's event log since before the "
            "snapshot. Wait until it is done, then export again; the environment stays up."
        )
    session.rollback()
    if _entries(session, before.max_id) != before.entries:
        raise LogUnsettled(
            "Airflow's event log changed while the snapshot was taken: it misses an entry, or an old one was deleted "
            "since. Export again; the environment stays up."
        )


def digests(session: Session) -> dict[str, str]:
    """One hash over all values of each table that people edit in place."""
    return {table: str(session.value(_DIGEST.format(quote(table)))) for table in _EDITABLE}


def check_digests(session: Session, before: dict[str, str]) -> None:
    """What the snapshot shows of these tables is what they hold still. Raises EditedMeanwhile.

    Airflow logs an edit before it makes it: one that was logged before the snapshot and made after it is in no later
    entry, and no row more or less.
    """
    session.rollback()
    session.read_only_snapshot()
    now = digests(session)
    if edited := [table for table in _EDITABLE if now[table] != before[table]]:
        raise EditedMeanwhile(
            f"Somebody went on editing while it was exported: {', '.join(edited)}. "
            "Wait until that is done, then export again; the environment stays up."
        )


def _entries(session: Session, max_id: int) -> tuple[int, str]:
    count, ids = session.rows(_ENTRIES.format(max_id))[0]
    return int(count), str(ids)


def _wait(session: Session, awaited: dict[str, str], still: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Wait until none of these transactions is among those of `still`; answers the ones that outlast our patience."""
    until = time.monotonic() + PATIENCE
    while awaited and time.monotonic() < until:
        time.sleep(_LOOK_EVERY)
        session.rollback()  # what a transaction has seen of pg_stat_activity, it goes on seeing
        there = still()
        awaited = {name: who for name, who in awaited.items() if name in there}
    return awaited
