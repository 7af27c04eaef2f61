"""Catalogues: create, get, list, delete."""

import asyncio
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.bodies import MERGE_PATCH, json_body, optional_json_body
from app.api.catalog_patch import CatalogPatch
from app.api.dependencies import TheCaller, TheCatalog, TheCatalogs, TheJobs
from app.api.problems import ApiError, FieldError, invalid
from app.api.schema import READS_JSON, problems, takes
from app.catalogs import Catalog, CatalogSettings, ListedCatalog, UnknownCatalog, UnknownEmbedder
from app.jobs import Job
from tree.errors import CatalogDeleted, CorruptSnapshot, StoreUnavailable
from tree.snapshot import SemanticTree

router = APIRouter(prefix="/v1/catalogs", tags=["catalogs"])

_Name = Annotated[str, Path(pattern=r"^[a-z0-9_-]{1,64}$")]


class EnrichmentCounts(BaseModel):
    """How many items have a line that says in plain words what they are."""

    enriched: int
    waiting: int = Field(description="Items that users may see, and that have no line.")
    failed: int = Field(
        description="Of these, how many got no usable line in the newest enrichment."
    )
    cost_usd: float = Field(description="Of the enrichments that are still in the list of jobs.")

    @classmethod
    def of(cls, catalog: Catalog, tree: SemanticTree, jobs: Sequence[Job]) -> "EnrichmentCounts":
        """The counts of a version of the tree, and what `jobs` say, the newest first."""
        enriched, waiting = tree.line_counts(time.time())
        own = [job for job in jobs if job.type == "enrichment" and job.catalog_id == catalog.id]
        results = (job.result for job in own if job.result and not job.params.get("dry_run"))
        refused = next(results, {}).get("failed")
        failed = sum(refused.values()) if isinstance(refused, dict) else 0
        cost_usd = round(sum(job.cost_usd for job in own), 6)
        return cls(
            enriched=enriched, waiting=waiting, failed=min(failed, waiting), cost_usd=cost_usd
        )


class CatalogView(BaseModel):
    """A catalogue: its settings, and the shape of its tree.

    Fields that cannot be read are null, and `problem` says why. A damaged catalogue can be deleted
    and created again.
    """

    name: str
    settings: CatalogSettings | None
    items: int | None
    tree_version: int | None
    nodes: int | None
    depth: int | None
    enrichment: EnrichmentCounts | None
    problem: str | None = Field(
        default=None, description="Why it is not served; `unillmrec doctor --deep` shows more."
    )


class DeleteQuery(BaseModel):
    """The confirmation of a deletion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    confirm: str | None = Field(default=None, description="The name of the catalogue.")


class CatalogList(BaseModel):
    """Every catalogue, by name."""

    catalogs: list[CatalogView]


@router.get("", operation_id="list_catalogs", responses=problems())
async def list_catalogs(catalogs: TheCatalogs, jobs: TheJobs, caller: TheCaller) -> CatalogList:
    """List the catalogues of the caller's key, including those that cannot be served (`problem`).

    A service that starts on an empty store creates one named `default`.
    """
    reached = [entry for entry in await catalogs.list() if caller.reaches(entry.name)]
    stored = await jobs.list()
    found = await asyncio.gather(*(_shown(one, stored) for one in reached))
    return CatalogList(catalogs=[view for view in found if view is not None])


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
    jobs: TheJobs,
    catalog: _Name,
    settings: Annotated[CatalogSettings, Depends(optional_json_body(CatalogSettings))],
) -> CatalogView:
    """Create a catalogue; omitted settings have their defaults.

    An existing catalogue does not change: 200 when its settings agree with the request, 409
    `settings_fixed` when they differ, because they shape the stored tree. 409 `being_deleted` while
    a catalogue of this name is being deleted. A catalogue with damaged settings gets these, and
    keeps its items.
    """
    try:
        made, created = await catalogs.create(catalog, settings)
    except UnknownEmbedder as error:
        flaw = FieldError(source="body", pointer="/embedder", message=str(error))
        raise invalid([flaw]) from error
    if asked := settings.model_dump(exclude_unset=True, exclude_none=True):
        now = made.settings_of(await made.store.load())
        has = now.model_dump(include=set(asked))
        if has != settings.model_dump(include=set(asked)):
            detail = f"catalogue {catalog!r} exists with other settings: {has}"
            if "embedder" in asked:
                detail += ". A rebuild can change the embedder"
            if asked.keys() & CatalogPatch.model_fields.keys():
                detail += f". PATCH changes {', '.join(CatalogPatch.model_fields)}"
            raise ApiError(HTTPStatus.CONFLICT, "settings_fixed", detail)
    if created:
        response.status_code = HTTPStatus.CREATED
        response.headers["Location"] = f"/v1/catalogs/{catalog}"
    return await _view(made, await jobs.list(made.name))


@router.patch(
    "/{catalog}",
    operation_id="patch_catalog",
    responses=problems(*READS_JSON),
    openapi_extra=takes(CatalogPatch, *MERGE_PATCH),
)
async def patch_catalog(
    catalogs: TheCatalogs,
    jobs: TheJobs,
    found: TheCatalog,
    patch: Annotated[CatalogPatch, Depends(json_body(CatalogPatch, MERGE_PATCH))],
) -> CatalogView:
    """Change the settings of a catalogue that may change; other settings shape the stored tree.

    A JSON merge patch (RFC 7396): what is not given stays, also within a variant or a type of
    events, and null removes it or gives it its default.
    """
    changed = await catalogs.change(found, patch.of)
    return await _view(changed, await jobs.list(changed.name))


@router.get("/{catalog}", operation_id="get_catalog", responses=problems())
async def get_catalog(catalogs: TheCatalogs, jobs: TheJobs, catalog: _Name) -> CatalogView:
    """Get a catalogue: its settings, and the shape of its tree."""
    view = await _shown(await catalogs.look(catalog), await jobs.list(catalog))
    if view is None:
        raise UnknownCatalog(catalog)
    return view


@router.delete(
    "/{catalog}",
    operation_id="delete_catalog",
    status_code=HTTPStatus.NO_CONTENT,
    responses=problems(HTTPStatus.BAD_REQUEST),
)
async def delete_catalog(
    catalogs: TheCatalogs, catalog: _Name, query: Annotated[DeleteQuery, Query()]
) -> Response:
    """Delete a catalogue with all its items, users, events and traces; its jobs end.

    Needs `?confirm={name}`: clients normalise paths, and `…/users/../../name` must delete nothing.
    From the next request on, the catalogue is gone; the name is free when this answers. A deletion
    that was interrupted continues by itself, or when it is requested again.
    """
    if query.confirm != catalog:
        detail = f"this deletes all of {catalog!r}: repeat it with ?confirm={catalog}"
        raise ApiError(HTTPStatus.BAD_REQUEST, "confirmation_required", detail)
    await catalogs.delete(catalog)
    return Response(status_code=HTTPStatus.NO_CONTENT)


async def _shown(listed: ListedCatalog, jobs: Sequence[Job]) -> CatalogView | None:
    """The view of a catalogue; None when it was just deleted."""
    catalog, flaw = listed.catalog, listed.flaw
    if catalog is not None:
        try:
            return await _view(catalog, jobs)
        except CatalogDeleted:
            return None
        except CorruptSnapshot as error:
            flaw = str(error)
        except StoreUnavailable as error:
            flaw = error.advice
    return CatalogView(
        name=listed.name,
        settings=catalog.settings if catalog else None,
        items=None,
        tree_version=None,
        nodes=None,
        depth=None,
        enrichment=None,
        problem=flaw,
    )


async def _view(catalog: Catalog, jobs: Sequence[Job]) -> CatalogView:
    tree = await catalog.store.load()
    return CatalogView(
        name=catalog.name,
        settings=catalog.settings_of(tree),
        items=len(tree),
        tree_version=tree.version,
        nodes=tree.node_count,
        depth=tree.root.height,
        enrichment=EnrichmentCounts.of(catalog, tree, jobs),
    )
