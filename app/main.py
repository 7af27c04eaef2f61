"""The HTTP service: `create_app` serves the API over the parts."""

import asyncio
import ctypes
import gc
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

from fastapi import Depends, FastAPI

from app import __version__, api
from app.api.body_memory import LARGEST, BodyMemory
from app.api.scopes import authorized
from app.catalogs import DEFAULT_CATALOG, Catalogs
from app.composition import LOADED_S, ServiceTimes, check_answers, check_embedder, services
from app.curate.imports.uploads import remove_abandoned
from app.embedders import EmbedderCache
from app.examinations import keep_models_examined
from app.settings import Settings
from tree.blas import use_one_blas_thread
from tree.errors import CatalogDeleted, CorruptSnapshot, EmbedderUnavailable
from tree.node import Space
from tree.worker import Background, SingleFlight

logger = logging.getLogger(__name__)

_DAMAGED = "unillmrec doctor --deep says what is missing"

# The event loop waits at most this long for a thread that computes in Python (default: 5 ms).
_SWITCH_INTERVAL_S = 0.0005

# /readyz needs no key, so all its callers share one check of the store within this time.
_STORE_CHECK_S = 0.2


def create_app(
    settings: Settings | None = None,
    *,
    checked: bool = False,
    times: ServiceTimes = ServiceTimes(),  # noqa: B008 - frozen
) -> FastAPI:
    """The HTTP service; its parts are made when it starts.

    `checked`: the caller has already called `check_models`. Raises ValidationError for invalid
    settings in the environment.
    """
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        use_one_blas_thread()  # scans have their own threads: more would compete for cores
        async with services(settings, lagged=metrics.lagged, times=times) as parts:
            await asyncio.to_thread(remove_abandoned, settings)
            if not checked:
                await check_embedder(settings, parts.embedders, times.start_s)
            later = await _warm(settings, parts.catalogs, parts.embedders)
            await check_answers(parts.models)
            store_check = SingleFlight(
                "a check of the store", parts.catalogs.answers, fresh_s=_STORE_CHECK_S
            )
            body_memory = BodyMemory(LARGEST * settings.max_body_bytes)
            dependencies = api.Dependencies(
                settings,
                parts.catalogs,
                parts.jobs,
                parts.keyring,
                store_check,
                body_memory,
                times.stream_silence_s,
            )
            api.attach(app, dependencies)
            metrics.watch(parts.catalogs, parts.jobs)
            background = Background("the service")
            background.persist(parts.jobs.recover_orphans)
            if parts.keyring.enabled:
                background.persist(parts.keyring.follow)
            if parts.models.configured and settings.llm_examination:
                background.persist(partial(keep_models_examined, parts.catalogs))
            background.start(_open_all(later, parts.embedders))
            try:
                yield
            finally:
                await background.aclose()
                await store_check.aclose()

    app = FastAPI(
        title="UniLLMRec",
        summary="Recommendations from a semantic tree of your catalogue; no training, no logs",
        description="Before any route is called, a request may be refused: 400 and 431 when it is "
        "not valid HTTP, 408 when it does not arrive in time, 414 when its address is too long, "
        "503 when there are too many connections.",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,  # see app.api.docs
        redirect_slashes=False,  # "a/" is an item id of its own
        separate_input_output_schemas=False,
        dependencies=[Depends(authorized)],
    )
    metrics = api.install(app, keyed=settings.admin_key is not None)
    return app


async def _warm(
    settings: Settings, catalogs: Catalogs, embedders: EmbedderCache
) -> list[tuple[str, Space]]:
    """Load code and trees before the first request, and finish the work of lost processes.

    Returns the catalogues with a remote embedder, which may not answer.
    """
    later: list[tuple[str, Space]] = []
    for listed in await catalogs.list():
        catalog = listed.catalog
        if catalog is None:
            logger.error("catalogue %s is not served: %s", listed.name, listed.flaw)
            continue
        try:
            tree = await catalog.store.load()
            space = tree.space
            if not embedders.is_local(space.embedder):
                later.append((catalog.name, space))
            else:
                await _open(catalog.name, space, embedders)
            await catalog.curator.resume()
        except CatalogDeleted:
            continue
        except CorruptSnapshot as error:  # the other catalogues can be served
            logger.error("catalogue %s is not served: %s; %s", catalog.name, error, _DAMAGED)
            continue
        own = tree.settings.embedder
        if catalog.name == DEFAULT_CATALOG and own != settings.embedder:
            logger.info(
                "catalogue %s keeps its embedder %s; new ones get %s",
                catalog.name,
                own,
                settings.embedder,
            )
    settle_memory()
    return later


async def _open_all(catalogs: Sequence[tuple[str, Space]], embedders: EmbedderCache) -> None:
    for name, space in catalogs:
        await _open(name, space, embedders)


async def _open(catalog: str, space: Space, embedders: EmbedderCache) -> None:
    try:
        await embedders.encode_interactive(space, ["warm"], LOADED_S)
    except EmbedderUnavailable as error:
        logger.error("catalogue %s has no embedder: %s", catalog, error)


def settle_memory() -> None:
    """Return the memory that only loading needed, and exclude the rest from garbage collection.

    A full collection over a loaded tree takes up to a second, and the C library would keep about
    45 B per item that loading has freed.
    """
    gc.collect()
    gc.freeze()
    with suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)
