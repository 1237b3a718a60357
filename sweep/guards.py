"""The modules that stand between a living environment and its deletion, and which of their lines a scenario runs."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

GUARDS = ("aws.deletion", "domain.deletion", "domain.last_look", "domain.verdict")
"""In the package transient_mwaa."""
TOOL = 4
"""A number that sys.monitoring reserves for nobody."""


def file_of(guard: str) -> Path:
    """Where a guard's source is."""
    return Path(str(importlib.import_module(f"transient_mwaa.{guard}").__file__))


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """A code object and all within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_in(constant)


class Lines:
    """Notes which lines of the guards are run; after the first time a line costs nothing."""

    def __init__(self) -> None:
        self.run: set[tuple[str, int]] = set()
        """(guard, line)."""
        self._guards = {str(file_of(guard)): guard for guard in GUARDS}
        sys.monitoring.use_tool_id(TOOL, "sweep")
        sys.monitoring.register_callback(TOOL, sys.monitoring.events.LINE, self._line)
        functions = [each for each in gc.get_objects() if isinstance(each, FunctionType)]
        for function in functions:
            if function.__code__.co_filename in self._guards:
                for code in codes_in(function.__code__):
                    sys.monitoring.set_local_events(TOOL, code, sys.monitoring.events.LINE)

    def clear(self) -> None:
        """From here on."""
        self.run.clear()
        sys.monitoring.restart_events()

    def close(self) -> None:
        """No more."""
        sys.monitoring.free_tool_id(TOOL)

    def _line(self, code: CodeType, line: int) -> Any:
        self.run.add((self._guards[code.co_filename], line))
        return sys.monitoring.DISABLE
