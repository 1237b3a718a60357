"""Compiles what goes into the cloud: Lambda cannot keep bytecode, so that every cold start would compile anew.

    python -m artefacts.bytecode FOLDER [AS]

AS is where FOLDER will lie (/opt), for tracebacks. The bytecode is for this Python's minor version, which is Lambda's,
and is never compared with its source, whose time changes on the way. Parts of libraries of which little is imported
are left out: bytecode counts towards a function's size.
"""

import compileall
import py_compile
import re
import sys
from pathlib import Path

HARDLY_IMPORTED = re.compile(
    r"/(aws_lambda_powertools/(event_handler|utilities)|holidays/(countries|financial)|pyarrow/tests|urllib3/contrib)/"
)


def compiled(folder: Path, lies_in: str = "") -> None:
    """Adds __pycache__ beside the sources. Raises RuntimeError if one cannot be compiled."""
    done = compileall.compile_dir(
        folder,
        maxlevels=20,
        quiet=1,
        rx=HARDLY_IMPORTED,
        stripdir=str(folder) if lies_in else None,
        prependdir=lies_in or None,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not done:
        raise RuntimeError(f"Not everything in {folder} can be compiled; see above.")


if __name__ == "__main__":
    compiled(Path(sys.argv[1]), *sys.argv[2:])
