import json
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import promise
from tests.unit.test_manifest import PATHS, at
from transient_mwaa.domain.errors import ExportNotVerified, ManifestInvalid
from transient_mwaa.domain.evidence import FileEvidence, Finding, SecretsEvidence, secret_rows
from transient_mwaa.domain.manifest import Column, Sums
from transient_mwaa.domain.verdict import Verdict, file_reasons, judge, require_good

pytestmark = pytest.mark.unit

PROMISED = promise.parse(promise.document())


def test_an_export_as_promised_is_good() -> None:
    verdict = promise.verdict(PROMISED)
    assert verdict.good, verdict.reasons
    assert verdict.rows == PROMISED.rows
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


FREE = {"airflow_version", "alembic_revision", "reason", "watermark"}
"""Members about which nothing that was read back can say anything."""
UNCARRIED = ("tables", "alembic_version")
"""A table that is not carried, and that not every Airflow has: only the writer, who asks the live schema, knows it."""
READ_BY = ("secrets", "version_id")
"""What is read back is read by it, so that another version is no evidence at all."""
CHECKED = [
    path for path in PATHS if path[-1] not in FREE and path[:2] != UNCARRIED and path not in (("tables",), READ_BY)
]


def changed(value: Any) -> Any:
    """Another value of the same type, as a slip or a forger would make it."""
    if isinstance(value, bool) or value is None:
        return st.sampled_from(["0", "1"])
    if isinstance(value, int):
        return st.integers(0, 10_000).filter(lambda other: other != value)
    if isinstance(value, str):
        one = st.tuples(st.integers(0, len(value) - 1), st.sampled_from("0123456789abcdef"))
        return one.map(lambda pair: value[: pair[0]] + pair[1] + value[pair[0] + 1 :]).filter(lambda o: o != value)
    return st.just(value[:-1] if isinstance(value, list) else dict(list(value.items())[:-1]))


@settings(deadline=None)
@given(st.data())
def test_any_single_change_of_the_promise_is_noticed(data: st.DataObject) -> None:
    own = promise.document()
    path = data.draw(st.sampled_from(CHECKED))
    before = at(own, path)
    after = data.draw(changed(before)) if before not in ([], {}) else ["x"]
    at(own, path[:-1])[path[-1]] = after
    everything = promise.circumstances(PROMISED)
    try:
        altered = promise.parse(own)
    except ManifestInvalid:
        return
    if altered == PROMISED:  # "-0.0" and the like never: but 1 and 1 written otherwise is no change
        return
    if path == ("incarnation",) and not after:
        return
    if path == ("history", "rows") and list(before.values())[-1] == 0:
        return  # a table of which there is no row may as well go unnamed
    since = PROMISED.history_since
    assert since is not None
    if path == ("history", "since") and (altered.history_since is None or altered.history_since <= since):
        return  # it begins earlier than it had to
    verdict = judge(altered, **everything)
    assert not verdict.good, (path, before, after)


def other(value: Any) -> Any:
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return value + "0"
    if value is None:
        return "0"
    raise AssertionError(value)


@given(st.integers(0, len(PROMISED.files) - 1), st.sampled_from(["bytes", "sha256", "rows", "problem"]))
def test_any_other_measure_of_a_file_makes_it_bad(index: int, name: str) -> None:
    found = promise.evidence(PROMISED)
    found[index] = replace(found[index], **{name: other(getattr(found[index], name))})
    assert_bad(found, index)


@given(
    st.integers(0, len(PROMISED.files) - 1),
    st.sampled_from(list(PROMISED.files[0].sums)),
    st.sampled_from([field.name for field in fields(Sums)]),
)
def test_any_other_sum_of_a_column_makes_it_bad_and_is_named(index: int, column: str, name: str) -> None:
    found = promise.evidence(PROMISED)
    sums = dict(found[index].sums or {})
    sums[column] = replace(sums[column], **{name: other(getattr(sums[column], name))})
    found[index] = replace(found[index], sums=sums)
    assert_bad(found, index, f"{column}: {name} is ")


@given(st.integers(0, len(PROMISED.files) - 1), st.sampled_from(["lost", "renamed", "retyped", "swapped", "added"]))
def test_any_other_schema_makes_it_bad(index: int, how: str) -> None:
    found = promise.evidence(PROMISED)
    first, second, *rest = found[index].schema
    schema = {
        "lost": (second, *rest),
        "renamed": (Column("other", first.type), second, *rest),
        "retyped": (Column(first.name, "int32"), second, *rest),
        "swapped": (second, first, *rest),
        "added": (first, second, *rest, Column("more", "string")),
    }[how]
    found[index] = replace(found[index], schema=schema)
    assert_bad(found, index, "its columns are")


@pytest.mark.parametrize("nulls", [None, {}, {"id": 1}, {"other": 0}])
def test_key_columns_must_be_known_to_be_full(nulls: dict[str, int] | None) -> None:
    found = promise.evidence(PROMISED)
    found[0] = replace(found[0], key_nulls=nulls)
    assert_bad(found, 0, "the key column id is empty")


@pytest.mark.parametrize("sums", [None, {}])
def test_sums_that_nobody_computed_are_not_good(sums: Any) -> None:
    found = promise.evidence(PROMISED)
    found[0] = replace(found[0], sums=sums)
    assert_bad(found, 0, "id: its sums were not computed")


def assert_bad(found: list[FileEvidence], index: int, reason: str = "") -> None:
    assert any(reason in own for own in file_reasons(PROMISED.files[index], found[index]))
    findings = promise.findings(PROMISED, found)
    verdict = promise.verdict(PROMISED, findings=findings)
    assert not verdict.good
    assert all(own.startswith(PROMISED.files[index].key) for own in verdict.reasons)
    # A finding that claims to be good is not believed against its own evidence.
    liar = findings[index]
    assert liar is not None
    findings[index] = replace(liar, reasons=())
    assert not promise.verdict(PROMISED, findings=findings).good


@pytest.mark.parametrize("index", range(len(PROMISED.files)))
def test_every_file_needs_its_own_finding(index: int) -> None:
    whole = promise.findings(PROMISED, promise.evidence(PROMISED))
    missing = [*whole[:index], None, *whole[index + 1 :]]
    verdict = promise.verdict(PROMISED, findings=missing)
    assert verdict.reasons == (f"{PROMISED.files[index].key}: nobody has verified it",)
    assert not promise.verdict(PROMISED, findings=whole[:index]).good
    borrowed = [*whole[:index], whole[index - 1], *whole[index + 1 :]]
    assert not promise.verdict(PROMISED, findings=borrowed).good


@pytest.mark.parametrize("name", [field.name for field in fields(Finding) if field.name not in ("reasons", "evidence")])
def test_a_finding_about_anything_else_does_not_count(name: str) -> None:
    findings = promise.findings(PROMISED, promise.evidence(PROMISED))
    assert findings[2] is not None
    findings[2] = replace(findings[2], **{name: other(getattr(findings[2], name))})
    assert not promise.verdict(PROMISED, findings=findings).good


def test_a_bad_finding_counts_even_if_its_evidence_agrees() -> None:
    findings = promise.findings(PROMISED, promise.evidence(PROMISED))
    assert findings[2] is not None
    findings[2] = replace(findings[2], reasons=("something else",))
    assert not promise.verdict(PROMISED, findings=findings).good


def test_findings_survive_json_and_contradictory_ones_do_not() -> None:
    for finding in promise.findings(PROMISED, promise.evidence(PROMISED)):
        assert finding is not None
        written = json.loads(json.dumps(finding.to_json()))
        assert Finding.from_json(written) == finding
        columns = {"evidence": {**written["evidence"], "schema": [{"name": ["id"], "type": "int64"}]}}
        altered = ({"good": False}, {"reasons": ["x"]}, {"more": 1}, {"index": [0]}, {"index": True}, columns)
        for wrong in ({"good": True}, *(written | change for change in altered)):
            with pytest.raises((KeyError, TypeError, ValueError)):
                Finding.from_json(wrong)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"incarnation": "2026-11-22T09:00:00+00:00"}, "it was made by the incarnation"),
        ({"incarnation": ""}, "it was made by the incarnation"),
        ({"now": promise.NOW + timedelta(hours=2)}, "is too old"),
        ({"now": promise.NOW - timedelta(hours=1)}, "lies in the future"),
        ({"verified": []}, "its history begins at 2026-11-21T23:05:00+00:00, but what was verified is empty"),
        ({"verified": [promise.pointer("2026-11-20T23:05:00Z")]}, "but what was verified ends at 2026-11-20"),
        ({"secrets": SecretsEvidence(701, "d" * 64, dict(PROMISED.secrets.rows))}, "secrets: 700 bytes were promised"),
        ({"secrets": SecretsEvidence(700, "e" * 64, dict(PROMISED.secrets.rows))}, "SHA-256 differs"),
        ({"secrets": SecretsEvidence(700, "d" * 64, None, "wrong key")}, "could not be checked: wrong key"),
        ({"secrets": SecretsEvidence(700, "d" * 64, None)}, "could not be checked"),
        (
            {"secrets": SecretsEvidence(700, "d" * 64, {**PROMISED.secrets.rows, "variable": 0})},
            "2 rows of variable were promised, 0",
        ),
        ({"totals": {}}, "variable: Airflow's REST API counts nothing, the database counted 2"),
        *(
            (
                {"totals": promise.circumstances(PROMISED)["totals"] | {table: 99}},
                f"{table}: Airflow's REST API counts 99",
            )
            for table in ("connection", "dag_run", "slot_pool", "task_instance", "variable", "unknown_table")
        ),
    ],
)
def test_each_thing_that_does_not_agree_is_the_one_reason(changed: dict[str, Any], reason: str) -> None:
    verdict = promise.verdict(PROMISED, **changed)
    assert not verdict.good
    assert any(reason in own for own in verdict.reasons)
    assert len(verdict.reasons) == (1 if "totals" not in changed or changed["totals"] else 4)


@pytest.mark.parametrize("table", ["connection", "dag_run", "slot_pool", "variable"])
def test_a_total_that_airflow_did_not_give_is_a_reason(table: str) -> None:
    totals = promise.circumstances(PROMISED)["totals"]
    del totals[table]
    assert len(promise.verdict(PROMISED, totals=totals).reasons) == 1


def test_a_first_export_has_all_history() -> None:
    own = promise.document()
    own["history"]["since"] = None
    first = promise.parse(own)
    assert promise.verdict(first, verified=[]).good
    assert promise.verdict(first).good, "rows that come twice count once"


def test_history_may_begin_anywhere_before_the_newest_that_was_verified_of_either_mode() -> None:
    older, since, newer = (promise.pointer(f"2026-11-{day}T23:05:00+00:00") for day in (20, 21, 22))
    for verified in ([since], [older, since], [since, older], [newer], [newer, older]):
        assert promise.verdict(PROMISED, verified=verified).good, verified
    for verified in ([], [older], [older, older]):
        assert len(promise.verdict(PROMISED, verified=verified).reasons) == 1, verified


EXTRACT = promise.parse(promise.extract_document(), "history")


def test_an_extract_as_promised_is_good_but_proves_nothing_about_a_night() -> None:
    verdict = promise.extract_verdict(EXTRACT)
    assert verdict.good, verdict.reasons
    assert verdict.rows == EXTRACT.rows == 6
    about = (promise.ENVIRONMENT, promise.EXPORT_ID, promise.KEY, promise.VERSION)
    require_good(verdict, *about, "history")
    with pytest.raises(ExportNotVerified, match="of the mode history, not complete"):
        require_good(verdict, *about)
    with pytest.raises(ExportNotVerified, match="of the mode complete, not history"):
        require_good(promise.verdict(PROMISED), *about, "history")
    assert "it holds nothing but history" in judge(EXTRACT, **_night_of_an_extract()).reasons
    assert "it is no history extract" in promise.extract_verdict(PROMISED).reasons


def _night_of_an_extract() -> dict[str, Any]:
    found = promise.findings(EXTRACT, promise.evidence(EXTRACT))
    return promise.circumstances(PROMISED) | {"findings": found}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"incarnation": "2026-11-22T09:00:00+00:00"}, "it was made by the incarnation"),
        ({"now": promise.NOW + timedelta(hours=2)}, "is too old"),
        ({"verified": [promise.pointer("2026-11-20T23:05:00Z")]}, "but what was verified ends at 2026-11-20"),
        ({"findings": [None, *promise.findings(EXTRACT, promise.evidence(EXTRACT))[1:]]}, "nobody has verified it"),
    ],
)
def test_each_thing_that_is_wrong_with_an_extract_is_the_one_reason(changed: dict[str, Any], reason: str) -> None:
    (found,) = promise.extract_verdict(EXTRACT, **changed).reasons
    assert reason in found


def test_only_a_good_verdict_about_this_very_manifest_is_good_enough() -> None:
    about = (promise.ENVIRONMENT, promise.EXPORT_ID, promise.KEY, promise.VERSION)
    good = promise.verdict(PROMISED)
    require_good(good, *about)
    bad = promise.verdict(PROMISED, incarnation="other")
    for verdict in (None, bad):
        with pytest.raises(ExportNotVerified):
            require_good(verdict, *about)
    for index in range(4):
        with pytest.raises(ExportNotVerified):
            require_good(good, *(value + "x" if place == index else value for place, value in enumerate(about)))


ROWS = {
    "variable": [{"key": "a", "val": "1", "is_encrypted": True}],
    "connection": [{"conn_id": "c", "password": None}],
    "trigger": [{"id": 1, "kwargs": "{}"}, {"id": 2, "kwargs": "{}"}],
    "ab_user": [],
}


def test_opened_secrets_are_counted() -> None:
    assert secret_rows(json.dumps(ROWS).encode()) == {"variable": 1, "connection": 1, "trigger": 2, "ab_user": 0}


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {},
        ROWS | {"more": []},
        ROWS | {"variable": {}},
        ROWS | {"variable": ["hunter2"]},
        ROWS | {"variable": [{"key": "hunter2"}]},
        ROWS | {"variable": [{"val": "hunter2"}]},
        ROWS | {"trigger": [{"id": 1, "kwargs": "hunter2"}] * 2},
    ],
)
def test_secrets_of_another_form_are_refused_without_telling_them(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^(?!.*hunter2)") as refused:
        secret_rows(json.dumps(wrong).encode())
    assert "hunter2" not in str(refused.value)
    with pytest.raises(ValueError, match="not JSON") as refused:
        secret_rows(b"hunter2")
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__
