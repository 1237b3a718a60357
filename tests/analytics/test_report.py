"""The report in a headless Chromium: what it shows is what the queries say, on any screen, and nothing leaves it."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from analytics import __main__ as command
from analytics.duckdb_lake import named_query
from analytics.report import figures as figures_of
from analytics.report import page as page_of
from analytics.report.lake import opened
from analytics.report.sample_lake import write_lake, write_record, write_rows
from local.browser import launched
from transient_mwaa.domain import ledger, prices

pytestmark = pytest.mark.report
UNTIL = datetime(2026, 11, 20, tzinfo=UTC)
UTC_ZONE = ZoneInfo("UTC")
EVIL = "<script>window.struck=1</script>"
QUOTED = '"><img src=x onerror="window.struck=1"> & {{ 7 * 7 }}'
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens a file; whatever the page complains of, or asks of anybody, fails the test."""
    complaints: list[str] = []
    views: list[Page] = []

    def open_file(path: Path, width: int = 1280, scheme: str = "light", expect: tuple[str, ...] = ()) -> Page:
        view = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)  # type: ignore[arg-type]
        views.append(view)
        view.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        view.on("pageerror", lambda error: complaints.append(str(error)))
        view.on("request", lambda request: request.url != path.as_uri() and complaints.append(request.url))
        view.goto(path.as_uri())
        return view

    yield open_file
    for view in views:
        view.close()
    assert complaints == []


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    write_lake(folder, dags=4, days=75, until=UNTIL, environments=("dev", "test"), seed=1)
    return folder


@pytest.fixture(scope="module")
def report(lake: Path) -> Path:
    assert command.main(["report", str(lake), "--out", str(lake / "out" / "report.html")]) == 0
    return lake / "out" / "report.html"


def asked(lake: Path, sql: str) -> list[tuple[Any, ...]]:
    with opened(str(lake)) as database:
        return database.execute(sql).fetchall()


def numbers(view: Page, table: str) -> list[list[str]]:
    """The cells of a table: what a number is exactly, or else its text."""
    rows: list[list[str]] = view.evaluate(
        "id => [...document.getElementById(id).tBodies[0].rows].map(row => [...row.cells].map("
        "cell => cell.classList.contains('n') && 'v' in cell.dataset ? cell.dataset.v : cell.textContent))",
        table,
    )
    return rows


def option(view: Page, chart: str) -> dict[str, Any]:
    """What the chart draws."""
    own: dict[str, Any] = view.evaluate(
        "id => echarts.getInstanceByDom(document.getElementById(id)).getOption()", chart
    )
    return own


def same(shown: list[list[str]], expected: list[tuple[Any, ...]]) -> bool:
    """The texts are equal, and so are the numbers but for the order in which their parts were added."""
    return len(shown) == len(expected) > 0 and all(
        cell == ""
        if value is None
        else cell == value
        if isinstance(value, str)
        else float(cell) == pytest.approx(value)
        for cells, values in zip(shown, expected, strict=True)
        for cell, value in zip(cells, values, strict=True)
    )


# --- what it shows ---


def test_dags_by_month_are_the_answer_of_the_query(lake: Path, report: Path, open_page: Open) -> None:
    expected = asked(
        lake,
        f"""SELECT environment, dag_id, strftime(month, '%b %Y'), executions, failures,
        success_percent, avg_seconds,
        change_seconds, max_seconds FROM ({named_query("monthly_runs")})""",
    )
    assert len(expected) == 2 * 4 * 3
    assert {row[2] for row in expected} == {"Sep 2026", "Oct 2026", "Nov 2026"}
    view = open_page(report)
    shown = numbers(view, "t-all-dags")
    assert same([[*row[:6], *row[7:]] for row in shown], expected)
    latest = [row for row in shown if row[2] == "Nov 2026"]
    assert sorted(numbers(view, "t-dags")) == sorted(latest)


def test_the_change_of_the_success_rate_is_that_against_the_month_before(report: Path, open_page: Open) -> None:
    rows = numbers(open_page(report), "t-all-dags")
    before: dict[tuple[str, str], str] = {}
    compared = 0
    for environment, dag, _, _, _, success, points, *_ in rows:
        known = before.get((environment, dag))
        if known is None:
            assert points == ""
        else:
            assert float(points) == pytest.approx(float(success) - float(known))
            compared += 1
        before[environment, dag] = success
    assert compared == 2 * 4 * 2


def test_the_charts_draw_all_dags_and_then_the_chosen_one(lake: Path, report: Path, open_page: Open) -> None:
    view = open_page(report)
    whole = asked(
        lake,
        """SELECT strftime(start_date, '%b %Y'), count(*) FILTER (state = 'success'),
        count(*) FILTER (state = 'failed'), 100 * avg((state = 'success')::INT),
        avg(date_diff('millisecond', start_date, end_date)) / 60000
        FROM dag_run GROUP BY ALL ORDER BY min(start_date)""",
    )

    def drawn() -> list[tuple[Any, ...]]:
        runs, success, duration = (option(view, f"c-{name}") for name in ("runs", "success", "duration"))
        return list(zip(runs["xAxis"][0]["data"], runs["series"][0]["data"], runs["series"][1]["data"],
                        success["series"][0]["data"], duration["series"][0]["data"], strict=True))  # fmt: skip

    for shown, row in zip(drawn(), whole, strict=True):
        assert shown == pytest.approx(row)
    assert float(view.locator("#k-runs").get_attribute("data-v") or 0) == whole[-1][1] + whole[-1][2]
    assert float(view.locator("#k-success").get_attribute("data-v") or 0) == pytest.approx(whole[-1][3])
    (dag,) = asked(lake, "SELECT min(dag_id) FROM dag_run")
    view.locator("#t-dags").get_by_role("button", name=dag[0], exact=True).first.click()
    environment = view.locator("#dag").input_value().split(" / ")[0]
    one = asked(
        lake,
        f"""SELECT successes, failures, success_percent, avg_seconds / 60 FROM (
        {named_query("monthly_runs")}) WHERE (environment, dag_id) = ('{environment}', '{dag[0]}')""",
    )
    assert [row[1:] for row in drawn()] == [pytest.approx(row) for row in one]
    assert view.locator("#shown-name").text_content() == f"{environment} / {dag[0]}"
    table = numbers(view, "t-shown")
    assert same([[row[1], row[2], row[4]] for row in table], [row[:3] for row in one])


def test_slowest_tasks_are_the_answer_of_the_query(lake: Path, report: Path, open_page: Open) -> None:
    expected = asked(
        lake,
        f"""SELECT environment, dag_id, task_id, strftime(month, '%b %Y'), tries, sum_seconds,
        avg_seconds, change_seconds, max_seconds FROM ({named_query("slowest_tasks")})""",
    )
    view = open_page(report)
    assert same(numbers(view, "t-all-tasks"), expected)
    latest = sorted((row for row in expected if row[3] == "Nov 2026"), key=lambda row: -row[5])
    assert [row[:3] for row in numbers(view, "t-tasks")] == [list(row[:3]) for row in latest]
    series = option(view, "c-tasks")["series"]
    bars = [
        next(value for value in column if value is not None)
        for column in zip(*(s["data"] for s in series), strict=True)
    ]
    assert bars == pytest.approx([row[5] / 3600 for row in latest[:15]])


def test_money_and_hours_are_those_of_the_ledger(lake: Path, report: Path, open_page: Open) -> None:
    records = [json.loads(path.read_text()) for path in lake.glob("ledger/*/*.json")]
    view = open_page(report)
    for name, field in (("hours", "hours_asleep"), ("usd", "saved_usd")):
        total = sum(record[field] for record in records)
        assert total > 100
        assert float(view.locator(f"#k-{name}").get_attribute("data-v") or 0) == pytest.approx(total)
        drawn = option(view, f"c-{name}")
        for series in drawn["series"]:
            by_month = dict.fromkeys(drawn["xAxis"][0]["data"], 0.0)
            for record in records:
                if record["environment"] == series["name"] and record["action"] == "wake":
                    by_month[f"{datetime.fromisoformat(record['ended_at']):%b %Y}"] += record[field]
            assert series["data"] == pytest.approx(list(by_month.values()))
    nights = [record for record in records if record["action"] == "sleep"]
    good = [record for record in nights if record["verdict"] == "good"]
    assert view.locator("#k-good").text_content() == f"{len(good)} of {len(nights)}"
    (failed,) = (record for record in nights if record not in good)
    told = view.locator("#t-all-nights tr", has_text="Night: failed (ExportNotVerified)")
    assert told.locator("td").nth(1).text_content() == failed["environment"]
    assert told.locator(".verdict.bad").text_content() == "bad"
    rows = numbers(view, "t-all-nights")
    assert len(rows) == len(records)
    by_begin = sorted(records, key=lambda record: (record["ended_at"], record["environment"]))
    assert sorted(row[5] for row in rows) == sorted(str(record["rows"]) for record in records)
    latest = by_begin[-1]
    assert latest["started_at"][:16].replace("T", " ") in {row[0] for row in rows[:2]}
    assert sorted(row[3] for row in rows if row[2].startswith("Night")) == sorted(each["verdict"] for each in nights)


def test_environments_stand_side_by_side(lake: Path, report: Path, open_page: Open) -> None:
    view = open_page(report)
    sums = asked(lake, "SELECT environment, count(DISTINCT dag_id), count(*) FROM dag_run GROUP BY ALL ORDER BY 1")
    assert view.locator("#t-environments thead th").all_text_contents() == [row[0] for row in sums]
    row = view.locator("#t-environments tr[data-name=executions] td")
    assert [cell.get_attribute("data-v") for cell in row.all()] == [str(each[2]) for each in sums]
    expected = asked(
        lake,
        f"""SELECT dag_id, environment, runs, success_percent, avg_seconds, max_seconds, times_fastest
        FROM ({named_query("across_environments")})""",
    )
    assert same(numbers(view, "t-compared"), expected)


# --- the hours of the week, in a lake made by hand ---


def closed(environment: str, begin: datetime, hours: float) -> ledger.CycleRecord:
    return ledger.close(
        environment=environment, cycle_id=f"{begin:%Y%m%d}-wake", action="wake", outcome="awake", error="",
        export_id="x", verdict=None, environment_class="mw1.small", price=prices.recorded("mw1.small"),
        deleted_at=begin, started_at=begin + timedelta(hours=hours), created_at=begin + timedelta(hours=hours),
        now=begin + timedelta(hours=hours, minutes=30),
    )  # fmt: skip


def tried(dag_id: str, begin: datetime, minutes: float, environment: str = "dev", **more: Any) -> dict[str, Any]:
    return {
        "environment": environment, "incarnation": "i", "export_id": "x", "exported_at": begin + timedelta(days=1),
        "dag_id": dag_id, "run_id": f"r{begin:%j%H%M}", "task_id": "t", "map_index": -1, "try_number": 1,
        "state": "success", "start_date": begin, "end_date": begin + timedelta(minutes=minutes), **more,
    }  # fmt: skip


def test_the_week_says_what_runs_when_and_what_is_slept_through(tmp_path: Path) -> None:
    monday = datetime(2026, 11, 2, tzinfo=UTC)
    weeks = [monday + timedelta(days=7 * n) for n in range(2)]
    tries = [tried("a", week + timedelta(hours=9), 30 if week == monday else 60) for week in weeks]
    write_rows(tmp_path, "task_instance", "2026-11-10", "dev-x-0", tries)
    for week in weeks:
        write_record(tmp_path, closed("dev", week + timedelta(hours=20, minutes=10), 9))
    with opened(str(tmp_path)) as database:
        own = figures_of.work_out(database, UTC_ZONE, UNTIL)
        berlin = figures_of.work_out(database, ZoneInfo("Europe/Berlin"), UNTIL)
    hours = {(row["weekday"], row["hour"]): row for row in own.weeks["dev"]}
    assert hours[0, 9]["tasks"] == pytest.approx(0.75)  # half an hour and a whole one, in two weeks
    assert {place for place, row in hours.items() if row["tasks"]} == {(0, 9)}
    whole = {
        (0, 21),
        (0, 22),
        (0, 23),
        (1, 0),
        (1, 1),
        (1, 2),
        (1, 3),
        (1, 4),
    }  # not 20:10 to 21:00, not 05:00 to 05:10
    assert {place for place, row in hours.items() if row["asleep"]} == whole
    assert {hours[place]["asleep"] for place in whole} == {1.0}
    there = {(row["weekday"], row["hour"]): row for row in berlin.weeks["dev"]}
    assert there[0, 10]["tasks"] == pytest.approx(0.75)
    assert there[0, 9]["tasks"] == 0


def test_the_heat_map_shows_the_week_of_the_chosen_environment(report: Path, lake: Path, open_page: Open) -> None:
    with opened(str(lake)) as database:
        own = figures_of.work_out(database, UTC_ZONE, UNTIL)
    view = open_page(report)
    view.locator("#week-of").select_option("test")
    heat, dots = option(view, "c-week")["series"]
    expected = [[row["hour"], row["weekday"], row["tasks"]] for row in own.weeks["test"]]
    assert heat["data"] == [pytest.approx(row) for row in expected]
    asleep = [[row["hour"], row["weekday"]] for row in own.weeks["test"] if row["asleep"] > 0.5]
    assert [each["value"] for each in dots["data"]] == asleep
    assert [23, 6] in asleep
    cells = view.locator("#t-week-2 tbody td").all_text_contents()
    by_place = {(row["weekday"], row["hour"]): row["tasks"] for row in own.weeks["test"]}
    assert [float(cell.split(" ")[0]) for cell in cells] == pytest.approx(
        [by_place[day, hour] for hour in range(24) for day in range(7)], abs=0.0051
    )


def test_a_month_without_runs_is_none_to_compare_with(tmp_path: Path) -> None:
    months = {9: ("success", 10), 10: ("failed", 20), 12: ("success", 60)}
    rows = [
        tried("gappy", datetime(2025, month, 3, tzinfo=UTC), minutes, state=state)
        for month, (state, minutes) in months.items()
    ]
    for row in rows:
        del row["task_id"], row["map_index"], row["try_number"]
    write_rows(tmp_path, "dag_run", "2026-01-01", "dev-x-0", rows)
    with opened(str(tmp_path)) as database:
        own = figures_of.work_out(database, UTC_ZONE, UNTIL)
    for series in (own.monthly, own.all_dags):
        assert [(row["success_percent"], row["success_change"]) for row in series] == [
            (100, None), (0, -100), (100, None)
        ]  # fmt: skip
        assert [(row["avg_seconds"], row["change_seconds"]) for row in series] == [
            (600, None), (1200, 600), (3600, None)
        ]  # fmt: skip


# --- whom it may be shown to ---


def test_names_are_text_whatever_they_say(tmp_path: Path, open_page: Open) -> None:
    began = datetime(2026, 11, 2, 9, tzinfo=UTC)
    for number, environment in enumerate(("dev", EVIL)):
        tries = [tried(dag, began, 5, environment, task_id=QUOTED) for dag in (EVIL, QUOTED)]
        runs = [
            {name: row[name] for name in row if name not in ("task_id", "map_index", "try_number")} for row in tries
        ]
        write_rows(tmp_path, "task_instance", "2026-11-10", f"{number}-x-0", tries)
        write_rows(tmp_path, "dag_run", "2026-11-10", f"{number}-x-0", runs)
        write_record(tmp_path, closed("dev", began + timedelta(hours=number), 9))
    path = tmp_path / "report.html"
    assert command.main(["report", str(tmp_path), "--out", str(path)]) == 0
    view = open_page(path)
    assert {row[1] for row in numbers(view, "t-all-dags")} == {EVIL, QUOTED}
    for dag in (EVIL, QUOTED):
        view.locator("#t-dags").get_by_role("button", name=dag, exact=True).first.click()
        assert dag in (view.locator("#shown-name").text_content() or "")
        view.locator("#c-tasks svg").hover(position={"x": 500, "y": 60})
        view.locator("#c-compared svg").hover(position={"x": 500, "y": 60})
    assert view.evaluate("window.struck") is None
    assert view.evaluate("document.images.length") == 0
    assert view.evaluate("[...document.scripts].length") == 3


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """The address of somebody who listens, and what has come there."""
    heard: list[str] = []

    class Hears(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hears)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", heard
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_page_s_own_policy_keeps_everything_in(
    report: Path, browser: Browser, listener: tuple[str, list[str]]
) -> None:
    address, heard = listener
    view = browser.new_page()
    view.goto(report.as_uri())
    told = view.evaluate(
        """async (address) => {
        const told = [];
        addEventListener("securitypolicyviolation", (event) => told.push(event.violatedDirective));
        await fetch(`${address}/fetch`, {mode: "no-cors"}).catch(() => {});
        const image = new Image(); image.src = `${address}/image`; document.body.append(image);
        const script = document.createElement("script");
        script.textContent = "window.struck = 1"; document.body.append(script);
        await new Promise((done) => setTimeout(done, 200));
        return told.map((directive) => directive.replace(/-elem$/, "")).sort();
    }""",
        address,
    )
    assert told == ["connect-src", "img-src", "script-src"]
    assert view.evaluate("window.struck") is None
    assert heard == []
    view.goto(f"{address}/the-listener-hears")
    assert heard[0] == "/the-listener-hears"
    view.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 320])
def test_everybody_can_read_it(report: Path, open_page: Open, width: int, scheme: str) -> None:
    view = open_page(report, width, scheme)
    view.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(view)
    assert [
        (each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in found.response["violations"]
    ] == []
    judged = {each["id"] for each in found.response["passes"]}
    assert {"color-contrast", "document-title", "html-has-lang", "region", "scrollable-region-focusable"} <= judged


def until(view: Page, expression: str) -> None:
    """The browser's own way of waiting needs an eval, which the page does not admit."""
    for _ in range(200):
        if view.evaluate(expression):
            return
        view.wait_for_timeout(50)
    raise AssertionError(expression)


def test_charts_follow_the_scheme_and_the_width(report: Path, open_page: Open) -> None:
    view = open_page(report)
    colour = "document.querySelector('#c-hours svg text').getAttribute('fill')"
    light = view.evaluate(colour)
    view.emulate_media(color_scheme="dark")
    until(view, f"{colour} !== '{light}'")
    assert option(view, "c-week")["yAxis"][0]["data"][0] == "Mon"
    view.set_viewport_size({"width": 390, "height": 844})
    until(view, "echarts.getInstanceByDom(document.getElementById('c-week')).getOption().xAxis[0].data[0] === 'Mon'")
    assert view.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_keyboard_gets_everywhere(report: Path, open_page: Open) -> None:
    view = open_page(report)
    view.keyboard.press("Tab")
    assert view.evaluate("document.activeElement.className") == "skip"
    view.keyboard.press("Enter")
    assert view.evaluate("document.activeElement.id") == "main"
    view.locator("#t-dags th button").nth(3).press("Enter")
    runs = [int(row[3]) for row in numbers(view, "t-dags")]
    assert runs == sorted(runs, reverse=True)
    assert view.locator("#t-dags th").nth(3).get_attribute("aria-sort") == "descending"
    for figure in view.locator("figure").all():
        label = figure.locator(".chart").get_attribute("aria-label") or ""
        assert "table below has the numbers" in label
        assert figure.locator("xpath=following::details[1]//table").count() >= 1


def test_the_filter_leaves_what_it_names(report: Path, open_page: Open) -> None:
    view = open_page(report)
    names = {row[1] for row in numbers(view, "t-dags")}
    wanted = min(names)
    view.locator("#filter").fill(wanted.upper())
    left = view.locator("#t-dags tbody tr:visible td:nth-child(2)").all_text_contents()
    assert set(left) == {wanted}
    assert view.locator("#filtered").text_content() == "2 of 8"


# --- little, and much ---


def test_an_empty_lake_says_so(tmp_path: Path, open_page: Open) -> None:
    (tmp_path / "export").mkdir()
    path = tmp_path / "report.html"
    assert command.main(["report", str(tmp_path), "--out", str(path)]) == 0
    view = open_page(path)
    assert len(view.locator(".nothing").all()) == 6
    assert view.locator("#k-runs").text_content() == page_of.UNKNOWN


def test_what_is_no_lake_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["report", str(tmp_path), "--out", str(tmp_path / "r.html")]) == 1
    assert "neither export/ nor ledger/" in capsys.readouterr().err
    assert command.main(["report", "s3://bucket/below", "--out", str(tmp_path / "r.html")]) == 1
    assert "Give s3://<bucket>" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_lakes_of_several_stacks_come_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monday = datetime(2026, 11, 2, tzinfo=UTC)
    for name in ("dev", "test"):
        write_record(tmp_path / name, closed(name, monday + timedelta(hours=20), 9))
    with opened(str(tmp_path / "dev"), str(tmp_path / "test")) as database:
        own = figures_of.work_out(database, UTC_ZONE, UNTIL)
    assert {each["environment"] for each in own.saved} == {"dev", "test"}
    (tmp_path / "empty").mkdir()
    lakes = [str(tmp_path / "dev"), str(tmp_path / "empty")]
    assert command.main(["report", *lakes, "--out", str(tmp_path / "r.html")]) == 1
    assert "empty has neither" in capsys.readouterr().err


def test_a_record_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger/environment=dev/old.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({
        "environment": "dev", "cycle_id": "old", "action": "wake", "outcome": "awake", "seconds": 60,
        "started_at": "2026-11-02T06:00:00+00:00", "ended_at": "2026-11-02T06:30:00+00:00", "hours_asleep": 10.0,
        "saved_usd": None, "prices_as_of": "2026-11-01",
    }))  # fmt: skip
    with opened(str(tmp_path)) as database:
        own = figures_of.work_out(database, UTC_ZONE, UNTIL)
    assert "Nov 2026" in page_of.drawn(own)
    assert own.saved == [{"environment": "dev", "month": date(2026, 11, 1), "hours_asleep": 10.0, "saved_usd": 0.0}]


def test_a_hundred_dags_over_two_years_stay_usable(tmp_path: Path, open_page: Open) -> None:
    """Figures as of 100 DAGs and 24 months; writing so many runs first would only take longer."""
    months = [date(2024 + n // 12, n % 12 + 1, 1) for n in range(10, 34)]
    monthly = [
        {
            "environment": "dev", "dag_id": f"pipeline_{dag:03}", "month": month, "executions": 30 + dag,
            "successes": 29 + dag,
            "failures": 1, "unfinished": 0, "success_percent": 100 * (29 + dag) / (30 + dag), "min_seconds": 1.25,
            "max_seconds": 300.5 + dag, "avg_seconds": 100.123456 + dag, "change_seconds": 0.123456 if n else None,
            "success_change": 0.0 if n else None,
        }
        for dag in range(100) for n, month in enumerate(months)
    ]  # fmt: skip
    slowest = [
        {"environment": "dev", "month": month, "place": place, "dag_id": f"pipeline_{place:03}", "task_id": "load",
         "tries": 30, "sum_seconds": 9000.5, "avg_seconds": 300.0, "max_seconds": 400.0, "change_seconds": None}
        for month in months for place in range(1, 21)
    ]  # fmt: skip
    for n in range(0, 700, 7):
        write_record(tmp_path, closed("dev", datetime(2024, 11, 1, 20, tzinfo=UTC) + timedelta(days=n), 10))
    with opened(str(tmp_path)) as database:
        small = figures_of.work_out(database, UTC_ZONE, UNTIL)
    large = figures_of.Figures(**{**vars(small), "monthly": monthly, "slowest": slowest,
                                  "all_dags": monthly[:24]})  # fmt: skip
    path = tmp_path / "large.html"
    path.write_text(page_of.drawn(large), encoding="utf-8")
    assert path.stat().st_size < 4_000_000
    view = open_page(path, 390)
    assert view.locator("#c-duration svg").is_visible()
    assert view.locator("#t-all-dags tbody tr").count() == 2400
    view.locator("#filter").fill("pipeline_042")
    assert view.locator("#t-dags tbody tr:visible").count() == 1


def test_the_page_is_small_but_for_its_figures(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    with opened(str(tmp_path)) as database:
        page = page_of.drawn(figures_of.work_out(database, UTC_ZONE, UNTIL))
    assert len(page.encode()) < 1_200_000
    assert re.findall(r'(?:src|href)="([^#"][^"]*)"', page.partition('<script type="application/json"')[0]) == []


def test_the_library_is_the_released_one_with_its_licence() -> None:
    vendor = page_of.ECHARTS.parent
    assert (
        page_of._sha256(page_of.ECHARTS.read_text(encoding="utf-8")) == "tmslrrTfhOMxmdwhaUAU0zbSIsvZ3rDlp8FL1qoND9A="
    )
    assert "Apache License" in (vendor / "LICENSE").read_text()
    assert "Apache ECharts" in (vendor / "NOTICE").read_text()
