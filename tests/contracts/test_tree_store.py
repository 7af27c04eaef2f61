"""Every implementation of TreeStore keeps the same promises."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

import msgspec
import pytest

from tests.contracts.support import (
    ODD_IDS,
    SETTINGS,
    SPACE,
    content,
    gathered,
    item,
    put,
    terms,
    vector,
)
from tree.edits import DropItem, Edit, NodeSpec, PutItem, Reshape
from tree.errors import CatalogDeleted, InvalidEdit, Overtaken, StaleVersion, UnknownVersion
from tree.inspect import violations
from tree.node import ROOT, Space
from tree.redis.checksum import seal
from tree.snapshot import SemanticTree
from tree.store import encoding
from tree.store.memory import MemoryTreeStore
from tree.store.protocol import Checkpoint
from tree.store.tree_frames import frames, tree_of

# -- single promises


async def test_a_new_catalogue_is_empty(store, open_store):
    tree = await store.load()
    assert (tree.version, len(tree), tree.settings, tree.space) == (0, 0, SETTINGS, SPACE)
    assert await store.load() is tree
    assert await store.items(["a"]) == {}
    assert await gathered(store.staged_ids()) == set()
    await store.compact()
    assert (await open_store("books").load()).version == 0


async def test_load_gives_the_same_object_until_somebody_commits(store, open_store):
    tree = await store.commit([put("a")], base=0)
    assert await store.load() is tree
    await open_store("books").commit([put("b")], base=1)
    newer = await store.load()
    assert newer is not tree
    assert ("b" in newer, "b" in tree) == (True, False)


async def test_recent_has_what_was_committed_here_and_soon_what_others_commit(store, open_store):
    assert (await store.recent()).version == 0
    for version in range(3):
        tree = await store.commit([put(f"a{version}")], base=version)
        assert await store.recent() is tree
    await open_store("books").commit([put("b")], base=3)
    async with asyncio.timeout(5):
        while "b" not in await store.recent():
            await asyncio.sleep(0)
    assert await store.recent() is await store.load()
    assert "b" in await open_store("books").recent()


async def test_turns_are_taken_one_after_another_and_nobody_has_two_in_a_row(store, open_store):
    if isinstance(store, MemoryTreeStore):
        return  # it is the only one
    order: list[str] = []

    async def write(name: str) -> None:
        mine = open_store("books")
        while len(order) < 12:
            async with mine.bulk_write_lease():
                order.append(name)
                for _ in range(10):  # longer than others wait before they ask
                    await mine.staging_seq()
                    await asyncio.sleep(0.003)
                    assert order[-1] == name

    async with asyncio.timeout(30):
        await asyncio.gather(write("a"), write("b"))
    assert set(pairwise(order)) == {("a", "b"), ("b", "a")}


async def test_a_turn_binds_nobody(store, open_store):
    async with store.bulk_write_lease():
        await open_store("books").commit([put("a")], base=0)
    assert "a" in await store.load()


async def test_a_stored_catalogue_brings_its_own_space_and_settings(store, open_store):
    await store.commit([put("a")], base=0)
    reader = await open_store("books").load()
    assert (reader.space, reader.settings) == (SPACE, SETTINGS)


async def test_a_stale_commit_changes_nothing(store, open_store):
    await store.commit([put("a", seed=1)], base=0)
    other = open_store("books")
    for base in (0, 2):
        with pytest.raises(StaleVersion, match=f"version {base} is not the newest"):
            await other.commit([put("a", seed=2), put("b")], base=base)
        with pytest.raises(StaleVersion):
            await other.replace(await other.load(), base=base)
    assert content(await other.load()) == {"a": (ROOT, vector(1), terms(1), "news", 1.0, 1)}
    assert await other.items(["a", "b"]) == {"a": item("a", "Title 1")}


async def test_an_invalid_batch_changes_nothing(store, open_store):
    await store.commit([put("a")], base=0)
    with pytest.raises(InvalidEdit):
        await store.commit([put("b"), DropItem("a"), put("c", leaf=99)], base=1)
    tree = await store.commit([put("d")], base=1)
    assert content(tree).keys() == {"a", "d"}
    assert content(await open_store("books").load()).keys() == {"a", "d"}
    assert (await store.items(["a", "b", "c"])).keys() == {"a"}


async def test_of_racing_writers_one_wins_each_version(open_store):
    async def write(name: str) -> int:
        store, written, lost = open_store("books"), 0, 0
        while written < 6:
            tree = await store.load()
            edits: list[Edit] = [put(f"{name} {written % 2}", seed=written)]
            try:
                await store.commit(edits, base=tree.version)
                written += 1
            except StaleVersion:
                lost += 1
                assert lost < 500
        return written

    names = "ab"
    assert sum(await asyncio.gather(*map(write, names))) == 12
    tree = await open_store("books").load()
    assert tree.version == 12
    assert content(tree) == {
        f"{name} {n}": (ROOT, vector(4 + n), terms(4 + n), "news", 4.0 + n, (4 + n) % 3)
        for name in names
        for n in (0, 1)
    }


async def test_one_object_serves_concurrent_readers_and_writers(store):
    async def write(number: int) -> None:
        while True:
            tree = await store.load()
            with suppress(StaleVersion):
                await store.commit([put(f"{number % 4}", seed=number)], base=tree.version)
                return

    await asyncio.gather(*map(write, range(20)))
    tree = await store.load()
    assert (tree.version, content(tree).keys()) == (20, {"0", "1", "2", "3"})


async def test_a_batch_is_as_large_as_promised(open_store):
    roomy = [put(f"item {n}", leaf=1 + n // 4, seed=n) for n in range(12)]
    long = [
        PutItem(f"item {n % 12}", 1 + n % 12 // 4, vector(n), record=item("x", "é" * 500).record())
        for n in range(1_000)
    ]
    leaves = [NodeSpec(n, str(n), items=(f"seed {n}",)) for n in (1, 2, 3)]
    grow = Reshape((), (NodeSpec(ROOT, "All items", children=(1, 2, 3)), *leaves))
    seeds = [put(f"seed {n}") for n in (1, 2, 3)]
    writer = open_store("books")
    await writer.commit([*seeds, grow, *(DropItem(f"seed {n}") for n in (1, 2, 3)), *roomy], base=0)
    await writer.commit(long, base=1)
    seen = content(await open_store("books").load())
    assert {item_id: facts[1] for item_id, facts in seen.items()} == {
        f"item {n % 12}": vector(n) for n in range(988, 1_000)
    }


async def test_records_follow_the_last_edit_of_an_item(store):
    await store.commit([put("a", seed=1), put("b", seed=1), put("c", seed=1)], base=0)
    bare = PutItem("c", ROOT, vector(5))
    await store.commit(
        [DropItem("a"), put("a", seed=2), put("b", seed=2), DropItem("b"), bare], base=1
    )
    assert await store.items(["a", "b", "c"]) == {
        "a": item("a", "Title 2"),
        "c": item("c", "Title 1"),
    }


async def test_odd_ids_are_ids_like_others(store, open_store):
    ids = ODD_IDS[: SETTINGS.leaf_capacity]
    await store.stage([item(item_id) for item_id in ODD_IDS])
    assert await gathered(store.staged_ids(batch=2)) == set(ODD_IDS)
    await store.commit([put(item_id) for item_id in ids], base=0)
    assert (await open_store("books").items(ODD_IDS)).keys() == set(ODD_IDS)
    assert content(await open_store("books").load()).keys() == set(ids)
    assert await gathered(store.staged_ids()) == set(ODD_IDS) - set(ids)


async def test_what_is_whole_has_no_flaws(store, open_store):
    await store.stage([item(item_id) for item_id in ODD_IDS])
    await store.commit([put("a"), put(ODD_IDS[0])], base=0)
    other = open_store("books")
    assert await gathered(other.record_ids()) == {"a", *ODD_IDS}
    assert await other.record_flaws(["a", *ODD_IDS]) == {}
    assert await other.record_flaws(["a", "b"]) == {"b": "the record of item 'b' is missing"}
    looked = [looked async for looked in other.check_integrity()]
    assert [flaw for one in looked for flaw in one.flaws] == []
    assert sum(one.count for one in looked if one.part == "waiting") == len(ODD_IDS) - 1


async def test_staged_items_wait_until_they_are_placed_or_dropped(store, open_store):
    await store.stage([item(f"item {n}", f"Title {n}") for n in range(1_200)])
    other = open_store("books")
    assert await gathered(other.staged_ids(batch=100)) == {f"item {n}" for n in range(1_200)}
    assert (await other.items(["item 7", "nobody"])) == {"item 7": item("item 7", "Title 7")}

    staging_seq = await store.staging_seq()
    await store.stage([item("item 6", "Newer title")])
    edits = [PutItem(f"item {n}", ROOT, vector(n)) for n in (6, 7)]
    await store.commit([*edits, DropItem("item 8")], base=0, staging_seq=staging_seq)
    assert "item 6" in await gathered(other.staged_ids())  # it was staged again since
    assert {"item 7", "item 8"}.isdisjoint(await gathered(other.staged_ids()))
    assert (await other.items(["item 7", "item 8"])).keys() == {"item 7"}

    tree = (await store.load()).apply([put("item 9")])
    staging_seq = await store.staging_seq()
    await store.stage([item("item 9", "Title 9")])
    await store.replace(tree, base=1, staging_seq=staging_seq)
    assert {"item 6", "item 9"} & await gathered(other.staged_ids()) == {"item 9"}
    await store.commit(
        [PutItem("item 9", ROOT, vector(9))], base=2, staging_seq=await store.staging_seq()
    )
    assert await gathered(other.staged_ids()) == {f"item {n}" for n in range(1_200)} - {
        "item 6", "item 7", "item 8", "item 9",
    }  # fmt: skip
    assert await store.staged_items(["item 5", "item 6", "nobody"]) == {
        "item 5": item("item 5", "Title 5")
    }
    assert (await other.items(["item 9"])) == {"item 9": item("item 9", "Title 9")}


async def test_a_change_of_a_record_does_not_undo_what_was_staged_after_it_was_read(store):
    await store.commit([put("a", seed=1), put("b", seed=1)], base=0)
    staging_seq = await store.staging_seq()
    await store.stage([item("a", "staged")])
    with pytest.raises(StaleVersion):
        await store.commit(
            [put("a", seed=2)], base=1, staging_seq=staging_seq, made_of_records=True
        )
    assert (await store.items(["a"]))["a"].title == "staged"
    await store.commit([put("b", seed=2)], base=1, staging_seq=staging_seq, made_of_records=True)
    staging_seq = await store.staging_seq()
    await store.commit([put("a", seed=2)], base=2, staging_seq=staging_seq, made_of_records=True)
    assert (await store.items(["a"]))["a"].title == "Title 2"
    assert await gathered(store.staged_ids()) == set()


async def test_staging_does_not_undo_lines_that_were_set_meanwhile(store, open_store):
    without = await store.commit([put("a", seed=0)], base=0)
    await store.commit([put("b", seed=0)], base=1)
    await store.stage([item("c")], lines_of=without)  # no item has a line yet
    with_line = await open_store("books").commit([put("a", seed=1)], base=2)
    with pytest.raises(Overtaken):
        await store.stage([item("a", "staged")], lines_of=without)
    await store.stage([item("a", "staged")], lines_of=with_line)
    await store.commit([put("b", seed=0)], base=3)
    with pytest.raises(Overtaken):
        await store.stage([item("a", "again")], lines_of=with_line)
    await store.stage([item("a", "again")])
    assert (await store.items(["a"]))["a"].title == "again"


async def test_what_is_stored_or_staged_is_known_until_it_is_dropped(store):
    await store.stage([item("waits"), item("goes")])
    await store.commit([put("placed"), put("leaves")], base=0)
    asked = ["waits", "goes", "placed", "leaves", "never"]
    assert await store.existing(asked) == {"waits", "goes", "placed", "leaves"}
    await store.commit([DropItem("goes"), DropItem("leaves")], base=1)
    assert await store.existing(asked) == {"waits", "placed"}
    assert await store.existing([]) == set()


async def test_a_mark_is_written_with_what_it_tells_of(store, open_store):
    assert await store.checkpoint("import 1") is None
    await store.stage([item(f"{n}") for n in range(700)], Checkpoint("import 1", b"line 700"))
    await store.stage([item("a")], Checkpoint("import 2", b"line 1"))
    await store.stage([item("b")])
    other = open_store("books")
    assert [await other.checkpoint(f"import {n}") for n in (1, 2)] == [b"line 700", b"line 1"]
    await other.stage([item("c")], Checkpoint("import 1", b"line 701", b"line 700"))
    with pytest.raises(StaleVersion):  # the one who was overtaken
        await store.stage([item("late")], Checkpoint("import 1", b"line 702", b"line 700"))
    assert await store.items(["late"]) == {}
    assert await store.checkpoint("import 1") == b"line 701"


async def test_versions_that_were_published_can_be_had_back(store, open_store):
    assert await store.versions() == []
    await store.replace(SemanticTree.empty(SPACE, SETTINGS).apply([put("a")]), base=0, note="one")
    await store.commit([put("b")], base=1)
    await store.compact()
    fitted = Space("lexical", "fitted", b"other state")
    await store.replace(
        SemanticTree.empty(fitted, SETTINGS).apply([put("b"), put("c")]), base=2, note="two"
    )
    await store.commit([put("d")], base=3)
    other = open_store("books")
    kept = await other.versions()
    assert [(one.version, one.items, one.note) for one in kept] == [(3, 2, "two"), (1, 1, "one")]
    old = await other.version(1)
    assert (old.space, set(old.item_ids())) == (SPACE, {"a", "b"})
    with pytest.raises(UnknownVersion):
        await other.version(2)

    await store.replace(old, base=4, note="back to 1")
    assert [one.version for one in await other.versions()] == [5, 3]
    assert set((await other.load()).item_ids()) == {"a", "b"}
    with pytest.raises(UnknownVersion):
        await other.version(1)


async def test_how_many_arrived_since_a_build_is_known_from_snapshot_and_log(store, open_store):
    draft = SemanticTree.empty(SPACE, SETTINGS).apply([put("a"), put("b")])
    draft.arrived = 0  # as one that is built
    await store.replace(draft, base=0)
    await store.commit([put("c"), DropItem("a")], base=1)
    await store.compact()
    await store.commit([put("d"), put("c")], base=2)
    assert (await store.load()).arrived == 2
    assert (await open_store("books").load()).arrived == 2


async def test_a_follower_is_at_the_newest_version_before_it_is_asked(store, open_store):
    if isinstance(store, MemoryTreeStore):
        return  # it is the only one
    await store.commit([put("a")], base=0)
    other = open_store("books")
    await other.load()
    lags: list[float] = []
    task = asyncio.create_task(other.follow(lags.append))
    for n in range(3):
        await store.commit([put(f"b{n}")], base=1 + n)
        async with asyncio.timeout(5):
            while len(lags) <= n:
                await asyncio.sleep(0.005)
    task.cancel()
    assert max(lags) < 1
    tree = await other.load()
    assert tree.version == 4


async def test_replace_publishes_a_tree_with_its_space(store, open_store):
    await store.commit([put("a"), put("b")], base=0)
    fitted = Space("lexical", "fitted", b"\x00other state" * 5_000)
    draft = SemanticTree.empty(fitted, SETTINGS).apply([put("b", seed=9), put("c")])

    published = await store.replace(draft, base=1)
    assert published.version == 2
    for reader in (store, open_store("books")):
        tree = await reader.load()
        assert (tree.version, tree.space) == (2, fitted)
        assert content(tree) == content(draft)
    tree = await open_store("books").commit([put("d")], base=2)
    assert content(await store.load()) == content(tree)


async def test_changes_may_be_carried_over_in_more_steps_than_they_were_made_in(store, open_store):
    tree = await store.commit([put("a"), put("b"), put("c")], base=0)
    draft = tree.at_version(tree.version)
    edits: list[Edit] = [put("a", seed=5), put("b", seed=6), DropItem("c"), put("d")]
    await store.commit(edits, base=1)

    async def carry(draft: SemanticTree, edits: Sequence[Edit]) -> tuple[SemanticTree, list[Edit]]:
        for edit in edits:
            draft = draft.apply([edit])
        return draft, list(edits)

    await store.replace(draft, base=1, carry=carry)
    for reader in (store, open_store("books")):
        found = await reader.load()
        assert list(violations(found)) == []
        assert int(found.allowed(0).sum()) == len(found) == 3


async def test_vectors_have_the_width_of_the_space(store, open_store):
    width = 48
    narrow = Space("lexical", "narrow", b"", width)
    await store.commit([put("wide")], base=0)
    await open_store("books").load()
    first = [put(f"{number}", seed=number, dimensions=width) for number in range(4)]
    await store.replace(SemanticTree.empty(narrow, SETTINGS).apply(first), base=1)
    late = put("late", seed=9, dimensions=width)
    tree = await store.commit([DropItem("0"), late], base=2)
    with pytest.raises(InvalidEdit, match="bytes"):
        await store.commit([put("wide")], base=3)
    await store.compact()
    for reader in (store, open_store("books")):
        found = await reader.load()
        assert found.space == narrow
        assert content(found) == content(tree)
        assert found.rows.vectors[found.row("late")].tobytes() == late.vector
        parts = [part async for part in reader.check_integrity() if part.part != "strays"]
        assert [flaw for part in parts for flaw in part.flaws] == []
    moved = tree_of(frames(tree))
    assert (moved.space, content(moved)) == (narrow, content(tree))
    assert list(violations(moved)) == []


def test_a_snapshot_without_a_width_is_of_256_dimensions():
    header, _ = encoding.encode_tree(SemanticTree.empty(Space("lexical", "narrow", b"", 48)))
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(header))
    assert stored.pop("dimensions") == 48
    assert encoding.read_header(seal(msgspec.msgpack.encode(stored))).dimensions == 256


async def test_changes_end_where_the_log_does(store, open_store):
    for number in range(3):
        await store.commit([DropItem(str(number))], base=number)
    other = open_store("books")
    assert await other.changes(since=1) == [DropItem("1"), DropItem("2")]
    assert await other.changes(since=3) == []
    await store.compact()
    assert await other.changes(since=0) == [DropItem("0"), DropItem("1"), DropItem("2")]
    await store.replace(await store.load(), base=3)
    assert await other.changes(since=4) == []
    for since in (2, 3, 5):
        with pytest.raises(StaleVersion, match=f"back to version {since}"):
            await other.changes(since=since)


async def test_a_dropped_catalogue_takes_nothing_more_and_others_are_left_alone(store, open_store):
    neighbour = open_store("books-2")
    await neighbour.commit([put("a")], base=0)
    reader = open_store("books")
    await store.commit([put("a"), put("b")], base=0)
    await store.stage([item("c")])
    await reader.load()

    await store.drop()
    await store.drop()
    for each in (store, reader, open_store("books")):
        for refused in (
            each.load(),
            each.recent(),
            each.commit([put("new")], base=1),
            each.stage([item("new")]),
            each.replace(SemanticTree.empty(SPACE, SETTINGS), base=1),
            each.items(["a"]),
            each.records(["b"]),
        ):
            with pytest.raises(CatalogDeleted):
                await refused
        assert await each.existing(["a", "b", "c", "new"]) == set()
        assert await gathered(each.staged_ids()) == set()
    assert content(await open_store("books-2").load()).keys() == {"a"}
    assert (await neighbour.items(["a"])).keys() == {"a"}
