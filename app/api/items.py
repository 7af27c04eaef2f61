"""Items: create, replace, patch, read, delete; many at once; and listed."""

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from itertools import islice
from typing import Annotated, Literal
from urllib.parse import quote
from weakref import WeakValueDictionary

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import from_json

from app.api.access import TheCatalog
from app.api.bodies import MERGE_PATCH, json_body, json_object, merge_patch
from app.api.problems import Flaw, Refused, flaws_of, invalid, unknown_item
from app.api.schema import READS_JSON, problems, takes
from app.catalogs import Catalog
from tree.item import Item, ItemId
from tree.snapshot import ROOT, Node, SemanticTree

router = APIRouter(prefix="/v1/catalogs/{catalog}", tags=["items"])

ITEM_CONTENT = "ItemContent"  # the schema of an item whose id stands in the path

_BATCH_ROWS = 1_000
_SCANNED_PER_PAGE = 2_000
_READ_AT_ONCE = 200

_Id = Annotated[ItemId, Path(description='Everything after "items/"; "/" is part of the id.')]
_item_id = TypeAdapter(ItemId)
_patching: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()


class WriteQuery(BaseModel):
    """How to write."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    wait: bool = Field(
        default=True, description="Accepted for clarity: an item is placed when this answers."
    )


@router.put(
    "/items/{item_id:path}",
    operation_id="put_item",
    responses={
        **problems(*READS_JSON, HTTPStatus.INSUFFICIENT_STORAGE),
        201: {"model": Item, "description": "Created"},
    },
    openapi_extra=takes(ITEM_CONTENT),
)
async def put_item(
    request: Request,
    response: Response,
    catalog: TheCatalog,
    item_id: _Id,
    query: Annotated[WriteQuery, Query()],  # noqa: ARG001 - see there
    content: Annotated[dict[str, object], Depends(json_object)],
) -> Item:
    """Create an item, or replace it as a whole; it can be recommended at once."""
    item = _item(item_id, content)
    created = await catalog.curator.put([item])
    if created[item_id]:
        response.status_code = HTTPStatus.CREATED
        response.headers["Location"] = quote(request.url.path)
    return item


@router.patch(
    "/items/{item_id:path}",
    operation_id="patch_item",
    responses=problems(*READS_JSON, HTTPStatus.INSUFFICIENT_STORAGE),
    openapi_extra=takes(ITEM_CONTENT, *MERGE_PATCH),
)
async def patch_item(
    catalog: TheCatalog,
    item_id: _Id,
    query: Annotated[WriteQuery, Query()],  # noqa: ARG001 - see there
    patch: Annotated[dict[str, object], Depends(merge_patch)],
) -> Item:
    """Change some fields (JSON merge patch, RFC 7396): null takes a field away.

    Patches of one item that reach one process are applied one after the other.
    """
    async with _patching.setdefault((catalog.name, item_id), asyncio.Lock()):
        before = await _stored(catalog, item_id)
        target = from_json(before.record())
        item = _item(item_id, _merged(target, patch))
        await catalog.curator.put([item])
    return item


@router.get("/items/{item_id:path}", operation_id="get_item", responses=problems())
async def get_item(catalog: TheCatalog, item_id: _Id) -> Item:
    """An item as it is stored, hidden and expired ones included."""
    return await _stored(catalog, item_id)


@router.delete(
    "/items/{item_id:path}",
    operation_id="delete_item",
    status_code=HTTPStatus.NO_CONTENT,
    responses=problems(),
)
async def delete_item(
    catalog: TheCatalog,
    item_id: _Id,
    query: Annotated[WriteQuery, Query()],  # noqa: ARG001 - see there
) -> Response:
    """Remove an item, which is gone from the next request on; 204 also when it was not there."""
    await catalog.curator.delete([item_id])
    return Response(status_code=HTTPStatus.NO_CONTENT)


# -- many at once


class BatchRequest(BaseModel):
    """Upserts (items) and deletes (ids), together at most 1,000."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [{"upserts": [{"id": "b1", "title": "Dune"}], "deletes": ["b2"]}]
        },
    )

    upserts: list[object] = []
    deletes: list[object] = []

    @model_validator(mode="after")
    def _not_too_many(self) -> "BatchRequest":
        if len(self.upserts) + len(self.deletes) > _BATCH_ROWS:
            raise ValueError(f"at most {_BATCH_ROWS:,} rows at once: import larger files")
        return self


class RowProblem(BaseModel):
    """Why a row was rejected."""

    code: Literal["invalid_row"] = "invalid_row"
    errors: list[Flaw]


class BatchResult(BaseModel):
    """What became of one row."""

    id: str | None  # null where the row has none that can be read
    status: Literal["created", "updated", "deleted", "absent", "rejected"]
    problem: RowProblem | None = None


class BatchResponse(BaseModel):
    """One result per row: the upserts in their order, then the deletes."""

    results: list[BatchResult]


@router.post(
    "/items:batch",
    operation_id="batch_items",
    responses=problems(*READS_JSON, HTTPStatus.INSUFFICIENT_STORAGE),
    openapi_extra=takes(BatchRequest),
)
async def batch_items(
    catalog: TheCatalog, batch: Annotated[BatchRequest, Depends(json_body(BatchRequest))]
) -> BatchResponse:
    """Upserts and deletes in one step; a row that is not acceptable does not sink the rest.

    Rows take effect in order, upserts before deletes: of two rows with one id the later stays.
    """
    rows = [
        *(_upsert(row, f"/upserts/{at}") for at, row in enumerate(batch.upserts)),
        *(_delete(row, f"/deletes/{at}") for at, row in enumerate(batch.deletes)),
    ]
    last = {_id_of(row): row for row in rows if not isinstance(row, BatchResult)}
    puts = [row for row in last.values() if isinstance(row, Item)]
    deletes = [row for row in last.values() if isinstance(row, str)]
    outcome = await catalog.curator.apply_batch(puts, deletes)
    held = {row: outcome[row] for row in deletes} | {row.id: not outcome[row.id] for row in puts}
    return BatchResponse(results=[*_replayed(rows, held)])


_Row = Item | str | BatchResult  # an upsert, a delete, or one that was rejected


def _upsert(row: object, place: str) -> _Row:
    try:
        return Item.model_validate(row)
    except ValidationError as error:
        given = row.get("id") if isinstance(row, dict) else None
        return _rejected(given, error, place)


def _delete(row: object, place: str) -> _Row:
    try:
        return _item_id.validate_python(row, strict=True)
    except ValidationError as error:
        return _rejected(row, error, place)


def _rejected(given: object, error: ValidationError, place: str) -> BatchResult:
    flaws = flaws_of(error.errors(include_url=False, include_input=False), "body")
    placed = [flaw.model_copy(update={"pointer": place + flaw.pointer}) for flaw in flaws]
    return BatchResult(
        id=given if isinstance(given, str) else None,
        status="rejected",
        problem=RowProblem(errors=placed),
    )


def _id_of(row: Item | str) -> str:
    return row.id if isinstance(row, Item) else row


def _replayed(rows: Sequence[_Row], held: dict[str, bool]) -> Iterator[BatchResult]:
    """What each row did, from which items were `held` before the first of them."""
    for row in rows:
        match row:
            case Item():
                status: Literal["created", "updated"] = "updated" if held[row.id] else "created"
                held[row.id] = True
                yield BatchResult(id=row.id, status=status)
            case str():
                yield BatchResult(id=row, status="deleted" if held[row] else "absent")
                held[row] = False
            case BatchResult():
                yield row


# -- listed


class ListQuery(BaseModel):
    """Which items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cursor: str | None = Field(
        default=None, max_length=2_000, description="`next_cursor` of the page before."
    )
    limit: int = Field(default=20, ge=1, le=100)
    q: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Text that id, title, description, categories or keywords hold, whatever its "
        "case. A page looks at 2,000 items at most, so it may be short, or empty, before the end.",
    )
    node: int = Field(default=ROOT, ge=0, description="Only items below this node.")


class ItemPage(BaseModel):
    """Some items in the order of the tree; `next_cursor` is null on the last page."""

    catalog: str
    tree_version: int
    items: list[Item]
    next_cursor: str | None


class _Place(BaseModel):
    """Where a page ended: after an item of a leaf, whose items are listed by id."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    space: str  # a rebuild makes another one, and numbers the leaves anew
    leaf: int
    item: str


@router.get("/items", operation_id="list_items", responses=problems(HTTPStatus.GONE))
async def list_items(catalog: TheCatalog, query: Annotated[ListQuery, Query()]) -> ItemPage:
    """Items in the order of the tree, related ones together; hidden and expired ones included.

    Between two pages the tree may change: an item that moves to another leaf meanwhile may come
    twice or not at all (`exports/items` is of one version). 410 when the place of the cursor is
    gone, which is so after a rebuild.
    """
    tree = await catalog.store.load()
    top = tree.node(query.node)
    after = None if query.cursor is None else _read_cursor(query.cursor)
    places = _places(tree, top, after)
    wanted = query.q.casefold() if query.q else None
    items: list[Item] = []
    end: _Place | None = None
    scanned = 0
    while end is None and (batch := list(islice(places, _READ_AT_ONCE if wanted else query.limit))):
        scanned += len(batch)
        records = await catalog.store.items([place.item for place in batch])
        for place in batch:
            item = records.get(place.item)
            if item is not None and (wanted is None or _mentions(item, wanted)):
                items.append(item)
            if len(items) == query.limit:
                end = place
                break
        else:
            end = batch[-1] if scanned >= _SCANNED_PER_PAGE else None
    more = end is not None and next(_places(tree, top, end), None) is not None
    return ItemPage(
        catalog=catalog.name,
        tree_version=tree.version,
        items=items,
        next_cursor=_cursor(end) if end is not None and more else None,
    )


def _places(tree: SemanticTree, top: Node, after: _Place | None) -> Iterator[_Place]:
    """The items below `top`, leaf by leaf, from the one that follows `after` on."""
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
    """The leaf in which to go on, and the id after which; None for all of it."""
    if after.space == tree.space.fingerprint:
        if tree.has_node(after.leaf):
            first = next(tree.leaves(after.leaf))
            return first, after.item if first.id == after.leaf else None  # it was split
        if (leaf := tree.leaf_of(after.item)) is not None:
            return leaf, after.item
    detail = "the tree has changed where this cursor stood: list again from the start"
    raise Refused(HTTPStatus.GONE, "cursor_gone", detail)


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
        message = "is not a cursor of this list: take next_cursor as it came"
        raise invalid([Flaw(source="query", pointer="/cursor", message=message)]) from error


def _mentions(item: Item, wanted: str) -> bool:
    return wanted in item.id.casefold() or wanted in item.text.casefold()


# -- one item


async def _stored(catalog: Catalog, item_id: str) -> Item:
    found = await catalog.store.items([item_id])
    if item_id not in found:
        raise unknown_item(item_id)
    return found[item_id]


def _item(item_id: str, content: dict[str, object]) -> Item:
    if content.get("id", item_id) != item_id:
        message = "must be the id in the path, or be left out"
        raise invalid([Flaw(source="body", pointer="/id", message=message)])
    try:
        return Item.model_validate({**content, "id": item_id})
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise invalid(flaws_of(found, "body")) from error


def _merged(target: object, patch: object) -> dict[str, object]:
    """`patch` applied to `target`, RFC 7396 §2, for a patch that is an object."""
    assert isinstance(patch, dict)
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            merged[name] = _merged(merged.get(name), value)
        else:
            merged[name] = value
    return merged
