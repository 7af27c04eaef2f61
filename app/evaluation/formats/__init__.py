"""Data sets in the formats they are published in, and in a plain one of our own.

`load` finds out which it is. Nothing is downloaded: the files are the user's.
"""

from collections.abc import Sequence
from pathlib import Path

from app.evaluation.choices import Format
from app.evaluation.dataset import DataError, Dataset, Skipped
from app.evaluation.formats import amazon, mind, movielens, plain
from app.evaluation.formats.files import Progress, Reading
from app.evaluation.formats.recognition import Role, chosen_files

__all__ = ["Format", "Progress", "load"]

_READERS = {
    Format.PLAIN: plain.read,
    Format.MIND: mind.read,
    Format.AMAZON: amazon.read,
    Format.MOVIELENS: movielens.read,
}


def load(
    path: Path | Sequence[Path],
    format: Format | None = None,
    *,
    min_rating: float | None = None,
    on_progress: Progress | None = None,
) -> Dataset:
    """The data set in a folder, or in the files given; gzip or not.

    Without `format` it is found out. Every event counts, in all formats, unless `min_rating` asks
    for ratings at least that high: the published figures are of all events (on MovieLens, the
    popular items' R@20 is .064 so, .063 to .070 with a least rating).

    Rows that make no sense, and events of unknown items, are left out and counted. Raises DataError
    where a file is missing, empty, cut off, in another encoding or of another format.
    """
    paths = [path] if isinstance(path, Path) else list(path)
    kind, files = chosen_files(paths, format)
    reading = Reading([each for role in files.values() for each in role], on_progress)
    items, readers = _READERS[kind](files, reading, min_rating)
    first = paths[0].resolve()
    name = first.name if first.is_dir() else first.parent.name
    for found, role, expected in (
        (items, Role.ITEMS, "an item"),
        (readers, Role.EVENTS, "an event of one of the items"),
    ):
        if not found:
            where = ", ".join(each.name for each in files[role])
            raise DataError(f"{where}: expected {expected}, found none{_why(reading.skipped)}")
    return Dataset(name, items, readers, reading.skipped, reading.checksums)


def _why(skipped: Skipped) -> str:
    reasons = [
        f"{count} × {reason}, first at {skipped.first[reason]}"
        for reason, count in skipped.counts.items()
    ]
    return f": {'; '.join(reasons)}." if reasons else "."
