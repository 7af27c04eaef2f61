"""What the service answers, written to files: two commits are compared by comparing the folders.

    python -m tests.benchmarks.golden FOLDER     some 4 minutes
    diff -r FOLDER ANOTHER

Everything goes over HTTP, so that no name inside the service matters: trees with their labels,
answers without a model by history, wish, filter and events, and answers, labels and prompts with
a model. That model is a small server that draws its replies from the lines of the prompt. What
differs from run to run (ids, times, versions) is left out.
"""

import argparse
import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.benchmarks import data
from tests.benchmarks.service import Service, running
from tests.servers.loopback import Loopback

_CATALOGS = ("mind", "ml_latest_small", "amazon_industrial")
_USERS = 40
_USERS_WITH_MODEL = 6
_WITH_MODEL: tuple[dict[str, object], ...] = (
    {"effort": "economy"},
    {"effort": "balanced"},
    {"strategy": "walk"},
    {"strategy": "paper"},
    {"strategy": "flat"},
)
_CHANGING = ("recommendation_id", "tree_version", "timing_ms")
_OPTION = re.compile(r"^(\d+)\. (.*)$", re.MULTILINE)
_WANTED = re.compile(r"at most (\d+) picks")
_CHAT = "/v1/catalogs/default"

Lines = Iterator[Mapping[str, object]]


class ScriptedServer:
    """An OpenAI-compatible chat whose replies follow from the prompt alone; prompts are kept."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.busy_s = 0.0
        routes = [
            Route("/v1/chat/completions", self._answer, methods=["POST"]),
            Route("/v1/models", _models, methods=["GET"]),
        ]
        self._loopback = Loopback(Starlette(routes=routes))
        self.base_url = self._loopback.base_url

    def stop(self) -> None:
        """See Loopback."""
        self._loopback.stop()

    def asked(self) -> list[str]:
        """The prompts since the last call, in an order that does not depend on time."""
        prompts, self.prompts = sorted(self.prompts), []
        return prompts

    async def _answer(self, request: Request) -> Response:
        began = time.perf_counter()
        try:
            return await self._answered(request)
        finally:
            self.busy_s += time.perf_counter() - began

    async def _answered(self, request: Request) -> Response:
        body = await request.json()
        self.prompts.append(json.dumps(body, sort_keys=True, ensure_ascii=False))
        system, user = (message["content"] for message in body["messages"][-2:])
        content = json.dumps(_reply(system, user))
        usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": content},
        }
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
        return JSONResponse({**answer, "choices": [choice], "usage": usage})


async def _models(_: Request) -> Response:
    return JSONResponse({"object": "list", "data": [{"id": "scripted", "object": "model"}]})


def _reply(system: str, user: str) -> dict[str, object]:
    """Topics, picks and signs, whichever are asked for, drawn from the numbered lines."""
    said: dict[str, object] = {}
    options = [(int(number), line) for number, line in _OPTION.findall(user.partition("\n\n")[0])]
    if '"signs"' in system:
        said["signs"] = [
            {"n": n, "title": f"Sign {_drawn(line) % 9999}", "signpost": f"about {line[:30]}"}
            for n, line in options
        ]
    if '"titles"' in system:
        said["titles"] = [line for _, line in _OPTION.findall(user)[-6:]] or ["anything"]
    if '"topics"' in system:
        topics: list[dict[str, Any]] = [
            {"topic": f"topic {_drawn(line) % 50}", "weight": 50, "choices": [n]}
            for n, line in _OPTION.findall(user)[-2:]
        ]
        said["topics"] = [{**one, "choices": [int(one["choices"][0])]} for one in topics]
        said["avoid"] = []
    if '"picks"' in system:
        wanted = _WANTED.search(system)
        best = sorted(options, key=lambda option: _drawn(option[1]))
        best = best[: int(wanted[1]) if wanted else 1]
        apart: dict[str, object] = {"for": 1} if '"for"' in system else {}
        said["picks"] = [
            {"n": n, "score": 100 - place, **apart} for place, (n, _) in enumerate(best[:80])
        ]
    return said


def _drawn(line: str) -> int:
    return crc32(line.encode())


def _without_model(name: str) -> Iterator[tuple[str, Lines]]:
    """Parts by name: the tree, and answers of every kind."""
    with running(EMBEDDER="lexical", LLM_LABELS="false") as service:
        _filled(service, name)
        yield "tree", _tree(service)
        yield "embedded", _embedded(service, name)
        events = [
            {"event_id": f"{user}-{at}", "user_id": str(user), "item_id": item}
            for user, history in enumerate(data.histories(name, 200, seed=1))
            for at, item in enumerate(history[-20:])
        ]
        for start in range(0, len(events), 500):
            service.call("POST", f"{_CHAT}/events", {"events": events[start : start + 500]})
        yield "signals", _by_history(service, name, _USERS, {})


def _with_model(name: str) -> Iterator[tuple[str, Lines]]:
    server = ScriptedServer()
    settings = {
        "EMBEDDER": "lexical",
        "LLM_BASE_URL": server.base_url,
        "LLM_API_KEY": "none",
        "LLM_MODEL": "scripted",
        "LLM_REPLY_MODE": "json_schema",
        "LLM_EXAMINATION": "false",  # its end would change answers on the way
        "LLM_LABEL_CONCURRENCY": "1",
    }
    try:
        with running(**settings) as service:
            _filled(service, name)
            _rebuilt(service)
            yield "labels-prompts", iter([{"prompt": prompt} for prompt in server.asked()])
            yield "labels-tree", _tree(service)
            for way in _WITH_MODEL:
                kind = "-".join(map(str, way.values()))
                yield f"{kind}-answers", _by_history(service, name, _USERS_WITH_MODEL, way)
                yield f"{kind}-prompts", iter([{"prompt": one} for one in server.asked()])
    finally:
        server.stop()


def _filled(service: Service, name: str) -> None:
    lines = b"\n".join(item.record() for item in data.real_items(name))
    service.finished(service.call("POST", f"{_CHAT}/imports", lines))
    _rebuilt(service)


def _rebuilt(service: Service) -> None:
    """Build the tree anew, after what the service has begun by itself."""
    for job in service.call("GET", "/v1/jobs")["jobs"]:
        service.finished(job)
    service.finished(service.call("POST", f"{_CHAT}/tree/rebuilds", {"mode": "full"}))


def _tree(service: Service) -> Lines:
    """Every node, from the root down, with the items of its leaf."""
    waiting = [0]
    while waiting:
        node = service.call("GET", f"{_CHAT}/tree/nodes/{waiting.pop()}")
        node.pop("tree_version")
        yield node
        waiting += [child["id"] for child in node["children"]]


def _embedded(service: Service, name: str) -> Lines:
    yield from _by_history(service, name, _USERS, {})
    yield from _by_history(service, name, _USERS, {"diversity": 0.0, "explain": "full"})
    wishes = [json.loads(line) for line in (data.FOLDER / "wishes.jsonl").open(encoding="utf-8")]
    for wish in wishes:
        if wish["data"] == name:
            yield _asked(service, {"instruction": wish["wish"]})
    for history in data.histories(name, 5, seed=2):
        yield service.call("GET", f"{_CHAT}/similar?item_id={history[-1]}")["items"]
        narrow = {"filter": {"all": [{"field": "title", "gte": "M"}]}}
        yield _asked(service, {"history": _items(history), "instruction": "new", **narrow})


def _by_history(service: Service, name: str, users: int, way: Mapping[str, object]) -> Lines:
    for history in data.histories(name, users):
        yield _asked(service, {"history": _items(history), **way})


def _items(history: list[str]) -> list[dict[str, str]]:
    return [{"item_id": item} for item in history[-50:]]


def _asked(service: Service, request: Mapping[str, object]) -> Mapping[str, object]:
    body = {"limit": 20, "timeout_ms": 60_000, **request}
    answer: dict[str, Any] = service.call("POST", f"{_CHAT}/recommend", body)
    return {key: value for key, value in answer.items() if key not in _CHANGING}


def main() -> int:
    """Write a file for each part, and print its SHA-256."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in _CATALOGS:
        for parts in (_without_model(name), _with_model(name)):
            for part, lines in parts:
                text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
                path = folder / f"{name}.{part}.jsonl"
                path.write_text(text, encoding="utf-8")
                print(f"{hashlib.sha256(text.encode()).hexdigest()}  {path.name}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
