import hashlib
import struct
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.functions.night import DAG_RUN, Columns, parquet
from tests.functions.sums_by_hand import by_hand
from transient_mwaa.aws import export_files
from transient_mwaa.domain.evidence import FileEvidence
from transient_mwaa.domain.manifest import Column, ExportFile, Sums

pytestmark = pytest.mark.functions


def promised(columns: Columns, key_columns: tuple[str, ...] = ()) -> ExportFile:
    return ExportFile(
        table="t",
        role="snapshot",
        part=0,
        key="k",
        version_id="v",
        bytes=0,
        sha256="",
        rows=0,
        schema=tuple(Column(name, str(kind)) for name, (kind, _, _) in columns.items()),
        key_columns=key_columns,
        sums={name: Sums(**by_hand(measure, values)) for name, (_, measure, values) in columns.items()},
    )


def measured(path: Path, columns: Columns, key_columns: tuple[str, ...] = ()) -> FileEvidence:
    body = parquet(columns)
    path.write_bytes(body)
    return export_files.measure(path, len(body), hashlib.sha256(body).hexdigest(), promised(columns, key_columns))


def assert_as_by_hand(path: Path, columns: Columns) -> FileEvidence:
    found = measured(path, columns)
    assert found.problem is None
    assert found.sums is not None
    for name, (_, measure, values) in columns.items():
        own = found.sums[name]
        got = {"measure": own.measure, "count": own.count, "min": own.min, "max": own.max, "sum": own.sum}
        if measure == "float":  # either zero may be the smallest
            got = {key: "0.0" if value == "-0.0" else value for key, value in got.items()}
        assert got == by_hand(measure, values), name
    return found


def test_awkward_values_are_measured_as_by_hand(tmp_path: Path) -> None:
    found = assert_as_by_hand(tmp_path / "f", DAG_RUN)
    assert found.rows == 4
    assert found.schema == promised(DAG_RUN).schema


VALUES: dict[str, tuple[pa.DataType, Any]] = {
    "integer": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "boolean": (pa.bool_(), st.booleans()),
    "float": (pa.float64(), st.floats()),
    "timestamp": (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(UTC))),
    "text": (pa.string(), st.text()),
    "bytes": (pa.binary(), st.binary(max_size=40)),
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*(st.none() | values for _, values in VALUES.values())), max_size=40))
def test_any_values_are_measured_as_by_hand(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]]
) -> None:
    columns = {
        measure: (kind, measure, [row[index] for row in rows])
        for index, (measure, (kind, _)) in enumerate(VALUES.items())
    }
    assert_as_by_hand(tmp_path_factory.getbasetemp() / "any.parquet", columns)


def test_sums_do_not_depend_on_where_batches_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_files, "BATCH_ROWS", 16)
    columns: Columns = {
        "n": (pa.int64(), "integer", [(-1) ** i * (2**62 + i) for i in range(1000)]),
        "s": (pa.string(), "text", [chr(0x20 + i * 7 % 60000) if i % 3 else None for i in range(1000)]),
        "b": (pa.binary(), "bytes", [bytes([i % 256]) * (i % 5) for i in range(1000)]),
        "f": (pa.float64(), "float", [i / 7 if i % 100 else float("nan") for i in range(1000)]),
    }
    assert_as_by_hand(tmp_path / "f", columns)


def test_nulls_in_key_columns_are_counted(tmp_path: Path) -> None:
    found = measured(tmp_path / "f", DAG_RUN, key_columns=("id", "share", "conf", "absent"))
    assert found.key_nulls == {"id": 1, "share": 0, "conf": 1}


def test_rare_types_are_measured_too(tmp_path: Path) -> None:
    own = UUID("00112233-4455-6677-8899-aabbccddeeff")
    table = pa.table(
        {
            "uuid": pa.array([own.bytes], pa.uuid()),
            "uuid_text": pa.array([str(own)]),
            "json": pa.array(["{}"], pa.json_()),
            "day": pa.array([date(1970, 1, 2)]),
            "hour": pa.array([time(0, 0, 1)]),
            "span": pa.array([timedelta(seconds=-1)]),
            "small": pa.array([0.1], pa.float32()),
            "word": pa.array(["x"]).dictionary_encode(),
            "milli": pa.array([datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)], pa.timestamp("ms", "UTC")),
        }
    )
    pq.write_table(table, tmp_path / "f")
    measures = dict.fromkeys(table.column_names, "text") | {"uuid_text": "bytes"}
    wanted = promised({name: (pa.string(), measure, []) for name, measure in measures.items()})
    found = export_files.measure(tmp_path / "f", 0, "", wanted)
    assert found.problem is None
    assert found.sums is not None
    assert found.sums["uuid"].min == found.sums["uuid_text"].min == hashlib.sha256(own.bytes).hexdigest()
    assert found.sums["uuid"].sum == found.sums["uuid_text"].sum == "16"
    assert [found.sums[name].min for name in ("day", "hour", "span", "milli")] == [
        "86400000000",
        "1000000",
        "-1000000",
        "1000000",
    ]
    widened = struct.unpack("<f", struct.pack("<f", 0.1))[0]
    assert found.sums["small"].min == repr(widened)
    assert found.sums["small"].sum == str(struct.unpack("<q", struct.pack("<d", widened))[0])
    kinds = {column.name: column.type for column in found.schema}
    assert (kinds["uuid"], kinds["json"], kinds["word"]) == ("fixed_size_binary[16]", "string", "string")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1]]),
        pa.array([{"a": 1}]),
        pa.nulls(1),
        pa.array([2**64 - 1], pa.uint64()),
        pa.array([1], pa.timestamp("ns", "UTC")),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_a_problem(tmp_path: Path, column: pa.Array) -> None:
    pq.write_table(pa.table({"odd": column}), tmp_path / "f")
    found = export_files.measure(tmp_path / "f", 0, "", promised({}))
    assert found.problem is not None
    assert found.sums is None


@pytest.mark.parametrize("body", [b"", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1", parquet(DAG_RUN)[:-200]])
def test_what_is_no_parquet_is_a_problem(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "f").write_bytes(body)
    assert export_files.measure(tmp_path / "f", 0, "", promised({})).problem is not None


def test_memory_stays_bounded_on_one_big_row_group(tmp_path: Path) -> None:
    rows = 1_000_000
    text = pa.array([f"{i * 2654435761 % 2**32:0100d}" for i in range(20_000)])
    indices = pa.array([i % 20_000 for i in range(rows)])
    table = pa.table({"n": pa.array(range(rows)), "s": text.take(indices), "b": text.take(indices).cast(pa.binary())})
    assert table.nbytes > 200_000_000
    pq.write_table(table, tmp_path / "f", row_group_size=rows, use_dictionary=False, compression="zstd")
    del table, indices
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    try:
        found = export_files.measure(tmp_path / "f", 0, "", promised({}))
    finally:
        pa.set_memory_pool(before)
    assert found.rows == rows
    assert found.sums is not None
    assert found.sums["n"].sum == str(rows * (rows - 1) // 2)
    assert pool.max_memory() < 64_000_000
