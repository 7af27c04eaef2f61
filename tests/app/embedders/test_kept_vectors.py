"""No text is sent to an endpoint twice: imports, rebuilds, activations, and after a restart."""

import asyncio

import numpy as np
import pytest

from app.embedders.kept_vectors import REFUSED_S, KeptVectors
from app.storage.keys import VectorKeys
from app.storage.vectors import RedisVectors
from tests.app.embedders.conftest import PaidShop, serve_shop, store_of
from tests.servers.hostile import MODEL
from tree.errors import CatalogDeleted
from tree.vectors import unit_rows


async def vectors_of(shop: PaidShop) -> dict[str, bytes]:
    tree = await shop.store.load()
    return {item: tree.rows.vectors[tree.row(item)].tobytes() for item in tree.item_ids()}


async def test_nothing_that_is_unchanged_is_asked_for_again(paid, demo_items, capsys):
    first = await paid.imported(demo_items)
    assert first.state == "succeeded", first
    assert first.result["embeddings"]["texts_asked"] == len(demo_items)
    assert sorted(paid.texts_asked()) == sorted({item.passage.whole for item in demo_items})
    before, known = await paid.store.load(), await vectors_of(paid)
    paid.server.requests.clear()

    again = await paid.imported(demo_items)
    rebuild = await paid.rebuilt()
    job = await paid.curator.start_activation(before.version)
    activation = await paid.jobs.wait(job.id)
    await paid.curator.delete([item.id for item in demo_items[:50]])
    returned = await paid.imported(demo_items[:50])
    for job in (again, rebuild, activation, returned):
        assert job.state == "succeeded", job
        used = job.result["embeddings"]
        with capsys.disabled():
            print(f"\n{job.type}: {used['texts_asked']} texts asked, {used['texts_kept']} kept")
        assert used["texts_asked"] == 0
        assert used["texts_kept"] > 0
    assert paid.texts_asked() == []
    assert await vectors_of(paid) == known


async def test_a_changed_text_is_the_only_one_that_is_asked_for(paid, demo_items):
    await paid.imported(demo_items)
    paid.server.requests.clear()
    changed = demo_items[3].model_copy(update={"title": "Another title"})
    await paid.imported([*demo_items[:3], changed, *demo_items[4:]])
    await paid.rebuilt()
    assert paid.texts_asked() == [changed.passage.whole]


async def test_another_process_finds_what_this_one_has_paid_for(paid, demo_items, tmp_path):
    await paid.imported(demo_items)
    paid.server.requests.clear()
    async with serve_shop(paid.room, paid.server, tmp_path / "other") as other:
        assert (await other.rebuilt()).state == "succeeded"
        await other.curator.put(demo_items[:3])
    assert paid.texts_asked() == []


async def test_what_was_paid_for_before_an_outage_stays(paid, demo_items):
    items = [item.model_copy(update={"id": f"{item.id}-{n}", "title": f"{item.title} {n}"})
             for n in range(6) for item in demo_items]  # fmt: skip
    paid.server.accepts = 500  # texts, then every call is refused
    failed = await paid.imported(items)
    assert failed.state == "failed"
    asked = len(paid.texts_asked())
    paid.server.reset()
    job = await paid.rebuilt()
    assert job.state == "succeeded", job
    assert len(set(paid.texts_asked())) <= len(items) - 256
    assert asked > 0


async def test_a_model_of_the_same_name_with_other_vectors_is_asked_anew(paid, demo_items):
    await paid.imported(demo_items)
    paid.server.requests.clear()
    paid.server.direction = -1.0
    assert (await paid.rebuilt()).state == "succeeded"
    assert len(paid.texts_asked()) == len(demo_items)


async def test_texts_of_requests_are_not_stored(paid, demo_items):
    await paid.imported(demo_items)
    pattern = VectorKeys("shop", paid.room.prefix).vector("*")
    before = {key async for key in paid.room.client.scan_iter(match=pattern, count=1_000)}
    space = (await paid.store.load()).space
    assert (await paid.embedders.encode_interactive(space, ["my private wish"], 5.0)).any()
    after = {key async for key in paid.room.client.scan_iter(match=pattern, count=1_000)}
    assert before
    assert after == before


async def test_nothing_is_kept_for_a_catalogue_that_is_deleted(paid, demo_items):
    await paid.imported(demo_items[:70])
    pattern = VectorKeys("shop", paid.room.prefix).vector("*")
    await paid.store.drop()
    assert [key async for key in paid.room.client.scan_iter(match=pattern, count=1_000)] == []
    vectors = RedisVectors(paid.room.client, "shop", prefix=paid.room.prefix)
    with pytest.raises(CatalogDeleted):
        await vectors.put({"one": b"of a job that has not heard of it"}, 60)


# -- how they are kept


@pytest.fixture
async def kept(room) -> KeptVectors:
    return KeptVectors("shop", store_of(room, 1_000))


@pytest.mark.parametrize("outliers", [0, 3])
async def test_kept_vectors_point_where_they_pointed(kept, outliers):
    rows = np.random.default_rng(5).standard_normal((1_500, 1_536)).astype(np.float32)
    rows[:, :outliers] *= 200  # some models have a few dimensions that dwarf all others
    texts = {f"text {n}": row for n, row in enumerate(unit_rows(rows))}
    stored = await asyncio.to_thread(kept.put, "m", texts)
    found = await asyncio.to_thread(kept.get, "m", [*texts, "unknown"], 1_536)
    assert found.keys() == stored.keys() == texts.keys()
    for text, row in texts.items():
        assert np.array_equal(found[text], stored[text])
        assert float(unit_rows(found[text][None])[0] @ row) > 0.9995
    assert await asyncio.to_thread(kept.get, "another", list(texts), 1_536) == {}
    assert await asyncio.to_thread(kept.get, "m", ["text 1"], 768) == {}


async def test_how_long_vectors_stay(kept, room):
    await asyncio.to_thread(kept.put, "m", {"one": np.ones(8, np.float32)})
    [key] = [key async for key in room.client.scan_iter(match=f"{room.prefix}:*", count=1_000)]
    assert 990 < await room.client.ttl(key) <= 1_000
    content = bytearray(await room.client.get(key))
    content[1:5] = (int.from_bytes(content[1:5], "little") - 300).to_bytes(4, "little")
    await room.client.set(key, bytes(content), ex=700)  # as if it were written 300 s ago
    assert (await asyncio.to_thread(kept.get, "m", ["one"], 8)).keys() == {"one"}
    assert await room.client.ttl(key) > 990
    await room.client.set(key, b"damaged", ex=60)
    assert await asyncio.to_thread(kept.get, "m", ["one"], 8) == {}


async def test_a_refused_text_stays_for_a_day(room):
    kept = KeptVectors("shop", store_of(room, 10 * REFUSED_S))
    await asyncio.to_thread(kept.put, "m", {"one": np.zeros(8, np.float32)})
    [key] = [key async for key in room.client.scan_iter(match=f"{room.prefix}:*", count=1_000)]
    assert REFUSED_S - 10 < await room.client.ttl(key) <= REFUSED_S
    found = await asyncio.to_thread(kept.get, "m", ["one"], 8)
    assert found["one"].shape == (8,)
    assert not found["one"].any()


async def test_models_are_told_apart_by_their_probes(kept):
    probes = unit_rows(np.random.default_rng(1).standard_normal((2, 64)).astype(np.float32))
    nearly = unit_rows(probes[:1] + np.float32(0.004))[0]
    first = await asyncio.to_thread(kept.identity, MODEL, probes[0])
    assert await asyncio.to_thread(kept.identity, MODEL, nearly) == first
    other = await asyncio.to_thread(kept.identity, MODEL, probes[1])
    assert other != first
    assert await asyncio.to_thread(kept.identity, "another", probes[0]) not in (first, other)


async def test_the_event_loop_never_waits_for_the_store(kept):
    kept.put("m", {"one": np.ones(8, np.float32)})
    assert kept.get("m", ["one"], 8) == {}
