"""Write customer_activity.csv: what customers did in a web shop in one month, the same rows every time.

python sample/customer_activity.py [--rows 5000] [FILE]
"""

from __future__ import annotations

import argparse
import csv
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

COLUMNS = ("activity_id", "customer_id", "customer_name", "country", "activity", "amount", "occurred_at")
COUNTRIES = ("AU", "DE", "FR", "GB", "IN", "JP", "US")
# A name that needs quoting in CSV, one with quotes and one outside ASCII: real files have them.
NAMES = ("Ada Lovelace", "Grace Hopper", "Müller, Jürgen", 'Edsger "E. W." Dijkstra', "林檎 太郎", "Zoë O'Brien")
# activity: how often of ten, and whether money moves
ACTIVITIES = (("view", 6, False), ("add_to_basket", 2, False), ("purchase", 1, True), ("return", 1, True))
SEED = 20230213
FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
SECONDS_A_MONTH = 31 * 24 * 3600


def activities(rows: int) -> list[tuple[str, ...]]:
    """Rows in the order of COLUMNS, as text. A return has a negative amount, and what costs nothing has none."""
    chance = random.Random(SEED)
    kinds = [(name, paid) for name, weight, paid in ACTIVITIES for _ in range(weight)]
    made = []
    for number in range(1, rows + 1):
        customer = chance.randint(1, 200)
        activity, paid = chance.choice(kinds)
        amount = round(chance.uniform(1, 500), 2) * (-1 if activity == "return" else 1)
        occurred_at = FIRST_DAY + timedelta(seconds=chance.randrange(SECONDS_A_MONTH))
        made.append(
            (
                str(number),
                f"C{customer:04}",
                NAMES[customer % len(NAMES)],
                COUNTRIES[customer % len(COUNTRIES)],
                activity,
                f"{amount:.2f}" if paid else "",
                occurred_at.strftime("%Y-%m-%d %H:%M:%S"),
            )
        )
    return made


def write(path: Path, rows: int = 5000) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(activities(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write customer_activity.csv, the same rows every time.")
    parser.add_argument("file", nargs="?", type=Path, default=Path("customer_activity.csv"))
    parser.add_argument("--rows", type=int, default=5000)
    given = parser.parse_args()
    write(given.file, given.rows)
