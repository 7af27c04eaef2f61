"""Embeddings are counted and priced, and no budget is exceeded."""

import asyncio

import pytest
from pydantic import ValidationError

from app.embedders import Spending
from app.keys.daily_budget import DailyBudget
from app.settings import Settings
from app.storage.key_usage import NANO_USD, RedisKeyUsage, today
from tests.app.embedders.conftest import serve_shop
from tests.servers.hostile import MODEL
from tree.errors import EmbedderBudgetSpent

PRICE = 20.0  # dollars per million tokens


def tokens_of(texts: list[str]) -> int:
    """As the hostile server counts them."""
    return sum(len(text.split()) for text in texts)


@pytest.fixture
async def priced(embedded_url, open_room, hostile_server, tmp_path):
    """The shop, with a price for its embedder."""
    async with (
        open_room(embedded_url) as room,
        serve_shop(room, hostile_server, tmp_path, Spending({MODEL: PRICE})) as shop,
    ):
        yield shop


async def test_a_job_says_what_its_texts_have_cost(priced, demo_items):
    job = await priced.imported(demo_items)
    used = job.result["embeddings"]
    sent = [text for body in priced.server.requests for text in body["input"]]
    assert used["tokens"] == tokens_of(sent)
    assert used["cost_usd"] == pytest.approx(tokens_of(sent) * PRICE / 1e6)
    assert job.cost_usd == pytest.approx(used["cost_usd"], abs=1e-6)
    usage = priced.embedders.spending.usage[MODEL]
    assert (usage.texts, usage.tokens) == (len(sent), tokens_of(sent))
    again = await priced.imported(demo_items)
    assert again.cost_usd == 0
    assert again.result["embeddings"]["cost_usd"] == 0


async def test_without_a_price_tokens_are_counted(paid, demo_items):
    job = await paid.imported(demo_items)
    used = job.result["embeddings"]
    assert used["cost_usd"] is None
    assert used["tokens"] > 1_000
    assert job.cost_usd == 0


async def test_a_rebuild_stops_at_its_limit_and_the_next_one_continues(priced, demo_items):
    await priced.store.stage(
        [
            item.model_copy(update={"id": f"{item.id}-{n}", "title": f"{item.title} {n}"})
            for n in range(3)
            for item in demo_items
        ]
    )
    whole = 3 * tokens_of([item.passage.whole for item in demo_items]) * PRICE / 1e6
    stopped = await priced.rebuilt(max_cost_usd=whole / 2)
    assert stopped.state == "failed"
    assert stopped.problem["code"] == "embedder_budget"
    assert "max_cost_usd" in stopped.problem["detail"]
    assert 0 < stopped.cost_usd <= whole / 2
    first = set(priced.texts_asked())
    priced.server.requests.clear()
    done = await priced.rebuilt()
    assert done.state == "succeeded", done
    assert first
    assert first.isdisjoint(priced.texts_asked())  # nothing is paid twice


async def test_no_process_spends_more_than_the_day_allows(
    embedded_url, open_room, hostile_server, tmp_path, demo_items
):
    async with open_room(embedded_url) as room:
        usage = RedisKeyUsage(room.client, prefix=room.prefix)
        limit = tokens_of([item.passage.whole for item in demo_items]) * PRICE / 1e6 / 2

        def spending() -> Spending:
            daily = DailyBudget(usage, "embedder", limit)
            return Spending({MODEL: PRICE}, daily, asyncio.get_running_loop())

        async with (
            serve_shop(room, hostile_server, tmp_path / "one", spending()) as one,
            serve_shop(room, hostile_server, tmp_path / "two", spending()) as two,
        ):
            jobs = await asyncio.gather(*(shop.imported(demo_items) for shop in (one, two)))
            assert [job.state for job in jobs] == ["failed", "failed"]
            for job in jobs:
                assert (job.problem or {})["code"] == "embedder_budget"
                assert "_EMBEDDER_MAX_COST_USD_PER_DAY" in str((job.problem or {})["detail"])
            assert len(one.texts_asked()) == len(set(one.texts_asked()))
            cost = sum(shop.embedders.spending.usage[MODEL].cost_usd for shop in (one, two))
            assert 0 < cost <= limit
            async with asyncio.timeout(20):  # settlements are not waited for
                while await usage.spent("embedder", today()) / NANO_USD > cost + 1e-6:
                    await asyncio.sleep(0.01)
            with pytest.raises(EmbedderBudgetSpent):
                await one.embedders.fit_in_thread(f"openai:{MODEL}", ["soup " * 500] * 300, 300)


def test_a_budget_of_a_day_needs_a_price():
    with pytest.raises(ValidationError, match="needs the price of the embedder"):
        Settings(embedder="openai:m", embedder_max_cost_usd_per_day=1)
    prices = {"m": {"input": 0.02, "output": 0}}
    Settings(embedder="openai:m", embedder_max_cost_usd_per_day=1, llm_prices=prices)
