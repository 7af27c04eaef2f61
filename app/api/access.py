"""What a route may use: the services that the lifespan has put on the application."""

from dataclasses import dataclass
from typing import Annotated, cast
from urllib.parse import unquote_to_bytes

from fastapi import Depends, FastAPI, Request

from app.api.problems import Flaw, invalid
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


def access_of(request: Request) -> Access:
    return cast(Access, request.app.state.access)


# Coroutines, because FastAPI sends plain functions to a thread.


async def _catalogs(request: Request) -> Catalogs:
    return access_of(request).catalogs


async def _jobs(request: Request) -> Jobs:
    return access_of(request).jobs


async def _catalog(request: Request, catalog: str) -> Catalog:
    """The catalogue that the path names. Raises UnknownCatalog.

    Refuses a path that ends in a line break: the router's pattern drops it, and "a\\n" would be
    taken for the item "a". Refuses bytes that are no UTF-8: they all read as the same character,
    and two users would be one.
    """
    if request.scope["path"].endswith("\n"):
        raise invalid([Flaw(source="path", pointer="/", message="must not end in a line break")])
    if "\ufffd" in request.scope["path"] and not _is_text(request.scope.get("raw_path", b"")):
        raise invalid([Flaw(source="path", pointer="/", message="must be UTF-8, percent-encoded")])
    return await access_of(request).catalogs.get(catalog)


def _is_text(raw_path: bytes) -> bool:
    try:
        unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        return False
    return True


TheCatalogs = Annotated[Catalogs, Depends(_catalogs)]
TheJobs = Annotated[Jobs, Depends(_jobs)]
TheCatalog = Annotated[Catalog, Depends(_catalog)]
