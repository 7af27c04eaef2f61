"""Data sets in their published formats, and in a plain one of our own.

`load` detects the format. Nothing is downloaded.
"""

from collections.abc import Sequence
from pathlib import Path

from app.data_files.files import FileLoad, Progress
from app.evaluation.choices import DataFormat
from app.evaluation.dataset import DataError, Dataset, Skipped
from app.evaluation.formats import amazon, json_lines, mind, movielens
from app.evaluation.formats.recognition import Role, chosen_files, resemblance

__all__ = ["DataFormat", "Progress", "load"]

_READ_BY_FORMAT = {
    DataFormat.PLAIN: json_lines.read,
    DataFormat.MIND: mind.read,
    DataFormat.AMAZON: amazon.read,
    DataFormat.MOVIELENS: movielens.read,
}


def load(
    path: Path | Sequence[Path],
    format: DataFormat | None = None,
    *,
    min_rating: float | None = None,
    on_progress: Progress | None = None,
) -> Dataset:
    """The data set in a folder, or in the given files, which may be gzip files.

    Without `format`, it is detected. By default all events count, because published figures use
    all; `min_rating` leaves out lower ratings (R@20 of popular items on MovieLens: .064 with all
    events, .063 to .070 with a lowest rating).

    Malformed rows and events of unknown items are left out and counted. Raises DataError where a
    file is missing, empty, truncated, not UTF-8 or of another format.
    """
    paths = [path] if isinstance(path, Path) else list(path)
    kind, files = chosen_files(paths, format)
    paths_read = [each for role in files.values() for each in role]
    loading = FileLoad(paths_read, on_progress, resemblance)
    items, users = _READ_BY_FORMAT[kind](files, loading, min_rating)
    first = paths[0].resolve()
    name = first.name if first.is_dir() else first.parent.name
    for found, role, expected in (
        (items, Role.ITEMS, "an item"),
        (users, Role.EVENTS, "an event of one of the items"),
    ):
        if not found:
            where = ", ".join(each.name for each in files[role])
            raise DataError(f"{where}: expected {expected}, found none{_reasons(loading.skipped)}")
    return Dataset(name, items, users, loading.skipped, loading.checksums)


def _reasons(skipped: Skipped) -> str:
    reasons = [
        f"{count} × {reason}, first at {skipped.first[reason]}"
        for reason, count in skipped.counts.items()
    ]
    return f": {'; '.join(reasons)}." if reasons else "."
