"""The whole cycle on a real Airflow: three evenings. Two must not end in a delete; after the third it wakes up again.

The tests follow one another on one environment: to create it and to fill its day takes longer than all of them.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.backends import get_backend
from rich.console import Console

from local.demo import RESULTS, Demo
from local.finder import UNREADABLE, find
from local.story import ENVIRONMENT, ROOT, Chapter, Story
from local.workload.people import PAUSED
from transient_mwaa.domain.cycle import OWN_DAGS

pytestmark = [pytest.mark.cycle, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    # Not in pytest's folder: PostgreSQL has a user of its own under root, and sockets want short paths.
    home = Path(tempfile.mkdtemp(prefix="cycle-"))
    with Story(home) as story:
        story.deploy()
        story.create_environment()
        story.work()
        yield story
    shutil.rmtree(home)


def tamper(story: Story, table: str, change: Callable[[bytes], bytes]) -> None:
    """Changes a file of the next export in place, once, between its export and its verification."""
    done: list[str] = []

    def before_verification(event: Any) -> None:
        if not done:
            key = f"snapshots/environment={ENVIRONMENT}/{event['export_id']}/{table}/part-0.parquet"
            # Under the very version that the manifest promises: a new version would not even be looked at.
            stored = get_backend("s3")[story.cloud.account]["aws"].get_object(story.data_bucket, key)
            stored.value = change(stored.value)
            # S3 sends no checksum of its own: the verdict must be ours.
            stored.checksum_algorithm = None
            done.append(key)

    story.cloud.before("verify_file", before_verification)


def one_byte(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def another_valid_file(data: bytes) -> bytes:
    """As many rows, the same schema, and one run that succeeded where it had failed."""
    table = pq.read_table(io.BytesIO(data))
    position = table.column_names.index("state")
    states = table["state"].to_pylist()
    states[states.index("failed")] = "success"
    table = table.set_column(
        position, table.schema.field(position), pa.array(states, table.schema.field(position).type)
    )
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    assert pq.read_metadata(io.BytesIO(file.getvalue())).num_rows == len(states)
    return file.getvalue()


@pytest.mark.parametrize("change", [one_byte, another_valid_file])
def test_a_changed_file_keeps_the_environment(story: Story, change: Callable[[bytes], bytes]) -> None:
    tamper(story, "dag_run", change)
    night = story.sleep()
    assert (night.execution.status, night.execution.path[-1]) == (
        "FAILED",
        "Still awake: the export could not be verified",
    )
    assert "Delete the environment" not in night.execution.path
    assert story.environment_status() == "AVAILABLE"
    assert story.active_before
    assert story.people.active_dags() == story.active_before
    assert story.objects("export/") == []
    assert "Is every row safe?" in night.execution.path, "it is our own verdict that refuses, not an error on the way"
    assert any(night.execution.error in message and night.execution.arn in message for message in story.messages())


@pytest.fixture(scope="module")
def night(story: Story) -> Chapter:
    return story.sleep()


@pytest.fixture(scope="module")
def morning(story: Story, night: Chapter) -> Chapter:
    assert night.execution.path[-1] == "Asleep", night.execution.cause
    assert story.environment_status() == "gone"
    assert story.database_is_gone()
    return story.wake()


def test_the_morning_is_awake(morning: Chapter) -> None:
    assert (morning.execution.status, morning.execution.path[-1]) == ("SUCCEEDED", "Awake"), morning.execution.cause


def test_the_morning_equals_the_evening(story: Story, morning: Chapter) -> None:
    comparison = story.compare()
    assert [str(difference) for difference in comparison.differences] == []
    for table in ("dag_run", "task_instance", "xcom", "variable", "connection", "slot_pool", "dag_run_note", "log"):
        assert comparison.tables[table].before > 0
    assert all(excuse.reason for excuse in comparison.excuses)


def test_the_same_dags_are_active(story: Story, morning: Chapter) -> None:
    assert story.active_after == story.active_before
    assert PAUSED not in story.active_after


def test_no_past_interval_runs_again_and_schedules_go_on(story: Story, morning: Chapter) -> None:
    again, new = story.watch()
    assert again == []
    assert new > 0


def test_history_is_in_the_lake(story: Story, morning: Chapter) -> None:
    rows = story.history_rows()
    assert {"dag_run", "task_instance", "log"} <= set(rows)
    assert rows["dag_run"] >= len(story.evening.rows["dag_run"]) if story.evening else False


def test_the_demo_ends_with_a_report_of_the_bad_nights_and_the_good_one(story: Story, morning: Chapter) -> None:
    told = io.StringIO()
    Demo(story, Console(file=told, width=200)).write_report()
    page = RESULTS / "report.html"
    assert str(page.relative_to(ROOT)) in told.getvalue()
    text = page.read_text()
    nights = [text.count(f"Night: {ended}") for ended in ("failed (ExportNotVerified)", "asleep")]
    assert (nights, text.count("Morning: awake")) == ([2, 1], 1)
    assert [text.count(f'class="verdict {verdict}"') for verdict in ("bad", "good", "unknown")] == [2, 1, 0]
    assert story.evening
    ran = {run["dag_id"] for run in story.evening.rows["dag_run"] if run["start_date"]} - OWN_DAGS
    assert len(ran) > 2
    assert {dag_id for dag_id in ran if f">{dag_id}</button>" in text} == ran


def test_no_secret_is_in_clear_and_the_search_works(story: Story, morning: Chapter) -> None:
    with story.canaries() as canaries:
        found = find({**story.secrets.values, **canaries.values}, story.searched().places())
    # The file in which a byte was changed is still there, and no longer Parquet.
    unreadable = {finding.where for finding in found if finding.secret == UNREADABLE}
    assert len(unreadable) <= 1
    assert {finding.secret for finding in found if finding.where not in unreadable} == set(canaries.values)


def test_a_second_morning_finds_nothing_to_do(story: Story, morning: Chapter) -> None:
    active = story.people.active_dags()
    again = story.wake()
    assert again.execution.status == "SUCCEEDED"
    assert "Create the environment" not in again.execution.path
    assert "Start the restore" not in again.execution.path
    assert story.people.active_dags() == active
