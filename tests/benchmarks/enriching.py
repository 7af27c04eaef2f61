"""Figures of an enrichment beside users: what it holds up, and that each line is paid for once."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from app.llm.slates import ReplyMode
from tests.app.curate.enrichment.support import items_of, lines_json
from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tests.benchmarks.living import Readers, tell
from tests.benchmarks.service import Service, running
from tests.servers.hostile import one_pick
from tests.servers.loopback import Loopback

_ITEMS = 10_000
_MODEL_S = 2.0  # that the model takes for a call
_CALLS = 4  # at once
_IDLE_S = 20.0
_LINES = "\n\nItems:\n"
_CATALOG = "/v1/catalogs/default"


def real() -> Iterator[Figure]:
    """Games get their lines from a model on this machine, beside users who ask for vectors only."""
    items = data.real_items("amazon_games")[:_ITEMS]
    with _model() as (url, counts), running(**_settings(url)) as service:
        tell(f"{len(items):,} items")
        rows = "\n".join(item.model_dump_json(exclude_defaults=True) for item in items)
        service.finished(service.call("POST", f"{_CATALOG}/imports", rows.encode()))
        path = f"{_CATALOG}/recommend"
        requests = [
            (path, json.dumps({"history": [{"item_id": one} for one in history[-5:]],
                               "limit": 10, "strategy": "embedded"}).encode())
            for history in data.histories("amazon_games", 200)
        ]  # fmt: skip
        tell("users alone")
        with Readers([service], requests):
            time.sleep(3)
        with Readers([service], requests) as idle:
            time.sleep(_IDLE_S)
        tell("users beside the enrichment")
        with Readers([service], requests) as busy:
            started = time.perf_counter()
            job = _enriched(service)
            seconds = time.perf_counter() - started
        asked = counts()
    yield Figure(f"lines of {len(items):,} items, {_CALLS} calls at once of {_MODEL_S:g} s",
                 seconds, "s")  # fmt: skip
    yield Figure("items without a line", len(items) - job["result"]["enriched"], "", "=", 0)
    refused = (asked.total() - len(asked)) / len(items)
    yield Figure("lines that were refused, and asked for again", 100 * refused, "%", "≤", 1)
    yield Figure("failed requests meanwhile", busy.failed, "", "=", 0)
    yield Figure("recommend alone, p50", idle.at(50), "ms")
    yield Figure("recommend alone, p99", idle.at(99), "ms")
    yield Figure("recommend beside it, p50", busy.at(50), "ms")
    yield Figure("recommend beside it, p99", busy.at(99), "ms", "≤", 1.5 * idle.at(99))


def _settings(url: str) -> dict[str, str]:
    return {
        "LLM_BASE_URL": url,
        "LLM_API_KEY": "key",
        "LLM_MODEL": "lines",
        "LLM_LABELS": "false",
        "LLM_REPLY_MODE": ReplyMode.JSON_SCHEMA,
        "LLM_ENRICH_CONCURRENCY": str(_CALLS),
    }


def _enriched(service: Service) -> dict:
    return service.finished(service.call("POST", f"{_CATALOG}/enrichments", {}))


@contextmanager
def _model() -> Iterator[tuple[str, "_Counts"]]:
    """The URL of a model in a process of its own, and how often it was asked for what."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    yield ours.recv(), _Counts(ours)
    process.terminate()
    process.join()


class _Counts:
    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def __call__(self) -> Counter[str]:
        self._pipe.send("counts")
        return self._pipe.recv()


def _serve(pipe: Connection) -> None:
    counts: Counter[str] = Counter()

    async def answer(request: Request) -> JSONResponse:
        prompt = (await request.json())["messages"][-1]["content"]
        if _LINES not in prompt:
            content = one_pick(prompt)
        else:
            counts.update(text for _, text in items_of(prompt).values())
            await asyncio.sleep(_MODEL_S)
            content = lines_json(prompt)
        message = {"role": "assistant", "content": content}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return JSONResponse({"id": "1", "object": "chat.completion", "created": 1,
                             "model": "lines", "choices": [choice], "usage": usage})  # fmt: skip

    server = Loopback(Starlette(routes=[Route("/v1/chat/completions", answer, methods=["POST"])]))
    pipe.send(server.base_url)
    while pipe.recv():
        pipe.send(counts)
