"""Enrichment of a catalogue as a job: complete, continued, bounded, and never in anybody's way."""

import asyncio
from collections import Counter
from dataclasses import dataclass, replace

import pytest

from app.curate import EnrichmentOptions, EnrichmentParams, OwnerSettings
from app.jobs import Job, JobFailed, JobReport
from app.llm import ChatModel, Reply, Turn
from tests.app.conftest import Shop, built
from tests.app.curate.enrichment.support import (
    PRICE,
    assert_right,
    enrichment_of,
    items_of,
    models_of,
    task_of,
    writer_of,
)
from tests.app.curate.labels.support import eventually
from tests.servers.hostile import Behaviour
from tree.item import Item
from tree.item_line import ItemLine
from tree.snapshot import SemanticTree


@pytest.fixture(scope="module")
def demo_items(demo_items: list[Item]) -> list[Item]:
    """Half of the bundled catalogue: a job asks for 30 items at once."""
    return demo_items[:400]


@pytest.fixture(scope="module")
def demo_tree(demo_items: list[Item]) -> SemanticTree:
    return asyncio.run(built(demo_items))


def job_of(**params: object) -> Job:
    body = EnrichmentParams.model_validate(params).model_dump(mode="json")
    return Job.new("enrichment", "shop", body)


async def run(enrichment, **params: object) -> dict:
    return await run_job(enrichment, job_of(**params))


async def run_job(enrichment, job: Job) -> dict:
    return await enrichment.run(job, JobReport(job))


async def lines_in(shop) -> dict[str, ItemLine]:
    tree = await shop.store.load()
    found = await shop.store.items(list(tree.item_ids()))
    return {item.id: item.line for item in found.values() if item.line is not None}


def asked_titles(hostile_server) -> Counter[str]:
    return Counter(
        text
        for body in hostile_server.requests
        for _, text in items_of(body["messages"][-1]["content"]).values()
    )


async def test_every_item_gets_its_line_and_is_asked_for_once(
    demo, demo_items, chat, hostile_server
):
    enrichment = enrichment_of(demo, models_of(chat, demo.documents))
    report = JobReport(job_of())
    result = await enrichment.run(report.job, report)
    assert result["enriched"] == len(demo_items)
    assert (result["failed"], result["left"], result["stopped"]) == ({}, 0, None)
    assert report.job.progress.done == report.job.progress.total == len(demo_items)
    lines = await lines_in(demo)
    assert len(lines) == len(demo_items)
    assert_right(lines, demo_items)
    assert max(asked_titles(hostile_server).values()) == 1
    assert len(hostile_server.requests) <= len(demo_items) // 30 + 4

    calls = len(hostile_server.requests)
    again = await run(enrichment_of(demo, models_of(chat, demo.documents)))
    assert (again["enriched"], again["calls"]) == (0, 0)
    assert len(hostile_server.requests) == calls


async def test_a_job_that_is_stopped_goes_on_where_it_was(demo, demo_items, chat, hostile_server):
    job = job_of()
    for stop_after in (3, 7, 12):
        enrichment = enrichment_of(demo, models_of(chat, demo.documents), llm_enrich_concurrency=2)
        task = asyncio.create_task(run_job(enrichment, job))
        await eventually(lambda: len(hostile_server.requests) >= stop_after)  # noqa: B023
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await run_job(enrichment_of(demo, models_of(chat, demo.documents)), job)
    assert_right(await lines_in(demo), demo_items)
    assert len(await lines_in(demo)) == len(demo_items)
    twice = [title for title, count in asked_titles(hostile_server).items() if count > 1]
    assert len(twice) <= 3 * 2 * 30  # of calls that were under way when it was stopped


async def test_a_budget_leaves_items_to_the_next_job(demo, demo_items, chat, hostile_server):
    models = models_of(chat, demo.documents, price=PRICE)
    first = await run(enrichment_of(demo, models), max_cost_usd=0.1)
    assert 0.02 < first["cost_usd"] <= 0.1
    assert first["stopped"] == "budget"
    assert first["enriched"] + first["left"] == len(demo_items)
    continued = job_of(max_cost_usd=0.1).model_copy(update={"cost_usd": 0.095})
    assert (await run_job(enrichment_of(demo, models), continued))["enriched"] == 0
    rest = await run(enrichment_of(demo, models), max_cost_usd=5)
    assert rest["enriched"] == first["left"]
    assert max(asked_titles(hostile_server).values()) == 1


async def test_a_budget_below_one_call_says_what_a_call_may_cost(demo, chat, hostile_server):
    enrichment = enrichment_of(demo, models_of(chat, demo.documents, price=PRICE))
    with pytest.raises(JobFailed, match="one call may cost up to") as failure:
        await run(enrichment, max_cost_usd=0.001)
    assert failure.value.code == "budget_too_small"
    assert hostile_server.requests == []
    enough = float(str(failure.value).split("up to ")[1].split()[0])
    assert (await run(enrichment, max_cost_usd=enough))["enriched"] > 0


async def test_a_finished_estimate_has_its_progress(demo, demo_items, chat):
    report = JobReport(job_of(dry_run=True))
    await enrichment_of(demo, models_of(chat, demo.documents)).run(report.job, report)
    progress = report.job.progress
    assert (progress.phase, progress.done) == ("estimating", len(demo_items))
    assert progress.total == len(demo_items)


async def test_an_estimate_asks_nobody_and_comes_near(demo, demo_items, chat, hostile_server):
    models = models_of(chat, demo.documents, price=PRICE)
    told = await run(enrichment_of(demo, models), dry_run=True)
    estimate = told["estimate"]
    assert hostile_server.requests == []
    done = await run(enrichment_of(demo, models))
    assert estimate["items"] == done["enriched"] == len(demo_items)
    assert estimate["calls"] == pytest.approx(done["calls"], rel=0.2)
    assert estimate["cost_usd"] > 0
    nothing = await run(enrichment_of(demo, models), dry_run=True)
    assert nothing["estimate"]["items"] == 0


async def test_lines_of_the_owner_stay_whatever_is_asked_for(demo, demo_items, chat):
    own = ItemLine("Written by the owner, who knows better than any model.", "owner")
    await demo.curator.set_lines({"book-dune": own})
    for only in ("missing", "stale", "all"):
        await run(enrichment_of(demo, models_of(chat, demo.documents)), only=only)
        assert (await lines_in(demo))["book-dune"] == own


@pytest.mark.parametrize("only", ["missing", "all"])
async def test_a_line_that_the_owner_writes_meanwhile_stays(demo, demo_items, chat, only):
    own = ItemLine("Written by the owner, who knows better than any model.", "owner")
    dune = next(item for item in demo_items if item.id == "book-dune")

    @dataclass(frozen=True)
    class Slow:
        name: str = chat.name
        room: int = 1

        async def complete(self, turn: Turn) -> Reply:
            if dune.description[:60] in turn.messages[-1].content:
                await demo.curator.set_lines({"book-dune": own})
            return await chat.complete(turn)

    result = await run(enrichment_of(demo, models_of(Slow(), demo.documents)), only=only)
    assert (await lines_in(demo))["book-dune"] == own
    assert (result["enriched"], result["changed"]) == (len(demo_items) - 1, 1)


async def test_other_guidance_makes_lines_stale(demo, demo_items, chat, hostile_server):
    said = ["We sell books."]

    async def options() -> EnrichmentOptions:
        return EnrichmentOptions(guidance=said[0])

    enrichment = enrichment_of(demo, models_of(chat, demo.documents), OwnerSettings("en", options))
    assert (await run(enrichment))["enriched"] == len(demo_items)
    calls = len(hostile_server.requests)
    assert (await run(enrichment, only="stale"))["calls"] == 0
    said[0] = "We lend books."
    assert (await run(enrichment, only="missing"))["calls"] == 0
    assert (await run(enrichment, only="stale"))["calls"] >= calls - 2
    assert "We lend books." in str(hostile_server.requests[-1])


async def test_all_is_asked_for_once_more_and_only_once_in_a_job(
    demo, demo_items, chat, hostile_server
):
    enrichment = enrichment_of(demo, models_of(chat, demo.documents))
    await run(enrichment)
    calls = len(hostile_server.requests)
    job = job_of(only="all")
    await run_job(enrichment, job)
    assert len(hostile_server.requests) == 2 * calls
    await run_job(enrichment, job)  # as after a crash at its very end
    assert len(hostile_server.requests) == 2 * calls


@dataclass
class Meddling:
    """A model during whose calls somebody deletes and changes items."""

    chat: ChatModel
    demo: Shop
    items: list[Item]

    name = "meddling"
    room = 1

    async def complete(self, turn: Turn) -> Reply:
        reply = await self.chat.complete(turn)
        if self.items:
            gone, changed, *_ = self.items
            self.items = []
            await self.demo.curator.apply_batch(
                [changed.model_copy(update={"title": "Another thing"})], [gone.id]
            )
        return reply


async def test_no_line_lands_on_an_item_that_was_deleted_or_changed_meanwhile(
    demo, demo_items, chat
):
    gone, changed = demo_items[:2]
    meddling = Meddling(chat, demo, [gone, changed])
    models = models_of(meddling, demo.documents)
    result = await run(enrichment_of(demo, models, llm_enrich_concurrency=1))
    lines = await lines_in(demo)
    assert gone.id not in lines
    assert_right({one: line for one, line in lines.items() if one != changed.id}, demo_items)
    if changed.id in lines:  # it was reached after the change
        assert "Another thing" in lines[changed.id].text
    assert result["enriched"] + result["changed"] >= len(demo_items) - 2


async def test_an_outage_ends_the_job_with_what_it_has(demo, demo_items, chat, hostile_server):
    hostile_server.play([Behaviour.WELL_FORMED] * 4 + [Behaviour.UNAVAILABLE] * 9_999)
    enrichment = enrichment_of(demo, models_of(chat, demo.documents))
    with pytest.raises(JobFailed) as failure:
        await run(enrichment)
    assert failure.value.code == "llm_unavailable"
    done = failure.value.result or {}
    assert done["enriched"] == len(await lines_in(demo)) > 0
    hostile_server.play([])
    rest = await run(enrichment_of(demo, models_of(chat, demo.documents)))
    assert rest["enriched"] + done["enriched"] == len(demo_items)


async def test_a_model_that_answers_nonsense_fails_the_job_at_once(demo, chat, hostile_server):
    hostile_server.content = lambda _: "hello"
    models = replace(models_of(chat, demo.documents), mode=None)
    report = JobReport(job_of())
    with pytest.raises(JobFailed, match="in no reply mode") as failure:
        await enrichment_of(demo, models).run(report.job, report)
    assert failure.value.code == "llm_invalid"
    assert len(hostile_server.requests) == 6  # two in each mode
    assert report.job.progress.done == 0


async def test_a_line_that_another_process_writes_is_no_progress(
    demo, demo_items, chat, hostile_server
):
    models = models_of(chat, demo.documents)
    writer, language = writer_of(chat, demo.documents), OwnerSettings().language
    other = task_of(writer, "another process", language=language)
    held = [other.digest(item) for item in demo_items[::2]]
    await other.claims.take(held)
    hostile_server.play([Behaviour.UNAVAILABLE] * 9_999)
    report = JobReport(job_of())
    with pytest.raises(JobFailed):
        await enrichment_of(demo, models).run(report.job, report)
    assert report.job.progress.done == 0
    await other.claims.release(held)


async def test_a_rejected_key_fails_the_job_at_once(demo, chat, hostile_server):
    hostile_server.play([Behaviour.UNAUTHORIZED] * 99)
    with pytest.raises(JobFailed) as failure:
        await run(enrichment_of(demo, models_of(chat, demo.documents)))
    assert failure.value.code == "model_rejected"


async def test_without_a_model_the_job_says_so(demo):
    job = await demo.curator.start_enrichment(EnrichmentParams())
    ended = await demo.ended(job)
    assert ended.state == "failed"
    assert ended.problem["code"] == "no_model"
