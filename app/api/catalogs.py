"""Catalogues: made with their settings, looked at, listed, removed."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel

from app.api.access import TheCatalog, TheCatalogs
from app.api.bodies import optional_json_body
from app.api.problems import Flaw, Refused, invalid
from app.api.schema import READS_JSON, problems, takes
from app.catalogs import Catalog, CatalogSettings, UnknownEmbedder

router = APIRouter(prefix="/v1/catalogs", tags=["catalogs"])

_Name = Annotated[str, Path(pattern=r"^[a-z0-9_-]{1,64}$")]


class CatalogView(BaseModel):
    """A catalogue: its settings, and the shape of its tree."""

    name: str
    settings: CatalogSettings
    items: int
    tree_version: int
    nodes: int
    depth: int


class CatalogList(BaseModel):
    """Every catalogue, by name."""

    catalogs: list[CatalogView]


@router.get("", operation_id="list_catalogs", responses=problems())
async def list_catalogs(catalogs: TheCatalogs) -> CatalogList:
    """Every catalogue. One named `default` exists from the start."""
    found = sorted(await catalogs.list(), key=lambda catalog: catalog.name)
    return CatalogList(catalogs=[await _view(catalog) for catalog in found])


@router.put(
    "/{catalog}",
    operation_id="put_catalog",
    responses={
        **problems(*READS_JSON, HTTPStatus.CONFLICT),
        201: {"model": CatalogView, "description": "Created"},
    },
    openapi_extra=takes(CatalogSettings, required=False),
)
async def put_catalog(
    response: Response,
    catalogs: TheCatalogs,
    catalog: _Name,
    settings: Annotated[CatalogSettings, Depends(optional_json_body(CatalogSettings))],
) -> CatalogView:
    """Create a catalogue; settings that are left out are the defaults.

    One that is there stays as it is: 200 when its settings agree with those of the request, 409
    when they do not, for they shape what is stored.
    """
    try:
        made, created = await catalogs.create(catalog, settings)
    except UnknownEmbedder as error:
        flaw = Flaw(source="body", pointer="/embedder", message=str(error))
        raise invalid([flaw]) from error
    if asked := settings.model_dump(exclude_unset=True, exclude_none=True):
        has = made.settings.model_dump(include=set(asked))
        if has != asked:
            detail = f"catalogue {catalog!r} is there with other settings, which are fixed: {has}"
            raise Refused(HTTPStatus.CONFLICT, "settings_fixed", detail)
    if created:
        response.status_code = HTTPStatus.CREATED
        response.headers["Location"] = f"/v1/catalogs/{catalog}"
    return await _view(made)


@router.get("/{catalog}", operation_id="get_catalog", responses=problems())
async def get_catalog(catalog: TheCatalog) -> CatalogView:
    """A catalogue: its settings, and the shape of its tree."""
    return await _view(catalog)


@router.delete(
    "/{catalog}",
    operation_id="delete_catalog",
    status_code=HTTPStatus.NO_CONTENT,
    responses=problems(HTTPStatus.CONFLICT),
)
async def delete_catalog(catalogs: TheCatalogs, catalog: _Name) -> Response:
    """Remove a catalogue with all its items."""
    await catalogs.delete(catalog)
    return Response(status_code=HTTPStatus.NO_CONTENT)


async def _view(catalog: Catalog) -> CatalogView:
    tree = await catalog.store.load()
    return CatalogView(
        name=catalog.name,
        settings=catalog.settings,
        items=len(tree),
        tree_version=tree.version,
        nodes=tree.node_count,
        depth=tree.root.height,
    )
