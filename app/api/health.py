"""Health: whether the process is alive, whether it can answer, and its version."""

import platform

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from app import __version__
from app.api.dependencies import TheCatalogs, dependencies_of
from app.api.schema import problems
from tree.worker import result_of

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: str = "alive"


class Ready(BaseModel):
    """The process has started and the store answers. Models are not checked."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "ready", "catalogs": 1, "items": 725}]}
    )

    status: str = "ready"
    catalogs: int = Field(description="Catalogues whose tree this process has loaded.")
    items: int = Field(description="Items in these catalogues.")


class Version(BaseModel):
    """The versions of the service and of Python."""

    version: str
    python: str


@router.get("/livez", operation_id="livez")
async def livez() -> Alive:
    """200 while the process answers."""
    return Alive()


@router.get("/readyz", operation_id="readyz", responses=problems())
async def readyz(request: Request, catalogs: TheCatalogs) -> Ready:
    """200 when the store answers; 503 otherwise. Damaged catalogues do not change it."""
    await result_of(dependencies_of(request).store_check.begin())
    trees = catalogs.loaded().values()
    return Ready(catalogs=len(trees), items=sum(map(len, trees)))


@router.get("/version", operation_id="version")
async def version() -> Version:
    """Get the versions of the service and of Python."""
    return Version(version=__version__, python=platform.python_version())
