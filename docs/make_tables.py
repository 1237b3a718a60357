"""Writes the tables of docs/ that come from the code; run by `make docs`, and held to the code by a test."""

import json
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "dags"))

from airflow_metadata.tables import Rule, rule_for  # noqa: E402 - dags/ stands alone and is no package of ours

# Airflow version -> its tables, as Airflow itself makes them; the engine's tests hold it to the migrated databases.
SCHEMAS: dict[str, list[str]] = json.loads((DOCS / "schemas.json").read_text())
BEGIN, END = "<!-- made by `make docs` -->\n", "<!-- end -->"


def what_happens(rule: Rule) -> str:
    """One rule in words."""
    if rule.way == "exclude":
        return f"does not come back: {rule.reason}"
    key = ", ".join(f"`{column}`" for column in rule.key)
    where = ", sealed under KMS" if rule.all_secret else ""
    sealed = f"; {', '.join(f'`{column}`' for column in rule.secret)} sealed under KMS" if rule.secret else ""
    return {
        "add": f"every row comes back{sealed}",
        "merge": f"comes back by {key}; what the new environment has already stays{sealed}",
        "overwrite": f"comes back by {key}{where}; the evening's value wins, and what it had not is removed",
        "of dag": "written by parsing; the evening's rows stand in for DAGs that are not parsed yet",
        "dag": "pause state and next run come back; the rest is written by parsing",
    }[rule.way]


def in_short(rule: Rule | None) -> str:
    """The same in a word; nothing for a table that a version has not."""
    if rule is None:
        return ""
    return {"exclude": "no", "of dag": "parsed"}.get(rule.way, "yes")


def row(name: str) -> str:
    """One table: what happens to it on each version, and in words, which may differ between versions."""
    rules = {version: rule_for(name, tables, tables) if name in tables else None for version, tables in SCHEMAS.items()}
    versions: dict[str, list[str]] = {}
    for version, rule in rules.items():
        if rule:
            versions.setdefault(what_happens(rule), []).append(version)
    words = [f"on {', '.join(of)}: {text}" if len(versions) > 1 else text for text, of in versions.items()]
    return "| " + " | ".join([f"`{name}`", *map(in_short, rules.values()), "; ".join(words)]) + " |"


def what_comes_back() -> str:
    """The table of docs/what-comes-back.md."""
    head = ["table", *SCHEMAS, "in the morning"]
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*rows, *map(row, sorted(set().union(*SCHEMAS.values())))]) + "\n"


def rewritten(text: str, table: str) -> str:
    """A document with the table between its two marks replaced."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + table + END + rest.split(END, 1)[1]


if __name__ == "__main__":
    document = DOCS / "what-comes-back.md"
    document.write_text(rewritten(document.read_text(), what_comes_back()))
