"""MIND, Microsoft's news: `news.tsv` and `behaviors.tsv` (https://msnews.github.io).

An event is a click. A row of `behaviors.tsv` has the clicks before the log, which MIND gives no
time (they count as done when the log began), and what was shown at one time with what was clicked.
Keywords are the entities that the news are linked to.
"""

import msgspec

from app.evaluation.dataset import DataError, Reader
from app.evaluation.formats.catalogue import Catalogue
from app.evaluation.formats.files import Reading, Source
from app.evaluation.formats.histories import Row, RowLog, seconds
from app.evaluation.formats.recognition import Files, Role
from tree.item import Item

_MOST_KEYWORDS = 10


class _Entity(msgspec.Struct):
    Label: str


_entities = msgspec.json.Decoder(list[_Entity])


def read(
    files: Files, reading: Reading, min_rating: float | None
) -> tuple[list[Item], list[Reader]]:
    """See `formats.load`."""
    if min_rating is not None:
        raise DataError(f"{files[Role.EVENTS][0]}:1: MIND has clicks; expected no least rating.")
    catalogue = Catalogue()
    for path in files[Role.ITEMS]:
        source = reading.open(path, "8 columns, tabs between: id, category, subcategory, title …")
        for text in source.texts():
            _add_news(text.split("\t"), source, catalogue)
    log = RowLog(older_histories=True)
    for path in files[Role.EVENTS]:
        source = reading.open(path, "5 columns, tabs between: id, user, time, history, impressions")
        for text in source.texts():
            _add_behaviour(text.split("\t"), source, catalogue, log)
    return catalogue.items, log.readers(reading.skipped)


def _add_news(cells: list[str], source: Source, catalogue: Catalogue) -> None:
    if len(cells) != 8:
        source.malformed("not 8 columns")
        return
    name, category, subcategory, title, abstract, _, in_title, in_abstract = cells
    keywords = dict.fromkeys(
        label[:200] for cell in (in_title, in_abstract) for label in _labels(cell)
    )
    catalogue.add(
        source,
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
    """An article whose entities are damaged is still an article."""
    try:
        return [entity.Label for entity in _entities.decode(cell) if entity.Label.strip()]
    except (msgspec.DecodeError, UnicodeError):
        return []


def _add_behaviour(cells: list[str], source: Source, catalogue: Catalogue, log: RowLog) -> None:
    if len(cells) != 5:
        source.malformed("not 5 columns")
        return
    _, reader, written, history, shown = cells
    try:
        time = seconds(written)
    except ValueError:
        source.malformed("a time that is not like 11/13/2019 5:53:12 AM")
        return
    labelled = shown.split()
    if not all(each.endswith(("-0", "-1")) for each in labelled):
        source.leave_out("impression without labels")  # the test part of MIND has none
        labelled = []
    chosen = [each[:-2] for each in labelled if each.endswith("-1")]
    seen = catalogue.seen([each[:-2] for each in labelled], chosen, source)
    known = tuple(catalogue.known(history.split(), source))
    log.add(reader, Row(known, (), time, (seen,) if seen[0] else ()), source.place)
