"""The lines of an upload: whole, in short steps, and from wherever they were left off."""

import gzip
import time
from itertools import chain, pairwise, repeat
from pathlib import Path

import pytest

from app.curate.imports.file_lines import (
    MAX_LINE_BYTES,
    UnpackedTooLarge,
    Unreadable,
    line_batches,
)

Lines = list[tuple[int, bytes | None]]
TEXT = b"".join(
    [
        b"first\n\n  \n",
        b"".join(b"%d %s\n" % (n, b"x" * (n % 700)) for n in range(4_000)),
        b"\n" * 5_000,
        b"y" * (3 * MAX_LINE_BYTES) + b"\n",
        b"after it\r\n",
        b"z" * MAX_LINE_BYTES + b"\n",
        b"the last, without an end",
    ]
)


def expected(text: bytes) -> Lines:
    numbered = enumerate(text.split(b"\n"), 1)
    kept = [(number, line) for number, line in numbered if line.strip()]
    return [(number, line if len(line) <= MAX_LINE_BYTES else None) for number, line in kept]


def packed(text: bytes) -> bytes:
    """In members of any length, one of them empty, and filled up as on a tape."""
    cuts = [0, 1, 40_000, 40_000, 900_000, len(text)]
    parts = [gzip.compress(text[a:b], 1) for a, b in pairwise(cuts)]
    return b"".join(parts) + b"\0" * 700


@pytest.mark.parametrize("pack", [bytes, gzip.compress, packed])
def test_all_lines_are_read_and_can_be_gone_on_with_after_any_step(tmp_path, pack):
    file = tmp_path / "upload"
    file.write_bytes(pack(TEXT))
    found = list(line_batches(file))
    assert list(chain.from_iterable(batch.lines for batch in found)) == expected(TEXT)
    assert found[-1].read == TEXT.count(b"\n") + 1
    assert max(len(batch.lines) for batch in found) == 1_000
    for at, batch in enumerate(found):
        rest = line_batches(file, read=batch.read, position=batch.position)
        later = chain.from_iterable(batch.lines for batch in found[at + 1 :])
        assert list(chain.from_iterable(batch.lines for batch in rest)) == list(later)


@pytest.mark.parametrize(
    ("tail", "told"),
    [
        (b"garbage\n", "not compressed"),
        (b"\n", "not compressed"),
        (gzip.compress(b"more\n")[:5], "not compressed"),
        (gzip.compress(b"more\n" * 9_000)[:-9], "breaks off"),
    ],
    ids=["text", "line break", "header", "half"],  # gzip puts the time of day into its header
)
def test_what_comes_before_damage_is_read(tmp_path, tail, told):
    file = tmp_path / "upload"
    file.write_bytes(gzip.compress(b"one\ntwo\n") + tail)
    found: Lines = []

    def read() -> None:
        for batch in line_batches(file):
            found.extend(batch.lines)

    with pytest.raises(Unreadable, match=told) as damage:
        read()
    assert found[:2] == [(1, b"one"), (2, b"two")]
    assert damage.value.code == "unreadable"


def bomb(file: Path, text: bytes, megabytes: int) -> None:
    with gzip.open(file, "wb", 9) as writer:
        for part in repeat(text * (1_000_000 // len(text)), megabytes):
            writer.write(part)


@pytest.mark.parametrize(
    ("text", "megabytes"), [(b"\n", 80), (b"x" * 1_000_000, 80), (b"x\n", 3), (b"", 0)]
)
def test_every_step_is_short(tmp_path, text, megabytes):
    file = tmp_path / "upload"
    if text:
        bomb(file, text, megabytes)
    else:
        file.write_bytes(gzip.compress(b"") * 50_000)  # unpacks to nothing
    longest, reading = 0.0, line_batches(file)
    refused = False
    while True:
        began = time.process_time()
        try:
            batch = next(reading, None)
        except UnpackedTooLarge:
            refused = True
            break
        longest = max(longest, time.process_time() - began)
        if batch is None:
            break
    assert longest < 1.0  # some 0.05 on a machine with nothing else to do
    assert refused == (megabytes > 64)


def test_a_limit_holds_for_what_is_unpacked(tmp_path):
    file = tmp_path / "upload"
    file.write_bytes(gzip.compress(TEXT))
    assert list(line_batches(file, most_bytes=len(TEXT)))
    with pytest.raises(UnpackedTooLarge, match="UNILLMREC_MAX_UNPACKED_BYTES"):
        list(line_batches(file, most_bytes=len(TEXT) - 1))
