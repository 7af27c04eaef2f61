"""Published versions of a tree: list, compare, activate."""

import asyncio
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.dependencies import TheCatalog, TheJobs
from app.api.schema import problems
from app.jobs import Job
from tree.inspect import Comparison, Statistics, compare, run_in_view_thread, statistics
from tree.snapshot import SemanticTree
from tree.store.protocol import TreeReader

router = APIRouter(prefix="/v1/catalogs/{catalog}/tree/versions", tags=["tree"])

_WAIT_S = 20.0

_Number = Annotated[int, Path(ge=0, alias="version", description="A version of the list.")]


class VersionBrief(BaseModel):
    """A stored version, including the writes since it was published."""

    version: int
    items: int = Field(description="Items at its publication.")
    built_at: datetime
    note: str = Field(description="The reason for the version.")
    active: bool


class VersionList(BaseModel):
    """The stored versions, the newest first."""

    catalog: str
    tree_version: int
    versions: list[VersionBrief]


class VersionQuery(BaseModel):
    """What to compare a version with."""

    model_config = ConfigDict(frozen=True)

    against: int | None = Field(
        default=None, ge=0, description="Another stored version; default: the tree in use."
    )


class VersionView(BaseModel):
    """The shapes of two versions, and their comparison."""

    catalog: str
    version: int
    against: int
    statistics: Statistics
    statistics_against: Statistics
    comparison: Comparison


@router.get("", operation_id="list_versions", responses=problems())
async def list_versions(catalog: TheCatalog) -> VersionList:
    """List the versions that can be activated."""
    stored = await catalog.store.versions()
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
            for at, one in enumerate(stored)
        ],
    )


@router.get("/{version:segment}", operation_id="compare_version", responses=problems())
async def compare_version(
    catalog: TheCatalog, number: _Number, query: Annotated[VersionQuery, Query()]
) -> VersionView:
    """Compare a version with another one, or with the tree in use."""
    tree = await catalog.store.version(number)
    other = await _other(catalog.store, query.against)
    shape, other_shape, comparison = await run_in_view_thread(
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
    "/{version:segment}:activate",
    operation_id="activate_version",
    responses={
        **problems(HTTPStatus.CONFLICT),
        202: {"model": Job, "description": "Not finished yet: follow the job"},
    },
)
async def activate_version(
    response: Response, catalog: TheCatalog, jobs: TheJobs, number: _Number
) -> Job:
    """Activate the tree of an earlier version, with the current items, in one atomic step.

    It becomes the newest version, with the current locked labels; the job's `result` lists labels
    without a node in `labels_lost`. 409, with its `job_id`, while the tree is being built.
    """
    job = await catalog.curator.start_activation(number)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    try:
        async with asyncio.timeout(_WAIT_S):
            return await jobs.wait(job.id)
    except TimeoutError:
        response.status_code = HTTPStatus.ACCEPTED
        return await jobs.get(job.id) or job


async def _other(store: TreeReader, number: int | None) -> SemanticTree:
    return await store.load() if number is None else await store.version(number)
