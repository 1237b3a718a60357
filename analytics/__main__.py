"""transient-mwaa: what can be asked of the lake.

python -m analytics report LAKE [LAKE ...] [--out FILE] [--time-zone ZONE]
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from analytics.report.figures import work_out
from analytics.report.lake import NoLakeError, opened
from analytics.report.page import drawn


def report(*lakes: str, out: Path, zone: ZoneInfo) -> None:
    """Writes the report of one or more lakes. Raises NoLakeError."""
    with opened(*lakes) as opened_lake:
        page = drawn(work_out(opened_lake, zone, datetime.now(UTC)))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8", newline="\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="transient-mwaa", description="What can be asked of the lake.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("report", help="one HTML file: DAGs, tasks, nights, and what they saved")
    command.add_argument("lake", nargs="+", help="s3://<data bucket>, or a folder with a copy of it")
    command.add_argument("--out", type=Path, default=Path("build/report.html"), help="the file (default: %(default)s)")
    command.add_argument("--time-zone", type=ZoneInfo, default=ZoneInfo("UTC"), help="of nights and hours of the week")
    given = parser.parse_args(arguments)
    try:
        report(*given.lake, out=given.out, zone=given.time_zone)
    except NoLakeError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command
        return 1
    print(given.out)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
