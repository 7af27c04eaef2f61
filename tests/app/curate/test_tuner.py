"""Tuning on a real store: a new version where it wins, and nothing where it does not."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from app.curate import Curator, RebuildParams, TuningParams
from app.embedders import EmbedderCache, base_of, is_tuned
from app.settings import Settings
from app.storage.feedback import User, Visit
from app.storage.memory_feedback import MemoryFeedback
from tests.app.conftest import Shop, built
from tests.app.tuning.worlds import COLOURED_ITEMS, coloured_histories
from tree.item import Item
from tree.node import TreeSettings
from tree.vectors import unit_rows


@pytest.fixture
async def feedback() -> MemoryFeedback:
    return MemoryFeedback()


@pytest.fixture
async def tunable(shop: Shop, feedback: MemoryFeedback, tmp_path) -> AsyncIterator[Shop]:
    """The catalogue of a curator that reads histories."""
    settings = Settings(data_dir=tmp_path, exact_words=0)
    curator = Curator("shop", shop.store, shop.jobs, EmbedderCache(), settings, feedback=feedback)
    shop.jobs.set_worker(curator)
    tree = await built(COLOURED_ITEMS, TreeSettings(embedder="lexical"))
    await shop.store.stage(COLOURED_ITEMS)
    await shop.store.replace(tree, base=0)
    yield Shop(shop.store, shop.documents, shop.jobs, curator, shop.recommender, shop.uploads)
    shop.jobs.set_worker(shop.curator)
    await curator.aclose()


async def remember(feedback: MemoryFeedback, some: list[list[str]]) -> None:
    for user, history in enumerate(some):
        visits = tuple(Visit(item, at) for at, item in enumerate(history))
        await feedback.put_user(f"u{user}", User(visits))


async def together_by_colour(shop: Shop) -> float:
    """How much closer things of one colour are than others."""
    tree = await shop.store.load()
    rows = [tree.row(item.id) or 0 for item in COLOURED_ITEMS]
    units = unit_rows(tree.rows.vectors[rows].astype(np.float32))
    colours = np.array([item.id.partition("-")[0] for item in COLOURED_ITEMS])
    same, similarity = colours[:, None] == colours, units @ units.T
    return float(similarity[same].mean() - similarity[~same].mean())


async def test_a_tuning_that_wins_is_a_version_that_new_items_and_rebuilds_keep(tunable, feedback):
    await remember(feedback, coloured_histories(by_colour=True))
    before = await together_by_colour(tunable)
    job = await tunable.ended(await tunable.curator.start_tuning(TuningParams()))
    assert job.state == "succeeded", job.problem
    assert job.result
    assert job.result["applied"], str(job.result)
    assert job.result["vectors"]["known"]["ndcg"]["low"] > 0
    tree = await tunable.store.load()
    assert is_tuned(tree.space)
    assert len(tree) == len(COLOURED_ITEMS)
    tuned_distance = await together_by_colour(tunable)
    assert tuned_distance > before + 0.1

    await tunable.curator.put([Item(id="new", title="red lantern Edelweiss")])
    tree = await tunable.store.load()
    units = unit_rows(tree.rows.vectors[: tree.size].astype(np.float32))
    similarity = units @ units[tree.row("new")]
    red, blue = (
        similarity[
            [tree.row(item.id) for item in COLOURED_ITEMS if item.id.startswith(colour)]
        ].mean()
        for colour in ("red", "blue")
    )
    assert red > blue + 0.1

    base = base_of(tree.space)
    await tunable.ended(await tunable.curator.start_rebuild())
    rebuilt = (await tunable.store.load()).space
    assert is_tuned(rebuilt)
    assert base_of(rebuilt) == base
    assert await together_by_colour(tunable) == pytest.approx(tuned_distance, abs=0.01)

    fresh = RebuildParams(embedder="lexical")
    await tunable.ended(await tunable.curator.start_rebuild(fresh))
    assert not is_tuned((await tunable.store.load()).space)
    assert await together_by_colour(tunable) == pytest.approx(before, abs=0.05)


async def test_a_tuning_that_does_not_win_changes_nothing(tunable, feedback):
    await remember(feedback, coloured_histories(by_colour=False))
    version = (await tunable.store.load()).version
    job = await tunable.ended(await tunable.curator.start_tuning(TuningParams()))
    assert job.state == "succeeded", job.problem
    assert job.result
    assert job.result["refused"]
    assert not job.result["applied"]
    assert (await tunable.store.load()).version == version


async def test_too_few_histories_fail_with_a_reason(tunable, feedback):
    await remember(feedback, coloured_histories(by_colour=True, users=10))
    job = await tunable.ended(await tunable.curator.start_tuning(TuningParams()))
    assert job.state == "failed"
    assert job.problem
    assert job.problem["code"] == "too_few_histories"


async def test_a_tuning_can_be_cancelled(tunable, feedback):
    await remember(feedback, coloured_histories(by_colour=True))
    version = (await tunable.store.load()).version
    job = await tunable.curator.start_tuning(TuningParams())
    async with asyncio.timeout(60):
        while not (now := await tunable.jobs.get(job.id)) or now.progress.phase == "queued":
            await asyncio.sleep(0.01)
    await tunable.jobs.cancel(job.id)
    assert (await tunable.ended(job)).state == "cancelled"
    assert (await tunable.store.load()).version == version
