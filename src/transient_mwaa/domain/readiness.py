"""Whether a woken environment is as ready as it was the evening before."""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Readiness:
    """DAG files that do not import, and DAGs that were there in the evening and are not now."""

    import_errors: int
    dags_missing: tuple[str, ...]


def compare(now_parsed: Collection[str], known_last_night: Collection[str], import_errors: int) -> Readiness:
    """This morning's DAG list against that of the evening."""
    return Readiness(import_errors, tuple(sorted(set(known_last_night) - set(now_parsed))))
