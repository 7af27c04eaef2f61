"""Files as rows: plain or gzip, hashed while they are read; errors name file and line."""

import gzip
import hashlib
import io
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

Progress = Callable[[int, int], None]  # bytes read so far, bytes in total
Resemblance = Callable[[Path], object]  # what a file looks like, as words; None for unknown ones

_GZIP = b"\x1f\x8b"
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_LONGEST_LINE = 16 << 20  # longer than any row of the formats; limits the cost of a wrong file
_WRONG_FORMAT = 100  # after so many malformed rows and no good one, the file is refused
_STEP = 1 << 20


class DataError(Exception):
    """A file cannot be used. The message names the file, the line and what was expected."""


@dataclass(slots=True)
class Skipped:
    """Rows that were left out: their number for each reason, and the place of the first."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        """Count one; `where` is `file:line`."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first.setdefault(reason, where)

    def include(self, other: "Skipped") -> None:
        """Add the rows of another file."""
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
            self.first.setdefault(reason, other.first[reason])


class FileLoad:
    """One load of some files: its progress, skipped rows and checksums."""

    def __init__(
        self,
        paths: Sequence[Path],
        on_progress: Progress | None = None,
        resemblance: Resemblance | None = None,
    ) -> None:
        self.skipped = Skipped()
        self.checksums: dict[str, str] = {}
        self._on_progress = on_progress
        self._resemblance = resemblance
        self._done = self._shown = 0
        try:
            self._total = sum(path.stat().st_size for path in paths)
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read: {error.strerror}.") from error
        counts = Counter(path.name for path in paths)
        self._names = {
            path: path.name if counts[path.name] == 1 else f"{path.parent.name}/{path.name}"
            for path in paths
        }

    def open(self, path: Path, expected: str, *, skip_undecodable: bool = False) -> "DataFile":
        """One of the files; error messages say that a row should be `expected`.

        A row that is not UTF-8 is an error for the whole file, or is left out and counted.
        """
        return DataFile(path, self._names[path], expected, self, skip_undecodable=skip_undecodable)

    def resemblance_of(self, path: Path) -> str:
        """A sentence about what a file looks like; empty when nothing is known."""
        seen = self._resemblance(path) if self._resemblance else None
        return f" It looks like {seen}." if seen else ""

    def advance(self, count: int) -> None:
        """Count bytes that were read, and report them every MiB."""
        self._done += count
        if self._on_progress and (self._done - self._shown >= _STEP or self._done == self._total):
            self._shown = self._done
            self._on_progress(self._done, self._total)


class DataFile:
    """One file. `line` is the number of the current line, from 1."""

    def __init__(
        self,
        path: Path,
        name: str,
        expected: str,
        loading: FileLoad,
        *,
        skip_undecodable: bool = False,
    ) -> None:
        self.line = 0
        self.name = name
        self._path = path
        self._expected = expected
        self._reading = loading
        self._skip_undecodable = skip_undecodable
        self._rows = self._headers = self._malformed = 0
        self._first = ""

    @property
    def place(self) -> str:
        """`file:line` of the current row."""
        return f"{self.name}:{self.line}"

    def rows(self) -> Iterator[bytes]:
        """Each line that is not blank, without its line break.

        Raises DataError where the file cannot be read, is empty, or has only malformed rows.
        """
        for line in self._lines():
            self.line += 1
            if self.line == 1:
                line = self._without_mark(line)  # noqa: PLW2901
            row = line.rstrip(b"\r\n")
            if row.strip():
                self._rows += 1
                yield row
                if self._malformed == self._rows - self._headers >= _WRONG_FORMAT:
                    break
        if self._rows == 0:
            raise DataError(f"{self.name}:1: the file is empty; expected {self._expected}.")
        if self._malformed and self._malformed == self._rows - self._headers:
            raise DataError(f"{self._first}; expected {self._expected}.{self._resemblance()}")

    def header(self) -> None:
        """The current row is a header: it is none of the rows that may be malformed."""
        self._headers += 1

    def texts(self) -> Iterator[str]:
        """The rows as text; see `text`."""
        for row in self.rows():
            text = self.text(row)
            if text is not None:
                yield text

    def text(self, row: bytes) -> str | None:
        """The current row as text; None where it is not UTF-8. Raises DataError, see `open`."""
        try:
            return row.decode()
        except UnicodeDecodeError as error:
            self.undecodable(error)
            return None

    def malformed(self, reason: str) -> None:
        """Leave out and count the current row, because it is malformed."""
        self._malformed += 1
        self._first = self._first or f"{self.place}: {reason}"
        self.leave_out(reason)

    def leave_out(self, reason: str) -> None:
        """Count a well-formed part of the current row that is not used."""
        self._reading.skipped.add(reason, self.place)

    def undecodable(self, error: UnicodeDecodeError) -> None:
        """Leave out and count the current row, which is not UTF-8. Raises DataError, see `open`."""
        if self._skip_undecodable:
            self.malformed("not UTF-8")
            return
        byte = error.object[error.start]
        raise DataError(
            f"{self.place}: byte 0x{byte:02x} is not UTF-8; expected {self._expected}, in UTF-8."
        ) from error

    def unusable(self, reason: str) -> DataError:
        """An error for the whole file, because of its current row."""
        return DataError(f"{self.place}: {reason}; expected {self._expected}.{self._resemblance()}")

    def _without_mark(self, line: bytes) -> bytes:
        if line.startswith(_UTF16_MARKS):
            raise DataError(
                f"{self.name}:1: the file is UTF-16; expected {self._expected}, in UTF-8."
            )
        return line.removeprefix(_UTF8_MARK)

    def _resemblance(self) -> str:
        return self._reading.resemblance_of(self._path)

    def _lines(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb", buffering=0) as file:
                counted = _CountedFile(file, self._reading)
                with closing(lines_of(counted)) as lines:
                    for line in lines:
                        if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
                            raise DataError(
                                f"{self.name}:{self.line + 1}: longer than "
                                f"{_LONGEST_LINE >> 20} MiB; expected {self._expected}."
                            )
                        yield line
                self._reading.checksums[self.name] = counted.checksum()
        except EOFError as error:
            raise DataError(
                f"{self.name}:{self.line + 1}: the gzip file ends in the middle; expected all "
                f"of it: {self._expected}. Was the download or copy cut off?"
            ) from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"{self.name}:{self.line + 1}: the gzip file is damaged ({error}); expected "
                f"{self._expected}."
            ) from error
        except OSError as error:
            raise DataError(
                f"{self.name}:{self.line + 1}: cannot be read: {error.strerror}; expected "
                f"{self._expected}."
            ) from error


def lines_of(file: io.RawIOBase) -> Generator[bytes, None, None]:
    """Lines with line breaks, at most `_LONGEST_LINE` bytes each. Gzip is detected by content."""
    stream = io.BufferedReader(file, 1 << 18)
    try:
        packed = stream.peek(2)[:2] == _GZIP
        lines = gzip.GzipFile(fileobj=stream) if packed else stream
        while line := lines.readline(_LONGEST_LINE):
            yield line
    finally:
        stream.detach()


class _CountedFile(io.RawIOBase):
    """A file that hashes its bytes and reports progress while it is read."""

    def __init__(self, file: io.RawIOBase, loading: FileLoad) -> None:
        self._file = file
        self._reading = loading
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        count = self._file.readinto(buffer) or 0
        self._hash.update(memoryview(buffer)[:count])
        self._reading.advance(count)
        return count

    def checksum(self) -> str:
        """The SHA-256 of the whole file."""
        while self.read(_STEP):
            pass
        return self._hash.hexdigest()
