"""The HTTP service: `create_app` puts the API in front of the parts."""

import asyncio
import ctypes
import gc
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from threadpoolctl import threadpool_limits

from app import __version__, api
from app.catalogs import DEFAULT_CATALOG, Catalogs
from app.curate.uploads import sweep
from app.services import LOADED_S, check_answers, check_embedder, services
from app.settings import Settings
from tree.embedders import EmbedderCache, LexicalEmbedder
from tree.errors import CorruptSnapshot, EmbedderUnavailable
from tree.node import LEXICAL, Space

logger = logging.getLogger(__name__)

_DAMAGED = "unillmrec doctor --deep says what is missing"

# The event loop waits this long for a thread that computes in Python; 5 ms is Python's own.
_SWITCH_INTERVAL_S = 0.0005


def create_app(settings: Settings | None = None, *, checked: bool = False) -> FastAPI:
    """The HTTP service; its parts are made when it starts. Raises ValidationError on bad settings
    in the environment.

    `checked`: whoever starts it has asked the embedder just now, see `check_models`.
    """
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        threadpool_limits(1, "blas")  # a scan has its own threads: theirs would fight for the cores
        async with services(settings, lagged=metrics.lagged) as parts:
            await asyncio.to_thread(sweep, settings)
            if not checked:
                await check_embedder(settings, parts.embedders)
            behind = await _warm(settings, parts.catalogs, parts.embedders)
            await check_answers(parts.models)
            api.grant(app, api.Access(settings, parts.catalogs, parts.jobs))
            metrics.watch(parts.catalogs)
            patrol = asyncio.create_task(parts.jobs.patrol())
            try:
                yield
            finally:
                patrol.cancel()
                behind.cancel()
                await asyncio.gather(patrol, behind, return_exceptions=True)

    app = FastAPI(
        title="UniLLMRec",
        summary="Recommendations from a semantic tree of your catalogue; no training, no logs",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,  # "a/" is an item id of its own
        separate_input_output_schemas=False,
    )
    metrics = api.install(app)
    return app


async def _warm(
    settings: Settings, catalogs: Catalogs, embedders: EmbedderCache
) -> asyncio.Task[None]:
    """Load code and trees before the first request, and finish what a lost process has left.

    What is asked of elsewhere is left to the task, which never raises: it may not answer.
    """
    later: list[tuple[str, Space]] = []
    await asyncio.to_thread(LexicalEmbedder().encode, ["warm"])  # scikit-learn: 2 s of import
    for catalog in await catalogs.list():
        try:
            space = (await catalog.store.load()).space
            if space.embedder != LEXICAL and embedders.anywhere(space.embedder):
                await _open(catalog.name, space, embedders)
            elif space.embedder != LEXICAL:
                later.append((catalog.name, space))
            await catalog.curator.resume()
        except CorruptSnapshot as error:  # the others can be served
            logger.error("catalogue %s is not served: %s; %s", catalog.name, error, _DAMAGED)
        own = catalog.settings.embedder
        if catalog.name == DEFAULT_CATALOG and own != settings.embedder:
            logger.info(
                "catalogue %s keeps the embedder %s that it was created with; new ones get %s",
                catalog.name,
                own,
                settings.embedder,
            )
    settle_memory()

    async def ask() -> None:
        for name, space in later:
            await _open(name, space, embedders)

    return asyncio.create_task(ask())


async def _open(catalog: str, space: Space, embedders: EmbedderCache) -> None:
    try:
        await embedders.soon(space, ["warm"], LOADED_S)
    except EmbedderUnavailable as error:
        logger.error("catalogue %s has no embedder: %s", catalog, error)


def settle_memory() -> None:
    """After loading: what only that needed goes back to the system, the rest is left in peace.

    Full garbage collections over a loaded tree take up to a second; and the C library would keep
    some 45 B an item that loading has freed.
    """
    gc.collect()
    gc.freeze()
    with suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)
