"""Append-only files that end within a write: what the server cuts off is kept and logged."""

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
    """The files with what earlier starts have cut off, oldest first."""
    return sorted(folder.glob(_TORN_FILES.format("*")))


@contextmanager
def keeping_what_is_cut_off(folder: Path) -> Iterator[None]:
    """Keep what the server cuts off its newest append-only file within the block."""
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
    """The number of whole transactions in a piece of an append-only file; most are commits."""
    with file.open("rb") as data:
        if not file.stat().st_size:
            return 0
        with mmap.mmap(data.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return sum(1 for _ in _TRANSACTION_END.finditer(content))
