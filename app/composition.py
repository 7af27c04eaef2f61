"""`Services`: builds the parts of the service, and closes them in reverse order.

The HTTP service (`app.main`) and the commands use the same parts.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from app.budget import SharedBudget
from app.catalog_jobs import CatalogJobs
from app.catalogs import DEFAULT_CATALOG, Catalogs, CatalogSettings
from app.embedders import EmbedderCache, EmbedderStore, EndpointTimes, Spending, first_space
from app.jobs import Jobs, JobTimes
from app.keys import Keyring
from app.keys.daily_budget import DailyBudget
from app.llm import (
    STAGES,
    ChatModel,
    Models,
    ModelUnavailable,
    Price,
    ReplyMode,
    Sighted,
    Stage,
    StageModel,
)
from app.llm.ask import FREE
from app.llm.endpoint.attempts import Attempt
from app.llm.endpoint.known import KnownEndpoint
from app.llm.endpoint.outages import Outages
from app.llm.wrappers import Breaker, Cached, Limited
from app.registry import Registry
from app.settings import Settings
from app.storage.audit import RedisAudit
from app.storage.documents import Documents, MemoryDocuments
from app.storage.feedback import Feedback
from app.storage.key_usage import RedisKeyUsage
from app.storage.redis_attribution import RedisAttribution
from app.storage.redis_documents import RedisDocuments
from app.storage.redis_feedback import RedisFeedback
from app.storage.vectors import RedisVectors
from app.store_connection import checked, connected, store_url
from tree.errors import EmbedderUnavailable, EmbedderUnusable
from tree.redis.aof_rewrite import rewrite_aof
from tree.redis.embedded_server import EmbeddedServer
from tree.redis.server_check import ServerReport, check_server
from tree.store.key_count import count_keys
from tree.store.protocol import TreeStore
from tree.store.redis_store import RedisTreeStore

logger = logging.getLogger(__name__)

EMBEDDER_BUDGET = "embedder"  # whose day it is, beside the days of keys
LOADED_S = 30.0  # for a local model to be loaded
_COUNT_CONNECTIONS = 32  # every request of a key with a rate limit uses one


@dataclass(frozen=True, slots=True)
class ServiceTimes:
    """How long the parts of a service wait, where no setting says it. Tests wait less."""

    start_s: float = 5.0  # at the start, for a remote embedder to answer
    stream_silence_s: float = 5.0  # for the store to answer, until a stream of a job ends
    jobs: JobTimes = field(default_factory=JobTimes)
    embeddings: EndpointTimes = field(default_factory=EndpointTimes)


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running service or command."""

    settings: Settings
    server: ServerReport
    documents: Documents
    jobs: Jobs
    catalogs: Catalogs
    models: Models
    embedders: EmbedderCache
    keyring: Keyring


@asynccontextmanager
async def services(
    settings: Settings,
    *,
    attach: bool = False,
    create: bool = True,
    lagged: Callable[[str, float], None] | None = None,
    times: ServiceTimes = ServiceTimes(),
) -> AsyncIterator[Services]:
    """The parts over the store that the settings name; closed at the end of the block.

    Without a store URL, starts an embedded server or, with `attach`, uses the one that another
    process runs over the same data folder. With `create`, makes the embedded store if it is
    missing, and the catalogue `default` if there is no catalogue. See Catalogs for `lagged`.
    Raises StoreUnavailable.
    """
    async with AsyncExitStack() as stack:
        url = await store_url(settings, stack, attach=attach, create=create)
        client = await connected(url, stack)
        server = await check_server(client)
        if server.persistence == "none":
            logger.warning("the store loses its data at a restart: turn on its append-only file")
        documents = RedisDocuments(client, prefix=settings.key_prefix)

        def store(catalog_id: str, shape: CatalogSettings) -> TreeStore:
            return RedisTreeStore(
                client,
                catalog_id,
                space=first_space(shape.tree.embedder),
                settings=shape.tree,
                prefix=settings.key_prefix,
                keep=settings.kept_versions,
            )

        def feedback(catalog_id: str) -> Feedback:
            return RedisFeedback(
                client, catalog_id, prefix=settings.key_prefix, user_ttl_s=settings.user_ttl_s
            )

        async def keys_by_catalog(name: str | None = None) -> dict[str, int]:
            return await count_keys(client, settings.key_prefix, name)

        keyring = await _keyring(url, settings, stack)
        jobs = Jobs(documents, settings.job_ttl_s, times.jobs)
        registry = Registry(documents, keys_by_catalog)
        models = await _models(settings, documents, stack)
        embedders = EmbedderCache(
            settings.embedder_endpoint,
            times=times.embeddings,
            store=EmbedderStore(
                asyncio.get_running_loop(),
                documents,
                partial(RedisVectors, client, prefix=settings.key_prefix),
                settings.vector_ttl_s,
            ),
            spending=_spending(settings, keyring.usage),
        )
        stack.callback(embedders.close)
        catalogs = Catalogs(
            registry,
            jobs,
            store,
            settings,
            models,
            lagged,
            feedback,
            embedders,
            partial(_day_budget, keyring.usage),
            partial(RedisAttribution, client, prefix=settings.key_prefix),
        )
        jobs.set_worker(CatalogJobs(catalogs, settings))
        stack.push_async_callback(catalogs.aclose)
        stack.push_async_callback(jobs.aclose)  # closed first: jobs work on catalogues
        if create and not await registry.names():
            await catalogs.create(DEFAULT_CATALOG, CatalogSettings())
        yield Services(settings, server, documents, jobs, catalogs, models, embedders, keyring)


@contextmanager
def shared_store(settings: Settings, lost: Callable[[], None]) -> Iterator[str]:
    """The URL of the store for several processes; starts an embedded server if none is set.

    Raises StoreUnavailable, also for a server that is not suitable. When the embedded server ends
    and cannot be started again, `lost` is called in another thread, and the end of the block
    raises StoreUnavailable.
    """
    if settings.redis_url is not None:
        url = settings.redis_url.get_secret_value()
        asyncio.run(checked(url))
        yield url
        return
    start = EmbeddedServer.start(settings.data_dir, fsync=settings.fsync, lost=lost)
    server = asyncio.run(start)
    try:
        yield server.connect_url
    finally:
        asyncio.run(server.stop())
        if server.lost:
            raise server.lost


async def compact_store(settings: Settings) -> None:
    """Make the store rewrite its append-only file. Raises StoreUnavailable."""
    async with AsyncExitStack() as stack:
        url = await store_url(settings, stack, attach=True, create=False)
        await rewrite_aof(await connected(url, stack))


async def check_models(settings: Settings) -> None:
    """Check the models before the service starts; an outage is only logged.

    Raises ModelRejected, EmbedderUnusable.
    """
    async with AsyncExitStack() as stack:
        embedders = EmbedderCache(settings.embedder_endpoint)
        stack.callback(embedders.close)
        await check_embedder(settings, embedders, ServiceTimes().start_s)
        await check_answers(await _models(settings, MemoryDocuments(), stack))


async def check_answers(models: Models) -> None:
    """Check the models that answer; an outage is only logged.

    Raises ModelRejected for a mistake in the settings, so that the service does not start.
    """
    if not models.configured:
        return
    try:
        for unusable in await models.check():
            logger.warning("the model %s gives no usable answer", unusable)
    except ModelUnavailable as error:
        logger.warning("items are ranked by vectors alone until the model answers: %s", error)


async def check_embedder(settings: Settings, embedders: EmbedderCache, answered_s: float) -> None:
    """Check the embedder; an outage is only logged. Raises EmbedderUnusable.

    `answered_s`: how long a remote embedder has to answer.
    """
    try:
        timeout_s = LOADED_S if embedders.is_local(settings.embedder) else answered_s
        async with asyncio.timeout(timeout_s):
            await embedders.check(settings.embedder, timeout_s)
    except TimeoutError:
        logger.warning(
            "recommendations ignore texts until the embedder answers: it has not answered "
            "within %.0f s",
            timeout_s,
        )
    except EmbedderUnusable:
        raise
    except EmbedderUnavailable as error:
        logger.warning("recommendations ignore texts until the embedder answers: %s", error)


@asynccontextmanager
async def opened_models(
    settings: Settings,
    wrapped: Callable[[ChatModel], ChatModel] = lambda model: model,
    listen: Callable[[Attempt], None] | None = None,
) -> AsyncIterator[Models]:
    """The models that the settings name, each wrapped by `wrapped`, without a store.

    `listen` hears of every call to the endpoint.
    """
    async with AsyncExitStack() as stack:
        yield await _models(settings, MemoryDocuments(), stack, wrapped, listen)


async def _models(
    settings: Settings,
    documents: Documents,
    stack: AsyncExitStack,
    wrapped: Callable[[ChatModel], ChatModel] = lambda model: model,
    listen: Callable[[Attempt], None] | None = None,
) -> Models:
    """The models that the settings name; `stack` closes their client."""
    if settings.llm_model is None:
        return Models.none(documents)
    from app.llm.batches import BatchApi  # the client library takes a second to import
    from app.llm.client import OpenAIChat
    from app.llm.client import connect as connect_model

    key = settings.llm_api_key.get_secret_value() if settings.llm_api_key else None
    client = await stack.enter_async_context(connect_model(settings.llm_base_url, key))
    free = asyncio.Semaphore(settings.llm_concurrency)
    address = str(client.base_url)
    label_model = _model_of(settings, "label")
    names = {_model_of(settings, stage) for stage in STAGES}
    line_model = _model_of(settings, "enrich")
    effort = settings.llm_reasoning_effort
    outages = Outages()
    known = {
        name: KnownEndpoint(name, address, documents) for name in {*names, label_model, line_model}
    }

    def chat_of(name: str) -> OpenAIChat:
        return OpenAIChat(
            client,
            name,
            known[name],
            reasoning_effort=effort,
            outages=outages,
            listen=listen,
        )

    chats = {name: Limited(wrapped(chat_of(name)), free) for name in {*names, label_model}}

    def price_of(name: str) -> Price:
        price = settings.llm_prices.get(name)
        return Price(price.input, price.output, price.cached) if price else FREE

    def made(name: str, cache_s: int) -> StageModel:
        # Labels have their own breaker: their failures do not pause recommendations.
        model: ChatModel = Breaker(chats[name])
        if cache_s:
            model = Cached(model, documents, cache_s, f"{address} {effort}" if effort else address)
        return StageModel(model, price_of(name))

    asked = {name: made(name, settings.slate_cache_ttl_s) for name in names}
    labels = made(label_model, settings.label_ttl_s)
    # Lines have their own calls, so that no user waits for one of them to end.
    line_calls = asyncio.Semaphore(settings.llm_enrich_concurrency)
    line_chat = chat_of(line_model)
    lines = Sighted(Breaker(Limited(wrapped(line_chat), line_calls)), documents, address)
    stack.push_async_callback(lines.aclose)
    models = Models(
        {stage: asked[_model_of(settings, stage)] for stage in STAGES},
        documents,
        None if settings.llm_reply_mode == "auto" else ReplyMode(settings.llm_reply_mode),
        settings.llm_timeout_s,
        address,
        settings.llm_max_tokens,
        settings.llm_max_cost_usd,
        labels if settings.llm_labels else None,
        StageModel(lines, price_of(line_model)),
        BatchApi(client, line_chat),
        outages,
        known,
    )
    stack.push_async_callback(models.aclose)
    return models


def _model_of(settings: Settings, stage: Stage | Literal["label", "enrich"]) -> str:
    chosen: str | None = getattr(settings, f"llm_{stage}_model")
    return chosen or settings.llm_model or ""


def _day_budget(usage: RedisKeyUsage, catalog_id: str, limit_usd: float) -> SharedBudget:
    """What lines of new and changed items may cost today, counted like the budget of a key."""
    return DailyBudget(usage, f"enrichment-{catalog_id}", limit_usd)


def _spending(settings: Settings, usage: RedisKeyUsage) -> Spending:
    """The prices of embedders, and the budget of a day that all processes share."""
    prices = {model: price.input for model, price in settings.llm_prices.items()}
    limit_usd = settings.embedder_max_cost_usd_per_day
    if limit_usd is None:
        return Spending(prices)
    daily = DailyBudget(usage, EMBEDDER_BUDGET, limit_usd)
    return Spending(prices, daily, asyncio.get_running_loop())


async def _keyring(url: str, settings: Settings, stack: AsyncExitStack) -> Keyring:
    """The keyring, over its own connections.

    So many concurrent requests cannot delay revocations, rate limits and the audit log.
    """
    keys, counts, log = [
        await connected(url, stack, connections) for connections in (4, _COUNT_CONNECTIONS, 8)
    ]
    prefix = settings.key_prefix
    usage, audit = RedisKeyUsage(counts, prefix=prefix), RedisAudit(log, prefix=prefix)
    return Keyring(RedisDocuments(keys, prefix=prefix), usage, audit, settings.admin_key)
