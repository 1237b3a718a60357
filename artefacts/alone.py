"""Runs Python in a process of its own that has nothing but a built function, its layers and what Lambda brings."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from artefacts.built import ROOT, Artefact

NATIVE = ROOT / "build/native"
LAMBDA_BRINGS = ("boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3")
"""What the runtime python3.13 has beside the standard library, as far as boto3 needs it."""
PINNED = {
    "CoreLayer": "src/requirements",
    "EncryptionLayer": "layers/encryption",
    "CalendarLayer": "layers/calendar",
    "VerifyFileFunction": "functions/verify_file/requirements",
}
"""Folder in .aws-sam/build to the file of its libraries, without .txt."""

_IMPORT = """
import sys, time
from importlib import import_module
before = set(sys.modules)
began, worked = time.perf_counter(), time.process_time()
handler = getattr(import_module(sys.argv[1]), sys.argv[2])
seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - worked
import json
found = {name: getattr(sys.modules[name], "__file__", None) or "" for name in set(sys.modules) - before}
print(json.dumps({"callable": callable(handler), "seconds": seconds, "cpu_seconds": cpu_seconds, "modules": found}))
"""


class NotImported(Exception):
    """The handler cannot be imported so; the message is the traceback."""


@dataclass(frozen=True)
class Imported:
    """What a fresh process says."""

    callable: bool
    seconds: float
    """From the first line of the handler's module to its last, without the start of Python itself."""
    cpu_seconds: float
    """The same without waiting for the disk or for other processes."""
    modules: Mapping[str, str]
    """Modules that were imported, and their files ("" for those that are built in)."""


def lambda_brings(folder: Path) -> Path:
    """Fills a folder with those packages as this project's tools have them, and nothing else. Returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in LAMBDA_BRINGS:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"No {name} among the tools of this project.")
        origin = Path(spec.origin)
        package = origin.parent if origin.name == "__init__.py" else origin
        if not (folder / package.name).exists():
            (folder / package.name).symlink_to(package)
    return folder


def for_this_machine(part: Path) -> Path | None:
    """Where `make build/native/ready` put the same libraries for this machine; None if a part has no libraries."""
    return NATIVE / PINNED[part.name] if part.name in PINNED else None


def search_path(artefact: Artefact, sdk: Path) -> list[Path]:
    """In Lambda's order: the function, its layers, the runtime. What is compiled comes from this machine's libraries.

    A library of this machine is looked for first, so that one for arm64 is never tried; tests/packaging compares the
    two, file by file.
    """
    path = []
    for part in (artefact.folder, *artefact.layers):
        own = part / "python" if (part / "python").is_dir() else part
        native = for_this_machine(part)
        path += [native, own] if native else [own]
    return [*path, sdk]


def run_alone(
    artefact: Artefact,
    path: Iterable[Path],
    script: str,
    arguments: Iterable[str] = (),
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a script in a new process: no site-packages, no current folder, no bytecode written.

    `variables` are set beside the template's.
    """
    environ = {
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_LAMBDA_FUNCTION_NAME": artefact.name,
        "PATH": os.defpath,
        **artefact.variables,
        **(variables or {}),
    }
    script = f"import sys; sys.path[:0] = {[str(each) for each in path]!r}\n{script}"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", script, *arguments],
        capture_output=True,
        check=False,
        cwd="/",
        env=environ,
        text=True,
        timeout=120,
    )


def import_alone(artefact: Artefact, path: Iterable[Path], variables: Mapping[str, str] | None = None) -> Imported:
    """Imports the handler, as run_alone does. Raises NotImported."""
    module, _, name = artefact.handler.replace("/", ".").rpartition(".")
    done = run_alone(artefact, path, _IMPORT, (module, name), variables)
    if done.returncode != 0:
        raise NotImported(f"{artefact.name}: {done.stderr}")
    return Imported(**json.loads(done.stdout.splitlines()[-1]))
