"""Takes the pictures of docs/report.md: the report of the sample lake, on a desk and on a phone, light and dark.

python -m analytics.report.pictures
"""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from analytics.report.figures import work_out
from analytics.report.lake import opened
from analytics.report.page import drawn
from analytics.report.sample_lake import for_the_pictures
from local.browser import launched

DOCS = Path(__file__).parents[2] / "docs"
SIZES = {"desk": (1280, 1700), "phone": (390, 844)}


def take(folder: Path) -> None:
    """report-desk-light.png and its like."""
    with tempfile.TemporaryDirectory() as home:
        for_the_pictures(Path(home))
        with opened(home) as lake:
            made_at = datetime(2026, 11, 20, 8, tzinfo=UTC)
            page = Path(home) / "report.html"
            page.write_text(drawn(work_out(lake, ZoneInfo("UTC"), made_at)), encoding="utf-8")
        with launched() as browser:
            for size, (width, height) in SIZES.items():
                for scheme in ("light", "dark"):
                    view = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                    view.goto(page.as_uri())
                    view.screenshot(path=folder / f"report-{size}-{scheme}.png")
                    view.close()


if __name__ == "__main__":
    take(DOCS)
