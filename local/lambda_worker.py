"""Runs one function's handler for one invocation after another. Started by local.lambdas in a process of its own.

argv: path of app.py, name of the handler, path of the log file. One JSON object per line on stdin:
{"event", "context"}; one per line back on the original stdout: {"result"} or {"error": {"errorType", "errorMessage",
"stackTrace"}}. What the handler prints goes to the log file. Needs nothing but the standard library, so that it stands
in no function's way.
"""

import importlib.util
import json
import os
import sys
import traceback
from types import SimpleNamespace
from typing import Any


def error_of(problem: BaseException) -> dict[str, Any]:
    return {
        "errorType": type(problem).__name__,
        "errorMessage": str(problem),
        "stackTrace": traceback.format_tb(problem.__traceback__),
    }


def load(app: str) -> Any:
    spec = importlib.util.spec_from_file_location("app", app)
    if spec is None or spec.loader is None:
        raise ImportError(f"Cannot import {app}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules["app"] = module
    spec.loader.exec_module(module)
    return module


class Context(SimpleNamespace):
    """The context object. Its attributes come with the request."""

    timeout: float

    def get_remaining_time_in_millis(self) -> int:
        return int(self.timeout * 1000)


def main(app: str, handler_name: str, log: str) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    log_file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log_file, 1)
    os.dup2(log_file, 2)
    handler, broken = None, None
    try:
        handler = getattr(load(app), handler_name)
    except BaseException as problem:
        traceback.print_exc()
        broken = error_of(problem)
    print(json.dumps({"ready": broken is None}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if handler is None:
            answer: dict[str, Any] = {"error": broken}
        else:
            try:
                answer = {"result": json.loads(json.dumps(handler(request["event"], Context(**request["context"]))))}
            except BaseException as problem:
                traceback.print_exc()
                answer = {"error": error_of(problem)}
        sys.stdout.flush()
        sys.stderr.flush()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
