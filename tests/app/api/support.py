"""What tests of the API ask again and again."""

import gc
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import quote

import httpx2
import uvicorn
from uvicorn.config import LoopFactoryType

from app.composition import ServiceTimes
from app.http_connection import HttpConnection
from app.main import create_app
from app.settings import Settings

_ENDED = ("succeeded", "failed", "cancelled")
_JOB_S = 60
_START_S = 60


@contextmanager
def served(
    settings: Settings,
    http: type[HttpConnection] = HttpConnection,
    loop: LoopFactoryType = "auto",
    times: ServiceTimes = ServiceTimes(),  # noqa: B008 - frozen
) -> Iterator[str]:
    """The URL of the real service with these settings, in a thread of its own."""
    config = uvicorn.Config(
        create_app(settings, times=times),
        port=0,
        log_level="error",
        ws="none",
        access_log=False,
        http=http,
        loop=loop,
        limit_concurrency=settings.max_connections,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="service")
    thread.start()
    deadline = time.monotonic() + _START_S
    while not server.started:
        assert thread.is_alive(), "the service does not start"
        assert time.monotonic() < deadline, "the service does not start in time"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        gc.unfreeze()  # what a service freezes at its start would stay for good: 50 MB each
    assert not thread.is_alive(), "the service does not stop"


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """The application within this process, and a client of it."""
    app = create_app(settings)
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield client


def delete_catalog(api: httpx2.Client, path: str) -> httpx2.Response:
    """The answer to the deletion of the catalogue of that path."""
    return api.delete(path, params={"confirm": path.rpartition("/")[2]})


def item_path(catalog: str, item_id: str) -> str:
    """The path of an item, with every byte of its id quoted."""
    return f"{catalog}/items/{quote(item_id, safe='')}"


def assert_problem(reply: httpx2.Response, status: int, code: str) -> dict:
    """The problem that `reply` is."""
    assert (reply.status_code, reply.headers["content-type"]) == (
        status, "application/problem+json",
    ), reply.text  # fmt: skip
    problem = reply.json()
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert "Traceback" not in reply.text
    return problem


def pointers(problem: dict) -> list[str]:
    return [flaw["pointer"] for flaw in problem["errors"]]


def ended(api: httpx2.Client, started: httpx2.Response) -> dict:
    """The job that a 202 began, at its end."""
    assert started.status_code == 202, started.text
    assert started.headers["location"] == f"/v1/jobs/{started.json()['id']}"
    deadline = time.monotonic() + _JOB_S
    while True:
        job = api.get(started.headers["location"]).json()
        if job["state"] in _ENDED:
            return job
        assert time.monotonic() < deadline, f"the job does not end: {job}"
        time.sleep(0.02)
