"""Writers, readers and rebuilds over HTTP."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx2

from tests.faults.ledger import Content, Ledger

CATALOG = "/v1/catalogs/default"
JSONL = {"content-type": "application/x-ndjson"}

_PATIENCE_S = 30  # no answer for so long is a hanging request
_GIVEN_UP_S = 90  # a write that nobody takes for so long
_JOB_S = 3  # an import that shows no end for so long is sent again
_PAUSE_S = 0.05
_REFUSALS = (503, 504, 507)
_WORDS = [
    "amber", "bridge", "candle", "desert", "engine", "forest", "garden", "harbour", "island",
    "jungle", "kettle", "lantern", "meadow", "needle", "orchard", "palace", "quarry", "river",
    "signal", "temple", "umbrella", "valley", "window", "yellow", "zephyr",
]  # fmt: skip


def content_of(item_id: str, revision: int, random_: random.Random) -> Content:
    """An item as a writer sends it, told from its other revisions by its attribute."""
    kind = random_.choice(_WORDS[:6])
    words = random_.choices(_WORDS, k=6)
    return {
        "id": item_id,
        "title": f"{kind} {' '.join(words[:3])} {revision}",
        "description": " ".join(words),
        "categories": [kind, words[0]],
        "attributes": {"revision": revision},
    }


def as_lines(contents: Sequence[Content]) -> bytes:
    return b"".join(json.dumps(content).encode() + b"\n" for content in contents)


def item_url(item_id: str) -> str:
    return f"{CATALOG}/items/{quote(item_id, safe='')}"


class Client:
    """Asks any of the processes, and looks at every answer."""

    def __init__(self, urls: Sequence[str], ledger: Ledger, seed: object) -> None:
        self.urls = list(urls)
        self.ledger = ledger
        self.random = random.Random(str(seed))
        self._http = httpx2.AsyncClient(
            timeout=_PATIENCE_S, limits=httpx2.Limits(max_connections=None)
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def ask(
        self, method: str, path: str, url: str | None = None, **request: Any
    ) -> httpx2.Response | None:
        """One try: the answer, or None when the connection was lost or the service refused."""
        url = url or self.random.choice(self.urls)
        try:
            reply = await self._http.request(method, url + path, **request)
        except httpx2.TimeoutException:
            self.ledger.fault(f"{method} {path}: no answer in {_PATIENCE_S} s")
            return None
        except httpx2.TransportError:
            self.ledger.counts["lost connections"] += 1
            return None
        if reply.status_code < 500 and reply.status_code != 409:
            return reply
        self.ledger.counts[f"refused with {reply.status_code}"] += 1
        if flaw := problem_flaw(reply):
            self.ledger.fault(f"{method} {path}: {flaw}")
        return None

    async def insist(self, method: str, path: str, **request: Any) -> httpx2.Response:
        """The answer of the first process that gives one."""
        deadline = time.monotonic() + _GIVEN_UP_S
        while (reply := await self.ask(method, path, **request)) is None:
            assert time.monotonic() < deadline, f"nobody takes {method} {path}"
            await asyncio.sleep(_PAUSE_S)
        return reply

    @asynccontextmanager
    async def stream(self, url: str, path: str, body: object):
        async with self._http.stream("POST", url + path, json=body) as reply:
            yield reply


def problem_flaw(reply: httpx2.Response) -> str | None:
    """What is wrong with a refusal: it must be a problem document, and never an accident."""
    if reply.status_code >= 500 and reply.status_code not in _REFUSALS:
        return f"{reply.status_code} {reply.text[:300]}"
    if reply.headers.get("content-type") != "application/problem+json":
        return f"{reply.status_code} as {reply.headers.get('content-type')}: {reply.text[:300]}"
    problem = reply.json()
    if problem["status"] != reply.status_code or not problem["code"] or not problem["detail"]:
        return f"a problem that says too little: {problem}"
    return None


class Writer:
    """Writes items that nobody else writes, one request after the other, each until it is taken.

    Every retry of a request says the same, so that one which was applied unheard does no harm.
    """

    def __init__(self, name: str, client: Client, ids: int = 60) -> None:
        self._client = client
        self._ledger = client.ledger
        self._random = client.random
        self._ids = [f"{name}/{number}" for number in range(ids)]
        self._name = name
        self._revision = 0
        self._imports = 0

    async def step(self) -> None:
        """One acknowledged request of any kind."""
        kinds = (self.put, self.batch, self.delete, self.bulk)
        await self._random.choices(kinds, (50, 20, 25, 5))[0]()

    async def put(self) -> None:
        content = self._content(self._random.choice(self._ids))
        self._ledger.returning([content])
        body = {name: value for name, value in content.items() if name != "id"}
        reply = await self._client.insist("PUT", item_url(content["id"]), json=body)
        if self._expected(reply, 200, 201):
            self._ledger.put([content])

    async def batch(self) -> None:
        ids = self._random.sample(self._ids, self._random.randint(2, 30))
        split = self._random.randint(1, len(ids))
        contents, deletes = [self._content(one) for one in ids[:split]], ids[split:]
        self._ledger.returning(contents)
        body = {"upserts": contents, "deletes": deletes}
        reply = await self._client.insist("POST", f"{CATALOG}/items:batch", json=body)
        if self._expected(reply, 200):
            statuses = {row["status"] for row in reply.json()["results"]}
            if "rejected" in statuses:
                self._ledger.fault(f"a batch was rejected: {reply.text[:300]}")
            self._ledger.put(contents)
            self._ledger.deleted(deletes)

    async def delete(self) -> None:
        item_id = self._random.choice(self._ids)
        reply = await self._client.insist("DELETE", item_url(item_id))
        if self._expected(reply, 204):
            self._ledger.deleted([item_id])

    async def bulk(self) -> None:
        """An import of new items, sent again when its job is lost or fails.

        One that is given up may still be at work: its items are left alone from then on.
        """
        self._imports += 1
        ids = [f"{self._name}/import-{self._imports}/{number}" for number in range(40)]
        contents = [self._content(item_id) for item_id in ids]
        body = {"content": as_lines(contents), "headers": JSONL}
        tries = 1
        while not await self._imported(
            await self._client.insist("POST", f"{CATALOG}/imports", **body), len(contents)
        ):
            tries += 1
            self._ledger.counts["imports sent again"] += 1
        self._ledger.put(contents)
        self._ledger.counts["imports"] += 1
        if tries == 1:
            self._ids += ids

    async def _imported(self, reply: httpx2.Response, lines: int) -> bool:
        if not self._expected(reply, 202):
            return True
        job = reply.json()
        deadline = time.monotonic() + _JOB_S
        while job["state"] in ("queued", "running"):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_PAUSE_S)
            found = await self._client.ask("GET", f"/v1/jobs/{job['id']}")
            if found is not None and found.status_code == 200:
                job = found.json()
        if job["state"] == "failed" and not (job["problem"]["code"] and job["problem"]["detail"]):
            self._ledger.fault(f"an import failed without a reason: {job}")
        if job["state"] == "failed" and job["problem"]["code"] == "internal":
            self._ledger.fault(f"an import failed by accident: {job}")
        if job["state"] == "succeeded" and job["result"]["accepted"] != lines:
            self._ledger.fault(f"an import of {lines} lines: {job['result']}")
        return job["state"] == "succeeded"

    def _content(self, item_id: str) -> Content:
        self._revision += 1
        return content_of(item_id, self._revision, self._random)

    def _expected(self, reply: httpx2.Response, *statuses: int) -> bool:
        if reply.status_code not in statuses:
            self._ledger.fault(f"a write was answered {reply.status_code}: {reply.text[:300]}")
        return reply.status_code in statuses


class Reader:
    """Asks one process after the other; no answer may hold what was deleted before it was asked."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ledger = client.ledger
        self._random = client.random
        self._seen: dict[str, int] = {}  # newest version, by process
        self._known = ["nothing"]

    async def step(self) -> None:
        """One question of any kind."""
        url = self._random.choice(self._client.urls)
        kinds = (self.recommend, self.similar, self.streamed)
        await self._random.choice(kinds)(url)

    async def recommend(self, url: str) -> None:
        before = dict(self._ledger.gone)
        reply = await self._client.ask("POST", f"{CATALOG}/recommend", url, json=self._question())
        if reply is not None and self._expected(reply, 200):
            answer = reply.json()
            self._check(url, answer["tree_version"], answer["items"], before)
            self._known = [item["item_id"] for item in answer["items"]] or self._known

    async def similar(self, url: str) -> None:
        before = dict(self._ledger.gone)
        asked = {"item_id": self._random.choice(self._known), "limit": "10"}
        reply = await self._client.ask("GET", f"{CATALOG}/similar", url, params=asked)
        if reply is not None and self._expected(reply, 200, 404) and reply.status_code == 200:
            answer = reply.json()
            self._check(url, answer["tree_version"], answer["items"], before)

    async def streamed(self, url: str) -> None:
        before = dict(self._ledger.gone)
        events: list[tuple[str, Content]] = []
        try:
            path = f"{CATALOG}/recommend/stream"
            async with self._client.stream(url, path, self._question()) as reply:
                if reply.status_code != 200:
                    await reply.aread()
                    if flaw := problem_flaw(reply):
                        self._ledger.fault(f"POST {path}: {flaw}")
                    return
                name = ""
                async for line in reply.aiter_lines():
                    if line.startswith("event: "):
                        name = line.removeprefix("event: ")
                    elif line.startswith("data: "):
                        events.append((name, json.loads(line.removeprefix("data: "))))
        except httpx2.TimeoutException:
            self._ledger.fault(f"a stream says nothing for {_PATIENCE_S} s")
            return
        except httpx2.TransportError:
            self._ledger.counts["lost connections"] += 1
            return
        self._ledger.counts["streams"] += 1
        last, data = events[-1] if events else ("nothing", {})
        if last == "error" and data["status"] in _REFUSALS:
            return
        if last != "done":
            self._ledger.fault(f"a stream ends with {last}: {data}")
            return
        items = [data for name, data in events if name == "item"]
        self._check(url, data["tree_version"], items, before)

    def _question(self) -> Content:
        wish = " ".join(self._random.choices(_WORDS, k=2))
        return {"instruction": wish, "limit": self._random.randint(1, 20), "timeout_ms": 8_000}

    def _check(
        self, url: str, version: int, items: Sequence[Content], before: dict[str, int]
    ) -> None:
        self._ledger.counts["answers"] += 1
        if version < self._seen.get(url, 0):
            self._ledger.fault(f"{url} went back from version {self._seen[url]} to {version}")
        self._seen[url] = version
        for item_id in (item["item_id"] for item in items):
            if item_id in before and self._ledger.gone.get(item_id) == before[item_id]:
                self._ledger.fault(f"{url} answers with the deleted item {item_id}")

    def _expected(self, reply: httpx2.Response, *statuses: int) -> bool:
        if reply.status_code not in statuses:
            self._ledger.fault(f"a question was answered {reply.status_code}: {reply.text[:300]}")
        return reply.status_code in statuses


class Rebuilds:
    """Begins one rebuild after the other, of every mode."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ledger = client.ledger

    async def step(self) -> None:
        """A rebuild begun, seen to its end or until it is given up."""
        body = self._client.random.choice(
            [{"mode": "full"}, {"mode": "relabel"}, {"mode": "subtree", "root": 0}]
        )
        reply = await self._client.ask("POST", f"{CATALOG}/tree/rebuilds", json=body)
        if reply is None:  # another one runs, or nobody answers
            await asyncio.sleep(_PAUSE_S)
            return
        if reply.status_code != 202:
            self._ledger.fault(f"a rebuild was answered {reply.status_code}: {reply.text[:300]}")
            return
        job = reply.json()
        deadline = time.monotonic() + _JOB_S
        while job["state"] in ("queued", "running") and time.monotonic() < deadline:
            await asyncio.sleep(_PAUSE_S)
            found = await self._client.ask("GET", f"/v1/jobs/{job['id']}")
            if found is not None and found.status_code == 200:
                job = found.json()
        if job["state"] == "failed" and job["problem"]["code"] == "internal":
            self._ledger.fault(f"a rebuild failed by accident: {job}")
        self._ledger.counts[f"rebuilds {job['state']}"] += 1


async def stocked(urls: Sequence[str], ledger: Ledger, items: int) -> None:
    """Import so many items that nobody writes again, while nothing is amiss."""
    client = Client(urls, ledger, "stock")
    contents = [content_of(f"stock/{n}", n, client.random) for n in range(items)]
    sent = {"content": as_lines(contents), "headers": JSONL}
    job = (await client.insist("POST", f"{CATALOG}/imports", **sent)).json()
    deadline = time.monotonic() + _GIVEN_UP_S
    while job["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, job
        await asyncio.sleep(_PAUSE_S)
        job = (await client.insist("GET", f"/v1/jobs/{job['id']}")).json()
    assert job["state"] == "succeeded", job
    ledger.put(contents)
    await client.aclose()


@asynccontextmanager
async def at_work(
    urls: Sequence[str],
    ledger: Ledger,
    seed: int,
    *,
    writers: int = 3,
    readers: int = 2,
    rebuilds: bool = True,
):
    """Traffic while the block runs; when it is left, everybody ends what was begun."""
    over = asyncio.Event()
    clients = [Client(urls, ledger, f"{seed}-{n}") for n in range(writers + readers + rebuilds)]
    steps: list[Callable[[], Awaitable[None]]] = [
        Writer(f"w{seed}-{n}", client).step for n, client in enumerate(clients[:writers])
    ]
    steps += [Reader(client).step for client in clients[writers : writers + readers]]
    steps += [Rebuilds(client).step for client in clients[writers + readers :]]

    async def work(step: Callable[[], Awaitable[None]]) -> None:
        while not over.is_set():
            await step()

    try:
        async with asyncio.TaskGroup() as tasks:
            for step in steps:
                tasks.create_task(work(step))
            try:
                yield
            finally:
                over.set()
    finally:
        for client in clients:
            await client.aclose()
