"""Our requirements beside the owner's: no line of theirs is lost, and what cannot go together is named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from install.requirements import BEGIN, END, merge

pytestmark = pytest.mark.unit
OURS = (Path(__file__).parents[2] / "dags/requirements.txt").read_text()
LINES = (
    "adbc-driver-manager>=1.11", "adbc-driver-postgresql>=1.11", "aws-encryption-sdk==4.0.7", "pyarrow>=16",
)  # fmt: skip


def block(*lines):
    return "".join(f"{line}\n" for line in (BEGIN, *lines, END))


@pytest.mark.parametrize(
    "theirs", ["", "dbt-core==1.8\n", "dbt-core==1.8", "# mine\n\n-c constraints.txt\r\nfoo[bar]>=1 # why\n"]
)
def test_ours_come_after_theirs(theirs):
    merged = merge(theirs, OURS)
    assert merged.text.startswith(theirs)
    assert merged.text.endswith(block(*LINES))
    assert (merged.added, merged.covered, merged.conflicts) == (LINES, (), ())


@pytest.mark.parametrize("line", ["pyarrow==16.0.0", "PyArrow == 18.1 # pinned", "pyarrow \\\n  == 18.1"])
def test_a_pin_that_fits_stays_and_is_enough(line):
    merged = merge(f"{line}\n", OURS)
    assert merged.text == f"{line}\n" + block(*LINES[:3])
    assert (merged.covered, merged.conflicts) == (("pyarrow>=16",), ())


@pytest.mark.parametrize(
    "line", ["pyarrow==14.0.2", "pyarrow<16", "pyarrow~=15.0", "pyarrow==15.*", "aws-encryption_sdk>=5", "Pyarrow===12"]
)
def test_a_line_that_does_not_fit_is_named_and_kept(line):
    merged = merge(f"{line}\n", OURS)
    (conflict,) = merged.conflicts
    assert f"“{line}” does not fit" in conflict
    assert merged.text.startswith(f"{line}\n")


@pytest.mark.parametrize(
    "line", ["pyarrow", "pyarrow<20", "pyarrow>=15,!=16.0", "pyarrow==16.*", "pyarrow==1; python_version < '3.8'"]
)
def test_a_line_that_leaves_a_choice_stands_beside_ours(line):
    merged = merge(f"{line}\n", OURS)
    assert merged.text == f"{line}\n" + block(*LINES)
    assert merged.conflicts == ()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("pyarrow @ file:///wheels/pyarrow.whl", "from somewhere else"),
        ("--no-index", "make dags-bundle"),
        ("foo==1 --hash=sha256:00", "hashes"),
        ("--require-hashes", "hashes"),
    ],
)
def test_a_file_that_takes_no_line_of_ours(line, told):
    (conflict,) = merge(f"{line}\n", OURS).conflicts
    assert told in conflict


def test_a_comment_is_no_line():
    assert merge("# pyarrow==1\n# --no-index\n", OURS).conflicts == ()


def test_again_changes_nothing_and_a_new_release_replaces_our_part_alone():
    once = merge("dbt-core==1.8\n", OURS).text
    assert merge(once, OURS).text == once
    assert merge(once + "mine-too\n", OURS).text == once + "mine-too\n"
    newer = merge(once + "mine-too\n", OURS.replace("pyarrow>=16", "pyarrow>=17"))
    assert newer.text == "dbt-core==1.8\nmine-too\n" + block(*LINES[:3], "pyarrow>=17")


def test_what_somebody_wrote_into_our_part_is_named():
    (conflict,) = merge(block(*LINES, "mine"), OURS).conflicts
    assert "“mine”" in conflict


def test_a_part_without_its_end_is_theirs():
    theirs = f"{BEGIN}\npyarrow==18\n"
    assert merge(theirs, OURS).text.startswith(theirs)


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\n"), max_size=20)))
def test_no_line_of_theirs_is_lost(lines):
    theirs = "".join(f"{line}\n" for line in lines)
    merged = merge(theirs, OURS)
    assert merged.text.startswith(theirs)
    assert merge(merged.text, OURS).text == merged.text
