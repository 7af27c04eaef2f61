"""Which column or field of a row is which: by its name, as data sets and shops name them."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal

FieldName = Literal[
    "user_id",
    "item_id",
    "at",
    "type",
    "rating",
    "value",
    "event_id",
    "recommendation_id",
    "rank",
    "title",
    "genres",
    "tag",
]

# The first name that a row has counts: of Amazon's two ids, the one that its metadata have.
_NAMES: Mapping[FieldName, tuple[str, ...]] = {
    "user_id": (
        "userid",
        "user",
        "uid",
        "reviewerid",
        "customerid",
        "visitorid",
        "memberid",
        "personid",
    ),
    "item_id": (
        "itemid",
        "parentasin",
        "asin",
        "item",
        "movieid",
        "productid",
        "articleid",
        "newsid",
        "bookid",
        "trackid",
        "contentid",
        "product",
        "iid",
        "sku",
    ),
    "at": (
        "at",
        "timestamp",
        "unixreviewtime",
        "time",
        "eventtime",
        "datetime",
        "date",
        "createdat",
        "unixtime",
        "ts",
        "tdat",
    ),
    "type": ("type", "eventtype", "event", "action", "behavior", "behaviour", "interaction"),
    "rating": ("rating", "overall", "stars", "score"),
    "value": ("value", "price", "amount"),
    "event_id": ("eventid",),
    "recommendation_id": ("recommendationid",),
    "rank": ("rank", "position"),
    "title": ("title", "name"),
    "genres": ("genres", "genre", "categories"),
    "tag": ("tag",),
}
_ORDER = {name: (field, at) for field, names in _NAMES.items() for at, name in enumerate(names)}


@lru_cache(1_000)
def _bare(name: str) -> str:
    """A name without case and punctuation: `userId`, `user_id` and `User ID` are one."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def fields_of(names: Iterable[str]) -> dict[FieldName, str]:
    """The fields among some names of columns: for each the name of its column."""
    return _fields(tuple(names))


@lru_cache(1_000)
def _fields(names: tuple[str, ...]) -> dict[FieldName, str]:
    found: dict[FieldName, tuple[int, str]] = {}
    for name in names:
        known = _ORDER.get(_bare(name))
        if known is not None and (known[0] not in found or known[1] < found[known[0]][0]):
            found[known[0]] = known[1], name
    return {field: name for field, (_, name) in found.items()}
