"""Amazon reviews with metadata, as UCSD published them in 2014, 2018 and 2023.

An event is a review, which stands for a purchase; `min_rating` leaves out lower ratings. Several
categories can be read together: each is a domain with the name of its file, and users are the same
in all of them. Ratings, sales ranks and related purchases in the metadata are not used: they
include the events to be predicted.

| | reviews | metadata |
|---|---|---|
| 2014 | `reviewerID`, `asin`, `overall`, `unixReviewTime` | Python literals; `categories`: paths |
| 2018 | the same | JSON; `category`: a path, `description`: a list |
| 2023 | `user_id`, `parent_asin`, `rating`, `timestamp` (ms) | `categories`, `main_category` |
"""

import ast
import html
import re
import warnings

import msgspec

from app.data_files.event_rows import EventRow, event_rows
from app.data_files.files import DataFile, FileLoad
from app.data_files.objects import decoded, mismatch
from app.evaluation.dataset import DatasetUser
from app.evaluation.formats.catalogue import Catalogue
from app.evaluation.formats.histories import EventLog
from app.evaluation.formats.recognition import Files, Role
from tree.item import Item

_LONGEST_TEXT = 5_000
_MOST_CATEGORIES = 16
_TAG = re.compile(r"<[^<>]{0,1000}>")
_PAGE_SOURCE = "getTime"  # some titles of 2018 are scripts of the original web page


class _Meta(msgspec.Struct):
    asin: str = ""
    parent_asin: str = ""
    title: str | None = None
    category: list[str] | None = None
    categories: list[str | list[str]] | None = None
    main_category: str | None = None
    description: str | list[str] | None = None
    feature: list[str] | None = None
    features: list[str] | None = None
    brand: str | None = None
    store: str | None = None


_json_meta = msgspec.json.Decoder(_Meta)


def read(
    files: Files, loading: FileLoad, min_rating: float | None
) -> tuple[list[Item], list[DatasetUser]]:
    """See `formats.load`."""
    catalogue = Catalogue()
    for path in files[Role.ITEMS]:
        domain = re.sub(r"^meta_|\.jsonl?(\.gz)?$", "", path.name).replace("_", " ")
        file = loading.open(path, 'metadata per line, {"asin": …, "title": …}')
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # literals have escapes like "\d"
            for row in file.rows():
                meta = _meta(row, file)
                if meta is not None:
                    catalogue.add(file, _item(meta, domain))
    log = EventLog(catalogue)
    for path in files[Role.EVENTS]:
        file = loading.open(
            path,
            'a review per line, {"reviewerID" or "user_id": …, "asin": …}',
            skip_undecodable=True,
        )
        for event in event_rows(file):
            if not isinstance(event, EventRow):
                raise file.unusable("a whole history")
            log.add_row(event, file, min_rating)
    return catalogue.items, log.users()


def _meta(row: bytes, file: DataFile) -> _Meta | None:
    if not row.startswith(b"{'"):
        return decoded(_json_meta, row, file)
    try:
        return msgspec.convert(ast.literal_eval(row.decode()), _Meta)
    except UnicodeDecodeError as error:
        file.undecodable(error)
    except msgspec.ValidationError as error:
        file.malformed(mismatch(error))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        file.malformed("neither JSON nor a Python literal")
    return None


def _item(meta: _Meta, domain: str) -> dict[str, object]:
    title = _plain(meta.title)
    described = meta.description
    description = described if isinstance(described, str) else " ".join(described or ())
    maker = _plain(meta.brand or meta.store)
    return {
        "id": meta.parent_asin or meta.asin,
        "title": "" if _PAGE_SOURCE in title else title[:1_000],
        "categories": tuple(_path(meta)),
        "description": _plain(description or " ".join(meta.feature or meta.features or ())),
        "keywords": (maker[:200],) if maker else (),
        "domain": domain[:100],
    }


def _path(meta: _Meta) -> list[str]:
    """One path, broad to narrow. Data of 2014 have several; the first is the main one."""
    names: list[str] = []
    for each in meta.categories or meta.category or ():
        if isinstance(each, list):
            names = each
            break
        names.append(each)
    clean = [name for each in names if "<" not in each and (name := _plain(each))]
    main = _plain(meta.main_category)
    return [each[:200] for each in clean or ([main] if main else [])][:_MOST_CATEGORIES]


def _plain(text: str | None) -> str:
    """The text without markup, entities and repeated blanks."""
    bare = _TAG.sub(" ", html.unescape(text or "")).replace("\x00", "")
    return " ".join(bare.split())[:_LONGEST_TEXT]
