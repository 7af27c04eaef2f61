"""MovieLens: `movies`, `ratings` and perhaps `tags`, as `.csv` (latest, 20M) or `.dat` (1M, 10M).

An event is a rating, whatever its height, unless a least rating is asked for. Genres become a path
from the most frequent of the catalogue to the rarest; the tags that most users gave, keywords. Tags
have no part in who reads what, but they are the users': for a strict temporal split leave the file
out.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from app.evaluation.dataset import Reader
from app.evaluation.formats.catalogue import UNKNOWN, Catalogue
from app.evaluation.formats.files import Reading, Source
from app.evaluation.formats.histories import LOW_RATING, EventLog, seconds
from app.evaluation.formats.recognition import Files, Role
from tree.item import Item

_COLUMNS = {
    Role.ITEMS: ("movieId", "title", "genres"),
    Role.EVENTS: ("userId", "movieId", "rating", "timestamp"),
    Role.TAGS: ("userId", "movieId", "tag", "timestamp"),
}
_NO_GENRE = "(no genres listed)"
_MOST_TAGS = 10


def read(
    files: Files, reading: Reading, min_rating: float | None
) -> tuple[list[Item], list[Reader]]:
    """See `formats.load`."""
    tags: dict[str, Counter[str]] = {}
    for path in files.get(Role.TAGS, ()):
        for _, (_, movie, tag, _) in _cells(reading, path, Role.TAGS):
            if tag.strip():
                tags.setdefault(movie, Counter())[" ".join(tag.casefold().split())[:200]] += 1
    catalogue = _catalogue(files, reading, tags)
    log = EventLog(catalogue)
    for path in files[Role.EVENTS]:
        for source, (user, movie, rating, timestamp) in _cells(reading, path, Role.EVENTS):
            try:
                height, time = float(rating), seconds(float(timestamp))
            except ValueError:
                source.malformed("a rating or timestamp that is no number")
                continue
            position = catalogue.positions.get(movie)
            if position is None:
                source.leave_out(UNKNOWN)
            elif min_rating is not None and height < min_rating:
                source.leave_out(LOW_RATING)
            else:
                log.add(user, position, time)
    return catalogue.items, log.readers()


def _catalogue(files: Files, reading: Reading, tags: dict[str, Counter[str]]) -> Catalogue:
    # Genres have no order of their own: how broad each is shows when all films are read.
    genres: Counter[str] = Counter()
    for path in files[Role.ITEMS]:
        for _, cells in _cells(Reading([path]), path, Role.ITEMS):
            genres.update(_genres(cells[2]))
    catalogue = Catalogue()
    for path in files[Role.ITEMS]:
        for source, (movie, title, listed) in _cells(reading, path, Role.ITEMS):
            ranked = sorted(tags.get(movie, Counter()).items(), key=lambda tag: (-tag[1], tag[0]))
            catalogue.add(
                source,
                {
                    "id": movie,
                    "title": title,
                    "categories": tuple(
                        sorted(_genres(listed), key=lambda genre: (-genres[genre], genre))
                    ),
                    "keywords": tuple(tag for tag, _ in ranked[:_MOST_TAGS]),
                    "domain": "movies",
                },
            )
    return catalogue


def _genres(listed: str) -> list[str]:
    return [each for each in dict.fromkeys(listed.split("|")) if each.strip() and each != _NO_GENRE]


def _cells(reading: Reading, path: Path, role: Role) -> Iterator[tuple[Source, list[str]]]:
    """Rows with as many cells as there are columns; others are counted."""
    columns = _COLUMNS[role]
    if ".dat" in path.suffixes or path.name.endswith(".dat.gz"):
        source = reading.open(path, "::".join(columns))
        rows: Iterator[list[str]] = (_text(row).split("::") for row in source.rows())
    else:
        source = reading.open(path, f"CSV with the header {','.join(columns)}")
        rows = _comma_separated(source)
        header = next(rows, [])
        if tuple(header) != columns:
            raise source.unusable(f"the header is {','.join(header)[:80]!r}")
    for cells in rows:
        if len(cells) == len(columns):
            yield source, cells
        else:
            source.malformed(f"not {len(columns)} columns")


def _comma_separated(source: Source) -> Iterator[list[str]]:
    try:
        yield from csv.reader(source.texts())
    except csv.Error as error:
        raise source.unusable(str(error)) from error


def _text(row: bytes) -> str:
    """1M is Latin-1, 10M is UTF-8; Latin-1 that happens to be UTF-8 does not occur in titles."""
    try:
        return row.decode()
    except UnicodeDecodeError:
        return row.decode("latin-1")
