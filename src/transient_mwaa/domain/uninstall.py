"""Whether the stack may go, or turn to another environment or data bucket: not while an environment sleeps, for nobody
else could wake it, and from no other bucket."""

from collections.abc import Collection, Mapping

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


def moves(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether an update would take from the environment what its morning needs: the stack's own attention, the data
    bucket and its key, or the sample, which has its network. A release that did not name one of them named no other."""
    moved = (name for name in ("EnvironmentName", "DataBucketName", "DataKeyArn") if name in before)
    leaves_the_sample = before.get("Sample") == "true" != now.get("Sample")
    return leaves_the_sample or any(before[name] != now.get(name) for name in moved)


def require_detached(attached: Mapping[str, Collection[str]]) -> None:
    """Raises DeletionRefused while roles, users or groups have a policy of the stack: CloudFormation could not delete
    it, and would find that out with half of the stack gone."""
    if those := [f"{arn} from {', '.join(sorted(names))}" for arn, names in attached.items() if names]:
        raise DeletionRefused(f"A policy that is attached cannot be deleted. Detach {'; '.join(those)}, and try again.")
