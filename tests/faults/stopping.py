"""A service with its own store that is busy in many ways, is told to end, and starts again."""

import gzip
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from threading import Event, Thread
from typing import Any, TypeAlias

import httpx2

from tests.faults.fleet import Api, free_of_settings
from tests.servers.hostile import MODEL, Behaviour, HostileServer

_PATIENCE_S = 300
_JSONL = {"Content-Type": "application/x-ndjson"}
_GZIP = {"Content-Type": "application/gzip"}
_CATALOG = "/v1/catalogs/busy"
_BOMB_MB = 30
_BOMBS = 6
_WRITTEN_BESIDE = 10  # before it is told to end


@dataclass(slots=True)
class Site:
    """The service, what was acknowledged, and who is still at it."""

    api: Api
    hostile: HostileServer
    items: int
    client: httpx2.Client
    written: list[str] = field(default_factory=list)  # ids whose put was acknowledged
    imports: list[str] = field(default_factory=list)  # jobs that are to be finished
    over: Event = field(default_factory=Event)
    sockets: list[socket.socket] = field(default_factory=list)

    def post(self, path: str, **sent: Any) -> dict:
        reply = self.client.post(f"{_CATALOG}/{path}", **sent)
        assert reply.is_success, reply.text
        return reply.json()

    def job(self, job_id: str) -> dict:
        return self.client.get(f"/v1/jobs/{job_id}").json()

    def until(self, done: Callable[..., object], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not done():
            assert time.monotonic() < deadline, f"{what}:\n{self.api.told()}"
            time.sleep(0.05)

    def ended(self, job: dict) -> dict:
        over = ("succeeded", "failed", "cancelled")
        self.until(lambda: self.job(job["id"])["state"] in over, f"job {job['id']} does not end")
        return self.job(job["id"])

    def idle(self) -> None:
        """End what jobs there are: labels, and what was left of an earlier round."""
        for job in self.client.get("/v1/jobs").json()["jobs"]:
            self.client.post(f"/v1/jobs/{job['id']}:cancel")
            self.ended(job)

    def rows(self, prefix: str) -> bytes:
        words = ("stars and ships", "bread and butter", "trains at night", "small towns")
        made = (
            {"id": f"{prefix}{n}", "title": f"{prefix} {n} of {words[n % 4]}", "categories": ["T"]}
            for n in range(self.items)
        )
        return b"".join(json.dumps(row).encode() + b"\n" for row in made)

    def alone(self, work: Callable[..., object]) -> None:
        """Do it again and again in a thread, until the service is gone."""

        def run() -> None:
            with httpx2.Client(base_url=self.api.url, timeout=_PATIENCE_S) as client:
                while not self.over.is_set():
                    try:
                        work(client)
                    except httpx2.HTTPError:
                        return

        Thread(target=run, daemon=True).start()

    def opened(self, head: str) -> socket.socket:
        """A connection that has sent the head of a request, and reads nothing."""
        connection = socket.create_connection(("127.0.0.1", self.api.port))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self.sockets.append(connection)
        connection.sendall(head.encode())
        return connection


# -- what keeps a service busy; each returns while it goes on


def writes(site: Site) -> None:
    """Single items, of which the acknowledged ones are remembered."""
    numbers = iter(range(10**9))

    def put(client: httpx2.Client) -> None:
        name = f"w{next(numbers)}"
        if client.put(f"{_CATALOG}/items/{name}", json={"title": f"Written {name}"}).is_success:
            site.written.append(name)

    site.alone(put)


def an_import(site: Site) -> None:
    job = site.post("imports", content=site.rows("again"), headers=_JSONL)
    site.imports.append(job["id"])
    site.until(lambda: site.job(job["id"])["progress"]["done"], "the import does not begin")


def a_rebuild(site: Site) -> None:
    job = site.post("tree/rebuilds", json={})
    phases = ("embedding", "clustering", "labelling", "publishing")
    site.until(
        lambda: site.job(job["id"])["progress"]["phase"] in phases, "the rebuild does not begin"
    )


def bombs(site: Site) -> None:
    """Small uploads of many lines; every other one is cancelled."""
    content = gzip.compress(b"x\n" * (_BOMB_MB * 500_000), 9)
    for number in range(_BOMBS):
        job = site.post("imports", content=content, headers=_GZIP)
        if number % 2:
            site.client.post(f"/v1/jobs/{job['id']}:cancel")


def hanging_readers(site: Site) -> None:
    """A model that never answers, asked for readers with and without a stream."""
    before = site.hostile.hanging
    request = {"instruction": "ships", "timeout_ms": 60_000}
    for path in ("recommend", "recommend/stream"):
        site.alone(lambda client, path=path: client.post(f"{_CATALOG}/{path}", json=request))
    site.until(lambda: site.hostile.hanging > before, "the model is not asked")


def hanging_labels(site: Site) -> None:
    """A model that never answers, asked for the labels of a tree."""
    before = site.hostile.hanging
    site.post("tree/rebuilds", json={"mode": "relabel"})
    site.until(lambda: site.hostile.hanging > before, "the model is not asked for labels")


def unread(site: Site) -> None:
    """Clients that never read: an export, and the events of a job."""
    host = f"Host: 127.0.0.1:{site.api.port}\r\n\r\n"
    site.opened(f"GET {_CATALOG}/exports/items HTTP/1.1\r\n{host}")
    for job_id in site.imports[:1]:
        site.opened(f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\n{host}")


def a_trickle(site: Site) -> None:
    """An upload that comes byte by byte, and a request that is never sent to its end."""
    head = f"Host: 127.0.0.1:{site.api.port}\r\n"
    site.opened(f"POST {_CATALOG}/items:batch HTTP/1.1\r\n{head}")
    body = "Content-Type: application/x-ndjson\r\nContent-Length: 1000000\r\n\r\n"
    connection = site.opened(f"POST {_CATALOG}/imports HTTP/1.1\r\n{head}{body}")

    def send() -> None:
        try:
            while not site.over.wait(0.1):
                connection.sendall(b" ")
        except OSError:
            return

    Thread(target=send, daemon=True).start()


Way: TypeAlias = Callable[[Site], None]

WAYS: dict[str, Sequence[Way]] = {
    "an import": (an_import,),
    "a rebuild": (a_rebuild,),
    "upload bombs": (bombs,),
    "a model that never answers readers": (hanging_readers,),
    "a model that never answers about labels": (hanging_labels,),
    "clients that never read": (an_import, unread),
    "an upload that trickles": (a_trickle,),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it."""

    seconds: float  # until the process was gone
    lost: list[str]  # acknowledged and not there after the next start
    acknowledged: int
    told: str  # by the service, at its end


def stopped(
    folder: Path, hostile: HostileServer, items: int, rounds: Iterable[Sequence[Way]]
) -> Iterator[Outcome]:
    """Keep a service with so many items busy in the ways of each round, and with writes beside
    them; tell it to end, start it again, and look."""
    settings = {
        "DATA_DIR": str(folder / "data"),
        "LLM_BASE_URL": hostile.base_url,
        "LLM_MODEL": MODEL,
        "LLM_REPLY_MODE": "json_schema",
        "LLM_EXAMINATION": "false",
        "REBUILD_GROWTH": "1000",
        "FSYNC": "always",
    }
    api = Api(folder / "api.log", free_of_settings(settings))
    try:
        with _site(api, hostile, items) as site:
            assert site.client.put(_CATALOG, json={}).is_success
            job = site.ended(site.post("imports", content=site.rows("i"), headers=_JSONL))
            assert job["state"] == "succeeded", job
        for ways in rounds:
            with _site(api, hostile, items) as site:
                site.idle()
                hostile.play(repeat(Behaviour.HANG))
                for begin in (writes, *ways):
                    begin(site)
                enough = len(site.written) + _WRITTEN_BESIDE
                site.until(
                    lambda at=site, enough=enough: len(at.written) >= enough, "writes do not go on"
                )
                seconds = api.terminated()
                told = api.told()
            hostile.reset()
            with _site(api, hostile, items) as again:
                yield Outcome(seconds, _lost(site, again), len(site.written), told)
    finally:
        api.stop()


@contextmanager
def _site(api: Api, hostile: HostileServer, items: int) -> Iterator[Site]:
    """The service when it is ready: one that runs, or is started now."""
    if not api.running:
        api.start()
    with httpx2.Client(base_url=api.url, timeout=_PATIENCE_S) as client:
        site = Site(api, hostile, items, client)

        def ready() -> bool:
            assert api.running, api.told()
            try:
                return client.get("/readyz").is_success
            except httpx2.TransportError:
                return False

        try:
            site.until(ready, "it does not start")
            yield site
        finally:
            site.over.set()
            for connection in site.sockets:
                connection.close()


def _lost(before: Site, after: Site) -> list[str]:
    """Of what was acknowledged: items put, and imports, which go on where they were."""
    lost = []
    for job_id in before.imports:
        job = after.ended({"id": job_id})
        if job["state"] != "succeeded" or job["result"]["accepted"] != before.items:
            lost.append(f"{job_id}: {job}")
    kept = after.client.get(f"{_CATALOG}/exports/items").text.splitlines()
    held = {json.loads(line)["id"] for line in kept}
    wanted = {f"i{number}" for number in range(before.items)} | set(before.written)
    if before.imports:
        wanted |= {f"again{number}" for number in range(before.items)}
    return [*lost, *sorted(wanted - held)]
