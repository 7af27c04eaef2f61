"""MIND, Microsoft's news: `news.tsv` and `behaviors.tsv` (https://msnews.github.io).

An event is a click. A row of `behaviors.tsv` has earlier clicks, which have no time (they get the
time of the first row), and one impression: the news shown and the news clicked. Keywords are the
entities that the news are linked to.
"""

import msgspec

from app.data_files.event_rows import behaviour_row
from app.data_files.files import DataFile, FileLoad
from app.evaluation.dataset import DataError, DatasetUser
from app.evaluation.formats.catalogue import Catalogue
from app.evaluation.formats.histories import RowLog, user_row
from app.evaluation.formats.recognition import Files, Role
from tree.item import Item

_MOST_KEYWORDS = 10


class _Entity(msgspec.Struct):
    Label: str


_entities = msgspec.json.Decoder(list[_Entity])


def read(
    files: Files, loading: FileLoad, min_rating: float | None
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
            row = behaviour_row(text, file)
            if row is not None:
                log.add(row.user_id, user_row(row, catalogue, file), file.place)
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
