"""Glue jobs on this machine: a job run is the job's own script, run by local Spark.

Spark here reads no s3:// paths, so the objects that `--input` names are fetched into a folder first, and what the
script left in the folder for `--output` is put into the bucket when it has ended well.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

SPARK_PYTHON = Path(__file__).parent.parent / ".venv-glue/bin/python"
SPARK_OPTIONS = "--master local[2] --conf spark.ui.enabled=false --conf spark.sql.shuffle.partitions=4 pyspark-shell"
TIMEOUT_SECONDS = 300


class JobOutcome(NamedTuple):
    """How a job run ended: `state` is one of Glue's JobRunState, `message` becomes its ErrorMessage ("" = none)."""

    state: str
    message: str = ""


def why_no_spark(spark_python: Path = SPARK_PYTHON) -> str | None:
    """What is missing to run Spark on this machine, or None."""
    java = shutil.which("java", path=os.environ.get("JAVA_HOME", "") + "/bin") or shutil.which("java")
    if java is None:
        return "no Java here"
    if not spark_python.exists():
        return f"no {spark_python.parent.parent.name} here"
    return None


@dataclass(frozen=True)
class LocalSpark:
    """Runs Glue scripts. `s3` is a boto3 client; each run leaves its log as <logs>/<run id>.log."""

    s3: Any
    logs: Path
    spark_python: Path = SPARK_PYTHON

    def run(self, run_id: str, script_location: str, arguments: Mapping[str, str]) -> JobOutcome:
        """Runs the script at an s3:// URI with the job's arguments. Blocking; a failure is an outcome, not raised."""
        missing = why_no_spark(self.spark_python)
        if missing:
            return JobOutcome("SUCCEEDED", f"Simulated, the script was not run: {missing}.")
        try:
            with tempfile.TemporaryDirectory(prefix="glue-") as folder:
                return self._run_in(Path(folder), run_id, script_location, arguments)
        except Exception as problem:
            return JobOutcome("FAILED", f"{type(problem).__name__}: {problem}")

    def _run_in(self, folder: Path, run_id: str, script_location: str, arguments: Mapping[str, str]) -> JobOutcome:
        script = self._fetch(script_location, folder / "script")
        paths = dict(arguments)
        if "--input" in paths:
            paths["--input"] = str(self._fetch(paths["--input"], folder / "input"))
        output = folder / "output"
        destination = paths.get("--output")
        if destination:
            paths["--output"] = str(output)

        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{run_id}.log"
        with log.open("wb") as file:
            ended = subprocess.run(
                [str(self.spark_python), str(script), *(word for pair in paths.items() for word in pair)],
                cwd=folder,
                # The hostname of a container often resolves to nothing, and Spark asks for it.
                env=os.environ | {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_SUBMIT_ARGS": SPARK_OPTIONS},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        if ended.returncode != 0:
            return JobOutcome("FAILED", f"The script ended with {ended.returncode}; see {log}.")
        if destination:
            self._put(output, destination)
        return JobOutcome("SUCCEEDED")

    def _fetch(self, uri: str, into: Path) -> Path:
        """The object, or all objects under the prefix, as a file or a folder on disk. Raises FileNotFoundError."""
        bucket, key = _bucket_and_key(uri)
        into.mkdir()
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
        keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
        if key in keys:
            path = into / Path(key).name
            self.s3.download_file(bucket, key, str(path))
            return path
        below = [each for each in keys if each.startswith(key.rstrip("/") + "/")]
        if not below:
            raise FileNotFoundError(f"Nothing lies at {uri}.")
        for each in below:
            path = into / each.removeprefix(key).lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            self.s3.download_file(bucket, each, str(path))
        return into

    def _put(self, folder: Path, uri: str) -> None:
        """Makes the prefix hold what the folder holds and nothing else: the script wrote in mode "overwrite"."""
        bucket, key = _bucket_and_key(uri)
        prefix = key.rstrip("/") + "/"
        new = {
            prefix + path.relative_to(folder).as_posix(): path
            for path in sorted(folder.rglob("*"))
            # Hadoop's file system on disk leaves checksums; its S3 one does not.
            if path.is_file() and not path.name.endswith(".crc")
        }
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for old in [found["Key"] for page in pages for found in page.get("Contents", ())]:
            if old not in new:
                self.s3.delete_object(Bucket=bucket, Key=old)
        for key_, path in new.items():
            self.s3.upload_file(str(path), bucket, key_)


def _bucket_and_key(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    return parts.netloc, parts.path.removeprefix("/")
