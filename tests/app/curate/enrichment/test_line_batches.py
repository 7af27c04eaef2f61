"""Lines by the batch API: at half the price, paid for once, and right."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from app.curate import EnrichmentParams
from app.jobs import Job, JobFailed, JobReport
from app.llm import Models
from app.llm.batch_calls import BatchTimes
from app.llm.batch_lines import BatchLimits
from app.llm.batches import BatchApi
from app.llm.client import OpenAIChat, connect
from tests.app.conftest import Shop
from tests.app.curate.enrichment.support import (
    PRICE,
    assert_right,
    enrichment_of,
    items_of,
    lines_json,
    models_of,
)
from tests.app.curate.labels.support import eventually
from tests.servers.batches import INPUT_TOKENS, OUTPUT_TOKENS, BatchServer, Body, answered, refused
from tests.servers.hostile import HostileServer
from tree.item_line import ItemLine

TIMES = BatchTimes(first_poll_s=0.01, longest_poll_s=0.05, outage_s=0.2, retry_s=0.01)
QUESTION = "\n\nItems:\n"  # a part of those for lines
CALL_USD = (INPUT_TOKENS * PRICE.input_usd + OUTPUT_TOKENS * PRICE.output_usd) / 2e6


def written(request: Body) -> Body:
    """The result of a request for lines."""
    return answered(request, lines_json(request["body"]["messages"][-1]["content"]))


@pytest.fixture
async def client(batch_server: BatchServer) -> AsyncIterator[AsyncOpenAI]:
    batch_server.output = lambda requests: [written(one) for one in requests]
    async with connect(batch_server.base_url, "key") as client:
        yield client


@pytest.fixture
def models(demo: Shop, chat: OpenAIChat, client: AsyncOpenAI, hostile_server) -> Models:
    """Ten requests to a batch. Single calls go to another server."""
    hostile_server.content = lambda prompt: lines_json(prompt) if QUESTION in prompt else "{}"
    limits = BatchLimits(requests=10)
    api = BatchApi(client, OpenAIChat(client, "tiny"), limits, TIMES)
    return models_of(chat, demo.documents, price=PRICE, batches=api)


def job_of(**params: object) -> Job:
    body = EnrichmentParams.model_validate({"batch_api": True, **params}).model_dump(mode="json")
    return Job.new("enrichment", "shop", body)


async def run(
    demo: Shop, models: Models, job: Job | None = None, **params: object
) -> dict[str, Any]:
    job = job or job_of(**params)
    return await enrichment_of(demo, models).run(job, JobReport(job))


async def lines_in(shop: Shop) -> dict[str, ItemLine]:
    tree = await shop.store.load()
    found = await shop.store.items(list(tree.item_ids()))
    return {item.id: item.line for item in found.values() if item.line is not None}


def single_calls(server: HostileServer) -> list[dict[int, tuple[str, str]]]:
    """The items that were asked about one call at a time."""
    prompts = [body["messages"][-1]["content"] for body in server.requests]
    return [items_of(prompt) for prompt in prompts if QUESTION in prompt]


def asked(server: BatchServer) -> list[str]:
    """The items that were asked about in batches."""
    requests = [one for batch in server.batches.values() for one in server.requests_of(batch)]
    prompts = [request["body"]["messages"][-1]["content"] for request in requests]
    return [text for prompt in prompts for _, text in items_of(prompt).values()]


async def test_all_lines_come_by_batches_at_half_the_price(
    demo, demo_items, models, batch_server, hostile_server
):
    job = job_of()
    report = JobReport(job)
    result: dict[str, Any] = await enrichment_of(demo, models).run(job, report)
    assert_right(await lines_in(demo), demo_items)
    assert len(await lines_in(demo)) == len(demo_items)
    assert (result["enriched"], result["kept"]) == (len(demo_items), 0)
    assert single_calls(hostile_server) == []
    assert sorted(asked(batch_server)) == sorted(set(asked(batch_server)))
    calls = result["calls"]
    assert calls >= len(demo_items) // 30
    assert result["cost_usd"] == pytest.approx(calls * CALL_USD)
    assert report.job.cost_usd == pytest.approx(calls * CALL_USD)
    assert batch_server.files == {}


async def test_lines_that_fail_in_a_batch_are_asked_for_one_call_at_a_time(
    demo, demo_items, models, batch_server, hostile_server
):
    batch_server.output = lambda requests: [written(one) for one in requests[::2]]
    batch_server.errors = lambda requests: [refused(one) for one in requests[1::2]]
    result = await run(demo, models)
    assert result["failed"] == {}
    assert_right(await lines_in(demo), demo_items)
    assert len(await lines_in(demo)) == len(demo_items)
    assert 1 <= len(single_calls(hostile_server)) <= len(demo_items) // 30 + 4


async def test_a_job_after_an_outage_pays_nothing_twice(
    demo, demo_items, models, batch_server, hostile_server
):
    batch_server.states = ["in_progress"] * 3 + ["completed"]
    batch_server.faults["GET /v1/batches/batch-2"] = [503] * 10_000
    with pytest.raises(JobFailed) as caught:
        await run(demo, models)
    assert caught.value.code == "llm_unavailable"
    batches = len(batch_server.batches)
    batch_server.faults.clear()
    result = await run(demo, models)
    assert len(await lines_in(demo)) == len(demo_items)
    assert_right(await lines_in(demo), demo_items)
    assert len(batch_server.batches) == batches
    assert single_calls(hostile_server) == []
    assert result["enriched"] == len(demo_items)


async def test_a_job_that_is_stopped_goes_on_in_another_process(
    demo, demo_items, models, batch_server, hostile_server
):
    batch_server.states = ["in_progress"] * 100_000
    job = job_of()
    report = JobReport(job)
    task = asyncio.create_task(enrichment_of(demo, models).run(job, report))
    await eventually(lambda: any("GET /v1/batches/" in call for call in batch_server.calls))
    report.stopped = report.continues = True
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for batch in batch_server.batches.values():
        batch["left"] = ["completed"]
    batches = len(batch_server.batches)
    await run(demo, models, job)
    assert_right(await lines_in(demo), demo_items)
    assert len(await lines_in(demo)) == len(demo_items)
    assert len(batch_server.batches) == batches
    assert single_calls(hostile_server) == []


async def test_a_job_that_is_cancelled_cancels_its_batches(demo, models, batch_server):
    batch_server.states = ["in_progress"] * 100_000
    job = job_of()
    report = JobReport(job)
    task = asyncio.create_task(enrichment_of(demo, models).run(job, report))
    await eventually(lambda: any("GET /v1/batches/" in call for call in batch_server.calls))
    report.stopped = True
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert {batch["status"] for batch in batch_server.batches.values()} == {"cancelling"}


async def test_an_item_that_changes_meanwhile_gets_no_line_of_its_old_text(
    demo, demo_items, models, batch_server, hostile_server
):
    batch_server.states = ["in_progress"] * 100_000
    job = job_of()
    task = asyncio.create_task(enrichment_of(demo, models).run(job, JobReport(job)))
    await eventually(lambda: any("GET /v1/batches/" in call for call in batch_server.calls))
    changed = demo_items[7].model_copy(update={"title": "Quite another thing altogether"})
    await demo.curator.put([changed])
    await demo.curator.delete([demo_items[8].id])
    for batch in batch_server.batches.values():
        batch["left"] = ["completed"]
    result = await task
    items = [item for item in demo_items if item.id not in (changed.id, demo_items[8].id)]
    lines = await lines_in(demo)
    assert_right(lines, [*items, changed])
    assert lines.keys() == {item.id for item in [*items, changed]}
    assert result["failed"] == {}
    [live] = single_calls(hostile_server)
    assert len(live) == 1


async def test_a_budget_bounds_what_is_submitted(demo, models, batch_server, hostile_server):
    estimate = (await run(demo, models, dry_run=True))["estimate"]
    alone = (await run(demo, models, dry_run=True, batch_api=False))["estimate"]
    assert estimate["cost_usd"] == pytest.approx(alone["cost_usd"] / 2)
    assert batch_server.batches == {}
    result = await run(demo, models, max_cost_usd=estimate["cost_usd"] / 2)
    requests = sum(len(batch_server.requests_of(one)) for one in batch_server.batches.values())
    assert 0 < requests < 0.7 * estimate["calls"]
    assert result["cost_usd"] <= estimate["cost_usd"] / 2


async def test_an_endpoint_without_a_batch_api(demo, models, batch_server, hostile_server):
    batch_server.instead = 404
    with pytest.raises(JobFailed) as caught:
        await run(demo, models)
    assert caught.value.code == "no_batch_api"
    assert single_calls(hostile_server) == []
    assert batch_server.files == {}
