"""Draws the figures: one HTML file that needs no network and admits none."""

import base64
import hashlib
from datetime import date, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analytics.report.figures import WEEK_DAYS, Figures, Row

FOLDER = Path(__file__).parent
ECHARTS = FOLDER / "vendor" / "echarts-6.1.0.min.js"
LATEST = 30
"""How many nights and mornings are shown before the rest is asked for."""
TASKS_IN_CHART, DAGS_IN_CHART = 15, 12
UNKNOWN, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def drawn(figures: Figures) -> str:
    """The whole file. Every text of the figures is escaped; scripts are admitted by their hash alone."""
    template = _templates().get_template("page.html")
    echarts = ECHARTS.read_text(encoding="utf-8")
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    return template.render(
        figures=figures,
        charts=_charts(figures),
        latest_month=figures.months[-1] if figures.months else None,
        latest=LATEST,
        week_days=WEEK_DAYS,
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        echarts=Markup(echarts),  # noqa: S704 - a file of this repository
        script=Markup(script),  # noqa: S704 - our own file
        hashes=" ".join(f"'sha256-{_sha256(each)}'" for each in (echarts, script)),
    )


def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "whole": whole, "percent": percent, "points": points, "lasted": lasted, "change": change, "usd": usd,
        "hours": hours, "month": month, "moment": moment,
    }  # fmt: skip
    return templates


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# --- words for numbers ---


def whole(number: float | None) -> str:
    return UNKNOWN if number is None else f"{number:,.0f}"


def percent(number: float | None) -> str:
    return UNKNOWN if number is None else f"{number:.1f} %"


def points(number: float | None) -> str:
    """A change in percentage points."""
    return UNKNOWN if number is None else f"{number:+.1f}".replace("-", MINUS)


def usd(number: float | None) -> str:
    return UNKNOWN if number is None else f"{number:,.2f}"


def hours(number: float | None) -> str:
    return UNKNOWN if number is None else f"{number:,.1f}"


def lasted(seconds: float | None) -> str:
    """12.3 s, 4 min 05 s, 1 h 02 min."""
    if seconds is None:
        return UNKNOWN
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60:,} h {minutes % 60:02} min"


def change(seconds: float | None) -> str:
    """Longer or shorter than before."""
    if seconds is None:
        return UNKNOWN
    return ("+" if seconds >= 0 else MINUS) + lasted(abs(seconds))


def month(first: date | None) -> str:
    return UNKNOWN if first is None else f"{first:%b %Y}"


def moment(when: datetime | None, figures: Figures) -> str:
    return UNKNOWN if when is None else f"{when.astimezone(figures.zone):%F %H:%M}"


# --- what the charts show: the same figures, as page.js wants them ---


def _charts(figures: Figures) -> dict[str, Any]:
    latest = max((row["month"] for row in figures.slowest), default=None)
    of_month = [row for row in figures.slowest if row["month"] == latest]
    tasks = sorted(of_month, key=lambda row: -row["sum_seconds"])[:TASKS_IN_CHART]
    return {
        "months": [month(each) for each in figures.months],
        "saved": _by_environment(figures),
        "dags": {"": _series(figures.all_dags), **_by_dag(figures.monthly)},
        "tasks": [
            {
                "name": f"{row['dag_id']} · {row['task_id']}",
                "environment": row["environment"],
                "hours": row["sum_seconds"] / 3600,
            }
            for row in tasks
        ],
        "weeks": {
            environment: [[row["weekday"], row["hour"], row["tasks"], row["asleep"]] for row in rows]
            for environment, rows in figures.weeks.items()
        },
        "compared": _compared(figures.compared),
    }


def _by_environment(figures: Figures) -> dict[str, dict[str, list[float]]]:
    """Environment to hours asleep and USD saved in each of the months."""
    months = {each: number for number, each in enumerate(figures.months)}
    shown: dict[str, dict[str, list[float]]] = {}
    for row in figures.saved:
        series = shown.setdefault(row["environment"], {"hours": [0.0] * len(months), "usd": [0.0] * len(months)})
        series["hours"][months[row["month"]]] = row["hours_asleep"]
        series["usd"][months[row["month"]]] = row["saved_usd"]
    return shown


_COLUMNS = (
    "successes", "failures", "unfinished", "success_percent", "avg_seconds", "success_change", "change_seconds",
)  # fmt: skip


def _series(rows: list[Row]) -> list[list[Any]]:
    return [[month(row["month"]), *(row[name] for name in _COLUMNS)] for row in rows]


def _by_dag(monthly: list[Row]) -> dict[str, list[list[Any]]]:
    groups: dict[str, list[Row]] = {}
    for row in monthly:
        groups.setdefault(f"{row['environment']} / {row['dag_id']}", []).append(row)
    return {name: _series(rows) for name, rows in groups.items()}


def _compared(rows: list[Row]) -> dict[str, Any]:
    """The DAGs whose environments differ most, with the average of each environment."""
    worst: dict[str, float] = {}
    for row in rows:
        worst[row["dag_id"]] = max(worst.get(row["dag_id"], 0.0), row["times_fastest"] or 0.0)
    dags = sorted(worst, key=lambda dag: (-worst[dag], dag))[:DAGS_IN_CHART]
    seconds = {(row["environment"], row["dag_id"]): row["avg_seconds"] for row in rows}
    names = sorted({environment for environment, _ in seconds})
    return {"dags": dags, "seconds": {name: [seconds.get((name, dag)) for dag in dags] for name in names}}
