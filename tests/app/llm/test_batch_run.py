"""The calls of one job through the batch API, continued by any process."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import pytest
from openai import AsyncOpenAI

from app.llm.ask import Price, UsageTotals
from app.llm.batch_calls import BatchTimes
from app.llm.batch_lines import BatchLimits
from app.llm.batch_run import BatchRun
from app.llm.batches import BatchApi
from app.llm.chat import Message, Reply, Text, Turn
from app.llm.client import OpenAIChat, connect
from app.llm.errors import ModelError, ModelUnavailable, NoBatchApi
from app.storage.documents import Documents, MemoryDocuments
from app.storage.redis_documents import RedisDocuments
from tests.conftest import OpenRoom
from tests.servers.batches import INPUT_TOKENS, BatchServer, answered, refused

TIMES = BatchTimes(first_poll_s=0.01, longest_poll_s=0.02, outage_s=20, retry_s=0.01)
BATCHES = "POST /v1/batches"
ITEMS = [*"abcde"]


@pytest.fixture
async def client(batch_server: BatchServer) -> AsyncIterator[AsyncOpenAI]:
    async with connect(batch_server.base_url, "key") as client:
        yield client


@pytest.fixture
def api(client: AsyncOpenAI) -> BatchApi:
    """Two requests to a batch."""
    return BatchApi(client, OpenAIChat(client, "tiny"), BatchLimits(requests=2), TIMES)


async def about(items: Sequence[str]) -> AsyncIterator[tuple[Turn, bytes]]:
    """A request about each item, with its name as the note."""
    for item in items:
        yield Turn((Message("user", f"What is {item}?"),), Text(), 40, 5.0), item.encode()


async def outcomes(run: BatchRun) -> dict[str, Reply | ModelError]:
    found = [(note.decode(), outcome) async for note, outcome in run.outcomes()]
    assert len(dict(found)) == len(found)
    return dict(found)


def texts(found: dict[str, Reply | ModelError]) -> dict[str, str]:
    return {note: one.text for note, one in found.items() if isinstance(one, Reply)}


EVERY = {item: f"What is {item}?" for item in ITEMS}


async def test_every_outcome_comes_with_its_note(api: BatchApi, batch_server: BatchServer) -> None:
    totals, seen = UsageTotals(), []
    run = BatchRun(api, MemoryDocuments(), "shop", price=Price(2.0), totals=totals)
    assert await run.owner() is None
    assert await run.submit("job", about(ITEMS)) == 5
    assert await run.owner() == "job"
    found = {
        note.decode(): outcome
        async for note, outcome in run.outcomes(lambda done, total: seen.append((done, total)))
    }
    assert texts(found) == EVERY
    assert seen == sorted(seen)
    assert (seen[0][1], seen[-1]) == (5, (5, 5))
    assert totals.cost_usd == pytest.approx(5 * INPUT_TOKENS * 1e-6)
    assert batch_server.files == {}


async def test_another_process_continues_and_pays_nothing(
    client: AsyncOpenAI, api: BatchApi, batch_server: BatchServer, embedded_url: str,
    open_room: OpenRoom,
) -> None:  # fmt: skip
    async with open_room(embedded_url) as room:
        documents = RedisDocuments(room.client, prefix=room.prefix)
        await BatchRun(api, documents, "shop").submit("job", about(ITEMS))
        another = BatchRun(
            BatchApi(client, OpenAIChat(client, "tiny"), times=TIMES), documents, "shop"
        )
        assert await another.owner() == "job"
        assert texts(await outcomes(another)) == EVERY
        assert len(batch_server.batches) == 3
        assert [kind_id async for kind_id, _ in documents.list("batch")] == []
        assert await another.owner() is None


async def test_a_process_that_died_while_it_submitted(
    api: BatchApi, batch_server: BatchServer
) -> None:
    """The id of the second batch was never stored, the third never made."""

    class Dying(MemoryDocuments):
        async def put(self, kind: object, document_id: str, data: bytes, ttl_s: object) -> None:
            if document_id == "shop" and len(batch_server.batches) == 2:
                raise ConnectionAbortedError
            await super().put(kind, document_id, data, ttl_s)  # type: ignore[arg-type]

    documents = Dying()
    with pytest.raises(ConnectionAbortedError):
        await BatchRun(api, documents, "shop").submit("job", about(ITEMS))
    survivor = MemoryDocuments()
    survivor.__dict__.update(documents.__dict__)
    run = BatchRun(api, survivor, "shop")
    assert await run.owner() == ""
    assert texts(await outcomes(run)) == {item: EVERY[item] for item in "abcd"}


async def test_a_process_that_died_while_it_read(
    client: AsyncOpenAI, api: BatchApi, batch_server: BatchServer
) -> None:
    """Of the batch that it was reading all outcomes come again, of that before none."""
    documents = MemoryDocuments()
    run = BatchRun(api, documents, "shop")
    await run.submit("job", about(ITEMS))
    kept = []
    async with aclosing(run.outcomes()) as found:
        async for note, _ in found:
            kept.append(note)
            if len(kept) == 3:
                break
    again = await outcomes(BatchRun(api, documents, "shop"))
    assert [*again] == ["c", "d", "e"]
    assert await outcomes(BatchRun(api, documents, "shop")) == {}
    assert len(batch_server.batches) == 3


async def test_nothing_is_submitted_where_there_is_no_batch_api(
    api: BatchApi, batch_server: BatchServer
) -> None:
    batch_server.instead = 404
    run = BatchRun(api, MemoryDocuments(), "shop")
    with pytest.raises(NoBatchApi):
        await run.submit("job", about(ITEMS))
    assert await run.owner() is None
    batch_server.instead = None
    assert await outcomes(run) == {}


async def test_batches_before_an_outage_count(api: BatchApi, batch_server: BatchServer) -> None:
    documents = MemoryDocuments()

    async def until_an_outage() -> AsyncIterator[tuple[Turn, bytes]]:
        async for one in about(ITEMS):
            if one[1] == b"d":
                batch_server.faults[BATCHES] = [503] * 9
            yield one

    run = BatchRun(api, documents, "shop")
    with pytest.raises(ModelUnavailable):
        await run.submit("job", until_an_outage())
    assert await run.owner() == ""
    assert texts(await outcomes(run)) == {item: EVERY[item] for item in "ab"}


async def test_failures_have_their_notes(api: BatchApi, batch_server: BatchServer) -> None:
    batch_server.output = lambda requests: [answered(requests[0])]
    batch_server.errors = lambda requests: [refused(one) for one in requests[1:]]
    run = BatchRun(api, MemoryDocuments(), "shop")
    await run.submit("job", about(ITEMS))
    found = await outcomes(run)
    assert sorted(texts(found)) == ["a", "c", "e"]
    assert sorted(found) == ITEMS


@pytest.mark.parametrize("gone", ["batches", "files"])
async def test_what_the_provider_has_removed_has_no_outcome(
    api: BatchApi, batch_server: BatchServer, gone: str
) -> None:
    documents: Documents = MemoryDocuments()
    run = BatchRun(api, documents, "shop")
    await run.submit("job", about(ITEMS))
    if gone == "batches":
        batch_server.batches.clear()
    else:
        for number in range(99):
            batch_server.faults[f"GET /v1/files/file-{number}/content"] = [404]
    found = await outcomes(run)
    assert sorted(found) == ITEMS
    assert {type(outcome) for outcome in found.values()} == {ModelUnavailable}


async def test_runs_do_not_mix(api: BatchApi) -> None:
    documents = MemoryDocuments()
    first, second = (BatchRun(api, documents, name) for name in ("shop", "books"))
    await first.submit("job", about(["a"]))
    await second.submit("job", about(["b"]))
    assert [*await outcomes(first)] == ["a"]
    assert [*await outcomes(second)] == ["b"]


async def test_what_has_not_ended_can_be_cancelled(
    api: BatchApi, batch_server: BatchServer
) -> None:
    batch_server.states = ["in_progress"] * 500
    batch_server.output = lambda requests: [answered(requests[0])]
    run = BatchRun(api, MemoryDocuments(), "shop")
    await run.submit("job", about(ITEMS))
    await run.cancel()
    assert [batch["status"] for batch in batch_server.batches.values()] == ["cancelling"] * 3
    assert sorted(texts(await outcomes(run))) == ["a", "c", "e"]
    await run.cancel()
