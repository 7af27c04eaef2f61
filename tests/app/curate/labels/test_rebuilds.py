"""Rebuilds whose labels a model writes: what they cost, what is kept, what a successor pays."""

from itertools import repeat

import pytest

from app.curate import Curator, RebuildParams
from app.embedders import EmbedderCache
from app.jobs import Jobs
from app.llm import STAGES, Models, ReplyMode, StageModel
from app.llm.wrappers import Cached
from app.settings import Settings
from tests.app.curate.labels.support import PRICE, assert_told_apart, eventually
from tests.servers.hostile import Behaviour
from tree.item import Item


@pytest.fixture
async def labelled(demo, chat, tmp_path):
    """The bundled catalogue, whose curator has a model for labels."""
    models = Models(
        dict.fromkeys(STAGES, StageModel(chat, PRICE)),
        demo.documents, ReplyMode.JSON_SCHEMA, 5.0, "here",
        labels=StageModel(Cached(chat, demo.documents, 60, "here"), PRICE),
    )  # fmt: skip
    jobs = Jobs(demo.documents, 60)
    settings = Settings(data_dir=tmp_path, llm_model="m")
    curator = Curator("shop", demo.store, jobs, EmbedderCache(), settings, models)
    jobs.set_worker(curator)
    yield curator, jobs
    await jobs.aclose()
    await curator.aclose()


def new_labels(tree) -> int:
    return sum(node.label.startswith("New ") for node in tree.walk())


@pytest.mark.parametrize("mode", ["full", "relabel", "subtree"])
async def test_a_rebuild_lets_the_model_write_and_says_what_it_cost(demo, labelled, mode):
    curator, jobs = labelled
    root = (await demo.store.load()).root.children[0] if mode == "subtree" else None
    job = await jobs.wait((await curator.start_rebuild(RebuildParams(mode=mode, root=root))).id)
    assert job.state == "succeeded", job.problem
    assert job.result["labels"]["labelled"] > 0
    assert job.cost_usd == pytest.approx(job.result["labels"]["cost_usd"], abs=1e-6)
    assert job.cost_usd > 0
    tree = await demo.store.load()
    assert new_labels(tree) > 0
    assert_told_apart(tree)


async def test_the_same_labels_are_not_paid_twice(demo, labelled, hostile_server):
    curator, jobs = labelled
    first = await jobs.wait((await curator.start_rebuild()).id)
    asked = len(hostile_server.requests)
    again = await jobs.wait((await curator.start_rebuild()).id)
    assert (again.cost_usd, len(hostile_server.requests)) == (0, asked)
    assert again.result["labels"]["labelled"] == first.result["labels"]["labelled"]
    for _ in range(2):
        last = await jobs.wait((await curator.start_rebuild(RebuildParams(mode="relabel"))).id)
    assert last.cost_usd == 0


async def test_a_limit_holds_and_a_rehearsal_costs_nothing(demo, labelled, hostile_server):
    curator, jobs = labelled
    tried = await jobs.wait((await curator.start_rebuild(RebuildParams(dry_run=True))).id)
    assert tried.result["labels"]["cost_usd"] > 0.01
    assert hostile_server.requests == []
    params = RebuildParams(max_cost_usd=0.01)
    job = await jobs.wait((await curator.start_rebuild(params)).id)
    assert job.state == "succeeded"
    assert 0 < job.cost_usd <= 0.01
    assert job.result["labels"]["kept"]["budget"] > 0


async def test_what_an_administrator_named_stays(demo, labelled):
    curator, jobs = labelled
    node = (await demo.store.load()).root.children[0]
    await curator.rename(node, "To read", True)
    for mode in ("relabel", "full"):
        await jobs.wait((await curator.start_rebuild(RebuildParams(mode=mode))).id)
        tree = await demo.store.load()
        kept = [child for child in tree.children(tree.root) if child.label == "To read"]
        assert [child.locked for child in kept] == [True]


async def test_a_split_is_labelled_later(demo, labelled):
    curator, _ = labelled
    before = await demo.store.load()
    known = {node.id for node in before.walk()}
    twins = [
        Item(id=f"t{n}", title=f"Sea chest number {n}", categories=("Adventure",), domain="films")
        for n in range(60)
    ]
    await curator.put(twins)

    async def named() -> bool:
        tree = await demo.store.load()
        fresh = [node for node in tree.leaves() if node.id not in known]
        return any(node.label.startswith("New ") for node in fresh)

    await eventually(named)


async def test_a_key_that_is_refused_fails_the_job_with_its_reason(demo, labelled, hostile_server):
    curator, jobs = labelled
    before = (await demo.store.load()).version
    hostile_server.play(repeat(Behaviour.UNAUTHORIZED))
    job = await jobs.wait((await curator.start_rebuild(RebuildParams(mode="relabel"))).id)
    assert (job.state, job.problem["code"]) == ("failed", "model_rejected")
    assert (await demo.store.load()).version == before
