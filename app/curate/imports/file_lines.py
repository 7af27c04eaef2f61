"""The lines of a file, gzipped or not, in batches that each take a short time to read."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

MAX_LINE_BYTES = 1_048_576

_BATCH_BYTES = 1_048_576
_BATCH_LINES = 1_000
_BATCH_BLOCKS = 64  # of a file that unpacks to nothing
_BLOCK = 65_536
_PACKED = 16_384
_GZIP = b"\x1f\x8b"
_GZIP_BITS = 31
# JSON Lines get some 5 to 20 times smaller, and a gzip at most 1,032 times.
_MOST_RATIO, _ALWAYS_ALLOWED_BYTES = 200, 64 * 1_048_576


class Unreadable(Exception):
    """The file is damaged here; everything before was read."""

    code = "unreadable"


class UnpackedTooLarge(Unreadable):
    """The file unpacks to more bytes than are allowed."""

    code = "unpacked_too_large"


@dataclass(slots=True)
class LineBatch:
    """Lines with their numbers, without the blank ones; None for a line that is too long."""

    lines: list[tuple[int, bytes | None]] = field(default_factory=list)
    read: int = 0  # lines from the start of the file to the end of this batch
    position: int = 0  # of the end of this batch in the file, in bytes


def line_batches(
    path: Path, *, read: int = 0, position: int = 0, most_bytes: int | None = None
) -> Iterator[LineBatch]:
    """The lines after the first `read`, where the batch that ended there gave the `position`.

    A batch has at most 1,000 lines and about a megabyte; it may have no lines. Raises Unreadable
    when a gzip is cut short or followed by something else, and UnpackedTooLarge when it unpacks to
    more than `most_bytes` or 200 times its size.
    """
    with path.open("rb") as raw:
        if raw.read(2) == _GZIP:
            raw.seek(0)
            yield from _split(raw, _unpacked(raw, most_bytes), LineBatch(), skip=read)
        else:
            raw.seek(position)
            blocks = iter(partial(raw.read, _BLOCK), b"")
            yield from _split(raw, blocks, LineBatch([], read, position), zipped=False)


def _split(
    raw: BinaryIO, blocks: Iterator[bytes], start: LineBatch, *, skip: int = 0, zipped: bool = True
) -> Iterator[LineBatch]:
    """The batches after `start`, without the first `skip` lines."""
    read, position = start.read, start.position
    line, dropped = b"", 0  # the beginning of a line, and how many bytes of it were not kept
    size = taken = 0
    lines = start.lines

    def add(text: bytes | None) -> None:
        if read > skip and (text is None or text.strip()):
            lines.append((read, text))

    def batch() -> LineBatch:
        nonlocal lines, size, taken
        done, lines, size, taken = lines, [], 0, 0
        return LineBatch(done, read, raw.tell() if zipped else position)

    try:
        for came in blocks:
            block, size, taken = came, size + len(came), taken + 1
            if not line and not dropped and not block.strip():  # blank lines are skipped fast
                end = block.rfind(b"\n") + 1
                read, position, block = read + block.count(b"\n"), position + end, block[end:]
            pieces = block.split(b"\n")
            for piece in pieces[:-1]:
                whole = line + piece if line else piece
                read, position = read + 1, position + dropped + len(whole) + 1
                add(None if dropped or len(whole) > MAX_LINE_BYTES else whole)
                line, dropped = b"", 0
                if len(lines) == _BATCH_LINES:
                    yield batch()
            line += pieces[-1]
            if dropped or len(line) > MAX_LINE_BYTES:
                line, dropped = b"", dropped + len(line)
            if size >= _BATCH_BYTES or taken >= _BATCH_BLOCKS:
                yield batch()
    except Unreadable:
        yield batch()
        raise
    if line or dropped:
        read, position = read + 1, position + dropped + len(line)
        add(None if dropped else line)
    yield batch()


def _unpacked(raw: BinaryIO, most_bytes: int | None) -> Iterator[bytes]:
    """The content of a gzip of any number of members, in blocks; some may be empty."""
    unpacked = 0
    packed = b""
    members = 0
    stream, fresh = None, True
    while packed := packed or raw.read(_PACKED):
        if stream is None:
            packed = (
                packed.lstrip(b"\0") if members else packed
            )  # zeros that pad it to whole blocks
            if not packed:
                yield b""
                continue
            stream, fresh = zlib.decompressobj(_GZIP_BITS), True
        try:
            block = stream.decompress(packed, _BLOCK)
        except zlib.error as error:
            raise Unreadable(_why(str(error), after=members if fresh else 0)) from error
        fresh = fresh and not block
        packed = stream.unconsumed_tail
        if stream.eof:
            packed, stream, members = stream.unused_data, None, members + 1
        unpacked += len(block)
        _check(unpacked, raw.tell() - len(packed), most_bytes)
        yield block
    if stream is not None:
        raise Unreadable(_why("it ends too early", after=members if fresh else 0))


def _why(error: str, *, after: int) -> str:
    if after:
        return "what follows the compressed data is not compressed: was something appended to it?"
    return f"the compression breaks off: {error}"


def _check(unpacked: int, packed: int, most_bytes: int | None) -> None:
    if most_bytes is not None and unpacked > most_bytes:
        raise UnpackedTooLarge(
            f"it unpacks to more than {most_bytes:,} bytes: import it in parts, or raise "
            "UNILLMREC_MAX_UNPACKED_BYTES"
        )
    if unpacked > max(_ALWAYS_ALLOWED_BYTES, _MOST_RATIO * packed):
        raise UnpackedTooLarge(
            f"it unpacks to more than {_MOST_RATIO} times its size: import it without compression"
        )
