"""Files as lines: plain or gzip, hashed as they are read, each complaint with its place."""

import gzip
import hashlib
import io
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from app.evaluation.dataset import DataError, Skipped

Progress = Callable[[int, int], None]  # bytes read so far, bytes in all

_GZIP = b"\x1f\x8b"
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_LONGEST_LINE = 16 << 20  # more than any row of the known formats; bounds what a wrong file costs
_HOPELESS = 100  # so many malformed rows and no good one: the file is something else
_STEP = 1 << 20


class Reading:
    """One load: how far it is, what it left out, and what it read."""

    def __init__(self, paths: Sequence[Path], on_progress: Progress | None = None) -> None:
        self.skipped = Skipped()
        self.checksums: dict[str, str] = {}
        self._on_progress = on_progress
        self._done = self._told = 0
        try:
            self._total = sum(path.stat().st_size for path in paths)
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read: {error.strerror}.") from error
        often = Counter(path.name for path in paths)
        self._names = {
            path: path.name if often[path.name] == 1 else f"{path.parent.name}/{path.name}"
            for path in paths
        }

    def open(self, path: Path, expected: str) -> "Source":
        """The rows of one of the files; `expected` is what a complaint says a row should be."""
        return Source(path, self._names[path], expected, self)

    def advance(self, count: int) -> None:
        """So many more bytes of the files were read."""
        self._done += count
        if self._on_progress and (self._done - self._told >= _STEP or self._done == self._total):
            self._told = self._done
            self._on_progress(self._done, self._total)


class Source:
    """One file. `line` is where it stands, from 1; rows that are complained about do not count."""

    def __init__(self, path: Path, name: str, expected: str, reading: Reading) -> None:
        self.line = 0
        self.name = name
        self._path = path
        self._expected = expected
        self._reading = reading
        self._rows = self._malformed = 0
        self._first = ""

    @property
    def place(self) -> str:
        """`file:line` of the current row."""
        return f"{self.name}:{self.line}"

    def rows(self) -> Iterator[bytes]:
        """Every line that is not blank, without its end.

        Raises DataError where the file cannot be read, is empty, or has no row that makes sense.
        """
        for line in self._lines():
            self.line += 1
            if self.line == 1:
                line = self._without_mark(line)  # noqa: PLW2901
            row = line.rstrip(b"\r\n")
            if row.strip():
                self._rows += 1
                yield row
                if self._malformed == self._rows >= _HOPELESS:
                    break
        if self._rows == 0:
            raise DataError(f"{self.name}:1: the file is empty; expected {self._expected}.")
        if self._malformed == self._rows:
            raise DataError(f"{self._first}; expected {self._expected}.{self._resemblance()}")

    def texts(self) -> Iterator[str]:
        """`rows` as UTF-8. Raises DataError where they are not."""
        for row in self.rows():
            try:
                text = row.decode()
            except UnicodeDecodeError as error:
                raise self.undecodable(error) from error
            yield text

    def malformed(self, reason: str) -> None:
        """Leave the current row out: it is not what it should be."""
        self._malformed += 1
        self._first = self._first or f"{self.place}: {reason}"
        self.leave_out(reason)

    def leave_out(self, reason: str) -> None:
        """Count something of the current row that is not used, though it is well formed."""
        self._reading.skipped.add(reason, self.place)

    def undecodable(self, error: UnicodeDecodeError) -> DataError:
        """The current row is in another encoding."""
        byte = error.object[error.start]
        return DataError(
            f"{self.place}: byte 0x{byte:02x} is not UTF-8; expected {self._expected}, in UTF-8."
        )

    def unusable(self, reason: str) -> DataError:
        """The file as a whole, because of its current row."""
        return DataError(f"{self.place}: {reason}; expected {self._expected}.{self._resemblance()}")

    def _without_mark(self, line: bytes) -> bytes:
        if line.startswith(_UTF16_MARKS):
            raise DataError(
                f"{self.name}:1: the file is UTF-16; expected {self._expected}, in UTF-8."
            )
        return line.removeprefix(_UTF8_MARK)

    def _resemblance(self) -> str:
        from app.evaluation.formats.recognition import resemblance

        seen = resemblance(self._path)
        return f" It looks like {seen}." if seen else ""

    def _lines(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb", buffering=0) as file:
                tally = _Tally(file, self._reading)
                with closing(lines_of(tally)) as lines:
                    for line in lines:
                        if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
                            raise DataError(
                                f"{self.name}:{self.line + 1}: longer than "
                                f"{_LONGEST_LINE >> 20} MiB; expected {self._expected}."
                            )
                        yield line
                self._reading.checksums[self.name] = tally.checksum()
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
    """Lines with their ends, at most `_LONGEST_LINE` bytes each; what the name says is ignored."""
    stream = io.BufferedReader(file, 1 << 18)
    try:
        packed = stream.peek(2)[:2] == _GZIP
        lines = gzip.GzipFile(fileobj=stream) if packed else stream
        while line := lines.readline(_LONGEST_LINE):
            yield line
    finally:
        stream.detach()


class _Tally(io.RawIOBase):
    """A file that hashes and reports what is read of it."""

    def __init__(self, file: io.RawIOBase, reading: Reading) -> None:
        self._file = file
        self._reading = reading
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        count = self._file.readinto(buffer) or 0
        self._hash.update(memoryview(buffer)[:count])
        self._reading.advance(count)
        return count

    def checksum(self) -> str:
        """Of the whole file."""
        while self.read(_STEP):
            pass
        return self._hash.hexdigest()
