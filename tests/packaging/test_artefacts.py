"""What `make build` made, as Lambda will find it.

Its compiled parts are for arm64 and cannot be imported on just any machine. So handlers are imported with the same
pinned libraries for this machine, and the two are compared: the same files, those of Python byte for byte.
"""

import json
import marshal
import re
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from pathlib import Path

import pytest

from artefacts.alone import LAMBDA_BRINGS, NATIVE, PINNED, NotImported, import_alone, lambda_brings, search_path
from artefacts.built import BUILD, LARGEST, READS_PARQUET, ROOT, built, files
from artefacts.bytecode import HEAD, UNCHECKED_HASH

pytestmark = pytest.mark.packaging

AARCH64 = 183
"""e_machine of an ELF file."""
NO_LIBRARY = re.compile(
    r"^(app\.py|requirements\.txt|\.lock)$|^(bin|transient_mwaa)/|\.data/scripts/|\.dist-info/(?!METADATA)|(^|/)__pycache__/"
)
"""Our own files, commands, and what installers note."""


@pytest.fixture(scope="module")
def artefacts():
    return built()


@pytest.fixture(scope="module")
def sdk(tmp_path_factory):
    return lambda_brings(tmp_path_factory.mktemp("lambda") / "brings")


@pytest.fixture(scope="module")
def parts():
    """Folder of the libraries of each part of the build, and of the same for this machine."""
    found = {}
    for name, pinned in PINNED.items():
        folder = BUILD / name
        found[name] = (folder / "python" if (folder / "python").is_dir() else folder, NATIVE / pinned)
    return found


def libraries(folder):
    """The files of all libraries by their path, without what differs between installers and between machines.

    Names of compiled modules end alike: `_cffi_backend.cpython-313-aarch64-linux-gnu.so` is `_cffi_backend.so`.
    """
    found = {}
    for path in files(folder):
        name = path.relative_to(folder).as_posix()
        if NO_LIBRARY.search(name):
            continue
        found[re.sub(r"\.(cpython-\d+-[\w-]+|abi3)\.so", ".so", name)] = path
    return found


def machine_of(path):
    """e_machine of an ELF file; None for any other."""
    head = path.read_bytes()[:20]
    return struct.unpack_from("<H", head, 18)[0] if head[:4] == b"\x7fELF" else None


def test_every_function_is_small(artefacts):
    for each in artefacts:
        assert each.size < each.limit, each.name
    assert [each.name for each in artefacts if each.limit > LARGEST] == [READS_PARQUET]


def test_sizes_are_written_down(artefacts):
    assert json.loads((ROOT / "build/sizes.json").read_text()) == {each.name: each.size for each in artefacts}


def test_every_handler_can_be_imported_alone(artefacts, sdk):
    """Nothing but the function, its layers, boto3 as Lambda has it, and the standard library."""

    def problems(artefact):
        path = search_path(artefact, sdk)
        try:
            done = import_alone(artefact, path, {"HOLIDAYS": "DE-BW"})
        except NotImported as problem:
            return [str(problem)]
        allowed = (*map(str, path), sys.base_prefix)
        elsewhere = [file for file in done.modules.values() if file and not file.startswith(allowed)]
        return [f"{artefact.name}: {file}" for file in elsewhere] + [artefact.name] * (not done.callable)

    assert len(artefacts) == len(list(ROOT.glob("functions/*/app.py"))) + 1  # and the sample's
    with ThreadPoolExecutor(2) as pool:
        found = [line for lines in pool.map(problems, artefacts) for line in lines]
    assert "\n".join(found) == ""


@pytest.mark.parametrize(
    ("function", "layer", "misses"),
    [
        ("TellOnceFunction", "CoreLayer", "aws_lambda_powertools"),
        ("CreateEnvironmentFunction", "EncryptionLayer", "aws_encryption_sdk"),
        ("DecideFunction", "CalendarLayer", "holidays"),
        ("VerifyFileFunction", "VerifyFileFunction", "pyarrow"),
    ],
)
def test_what_is_not_packed_is_not_found(artefacts, sdk, function, layer, misses):
    """The tools of this project, which have all of it, do not help out."""
    artefact = next(each for each in artefacts if each.name == function)
    gone = (BUILD / layer / "python", NATIVE / PINNED[layer])
    with pytest.raises(NotImported, match=rf"No module named '{misses}\b"):
        import_alone(artefact, [each for each in search_path(artefact, sdk) if each not in gone])


def test_compiled_parts_are_for_arm64(artefacts):
    parts = {part for each in artefacts for part in (each.folder, *each.layers)}
    machines = {path: machine for part in parts for path in files(part) if (machine := machine_of(path)) is not None}
    assert [path for path, machine in machines.items() if machine != AARCH64] == []
    assert any(path.name.startswith("libparquet") for path in machines)


@pytest.mark.parametrize("part", PINNED)
def test_what_is_imported_here_is_what_is_deployed(parts, part):
    deployed, here = map(libraries, parts[part])
    assert set(deployed) == set(here)
    for name, path in deployed.items():
        if path.suffix == ".pyc":
            ours, theirs = path.read_bytes(), here[name].read_bytes()
            assert ours[:HEAD] == theirs[:HEAD], name
            assert marshal.loads(ours[HEAD:]) == marshal.loads(theirs[HEAD:]), name
        elif machine_of(path) is None:
            assert path.read_bytes() == here[name].read_bytes(), name
        else:
            assert machine_of(here[name]) is not None, name


@pytest.mark.parametrize("part", PINNED)
def test_libraries_are_the_pinned_ones(parts, part):
    lines = (ROOT / f"{PINNED[part]}.txt").read_text().splitlines()
    pinned = {line.split()[0].replace("-", "_") for line in lines if line[:1].isalnum()}
    found = {each.name.removesuffix(".dist-info").replace("-", "==", 1) for each in parts[part][0].glob("*.dist-info")}
    assert found == pinned


def test_lambda_s_own_libraries_are_not_packed(parts):
    """Beside what requests and Powertools need themselves."""
    packed = {name.split("/")[0].removesuffix(".pyc") for folder, _ in parts.values() for name in libraries(folder)}
    assert packed & set(LAMBDA_BRINGS) == {"jmespath", "urllib3"}


def test_our_own_code_is_that_of_this_tree(artefacts):
    def own(folder):
        return {path.relative_to(folder): path.read_bytes() for path in files(folder) if path.suffix != ".pyc"}

    packed = own(BUILD / "CoreLayer/python/transient_mwaa")
    assert packed == own(ROOT / "src/transient_mwaa")
    assert any(path.name == "service-2.json.gz" for path in packed)
    apps = {
        each.name: (each.folder / "app.py").read_bytes() for each in artefacts if not each.name.startswith("Sample/")
    }
    sources = {path.read_bytes() for path in ROOT.glob("functions/*/app.py")}
    assert set(apps.values()) == sources


def test_bytecode_is_good_wherever_it_is_unpacked(artefacts):
    parts = {part for each in artefacts for part in (each.folder, *each.layers) if part.is_relative_to(BUILD)}
    found = [path for part in parts for path in part.rglob("*.pyc")]
    assert any(path.name == "blueprint.cpython-313.pyc" for path in found)
    for path in found:
        content = path.read_bytes()
        assert content[:8] == MAGIC_NUMBER + UNCHECKED_HASH.to_bytes(4, "little"), path
        assert str(ROOT).encode() not in content, path


def test_only_our_own_code_keeps_its_source_beside_its_bytecode(artefacts):
    for each in artefacts:
        for part in (each.folder, *each.layers):
            sources = {path for path in files(part) if path.suffix == ".py" and part.is_relative_to(BUILD)}
            ours = {path for path in sources if path.parent == each.folder or "transient_mwaa" in path.parts}
            if not each.name.startswith("Sample/"):
                assert sources == ours
            for path in sources:
                assert source_hash(path.read_bytes()) == Path(cache_from_source(path)).read_bytes()[8:HEAD], path
