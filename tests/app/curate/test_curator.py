"""Writes, imports and rebuilds on a real store."""

import asyncio
import gzip
import json
from itertools import count

import pytest

from app.curate import ImportParams, RebuildParams, TooManyWrites
from app.curate.writes.placement import Placement
from app.curate.writes.vector_cache import ItemVectorCache
from app.embedders import LexicalEmbedder
from app.jobs import JobRunning
from app.recommend import RecommendRequest
from tree import inspect, place
from tree.item import Item
from tree.snapshot import SemanticTree
from tree.store.redis_store import RedisTreeStore


def thing(number: int, **fields) -> Item:
    return Item(id=f"i{number}", title=f"Thing {number} of {number % 7}", domain="things", **fields)


async def held(shop) -> set[str]:
    tree = await shop.store.load()
    assert inspect.violations(tree) == []
    return set(tree.item_ids())


async def imported(shop, data: bytes, **options):
    path = shop.uploads / "upload"
    path.write_bytes(data)
    params = ImportParams(upload=path.name, **options)
    job = await shop.ended(await shop.curator.start_import(params))
    assert not path.exists()
    return job


async def another_space(shop, than: str) -> str:
    """The fingerprint of the space that takes the place of one, by a rebuild."""
    async with asyncio.timeout(30):
        while (now := (await shop.store.load()).space.fingerprint) == than:
            await asyncio.sleep(0.05)
    return now


async def test_puts_and_deletes_say_what_they_did(shop):
    assert await shop.curator.put([thing(1), thing(2)]) == {"i1": True, "i2": True}
    assert await shop.curator.put([thing(2), thing(3)]) == {"i2": False, "i3": True}
    assert await shop.curator.delete(["i1", "nope"]) == {"i1": True, "nope": False}
    assert await held(shop) == {"i2", "i3"}
    assert set(await shop.store.items(["i1", "i2", "i3"])) == {"i2", "i3"}


async def test_concurrent_writers_lose_nothing(shop):
    async def writer(number: int) -> None:
        for step in range(20):
            await shop.curator.put([thing(number * 100 + step)])
            if step % 3 == 0:
                await shop.curator.delete([f"i{number * 100 + step}"])

    await asyncio.gather(*map(writer, range(8)))
    expected = {f"i{n * 100 + step}" for n in range(8) for step in range(20) if step % 3}
    assert await held(shop) == expected
    assert set(await shop.store.items(expected)) == expected


async def test_writes_of_one_item_keep_their_order(shop):
    await asyncio.gather(
        *(shop.curator.put([thing(1, description=f"number {n}")]) for n in range(30))
    )
    assert (await shop.store.items(["i1"]))["i1"].description == "number 29"


async def test_small_writes_go_before_large_ones_but_not_before_those_of_their_items(shop):
    await shop.curator.put([thing(0)])
    done: list[str] = []

    async def write(name: str, puts: list[Item], deletes: list[str]) -> None:
        await shop.curator.apply_batch(puts, deletes)
        done.append(name)

    many = [[f"i{n}" for n in range(start, start + 1_500)] for start in (1_000, 3_000)]
    await asyncio.gather(
        write("first large", [], many[0]),
        write("second large", [], many[1]),
        write("small", [thing(1)], []),
        write("of a large one", [thing(3_000)], []),
    )
    assert done == ["small", "first large", "second large", "of a large one"]
    assert await held(shop) == {"i0", "i1", "i3000"}


def test_leaves_found_before_others_committed_fit_the_tree_after_it():
    embedder = LexicalEmbedder()

    def grown(tree: SemanticTree, items: list[Item]) -> SemanticTree:
        return tree.apply(place.plan(tree, items, embedder.encode([one.text for one in items])))

    tree = grown(SemanticTree.empty(embedder.space), [thing(n) for n in range(200)])
    mine = [thing(n) for n in range(1_000, 1_100)]
    placement = Placement(ItemVectorCache())
    placement.find_leaves(tree, embedder, mine)
    for start in range(200, 900, 100):  # splits most leaves, fills up others
        tree = grown(tree, [thing(n) for n in range(start, start + 100)])
    tree = tree.apply(place.plan(tree, drops=[f"i{n}" for n in range(0, 900, 3)]))
    after = tree.apply(placement.plan(tree, embedder, mine, ["i1"]))
    assert inspect.violations(after) == []
    assert set(after.item_ids()) == (set(tree.item_ids()) - {"i1"}) | {one.id for one in mine}


async def test_a_catalogue_that_outgrows_its_tree_is_rebuilt_by_itself(shop):
    await shop.curator.put([thing(n) for n in range(64)])
    await another_space(shop, "lexical-unfitted")
    assert len(await held(shop)) == 64


async def test_a_catalogue_whose_items_are_exchanged_is_rebuilt_by_itself(shop):
    """However large it stays: the space was fitted to words that are gone."""
    await shop.curator.put([thing(n) for n in range(80)])
    first = await another_space(shop, "lexical-unfitted")
    for start in range(0, 60, 20):
        old = [f"i{n}" for n in range(start, start + 20)]
        await shop.curator.apply_batch([thing(n) for n in range(100 + start, 120 + start)], old)
    await shop.curator.put([thing(n, popularity=n) for n in range(100, 160)])  # are there already
    tree = await shop.store.load()
    assert (tree.space.fingerprint, len(tree), tree.arrived) == (first, 80, 60)
    await shop.curator.apply_batch(
        [thing(n) for n in range(160, 180)], [f"i{n}" for n in range(60, 80)]
    )
    await another_space(shop, first)
    tree = await shop.store.load()
    assert (len(tree), tree.arrived) == (80, 0)


async def test_an_import_reconciles_line_by_line(shop):
    lines = [
        thing(1).record(),
        b"",
        b"{broken",
        b'{"id": "x"}',
        b'{"id": "y", "title": "T", "colour": "red"}',
        b'{"id": "z", "title": "' + b"a" * 10_000_000 + b'"}',
        b'{"id": "n", "title": "nul \\u0000 byte"}',
        b'{"id": "s", "title": "\\ud800"}',
        b'{"id": "c", "title": "T", "categories": ' + json.dumps(["a"] * 200).encode() + b"}",
        b"\xff\xfe not utf-8",
        b"[1, 2]",
        b"null",
        '{"id": "émoji/😀", "title": "مرحبا"}'.encode(),
        thing(1, description="again").record(),
        b'{"id": "last", "title": "no newline at the end"}',
    ]
    job = await imported(shop, b"\n".join(lines))
    assert job.state == "succeeded", job.problem
    result = job.result
    assert result["accepted"] == 4
    assert result["rejected"] == 10
    assert result["lines"] == 14
    assert [error["line"] for error in result["errors"]] == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert result["errors"][2]["id"] == "y"
    assert "colour" in result["errors"][2]["problem"]
    assert await held(shop) == {"i1", "émoji/😀", "last"}
    assert (await shop.store.items(["i1"]))["i1"].description == "again"


async def test_a_large_import_is_built_and_gzip_is_noticed(shop, demo_items):
    data = gzip.compress(b"\n".join(item.record() for item in demo_items))
    job = await imported(shop, data)
    assert job.result["accepted"] == job.result["items"] == len(demo_items)
    assert await held(shop) == {item.id for item in demo_items}
    tree = await shop.store.load()
    assert tree.space.fingerprint != "lexical-unfitted"
    assert {child.label for child in tree.children(tree.root)} == {"Books", "Films"}
    assert [batch async for batch in shop.store.staged_ids()] == []


async def test_broken_compression_fails_and_keeps_what_was_whole(shop):
    data = gzip.compress(b"\n".join(thing(n).record() for n in range(20_000)))
    job = await imported(shop, data[: len(data) // 2])
    assert job.state == "failed"
    assert job.problem["code"] == "unreadable"
    assert job.result["accepted"] > 0
    assert len(await held(shop)) == job.result["accepted"]


async def test_a_cancelled_import_places_what_it_had_read(shop):
    (shop.uploads / "upload").write_bytes(b"\n".join(thing(n).record() for n in range(60_000)))
    job = await shop.curator.start_import(ImportParams(upload="upload"))
    deadline = asyncio.get_running_loop().time() + 30
    while [batch async for batch in shop.store.staged_ids()] == []:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0)
    await shop.jobs.cancel(job.id)
    cancelled = await shop.ended(job)
    assert cancelled.state == "cancelled"
    while [batch async for batch in shop.store.staged_ids()] != []:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)
    tree = await shop.store.load()
    assert 0 < len(tree) < 60_000
    assert (cancelled.result["accepted"], cancelled.result["stored"]) == (len(tree), True)
    assert cancelled.result["lines"] == len(tree)
    assert set(tree.item_ids()) == set(await shop.store.items(list(tree.item_ids())))


async def test_abort_and_dry_run_change_nothing(shop):
    data = thing(1).record() + b"\n{broken\n"
    refused = await imported(shop, data, on_error="abort")
    assert refused.state == "failed"
    assert refused.problem["code"] == "invalid_lines"
    assert refused.result["rejected"] == 1
    tried = await imported(shop, data, dry_run=True)
    assert tried.result["accepted"] == 1
    assert await held(shop) == set()


async def test_staged_items_of_a_lost_import_are_placed(shop):
    await shop.store.stage([thing(n) for n in range(30)])
    assert await held(shop) == set()
    await shop.curator.resume()
    for job in await shop.jobs.list("shop"):
        await shop.ended(job)
    assert len(await held(shop)) == 30


async def test_a_rebuild_carries_over_what_was_written_meanwhile(demo, demo_items):
    job = await demo.curator.start_rebuild()
    with pytest.raises(JobRunning) as running:
        await demo.curator.start_rebuild()
    assert running.value.job_id == job.id
    await demo.curator.put([thing(1)])
    await demo.curator.delete([demo_items[0].id])
    ended = await demo.ended(job)
    assert ended.state == "succeeded", ended.problem
    assert await held(demo) == {item.id for item in demo_items[1:]} | {"i1"}


async def test_a_dry_run_of_a_rebuild_publishes_nothing(demo):
    before = (await demo.store.load()).version
    job = await demo.ended(await demo.curator.start_rebuild(RebuildParams(dry_run=True)))
    assert job.result["items"] == 725
    assert (await demo.store.load()).version == before


@pytest.mark.parametrize("mode", ["relabel", "subtree"])
async def test_partial_rebuilds_keep_every_item(demo, demo_items, mode):
    root = (await demo.store.load()).root.children[0] if mode == "subtree" else None
    job = await demo.ended(await demo.curator.start_rebuild(RebuildParams(mode=mode, root=root)))
    assert job.state == "succeeded", job.problem
    assert await held(demo) == {item.id for item in demo_items}


async def test_a_locked_label_survives_a_rebuild(demo):
    node = (await demo.store.load()).root.children[0]
    renamed = await demo.curator.rename(node, "To read", True)
    assert (renamed.label, renamed.locked) == ("To read", True)
    await demo.ended(await demo.curator.start_rebuild())
    tree = await demo.store.load()
    assert "To read" in {child.label for child in tree.children(tree.root)}


@pytest.mark.parametrize(
    "items",
    [
        [],
        [thing(1)],
        [Item(id=str(n), title="The very same") for n in range(200)],
        [Item(id=str(n), title=f"T{n}", categories=("One",)) for n in range(200)],
        [
            Item(id=str(n), title=f"T{n}", categories=(("A", "a", "ＡＡ")[n % 3],))
            for n in range(90)
        ],
        [Item(id=str(n), title=f"T{n}", categories=("A", "B", "A", "B") * 4) for n in range(90)],
        [Item(id=str(n), title=f"T{n}", categories=(f"C{n}",)) for n in range(200)],
        [Item(id=str(n), title="🙂" * (n % 5 + 1)) for n in range(100)],
    ],
    ids=["none", "one", "identical", "one-category", "case", "cycle", "200-categories", "emoji"],
)
async def test_odd_catalogues_build_and_answer(shop, items):
    data = b"\n".join(item.record() for item in items)
    job = await imported(shop, data)
    assert job.state == "succeeded", job.problem
    assert await held(shop) == {item.id for item in items}
    rebuilt = await shop.ended(await shop.curator.start_rebuild())
    assert rebuilt.state == "succeeded", rebuilt.problem
    assert await held(shop) == {item.id for item in items}
    request = RecommendRequest(profile="anything at all", fold=False)
    answer = await shop.recommender.recommend(request)
    assert len(answer.items) == min(10, len(items))


async def test_a_cancelled_job_says_so(demo):
    job = await demo.curator.start_rebuild()
    await demo.jobs.cancel(job.id)
    assert (await demo.ended(job)).state == "cancelled"
    again = await demo.ended(await demo.curator.start_rebuild())
    assert again.state == "succeeded"


async def test_patches_of_many_writers_all_arrive(shop):
    await shop.curator.put([thing(1)])

    async def mark(number: int) -> None:
        def marked(item: Item) -> Item:
            return item.model_copy(update={"attributes": {**item.attributes, f"m{number}": True}})

        if number % 5 == 0:
            await shop.curator.put([thing(100 + number)])
        assert await shop.curator.patch("i1", marked) is not None

    await asyncio.gather(*map(mark, range(40)))
    assert len((await shop.store.items(["i1"]))["i1"].attributes) == 40
    assert await shop.curator.patch("nope", lambda item: item) is None


async def test_writes_that_come_too_fast_are_refused_and_the_others_kept(shop):
    batches = [[thing(n) for n in range(start, start + 1_000)] for start in range(0, 30_000, 1_000)]
    done = await asyncio.gather(*map(shop.curator.put, batches), return_exceptions=True)
    refused = [at for at, one in enumerate(done) if isinstance(one, TooManyWrites)]
    assert 0 < len(refused) < 15
    kept = {item.id for at, batch in enumerate(batches) if at not in refused for item in batch}
    assert await held(shop) == kept


@pytest.mark.parametrize("mode", ["full", "relabel", "subtree"])
async def test_a_rebuild_ends_while_others_write_without_a_pause(demo, demo_items, mode):
    async def write() -> None:
        for number in count():
            await demo.curator.put([thing(number % 50, description=f"time {number}")])

    writers = [asyncio.create_task(write()) for _ in range(2)]
    try:
        root = (await demo.store.load()).root.children[0] if mode == "subtree" else None
        job = await demo.curator.start_rebuild(RebuildParams(mode=mode, root=root))
        async with asyncio.timeout(60):
            ended = await demo.ended(job)
    finally:
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
    assert ended.state == "succeeded", ended.problem
    assert await held(demo) >= {item.id for item in demo_items}
    other = RedisTreeStore(demo.store._client, "shop", space=LexicalEmbedder().space,
                           prefix=demo.store._keys.head.partition(":{")[0])  # fmt: skip
    async with asyncio.timeout(30):  # what was under way when the writers stopped
        while inspect.digest(await other.load()) != inspect.digest(await demo.store.load()):
            await asyncio.sleep(0.05)
