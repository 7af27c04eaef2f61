"""Versions of a tree that were published whole: listed, compared, put back into use."""

import asyncio
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import TheCatalog, TheJobs
from app.api.schema import problems
from app.jobs import Job
from tree.inspect import Comparison, Statistics, compare, statistics
from tree.snapshot import SemanticTree
from tree.store.protocol import TreeStore

router = APIRouter(prefix="/v1/catalogs/{catalog}/tree/versions", tags=["tree"])

_PATIENCE_S = 20.0

_Number = Annotated[int, Path(ge=0, alias="version", description="As the list tells it.")]


class VersionBrief(BaseModel):
    """A version that is kept; what was written since it was published belongs to it."""

    version: int
    items: int = Field(description="When it was published.")
    built_at: datetime
    note: str = Field(description="What made it.")
    active: bool


class VersionList(BaseModel):
    """Versions that are kept, the newest first."""

    catalog: str
    tree_version: int
    versions: list[VersionBrief]


class VersionQuery(BaseModel):
    """With what a version is compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    against: int | None = Field(
        default=None, ge=0, description="Another version that is kept; else the tree in use."
    )


class VersionView(BaseModel):
    """The shape of two versions, and what they have in common."""

    catalog: str
    version: int
    against: int
    statistics: Statistics
    statistics_against: Statistics
    comparison: Comparison


@router.get("", operation_id="list_versions", responses=problems())
async def list_versions(catalog: TheCatalog) -> VersionList:
    """The versions that can be put back into use."""
    kept = await catalog.store.versions()
    return VersionList(
        catalog=catalog.name,
        tree_version=(await catalog.store.load()).version,
        versions=[
            VersionBrief(
                version=one.version,
                items=one.items,
                built_at=datetime.fromtimestamp(one.built_at, UTC),
                note=one.note,
                active=at == 0,
            )
            for at, one in enumerate(kept)
        ],
    )


@router.get("/{version}", operation_id="compare_version", responses=problems())
async def compare_version(
    catalog: TheCatalog, number: _Number, query: Annotated[VersionQuery, Query()]
) -> VersionView:
    """A version that is kept beside another one, or beside the tree in use."""
    tree = await catalog.store.version(number)
    other = await _other(catalog.store, query.against)
    shape, other_shape, comparison = await asyncio.to_thread(
        lambda: (statistics(tree), statistics(other), compare(tree, other))
    )
    return VersionView(
        catalog=catalog.name,
        version=number,
        against=other.version,
        statistics=shape,
        statistics_against=other_shape,
        comparison=comparison,
    )


@router.post(
    "/{version}:activate",
    operation_id="activate_version",
    responses={
        **problems(HTTPStatus.CONFLICT),
        202: {"model": Job, "description": "It takes a while: follow the job"},
    },
)
async def activate_version(
    response: Response, catalog: TheCatalog, jobs: TheJobs, number: _Number
) -> Job:
    """Put the shape of a version back into use, with the items of now, in one atomic step.

    It becomes the newest version, with the locked labels of now; the job's `result` names in
    `labels_lost` those that found no node. 409, with its `job_id`, while the tree is being built.
    """
    job = await catalog.curator.start_activation(number)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await jobs.wait(job.id)
    except TimeoutError:
        response.status_code = HTTPStatus.ACCEPTED
        return await jobs.get(job.id) or job


async def _other(store: TreeStore, number: int | None) -> SemanticTree:
    return await store.load() if number is None else await store.version(number)
