"""make install-dags ENVIRONMENT=... STACK=... [APPLY=yes]

Puts the two metadata DAGs, their requirements and our configuration options into an environment that is there already.
Without --apply it says what it would do. Ends 1 when something of the owner's is in the way, or it did not work.
"""

import argparse
import sys
from pathlib import Path

from botocore.exceptions import ClientError

from install.installer import Installer, InstallFailed, Plan
from transient_mwaa.domain.errors import TransientMwaaError


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def show(plan: Plan) -> None:
    for heading, lines in (
        ("To be done:", plan.steps),
        ("Kept as it is:", plan.kept),
        ("For you to do:", plan.notes),
        ("In the way:", plan.conflicts),
    ):
        if lines:
            say(heading)
            for line in lines:
                say(f"  - {line}")


def run(environment: str, stack: str, folder: Path, *, apply: bool, installer: Installer) -> int:
    """The exit code."""
    try:
        plan = installer.plan(environment, stack, folder)
        show(plan)
        if plan.conflicts:
            say("Nothing was changed.")
            return 1
        if plan.is_done:
            say(f"{environment} has everything.")
            return 0
        if not apply:
            say("Nothing was changed. Add APPLY=yes to do it.")
            return 0
        installer.apply(plan)
    except InstallFailed as failure:
        say(f"It is not as it should be:\n{failure}")
        return 1
    except (TransientMwaaError, ClientError) as error:
        say(str(error))
        return 1
    say(f"{environment} has everything, and Airflow knows both DAGs.")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make install-dags", description=__doc__)
    parser.add_argument("environment")
    parser.add_argument("--stack", required=True, help="the core stack, whose outputs name bucket and key")
    parser.add_argument("--dags", type=Path, default=Path(__file__).parents[1] / "dags")
    parser.add_argument("--apply", action="store_true")
    given = parser.parse_args()
    return run(given.environment, given.stack, given.dags, apply=given.apply, installer=Installer.from_env(say))


if __name__ == "__main__":
    sys.exit(main())
