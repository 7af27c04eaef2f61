"""MIND, Microsoft's news: `news.tsv` and `behaviors.tsv` (https://msnews.github.io).

An event is a click. A row of `behaviors.tsv` has earlier clicks, which have no time (they get the
time of the first row), and one impression: the news shown and the news clicked. Keywords are the
entities that the news are linked to.
"""

import msgspec

from app.evaluation.dataset import DataError, DatasetUser
from app.evaluation.formats.catalogue import Catalogue
from app.evaluation.formats.data_files import DataFile, DatasetLoad
from app.evaluation.formats.histories import RowLog, UserRow, seconds
from app.evaluation.formats.recognition import Files, Role
from tree.item import Item

_MOST_KEYWORDS = 10


class _Entity(msgspec.Struct):
    Label: str


_entities = msgspec.json.Decoder(list[_Entity])


def read(
    files: Files, loading: DatasetLoad, min_rating: float | None
) -> tuple[list[Item], list[DatasetUser]]:
    """See `formats.load`."""
    if min_rating is not None:
        raise DataError(f"{files[Role.EVENTS][0]}:1: MIND has clicks; expected no lowest rating.")
    catalogue = Catalogue()
    for path in files[Role.ITEMS]:
        file = loading.open(path, "8 columns, tabs between: id, category, subcategory, title …")
        for text in file.texts():
            _add_news(text.split("\t"), file, catalogue)
    log = RowLog(older_histories=True)
    for path in files[Role.EVENTS]:
        file = loading.open(path, "5 columns, tabs between: id, user, time, history, impressions")
        for text in file.texts():
            _add_behaviour(text.split("\t"), file, catalogue, log)
    return catalogue.items, log.users(loading.skipped)


def _add_news(cells: list[str], file: DataFile, catalogue: Catalogue) -> None:
    if len(cells) != 8:
        file.malformed("not 8 columns")
        return
    name, category, subcategory, title, abstract, _, in_title, in_abstract = cells
    keywords = dict.fromkeys(
        label[:200] for cell in (in_title, in_abstract) for label in _labels(cell)
    )
    catalogue.add(
        file,
        {
            "id": name,
            "title": title,
            "categories": tuple(each for each in (category, subcategory) if each.strip()),
            "description": abstract,
            "keywords": tuple(keywords)[:_MOST_KEYWORDS],
            "domain": "news",
        },
    )


def _labels(cell: str) -> list[str]:
    """The labels of the entities; none where the cell is damaged."""
    try:
        return [entity.Label for entity in _entities.decode(cell) if entity.Label.strip()]
    except (msgspec.DecodeError, UnicodeError):
        return []


def _add_behaviour(cells: list[str], file: DataFile, catalogue: Catalogue, log: RowLog) -> None:
    if len(cells) != 5:
        file.malformed("not 5 columns")
        return
    _, user, written, history, shown = cells
    try:
        time = seconds(written)
    except ValueError:
        file.malformed("a time that is not like 11/13/2019 5:53:12 AM")
        return
    labelled = shown.split()
    if not all(each.endswith(("-0", "-1")) for each in labelled):
        file.leave_out("impression without labels")  # the test part of MIND has none
        labelled = []
    chosen = [each[:-2] for each in labelled if each.endswith("-1")]
    seen = catalogue.seen([each[:-2] for each in labelled], chosen, file)
    known = tuple(catalogue.known(history.split(), file))
    log.add(user, UserRow(known, (), time, (seen,) if seen[0] else ()), file.place)
