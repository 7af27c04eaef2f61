"""Streams that outlast the store's answers, and how many of them one key may read."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
import pytest

from app.api.jobs import MOST_STREAMS
from app.composition import ServiceTimes
from app.jobs import Job
from app.settings import Settings
from app.storage.redis_documents import RedisDocuments
from tests.app.api.support import assert_problem, served
from tree.redis.connection import connect
from tree.redis.embedded_server import EmbeddedServer


@pytest.fixture
def store(tmp_path) -> Iterator[EmbeddedServer]:
    """A store that a test may kill."""
    server = asyncio.run(EmbeddedServer.start(tmp_path / "store"))
    yield server
    asyncio.run(server.stop())


@pytest.fixture
def times() -> ServiceTimes:
    return ServiceTimes()


@pytest.fixture
def client(store, times, tmp_path) -> Iterator[httpx2.Client]:
    limits = httpx2.Limits(max_connections=None)
    settings = Settings(redis_url=store.connect_url, data_dir=tmp_path)
    with (
        served(settings, times=times) as url,
        httpx2.Client(base_url=url, timeout=60, limits=limits) as one,
    ):
        yield one


def written(store: EmbeddedServer, job: Job) -> None:
    """Store a job as its process does, which need not be there."""

    async def write() -> None:
        async with connect(store.connect_url) as client:
            documents = RedisDocuments(client)
            await documents.put("job", job.id, job.model_dump_json().encode(), 60)

    asyncio.run(write())


def a_job(store: EmbeddedServer) -> Job:
    job = Job.new("import", "default", {}).model_copy(update={"revision": 1})
    written(store, job)
    return job


def test_a_stream_of_a_job_outlasts_a_restart_of_the_store(client, store, tmp_path):
    job = a_job(store)
    with client.stream("GET", f"/v1/jobs/{job.id}/events") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: progress"
        asyncio.run(store.stop())
        for _ in range(3):  # each takes as long as a question to the store is tried again
            assert client.get("/v1/catalogs").status_code == 503
        again = asyncio.run(EmbeddedServer.start(tmp_path / "store"))
        try:
            assert again.connect_url == store.connect_url
            written(again, job.model_copy(update={"state": "succeeded", "revision": 2}))
            assert "event: done" in list(lines)
        finally:
            asyncio.run(again.stop())


@pytest.mark.parametrize("times", [ServiceTimes(stream_silence_s=0.2)], ids=["soon"])
def test_a_stream_ends_quietly_where_the_store_stays_away(client, store, caplog):
    job = a_job(store)
    with caplog.at_level(logging.WARNING), ExitStack() as stack:
        streams = [
            stack.enter_context(client.stream("GET", f"/v1/jobs/{job.id}/events")) for _ in range(2)
        ]
        asyncio.run(store.stop())
        for stream in streams:
            assert "event: done" not in list(stream.iter_lines())
    told = [one for one in caplog.records if job.id in one.getMessage()]
    assert len(told) == len(streams)
    assert not [one for one in caplog.records if one.exc_info]


def test_an_export_that_breaks_off_is_told_in_a_line(client, store, caplog):
    long = dict.fromkeys("abcde", "x" * 1_900)
    for start in range(0, 1_600, 400):  # more than what is on its way at once
        rows = [
            {"id": f"s{n}", "title": "S", "attributes": long} for n in range(start, start + 400)
        ]
        reply = client.post("/v1/catalogs/default/items:batch", json={"upserts": rows})
        assert reply.status_code == 200
    with (
        caplog.at_level(logging.WARNING),
        client.stream("GET", "/v1/catalogs/default/exports/items") as export,
    ):
        chunks = export.iter_raw()
        next(chunks)
        asyncio.run(store.stop())
        with pytest.raises(httpx2.RemoteProtocolError):
            list(chunks)
    assert [one for one in caplog.records if "cut short" in one.getMessage()]
    assert not [one for one in caplog.records if one.exc_info]


def test_one_key_reads_so_many_streams(client, store):
    path = f"/v1/jobs/{a_job(store).id}/events"
    with ExitStack() as stack:
        for _ in range(MOST_STREAMS):
            assert stack.enter_context(client.stream("GET", path)).status_code == 200
        refused = client.get(path)
        assert_problem(refused, 429, "too_many_streams")
        assert int(refused.headers["retry-after"]) > 0
    for _ in range(100):  # until the service has noticed that they are gone
        with client.stream("GET", path) as stream:
            if stream.status_code == 200:
                return
    pytest.fail("the streams that ended still count")
