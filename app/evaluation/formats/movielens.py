"""MovieLens: `movies`, `ratings` and perhaps `tags`, as `.csv` (latest, 20M) or `.dat` (1M, 10M).

An event is a rating; `min_rating` leaves out lower ones. Genres become a category path, from the
most to the least frequent in the catalogue; the most frequent tags become keywords. Tags are not
events, but users wrote them over time: for a strict temporal split, leave the file out.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from app.data_files.columns import FieldName
from app.data_files.event_rows import event_of
from app.data_files.files import DataFile, FileLoad
from app.data_files.tables import separated, table
from app.evaluation.dataset import DatasetUser
from app.evaluation.formats.catalogue import Catalogue
from app.evaluation.formats.histories import EventLog
from app.evaluation.formats.recognition import Files, Role, resemblance
from tree.item import Item

_FIELDS: dict[Role, tuple[FieldName, ...]] = {
    Role.ITEMS: ("item_id", "title", "genres"),
    Role.EVENTS: ("user_id", "item_id", "rating", "at"),
    Role.TAGS: ("user_id", "item_id", "tag", "at"),
}
_EXPECTED = {
    Role.ITEMS: ("movieId", "title", "genres"),
    Role.EVENTS: ("userId", "movieId", "rating", "timestamp"),
    Role.TAGS: ("userId", "movieId", "tag", "timestamp"),
}
_NO_GENRE = "(no genres listed)"
_MOST_TAGS = 10


def read(
    files: Files, loading: FileLoad, min_rating: float | None
) -> tuple[list[Item], list[DatasetUser]]:
    """See `formats.load`."""
    tags: dict[str, Counter[str]] = {}
    for path in files.get(Role.TAGS, ()):
        for _, row in _rows(loading, path, Role.TAGS):
            if row["tag"].strip():
                tag = " ".join(row["tag"].casefold().split())[:200]
                tags.setdefault(row["item_id"], Counter())[tag] += 1
    catalogue = _catalogue(files, loading, tags)
    log = EventLog(catalogue)
    for path in files[Role.EVENTS]:
        for file, row in _rows(loading, path, Role.EVENTS):
            event = event_of(row, file)
            if event is not None:
                log.add_row(event, file, min_rating)
    return catalogue.items, log.users()


def _catalogue(files: Files, loading: FileLoad, tags: dict[str, Counter[str]]) -> Catalogue:
    # The order of genres depends on their frequency, so all films are read first.
    genres: Counter[str] = Counter()
    for path in files[Role.ITEMS]:
        for _, row in _rows(FileLoad([path], resemblance=resemblance), path, Role.ITEMS):
            genres.update(_genres(row["genres"]))
    catalogue = Catalogue()
    for path in files[Role.ITEMS]:
        for file, row in _rows(loading, path, Role.ITEMS):
            movie = row["item_id"]
            ranked = sorted(tags.get(movie, Counter()).items(), key=lambda tag: (-tag[1], tag[0]))
            catalogue.add(
                file,
                {
                    "id": movie,
                    "title": row["title"],
                    "categories": tuple(
                        sorted(_genres(row["genres"]), key=lambda genre: (-genres[genre], genre))
                    ),
                    "keywords": tuple(tag for tag, _ in ranked[:_MOST_TAGS]),
                    "domain": "movies",
                },
            )
    return catalogue


def _genres(listed: str) -> list[str]:
    return [each for each in dict.fromkeys(listed.split("|")) if each.strip() and each != _NO_GENRE]


def _rows(
    loading: FileLoad, path: Path, role: Role
) -> Iterator[tuple[DataFile, dict[FieldName, str]]]:
    """Rows with all fields; others are counted."""
    fields, columns = _FIELDS[role], _EXPECTED[role]
    if ".dat" in path.suffixes or path.name.endswith(".dat.gz"):
        file = loading.open(path, "::".join(columns))
        for cells in separated(file, "::", len(columns)):
            yield file, dict(zip(fields, cells, strict=True))
    else:
        expected = f"CSV with the header {','.join(columns)}"
        file = loading.open(path, expected, skip_undecodable=role is Role.EVENTS)
        for row in table(file, fields):
            yield file, row
