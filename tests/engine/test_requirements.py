"""What the metadata DAGs need can be had on every Airflow that MWAA offers: from the index, and without internet."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import ROOT, SCHEMAS, VENVS

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
NEEDED = {"adbc-driver-manager", "adbc-driver-postgresql", "aws-encryption-sdk", "pyarrow"}


@pytest.fixture(scope="module")
def bundle() -> Any:
    spec = importlib.util.spec_from_file_location("make_bundle", ROOT / "requirements/make_bundle.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def constraints(version: str) -> Path:
    return ROOT / "requirements/constraints" / f"{version}.txt"


def pinned(version: str) -> dict[str, str]:
    """Package -> the version that MWAA's constraints allow."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", constraints(version).read_text(), re.MULTILINE))


def on_mwaa(bundle: Any, version: str) -> list[str]:
    """What makes pip choose as on MWAA's workers."""
    platforms = [argument for platform in bundle.PLATFORMS for argument in ("--platform", platform)]
    return ["--only-binary", ":all:", "--python-version", bundle.PYTHONS[version], *platforms]


def resolved(bundle: Any, version: str, folder: Path, *arguments: Any) -> dict[str, str]:
    """Package -> the version that pip would install under MWAA's constraints."""
    report = folder / "report.json"
    subprocess.run(
        [
            *(*PIP, "install", "--quiet", "--dry-run", "--ignore-installed", "--target", folder / "nowhere"),
            *("--report", report, "--constraint", constraints(version), *on_mwaa(bundle, version), *arguments),
        ],
        check=True,
    )
    found = [each["metadata"] for each in json.loads(report.read_text())["install"]]
    return {re.sub(r"[-_.]+", "-", each["name"]).lower(): each["version"] for each in found}


@pytest.mark.parametrize("version", SCHEMAS)
def test_the_requirements_resolve_under_the_constraints_of_mwaa(bundle: Any, version: str, tmp_path: Path) -> None:
    found = resolved(bundle, version, tmp_path, "-r", ROOT / "dags/requirements.txt")
    assert found.keys() >= NEEDED
    # Whatever Airflow pins stays as it is: what we add must not change what runs there.
    allowed = pinned(version)
    assert {name: allowed.get(name, it) for name, it in found.items()} == found


@pytest.mark.parametrize("version", [SCHEMAS[0], SCHEMAS[-1]])  # the oldest and the newest Python
def test_the_bundle_installs_without_an_index_and_the_engine_runs_on_it(
    bundle: Any, version: str, tmp_path: Path
) -> None:
    bundle.make(version, tmp_path)
    with zipfile.ZipFile(tmp_path / "plugins.zip") as archive:
        archive.extractall(tmp_path / "plugins")
    text = (tmp_path / "requirements.txt").read_text()
    assert text.startswith("--find-links /usr/local/airflow/plugins\n--no-index\n")
    here = tmp_path / "requirements-here.txt"
    here.write_text(text.replace(bundle.PLUGINS, str(tmp_path / "plugins")))
    assert resolved(bundle, version, tmp_path, "-r", ROOT / "dags/requirements.txt", "-r", here) == dict(
        pin.split("==") for pin in bundle.pins(version)
    )

    python = tmp_path / "venv/bin/python"
    subprocess.run([ROOT / VENVS[version] / "bin/python", "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    subprocess.run(
        [*PIP, "--python", python, "install", "--quiet", "--constraint", constraints(version), "-r", here], check=True
    )
    every_module = (
        "import importlib, pkgutil, sys, airflow_metadata as package\n"
        "for module in pkgutil.iter_modules(package.__path__):\n"
        "    importlib.import_module(f'airflow_metadata.{module.name}')\n"
        "import adbc_driver_postgresql.dbapi, aws_encryption_sdk, boto3, pyarrow.parquet\n"
        "print('%d.%d' % sys.version_info[:2], pyarrow.__version__)"
    )
    answer = subprocess.run(
        [python, "-c", every_module], env={"PYTHONPATH": str(ROOT / "dags")}, check=True, capture_output=True, text=True
    )
    assert answer.stdout.split() == [bundle.PYTHONS[version], pinned(version)["pyarrow"]]
