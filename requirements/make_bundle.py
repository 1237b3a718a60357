"""Writes build/dags-bundle/<Airflow version>/: what the metadata DAGs need, for environments without internet.

plugins.zip holds wheels; MWAA unpacks it into /usr/local/airflow/plugins on every machine of the environment, before it
installs requirements.txt from there. Run by `make dags-bundle`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
BUNDLES = HERE.parent / "build" / "dags-bundle"
# Python on MWAA's workers, which run Amazon Linux 2023 on x86_64.
PYTHONS = {"2.10.3": "3.11", "2.11.2": "3.12", "3.0.6": "3.12", "3.3.1": "3.12"}
PLATFORMS = ("manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
PLUGINS = "/usr/local/airflow/plugins"


def locked(version: str) -> Path:
    """What to put in: versions that MWAA's constraints allow, with hashes."""
    return HERE / f"dags-{version}.txt"


def pins(version: str) -> list[str]:
    """The same, as `name==version` alone."""
    lines = locked(version).read_text().splitlines()
    return [line.split()[0] for line in lines if line and line[0].isalnum()]


def make(version: str, folder: Path) -> None:
    """Write `folder`/plugins.zip and `folder`/requirements.txt. Raises CalledProcessError if a wheel cannot be had."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as wheels:
        platforms = [argument for platform in PLATFORMS for argument in ("--platform", platform)]
        subprocess.run(  # noqa: S603 - its arguments are ours
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
                *("--only-binary", ":all:", "--no-deps", "--require-hashes", "-r", locked(version)),
                *("--python-version", PYTHONS[version], *platforms, "--dest", wheels),
            ],
            check=True,
        )
        written = folder / "plugins.zip.new"
        with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:  # wheels are packed already
            for wheel in sorted(Path(wheels).iterdir()):
                archive.write(wheel, wheel.name)
        written.replace(folder / "plugins.zip")
    # No hashes here: pip would then ask for one of every other requirement of the environment, too.
    lines = [f"--find-links {PLUGINS}", "--no-index", *pins(version)]
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    shutil.rmtree(BUNDLES, ignore_errors=True)
    for each in PYTHONS:
        make(each, BUNDLES / each)
        print(f"{BUNDLES / each}: {(BUNDLES / each / 'plugins.zip').stat().st_size / 1e6:.0f} MB")  # noqa: T201
