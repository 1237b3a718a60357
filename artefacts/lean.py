"""Takes out of a part of the build what no function needs at run time: it is weighed, stored and unpacked for nothing.

    python -m artefacts.lean FOLDER ...

- Files of LEFT_OUT go. Licences and METADATA, which scanners read, stay.
- Compiled libraries lose what only debuggers read (artefacts.elf).
- Libraries go as bytecode alone: tracebacks name file, line and function, and their source is pinned. What is ours
  keeps its source beside its bytecode, so that tracebacks show the line itself.

Whatever is taken out here, tests/packaging goes without: it imports every handler, and seals and opens secrets.
"""

import importlib.util
import re
import sys
from importlib.metadata import distributions
from pathlib import Path

from artefacts.bytecode import compiled
from artefacts.elf import MAGIC, stripped

LEFT_OUT = {
    "for compilers and type checkers": r"\.(c|cc|h|hpp|pxd|pxi|pyi|pyx)$|/py\.typed$",
    "commands, and the list of files, which is no longer true": r"^bin/|^[^/]+\.data/|\.dist-info/RECORD$",
    "tests": r"^[^/]+/tests/",
    "_cffi_backend is all that cryptography needs of cffi": r"^(cffi|pycparser)/",
    "Powertools for web APIs and for what else starts a function; logs and metrics need none of it": (
        r"^aws_lambda_powertools/(event_handler|utilities/(?!jmespath_utils)\w+)/"
    ),
    "time zones for people; zoneinfo reads the compiled ones": r"^tzdata/zoneinfo/(tzdata\.zi|leapseconds|\w+\.tab)$",
}
"""Reason to paths, from the folder where imports begin."""


def is_left_out(name: str) -> bool:
    return any(re.search(pattern, name) for pattern in LEFT_OUT.values())


def only_faster(path: Path) -> bool:
    """A compiled module that lies beside itself in Python, as mypyc leaves it (charset_normalizer)."""
    return path.suffix == ".so" and path.with_name(path.name.split(".")[0] + ".py").exists()


def lean(folder: Path, lies_in: str) -> None:
    """Changes a folder where imports begin, which will lie at `lies_in` (/opt/python). A second time changes nothing.

    Raises SyntaxError if a source cannot be compiled.
    """
    of_libraries = {str(each) for library in distributions(path=[str(folder)]) for each in library.files or ()}
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    going = {name for name, path in names.items() if is_left_out(name) or only_faster(path)}
    for name in names.keys() - going:
        path = names[name]
        content = path.read_bytes()
        if content.startswith(MAGIC):
            path.write_bytes(stripped(content))
        elif path.suffix == ".py":
            is_library = name in of_libraries
            bytecode = path.with_suffix(".pyc") if is_library else Path(importlib.util.cache_from_source(path))
            bytecode.parent.mkdir(exist_ok=True)
            bytecode.write_bytes(compiled(content, f"{lies_in}/{name}"))
            if is_library:
                path.unlink()
    for name in going:
        names[name].unlink()


if __name__ == "__main__":
    for each in sys.argv[1:]:
        lean(Path(each), "/opt/python")
