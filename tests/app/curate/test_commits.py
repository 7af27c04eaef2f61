"""Commits that are decided again when another writer was faster."""

from collections.abc import AsyncIterator

import pytest

from app.curate.commits import Decision, commit_until_won
from app.embedders import LexicalEmbedder
from tree.edits import PutItem, Relabel
from tree.errors import StaleVersion, UnknownNode
from tree.item import Item
from tree.node import ROOT
from tree.snapshot import SemanticTree
from tree.store.redis_store import RedisTreeStore

SPACE = LexicalEmbedder().space


def put(number: int) -> PutItem:
    item = Item(id=f"i{number}", title=f"Thing {number}")
    return PutItem(item.id, ROOT, bytes(256), record=item.record())


@pytest.fixture
async def stores(embedded_url, open_room) -> AsyncIterator[list[RedisTreeStore]]:
    """One catalogue as two processes have it."""
    async with open_room(embedded_url) as room:
        stores = [
            RedisTreeStore(room.client, "shop", space=SPACE, prefix=room.prefix) for _ in range(2)
        ]
        yield stores
        for store in stores:
            await store.aclose()


async def overtake(store: RedisTreeStore, number: int) -> None:
    await store.commit([put(number)], base=(await store.load()).version)


async def test_what_wins_at_once_is_decided_once(stores):
    seen: list[int] = []

    async def decide(tree: SemanticTree) -> Decision[str]:
        seen.append(tree.version)
        return Decision([put(1)], "done")

    tree, decision = await commit_until_won(stores[0], decide)
    assert (seen, decision.result) == ([0], "done")
    assert (tree.version, "i1" in tree) == (1, True)
    assert await stores[1].load() is not tree
    assert "i1" in await stores[1].load()


async def test_whoever_is_overtaken_decides_again_on_the_newest_tree(stores):
    seen: list[set[str]] = []

    async def decide(tree: SemanticTree) -> Decision[int]:
        seen.append(set(tree.item_ids()))
        if len(seen) < 4:
            await overtake(stores[1], len(seen))
        return Decision([put(9)], len(seen))

    tree, decision = await commit_until_won(stores[0], decide)
    assert seen == [set(), {"i1"}, {"i1", "i2"}, {"i1", "i2", "i3"}]
    assert decision.result == 4
    assert set(tree.item_ids()) == {"i1", "i2", "i3", "i9"}


async def test_nothing_is_committed_when_there_is_nothing_to_do(stores):
    await overtake(stores[1], 1)

    async def decide(tree: SemanticTree) -> Decision[bool]:
        return Decision((), "i1" in tree)

    tree, decision = await commit_until_won(stores[0], decide)
    assert (tree.version, decision.result) == (1, True)
    assert (await stores[1].load()).version == 1


async def test_an_error_of_the_decision_is_raised_and_nothing_committed(stores):
    async def decide(tree: SemanticTree) -> Decision[None]:
        return Decision([Relabel(tree.node(7).id, "Seven", "")], None)

    with pytest.raises(UnknownNode):
        await commit_until_won(stores[0], decide)
    assert (await stores[1].load()).version == 0


async def test_whoever_is_always_overtaken_gives_up(stores):
    calls: list[int] = []

    async def decide(tree: SemanticTree) -> Decision[None]:
        calls.append(tree.version)
        await overtake(stores[1], len(calls))
        return Decision([put(9)], None)

    with pytest.raises(StaleVersion, match="lost 3 races"):
        await commit_until_won(stores[0], decide, attempts=3)
    assert calls == [0, 1, 2]
    assert "i9" not in await stores[1].load()


async def test_after_lost_races_no_other_process_can_commit(stores):
    overtaken: list[bool] = []

    async def decide(_: SemanticTree) -> Decision[None]:
        try:
            await overtake(stores[1], len(overtaken))
        except StaleVersion:
            overtaken.append(False)
        else:
            overtaken.append(True)
        return Decision([put(9)], None)

    await commit_until_won(stores[0], decide, lock_after=2)
    assert overtaken == [True, True, False]
    assert set((await stores[1].load()).item_ids()) == {"i0", "i1", "i9"}
