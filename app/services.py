"""`Services`: the parts of the service, made in one order and closed in the other.

Commands use them as the HTTP service does; `app.main` puts that in front.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Literal

from app.catalogs import DEFAULT_CATALOG, Catalogs, CatalogSettings
from app.jobs import Jobs
from app.llm import (
    STAGES,
    ChatModel,
    Models,
    ModelUnavailable,
    Price,
    ReplyMode,
    Stage,
    StageModel,
)
from app.llm.ask import FREE
from app.llm.embeddings import embedders_for
from app.llm.wrappers import Breaker, Cached, Limited
from app.settings import Settings
from tree.embedders import EmbedderCache, LexicalEmbedder
from tree.errors import (
    CorruptSnapshot,
    EmbedderUnavailable,
    EmbedderUnusable,
    StoreUnavailable,
)
from tree.store.connection import connect
from tree.store.documents import Documents, MemoryDocuments, RedisDocuments
from tree.store.feedback import Feedback
from tree.store.protocol import TreeStore
from tree.store.redis import RedisTreeStore
from tree.store.redis_feedback import RedisFeedback
from tree.store.server import EmbeddedServer, ServerReport, check_server, running_url

logger = logging.getLogger(__name__)

LOADED_S = 30.0  # for a model to be loaded
_ANSWERED_S = 5.0  # an outage of an endpoint holds up a start no longer


@dataclass(frozen=True, slots=True)
class Services:
    """The running parts, for whoever serves or curates."""

    settings: Settings
    server: ServerReport
    documents: Documents
    jobs: Jobs
    catalogs: Catalogs
    models: Models
    embedders: EmbedderCache


@asynccontextmanager
async def services(
    settings: Settings,
    *,
    attach: bool = False,
    lagged: Callable[[str, float], None] | None = None,
) -> AsyncIterator[Services]:
    """The parts over the store that the settings name; closed when the block is left.

    Without a store URL that is an embedded server of our own or, with `attach`, the one that
    another process runs over the same data folder. Makes the default catalogue if it is missing.
    For `lagged` see Catalogs. Raises StoreUnavailable.
    """
    async with AsyncExitStack() as stack:
        url = await _store_url(settings, stack, attach=attach)
        with _readable_url():
            client = connect(url)
        await stack.enter_async_context(client)
        server = await check_server(client)
        if server.persistence == "none":
            logger.warning("the store keeps nothing over a restart: turn on its append-only file")
        documents = RedisDocuments(client, prefix=settings.key_prefix)

        def store(catalog: str, shape: CatalogSettings) -> TreeStore:
            return RedisTreeStore(
                client,
                catalog,
                space=LexicalEmbedder().space,
                settings=shape.tree,
                prefix=settings.key_prefix,
                keep=settings.kept_versions,
            )

        def feedback(catalog: str) -> Feedback:
            return RedisFeedback(
                client, catalog, prefix=settings.key_prefix, user_ttl_s=settings.user_ttl_s
            )

        jobs = Jobs(documents, settings.job_ttl_s)
        models = await _models(settings, documents, stack)
        embedders = embedders_for(settings)
        stack.callback(embedders.close)
        catalogs = Catalogs(documents, jobs, store, settings, models, lagged, feedback, embedders)
        stack.push_async_callback(catalogs.aclose)
        stack.push_async_callback(jobs.aclose)  # first of all: jobs work on catalogues
        try:
            await catalogs.create(DEFAULT_CATALOG, CatalogSettings())
        except CorruptSnapshot as error:  # the others can be served, and the doctor can look
            logger.error("the catalogue %s cannot be opened: %s", DEFAULT_CATALOG, error)
        yield Services(settings, server, documents, jobs, catalogs, models, embedders)


@contextmanager
def shared_store(settings: Settings) -> Iterator[str]:
    """The URL of the store for several processes: an embedded server of ours unless one is set.

    Raises StoreUnavailable, also when the server will not do: before any of them starts.
    """
    if settings.redis_url is not None:
        url = settings.redis_url.get_secret_value()
        asyncio.run(_checked(url))
        yield url
        return
    server = asyncio.run(EmbeddedServer.start(settings.data_dir, fsync=settings.fsync))
    try:
        yield server.connect_url
    finally:
        asyncio.run(server.stop())


async def check_models(settings: Settings) -> None:
    """Ask the models before anything is started; an outage is no reason not to.

    Raises ModelRejected, EmbedderUnusable.
    """
    async with AsyncExitStack() as stack:
        embedders = embedders_for(settings)
        stack.callback(embedders.close)
        await check_embedder(settings, embedders)
        await check_answers(await _models(settings, MemoryDocuments(), stack))


async def check_answers(models: Models) -> None:
    """Our own mistakes stop the service before it serves; an outage does not.

    Raises ModelRejected.
    """
    if not models.configured:
        return
    try:
        for unusable in await models.check():
            logger.warning("the model %s gives no usable answer", unusable)
    except ModelUnavailable as error:
        logger.warning("answers are embedded ones until the model is back: %s", error)


async def check_embedder(settings: Settings, embedders: EmbedderCache) -> None:
    """See `check_answers`. Raises EmbedderUnusable."""
    try:
        patience_s = LOADED_S if embedders.anywhere(settings.embedder) else _ANSWERED_S
        async with asyncio.timeout(patience_s):
            await embedders.check(settings.embedder, patience_s)
    except TimeoutError:
        logger.warning(
            "words are left out of answers until the embedder is back: it has not answered "
            "within %.0f s",
            patience_s,
        )
    except EmbedderUnusable:
        raise
    except EmbedderUnavailable as error:
        logger.warning("words are left out of answers until the embedder is back: %s", error)


@asynccontextmanager
async def opened_models(
    settings: Settings, wrapped: Callable[[ChatModel], ChatModel]
) -> AsyncIterator[Models]:
    """The models that the settings name, each of them wrapped, without a store behind them."""
    async with AsyncExitStack() as stack:
        yield await _models(settings, MemoryDocuments(), stack, wrapped)


async def _models(
    settings: Settings,
    documents: Documents,
    stack: AsyncExitStack,
    wrapped: Callable[[ChatModel], ChatModel] = lambda model: model,
) -> Models:
    """The models that the settings name; the client is closed with the stack."""
    if settings.llm_model is None:
        return Models.none(documents)
    from app.llm.client import OpenAIChat  # the client library takes a second to import
    from app.llm.client import connect as connect_model

    key = settings.llm_api_key.get_secret_value() if settings.llm_api_key else None
    client = await stack.enter_async_context(connect_model(settings.llm_base_url, key))
    free = asyncio.Semaphore(settings.llm_concurrency)
    address = str(client.base_url)
    writer = _model_of(settings, "label")
    names = {_model_of(settings, stage) for stage in STAGES}
    chats = {name: Limited(wrapped(OpenAIChat(client, name)), free) for name in {*names, writer}}

    def made(name: str, kept_s: int) -> StageModel:
        model: ChatModel = Breaker(chats[name])  # long questions for labels stop no reader's
        if kept_s:
            model = Cached(model, documents, kept_s, address)
        price = settings.llm_prices.get(name)
        return StageModel(model, Price(price.input, price.output, price.cached) if price else FREE)

    asked = {name: made(name, settings.slate_cache_ttl_s) for name in names}
    labels = made(writer, settings.label_ttl_s)
    return Models(
        {stage: asked[_model_of(settings, stage)] for stage in STAGES},
        documents,
        None if settings.llm_reply_mode == "auto" else ReplyMode(settings.llm_reply_mode),
        settings.llm_timeout_s,
        address,
        settings.llm_max_tokens,
        settings.llm_max_cost_usd,
        labels if settings.llm_labels else None,
    )


def _model_of(settings: Settings, stage: Stage | Literal["label"]) -> str:
    chosen: str | None = getattr(settings, f"llm_{stage}_model")
    return chosen or settings.llm_model or ""


async def _checked(url: str) -> None:
    with _readable_url():
        client = connect(url)
    async with client:
        await check_server(client)


@contextmanager
def _readable_url() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise StoreUnavailable(f"UNILLMREC_REDIS_URL is not the URL of a store: {error}") from error


async def _store_url(settings: Settings, stack: AsyncExitStack, *, attach: bool) -> str:
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    if attach and (url := running_url(settings.data_dir)) is not None:
        return url
    server = await EmbeddedServer.start(settings.data_dir, fsync=settings.fsync)
    stack.push_async_callback(server.stop)
    return server.connect_url
