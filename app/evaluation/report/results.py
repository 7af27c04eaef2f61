"""`Results`: the file of all runs, so that an interrupted evaluation can continue."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from app.evaluation.dataset import DataError
from app.evaluation.report.result_row import ResultRow

_decode = msgspec.json.Decoder(ResultRow).decode


class Results:
    """`results.jsonl`: one row per line, in the order in which the runs ended.

    Several processes may append to one file. A row is on disk when `append` returns. An incomplete
    last line after a crash is ignored, and removed by the next `append`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[ResultRow]:
        """The newest row of each run, oldest run first; none where there is no file.

        Raises DataError, with file and line, for an invalid line.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        *lines, tail = content.split(b"\n")
        rows: dict[str, ResultRow] = {}
        for number, line in enumerate(lines, 1):
            if line.strip():
                row = self._read(line, number)
                rows[row.key] = row
        if (last := _complete(tail)) is not None:
            rows[last.key] = last
        return list(rows.values())

    def append(self, row: ResultRow) -> None:
        """Write one row, completely or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked() as file:
            size = os.fstat(file).st_size
            start = _last_line(file, size)
            line = msgspec.json.encode(row) + b"\n"
            if start < size:
                if _complete(os.pread(file, size - start, start)) is None:
                    os.ftruncate(file, start)
                else:
                    line = b"\n" + line
            while line:
                line = line[os.write(file, line) :]
            os.fsync(file)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)

    def _read(self, line: bytes, number: int) -> ResultRow:
        try:
            return _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataError(
                f"{self.path}:{number}: expected a row of results, as `evaluate` writes them: "
                f"{error}"
            ) from error


def _complete(line: bytes) -> ResultRow | None:
    """The row of a last line that lacks only its line break; None for an incomplete row."""
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _last_line(file: int, size: int) -> int:
    """The offset of a last line without line break; the size where all lines have one."""
    step, end = 65_536, size
    while end > 0:
        start = max(0, end - step)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
