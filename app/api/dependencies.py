"""`Dependencies`: what routes need of the running service, attached to the application."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, FastAPI, Request
from starlette.convertors import StringConvertor, register_url_convertor

from app.api.body_memory import BodyMemory
from app.budget import SharedBudget
from app.catalogs import Catalog, Catalogs
from app.jobs import Jobs
from app.keys import Caller, DailyBudget, Keyring
from app.settings import Settings
from tree.worker import Closed, SingleFlight

CALLER = "unillmrec.caller"  # the caller of a request in its ASGI scope, set by the gate


class _Segment(StringConvertor):
    """`{name:segment}` in a path: up to the next "/" or ":".

    Starlette's own `str` includes the colon: GET /v1/jobs/j1:cancel would ask for a job
    "j1:cancel" instead of being answered with 405.
    """

    regex = "[^/:]+"


register_url_convertor("segment", _Segment())


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the API needs of the running service."""

    settings: Settings
    catalogs: Catalogs
    jobs: Jobs
    keyring: Keyring
    store_check: SingleFlight[None]  # whether the store answers
    body_memory: BodyMemory
    stream_silence_s: float  # without an answer of the store, until a stream of a job ends
    streams: Counter[str] = field(default_factory=Counter)  # open streams of jobs by caller

    @property
    def insecure(self) -> bool:
        """Whether the operator has declared that something else protects this service."""
        return self.settings.insecure


def attach(app: FastAPI, dependencies: Dependencies) -> None:
    """Let the routes of `app` use these dependencies."""
    app.state.dependencies = dependencies


def started(app: FastAPI) -> bool:
    """Whether `app` has its dependencies, so that it can answer."""
    return hasattr(app.state, "dependencies")


def dependencies_of(request: Request) -> Dependencies:
    return cast(Dependencies, request.app.state.dependencies)


def caller_of(request: Request) -> Caller:
    """The caller of the request, as the gate has identified it."""
    return cast(Caller, request.scope[CALLER])


# Coroutines, because FastAPI runs plain functions in a thread.


async def _catalogs(request: Request) -> Catalogs:
    return dependencies_of(request).catalogs


async def _jobs(request: Request) -> Jobs:
    return dependencies_of(request).jobs


async def _caller(request: Request) -> Caller:
    return caller_of(request)


async def _keyring(request: Request) -> Keyring:
    return dependencies_of(request).keyring


async def _key_budget(request: Request) -> SharedBudget | None:
    """The budget of the caller's key for models; None when the key has none."""
    key = caller_of(request).key
    if key is None or key.max_cost_usd_per_day is None:
        return None
    return DailyBudget(dependencies_of(request).keyring.usage, key.id, key.max_cost_usd_per_day)


async def _catalog(request: Request, catalog: str) -> AsyncIterator[Catalog]:
    """The catalogue that the path names. Raises UnknownCatalog.

    Also where it is deleted while the route runs, and its parts are closed under the route.
    """
    catalogs = dependencies_of(request).catalogs
    found = await catalogs.get(catalog)
    try:
        yield found
    except Closed:
        await catalogs.check_exists(found)
        raise


async def _trusted(request: Request, catalog: str) -> Catalog:
    """Like `_catalog`, but asks the registry at most once a second.

    The route must ask again after CatalogDeleted.
    """
    return await dependencies_of(request).catalogs.get(catalog, trust=True)


TheCatalogs = Annotated[Catalogs, Depends(_catalogs)]
TheJobs = Annotated[Jobs, Depends(_jobs)]
TheCaller = Annotated[Caller, Depends(_caller)]
TheKeyBudget = Annotated[SharedBudget | None, Depends(_key_budget)]
TheKeyring = Annotated[Keyring, Depends(_keyring)]
TheCatalog = Annotated[Catalog, Depends(_catalog)]
TrustedCatalog = Annotated[Catalog, Depends(_trusted)]
