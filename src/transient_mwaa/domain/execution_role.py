"""Whether MWAA may assume a role, as far as the role's own trust policy tells."""

from collections.abc import Mapping
from typing import Any

SERVICES = ("airflow.amazonaws.com", "airflow-env.amazonaws.com")
"""Both must be trusted. Source: MWAA user guide, "Amazon MWAA execution role"."""

_ASSUMING = frozenset({"sts:assumerole", "sts:assume*", "sts:*", "*"})


def objections(trust: Mapping[str, Any]) -> list[str]:
    """Why MWAA could not assume a role with this trust policy, each in words; nothing when it can.

    Conditions are not weighed: a statement with one counts as allowing, and never as denying.
    """
    statements = _several(trust.get("Statement", []))
    return [
        f"it does not trust {service}"
        for service in SERVICES
        if not any(_speaks_of(statement, "Allow", service) for statement in statements)
        or any(_speaks_of(statement, "Deny", service) and not statement.get("Condition") for statement in statements)
    ]


def _speaks_of(statement: Mapping[str, Any], effect: str, service: str) -> bool:
    """Whether this statement allows (or denies) the service to assume the role."""
    principal = statement.get("Principal", {})
    services = ["*"] if principal == "*" else _several(principal.get("Service", []))
    if statement.get("Effect") != effect or not {"*", service} & set(services):
        return False
    return bool(_ASSUMING & {action.lower() for action in _several(statement.get("Action", []))})


def _several(value: Any) -> list[Any]:
    """IAM writes a list of one as the element itself."""
    return list(value) if isinstance(value, list | tuple) else [value]
