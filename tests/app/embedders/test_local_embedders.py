"""Embedders that only this process has, and that take time: never on the event loop."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, nullcontext
from typing import Any

import numpy as np
import pytest

from app.curate import Curator
from app.curate.building import ListSource, build, local
from app.curate.imports import ImportParams
from app.embedders import EmbedderCache, LexicalEmbedder
from app.embedders.built_in import LEXICAL
from app.embedders.text_model import ModelEmbedder, TextModelKind
from app.jobs import Job, JobReport, Jobs
from app.llm import (
    STAGES,
    AnswerDegraded,
    Models,
    Reply,
    ReplyMode,
    ScriptedChat,
    StageModel,
    Turn,
)
from app.recommend import RecommendConfig, Recommender, RecommendRequest
from app.settings import Settings
from app.storage.redis_documents import RedisDocuments
from tests.app.conftest import Shop
from tests.app.recommend.with_model.support import ids, sensible
from tests.servers.hostile import embedding_of
from tree.errors import EmbedderUnavailable, EmbedderUnusable
from tree.item import Item
from tree.node import TreeSettings
from tree.store.redis_store import RedisTreeStore
from tree.vectors import FloatArray, Int8Matrix

NAME = "words:any"


class WordModel:
    """See TextModel. Notes who asks; can be gone."""

    def __init__(self) -> None:
        self.gone = False
        self.direction = 1.0  # another model's vectors point elsewhere
        self.threads: set[threading.Thread] = set()
        self.texts: list[str] = []
        self.held = ""  # texts with this wait for `released`
        self.waiting: list[str] = []
        self.released = threading.Event()

    def vectors(self, texts: Sequence[str], timeout_s: float | None = None) -> FloatArray:
        self.threads.add(threading.current_thread())
        if self.gone:
            raise EmbedderUnavailable("the words are gone: come back later")
        if self.held and any(self.held in text for text in texts):
            self.waiting += texts
            assert self.released.wait(30)
        self.texts += texts
        return np.float32(self.direction) * np.stack([embedding_of(text) for text in texts])


@pytest.fixture
def model() -> WordModel:
    return WordModel()


@pytest.fixture
def embedders(model: WordModel) -> Iterator[EmbedderCache]:
    kind = TextModelKind("words", lambda _: model, is_local=False)
    with closing(EmbedderCache(kinds=(kind, LEXICAL))) as embedders:
        yield embedders
    model.released.set()


@pytest.fixture
async def shop(embedded_url, open_room, tmp_path, embedders) -> AsyncIterator[Shop]:
    """An empty catalogue that is embedded by the words."""
    async with open_room(embedded_url) as room:
        store = RedisTreeStore(
            room.client, "shop", space=LexicalEmbedder().space, prefix=room.prefix,
            settings=TreeSettings(embedder=NAME),
        )  # fmt: skip
        documents = RedisDocuments(room.client, prefix=room.prefix)
        settings = Settings(data_dir=tmp_path)
        settings.uploads.mkdir()
        jobs = Jobs(documents, 60)
        curator = Curator("shop", store, jobs, embedders, settings)
        jobs.set_worker(curator)
        recommender = Recommender("shop", store, documents, embedders, RecommendConfig.of(settings))
        yield Shop(store, documents, jobs, curator, recommender, settings.uploads)
        await jobs.aclose()
        await curator.aclose()
        await store.aclose()


@pytest.fixture
async def stocked(shop: Shop, demo_items: list[Item]) -> Shop:
    job = await imported(shop, demo_items)
    assert job.state == "succeeded", job
    return shop


async def imported(shop: Shop, items: Sequence[Item]) -> Job:
    (shop.uploads / "a").write_bytes(b"\n".join(item.record() for item in items))
    return await shop.ended(await shop.curator.start_import(ImportParams(upload="a")))


def asking(**fields: Any) -> RecommendRequest:
    return RecommendRequest.model_validate(fields)


# -- builds


async def test_a_build_has_vectors_of_this_process_whoever_does_the_rest(
    embedders, demo_items, model
):
    trees = [
        await build(
            ListSource(demo_items), TreeSettings(embedder=NAME), JobReport.unwatched(),
            engine=engine, embedders=embedders,
        )
        for engine in (local(), local(2, in_process_below=0))
    ]  # fmt: skip
    one, other = trees
    assert one.space == other.space
    assert list(one.item_ids()) == list(other.item_ids())
    expected = embedders.of(one.space).encode([item.text for item in demo_items])
    for tree in trees:
        rows = np.array([tree.row(item.id) for item in demo_items], np.int64)
        assert np.array_equal(tree.rows.vectors[rows], expected)
    assert one.space.embedder == "words"


# -- the event loop


async def test_nothing_of_it_runs_on_the_event_loop(stocked, model, demo_items):
    tree = await stocked.store.load()
    assert tree.space.embedder == "words"
    model.threads.clear()
    model.texts.clear()
    await stocked.curator.put([Item(id="one", title="Zyxomma and quokka")])
    await stocked.curator.put([Item(id=f"n{n}", title=f"Numbat {n}") for n in range(30)])
    await stocked.curator.patch("one", lambda item: item.model_copy(update={"title": "Quoll"}))
    await stocked.store.stage([Item(id="late", title="Bilby of the desert")])
    await stocked.curator.resume()
    for job in await stocked.jobs.list("shop"):
        await stocked.ended(job)
    answer = await stocked.recommender.recommend(
        asking(history=[{"title": "Quoll stories"}], profile="bilby", instruction="no numbat")
    )
    assert {"one", "late"} <= set(ids(answer))
    await stocked.ended(await stocked.curator.start_rebuild())
    assert {"Quoll", "Bilby of the desert", "Quoll stories", "bilby"} <= {
        text.strip() for text in model.texts
    }
    assert threading.main_thread() not in model.threads
    assert len(await stocked.store.load()) == len(demo_items) + 32


async def test_a_tree_of_another_space_is_written_to_in_its_own(stocked, model):
    """The space that a write has read its text for is gone before its commit."""
    racing = asyncio.gather(
        *(stocked.curator.put([Item(id=f"x{n}", title=f"Thing {n}")]) for n in range(40)),
        stocked.ended(await stocked.curator.start_rebuild()),
        *(stocked.curator.put([Item(id=f"y{n}", title=f"Some thing {n}")]) for n in range(40)),
    )
    await racing
    tree = await stocked.store.load()
    embedder = EmbedderCache(kinds=(TextModelKind("words", lambda _: model, is_local=False),))
    for name in ("x0", "x39", "y0", "y39"):
        row = tree.row(name)
        [record] = (await stocked.store.items([name])).values()
        expected = embedder.of(tree.space).encode([record.text])[0]
        assert np.array_equal(tree.rows.vectors[row], expected)
    embedder.close()


# -- who waits for whom


async def waits(model: WordModel, count: int) -> None:
    deadline = asyncio.get_running_loop().time() + 20
    while len(model.waiting) < count:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


async def test_words_of_requests_do_not_wait_for_writes(embedders, model):
    space = embedders.fit(NAME, ["any"], 500).space
    await embedders.encode_interactive(space, ["warm"], 5.0)
    model.held = "slow"
    writes = [
        asyncio.create_task(embedders.encode_interactive(space, [f"slow {n}"], 25.0, writing=True))
        for n in range(40)
    ]
    await waits(model, 16)
    assert (await embedders.encode_interactive(space, ["words"], 5.0)).any()
    model.released.set()
    await asyncio.gather(*writes)


async def test_writes_do_not_wait_for_builds_or_placements(embedders, model):
    space = embedders.fit(NAME, ["any"], 500).space
    await embedders.encode_interactive(space, ["warm"], 5.0)
    model.held = "slow"

    def nine(building: bool) -> list[asyncio.Task[Int8Matrix]]:
        works = (embedders.encode_batch(space, [f"slow {n}"], building=building) for n in range(9))
        return [asyncio.create_task(work) for work in works]

    builds = nine(building=True)
    await waits(model, 4)
    async with asyncio.timeout(5):
        assert (await embedders.encode_batch(space, ["a placement"])).any()
    placements = nine(building=False)
    await waits(model, 8)
    assert (await embedders.encode_batch(space, ["a write"], 5.0)).any()
    model.released.set()
    await asyncio.gather(*builds, *placements)


# -- another model


def test_another_model_is_noticed_after_an_outage(embedders, model):
    embedder = embedders.fit(NAME, ["any"], 500)
    assert embedder.encode(["words"]).any()
    model.gone = True
    with pytest.raises(EmbedderUnavailable, match="come back"):
        embedder.encode(["words"])
    model.gone, model.direction = False, -1.0
    for _ in range(2):
        with pytest.raises(EmbedderUnusable, match=f"'{NAME}' is not the model"):
            embedder.encode(["words"])
    model.direction = 1.0
    assert embedder.encode(["words"]).any()


@pytest.mark.parametrize(("checked_s", "noticed"), [(0.0, True), (300.0, False)])
def test_another_model_is_noticed_after_a_while(embedders, model, checked_s, noticed):
    space = embedders.fit(NAME, ["any"], 500).space
    kind = TextModelKind("words", lambda _: model, is_local=False)
    embedder = ModelEmbedder(space, kind, checked_s=checked_s)
    assert embedder.encode(["words"]).any()
    model.direction = -1.0
    with pytest.raises(EmbedderUnusable) if noticed else nullcontext():
        embedder.encode(["words"])


# -- an outage


async def test_an_import_that_fails_half_way_is_finished_later(shop, model, demo_items):
    model.gone = True
    job = await imported(shop, demo_items)
    assert job.problem is not None
    assert (job.state, job.problem["code"]) == ("failed", "embedder_unavailable")
    assert "come back later" in str(job.problem["detail"])
    assert len(await shop.store.load()) == 0
    await shop.curator.housekeep()  # which does not try at once
    assert await shop.jobs.list("shop") == [job.brief()]
    model.gone = False
    await shop.curator.resume()
    [placement] = [job for job in await shop.jobs.list("shop") if job.type == "placement"]
    assert (await shop.ended(placement)).state == "succeeded"
    assert set((await shop.store.load()).item_ids()) == {item.id for item in demo_items}


async def test_a_failed_write_changes_nothing_and_fails_nobody_else(stocked, model):
    version = (await stocked.store.load()).version
    model.gone = True
    writes = await asyncio.gather(
        stocked.curator.put([Item(id="a", title="Unheard of")]),
        stocked.curator.patch("book-dune", lambda item: item.model_copy(update={"title": "D"})),
        stocked.curator.delete(["film-alien"]),
        return_exceptions=True,
    )
    assert [type(one) for one in writes] == [EmbedderUnavailable, EmbedderUnavailable, dict]
    tree = await stocked.store.load()
    assert (tree.version, "a" in tree, "film-alien" in tree) == (version + 1, False, False)
    assert (await stocked.store.items(["book-dune"]))["book-dune"].title == "Dune"


async def test_an_outage_is_told_once_and_not_by_every_request(stocked, model, caplog):
    model.gone = True
    for number in range(5):
        answer = await stocked.recommender.recommend(asking(profile=f"numbat {number}"))
        assert answer.degraded_reason == "embedder_unavailable"
    assert caplog.text.count("come back later") == 1


async def test_a_catalogue_that_outgrew_its_tree_is_not_built_again_at_every_write(shop, model):
    async def rebuilds() -> list[Job]:
        return [job for job in await shop.jobs.list("shop") if job.type == "rebuild"]

    model.gone = True  # a new catalogue does not need it yet
    await shop.curator.put([Item(id=f"n{n}", title=f"Numbat {n}") for n in range(64)])
    deadline = asyncio.get_running_loop().time() + 20
    while not (begun := await rebuilds()):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)
    assert (await shop.ended(begun[0])).problem["code"] == "embedder_unavailable"
    for n in range(5):
        await shop.curator.put([Item(id=f"m{n}", title=f"Numbat {n}")])
    await shop.curator.aclose()  # with what it still does in the background
    assert len(await rebuilds()) == 1
    assert len(await shop.store.load()) == 69


async def test_topics_of_a_model_stand_on_choices_alone(stocked, model, embedders):
    """The embedder fails between the request's own words and what a model makes of them."""

    def say(turn: Turn) -> Reply:
        model.gone = True
        return Reply(sensible(turn.messages[-1].content))

    def recommender(mode: ReplyMode) -> Recommender:
        stages = dict.fromkeys(STAGES, StageModel(ScriptedChat(say)))
        models = Models(stages, stocked.documents, mode)
        return Recommender(
            "shop",
            stocked.store,
            stocked.documents,
            embedders,
            RecommendConfig.of(Settings()),
            models,
        )

    wish = {"history": [{"item_id": "book-dune"}], "instruction": "slow", "limit": 5}
    answer = await recommender(ReplyMode.JSON_OBJECT).recommend(asking(**wish))
    assert len(ids(answer)) == 5
    assert answer.degraded_reason == "embedder_unavailable"
    assert "musicals" not in model.texts  # no choice shows it, and nobody reads it
    with pytest.raises(AnswerDegraded, match="embedder_unavailable"):
        await recommender(ReplyMode.JSON_OBJECT).recommend(asking(**wish, on_degraded="error"))
    model.gone = False
