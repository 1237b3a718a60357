"""What the build takes out is not missed: libraries do their work without it, beside nothing but what Lambda brings."""

import json
import marshal
import re
from io import BytesIO
from modulefinder import ModuleFinder
from pathlib import Path
from types import CodeType

import _cffi_backend
import boto3
import cryptography.hazmat.bindings._rust
import pyarrow.lib
import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from moto.server import ThreadedMotoServer

from artefacts.alone import NATIVE, PINNED, lambda_brings, run_alone, search_path
from artefacts.built import BUILD, built, files
from artefacts.bytecode import HEAD, compiled
from artefacts.elf import MAGIC, stripped
from artefacts.lean import is_left_out, lean
from transient_mwaa.aws.encryption import Encryption

pytestmark = pytest.mark.packaging

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
ABOUT = {"environment": "dev", "export": "2026-11-23"}

SEALS_AND_OPENS = """
import json, os
from cryptography.hazmat.bindings import _rust
from transient_mwaa.aws.encryption import Encryption, Undecryptable
encryption, about = Encryption.from_env(), json.loads(os.environ["ABOUT"])
opened = encryption.decrypt(bytes.fromhex(os.environ["SEALED_THERE"]), about)
sealed = encryption.encrypt(opened + b" and back", about)
refused = 0
for ciphertext, context in ((sealed, {"environment": "production"}), (sealed[:-1] + bytes([sealed[-1] ^ 1]), about)):
    try:
        encryption.decrypt(ciphertext, context)
    except Undecryptable:
        refused += 1
print(json.dumps({"opened": opened.decode(), "sealed": sealed.hex(), "refused": refused, "rust": _rust.__file__}))
"""
SPEAKS_HTTP = """
import os, requests
assert requests.get(os.environ["AWS_ENDPOINT_URL"] + "/moto-api/data.json", timeout=10).json()
assert requests.Request("GET", "https://b\\u00fccher.example/").prepare().url == "https://xn--bcher-kva.example/"
untold = requests.Response()
untold._content = ("Die Umgebung schl\u00e4ft, und \u00fcber Nacht w\u00e4chst nichts. " * 9).encode("cp1252")
assert untold.apparent_encoding and "Umgebung schl" in untold.text
import certifi, ssl
assert ssl.create_default_context(cafile=certifi.where()).get_ca_certs()
"""
LOGS_AND_COUNTS = """
from types import SimpleNamespace
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
logger, metrics = Logger(), Metrics()
@metrics.log_metrics(capture_cold_start_metric=True)
@logger.inject_lambda_context(log_event=True, correlation_id_path="id")
def handler(event, context):
    try:
        logger.info("Asleep", extra={"event": event})
        raise ValueError("named")
    except ValueError:
        logger.exception("caught")
    metrics.add_metric("Nights", MetricUnit.Count, 1)
handler({"id": "1"}, SimpleNamespace(
    function_name="f", memory_limit_in_mb=1, invoked_function_arn="arn:aws:lambda:f", aws_request_id="r",
))
"""
KNOWS_THE_CALENDAR = """
import zoneinfo
zoneinfo.reset_tzpath(())
import app, holidays
from datetime import datetime
from holidays.registry import COUNTRIES
assert datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset().seconds == 7200
assert len([zoneinfo.ZoneInfo(name) for name in zoneinfo.available_timezones()]) > 400
assert len([code for _, code, *_ in COUNTRIES.values() if holidays.country_holidays(code, years=2026)]) > 200
"""
READS_PARQUET = """
import io
import pyarrow, pyarrow.compute, pyarrow.parquet
table = pyarrow.table({"id": range(1000), "name": [str(each) for each in range(1000)]})
for compression in ("snappy", "zstd"):
    pyarrow.parquet.write_table(table, file := io.BytesIO(), compression=compression)
    read = pyarrow.parquet.ParquetFile(file).read()
    assert read.equals(table)
    assert pyarrow.compute.sum(read["id"]).as_py() == 499500
"""

SAID = '''"""Says."""
from __future__ import annotations

def f():
    """Does."""

def g(x):
    """Is."""
    assert x
'''


@pytest.fixture(scope="module")
def functions():
    return {each.name: each for each in built()}


@pytest.fixture(scope="module")
def sdk(tmp_path_factory):
    return lambda_brings(tmp_path_factory.mktemp("lambda") / "brings")


@pytest.fixture(scope="module")
def cloud():
    """Address of a moto of its own."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


def done_alone(function, sdk, script, **variables):
    done = run_alone(function, search_path(function, sdk), script, variables={**CREDENTIALS, **variables})
    assert done.returncode == 0, done.stderr
    return done.stdout


def segments(content):
    """What the loader maps: headers and bytes, those of the ELF header apart, with which the first segment begins."""
    elf = ELFFile(BytesIO(content))
    begin = elf["e_ehsize"]
    return [
        (dict(each.header), content[max(begin, each["p_offset"]) : each["p_offset"] + each["p_filesz"]])
        for each in elf.iter_segments()
    ]


def dynamic(content):
    """What the dynamic linker reads, found as it does: by segments, not by sections."""
    (found,) = (each for each in ELFFile(BytesIO(content)).iter_segments() if isinstance(each, DynamicSegment))
    tags = [(each.entry.d_tag, each.entry.d_val) for each in found.iter_tags()]
    symbols = [(each.name, dict(each.entry)) for each in found.iter_symbols()]
    relocations = {
        kind: [dict(each.entry) for each in table.iter_relocations()]
        for kind, table in found.get_relocation_tables().items()
    }
    return tags, symbols, relocations


@pytest.mark.parametrize("module", [cryptography.hazmat.bindings._rust, _cffi_backend, pyarrow.lib])
def test_a_stripped_library_is_the_same_to_the_loader(module):
    """As its wheel has it among the tools of this project."""
    whole = Path(module.__file__).read_bytes()
    lean = stripped(whole)
    assert len(lean) < len(whole)
    assert segments(lean) == segments(whole)
    assert dynamic(lean) == dynamic(whole)
    fields = [name for name, value in ELFFile(BytesIO(lean)).header.items() if value != ELFFile(BytesIO(whole))[name]]
    assert fields == ["e_shoff", "e_shnum", "e_shstrndx"]
    assert stripped(lean) == lean


def test_nothing_lies_behind_the_segments_of_what_is_built(functions):
    parts = {part for each in functions.values() for part in (each.folder, *each.layers)} | {NATIVE}
    found = [path for part in parts for path in files(part) if path.read_bytes()[:4] == MAGIC]
    assert len(found) > 80
    for path in found:
        content = path.read_bytes()
        assert len(content) == max(offset + size for offset, size in extents(content)), path


def extents(content):
    return [(each["p_offset"], each["p_filesz"]) for each in ELFFile(BytesIO(content)).iter_segments()]


def test_a_compiled_module_for_arm64_says_how_it_begins():
    """The symbol by which Python enters it is still found through its hash table."""
    rust = (BUILD / "EncryptionLayer/python/cryptography/hazmat/bindings/_rust.abi3.so").read_bytes()
    tags, symbols, relocations = dynamic(rust)
    assert "PyInit__rust" in {name for name, _ in symbols}
    assert len(relocations["RELA"]) > 30_000
    assert ("DT_INIT" in dict(tags), ELFFile(BytesIO(rust))["e_machine"]) == (True, "EM_AARCH64")


def test_secrets_go_from_a_whole_library_to_a_lean_one_and_back(functions, sdk, cloud, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud)
    key = boto3.client("kms", region_name="us-east-1").create_key()["KeyMetadata"]["Arn"]
    whole = Encryption(key)
    told = json.loads(
        done_alone(
            functions["CreateEnvironmentFunction"],
            sdk,
            SEALS_AND_OPENS,
            AWS_ENDPOINT_URL=cloud,
            KEY_ARN=key,
            ABOUT=json.dumps(ABOUT),
            SEALED_THERE=whole.encrypt(b"there", ABOUT).hex(),
        )
    )
    assert told["opened"] == "there"
    assert whole.decrypt(bytes.fromhex(told["sealed"]), ABOUT) == b"there and back"
    assert told["refused"] == 2
    assert Path(told["rust"]).is_relative_to(NATIVE)
    used = Path(told["rust"]).read_bytes()
    assert used == stripped(Path(cryptography.hazmat.bindings._rust.__file__).read_bytes())


@pytest.mark.parametrize(
    ("function", "script"),
    [
        ("QuiesceFunction", SPEAKS_HTTP),
        ("QuiesceFunction", LOGS_AND_COUNTS),
        ("DecideFunction", KNOWS_THE_CALENDAR),
        ("DiagnoseFunction", KNOWS_THE_CALENDAR),
        ("VerifyFileFunction", READS_PARQUET),
    ],
)
def test_lean_libraries_do_their_work(functions, sdk, cloud, function, script):
    done_alone(functions[function], sdk, script, AWS_ENDPOINT_URL=cloud)


ASKED_FOR_ALL_THE_SAME = {
    "aws_lambda_powertools.event_handler.openapi.compat": "to log a model of Pydantic, which we do not have",
    "aws_lambda_powertools.utilities.typing": "for type checkers",
    "aws_lambda_powertools.utilities.typing.lambda_context": "for type checkers",
    "cffi": "by pyarrow.cffi, for whoever hands data over to C",
}


def test_nothing_that_stays_imports_what_is_gone(functions):
    """Neither at its top nor in any function: all libraries, all handlers and our own core."""
    parts = {part for each in functions.values() for part in (each.folder, *each.layers) if part.is_relative_to(BUILD)}
    asked = set()
    for path in (path for part in parts for path in files(part) if path.suffix == ".pyc"):
        above = path.relative_to(BUILD).parts[1:-1]
        package = tuple(part for part in above if part not in {"python", "__pycache__"})
        asked |= {name for name in imports(marshal.loads(path.read_bytes()[HEAD:]), package) if is_gone(name)}
    assert asked == set(ASKED_FOR_ALL_THE_SAME)


def is_gone(module):
    return any(is_left_out(module.replace(".", "/") + end) for end in (".py", "/__init__.py"))


def imports(code, package):
    """Absolute names in its import statements. `from a import b` names a, and a.b unless a is gone."""
    for kind, what in ModuleFinder().scan_opcodes(code):
        if kind in {"absolute_import", "relative_import"}:
            level, (names, module) = (what[0], what[1:]) if kind == "relative_import" else (0, what)
            above = package[: len(package) + 1 - level] if level else ()
            base = ".".join([*above, module] if module else above)
            yield base
            if not is_gone(base):
                yield from (f"{base}.{name}" for name in names or ())
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from imports(inner, package)


def test_bytecode_has_no_docstrings_but_asserts_lines_and_a_hash():
    source = SAID.encode()
    space = {}
    exec(marshal.loads(compiled(source, "/opt/python/said.py")[HEAD:]), space)
    assert (space.get("__doc__"), space["f"].__doc__, space["f"]()) == (None, None, None)
    with pytest.raises(AssertionError) as raised:
        space["g"](0)
    assert (raised.traceback[-1].lineno + 1, str(raised.traceback[-1].path)) == (9, "/opt/python/said.py")
    assert compiled(source, "a.py")[:HEAD] != compiled(source + b"#", "a.py")[:HEAD]


def test_libraries_go_as_bytecode_and_our_own_code_stays_readable(tmp_path):
    for name, content in {
        "theirs/__init__.py": "A = 1", "theirs/_fast.py": "", "theirs/_fast.abi3.so": "", "theirs/typed.pyi": "",
        "theirs/tests/test_a.py": "", "theirs-1.dist-info/METADATA": "Name: theirs",
        "theirs-1.dist-info/LICENSE": "MIT",
        "theirs-1.dist-info/RECORD": "theirs/__init__.py,,\ntheirs/_fast.py,,\n", "ours.py": "B = 2",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    lean(tmp_path, "/opt/python")
    left = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in files(tmp_path)}
    assert set(left) == {
        "ours.py", "theirs-1.dist-info/LICENSE", "theirs-1.dist-info/METADATA", "theirs/__init__.pyc",
        "theirs/_fast.pyc",
    }  # fmt: skip
    assert len(list(tmp_path.rglob("__pycache__/ours.*.pyc"))) == 1
    lean(tmp_path, "/opt/python")
    assert {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in files(tmp_path)} == left


@pytest.mark.parametrize("part", PINNED)
def test_whoever_wrote_it_is_still_named(part):
    """The licence of every library is where its wheel had it, or in its METADATA."""
    folder = NATIVE / PINNED[part]
    for each in folder.glob("*.dist-info"):
        licences = [path for path in files(each) if re.search(r"(?i)licen[cs]e|notice", path.name)]
        assert licences or "License" in (each / "METADATA").read_text(), each.name
    assert not any(is_left_out(path.relative_to(folder).as_posix()) for path in files(folder))
