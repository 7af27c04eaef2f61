"""Append-only files that end within a write: what is cut off their end is kept and told."""

import logging
import mmap
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tree.errors import StoreUnavailable

ENDS_WITHIN_A_WRITE = "Unexpected end of file"  # in the words of the server

_TORN_FILES = "torn-{}.aof"
_TRANSACTION_END = re.compile(rb"\*1\r\n\$4\r\nEXEC\r\n")

_log = logging.getLogger(__name__)


def torn_files(folder: Path) -> list[Path]:
    """What earlier starts left out of append-only files that ended within a write."""
    return sorted(folder.glob(_TORN_FILES.format("*")))


@contextmanager
def keeping_the_rest(folder: Path) -> Iterator[None]:
    """Keep what the server is about to cut off the end of its newest append-only file."""
    files = (folder / "appendonlydir").glob("*.incr.aof")
    newest = max(files, key=lambda file: int(file.name.split(".")[-3]))
    torn = folder / _TORN_FILES.format(f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    copy = torn.with_suffix(".copy")
    try:
        shutil.copyfile(newest, copy)
        try:
            yield
            with copy.open("rb") as source, torn.open("wb") as rest:
                source.seek(newest.stat().st_size)
                shutil.copyfileobj(source, rest)
        finally:
            copy.unlink()
    except OSError as error:
        raise StoreUnavailable(
            f"{newest} ends within a write, and {folder} has no room for what must be cut off "
            f"({error}): make room"
        ) from error
    whole = _transactions(torn)
    _log.log(
        logging.ERROR if whole else logging.WARNING,
        "%s ended within a write, as after a power loss: its last %d bytes, with %d whole "
        "transactions, are left out and kept in %s",
        newest.name,
        torn.stat().st_size,
        whole,
        torn,
    )


def _transactions(file: Path) -> int:
    """How many whole transactions a piece of an append-only file has: commits, above all."""
    with file.open("rb") as data:
        if not file.stat().st_size:
            return 0
        with mmap.mmap(data.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return sum(1 for _ in _TRANSACTION_END.finditer(content))
