"""Writes analytics/views/ and the columns in docs/analytics.md from the lake's declaration; run by `make docs`.

The lake is append-only: a row comes again whenever it has changed, and sometimes although it has not. Each view shows
the last version of each row once. The SQL is what Athena (Trino) and DuckDB both run; the table `exported_x` holds the
files under export/x/ in the data bucket.
"""

# ruff: noqa: S608 - SQL is made of the declaration's names

import sys
from dataclasses import dataclass
from pathlib import Path

ANALYTICS = Path(__file__).parent
VIEWS, QUERIES = ANALYTICS / "views", ANALYTICS / "queries"
ROOT = ANALYTICS.parent
sys.path.insert(0, str(ROOT / "dags"))

from airflow_metadata.lake import EVERY_TABLE, HISTORY, Field, History  # noqa: E402 - dags/ stands alone

BEGIN, END = "<!-- made by `make docs` -->\n", "<!-- end -->"
GLUE_TYPES = {
    "text": "string",
    "bigint": "bigint",
    "double precision": "double",
    "boolean": "boolean",
    "timestamp with time zone": "timestamp",
    "bytea": "binary",
}


@dataclass(frozen=True)
class View:
    """One view over one table of the lake: one row for each `key`, the first in the order of `newest`."""

    name: str
    meaning: str
    table: History
    key: tuple[str, ...]
    newest: tuple[str, ...]
    where: str = ""


def views() -> list[View]:
    """Every view, in the order of the declaration."""
    return [view for table in HISTORY for view in _views_of(table)]


def _views_of(table: History) -> list[View]:
    # An export carries a row once, so that its stamp need not be read; twice only a table that is fed by several.
    stamp = ("updated_at",) if "updated_at" in table.columns and len(table.sources) > 1 else ()
    newest = ("exported_at", *stamp, "export_id")
    if table.name != "task_instance":
        return [View(table.name, table.meaning, table, table.key, newest)]
    instance = tuple(column for column in table.key if column != "try_number")
    return [
        # An export carries a new try and the recorded one before it: the higher number is the newer.
        View(
            "task_instance",
            "Task instances, each by its last try, as last seen.",
            table,
            instance,
            ("exported_at", "try_number", *newest[1:]),
        ),
        # A task instance that waits for its first try has been tried 0 times.
        View("task_try", "Every try of every task instance, as last seen.", table, table.key, newest, "try_number > 0"),
    ]


def sql(view: View) -> str:
    """The statement that makes a view."""
    columns = {**EVERY_TABLE, **view.table.columns}
    names = ",\n".join(f'  "{name}"' for name in columns)
    key = ", ".join(f'"{name}"' for name in view.key)
    newest = ", ".join(f'"{name}" DESC NULLS LAST' for name in view.newest)
    where = f"\n  WHERE {view.where}" if view.where else ""
    return f"""\
-- Made from dags/airflow_metadata/lake.py by `make docs`.
-- {view.meaning}
-- One row for each {", ".join(view.key)}.
CREATE OR REPLACE VIEW "{view.name}" AS
SELECT
{names}
FROM (
  SELECT
    *,
    row_number() OVER (PARTITION BY {key} ORDER BY {newest}) AS version_number
  FROM "exported_{view.table.name}"{where}
) AS versions
WHERE version_number = 1
"""


def documentation() -> str:
    """The tables of docs/analytics.md."""
    parts = ["Every table begins with\n", *_columns(EVERY_TABLE)]
    for table in HISTORY:
        names = " and ".join(f"`{view.name}`" for view in _views_of(table))
        sources = ", ".join(dict.fromkeys(f"`{source.table}`" for source in table.sources))
        key = ", ".join(f"`{column}`" for column in table.key)
        parts += [
            f"\n### {table.name}\n",
            f"{table.meaning} From Airflow's {sources}. Key: {key}. View{'s' if ' and ' in names else ''}: {names}.\n",
            *_columns(table.columns),
        ]
    return "\n".join(parts) + "\n"


def _columns(columns: dict[str, Field]) -> list[str]:
    rows = [f"| `{name}` | {GLUE_TYPES[field.type]} | {field.meaning} |" for name, field in columns.items()]
    return ["| column | type | meaning |", "|---|---|---|", *rows]


def rewritten(text: str) -> str:
    """A document with what stands between its two marks made anew."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + documentation() + END + rest.split(END, 1)[1]


def files() -> dict[Path, str]:
    """Every file that is made, with its content."""
    made = {VIEWS / f"{view.name}.sql": sql(view) for view in views()}
    document = ROOT / "docs" / "analytics.md"
    return {**made, document: rewritten(document.read_text())}


if __name__ == "__main__":
    contents = files()
    for old in VIEWS.glob("*.sql"):
        if old not in contents:
            old.unlink()
    for path, content in contents.items():
        path.write_text(content)
