"""Runs the functions of a template as they are: in worker processes with their own environment, or in this process.

Worker processes  one per concurrent invocation and function, kept between invocations as Lambda keeps its sandboxes;
                  the variables of the template and nothing of ours but the way to the local cloud; credentials of
                  the function's role; the template's time-out.
In process        for stories under a virtual clock: the handler's module is imported under a name of its own with the
                  function's variables set meanwhile (handlers read them at import), and invocations follow one another.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import select
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from local.clock import Clock
from local.lambda_worker import Context, error_of

Event = Any
MAX_WORKERS = 3
"""Processes per function; further invocations wait, as under reserved concurrency."""


@dataclass(frozen=True)
class Function:
    """A function of a template."""

    logical_id: str
    name: str
    folder: Path
    layers: tuple[Path, ...]
    handler: str
    """As in the template: "app.handler"."""
    variables: Mapping[str, str]
    timeout: float
    memory: int
    role_arn: str
    arn: str

    @property
    def app(self) -> Path:
        return self.folder / (self.handler.rpartition(".")[0].replace(".", "/") + ".py")

    @property
    def context(self) -> dict[str, Any]:
        """The context object's attributes, new for each invocation."""
        return {
            "aws_request_id": str(uuid.uuid4()),
            "function_name": self.name,
            "function_version": "$LATEST",
            "invoked_function_arn": self.arn,
            "log_group_name": f"/aws/lambda/{self.name}",
            "log_stream_name": "local",
            "memory_limit_in_mb": str(self.memory),
            "timeout": self.timeout,
        }

    def environ(self, cloud: Mapping[str, str]) -> dict[str, str]:
        """The template's variables, those Lambda sets, and the way to the local cloud."""
        return {
            **cloud,
            "AWS_LAMBDA_FUNCTION_NAME": self.name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.memory),
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "LAMBDA_TASK_ROOT": str(self.folder),
            **self.variables,
        }


class FunctionTimedOut(Exception):
    """The function ran longer than its time-out."""


class Functions:
    """All functions that were deployed to one local cloud."""

    def __init__(
        self,
        home: Path,
        clock: Clock,
        environ: Mapping[str, str],
        assume_role: Callable[[str], dict[str, str]],
        in_process: bool,
    ) -> None:
        self._logs = home / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        self._environ = environ
        self._assume_role = assume_role
        self._in_process = in_process
        self._functions: dict[str, Function] = {}
        self._pools: dict[str, _WorkerPool] = {}
        self._modules: dict[str, Any] = {}
        self._hooks: dict[str, list[Callable[[Event], None]]] = {}
        self._replacements: dict[str, Callable[[Event], Any]] = {}
        self._one_at_a_time = threading.RLock()
        self._running = threading.local()

    @property
    def running(self) -> str | None:
        """Name of the folder ("decide") of the function that this thread executes at the moment, in process only."""
        return getattr(self._running, "name", None)

    def add(self, function: Function) -> None:
        self._functions[function.name] = function
        self._modules.pop(function.name, None)
        if pool := self._pools.pop(function.name, None):
            pool.stop()

    def find(self, name: str) -> Function:
        """By function name, ARN, logical id, or the name of its folder (functions/decide). Raises KeyError."""
        name = name.split(":function:")[-1].split(":")[0]
        for function in self._functions.values():
            if name in {function.name, function.logical_id, function.folder.name}:
                return function
        raise KeyError(f"No function {name}. Deployed: {sorted(self._functions)}")

    def before(self, name: str, hook: Callable[[Event], None]) -> None:
        self._hooks.setdefault(self.find(name).name, []).append(hook)

    def replace(self, name: str, substitute: Callable[[Event], Any] | None) -> None:
        if substitute is None:
            self._replacements.pop(self.find(name).name, None)
        else:
            self._replacements[self.find(name).name] = substitute

    def log(self, name: str) -> Path:
        """What the function wrote to stdout and stderr, ever."""
        return self._logs / f"{self.find(name).name}.log"

    def invoke(self, name: str, payload: bytes) -> tuple[bytes, bool]:
        """Answer as JSON, and whether it is an error ({"errorType", "errorMessage"})."""
        function = self.find(name)
        event = json.loads(payload)
        self._clock.worked()
        for hook in list(self._hooks.get(function.name, [])):
            hook(event)
        if substitute := self._replacements.get(function.name):
            try:
                with self._named(function):
                    return json.dumps(substitute(event)).encode(), False
            except Exception as problem:
                return json.dumps(error_of(problem)).encode(), True
        run = self._invoke_here if self._in_process else self._invoke_in_worker
        answer = run(function, event)
        if "error" in answer:
            return json.dumps(answer["error"]).encode(), True
        return json.dumps(answer["result"]).encode(), False

    def load(self) -> None:
        """Imports all handlers now instead of at their first invocation, so that processes forked from here share
        them. In process only."""
        for function in self._functions.values():
            with self._one_at_a_time, _output.to(self.log(function.name)):
                self._handler(function)

    def module(self, name: str) -> Any:
        """The module of a function that runs in this process."""
        function = self.find(name)
        self._handler(function)
        return self._modules[function.name]

    def stop(self) -> None:
        for pool in self._pools.values():
            pool.stop()
        self._pools.clear()

    # --- In worker processes ---

    def _invoke_in_worker(self, function: Function, event: Event) -> dict[str, Any]:
        with self._one_at_a_time:
            if function.name not in self._pools:
                environ = function.environ({**self._environ, **self._assume_role(function.role_arn)})
                self._pools[function.name] = _WorkerPool(function, environ, self.log(function.name))
            pool = self._pools[function.name]
        return pool.invoke(event)

    # --- In this process ---

    def _invoke_here(self, function: Function, event: Event) -> dict[str, Any]:
        context = Context(**function.context)
        with self._one_at_a_time, _output.to(self.log(function.name)), self._named(function):
            try:
                handler = self._handler(function)
                return {"result": json.loads(json.dumps(handler(event, context)))}
            except Exception as problem:
                return {"error": error_of(problem)}

    @contextlib.contextmanager
    def _named(self, function: Function) -> Iterator[None]:
        before = self.running
        self._running.name = function.folder.name
        try:
            yield
        finally:
            self._running.name = before

    def _handler(self, function: Function) -> Callable[[Event, Any], Any]:
        if function.name not in self._modules:
            spec = importlib.util.spec_from_file_location(f"local_function_{function.logical_id}", function.app)
            if spec is None or spec.loader is None:
                raise ImportError(f"Cannot import {function.app}.")
            module = importlib.util.module_from_spec(spec)
            with _variables(function.environ(self._environ)), _import_path(function.folder, *function.layers):
                spec.loader.exec_module(module)
            self._modules[function.name] = module
        return getattr(self._modules[function.name], function.handler.rpartition(".")[2])


class _Output(io.TextIOBase):
    """stdout and stderr of functions in this process. One for ever: loggers keep the stream they found."""

    def __init__(self) -> None:
        self._log: TextIO | None = None

    @contextlib.contextmanager
    def to(self, path: Path) -> Iterator[None]:
        with path.open("a") as self._log, contextlib.redirect_stdout(self), contextlib.redirect_stderr(self):
            try:
                yield
            finally:
                self._log = None

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        stream = self._log or sys.stdout
        return len(text) if stream is self else stream.write(text)

    def flush(self) -> None:
        if self._log is not None:
            self._log.flush()


_output = _Output()


@dataclass
class _WorkerPool:
    """The sandboxes of one function."""

    function: Function
    environ: dict[str, str]
    log: Path
    _idle: list[_Worker] = field(default_factory=list)
    _all: list[_Worker] = field(default_factory=list)
    _slots: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(MAX_WORKERS))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def invoke(self, event: Event) -> dict[str, Any]:
        with self._slots:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            request = str(uuid.uuid4())
            try:
                if worker is None:
                    worker = _Worker(self.function, self.environ, self.log)
                    with self._lock:
                        self._all.append(worker)
                answer = worker.invoke(event)
            except FunctionTimedOut:
                self._drop(worker)
                message = f"RequestId: {request} Error: Task timed out after {self.function.timeout:.2f} seconds"
                return {"error": {"errorType": "Sandbox.Timedout", "errorMessage": message}}
            except EOFError:
                self._drop(worker)
                message = f"RequestId: {request} Error: Runtime exited"
                return {"error": {"errorType": "Runtime.ExitError", "errorMessage": message}}
            with self._lock:
                self._idle.append(worker)
            return answer

    def _drop(self, worker: _Worker | None) -> None:
        if worker is not None:
            worker.kill()
            with self._lock:
                self._all.remove(worker)

    def stop(self) -> None:
        for worker in self._all:
            worker.kill()


class _Worker:
    """One process."""

    def __init__(self, function: Function, environ: Mapping[str, str], log: Path) -> None:
        self._function = function
        script = Path(__file__).with_name("lambda_worker.py")
        path = os.pathsep.join(str(folder) for folder in (function.folder, *function.layers))
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(function.app), function.handler.rpartition(".")[2], str(log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=function.folder,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "PYTHONPATH": path,
                "PYTHONDONTWRITEBYTECODE": "1",
                **environ,
            },
        )
        self._buffer = b""
        try:
            self._line(60.0)  # importing is not part of the time-out: Lambda has an init phase of its own
        except (FunctionTimedOut, EOFError):
            self.kill()
            raise

    def invoke(self, event: Event) -> dict[str, Any]:
        """Raises FunctionTimedOut, and EOFError when the process ended."""
        request = {"event": event, "context": self._function.context}
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]
        except BrokenPipeError as gone:
            raise EOFError from gone
        return json.loads(self._line(self._function.timeout))

    def _line(self, seconds: float) -> bytes:
        fd = self._process.stdout.fileno()  # type: ignore[union-attr]
        waiting = select.poll()
        waiting.register(fd, select.POLLIN | select.POLLHUP)
        timer = threading.Event()
        alarm = threading.Timer(seconds, timer.set)  # a timer counts real seconds, whatever clock the process sees
        alarm.daemon = True
        alarm.start()
        try:
            while b"\n" not in self._buffer:
                if waiting.poll(50):
                    chunk = os.read(fd, 65536)
                    if not chunk:
                        raise EOFError
                    self._buffer += chunk
                elif timer.is_set():
                    raise FunctionTimedOut
        finally:
            alarm.cancel()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]


@contextlib.contextmanager
def _variables(environ: Mapping[str, str]) -> Iterator[None]:
    old = dict(os.environ)
    os.environ.update(environ)
    try:
        yield
    finally:
        for name in environ:
            if name in old:
                os.environ[name] = old[name]
            else:
                os.environ.pop(name, None)


@contextlib.contextmanager
def _import_path(*folders: Path) -> Iterator[None]:
    old = list(sys.path)
    sys.path[:0] = [str(folder) for folder in folders]
    try:
        yield
    finally:
        sys.path[:] = old
