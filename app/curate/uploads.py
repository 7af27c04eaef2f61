"""Files on their way into a catalogue: written by one process, and swept when it was lost."""

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
_YOUNG_S = 60.0  # between a file's making and its lock


@dataclass(slots=True)
class Arriving:
    """An upload that is being written to `file`."""

    file: BinaryIO
    path: Path
    whole: bool = False

    def finish(self) -> Path:
        """Where it lies under its own name, from now on for a job to remove."""
        self.file.close()
        self.whole = True
        return self.path.rename(self.path.with_suffix(""))


@contextmanager
def arriving(folder: Path) -> Iterator[Arriving]:
    """A new upload in `folder`; nothing of it stays unless it is finished.

    A lock tells those who sweep that its process lives; it goes with the process. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{token_hex(8)}{_PART}"
    with path.open("wb") as file:
        with suppress(OSError):  # a file system without locks: it is swept by its age
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        upload = Arriving(file, path)
        try:
            yield upload
        finally:
            if not upload.whole:
                path.unlink(missing_ok=True)


def sweep(settings: Settings) -> None:
    """Remove what lost processes have left.

    Parts of uploads at once; whole uploads and files of builds when no job can name them any more.
    """
    kept_s = max(settings.job_ttl_s, _LONGEST_IMPORT_S)
    for path in (*settings.uploads.glob("*"), *settings.builds.glob("*")):
        with suppress(OSError):  # another process may be at it
            age_s = time.time() - path.stat().st_mtime
            if age_s > kept_s or (path.suffix == _PART and age_s > _YOUNG_S and _left(path)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _left(part: Path) -> bool:
    """Whether nobody writes it. Raises OSError where that is not known."""
    with part.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return os.path.samestat(os.fstat(file.fileno()), part.stat())
