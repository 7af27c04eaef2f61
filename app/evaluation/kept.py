"""`KeptAnswers`: what systems answered, beside the rows, so that comparisons outlive a run."""

import gzip
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

_decode = msgspec.json.Decoder(list[list[str]]).decode


class KeptAnswers:
    """A folder with a file for every run, by its key: one answer per case, best first.

    A system that is compared with one that was asked in an earlier run, reader by reader, needs no
    second answer of it. Some 3 B an item: a thousand readers take 60 kB.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str, cases: int) -> list[list[str]] | None:
        """None where there are none for so many cases, or the file is damaged."""
        try:
            answers = _decode(gzip.decompress((self._folder / f"{key}.json.gz").read_bytes()))
        except (OSError, EOFError, ValueError):
            return None
        return answers if len(answers) == cases else None

    def put(self, key: str, answers: Sequence[Sequence[str]]) -> None:
        """Keep them, whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        made = self._folder / f"{key}.{os.getpid()}"
        made.write_bytes(gzip.compress(msgspec.json.encode(answers), 6, mtime=0))
        made.replace(self._folder / f"{key}.json.gz")
