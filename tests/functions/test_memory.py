"""The gate's memory does not grow with the size of a file; that exporters write small ones is not relied upon."""

import errno
import hashlib
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.functions.test_export_files import promised
from transient_mwaa.aws.bucket import Bucket
from transient_mwaa.aws.export_files import ExportFiles

pytestmark = pytest.mark.laws

ROOT = Path(__file__).parents[2]
MB = 1024 * 1024
ROWS = 62_500
TEXTS = pa.schema([("id", pa.int64()), ("text", pa.string()), ("octets", pa.binary())])

EXAMINE = """
import json, resource, sys
from pathlib import Path
from transient_mwaa.aws.bucket import Bucket
from transient_mwaa.aws.export_files import ExportFiles
from transient_mwaa.domain.manifest import ExportFile

class Disk:
    def get_object(self, Bucket, Key, VersionId):
        return {"Body": open(Key, "rb")}

def examine(key, size, sha256):
    promised = ExportFile("t", "snapshot", 0, key, "v", size, sha256, 0, (), (), {})
    return ExportFiles(Bucket("data", Disk()), Path(key).parent).examine(promised)

warm_up, file = json.loads(sys.argv[1])
examine(*warm_up)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = examine(*file)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // (1024 if sys.platform == "darwin" else 1)
print(json.dumps({"kilobytes": grown, "rows": found.rows, "problem": found.problem, "text": found.sums["text"].sum}))
"""


def stored(path: Path) -> tuple[str, int, str]:
    with path.open("rb") as file:
        return str(path), path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def examined(tmp_path: Path, file: Path) -> tuple[float, dict[str, Any]]:
    """By how many megabytes a process of its own grows while it examines this file, and what it found."""
    small = tmp_path / "small.parquet"
    pq.write_table(pa.table({"id": [1], "text": ["a"], "octets": [b"a"]}, schema=TEXTS), small)
    # A process inherits its parent's peak, and pytest has a high one: a shell stands between.
    answer = subprocess.run(
        [
            "/bin/sh",
            "-c",
            '"$0" "$@"; exit $?',
            sys.executable,
            "-c",
            EXAMINE,
            json.dumps([stored(small), stored(file)]),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(answer.stdout)
    assert found["problem"] is None
    return found["kilobytes"] / 1024, found


def written(path: Path, row_groups: int, *, together: bool = False) -> Path:
    """About 10 MB a row group, of bytes that do not compress; `together` makes one row group of them all."""
    groups = [
        pa.table(
            {
                "id": range(number * ROWS, (number + 1) * ROWS),
                "text": [f"{row * 2654435761 % 2**32:070d}" for row in range(number * ROWS, (number + 1) * ROWS)],
                "octets": [os.urandom(70) for _ in range(ROWS)],
            },
            schema=TEXTS,
        )
        for number in range(row_groups)
    ]
    with pq.ParquetWriter(path, TEXTS, use_dictionary=False, compression="none") as writer:
        for table in [pa.concat_tables(groups)] if together else groups:
            writer.write_table(table, row_group_size=table.num_rows)
    return path


def test_memory_does_not_grow_with_the_size_of_a_file(tmp_path: Path) -> None:
    small, large = written(tmp_path / "2.parquet", 2), written(tmp_path / "12.parquet", 12)
    one = written(tmp_path / "one.parquet", 12, together=True)
    assert small.stat().st_size > 18 * MB
    assert large.stat().st_size > 6 * small.stat().st_size - MB
    grown = [examined(tmp_path, path)[0] for path in (small, large, one)]
    assert max(grown) < 64, grown
    assert max(grown) - grown[0] < 16, grown


def test_one_long_text_in_many_rows_is_not_unfolded(tmp_path: Path) -> None:
    """A dictionary makes a file of a megabyte out of 20 GB."""
    texts = pa.array([f"{number}{'x' * 100_000}" for number in range(5)])
    folded = pa.DictionaryArray.from_arrays(pa.array([row % 5 for row in range(200_000)], pa.int32()), texts)
    pq.write_table(pa.table({"text": folded}), tmp_path / "f.parquet", store_schema=False)
    assert (tmp_path / "f.parquet").stat().st_size < 2 * MB
    grown, found = examined(tmp_path, tmp_path / "f.parquet")
    assert found["text"] == str(200_000 * 100_001)
    assert grown < 128, grown


@pytest.mark.parametrize("dictionary", [True, False])
def test_long_texts_that_all_stand_together_are_read_a_page_at_a_time(tmp_path: Path, dictionary: bool) -> None:
    """600 MB of them after half a million short ones: on average each row has about a kilobyte."""
    texts = ["a"] * 500_000 + [f"{number:06d}" * 5000 for number in range(20_000)]
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"text": texts}), path, row_group_size=600_000, use_dictionary=dictionary)
    grown, found = examined(tmp_path, path)
    assert found["text"] == str(500_000 + 20_000 * 30_000)
    assert grown < 300, grown


def test_a_folded_column_is_measured_like_any_other(tmp_path: Path) -> None:
    texts = ["b", "", None, "Zürich \U0001f600", "b", "b", None, "\uffff"]
    octets = [None if text is None else text.encode() for text in texts]
    table = pa.table({"text": texts, "octets": pa.array(octets, pa.binary())})
    found = []
    for dictionary in (True, False):
        path = tmp_path / f"{dictionary}.parquet"
        pq.write_table(table, path, use_dictionary=dictionary)
        key, size, sha256 = stored(path)
        own = promised({"text": (pa.string(), "text", texts), "octets": (pa.binary(), "bytes", octets)}, ("text",))
        evidence = ExportFiles(Bucket("data", Disk())).examine(replace(own, key=key, bytes=size, sha256=sha256))
        assert evidence.problem is None
        assert evidence.sums == own.sums
        assert evidence.key_nulls == {"text": 2}
        found.append((evidence.rows, evidence.schema))
    assert found[0] == found[1]


class Disk:
    """S3 as a folder."""

    def get_object(self, Bucket: str, Key: str, VersionId: str) -> dict[str, Any]:  # noqa: N803 - boto3's names
        return {"Body": Path(Key).open("rb")}


class FullDisk(io.BytesIO):
    """A temporary file that takes nothing."""

    def __init__(self, **_: Any) -> None:
        super().__init__()

    def write(self, _: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_that_the_disk_does_not_hold_could_not_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "f.parquet", 1)
    key, size, sha256 = stored(path)
    file = replace(promised({}), key=key, bytes=size, sha256=sha256)
    monkeypatch.setattr("transient_mwaa.aws.export_files.tempfile.NamedTemporaryFile", FullDisk)
    evidence = ExportFiles(Bucket("data", Disk())).examine(file)
    assert evidence.problem == "it does not fit on the disk: No space left on device"
