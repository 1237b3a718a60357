"""Creating an environment again, and cleaning up after a creation that failed."""

from collections.abc import Mapping

from transient_mwaa.domain import patience
from transient_mwaa.domain.cycle import Phase, Record
from transient_mwaa.domain.errors import EnvironmentCreateFailed, EnvironmentReplaced


def require_attempts_left(environment: str, attempt: int, reason: str) -> None:
    """Raises EnvironmentCreateFailed once `attempt` creations were asked for and the last one came to nothing."""
    if attempt >= patience.CREATE_ATTEMPTS:
        message = (
            f"MWAA could not create {environment} in {attempt} attempts: {reason}. "
            "Mend the cause and start the morning again; export and blueprint are kept."
        )
        raise EnvironmentCreateFailed(message)


def require_failed_creation_of_ours(record: Record, incarnation: str, attempt: int, reason: Mapping[str, str]) -> None:
    """Raises EnvironmentReplaced unless this CREATE_FAILED environment came after our own delete, in a morning; and
    EnvironmentCreateFailed when trying again is used up. `reason` is MWAA's LastUpdate.Error.
    """
    if record.phase != Phase.WAKING or not record.is_unrestored(incarnation):
        message = (
            f"The failed environment {record.environment} (created {incarnation}) is not one that this morning made. "
            "Look at it in the MWAA console; it was not deleted."
        )
        raise EnvironmentReplaced(message)
    said = f"{reason.get('ErrorCode', 'no error code')}: {reason.get('ErrorMessage', 'no message')}"
    require_attempts_left(record.environment, attempt, said)
