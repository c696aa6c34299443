"""Commands that start without the seconds of their imports: a server forks a child for each.

The server imports a list of modules and computes nothing. So a child is in the state of a new
process after its imports. It gets the arguments, folder, environment and streams of its caller, and
ends like a program. Tests start commands with `ForkServer.run` and `start`. Programs that start
commands by name (bash, a training that scores, a stage of the study) find those that
`ForkServer.offer` has written.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from pathlib import Path

# The client is also a program, which must start in milliseconds. So modules that only the server or
# a test needs are imported where they are used.

# Modules read these variables when they are imported, so children have the server's values.
READ_AT_IMPORT = ("HF_", "AXOLOTL_", "TOKENIZERS_", "TRANSFORMERS_")
# lm_eval sets these on import. They concern downloads, which tests do not make.
OF_DOWNLOADS = ("HF_XET_HIGH_PERFORMANCE", "HF_HUB_ENABLE_HF_TRANSFER")
ASK = """#!/bin/sh
exec {python} -SE {file} ask {socket} {name} "$@"
"""
PYTHON = """#!/bin/sh
case "$1 $2" in
"-m regreason_plugin" | "-m lm_eval") exec {python} -SE {file} ask {socket} "$@" ;;
*) exec {python} "$@" ;;
esac
"""


class Forked:
    """A running command, with the part of `subprocess.Popen`'s interface that tests use.

    Attributes:
        pid: Id of the command's process, which leads its own session.
        returncode: Exit code after waiting, or minus the number of the signal that ended it.
    """

    def __init__(
        self, server: str, command: list[str], cwd: str, env: dict[str, str], streams: list[int]
    ) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(server)
        message = json.dumps([command, cwd, env]).encode()
        head = [len(message).to_bytes(8, "big")]
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))
        self._server.sendmsg(head, [rights])
        self._server.sendall(message)
        self.pid = self._number()
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the command ends, and return its exit code.

        Raises:
            TimeoutError: The command has not ended after ``timeout`` seconds.
        """
        if self.returncode is None:
            self._server.settimeout(timeout)
            self.returncode = self._number()
        return self.returncode

    def poll(self) -> int | None:
        """The exit code; None while the command runs."""
        answered = self.returncode is not None or select.select([self._server], [], [], 0)[0]
        return self.wait() if answered else None

    def kill(self) -> int:
        """Kill the command and wait; returns 0 if it had already ended successfully."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, 9)
        return self.wait()

    def _number(self) -> int:
        line = b""
        while not line.endswith(b"\n"):
            line += (byte := self._server.recv(1))
            if not byte:
                raise RuntimeError("the fork server has ended")
        return int(line)

    def __enter__(self) -> Forked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close the connection, whereupon the server kills the command if it still runs."""
        if kind is None:
            self.wait()
        self._server.close()


class ForkServer:
    """A process that has imported modules and forks a child for each command.

    Args:
        modules: Modules to import.
        environment: Environment variables; a command may change those that no import reads.

    Attributes:
        programs: Folder that is first on the PATH of all commands that it starts.
    """

    def __init__(self, *modules: str, environment: dict[str, str]) -> None:
        import subprocess
        import tempfile
        from pathlib import Path

        self._folder = tempfile.TemporaryDirectory(prefix="forks-")
        self.programs = Path(self._folder.name, "programs")
        self._socket = str(Path(self._folder.name, "socket"))
        self.programs.mkdir()
        self.environment = {**environment, "OMP_NUM_THREADS": "1"}
        # The server ends when its input is closed, so at the latest with this process.
        self._process = subprocess.Popen(
            [sys.executable, __file__, "serve", self._socket, str(self.programs), *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.environment,
        )
        assert self._process.stdout is not None
        # Imports may print lines before this one.
        if b"ready\n" not in iter(self._process.stdout.readline, b""):
            raise RuntimeError("the fork server did not start")

    def offer(self, folder: Path, *names: str) -> None:
        """Write programs into a folder that make this server run the commands of these names.

        Args:
            folder: A folder, such as another server's `programs`.
            names: Console scripts; ``python`` runs the modules of our package by ``-m``.
        """
        for name in names:
            text = (PYTHON if name == "python" else ASK).format(
                name=name, python=sys.executable, file=__file__, socket=self._socket
            )
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def start(
        self,
        *command: object,
        cwd: object = None,
        stdout: IO[Any] | None = None,
        stderr: IO[Any] | None = None,
        env: dict[str, str] | None = None,
    ) -> Forked:
        """Start a console script, ``-m MODULE``, or ``MODULE:FUNCTION``, with its arguments.

        Args:
            command: The command line.
            cwd: Working folder; None for the current one.
            stdout: File for the output; None to discard it.
            stderr: File for errors; None for the same file as ``stdout``.
            env: Environment variables; None for the server's.
        """
        from pathlib import Path

        with Path(os.devnull).open("r+b") as null:
            out = stdout or null
            streams = [one.fileno() for one in (null, out, stderr or out)]
            words = [str(one) for one in command]
            given = self.environment if env is None else env
            return Forked(self._socket, words, str(cwd or Path.cwd()), given, streams)

    def run(self, *command: object, cwd: object = None, timeout: float = 300, **how: Any) -> Any:
        """Start a command and wait; returns what `subprocess.run` with captured text returns."""
        import subprocess
        import tempfile

        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
            with self.start(*command, cwd=cwd, stdout=out, stderr=error, **how) as child:
                code = child.wait(timeout)
            for stream in (out, error):
                stream.seek(0)
            return subprocess.CompletedProcess(command, code, out.read(), error.read())

    def close(self) -> None:
        """End the server and all commands that it has started."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._folder.cleanup()


# --- the client as a program -------------------------------------------------------------


def ask(server: str, command: list[str]) -> int:
    """Let the server run a command with this process's streams, and return its exit code."""
    import signal

    # Streams that the caller has closed are replaced by /dev/null.
    while os.open(os.devnull, os.O_RDWR) <= 2:
        pass
    child = Forked(server, command, os.getcwd(), dict(os.environ), [0, 1, 2])  # noqa: PTH109
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(child.pid, number))
    signal.signal(signal.SIGINT, lambda number, _: os.kill(child.pid, number))
    code = child.wait()
    return code if code >= 0 else 128 - code


# --- the server --------------------------------------------------------------------------


def serve(path: str, programs: str, modules: list[str]) -> Callable[[], object]:
    """Fork a child for each caller; returns only in a child, with the function that it runs."""
    import gc
    import importlib
    import selectors
    import signal
    from pathlib import Path

    before = dict(os.environ)
    for module in modules:
        importlib.import_module(module)
    if "multiprocess" in sys.modules:
        # `datasets` saves in a new process, which would repeat all imports; a fork does not.
        multiprocess = sys.modules["multiprocess"]
        fork = multiprocess.get_context("fork")
        multiprocess.get_context = lambda method=None: fork  # type: ignore[attr-defined]
    # Axolotl collects garbage five times per training; this excludes the imported modules.
    gc.freeze()
    # A fork has only one thread, so there must be no others (Arrow restarts its own in a fork).
    threads = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
    assert len([name for name in threads if name != "jemalloc_bg_thd"]) == 1, threads

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    waiting = selectors.DefaultSelector()
    waiting.register(0, selectors.EVENT_READ)
    waiting.register(listener, selectors.EVENT_READ)
    # By process id: a descriptor that becomes readable when the process ends, and the caller's
    # socket.
    callers: dict[int, tuple[int, socket.socket]] = {}
    print("ready", flush=True)

    def ended(pid: int) -> int:
        handle, caller = callers.pop(pid)
        for one in (handle, caller):
            waiting.unregister(one)
        os.close(handle)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    while True:
        for key, _ in waiting.select():
            if key.fileobj == 0:
                for pid in list(callers):
                    os.killpg(pid, signal.SIGKILL)
                    ended(pid)
                return lambda: 0
            if key.fileobj is listener:
                caller, _ = listener.accept()
                (command, cwd, env), streams = received(caller)
                pid = os.fork()
                if pid == 0:
                    return lambda: child(command, cwd, env, streams, programs, before)
                for stream in streams:
                    os.close(stream)
                handle = os.pidfd_open(pid)
                callers[pid] = handle, caller
                waiting.register(handle, selectors.EVENT_READ, pid)
                waiting.register(caller, selectors.EVENT_READ, pid)
                caller.sendall(f"{pid}\n".encode())
            elif key.data in callers:
                pid, caller = key.data, callers[key.data][1]
                if key.fileobj is caller:
                    os.killpg(pid, signal.SIGKILL)
                code = ended(pid)
                if key.fileobj is not caller:
                    caller.sendall(f"{code}\n".encode())
                caller.close()


def received(caller: socket.socket) -> tuple[Any, list[int]]:
    """A caller's request and the streams that it has sent."""
    head, rights, *_ = caller.recvmsg(8, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    streams = array.array("i")
    for _, _, data in rights:
        streams.frombytes(data)
    length, message = int.from_bytes(head, "big"), b""
    while len(message) < length:
        message += caller.recv(length - len(message))
    return json.loads(message), streams.tolist()


def child(
    command: list[str],
    cwd: str,
    env: dict[str, str],
    streams: list[int],
    programs: str,
    before: dict[str, str],
) -> object:
    """Run a command in a child as a new process would.

    Args:
        command: The command line (`ForkServer.start`).
        cwd: Working folder.
        env: Environment variables.
        streams: Descriptors that become standard input, output and error.
        programs: Folder with programs that make this server run commands.
        before: The server's environment before the imports.
    """
    import gc
    import random
    import runpy
    from importlib.metadata import EntryPoint, entry_points

    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    # The server's selector is garbage in the child. Collected later, it would close files that have
    # reused its descriptors.
    gc.collect()
    os.closerange(3, 1 << 10)
    os.chdir(cwd)
    for name in {*before, *env}.difference(OF_DOWNLOADS):
        if name.startswith(READ_AT_IMPORT) and before.get(name) != env.get(name):
            raise SystemExit(f"{name} is read at import: start this command without the server")
    by_imports = {key: value for key, value in os.environ.items() if before.get(key) != value}
    os.environ.clear()
    os.environ.update({**by_imports, **env})
    # Commands that the child starts by name or through the interpreter are forks too, if offered.
    os.environ["PATH"] = f"{programs}{os.pathsep}{env['PATH']}"
    if os.path.exists(f"{programs}/python"):  # noqa: PTH110
        sys.executable = f"{programs}/python"
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    name, *arguments = command
    sys.argv = [name, *arguments]
    if name == "-m":
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        return None
    if ":" in name:
        return EntryPoint(name, name, "").load()()
    (script,) = entry_points(group="console_scripts", name=name)
    return script.load()()


def leave(command: Callable[[], object]) -> NoReturn:
    """End like a program whose last line is ``sys.exit(command())``.

    It skips the second that the interpreter needs to tear down the imported modules.
    """
    import atexit
    import threading
    import traceback

    try:
        code = command()
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    # This folder has modules with the same names as installed ones.
    del sys.path[0]
    what, path, *rest = sys.argv[1:]
    if what == "ask":
        sys.exit(ask(path, rest))
    leave(serve(path, rest[0], rest[1:]))
