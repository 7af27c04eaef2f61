"""`DataFolder`: which process owns the folder of an embedded server, and where the server listens.

The owner locks the file `owner.json` and writes into it, also the number of that very file. The
content is valid only while the lock is held, and never in a copy of the folder: a copy does not
lead to the server of the original.
"""

import fcntl
import json
import os
import shutil
import socket
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

from tree.errors import StoreUnavailable

_OWNER_FILE = "owner.json"
_SOCKET_FILE = "valkey.sock"
_SOCKET_FOLDER = "unillmrec-"
_SOCKET_PATH_BYTES = 100  # the kernel's limit is 107 on Linux, 103 on macOS
_STORE = "appendonlydir"
_POLL_S = 0.01
_OWNER_GONE_S = 10.0  # how long the server of a killed owner may take to write what it holds
_GLANCE_S = 1.0  # a process that only checks whether the lock is held has it for microseconds


@dataclass(frozen=True, slots=True)
class _Owner:
    """The content of the owner file."""

    pid: int
    elsewhere: Path | None  # its socket, where the path of the folder is too long


class DataFolder:
    """A folder that this process owns, until `close` or the end of the process.

    The server must inherit `lock`, so that the folder is not free while the server of a killed
    owner still writes. The server listens at `socket`, which is relative inside the folder.
    """

    def __init__(self, path: Path, lock: IO[str], elsewhere: Path | None) -> None:
        self.path = path
        self.lock = lock
        self._elsewhere = elsewhere

    @classmethod
    def own(cls, folder: Path) -> "DataFolder":
        """Create the folder if it is missing, and own it.

        Waits up to ten seconds for the server of an owner that was killed. Raises StoreUnavailable
        when another process owns the folder or it cannot be written; the message says what to do.
        """
        folder = folder.absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = (folder / _OWNER_FILE).open("a+", encoding="utf-8")
        except OSError as error:
            raise _unwritable(folder, error) from error
        try:
            _wait_for_lock(lock, folder)
            if before := _owner_in(lock):
                _remove(before.elsewhere)
            owned = cls(folder, lock, _elsewhere(folder))
            owned._record()
        except BaseException as error:
            lock.close()
            if isinstance(error, OSError):
                raise _unwritable(folder, error) from error
            raise
        return owned

    @property
    def socket(self) -> Path:
        """Where the server has to listen, as seen from the folder."""
        return self._elsewhere or Path(_SOCKET_FILE)

    @property
    def url(self) -> str:
        """Where the server listens, for `connect`."""
        return _url(self.path / self.socket)

    def close(self) -> None:
        """Give the folder up, after its server has ended."""
        _remove(self._elsewhere)
        self.lock.close()

    def _record(self) -> None:
        its = os.fstat(self.lock.fileno())
        owner = {
            "pid": os.getpid(),
            "elsewhere": self._elsewhere and str(self._elsewhere),
            "file": [its.st_dev, its.st_ino],
        }
        self.lock.truncate(0)
        self.lock.write(json.dumps(owner))
        self.lock.flush()


def running_url(folder: Path) -> str | None:
    """The URL of the server over `folder`; None when none runs."""
    with suppress(OSError), (folder / _OWNER_FILE).open(encoding="utf-8") as lock:
        owner = _owner_in(lock)
        if owner is None or _free(lock):
            return None
        path = owner.elsewhere or folder.absolute() / _SOCKET_FILE
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            probe.connect(str(path))
        return _url(path)
    return None


def holds_store(folder: Path) -> bool:
    """Whether an embedded server has ever kept anything in `folder`."""
    return (folder / _STORE).is_dir()


def _wait_for_lock(lock: IO[str], folder: Path) -> None:
    """Lock the folder. Raises StoreUnavailable when a running process has it."""
    begun = time.monotonic()
    while not _locked(lock, fcntl.LOCK_EX):
        owner = _owner_in(lock)
        patience_s = _GLANCE_S if owner and _alive(owner.pid) else _OWNER_GONE_S
        if time.monotonic() - begun > patience_s:
            pid = owner.pid if owner else "unknown"
            raise StoreUnavailable(
                f"the data folder {folder} belongs to a running service (process {pid}): "
                "stop it, or choose another folder"
            )
        time.sleep(_POLL_S)


def _free(lock: IO[str]) -> bool:
    """Whether no process holds the lock; the check takes it for a moment."""
    if not _locked(lock, fcntl.LOCK_SH):
        return False
    fcntl.flock(lock, fcntl.LOCK_UN)
    return True


def _locked(lock: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner_in(lock: IO[str]) -> _Owner | None:
    """The owner that has written this very file; None in a copy of it."""
    its = os.fstat(lock.fileno())
    try:
        lock.seek(0)
        owner = json.loads(lock.read())
        if owner["file"] != [its.st_dev, its.st_ino]:
            return None
        elsewhere = owner["elsewhere"]
        return _Owner(int(owner["pid"]), Path(elsewhere) if elsewhere else None)
    except (ValueError, LookupError, TypeError):
        return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _elsewhere(folder: Path) -> Path | None:
    """A socket in a private temporary folder, where a path in `folder` would be too long."""
    if len(os.fsencode(folder / _SOCKET_FILE)) <= _SOCKET_PATH_BYTES:
        return None
    return Path(tempfile.mkdtemp(prefix=_SOCKET_FOLDER)) / _SOCKET_FILE


def _remove(elsewhere: Path | None) -> None:
    """Remove such a temporary folder. A socket in a data folder is left to its server."""
    if elsewhere is not None and elsewhere.parent.name.startswith(_SOCKET_FOLDER):
        shutil.rmtree(elsewhere.parent, ignore_errors=True)


def _url(path: Path) -> str:
    return f"unix://{quote(str(path))}"


def _unwritable(folder: Path, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(
        f"the data folder {folder} cannot be written ({error}): "
        "choose another one, or repair its permissions"
    )
