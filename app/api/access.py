"""What a route may use: the services that the lifespan has put on the application."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, FastAPI, Request

from app.catalogs import Catalog, Catalogs
from app.jobs import Jobs
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Access:
    """What the API needs of the running service."""

    settings: Settings
    catalogs: Catalogs
    jobs: Jobs


def grant(app: FastAPI, access: Access) -> None:
    """Let the routes of `app` work on these services."""
    app.state.access = access


def _access(request: Request) -> Access:
    return cast(Access, request.app.state.access)


def settings_of(request: Request) -> Settings:
    return _access(request).settings


def catalogs_of(request: Request) -> Catalogs:
    return _access(request).catalogs


def jobs_of(request: Request) -> Jobs:
    return _access(request).jobs


async def catalog_of(request: Request, catalog: str) -> Catalog:
    """The catalogue that the path names. Raises UnknownCatalog."""
    return await _access(request).catalogs.get(catalog)


TheSettings = Annotated[Settings, Depends(settings_of)]
TheCatalogs = Annotated[Catalogs, Depends(catalogs_of)]
TheJobs = Annotated[Jobs, Depends(jobs_of)]
TheCatalog = Annotated[Catalog, Depends(catalog_of)]
