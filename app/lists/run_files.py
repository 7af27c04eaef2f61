"""`RunFiles`: the files of a run, from which another process can continue it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

import msgspec

from app.jobs import JobFailed


class RunProgress(msgspec.Struct):
    """How far a run is: everything up to the line `answered` stands in the lists.

    `of` tells runs with other requests or options apart. `read` and `position` are where the batch
    of that line begins in the file of requests, and `size` is how many bytes the lists have.
    """

    answered: int = 0
    read: int = 0
    position: int = 0
    size: int = 0
    lists: int = 0
    problems: int = 0
    degraded: int = 0
    cost_usd: float = 0.0
    of: str = ""

    def result(self) -> dict[str, object]:
        """The result of the job."""
        return {"lists": self.lists, "problems": self.problems, "degraded": self.degraded}


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Requests, lists and progress of one run. All of it blocks: call it in a thread."""

    requests: Path
    lists: Path
    progress: Path

    @classmethod
    def within(cls, folder: Path) -> "RunFiles":
        """The files of a run in a folder of its own."""
        return cls(folder / "requests", folder / "lists.jsonl", folder / "progress.json")

    @classmethod
    def beside(cls, output: Path, requests: Path | None = None) -> "RunFiles":
        """The files of a run whose lists become `output`."""
        name = output.name
        return cls(
            requests or output.with_name(f"{name}.requests"),
            output.with_name(f"{name}.part"),
            output.with_name(f"{name}.progress"),
        )

    def known(self) -> RunProgress:
        """The progress; that of a new run where none is stored."""
        try:
            return msgspec.json.decode(self.progress.read_bytes(), type=RunProgress)
        except (FileNotFoundError, msgspec.DecodeError):
            return RunProgress()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While the block runs, no other process writes these lists. Raises JobFailed, OSError."""
        with self.lists.open("ab") as file:
            if not _is_ours(file, self.lists):
                raise JobFailed(
                    "running_elsewhere",
                    f"another process writes {self.lists}: wait for its end, or choose another "
                    "file",
                )
            try:
                yield
            finally:  # nothing was done
                if not self.progress.exists() and not os.fstat(file.fileno()).st_size:
                    self.lists.unlink(missing_ok=True)

    def requests_digest(self) -> str:
        """A checksum of the requests."""
        with self.requests.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()

    @contextmanager
    def opened(self, progress: RunProgress) -> Iterator[BinaryIO]:
        """The file of lists, at its end; what was written after `progress` is cut off."""
        with self.lists.open("r+b" if self.lists.exists() else "w+b") as file:
            file.truncate(progress.size)
            file.seek(0, os.SEEK_END)
            if file.tell() != progress.size:
                raise OSError(None, "the lists are shorter than the progress says", self.lists)
            yield file

    def keep(self, file: BinaryIO, lines: bytes, progress: RunProgress) -> None:
        """Append lines, then store the progress that counts them."""
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())
        progress.size += len(lines)
        self.note(progress)

    def note(self, progress: RunProgress) -> None:
        """Store the progress."""
        part = self.progress.with_name(f"{self.progress.name}.new")
        part.write_bytes(msgspec.json.encode(progress))
        part.replace(self.progress)

    def finish(self, output: Path, *, keep_requests: bool) -> None:
        """Give the lists their name, and remove what the run needed."""
        self.lists.replace(output)
        self.progress.unlink(missing_ok=True)
        if not keep_requests:
            self.requests.unlink(missing_ok=True)

    def remove_traces(self) -> None:
        """Remove everything but the lists."""
        self.requests.unlink(missing_ok=True)
        self.progress.unlink(missing_ok=True)


def _is_ours(file: BinaryIO, path: Path) -> bool:
    """Whether this process could lock the file, and it still has this name."""
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


_CATALOG = "catalog"  # the file with the id of the catalogue of a run


def new_folder(runs: Path, catalog_id: str) -> Path:
    """A new folder for a run of a catalogue. Raises OSError."""
    folder = runs / token_hex(8)
    folder.mkdir(parents=True, mode=0o700)
    (folder / _CATALOG).write_text(catalog_id, encoding="utf-8")
    return folder


def catalogs_of(runs: Path) -> dict[Path, str]:
    """The folders of all runs, each with the id of its catalogue."""
    found = {}
    for path in runs.glob(f"*/{_CATALOG}"):
        with suppress(OSError):  # it is being removed
            found[path.parent] = path.read_text(encoding="utf-8")
    return found
