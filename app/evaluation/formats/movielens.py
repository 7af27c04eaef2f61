"""MovieLens: `movies`, `ratings` and perhaps `tags`, as `.csv` (latest, 20M) or `.dat` (1M, 10M).

An event is a rating; `min_rating` leaves out lower ones. Genres become a category path, from the
most to the least frequent in the catalogue; the most frequent tags become keywords. Tags are not
events, but users wrote them over time: for a strict temporal split, leave the file out.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from app.evaluation.dataset import DatasetUser
from app.evaluation.formats.catalogue import UNKNOWN, Catalogue
from app.evaluation.formats.data_files import DataFile, DatasetLoad
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
    files: Files, loading: DatasetLoad, min_rating: float | None
) -> tuple[list[Item], list[DatasetUser]]:
    """See `formats.load`."""
    tags: dict[str, Counter[str]] = {}
    for path in files.get(Role.TAGS, ()):
        for _, (_, movie, tag, _) in _cells(loading, path, Role.TAGS):
            if tag.strip():
                tags.setdefault(movie, Counter())[" ".join(tag.casefold().split())[:200]] += 1
    catalogue = _catalogue(files, loading, tags)
    log = EventLog(catalogue)
    for path in files[Role.EVENTS]:
        for file, (user, movie, rating, timestamp) in _cells(loading, path, Role.EVENTS):
            try:
                value, time = float(rating), seconds(float(timestamp))
            except ValueError:
                file.malformed("a rating or timestamp that is not a number")
                continue
            position = catalogue.positions.get(movie)
            if position is None:
                file.leave_out(UNKNOWN)
            elif min_rating is not None and value < min_rating:
                file.leave_out(LOW_RATING)
            else:
                log.add(user, position, time)
    return catalogue.items, log.users()


def _catalogue(files: Files, loading: DatasetLoad, tags: dict[str, Counter[str]]) -> Catalogue:
    # The order of genres depends on their frequency, so all films are read first.
    genres: Counter[str] = Counter()
    for path in files[Role.ITEMS]:
        for _, cells in _cells(DatasetLoad([path]), path, Role.ITEMS):
            genres.update(_genres(cells[2]))
    catalogue = Catalogue()
    for path in files[Role.ITEMS]:
        for file, (movie, title, listed) in _cells(loading, path, Role.ITEMS):
            ranked = sorted(tags.get(movie, Counter()).items(), key=lambda tag: (-tag[1], tag[0]))
            catalogue.add(
                file,
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


def _cells(loading: DatasetLoad, path: Path, role: Role) -> Iterator[tuple[DataFile, list[str]]]:
    """Rows with the right number of cells; others are counted."""
    columns = _COLUMNS[role]
    if ".dat" in path.suffixes or path.name.endswith(".dat.gz"):
        file = loading.open(path, "::".join(columns))
        rows: Iterator[list[str]] = (_text(row).split("::") for row in file.rows())
    else:
        file = loading.open(path, f"CSV with the header {','.join(columns)}")
        rows = _comma_separated(file)
        header = next(rows, [])
        if tuple(header) != columns:
            raise file.unusable(f"the header is {','.join(header)[:80]!r}")
    for cells in rows:
        if len(cells) == len(columns):
            yield file, cells
        else:
            file.malformed(f"not {len(columns)} columns")


def _comma_separated(file: DataFile) -> Iterator[list[str]]:
    try:
        yield from csv.reader(file.texts())
    except csv.Error as error:
        raise file.unusable(str(error)) from error


def _text(row: bytes) -> str:
    """A row as text: 1M is Latin-1, 10M is UTF-8. No Latin-1 title is valid UTF-8 by chance."""
    try:
        return row.decode()
    except UnicodeDecodeError:
        return row.decode("latin-1")
