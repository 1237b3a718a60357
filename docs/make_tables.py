"""Writes the tables of docs/ that come from the code; run by `make docs`, and held to the code by a test."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "dags"))

from airflow_metadata.tables import RULES, Rule  # noqa: E402 - dags/ stands alone and is no package of ours

BEGIN, END = "<!-- made by `make docs` -->\n", "<!-- end -->"


def what_happens(rule: Rule) -> str:
    """One rule in words."""
    if rule.way == "exclude":
        return f"does not come back: {rule.reason}"
    key = ", ".join(f"`{column}`" for column in rule.key)
    where = ", sealed under KMS" if rule.all_secret else ""
    sealed = f"; {', '.join(f'`{column}`' for column in rule.secret)} sealed under KMS" if rule.secret else ""
    return {
        "add": f"every row comes back, with new ids{sealed}",
        "merge": f"comes back by {key}; what the new environment has already stays{sealed}",
        "overwrite": f"comes back by {key}{where}; the evening's value wins, and what it had not is removed",
        "of dag": "written by parsing; the evening's rows stand in for DAGs that are not parsed yet",
        "dag": "pause state and next run come back; the rest is written by parsing",
    }[rule.way]


def what_comes_back() -> str:
    """The table of docs/what-comes-back.md."""
    rows = [f"| `{name}` | {what_happens(rule)} |" for name, rule in sorted(RULES.items())]
    return "\n".join(["| table | in the morning |", "|---|---|", *rows]) + "\n"


def rewritten(text: str, table: str) -> str:
    """A document with the table between its two marks replaced."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + table + END + rest.split(END, 1)[1]


if __name__ == "__main__":
    document = DOCS / "what-comes-back.md"
    document.write_text(rewritten(document.read_text(), what_comes_back()))
