"""The list of items, in the order of the tree."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from http import HTTPStatus
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from app.api.dependencies import TheCatalog
from app.api.items import ItemWithEnrichment, ReadQuery
from app.api.problems import ApiError, FieldError, invalid
from app.api.schema import problems
from tree.item import Item
from tree.node import ROOT, Node
from tree.snapshot import SemanticTree

router = APIRouter(prefix="/v1/catalogs/{catalog}", tags=["items"])

_SCANNED_PER_PAGE = 2_000
_READ_AT_ONCE = 25  # a text search in this many items of full length takes 15 ms
# A page ends with the item that exceeds this: an item takes at most 1.2 MB as JSON, and writing a
# megabyte takes up to 25 ms.
_PAGE_BYTES = 1_000_000


class ListQuery(ReadQuery):
    """Which items to list."""

    cursor: str | None = Field(
        default=None, max_length=2_000, description="`next_cursor` of the page before."
    )
    limit: int = Field(
        default=20,
        ge=1,
        le=100,
        description="A page of large items may be shorter: it ends after a megabyte.",
    )
    q: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Text in the id, title, description, categories or keywords; case is ignored. "
        "A page searches at most 2,000 items, so it may be short or empty before the end.",
    )
    node: int = Field(default=ROOT, ge=0, description="Only items below this node.")


class ItemPage(BaseModel):
    """Some items in the order of the tree; `next_cursor` is null on the last page."""

    catalog: str
    tree_version: int
    items: list[Item | ItemWithEnrichment]
    next_cursor: str | None


class _Place(BaseModel):
    """Where a page ended: after an item of a leaf; the items of a leaf are sorted by id."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    space: str  # a rebuild changes it, and numbers the leaves anew
    leaf: int
    item: str


@router.get("/items", operation_id="list_items", responses=problems(HTTPStatus.GONE))
async def list_items(catalog: TheCatalog, query: Annotated[ListQuery, Query()]) -> ItemPage:
    """List items in the order of the tree, similar ones together; also hidden and expired ones.

    The tree may change between two pages: an item that moves to another leaf may appear twice or
    not at all (`exports/items` has one version). 410 when the place of the cursor is gone, as
    after a rebuild.
    """
    tree = await catalog.store.load()
    top = tree.node(query.node)
    after = None if query.cursor is None else _read_cursor(query.cursor)
    places = _places(tree, top, after)
    wanted = query.q.casefold() if query.q else None
    items: list[Item] = []
    end: _Place | None = None
    scanned = size = 0
    while end is None and (batch := list(islice(places, _READ_AT_ONCE))):
        scanned += len(batch)
        records = await catalog.store.items([place.item for place in batch])
        for place in batch:
            item = records.get(place.item)
            if item is not None and (wanted is None or _mentions(item, wanted)):
                items.append(item)
                size += len(item.record())
            if len(items) == query.limit or size > _PAGE_BYTES:
                end = place
                break
        else:
            end = batch[-1] if scanned >= _SCANNED_PER_PAGE else None
    more = end is not None and next(_places(tree, top, end), None) is not None
    return ItemPage(
        catalog=catalog.name,
        tree_version=tree.version,
        items=[query.shown(item) for item in items],
        next_cursor=_cursor(end) if end is not None and more else None,
    )


def _places(tree: SemanticTree, top: Node, after: _Place | None) -> Iterator[_Place]:
    """The places of items below `top`, leaf by leaf, after the place `after`."""
    last = None
    leaves = tree.leaves(top.id)
    if after is not None:
        leaf, last = _resumed(tree, after)
        leaves = _leaves_from(tree, top, leaf)
    for leaf in leaves:
        for item_id in sorted(map(tree.rows.id, leaf.rows.tolist())):
            if last is None or item_id > last:
                yield _Place(space=tree.space.fingerprint, leaf=leaf.id, item=item_id)
        last = None


def _resumed(tree: SemanticTree, after: _Place) -> tuple[Node, str | None]:
    """The leaf to continue in, and the id to continue after; None for the whole leaf."""
    if after.space == tree.space.fingerprint:
        if tree.has_node(after.leaf):
            first = next(tree.leaves(after.leaf))
            return first, after.item if first.id == after.leaf else None  # the leaf was split
        if (leaf := tree.leaf_of(after.item)) is not None:
            return leaf, after.item
    detail = "the tree has changed at the place of this cursor: list again from the start"
    raise ApiError(HTTPStatus.GONE, "cursor_gone", detail)


def _leaves_from(tree: SemanticTree, top: Node, leaf: Node) -> Iterator[Node]:
    """`leaf` and the leaves below `top` that follow it."""
    yield leaf
    node = leaf
    while node.parent is not None and node.id != top.id:
        siblings = tree.node(node.parent).children
        for sibling in siblings[siblings.index(node.id) + 1 :]:
            yield from tree.leaves(sibling)
        node = tree.node(node.parent)


def _cursor(place: _Place) -> str:
    return urlsafe_b64encode(place.model_dump_json().encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> _Place:
    padded = cursor + "=" * (-len(cursor) % 4)
    try:
        return _Place.model_validate_json(urlsafe_b64decode(padded))
    except ValueError as error:  # pydantic's and base64's errors are ValueErrors
        message = "is not a cursor of this list: use next_cursor unchanged"
        raise invalid([FieldError(source="query", pointer="/cursor", message=message)]) from error


def _mentions(item: Item, wanted: str) -> bool:
    return wanted in item.id.casefold() or wanted in item.text.casefold()
