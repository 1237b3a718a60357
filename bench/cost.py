"""What one environment costs beside MWAA itself, from recorded executions at list prices: `python -m bench.cost`.

Counts (transitions, requests) come from bench.cycle, prices from bench.prices. How long a function runs on Lambda
cannot be measured here: SECONDS says what is taken for each. Nothing is rounded down: no free tier, each start a cold
one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.cycle import SCENE, Counts, recorded
from bench.prices import HOURLY, MONTHLY, PRICES, RECORDED
from local.deploy import read_yaml
from transient_mwaa.domain.prices import USD_PER_HOUR

ROOT = Path(__file__).parents[1]
TARGET = 0.01
"""USD for each environment and night."""
HOURS_ASLEEP, LOOKS_PER_HOUR, EXTRACTS, NIGHTS = 10.5, 4, 13, 22
"""20:00 to 06:30, the watchdog each 15 minutes, an extract each hour from 7:30 to 19:30, 22 working days a month: the
template's defaults."""
SECONDS = {"verify_file": 5.0, "write_blueprint": 5.0, "judge_export": 5.0, "promote_export": 5.0, "quiesce": 4.0}
"""Billed for each call of a function, its cold start in it: taken, not measured."""
OTHERWISE = 2.0
"""Billed for each call of any other function."""
EXPRESS_GB_SECONDS = 3.0 * 64 / 1024
"""Of one look of the watchdog, an express workflow, in the smallest unit of memory: its one call, and then some."""
LOG_BYTES_PER_CALL, LOG_BYTES_PER_EVENT = 2_000, 700
"""Of a function's call, Lambda's own three lines among them, and of an event of an execution: taken, not measured."""


def memory() -> dict[str, float]:
    """Folder of a function -> its memory in GB, by the template."""
    resources = read_yaml(ROOT / "template.yaml")["Resources"].values()
    functions = [each["Properties"] for each in resources if each["Type"] == "AWS::Serverless::Function"]
    return {Path(each["CodeUri"]).name: each["MemorySize"] / 1024 for each in functions}


def alarm_metrics() -> int:
    """Metrics that the template's alarms watch: each of them is charged."""
    resources = read_yaml(ROOT / "template.yaml")["Resources"].values()
    alarms = [each["Properties"] for each in resources if each["Type"] == "AWS::CloudWatch::Alarm"]
    return sum(len([each for each in alarm.get("Metrics", [alarm]) if "Expression" not in each]) for alarm in alarms)


def whole(counts: Counts) -> dict[str, float]:
    """Everything that PRICES knows: what was recorded, and what is taken for seconds and logs."""
    sizes = memory()
    seconds = {name: calls * SECONDS.get(name, OTHERWISE) for name, calls in counts.invocations.items()}
    log_bytes = sum(counts.invocations.values()) * LOG_BYTES_PER_CALL + counts.events * LOG_BYTES_PER_EVENT
    return {
        **{key: float(counts.used[key]) for key in PRICES},
        "express_gb_seconds": counts.used["express_requests"] * EXPRESS_GB_SECONDS,
        "lambda_gb_seconds": sum(each * sizes[name] for name, each in seconds.items()),
        "log_gb": log_bytes / 1e9,
    }


def usd(used: Mapping[str, float]) -> float:
    return sum(number * PRICES[key].each for key, number in used.items())


def added(*parts: Mapping[str, float]) -> dict[str, float]:
    return {key: sum(part[key] for part in parts) for key in PRICES}


def columns(found: Mapping[str, Counts]) -> dict[str, dict[str, float]]:
    """Heading -> what is used by it, in the order of a day."""
    looks_asleep = round(HOURS_ASLEEP * LOOKS_PER_HOUR)
    looks_awake = 24 * LOOKS_PER_HOUR - looks_asleep
    parts = {
        "the evening": whole(found["evening"]),
        f"{looks_asleep} looks of the watchdog": whole(found["watchdog asleep"].times(looks_asleep)),
        "the morning": whole(found["morning"]),
    }
    return {
        **parts,
        "**a night**": added(*parts.values()),
        f"{looks_awake} looks by day": whole(found["watchdog awake"].times(looks_awake)),
        f"{EXTRACTS} extracts": whole(found["extract"].times(EXTRACTS)),
    }


def monthly(found: Mapping[str, Counts]) -> dict[str, float]:
    """What -> USD a month."""
    parts = columns(found)
    night = usd(parts.pop("**a night**"))
    by_day = sum(usd(used) for used in list(parts.values())[3:])
    idle_days = 30 - NIGHTS
    idle = usd(whole(found["watchdog asleep"].times(24 * LOOKS_PER_HOUR * idle_days)))
    # Asleep, Awake, ExportedRows; CycleSeconds, HoursAsleep and SavedUsd twice; LakeRows by the evening, too;
    # EveningMinutes while the watchdog finds one at work.
    metric_hours = (3 + 3 * 2 + 1 + EXTRACTS + 1) * NIGHTS / 730
    watched = alarm_metrics()
    return {
        f"{NIGHTS} nights": NIGHTS * night,
        f"{NIGHTS} days between them": NIGHTS * by_day,
        f"the watchdog on the other {idle_days} days": idle,
        MONTHLY["key"].unit: MONTHLY["key"].usd,
        "the metric AwakeAsPlanned": MONTHLY["metric"].usd,
        "eight metrics of nights and extracts, by the hours in which they come": metric_hours * MONTHLY["metric"].usd,
        f"the alarms, on {watched} metrics": watched * MONTHLY["alarm"].usd,
        MONTHLY["dashboard"].unit: MONTHLY["dashboard"].usd,
        "each GB of exports, lake and logs that is kept": MONTHLY["s3_gb"].usd,
    }


def verdict(found: Mapping[str, Counts]) -> str:
    """One night beside its target."""
    parts = columns(found)
    night, both = usd(parts["**a night**"]), usd(added(parts["the evening"], parts["the morning"]))
    word = "hit" if night < TARGET else "miss"
    target = f"target: under {TARGET:g} USD, {word}"
    return f"{night:.4f} USD for each environment and night ({target}); {both:.4f} of it for evening and morning"


def tables(found: Mapping[str, Counts]) -> str:
    """What lies between the marks of docs/cost.md."""
    parts = columns(found)
    files = found["evening"].files
    taken = ", ".join(f"{seconds:g} s for `{name}`" for name, seconds in SECONDS.items())
    logs = f"of logs {LOG_BYTES_PER_CALL / 1000:g} kB for a call and {LOG_BYTES_PER_EVENT / 1000:g} kB for an event"
    express = f"{EXPRESS_GB_SECONDS:.2g} GB-seconds for an express workflow; {logs}"
    lines = [
        f"**{verdict(found)}.** With {files} files to verify; {SCENE}.",
        "",
        f"Taken, not measured: for each call, with a cold start, {taken}, {OTHERWISE:g} s for any other; {express}.",
        "",
        f"| | {' | '.join(parts)} |",
        "|---" + "|---:" * len(parts) + "|",
    ]
    for key, price in PRICES.items():
        cells = [f"{used[key]:.6f}" if key == "log_gb" else f"{used[key]:,.0f}" for used in parts.values()]
        lines.append(f"| {price.unit} | {' | '.join(cells)} |")
    lines.append(f"| **USD** | {' | '.join(f'**{usd(used):.4f}**' for used in parts.values())} |")
    night = parts["**a night**"]
    ranked = sorted(PRICES, key=lambda key: -night[key] * PRICES[key].each)
    lines += ["", "| of a night | USD | share |", "|---|---:|---:|"]
    for key in ranked:
        cost = night[key] * PRICES[key].each
        lines.append(f"| {PRICES[key].unit} | {cost:.5f} | {100 * cost / usd(night):.0f} % |")
    lines += ["", "| a month | USD |", "|---|---:|"]
    lines += [f"| {what} | {cost:.3f} |" for what, cost in monthly(found).items()]
    lines += ["", "| asleep it does not cost | USD an hour | USD a night |", "|---|---:|---:|"]
    lines += [f"| {name} | {price:.3f} | {HOURS_ASLEEP * price:.2f} |" for name, price in USD_PER_HOUR.items()]
    lines += ["", f"Prices of us-east-1, written down by hand on {RECORDED}:", ""]
    lines += ["| | USD | for | page |", "|---|---:|---:|---|"]
    every = [*PRICES.values(), *MONTHLY.values(), *HOURLY.values()]
    lines += [f"| {each.unit} | {each.usd:.10g} | {each.per:,.0f} | {each.source} |" for each in every]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(tables(recorded()))
