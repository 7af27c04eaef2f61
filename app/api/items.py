"""One item: create, replace, patch, read, delete."""

from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from app.api.access import TheCatalog
from app.api.bodies import MERGE_PATCH, json_object, merge_patch
from app.api.problems import Flaw, flaws_of, invalid, unknown_item
from app.api.schema import READS_JSON, WRITES, problems, takes
from app.catalogs import Catalog
from tree.errors import CorruptSnapshot
from tree.item import Item, ItemId

router = APIRouter(prefix="/v1/catalogs/{catalog}", tags=["items"])

ITEM_CONTENT = "ItemContent"  # the schema of an item whose id stands in the path

_Id = Annotated[ItemId, Path(description='Everything after "items/"; "/" is part of the id.')]


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
        **problems(*READS_JSON, *WRITES),
        201: {"model": Item, "description": "Created"},
    },
    openapi_extra=takes(ITEM_CONTENT),
)
async def put_item(
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
        response.headers["Location"] = _address(catalog, item_id)
    return item


@router.patch(
    "/items/{item_id:path}",
    operation_id="patch_item",
    responses=problems(*READS_JSON, *WRITES),
    openapi_extra=takes(ITEM_CONTENT, *MERGE_PATCH),
)
async def patch_item(
    catalog: TheCatalog,
    item_id: _Id,
    query: Annotated[WriteQuery, Query()],  # noqa: ARG001 - see there
    patch: Annotated[dict[str, object], Depends(merge_patch)],
) -> Item:
    """Change some fields (JSON merge patch, RFC 7396): null takes a field away."""

    def change(before: Item) -> Item:
        return _item(item_id, _merged(from_json(before.record()), patch))

    item = await catalog.curator.patch(item_id, change)
    if item is None:
        raise await _absent(catalog, item_id)
    return item


@router.get("/items/{item_id:path}", operation_id="get_item", responses=problems())
async def get_item(catalog: TheCatalog, item_id: _Id) -> Item:
    """An item as it is stored, hidden and expired ones included."""
    return await _stored(catalog, item_id)


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
    """Remove an item, which is gone from the next request on; 204 also when it was not there."""
    await catalog.apply_batch((), [item_id])
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _address(catalog: Catalog, item_id: str) -> str:
    """Where an item is; dot segments are written so that no client takes them out."""
    path = quote(item_id).replace("/.", "/%2E")
    return f"/v1/catalogs/{catalog.name}/items/{'%2E' + path[1:] if path[0] == '.' else path}"


async def _stored(catalog: Catalog, item_id: str) -> Item:
    found = await catalog.store.items([item_id])
    if item_id not in found:
        raise await _absent(catalog, item_id)
    return found[item_id]


async def _absent(catalog: Catalog, item_id: str) -> Exception:
    """Why there is no such item: nobody put it, or its record is lost."""
    before = await catalog.store.load()
    flaw = (await catalog.store.flaws([item_id])).get(item_id, "")
    after = await catalog.store.load()
    damaged = not flaw.endswith("is missing")
    if flaw and (damaged or (item_id in before and item_id in after)):
        return CorruptSnapshot(f"{flaw}: put the item again, or delete it")
    return unknown_item(item_id)


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
