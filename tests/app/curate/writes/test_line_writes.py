"""Lines of items: they are set, kept, and lost only with the text that they are about."""

import asyncio
import json

import numpy as np

from app.curate import ImportParams, RebuildParams
from tree import inspect
from tree.item import Item
from tree.item_line import LINE_CODES, ItemLine
from tree.store import encoding

WALKS = ItemLine("For long walks in bad weather")


def thing(number: int, **fields) -> Item:
    return Item(id=f"i{number}", title=f"Thing {number} of {number % 7}", **fields)


async def line_of(shop, item_id: str) -> ItemLine | None:
    return (await shop.store.items([item_id]))[item_id].line


async def check(shop, expected: dict[str, ItemLine]) -> None:
    """The records, the tree and its vectors agree about the lines, and those are as expected."""
    tree = await shop.store.load()
    assert inspect.violations(tree) == []
    records = await shop.store.items(list(tree.item_ids()))
    assert {one: item.line for one, item in records.items() if item.line} == expected
    for item_id in tree.item_ids():
        line = expected.get(item_id)
        code = LINE_CODES[line.source if line else None]
        assert tree.rows.lines[tree.row(item_id)] == code, item_id


async def test_a_line_is_set_replaced_and_removed(shop):
    await shop.curator.put([thing(1), thing(2)])
    before = await shop.store.load()
    results = await shop.curator.set_lines({"i1": WALKS, "i9": WALKS})
    assert results == {"i1": "set", "i9": "unknown"}
    await check(shop, {"i1": WALKS})
    after = await shop.store.load()
    assert not np.array_equal(*(t.rows.vectors[t.row("i1")] for t in (before, after)))
    assert after.arrived == before.arrived

    assert await shop.curator.set_lines({"i1": WALKS}) == {"i1": "unchanged"}
    assert (await shop.store.load()).version == after.version
    assert await shop.curator.set_lines({"i1": None, "i2": None}) == {
        "i1": "removed",
        "i2": "unchanged",
    }
    await check(shop, {})
    now = await shop.store.load()
    assert np.array_equal(*(t.rows.vectors[t.row("i1")] for t in (before, now)))


async def test_a_line_about_another_text_is_refused(shop):
    await shop.curator.put([thing(1)])
    line = ItemLine("About the thing", "model", thing(1).content_digest)
    await shop.curator.put([thing(1, description="another one")])
    assert await shop.curator.set_lines({"i1": line}) == {"i1": "outdated"}
    await shop.curator.put([thing(1)])
    assert await shop.curator.set_lines({"i1": line}) == {"i1": "set"}
    await check(shop, {"i1": line})


async def test_a_line_of_a_model_never_takes_the_place_of_an_owners(shop):
    await shop.curator.put([thing(1), thing(2)])
    model = {
        one: ItemLine("By a model", "model", thing(int(one[1])).content_digest)
        for one in ("i1", "i2")
    }
    await shop.curator.set_lines({"i1": WALKS})
    assert await shop.curator.set_lines(model) == {"i1": "outdated", "i2": "set"}
    await check(shop, {"i1": WALKS, "i2": model["i2"]})
    assert await shop.curator.set_lines({"i2": WALKS}) == {"i2": "set"}
    await check(shop, {"i1": WALKS, "i2": WALKS})


async def test_writes_keep_the_lines_that_fit(shop):
    await shop.curator.put([thing(1), thing(2), thing(3)])
    model = ItemLine("By a model", "model", thing(2).content_digest)
    await shop.curator.set_lines({"i1": WALKS, "i2": model})
    await shop.curator.put([thing(1, description="new"), thing(2, hidden=True), thing(3)])
    await check(shop, {"i1": WALKS, "i2": model})
    await shop.curator.patch("i1", lambda item: item.model_copy(update={"popularity": 5.0}))
    await shop.curator.patch("i2", lambda _: thing(2, description="new"))
    await check(shop, {"i1": WALKS})
    await shop.curator.delete(["i1"])
    await shop.curator.put([thing(1)])
    await check(shop, {})


async def test_an_import_keeps_the_lines_that_fit(shop):
    await shop.curator.put([thing(number) for number in range(3)])
    model = ItemLine("By a model", "model", thing(2).content_digest)
    await shop.curator.set_lines({"i1": WALKS, "i2": model})
    again = [thing(1, description="new"), thing(2, description="new"), thing(3)]
    path = shop.uploads / "upload"
    path.write_text("".join(json.dumps(json.loads(item.record())) + "\n" for item in again))
    job = await shop.ended(await shop.curator.start_import(ImportParams(upload=path.name)))
    assert job.state == "succeeded", job
    await check(shop, {"i1": WALKS})


async def test_an_import_and_lines_at_the_same_time_lose_nothing(shop):
    await shop.curator.put([thing(number) for number in range(60)])
    path = shop.uploads / "upload"
    rows = [{"id": f"i{n % 60}", "title": f"Version {n // 60}"} for n in range(6_000)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = await shop.curator.start_import(ImportParams(upload=path.name))
    lines = {f"i{number}": ItemLine(f"For the use {number}") for number in range(60)}
    for item_id, line in lines.items():
        assert await shop.curator.set_lines({item_id: line}) == {item_id: "set"}
    job = await shop.ended(job)
    assert job.state == "succeeded", job
    await check(shop, lines)
    records = await shop.store.items(list(lines))
    assert {item.title for item in records.values()} == {"Version 99"}


async def test_a_rebuild_and_a_new_process_know_the_lines(shop):
    empty = await shop.store.load()
    await shop.curator.put([thing(number) for number in range(300)])
    async with asyncio.timeout(60):  # the first items are many enough for a rebuild
        while (await shop.store.load()).space.fingerprint == empty.space.fingerprint:
            await asyncio.sleep(0.05)
    lines = {f"i{number}": ItemLine(f"For the use {number % 5}") for number in range(0, 300, 2)}
    assert set((await shop.curator.set_lines(lines)).values()) == {"set"}
    await check(shop, lines)
    grown = await shop.store.load()
    job = await shop.ended(await shop.curator.start_rebuild(RebuildParams()))
    assert job.state == "succeeded", job
    await check(shop, lines)
    rebuilt = await shop.store.load()
    assert rebuilt.space.fingerprint != grown.space.fingerprint  # it has learned their words

    header, chunks = encoding.encode_tree(rebuilt)
    assembly = encoding.Assembly(header)
    assembly.add(chunks)
    assert inspect.digest(assembly.tree(rebuilt.space)) == inspect.digest(rebuilt)


async def test_lines_and_other_writes_at_the_same_time_lose_nothing(shop):
    await shop.curator.put([thing(number) for number in range(200)])
    lines = {f"i{number}": WALKS for number in range(200)}

    async def put(start: int) -> None:
        for number in range(start, 200, 5):
            await shop.curator.put([thing(number, description=f"new {number}")])

    async def patch() -> None:
        for number in range(0, 200, 3):
            update = {"popularity": float(number)}
            await shop.curator.patch(f"i{number}", lambda item, u=update: item.model_copy(update=u))

    results, *_ = await asyncio.gather(
        shop.curator.set_lines(lines), *(put(start) for start in range(4)), patch()
    )
    assert set(results.values()) == {"set"}
    await check(shop, lines)
    records = await shop.store.items(list(lines))
    for number in range(200):
        assert records[f"i{number}"].description == (f"new {number}" if number % 5 < 4 else "")


async def test_a_line_does_not_undo_what_was_staged_meanwhile(shop):
    await shop.curator.put([thing(1)])
    base = await shop.store.load()
    staging_seq = await shop.store.staging_seq()
    await shop.store.stage([thing(1, description="newer")])
    assert await shop.curator.set_lines({"i1": WALKS}) == {"i1": "set"}
    stored = (await shop.store.items(["i1"]))["i1"]
    assert (stored.description, stored.line) == ("newer", WALKS)
    assert staging_seq < await shop.store.staging_seq()
    assert (await shop.store.load()).version == base.version + 1
