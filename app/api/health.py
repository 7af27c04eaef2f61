"""Whether the process lives, whether it can answer, and which version it is."""

import platform

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from app import __version__
from app.api.access import TheCatalogs
from app.api.schema import problems
from app.catalogs import DEFAULT_CATALOG

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: str = "alive"


class Ready(BaseModel):
    """The store answers and the default tree is loaded. A model is never asked."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ready", "items": 725}]})

    status: str = "ready"
    catalog: str
    tree_version: int
    items: int


class Version(BaseModel):
    """What runs here."""

    version: str
    python: str


@router.get("/livez", operation_id="livez")
async def livez() -> Alive:
    """200 as long as the process answers."""
    return Alive()


@router.get("/readyz", operation_id="readyz", responses=problems())
async def readyz(catalogs: TheCatalogs) -> Ready:
    """200 when the store is reachable and the default tree is loaded; 503 otherwise."""
    catalog = await catalogs.get(DEFAULT_CATALOG)
    tree = await catalog.store.load()
    return Ready(catalog=catalog.name, tree_version=tree.version, items=len(tree))


@router.get("/version", operation_id="version")
async def version() -> Version:
    """Versions of the service and of Python."""
    return Version(version=__version__, python=platform.python_version())
