"""`AnswerStore`: the answers of systems, stored beside the results for later comparisons."""

import gzip
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

_decode = msgspec.json.Decoder(list[list[str]]).decode


class AnswerStore:
    """A folder with one file per run, named by its key: one answer per case, best first.

    With it, a new system can be compared user by user with a system of an earlier run, which does
    not have to answer again. About 3 B per item: the answers for 1,000 users take 60 kB.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str, cases: int) -> list[list[str]] | None:
        """The answers of a run. None where the file is missing, damaged or has another length."""
        try:
            answers = _decode(gzip.decompress((self._folder / f"{key}.json.gz").read_bytes()))
        except (OSError, EOFError, ValueError):
            return None
        return answers if len(answers) == cases else None

    def put(self, key: str, answers: Sequence[Sequence[str]]) -> None:
        """Store the answers of a run. The file is written completely or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / f"{key}.{os.getpid()}"
        temporary.write_bytes(gzip.compress(msgspec.json.encode(answers), 6, mtime=0))
        temporary.replace(self._folder / f"{key}.json.gz")
