"""One store and several API processes on loopback, which can be killed and started again."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import httpx2
from redis.exceptions import RedisError

from tests.servers.tied import tied
from tree.redis.connection import connect
from tree.redis.embedded_server import valkey_binary

_START_S = 60
_STOP_S = 15
_POLL_S = 0.05
_PORTS = range(20_000, 32_000)  # below those that outgoing connections get: free again after a kill
_LOG_CHARACTERS = 3_000


class Process:
    """A command that can be killed and started again; what it prints is kept in a file."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self._command = list(command)
        self._log = log
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._sessions: list[int] = []

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                tied(self._command),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._sessions.append(self._process.pid)

    def kill(self) -> None:
        """`kill -9`, and only this process: workers that it has forked must see to themselves."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @contextmanager
    def halted(self) -> Iterator[None]:
        """It hangs while the block runs, as on a machine that sleeps."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def workers(self) -> list[int]:
        """The processes that it, or who it forked, has forked; also after it was killed."""
        assert self._process is not None
        return [pid for pid in _session(self._process.pid) if pid != self._process.pid]

    def terminated(self, within_s: float = 60) -> float:
        """Ask it to end; after how many seconds it was gone."""
        assert self._process is not None
        began = time.monotonic()
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        return time.monotonic() - began

    def stop(self) -> None:
        """End it in peace, and whatever it has left behind at once."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid in (pid for leader in self._sessions for pid in _session(leader)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def told(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(errors="replace")[-_LOG_CHARACTERS:]


class Api(Process):
    """A process of the service; a hurried one waits less for others: see tests.faults.service."""

    def __init__(self, log: Path, environment: Mapping[str, str], *, hurried: bool = False) -> None:
        self.port = _free_port()
        port = str(self.port)
        module = (
            ["tests.faults.service", port]
            if hurried
            else ["app", "serve", "--port", port, "--log-level", "warning"]
        )
        super().__init__([sys.executable, "-m", *module], log, environment)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Store(Process):
    """A Valkey on a Unix socket that has written to disk whatever it acknowledged."""

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None:
        self.socket = folder / "valkey.sock"
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "dir": str(folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            **options,
        }
        arguments = [part for name, value in settings.items() for part in (f"--{name}", value)]
        super().__init__([str(valkey_binary()), *arguments], folder / "valkey.log", os.environ)

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    async def answering(self) -> None:
        """Return when it has read its file and answers."""
        deadline = time.monotonic() + _START_S
        async with connect(self.url) as client:
            while True:
                with suppress(RedisError, OSError):
                    await client.ping()
                    return
                assert self.running, f"the store does not start:\n{self.told()}"
                assert time.monotonic() < deadline, f"the store does not answer:\n{self.told()}"
                await asyncio.sleep(_POLL_S)


@asynccontextmanager
async def stored(folder: Path) -> AsyncIterator[Store]:
    """A store in this folder, whose path is short enough for a socket."""
    store = Store(folder, {})
    store.start()
    try:
        await store.answering()
        yield store
    finally:
        store.stop()


class Fleet:
    """The processes; those of the API share the store and a data folder."""

    def __init__(self, store: Store, apis: Sequence[Api]) -> None:
        self.store = store
        self.apis = list(apis)

    @property
    def urls(self) -> list[str]:
        return [api.url for api in self.apis]

    @property
    def processes(self) -> list[Process]:
        return [self.store, *self.apis]

    async def revive(self) -> None:
        """Start whatever does not run, as a supervisor would."""
        if not self.store.running:
            self.store.start()
            await self.store.answering()
        for api in self.apis:
            if not api.running:
                api.start()

    async def ready(self, within_s: float = _START_S) -> None:
        """Return when every process runs and every API is ready."""
        deadline = time.monotonic() + within_s
        async with httpx2.AsyncClient(timeout=10) as client:
            for api in self.apis:
                while not await is_ready(client, api.url):
                    await self.revive()
                    late = f"{api.url} is not ready within {within_s} s:\n{api.told()}"
                    assert time.monotonic() < deadline, late
                    await asyncio.sleep(_POLL_S)


@asynccontextmanager
async def running(
    folder: Path,
    *,
    prefix: str,
    apis: int = 3,
    store: Store | None = None,
    store_url: str | None = None,
    settings: Mapping[str, str] | None = None,
    hurried: bool = True,
) -> AsyncIterator[Fleet]:
    """A fleet whose processes are ready, stopped when the block is left.

    The API processes reach the store at `store_url`, by default at its socket; `settings` are
    theirs, without UNILLMREC_. A `store` that is given is running, and stays so. Those that are not
    `hurried` have the times of `unillmrec serve`.
    """
    own = store is None
    store = store or Store(folder, {})
    chosen = {
        "REDIS_URL": store_url or store.url,
        "DATA_DIR": str(folder / "data"),
        "KEY_PREFIX": prefix,
        "BUILD_PROCESSES": "2",
        **(settings or {}),
    }
    environment = free_of_settings(chosen)
    logs = [folder / f"api-{number}.log" for number in range(apis)]
    fleet = Fleet(store, [Api(log, environment, hurried=hurried) for log in logs])
    try:
        await fleet.revive()
        await fleet.ready()
        yield fleet
    finally:
        for process in [*fleet.apis, *([store] if own else [])]:
            process.stop()


def free_of_settings(chosen: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process with these settings and no others."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("UNILLMREC_")}
    return kept | {f"UNILLMREC_{name}": value for name, value in chosen.items()}


async def is_ready(client: httpx2.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/readyz")).status_code == 200
    except httpx2.TransportError:
        return False


def _free_port() -> int:
    while True:
        port = random.choice(_PORTS)  # not seeded: several suites may run at once
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _session(leader: int) -> list[int]:
    """The processes whose session `leader` began, zombies left out."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session, *_ = entry.read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue  # gone in this moment
        if int(session) == leader and state != "Z":
            found.append(int(entry.parent.name))
    return found
