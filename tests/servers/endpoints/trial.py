"""Trials: the service with one kind of endpoint as its model, and what its answers tell."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from app.composition import check_answers, opened_models
from app.embedders import EmbedderCache
from app.llm import ModelRejected, Models
from app.recommend import Recommendation, RecommendConfig, Recommender, RecommendRequest
from app.settings import Settings
from app.storage.documents import MemoryDocuments
from tests.servers.endpoints.answerer import taste
from tests.servers.endpoints.kind import Kind
from tests.servers.endpoints.server import EndpointServer
from tree.store.protocol import ReadableStore

MODEL = "any"
LIMIT = 10
_RECOVERY_S = 20.0
_IN_ORDER = 0.7  # of all pairs of an answer by the model; about half by vectors


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a kind: what was wrong with every effort ("" where nothing was)."""

    kind: Kind
    faults: dict[str, str]
    calls_at_start: int
    mode: str | None = None

    @property
    def passed(self) -> bool:
        return not any(self.faults.values())


async def tried(
    server: EndpointServer,
    kind: Kind,
    store: ReadableStore,
    history: Sequence[str],
    efforts: Sequence[str],
) -> Trial:
    """A service that starts with an endpoint of this kind and answers in all efforts."""
    server.play(kind)
    async with _models(server, kind) as models:
        try:
            await check_answers(models)
        except ModelRejected as error:
            return Trial(kind, _of_refusal(kind, str(error), efforts), len(server.bodies))
        at_start = len(server.bodies)
        recommender = Recommender(
            "shop",
            store,
            MemoryDocuments(),
            EmbedderCache(),
            RecommendConfig.of(Settings()),
            models,
        )
        faults = {}
        for effort in efforts:
            try:
                faults[effort] = await _fault(server, recommender, history, effort)
            except ModelRejected as error:
                faults[effort] = f"raised {type(error).__name__}: {error}"
        mode = str(models.mode) if models.mode else None
        if kind.mode not in (None, mode):
            faults = {effort: fault or f"in the mode {mode}" for effort, fault in faults.items()}
        return Trial(kind, faults, at_start, mode)


@asynccontextmanager
async def _models(server: EndpointServer, kind: Kind) -> AsyncIterator[Models]:
    try:
        settings = Settings(
            llm_base_url=server.base_url, llm_api_key=kind.key, llm_model=MODEL, llm_labels=False
        )
    except ValueError as error:
        raise ModelRejected(str(error)) from error
    async with opened_models(settings, lambda model: model) as models:
        yield models


def _of_refusal(kind: Kind, said: str, efforts: Sequence[str]) -> dict[str, str]:
    fault = f"did not start: {said}"
    if kind.outcome == "refused":
        fault = "" if kind.words in said else f"the message says {said!r}"
    return dict.fromkeys(efforts, fault)


async def _fault(
    server: EndpointServer, recommender: Recommender, history: Sequence[str], effort: str
) -> str:
    """What is wrong with the answers in one effort; "" if nothing is."""
    if server.kind.outcome == "refused":
        return "started"
    asked: dict[str, Any] = {"history": [{"item_id": item} for item in history], "effort": effort}
    request = RecommendRequest.model_validate(
        {**asked, "limit": LIMIT, "diversity": 0.0, "timeout_ms": 60_000}
    )
    fault = _by_model(await recommender.recommend(request))
    if fault or server.kind.outcome == "model":
        return fault
    server.trouble = True
    troubled = await recommender.recommend(request)
    server.trouble = False
    if troubled.degraded_reason != "llm_unavailable":
        return f"in trouble: {troubled.degraded_reason}"
    deadline = time.monotonic() + _RECOVERY_S
    while fault := _by_model(await recommender.recommend(request)):  # a pause after failures
        if time.monotonic() > deadline:
            return f"after the trouble: {fault}"
        await asyncio.sleep(0.2)
    return ""


def _by_model(answer: Recommendation) -> str:
    if answer.degraded:
        return f"degraded: {answer.degraded_reason}"
    tastes = [taste(str(item.fields["title"])) for item in answer.items]
    pairs = list(combinations(tastes, 2))
    share = sum(first >= second for first, second in pairs) / len(pairs)
    return "" if share >= _IN_ORDER else f"{share:.2f} of the pairs in the model's order"
