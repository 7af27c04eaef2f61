"""Single calls to a model: shared prefixes, our own time, and faults."""

import asyncio
import json
import random
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import uvicorn
from starlette.types import Receive, Scope, Send

from app.llm import ModelUnavailable, Reply, ReplyMode, Turn
from app.llm.client import OpenAIChat, connect
from app.llm.slates import Slate, turn_of
from app.llm.tokens import estimated_tokens
from app.recommend.prompt_lines import branch_line, need_lines
from prompts import load
from tests.benchmarks.figures import Figure
from tests.benchmarks.judged_chain import Script
from tests.benchmarks.users import BenchAnswer, Catalogue, ask_all
from tests.servers.decisions import DecisionsServer
from tree.beam_search import cut

_CONCURRENCY = 16
_CALLS = 800
_RUNS = 3
_SLATE = 48
_USERS = 60
_FAULT_USERS = 200


async def shared_prefix(catalogue: Catalogue) -> list[Figure]:
    """The share of the first two slates of branches that a provider could cache."""
    asked = await ask_all(await catalogue.bench(), catalogue.users[:_USERS])
    figures = []
    by_all = by_two = every = 0
    for level in (1, 2):
        texts = sorted(text for one in asked for text in _search_prompts(one)[level - 1 : level])
        if not texts:
            continue
        shared = len(texts) * estimated_tokens(_common_start(texts[0], texts[-1]))
        total = sum(estimated_tokens(text) for text in texts)
        what = f"{catalogue.name}, level {level}: prompt tokens in a prefix of all users"
        figures.append(Figure(what, shared / total))
        by_all, by_two, every = by_all + shared, by_two + _shared_by_two(texts), every + total
    what = f"{catalogue.name}, both levels: prompt tokens in a prefix of"
    return [
        *figures,
        Figure(f"{what} all users", by_all / every, "", "≥", 0.6),
        Figure(f"{what} at least two users", by_two / every),
    ]


def _shared_by_two(texts: Sequence[str]) -> int:
    """Tokens of the longest prefix that each text shares with another; `texts` are sorted."""
    starts = [_common_start(one, other) for one, other in pairwise(texts)]
    sides = zip(["", *starts], [*starts, ""], strict=True)
    return sum(estimated_tokens(max(both, key=len)) for both in sides)


def _common_start(one: str, other: str) -> str:
    """The common prefix of two texts; of the first and last of sorted texts, that of all."""
    ends = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return one[: next(ends, min(len(one), len(other)))]


def _search_prompts(asked: BenchAnswer) -> list[str]:
    contents = [[message.content for message in turn.messages] for turn in asked.prompts]
    return ["\n\n".join(parts) for parts in contents if parts[-1].startswith("Branches:")]


@dataclass(slots=True)
class _Timed:
    """A script with the wall and processor seconds that it takes."""

    script: Script
    wall_s: float = 0.0
    cpu_s: float = 0.0
    calls: int = 0

    async def __call__(self, turn: Turn) -> Reply:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            return await self.script(turn)
        finally:
            self.wall_s += time.perf_counter() - wall
            self.cpu_s += time.process_time() - cpu
            self.calls += 1


async def overhead(catalogue: Catalogue) -> list[Figure]:
    """The time of a balanced request without its calls to the model."""
    timers: list[_Timed] = []

    def wrap(script: Script) -> Script:
        timers.append(_Timed(script))
        return timers[-1]

    bench = await catalogue.bench(wrap=wrap)
    users = catalogue.users[:_USERS]
    await ask_all(bench, users)  # profiles and lines are cached now
    timer = timers[0]
    walls, cpus = [], []
    for user in users:
        request = bench.request_for(user.history, user.groups)
        timer.wall_s = timer.cpu_s = 0.0
        wall, cpu = time.perf_counter(), time.process_time()
        await bench.recommender.recommend(request)
        walls.append(time.perf_counter() - wall - timer.wall_s)
        cpus.append(time.process_time() - cpu - timer.cpu_s)
    what = f"{catalogue.name}: of a balanced request without its calls"
    return [
        Figure(f"{what}, CPU", 1000 * float(np.mean(cpus)), "ms", "≤", 5),
        Figure(f"{what}, wall", 1000 * float(np.mean(walls)), "ms"),
    ]


async def cpu_per_call(catalogue: Catalogue) -> list[Figure]:
    """The processor time of the service for a call over HTTP to a model in another process."""
    asked = await ask_all(await catalogue.bench(), catalogue.users[:20])
    turns = [turn for one in asked for turn in one.prompts]
    spent = []
    with _serving() as url:
        async with connect(url, "key") as client:
            chat = OpenAIChat(client, "scripted")
            await _call_all(chat, turns, _CALLS // 4)
            for _ in range(_RUNS):
                start = time.process_time()
                await _call_all(chat, turns, _CALLS)
                spent.append((time.process_time() - start) * 1000 / _CALLS)
    what = f"own CPU per call, {_CONCURRENCY} at once, best of {_RUNS} runs"
    return [
        Figure(what, min(spent), "ms", "≤", 1.5),
        Figure("own CPU per call, worst of these runs", max(spent), "ms"),
    ]


async def _call_all(chat: OpenAIChat, turns: Sequence[Turn], calls: int) -> None:
    left = iter(range(calls))

    async def client() -> None:
        for at in left:
            reply = await chat.complete(turns[at % len(turns)])
            assert reply.text

    await asyncio.gather(*(client() for _ in range(_CONCURRENCY)))


@contextmanager
def _serving() -> Iterator[str]:
    """The address of an endpoint in its own process that always gives the same answer."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/v1"
    finally:
        process.terminate()
        process.join()


def _serve(tell: Connection) -> None:
    picks = json.dumps({"picks": [{"n": n, "score": 100 - n, "for": 1} for n in range(1, 25)]})
    completion = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "scripted",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": picks},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 1_200, "completion_tokens": 300, "total_tokens": 1_500},
    }
    body = json.dumps(completion).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    listening = socket.create_server(("127.0.0.1", 0))
    tell.send(listening.getsockname()[1])
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", access_log=False)
    uvicorn.Server(config).run(sockets=[listening])


@dataclass(slots=True)
class _Faulty:
    """A script with faults: 10 % invalid replies, 5 % timeouts, 5 % refusals."""

    script: Script
    on: bool = False
    calls: int = 0
    draw: random.Random = field(default_factory=lambda: random.Random(13))

    async def __call__(self, turn: Turn) -> Reply:
        self.calls += 1
        chance = self.draw.random() if self.on else 1.0
        if chance < 0.10:
            return Reply("I would rather talk about something else.")
        if chance < 0.15:
            raise ModelUnavailable("no answer in time", timed_out=True)
        if chance < 0.20:
            raise ModelUnavailable("too many requests", retry_after_s=0.01)
        return await self.script(turn)


async def faults(catalogue: Catalogue) -> list[Figure]:
    """The same requests with a model that fails sometimes, and with one that never fails."""
    faulty: list[_Faulty] = []

    def wrap(script: Script) -> Script:
        faulty.append(_Faulty(script))
        return faulty[-1]

    bench = await catalogue.bench(wrap=wrap)
    users = catalogue.users[:_FAULT_USERS]
    await ask_all(bench, users)  # profiles are cached now
    faulty[0].calls = 0
    whole = await ask_all(bench, users)
    expected, faulty[0].calls, faulty[0].on = faulty[0].calls, 0, True
    asked = await ask_all(bench, users)
    full = np.mean([len(one.answer.items) == len(whole[0].answer.items) for one in asked])
    reported = sum(one.answer.usage.calls for one in asked)
    what = f"{catalogue.name}, 20 % of calls fail ({len(asked)} requests)"
    return [
        Figure(f"{what}: answered in full", 100 * float(full), "%", "=", 100),
        Figure(f"{what}: extra calls", 100 * (faulty[0].calls / expected - 1), "%", "≤", 15),
        Figure(f"{what}: calls made but not reported", faulty[0].calls - reported, "", "=", 0),
        Figure(f"{what}: answers that say degraded",
               100 * float(np.mean([one.answer.degraded for one in asked])), "%"),
        Figure(f"{what}: share of the judge's top 20",
               float(np.mean([one.share for one in asked]))),
        Figure(f"{what}: the same without faults", float(np.mean([one.share for one in whole]))),
    ]  # fmt: skip


async def decisions(catalogue: Catalogue) -> list[Figure]:
    """Input tokens of one level, as a choice per interest and as a predicate per option."""
    tree = catalogue.tree
    nodes = cut(tree, _SLATE)
    tops = [tree.path(node.id)[0].label for node in nodes]
    names = list(dict.fromkeys(tops))[:3]
    titles = [item.title for item in catalogue.items[:6]]
    need = need_lines([(name, 1 / 3) for name in names], titles, (), ())
    lines = [branch_line(tree.path(node.id)) for node in nodes]
    slate = Slate(load("search", "interest"), lines, need, names, 24)
    server = DecisionsServer()
    figures = []
    what = f"tokens sent for a slate of {len(nodes)} and 3 interests"
    try:
        async with connect(server.base_url, "key") as client:
            chat = OpenAIChat(client, "scripted")
            for mode, way in (
                (ReplyMode.DECISIONS, "a choice per interest"),
                (ReplyMode.PREDICATES, "a predicate per option"),
            ):
                await chat.complete(turn_of(slate, mode, timeout_s=10, seed=0))
                figures += [
                    Figure(f"{what}: {way}, {how}", estimated_tokens(*shown))
                    for how, shown in _as_read(server.requests[-1])
                ]
    finally:
        server.stop()
    return figures


def _as_read(body: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """What a provider may count: the words and values of the questions, or all their JSON."""
    messages = [message["content"] for message in body["input"]]
    questions = body["questions"]
    words = [
        " ".join([asked["instructions"], *(option["value"] for option in asked.get("choices", ()))])
        for asked in questions
    ]
    yield "words only", [*messages, "\n".join(words)]
    yield "as JSON", [*messages, json.dumps(questions, separators=(",", ":"))]
