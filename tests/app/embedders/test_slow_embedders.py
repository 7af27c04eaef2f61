"""Embedders that take their time, or never say the same twice, and who waits for them."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from app.curate import BatchEncoder, Curator
from app.embedders import EmbedderCache, LexicalEmbedder
from app.embedders.built_in import LEXICAL
from app.embedders.text_model import TextModelKind
from app.jobs import Jobs
from app.llm import STAGES, Models, Reply, ReplyMode, ScriptedChat, StageModel, Turn
from app.llm.ask import FREE
from app.recommend import RecommendConfig, Recommender
from app.settings import Settings
from app.storage.redis_documents import RedisDocuments
from tests.app.recommend.with_model.support import ask, ids, sensible
from tests.servers.hostile import embedding_of
from tree.errors import EmbedderUnavailable
from tree.item import Item
from tree.node import TreeSettings
from tree.store.redis_store import RedisTreeStore
from tree.vectors import FloatArray

_WAIT_S = 20
SIZE = 100


class Words:
    """See TextModel: by the words of a text. It waits where a word is "slow"."""

    def __init__(self) -> None:
        self.asked, self.go = Event(), Event()
        self.noise = np.random.default_rng(0)
        self.read: list[str] = []

    def vectors(self, texts: Sequence[str], timeout_s: float | None = None) -> FloatArray:
        self.read += texts
        if any("slow" in text.split() for text in texts):
            self.asked.set()
            if not self.go.wait(_WAIT_S if timeout_s is None else timeout_s):
                raise EmbedderUnavailable("it has not answered")
        exact = np.stack([embedding_of(text) for text in texts])
        return exact * (1 + 5e-4 * self.noise.standard_normal(exact.shape)).astype(np.float32)


@dataclass(frozen=True)
class Shop:
    """A catalogue that is embedded by `words`."""

    words: Words
    store: RedisTreeStore
    documents: RedisDocuments
    embedders: EmbedderCache
    jobs: Jobs
    curator: Curator
    settings: Settings


@pytest.fixture
async def shop(embedded_url, open_room, tmp_path: Path) -> AsyncIterator[Shop]:
    words = Words()
    kind = TextModelKind("words", lambda _: words, is_local=False)
    embedders = EmbedderCache(kinds=(kind, LEXICAL))
    async with open_room(embedded_url) as room:
        store = RedisTreeStore(
            room.client,
            "shop",
            space=LexicalEmbedder().space,
            settings=TreeSettings(embedder="words:m"),
            prefix=room.prefix,
            keep=3,
        )
        documents = RedisDocuments(room.client, prefix=room.prefix)
        settings = Settings(data_dir=tmp_path, embedder_timeout_s=5, kept_versions=3)
        jobs = Jobs(documents, 60)
        curator = Curator("shop", store, jobs, embedders, settings)
        jobs.set_worker(curator)
        await store.stage([thing(number) for number in range(SIZE)])
        job = await jobs.wait((await curator.start_rebuild()).id)
        assert job.state == "succeeded", job
        yield Shop(words, store, documents, embedders, jobs, curator, settings)
        words.go.set()
        await jobs.aclose()
        await curator.aclose()
        await store.aclose()
        embedders.close()


def thing(number: int) -> Item:
    return Item(id=f"i{number}", title=f"Thing {number} of {number % 7}", domain="things")


async def test_a_patch_whose_text_changes_meanwhile_holds_up_no_other(shop):
    titles = chain(["A first one"], repeat("A slow one"))
    patch = asyncio.create_task(
        shop.curator.patch("i1", lambda item: item.model_copy(update={"title": next(titles)}))
    )
    assert await asyncio.to_thread(shop.words.asked.wait, _WAIT_S)
    async with asyncio.timeout(2):
        hidden = await shop.curator.patch("i2", lambda i: i.model_copy(update={"hidden": True}))
    assert hidden is not None
    assert not patch.done()
    shop.words.go.set()
    assert (await patch).title == "A slow one"
    tree = await shop.store.load()
    row = tree.rows.vectors[tree.row("i1")]
    [vector] = shop.embedders.of(tree.space).encode(["A slow one  "])
    assert np.abs(row.astype(int) - vector).max() <= 2


async def test_a_text_that_waits_for_its_place_has_not_the_vector_of_the_one_before(shop):
    await shop.store.stage([Item(id="i1", title="Something else")])
    await shop.curator.patch("i1", lambda item: item.model_copy(update={"hidden": True}))
    tree = await shop.store.load()
    [vector] = shop.embedders.of(tree.space).encode(["Something else "])
    assert np.abs(tree.rows.vectors[tree.row("i1")].astype(int) - vector).max() <= 2


async def test_a_version_that_is_put_back_keeps_what_differs_by_rounding_only(shop):
    first = await shop.store.load()
    await shop.jobs.wait((await shop.curator.start_rebuild()).id)
    assert (await shop.store.load()).space.fingerprint != first.space.fingerprint
    job = await shop.jobs.wait((await shop.curator.start_activation(first.version)).id)
    assert job.state == "succeeded", job
    tree = await shop.store.load()
    for item in first.item_ids():
        then, now = first.rows.vectors[first.row(item)], tree.rows.vectors[tree.row(item)]
        assert np.array_equal(then, now)


async def test_who_has_time_leaves_threads_to_those_who_have_none(shop):
    encoder, space = BatchEncoder(shop.embedders), (await shop.store.load()).space
    slow = [asyncio.create_task(encoder.encode_batch(space, [f"slow {n}"])) for n in range(8)]
    assert await asyncio.to_thread(shop.words.asked.wait, _WAIT_S)
    assert (await encoder.encode_batch(space, ["quick"], 2.0)).any()
    shop.words.go.set()
    await asyncio.gather(*slow)


async def test_slow_titles_after_slow_words_leave_time_for_an_answer(shop):
    def say(turn: Turn) -> Reply:
        text = sensible(turn.messages[-1].content)
        return Reply(text.replace('"titles": [', '"titles": ["slow films", '))

    stages = dict.fromkeys(STAGES, StageModel(ScriptedChat(say), FREE))
    models = Models(stages, shop.documents, ReplyMode.JSON_SCHEMA, 5.0, "here")
    recommender = Recommender(
        "shop",
        shop.store,
        shop.documents,
        shop.embedders,
        RecommendConfig.of(shop.settings),
        models,
    )
    began = time.monotonic()
    request = {"history": [{"item_id": "i1"}], "instruction": "a slow one", "timeout_ms": 2_000}
    answer = await recommender.recommend(ask(**request, strategy="beam"))
    assert ids(answer)
    assert answer.degraded_reason == "embedder_unavailable"
    assert "slow films" in shop.words.read
    assert time.monotonic() - began < 2
