"""Items: create, replace, patch, get, delete."""

from http import HTTPStatus
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from app.api.bodies import MERGE_PATCH, json_object, merge_patch, merged
from app.api.dependencies import TheCatalog
from app.api.problems import FieldError, field_errors, invalid, unknown_item
from app.api.schema import READS_JSON, WRITES, id_in_path, problems, takes
from app.catalogs import Catalog
from app.limits import TooMuch, check_row
from tree.domains import Domains
from tree.errors import CorruptSnapshot
from tree.item import Item, ItemId, StoredId
from tree.item_line import LineSource

router = APIRouter(prefix="/v1/catalogs/{catalog}", tags=["items"])

ITEM_CONTENT = "ItemContent"  # the schema of an item whose id is in the path
ITEM_PATCH = "ItemPatch"  # the same, with all fields optional

_Id = Annotated[StoredId, id_in_path("items")]
_NewId = Annotated[ItemId, id_in_path("items")]


class EnrichmentView(BaseModel):
    """The line of an item.

    `model`: a model wrote it about the item as it is, and it leaves when the item's text changes.
    `owner`: it was set by a client, and stays.
    """

    item_id: str
    text: str
    source: LineSource

    @classmethod
    def of(cls, item: Item) -> "EnrichmentView | None":
        """The line of an item, or None."""
        if item.line is None:
            return None
        return cls(item_id=item.id, text=item.line.text, source=item.line.source)


class ItemWithEnrichment(Item):
    """An item as it is stored, with its line."""

    enrichment: EnrichmentView | None

    @classmethod
    def of(cls, item: Item) -> "ItemWithEnrichment":
        """The same item; it was validated when it was stored, perhaps by an earlier release."""
        return cls.model_construct(**dict(item), enrichment=EnrichmentView.of(item))


class ReadQuery(BaseModel):
    """What to show of an item."""

    model_config = ConfigDict(frozen=True)

    include: Literal["enrichment"] | None = Field(
        default=None, description="`enrichment`: also the line of the item, null without one."
    )

    def shown(self, item: Item) -> Item | ItemWithEnrichment:
        """The item as it is answered."""
        return item if self.include is None else ItemWithEnrichment.of(item)


class WriteQuery(BaseModel):
    """Options of a write."""

    model_config = ConfigDict(frozen=True)

    wait: bool = Field(
        default=True, description="Has no effect: an item is always placed before this answers."
    )


@router.put(
    "/items/{item_id:path}",
    operation_id="put_item",
    responses={
        **problems(*READS_JSON, *WRITES),
        201: {"model": Item, "description": "Created"},
    },
    openapi_extra=takes(ITEM_CONTENT),
)
async def put_item(
    response: Response,
    catalog: TheCatalog,
    item_id: _NewId,
    query: Annotated[WriteQuery, Query()],  # noqa: ARG001 - see there
    content: Annotated[dict[str, object], Depends(json_object)],
) -> Item:
    """Create or replace an item; it can be recommended at once."""
    item = _item(item_id, content)
    Domains(await catalog.store.load()).check(item.domain)
    created = await catalog.curator.put([item])
    if created[item_id]:
        response.status_code = HTTPStatus.CREATED
        response.headers["Location"] = f"/v1/catalogs/{catalog.name}/items/{quote(item_id)}"
    return item


@router.patch(
    "/items/{item_id:path}",
    operation_id="patch_item",
    responses=problems(*READS_JSON, *WRITES),
    openapi_extra=takes(ITEM_PATCH, *MERGE_PATCH),
)
async def patch_item(
    catalog: TheCatalog,
    item_id: _NewId,
    query: Annotated[WriteQuery, Query()],  # noqa: ARG001 - see there
    patch: Annotated[dict[str, object], Depends(merge_patch)],
) -> Item:
    """Change some fields (JSON merge patch, RFC 7396): null removes a field."""

    domains = Domains(await catalog.store.load())
    unknown = dict.fromkeys(patch.keys() - Item.model_fields.keys())

    def change(before: Item) -> Item:
        content = merged(from_json(before.content()), patch) | unknown
        _check_values(content)
        item = _item(item_id, content)
        if item.domain != before.domain:
            domains.check(item.domain)
        return item

    item = await catalog.curator.patch(item_id, change)
    if item is None:
        raise await _absent(catalog, item_id)
    return item


@router.get("/items/{item_id:path}", operation_id="get_item", responses=problems())
async def get_item(
    catalog: TheCatalog, item_id: _Id, query: Annotated[ReadQuery, Query()]
) -> Item | ItemWithEnrichment:
    """Get an item as it is stored, also when it is hidden or expired."""
    return query.shown(await read_item(catalog, item_id))


@router.delete(
    "/items/{item_id:path}",
    operation_id="delete_item",
    status_code=HTTPStatus.NO_CONTENT,
    responses=problems(*WRITES),
)
async def delete_item(
    catalog: TheCatalog,
    item_id: _Id,
    query: Annotated[WriteQuery, Query()],  # noqa: ARG001 - see there
) -> Response:
    """Delete an item; from the next request on, it is gone. 204 also when it did not exist."""
    await catalog.apply_batch((), [item_id])
    return Response(status_code=HTTPStatus.NO_CONTENT)


async def read_item(catalog: Catalog, item_id: str) -> Item:
    """The stored item. Raises ApiError, CorruptSnapshot."""
    found = await catalog.store.items([item_id])
    if item_id not in found:
        raise await _absent(catalog, item_id)
    return found[item_id]


async def _absent(catalog: Catalog, item_id: str) -> Exception:
    """The error for a missing item: unknown, or its record is lost."""
    before = await catalog.store.load()
    flaw = (await catalog.store.record_flaws([item_id])).get(item_id, "")
    after = await catalog.store.load()
    damaged = not flaw.endswith("is missing")
    if flaw and (damaged or (item_id in before and item_id in after)):
        return CorruptSnapshot(f"{flaw}: put the item again, or delete it")
    return unknown_item(item_id)


def _item(item_id: str, content: dict[str, object]) -> Item:
    if content.get("id", item_id) != item_id:
        message = "must be the id in the path, or be omitted"
        raise invalid([FieldError(source="body", pointer="/id", message=message)])
    try:
        return Item.model_validate({**content, "id": item_id})
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise invalid(field_errors(found, "body")) from error


def _check_values(content: dict[str, object]) -> None:
    """Raises ApiError when small patches add up to an item with too many values."""
    try:
        check_row(content)
    except TooMuch as error:
        message = f"the patched item {error}"
        raise invalid([FieldError(source="body", pointer="", message=message)]) from error
