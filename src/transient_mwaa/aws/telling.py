"""What a human was told, in the environment's record."""

from collections.abc import Iterable
from datetime import datetime
from typing import Self

from transient_mwaa.aws.records import Records
from transient_mwaa.domain.errors import ServiceUnavailable
from transient_mwaa.domain.recovery import Told


class Telling:
    """Lets one of several recovers tell a human of a trouble. Raises ServiceUnavailable when another one interferes."""

    def __init__(self, records: Records) -> None:
        self._records = records

    @classmethod
    def from_env(cls) -> Self:
        return cls(Records.from_env())

    def undertake(self, environment: str, trouble: str, text: str, now: datetime) -> bool:
        """Whether the caller is to tell a human now; it says `done` afterwards. False for no trouble."""
        told = self._read(environment)
        if not trouble or not told.is_news(trouble, now):
            return False
        self._write(environment, told, told.undertaken(trouble, text, now))
        return True

    def done(self, environment: str, troubles: Iterable[str], now: datetime) -> None:
        """A human has been told of these."""
        told = after = self._read(environment)
        for trouble in filter(None, troubles):
            after = after.done(trouble, now)
        self._write(environment, told, after)

    def _read(self, environment: str) -> Told:
        return Told.from_text(self._records.read(environment).told)

    def _write(self, environment: str, before: Told, after: Told) -> None:
        if after != before and not self._records.write_told(environment, before.as_text(), after.as_text()):
            raise ServiceUnavailable(f"Another run is telling about {environment} at the same moment. Try again.")
