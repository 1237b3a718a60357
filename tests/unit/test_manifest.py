import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import promise
from transient_mwaa.domain import manifest
from transient_mwaa.domain.errors import ManifestInvalid

pytestmark = pytest.mark.unit


def test_a_whole_manifest_is_understood() -> None:
    own = promise.parse(promise.document())
    assert own.rows == 3 * 7 + 6 + 2 + 2
    assert [file.table for file in own.history_files] == ["dag_run", "import_error"]
    assert own.history_since is not None
    assert own.snapshot_at.tzinfo is not None


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every member and item in a JSON value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for name, inner in entries for place in [(*here, name), *paths(inner, (*here, name))]]


def at(own: Any, path: tuple[Any, ...]) -> Any:
    for name in path:
        own = own[name]
    return own


PATHS = paths(promise.document())


@given(st.sampled_from(PATHS))
def test_a_manifest_with_a_gap_is_refused_or_promises_something_else(path: tuple[Any, ...]) -> None:
    own = promise.document()
    del at(own, path[:-1])[path[-1]]
    # Only what may be absent (a table nobody needs, a key column) leaves a manifest; it is never the same one.
    with contextlib.suppress(ManifestInvalid):
        assert promise.parse(own) != promise.parse(promise.document())


@given(st.sampled_from(PATHS), st.sampled_from([None, True, -1, 1.5, "", "x", [], {}, [[]], {"x": 1}]))
def test_a_manifest_with_another_value_is_refused_or_promises_something_else(path: tuple[Any, ...], value: Any) -> None:
    own = promise.document()
    if json.dumps(at(own, path)) == json.dumps(value):
        return
    at(own, path[:-1])[path[-1]] = value
    with contextlib.suppress(ManifestInvalid):
        assert promise.parse(own) != promise.parse(promise.document())


@pytest.mark.parametrize(
    "place", [(), ("history",), ("tables", "dag"), ("files", 0), ("secrets",), ("secrets", "rows")]
)
def test_an_unknown_member_is_refused_by_name(place: tuple[Any, ...]) -> None:
    own = promise.document()
    at(own, place)["surprise"] = 1
    with pytest.raises(ManifestInvalid, match="unknown member surprise"):
        promise.parse(own)


@pytest.mark.parametrize("version", [0, 2, "1", None, True, 1.0])
def test_another_manifest_version_is_refused(version: Any) -> None:
    own = promise.document() | {"manifest_version": version}
    with pytest.raises(ManifestInvalid, match="manifest_version is"):
        promise.parse(own)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b'"x"', b"\xff", b'{"manifest_version": 1, "manifest_version": 1}']
)
def test_what_is_no_manifest_is_refused(body: bytes) -> None:
    with pytest.raises(ManifestInvalid):
        manifest.parse(body, promise.ENVIRONMENT, promise.EXPORT_ID)


def broken(change: str) -> dict[str, Any]:
    own = promise.document()
    exec(change, {"m": own, "dag": own["files"][0], "run": own["files"][1], "history": own["files"][9]})
    return own


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("m['environment'] = 'prod'", "about the environment prod"),
        ("m['export_id'] = m['run_id'] = 'other'", "about the export other"),
        ("m['run_id'] = 'other'", "run_id differs"),
        ("m['dag_id'] = 'my_dag'", "dag_id is not one of db_export_dag"),
        ("m['reader'] = 'rest'", "reader is not one of database"),
        ("m['max_log_id'] = -1", "max_log_id is not"),
        ("m['max_log_id'] = 4", "max_log_id is 4, the greatest id in the exported log is 3"),
        ("m['max_log_id'] = 2", "max_log_id is 2, the greatest id in the exported log is 3"),
        ("m['files'][2]['sums']['id'].update(max='2', sum='5')", "max_log_id is 3, the greatest id .* is 2"),
        ("m['snapshot_at'] = '2026-11-22T23:05:10'", "snapshot_at is not"),
        ("m['history']['since'] = '2026-11-22T23:05:01+00:00'", "since lies after"),
        ("m['history']['watermark'] = '2026-11-22T23:05:11+00:00'", "watermark lies after"),
        ("dag['key'] = dag['key'].replace('dev', 'prod')", "its key is"),
        ("dag['key'] = 'export/dag/part-0.parquet'", "its key is"),
        ("dag['key'] = dag['key'].replace('/dag/', '/../dag/')", "its key is"),
        ("dag['table'] = '../dag'", "table is not a text of the right shape"),
        ("m['files'].append(dict(dag))", "stands there 2 times"),
        ("dag['version_id'] = 'null'", "version_id is not"),
        ("dag['version_id'] = ''", "version_id is not"),
        ("dag['sha256'] = 'A' * 64", "sha256 is not"),
        ("dag['bytes'] = 0", "bytes is not"),
        ("dag['rows'] = 4", "the key column id is empty in 1 rows; the table dag has 3 rows, its files hold 4"),
        ("m['tables']['dag']['rows'] = 4", "the table dag has 4 rows, its files hold 3"),
        ("del m['files'][1]", "the table dag_run has 6 rows, its files hold 3"),
        ("del m['files'][0]", "the table dag has no file"),
        ("m['files'].pop()", "the history of import_error has 3 rows, its files hold 0"),
        ("del m['history']['rows']['import_error']", "the history of import_error has 0 rows, its files hold 3"),
        ("del m['files'][0]; m['tables']['dag']['rows'] = 0", "the table dag has no file"),
        ("del m['tables']['dag']", "the table dag is not in the list; a file of the unknown table dag"),
        ("del m['tables']['variable']", "the table variable is not in the list"),
        ("del m['tables']['task_reschedule']", "the table task_reschedule is not in the list"),
        ("m['tables']['task_reschedule']['rows'] = 1", "the table task_reschedule has no file"),
        ("m['airflow_version'] = '3.0.6'", "the table dag_version is not in the list"),
        ("m['airflow_version'] = '4.0.0'", "nobody knows which tables Airflow 4.0.0 has"),
        ("m['tables']['xcom']['carried'] = 'excluded'", "the table xcom is excluded and has a file"),
        ("m['tables']['xcom'].update(carried='excluded', reason='big'); m['files'].pop(7)", "xcom may not be excluded"),
        ("m['tables']['hitl_detail'] = {'rows': 1, 'carried': 'excluded', 'reason': 'new'}", "hitl_detail may not be"),
        ("m['tables']['alembic_version']['reason'] = None", "excluded without a reason"),
        ("m['tables']['variable']['carried'] = 'excluded'", "variable may not be carried as excluded"),
        ("m['tables']['dag']['carried'] = 'secrets'", "dag may not be carried as secrets"),
        ("dag['table'] = 'variable'", "holds secrets and must not be Parquet"),
        ("history['table'] = 'session'", "the table session holds secrets and must not be Parquet"),
        ("m['files'][6]['schema'][4][0] = 'kwargs'",
         "trigger.kwargs holds secrets"),
        ("dag['schema'].append(['id', 'int64'])", "id stands there twice"),
        ("dag['schema'] = []", "it has no columns"),
        ("dag['schema'][0] = ['id']", "is not \\[name, type\\]"),
        ("del dag['sums']['name']", "no sums for the column name"),
        ("dag['sums']['more'] = dag['sums']['name']", "sums for the unknown column more"),
        ("dag['key_columns'] = []", "file 0: it names no key column"),
        ("history['key_columns'] = []", "file 9: it names no key column"),
        ("dag['sums']['dag_id']['count'] = 2", "the key column dag_id is empty in 1 rows"),
        ("run['schema'].remove(['run_id', 'string']); del run['sums']['run_id']",
         "the key column run_id is not in its schema"),
        ("dag['key_columns'] = ['nothing']", "key column nothing is not in its schema"),
        ("dag['key_columns'] = ['ok']", "the key column ok is empty in 1 rows"),
        ("dag['sums']['id']['count'] = 4", "id has 4 values in 3 rows"),
        ("dag['sums']['id']['sum'] = None", "sum does not fit a integer column"),
        ("dag['sums']['id']['sum'] = '06'", "sum does not fit"),
        ("dag['sums']['id']['min'] = '1.0'", "min does not fit"),
        ("dag['sums']['ok']['min'] = '0'", "min does not fit a boolean"),
        ("dag['sums']['share']['min'] = '1'", "min does not fit a float"),
        ("dag['sums']['share']['max'] = 'nan'", "max does not fit a float"),
        ("dag['sums']['name']['max'] = 'Zoe'", "max does not fit a text"),
        ("dag['sums']['raw']['max'] = 'd' * 32", "max does not fit a bytes"),
        ("dag['sums']['empty']['sum'] = '0'", "sum does not fit a text column with 0 values"),
        ("run['schema'][0][1] = 'int32'", "the parts of dag_run have different columns"),
        ("m['secrets']['key'] = 'secrets.enc'", "secrets: its key is"),
        ("m['secrets']['rows']['variable'] = 1", "secrets: 1 rows of variable, the table has 2"),
        ("m['secrets']['rows']['ab_user'] = 1", "secrets: 1 rows of ab_user, the table has 0"),
    ],
)  # fmt: skip
def test_a_manifest_that_contradicts_itself_is_refused_with_its_reason(change: str, reason: str) -> None:
    with pytest.raises(ManifestInvalid, match=reason):
        promise.parse(broken(change))


def test_every_reason_is_named_at_once() -> None:
    with pytest.raises(ManifestInvalid) as refused:
        promise.parse(broken("m['environment'] = 'prod'; dag['rows'] = 4; m['secrets']['rows']['variable'] = 1"))
    for reason in ("the environment prod", "the table dag has 3 rows", "1 rows of variable"):
        assert reason in str(refused.value)


def test_a_thousand_reasons_still_make_a_message_of_bounded_length() -> None:
    own = promise.document()
    own["files"] = [{}] * 500
    with pytest.raises(ManifestInvalid, match=r"and [0-9]+ more") as refused:
        promise.parse(own)
    assert len(str(refused.value)) < 20_000


def test_an_export_of_another_incarnation_or_of_unknown_origin_is_refused() -> None:
    for incarnation in (None, "2026-11-21T08:00:00+00:00"):
        own = promise.parse(promise.document() | {"incarnation": incarnation})
        with pytest.raises(ManifestInvalid, match="was made by the incarnation"):
            own.require_incarnation(promise.INCARNATION)
    with pytest.raises(ManifestInvalid):
        promise.parse(promise.document() | {"incarnation": None}).require_incarnation("")


def test_a_history_manifest_is_understood_by_whoever_asks_for_one_and_refused_by_all_others() -> None:
    own = promise.extract_document()
    extract = promise.parse(own, "history")
    assert [file.table for file in extract.history_files] == [file.table for file in extract.files]
    assert extract.secrets is None
    assert extract.rows == 6
    with pytest.raises(ManifestInvalid, match="of the mode history, not complete"):
        promise.parse(own)
    with pytest.raises(ManifestInvalid, match="of the mode complete, not history"):
        promise.parse(promise.document(), "history")
    nothing_new = own | {"files": [], "history": {**own["history"], "rows": {"dag_run": 0}}}
    assert promise.parse(nothing_new, "history").rows == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mode": "partial"}, "mode is not one of complete, history"),
        ({"tables": {"dag": {"rows": 0, "carried": "snapshot", "reason": None}}}, "it lists tables"),
        ({"secrets": promise.document()["secrets"]}, "it has secrets"),
        ({"files": promise.document()["files"][:1]}, "file 0 is no history"),
        ({"dag_id": "another"}, "dag_id is not"),
    ],
)
def test_a_history_manifest_holds_nothing_but_history(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ManifestInvalid, match=reason):
        promise.parse(promise.extract_document() | change, "history")


def test_no_disguise_makes_an_extract_a_complete_export() -> None:
    with pytest.raises(ManifestInvalid, match="secrets is not an object"):
        promise.parse(promise.extract_document() | {"mode": "complete"})
    with pytest.raises(ManifestInvalid, match="the table dag_run is not in the list"):
        promise.parse(promise.extract_document() | {"mode": "complete", "secrets": promise.document()["secrets"]})
    with pytest.raises(ManifestInvalid, match="secrets is not an object"):
        promise.parse(promise.document() | {"secrets": None})
