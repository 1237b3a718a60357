"""Whether the stack may go, or use another data bucket: not while an environment sleeps, for nobody else could wake it,
and from no other bucket."""

from transient_mwaa.domain.cycle import Phase, Record


class DeletionRefused(Exception):
    """The stack must stay for now. CloudFormation shows it; no state machine ever sees it."""


def require_deletable(record: Record) -> None:
    """Raises DeletionRefused unless the environment is awake, or was never put to sleep, and nobody is at work."""
    if record.lease_owner:
        raise DeletionRefused(
            f"{record.lease_owner} is at work on {record.environment}. Wait until it has ended, then try again."
        )
    if record.phase not in {"", Phase.AWAKE}:
        raise DeletionRefused(
            f"The environment {record.environment} is {record.phase.replace('_', ' ')}, and only this stack can bring "
            "it back, from the data bucket that it sleeps in. Start spin_up, wait for Awake, then try again; or, when "
            "deleting, retain this resource to give up what it knows."
        )
