"""Writes the tables of docs/ that come from the code; run by `make docs`, and held to the code by a test."""

import json
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "dags"))

from airflow_metadata.tables import Rule, rule_for  # noqa: E402 - dags/ stands alone and is no package of ours

# Airflow version -> its tables, as Airflow itself makes them; the engine's tests hold it to the migrated databases.
SCHEMAS: dict[str, list[str]] = json.loads((DOCS / "schemas.json").read_text())
BEGIN, END = "<!-- made by `make docs` -->\n", "<!-- end -->"
PREFIXES = {"MWAA": "airflow", "StepFunctions": "states"}
"""Of the permissions of a service, where it is not CloudFormation's name for it in small letters."""


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


def laws_and_faults() -> str:
    """The tables of docs/safety.md: what must hold in every scenario of the sweep, and what can go wrong in one."""
    sys.path[:0] = [str(DOCS.parent), str(DOCS.parent / "src")]
    from sweep.disturbances import GROUPS
    from sweep.faults import ATTEMPTS, KINDS
    from sweep.monitors import LAWS
    from sweep.tracks import TRACKS

    laws = [f"| {law} | {text} |" for law, text in LAWS.items()]
    attempts = f"attempt {', '.join(map(str, ATTEMPTS))} of a task"
    faults = [f"| {attempts} | {'; '.join(f'*{kind}*: {text}' for kind, text in KINDS.items())} |"]
    others = [f"| {group} | {in_words(kinds)} |" for group, kinds in GROUPS.items()]
    tracks = [f"- {track.name}: *{track.ends}*" for track in TRACKS]
    table = ["| law | what must hold |", "|---|---|", *laws, "", "| what goes wrong | how |", "|---|---|", *faults]
    return "\n".join([*table, *others, "", "Where it goes wrong, and how each ends by itself:", "", *tracks]) + "\n"


def in_words(kinds: Iterable[str]) -> str:
    """All of them, or how many there are."""
    names = list(kinds)
    return "; ".join(names) if len(names) < 20 else f"{len(names)} of them, see `local/airflow_lies.py`"


def resources_of(template: str) -> dict[str, dict[str, Any]]:
    """The resources of a transformed template, with those that depend on a condition."""
    sys.path.insert(0, str(DOCS.parent))
    from local.deploy import translate

    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")  # the translator wants one; no table depends on it
    parameters = {"EnvironmentName": "dev", "EnvironmentBucketName": "an-environment-bucket"}
    found: dict[str, dict[str, Any]] = translate(DOCS.parent / template, parameters)[0]["Resources"]
    return found


def deployed() -> str:
    """The first table of docs/permissions.md: what deploying creates, by service and template."""
    templates = {
        "template.yaml": "the stack",
        "analytics/template.yaml": "its lake, always with it",
        "sample/template.yaml": "the sample, with `DeploySample`",
    }
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    for template in templates:
        kinds = Counter(each["Type"].removeprefix("AWS::") for each in resources_of(template).values())
        services: dict[str, list[str]] = defaultdict(list)
        for kind, count in sorted(kinds.items()):
            service, name = kind.split("::")
            services[service].append(f"{count} `{name}`")
        for service, counted in services.items():
            cells[PREFIXES.get(service, service.lower())][template] = ", ".join(counted)
    rows = [f"| `{each}:` | {' | '.join(cells[each].get(name, '') for name in templates)} |" for each in sorted(cells)]
    head = ["service", *templates.values()]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows]) + "\n"


def permissions() -> str:
    """The second table of docs/permissions.md: what each role and policy of the transformed template allows."""
    resources = resources_of("template.yaml")
    kinds = ("AWS::IAM::ManagedPolicy", "AWS::IAM::Role")
    found = sorted((r["Type"], name, r["Properties"]) for name, r in resources.items() if r["Type"] in kinds)
    rows = ["| who | may | on | only if |", "|---|---|---|---|"]
    for _, name, properties in found:
        for number, cells in enumerate(allowed(properties)):
            rows.append(f"| {f'**{name}**' if number == 0 else ''} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def allowed(properties: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Actions, resources and conditions of each statement of a role or a managed policy."""
    for each in properties.get("ManagedPolicyArns", []):
        condition, shared = each["Fn::If"][:2] if "Fn::If" in each else ("", each)
        yield f"what {shared['Ref']} allows", "", f"`{condition}`" if condition else ""
    documents = [properties["PolicyDocument"]] if "PolicyDocument" in properties else []
    for document in documents + [each["PolicyDocument"] for each in properties.get("Policies", [])]:
        for whole in document["Statement"]:
            condition, statement = whole["Fn::If"][:2] if "Fn::If" in whole else ("", whole)
            conditions = [f"`{condition}`"] if condition else []
            for operator, keys in statement.get("Condition", {}).items():
                if operator not in {"StringEquals", "StringLike", "ArnLike"}:
                    raise ValueError(f"The table has no words for the condition operator {operator}.")
                conditions += [f"`{key}` is {listed(values, ' or ')}" for key, values in keys.items()]
            yield listed(statement["Action"]), listed(statement["Resource"]), " and ".join(conditions)


def listed(values: Any, between: str = ", ") -> str:
    """Actions, resources or values of a condition."""
    return between.join(f"`{as_text(each)}`" for each in (values if isinstance(values, list) else [values]))


def as_text(value: Any) -> str:
    """Intrinsic functions as what they stand for; an ARN without partition, region and account."""
    if isinstance(value, dict):
        ((function, argument),) = value.items()
        value = argument if function == "Fn::Sub" else f"${{{argument[0] if function == 'Fn::GetAtt' else argument}}}"
    # Whether the stack has made them or not.
    value = value.replace("arn:${AWS::Partition}:s3:::${DataBucketName.Value}", "${DataBucket}")
    value = value.replace("${DataKeyArn}", "${DataKey}")
    value = re.sub(r"^arn:\$\{AWS::Partition\}:(\w+):(\$\{AWS::Region\})?:(\$\{AWS::AccountId\})?:", r"\1: ", value)
    value = value.replace(".${AWS::Region}.${AWS::URLSuffix}", "")
    return re.sub(r"\$\{(?:AWS::)?(\w+)\}", r"<\1>", value)


def cost() -> str:
    """The tables of docs/cost.md: a night and a morning in the local cloud at list prices. Takes half a minute."""
    sys.path[:0] = [str(DOCS.parent), str(DOCS.parent / "src")]
    from bench.cost import tables
    from bench.cycle import recorded

    return tables(recorded())


def ledger_members() -> str:
    """The table of docs/report.md: what a record of the ledger has."""
    sys.path.insert(0, str(DOCS.parent / "src"))
    from transient_mwaa.domain.ledger import CycleRecord

    hints = get_type_hints(CycleRecord, include_extras=True)
    rows = [f"| `{name}` | {hint.__metadata__[0]} |" for name, hint in hints.items()]
    return "\n".join(["| member | meaning |", "|---|---|", *rows]) + "\n"


def rewritten(text: str, *tables: str) -> str:
    """A document with the table between each two marks replaced, in the order of their places."""
    before, *parts = text.split(BEGIN)
    made = [BEGIN + table + END + part.split(END, 1)[1] for table, part in zip(tables, parts, strict=True)]
    return "".join([before, *made])


if __name__ == "__main__":
    tables = {
        "what-comes-back.md": [what_comes_back()],
        "safety.md": [laws_and_faults()],
        "permissions.md": [deployed(), permissions()],
        "cost.md": [cost()],
        "report.md": [ledger_members()],
    }
    for name, made in tables.items():
        document = DOCS / name
        document.write_text(rewritten(document.read_text(), *made))
