"""One process that owns everything of one local Airflow. Runs in Airflow's own Python, started by airflow_process.py.

It starts PostgreSQL, imports Airflow once, and then forks a child for every `airflow ...` command, long (scheduler,
web server) or short (`dags trigger`): each child runs Airflow's own main() with a real stdout and stderr, and only the
seconds of the import are saved. When standard input closes, which also happens when the process that started us dies in
whatever way, every descendant is killed and the data removed.

    python airflow_host.py SPEC.json    {"postgres": [argv], "postgres_user": str|null, "logs": folder, "socket": path,
                                         "remove": [folders]}

Requests come over the Unix socket, one JSON line per connection:
    {"run": [args], "stdout": path, "stderr": path}  -> {"returncode": n} when it has ended; hanging up kills it
    {"serve": name, "args": [args]}                  -> {"pid": n}; started again when it dies, as a container would be
    {"serving": true}                                -> {name: pid}
"""

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
PAUSE_BEFORE_RESTART = 2.0


def prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def kill_descendants() -> None:
    """Kill children until none is left. Tasks and gunicorn start sessions: killing a process group is not enough."""
    while children := psutil.Process().children(recursive=True):
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.02)


def import_airflow() -> None:
    """Import what the commands will need, without touching the database."""
    from airflow.cli import cli_parser
    from airflow.cli.commands import (  # noqa: F401
        dag_command,
        db_command,
        scheduler_command,
        task_command,
        triggerer_command,
        variable_command,
        webserver_command,
    )

    cli_parser.get_parser()


class Host:
    def __init__(self, spec: dict[str, Any]):
        self.spec = spec
        self.logs = Path(spec["logs"])
        self.events = selectors.DefaultSelector()
        self.waiting: dict[int, socket.socket] = {}  # pid of a command -> who waits for it
        self.served: dict[int, tuple[str, list[str]]] = {}  # pid of a component -> its name and arguments
        self.restarts: list[tuple[float, str, list[str]]] = []

    def start_postgres(self) -> None:
        with (self.logs / "postgres.log").open("ab") as log:
            self.postgres = subprocess.Popen(
                self.spec["postgres"],
                user=self.spec["postgres_user"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
            )

    def fork(self, args: list[str], stdout: Path, stderr: Path) -> int:
        """Run `airflow ARGS` in a child. Returns its process id."""
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            for key in list(self.events.get_map().values()):
                os.close(key.fd)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
            os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
            sys.argv = ["airflow", *args]
            from airflow.__main__ import main

            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def serve(self, name: str, args: list[str]) -> int:
        log = self.logs / f"{name}.log"
        pid = self.fork(args, log, log)
        self.served[pid] = (name, args)
        return pid

    def answer(self, connection: socket.socket, reply: dict[str, Any]) -> None:
        self.events.unregister(connection)
        with contextlib.suppress(OSError):
            connection.sendall(json.dumps(reply).encode() + b"\n")
        connection.close()

    def read(self, connection: socket.socket) -> None:
        """A request, or the hanging up of one who waits."""
        line = connection.recv(1 << 20)
        if not line:
            self.events.unregister(connection)
            connection.close()
            for pid in [pid for pid, waiter in self.waiting.items() if waiter is connection]:
                del self.waiting[pid]
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            return
        while not line.endswith(b"\n"):
            line += connection.recv(1 << 20)
        request = json.loads(line)
        if "run" in request:
            self.waiting[self.fork(request["run"], Path(request["stdout"]), Path(request["stderr"]))] = connection
        elif "serve" in request:
            self.answer(connection, {"pid": self.serve(request["serve"], request["args"])})
        else:
            self.answer(connection, {name: pid for pid, (name, _) in self.served.items()})

    def reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                if pid in self.waiting:
                    self.answer(self.waiting.pop(pid), {"returncode": os.waitstatus_to_exitcode(status)})
                elif pid in self.served:
                    name, args = self.served.pop(pid)
                    print(f"{name} ended ({os.waitstatus_to_exitcode(status)}), starting it again", flush=True)
                    self.restarts.append((time.monotonic() + PAUSE_BEFORE_RESTART, name, args))
                elif pid == self.postgres.pid:
                    raise SystemExit("PostgreSQL ended; see postgres.log")

    def run(self) -> None:
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.start_postgres()
        import_airflow()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.spec["socket"])
        listener.listen()
        for source in (0, wake_read, listener):
            self.events.register(source, selectors.EVENT_READ)
        self.reap()  # what ended while importing
        while True:
            for key, _ in self.events.select(timeout=0.5 if self.restarts else None):
                if key.fd == 0:
                    return  # nobody holds us any more
                if key.fd == wake_read:
                    os.read(wake_read, 4096)
                elif key.fileobj is listener:
                    self.events.register(listener.accept()[0], selectors.EVENT_READ)
                else:
                    self.read(key.fileobj)  # type: ignore[arg-type]
            self.reap()
            for due in [restart for restart in self.restarts if restart[0] <= time.monotonic()]:
                self.restarts.remove(due)
                self.serve(due[1], due[2])


def main() -> None:
    host = Host(json.loads(Path(sys.argv[1]).read_text()))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        host.run()
    finally:
        kill_descendants()
        for folder in host.spec["remove"]:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
