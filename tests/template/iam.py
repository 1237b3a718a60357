"""What an IAM policy allows, for the elements that our policies use; what it does not know is an error, never a yes.

Source: IAM User Guide, "Policy evaluation logic" and "IAM JSON policy elements: Condition operators".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Context = Mapping[str, str]
"""Condition keys of a request ("kms:ViaService") and their values; what is not in it is absent from the request."""


@dataclass(frozen=True)
class Need:
    """One permission that an API call takes."""

    action: str
    """As IAM writes it: "s3:GetObject"."""
    resource: str
    """An ARN, or "*" where the service knows none."""
    context: tuple[tuple[str, str], ...] = field(default=())

    def __str__(self) -> str:
        with_context = f" with {', '.join(f'{key}={value}' for key, value in self.context)}" if self.context else ""
        return f"{self.action} on {self.resource}{with_context}"


def several(value: Any) -> list[Any]:
    """IAM writes a list of one as the element itself."""
    return list(value) if isinstance(value, list) else [value]


def matches(pattern: str, value: str) -> bool:
    """IAM's two wildcards: * for any characters, ? for one."""
    parts = [{"*": ".*", "?": "."}.get(each, re.escape(each)) for each in pattern]
    return re.fullmatch("".join(parts), value, re.DOTALL) is not None


def speaks_of(statement: Mapping[str, Any], need: Need) -> bool:
    """Whether a statement is about this: its action, its resource, its conditions."""
    if unknown := set(statement) - {"Sid", "Effect", "Action", "Resource", "Condition", "Principal"}:
        raise ValueError(f"Not weighed here: a statement with {sorted(unknown)}.")
    return (
        any(matches(each.lower(), need.action.lower()) for each in several(statement["Action"]))
        and any(matches(each, need.resource) for each in several(statement["Resource"]))
        and all(
            holds(operator, key, several(values), dict(need.context))
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        )
    )


def holds(operator: str, key: str, values: Iterable[Any], context: Context) -> bool:
    """One condition. Keys are compared without regard to case, as IAM does, but for the key of a tag."""
    found = next((value for name, value in context.items() if _same_key(name, key)), None)
    if operator == "Null":
        return (found is None) == (str(next(iter(values))).lower() == "true")
    name, if_exists = operator.removesuffix("IfExists"), operator.endswith("IfExists")
    if found is None:
        return if_exists
    wanted = [str(value) for value in values]
    if name in {"StringEquals", "Bool"}:
        return found in wanted
    if name in {"StringLike", "ArnLike", "ArnEquals"}:
        return any(matches(value, found) for value in wanted)
    raise ValueError(f"Not weighed here: the condition operator {operator}.")


def _same_key(one: str, other: str) -> bool:
    kind, _, tag = one.partition("/")
    other_kind, _, other_tag = other.partition("/")
    return kind.lower() == other_kind.lower() and tag == other_tag


def allows(statements: Iterable[Mapping[str, Any]], need: Need) -> bool:
    """Whether some statement allows it, and none denies it."""
    about = [statement["Effect"] for statement in statements if speaks_of(statement, need)]
    return "Allow" in about and "Deny" not in about
