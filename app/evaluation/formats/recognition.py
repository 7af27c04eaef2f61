"""Detects the format of a file: by its published name, otherwise by its first rows."""

import gzip
import re
import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path

import msgspec

from app.data_files.files import lines_of
from app.evaluation.choices import DataFormat
from app.evaluation.dataset import DataError


class Role(StrEnum):
    """What a file of a format contains."""

    ITEMS = "items"
    EVENTS = "events"
    TAGS = "tags"
    USERS = "users"  # facts of users, which are not used


@dataclass(frozen=True, slots=True)
class Kind:
    """A format and a role of a file in it."""

    format: DataFormat
    role: Role

    def __str__(self) -> str:
        return f"{_DISPLAY_NAMES[self.format]} ({self.role})"


Files = dict[Role, list[Path]]

_DISPLAY_NAMES = {
    DataFormat.PLAIN: "the plain format",
    DataFormat.MIND: "MIND",
    DataFormat.AMAZON: "Amazon reviews",
    DataFormat.MOVIELENS: "MovieLens",
}
_FILE_NAMES = {
    DataFormat.PLAIN: "items.jsonl and histories.jsonl or events (.jsonl, .csv, .tsv)",
    DataFormat.MIND: "news.tsv and behaviors.tsv",
    DataFormat.AMAZON: "meta_X.json and reviews_X.json (2014), X.json (2018), or .jsonl (2023)",
    DataFormat.MOVIELENS: "movies and ratings, as .csv or .dat",
}
_NAME_PATTERNS = (
    (r"items\.jsonl?", Kind(DataFormat.PLAIN, Role.ITEMS)),
    (r"histories\.jsonl?", Kind(DataFormat.PLAIN, Role.EVENTS)),
    (r"events\.(jsonl?|csv|tsv)", Kind(DataFormat.PLAIN, Role.EVENTS)),
    (r"news\.tsv", Kind(DataFormat.MIND, Role.ITEMS)),
    (r"behaviors\.tsv", Kind(DataFormat.MIND, Role.EVENTS)),
    (r"meta_.+\.jsonl?", Kind(DataFormat.AMAZON, Role.ITEMS)),
    (r"reviews_.+\.jsonl?", Kind(DataFormat.AMAZON, Role.EVENTS)),
    (r"movies\.(dat|csv)", Kind(DataFormat.MOVIELENS, Role.ITEMS)),
    (r"ratings\.(dat|csv)", Kind(DataFormat.MOVIELENS, Role.EVENTS)),
    (r"tags\.(dat|csv)", Kind(DataFormat.MOVIELENS, Role.TAGS)),
    (r"users\.dat", Kind(DataFormat.MOVIELENS, Role.USERS)),
)
_ROW_PATTERNS = (  # for rows that are not JSON; the first match counts
    (r"movieId,title,.*", Kind(DataFormat.MOVIELENS, Role.ITEMS)),
    (r"userId,movieId,rating.*", Kind(DataFormat.MOVIELENS, Role.EVENTS)),
    (r"userId,movieId,tag.*", Kind(DataFormat.MOVIELENS, Role.TAGS)),
    (r"\d+::\d+::[\d.]+::\d+", Kind(DataFormat.MOVIELENS, Role.EVENTS)),
    (r"\d+::\d+::.*::\d+", Kind(DataFormat.MOVIELENS, Role.TAGS)),
    (r"\d+::[A-Z]::\d+::\d+::[^:]+", Kind(DataFormat.MOVIELENS, Role.USERS)),
    (r"\d+::.+::.+", Kind(DataFormat.MOVIELENS, Role.ITEMS)),
    (r"N\d+(\t[^\t]*){7}", Kind(DataFormat.MIND, Role.ITEMS)),
    (r"[^\t]+\t[^\t]+\t\d+/\d+/\d{4} [^\t]*(\t[^\t]*){2}", Kind(DataFormat.MIND, Role.EVENTS)),
)
_ROWS = 5  # more than one, in case the first row is damaged


def chosen_files(paths: Sequence[Path], wanted: DataFormat | None) -> tuple[DataFormat, Files]:
    """The format of the files, and the files of each role.

    A folder stands for the files directly in it; unknown files in folders are ignored. Raises
    DataError unless exactly one format is complete.
    """
    kinds: dict[Path, Kind] = {}
    for path, named in _listed(paths):
        kind = kind_of(path)
        if kind and (wanted is None or kind.format == wanted):
            kinds.setdefault(path, kind)
        elif named:
            seen = f"it looks like {kind}" if kind else "it looks like none of the formats"
            known = [wanted] if wanted else list(DataFormat)
            expected = "; ".join(f"{each}: {_FILE_NAMES[each]}" for each in known)
            raise DataError(f"{path}:1: {seen}; expected {expected}.")
    complete = [
        each
        for each in DataFormat
        if {Role.ITEMS, Role.EVENTS} <= {k.role for k in kinds.values() if k.format == each}
    ]
    where = ", ".join(map(str, paths))
    if len(complete) > 1:
        raise DataError(f"{where}: holds {' and '.join(complete)}; say which is meant.")
    if not complete:
        raise DataError(_incomplete(where, kinds, wanted))
    files: Files = {}
    for path, kind in kinds.items():
        if kind.format == complete[0]:
            files.setdefault(kind.role, []).append(path)
    return complete[0], files


def kind_of(path: Path) -> Kind | None:
    """The kind of a file, by its name, otherwise by its first rows; None for unknown files."""
    for pattern, kind in _NAME_PATTERNS:
        if re.fullmatch(pattern + r"(\.gz)?", path.name, re.IGNORECASE):
            return kind
    return resemblance(path)


def resemblance(path: Path) -> Kind | None:
    """The kind of a file by its first rows only; None for unknown ones."""
    try:
        with path.open("rb", buffering=0) as file, closing(lines_of(file)) as lines:
            rows = [_bare(line) for line in islice(lines, _ROWS)]
    except (OSError, EOFError, zlib.error, gzip.BadGzipFile):
        return None
    return next((kind for kind in map(_kind_of_row, rows) if kind), None)


def _bare(line: bytes) -> bytes:
    return line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n")


def _listed(paths: Sequence[Path]) -> list[tuple[Path, bool]]:
    """Files, and whether each was given itself and not as part of a folder."""
    listed: list[tuple[Path, bool]] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.iterdir())
            listed += [(p, False) for p in inside if p.is_file() and not p.name.startswith(".")]
        elif path.exists():
            listed.append((path, True))
        else:
            raise DataError(f"{path}: no such file or folder; expected the data to evaluate on.")
    return listed


def _incomplete(where: str, kinds: dict[Path, Kind], wanted: DataFormat | None) -> str:
    found = ", ".join(f"{path.name}: {kind}" for path, kind in kinds.items()) or "nothing known"
    formats = (
        [wanted] if wanted else list({k.format: None for k in kinds.values()}) or list(DataFormat)
    )
    expected = "; or ".join(f"{_FILE_NAMES[each]} ({each})" for each in formats)
    return f"{where}: incomplete; found {found}; expected {expected}, each also as .gz."


def _kind_of_row(row: bytes) -> Kind | None:
    if row.startswith(b"{"):
        return _kind_of_object(row)
    text = row.decode("latin-1")
    return next((kind for pattern, kind in _ROW_PATTERNS if re.fullmatch(pattern, text)), None)


def _kind_of_object(row: bytes) -> Kind | None:
    try:
        names = set(msgspec.json.decode(row, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, UnicodeDecodeError):
        # The metadata of 2014 are Python literals.
        names = set(re.findall(r"'(\w+)': ", row[:4_000].decode("latin-1")))
        return Kind(DataFormat.AMAZON, Role.ITEMS) if "asin" in names else None
    if names >= {"user_id", "history"}:
        return Kind(DataFormat.PLAIN, Role.EVENTS)
    if names >= {"reviewerID", "asin"} or (names >= {"user_id", "rating"} and names & _ASINS):
        return Kind(DataFormat.AMAZON, Role.EVENTS)
    if names & _ASINS:
        return Kind(DataFormat.AMAZON, Role.ITEMS)
    return Kind(DataFormat.PLAIN, Role.ITEMS) if names >= {"id", "title"} else None


_ASINS = {"asin", "parent_asin"}
