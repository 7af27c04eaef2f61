"""The files of uploads: written by one process, and removed when that process is lost."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from app.settings import Settings

_LONGEST_IMPORT_S = 86_400
_PART = ".part"
_UNLOCKED_S = 60.0  # a new file may exist so long before it is locked


@dataclass(slots=True)
class Upload:
    """An upload that is being written to `file`."""

    file: BinaryIO
    path: Path
    complete: bool = False

    def finish(self) -> Path:
        """The path of the complete file. The job that reads it removes it."""
        self.file.close()
        self.complete = True
        return self.path.rename(self.path.with_suffix(""))


@contextmanager
def new_upload(folder: Path) -> Iterator[Upload]:
    """A new upload in `folder`; it is removed unless it is finished.

    It is locked while this process lives: see `remove_abandoned`. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{token_hex(8)}{_PART}"
    with path.open("wb") as file:
        with suppress(OSError):  # a file system without locks: its age decides
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        upload = Upload(file, path)
        try:
            yield upload
        finally:
            if not upload.complete:
                path.unlink(missing_ok=True)


def remove_abandoned(settings: Settings) -> None:
    """Remove the files of processes that are gone.

    Unfinished uploads at once; complete ones, and files of builds and of recommendation runs, once
    no job can need them.
    """
    kept_s = max(settings.job_ttl_s, _LONGEST_IMPORT_S)
    folders = (settings.uploads, settings.builds, settings.runs)
    for path in (path for folder in folders for path in folder.glob("*")):
        with suppress(OSError):  # another process may remove it, too
            age_s = time.time() - path.stat().st_mtime
            if age_s > kept_s or (path.suffix == _PART and age_s > _UNLOCKED_S and _unlocked(path)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _unlocked(part: Path) -> bool:
    """Whether no process writes the file. Raises OSError where that is not known."""
    with part.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return os.path.samestat(os.fstat(file.fileno()), part.stat())
