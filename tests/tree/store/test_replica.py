"""Readers of the newest version, while the catalogue is dropped or closed under them."""

import asyncio
from functools import partial

import pytest

from tests.tree.store.support import PATIENCE_S, SETTINGS, SPACE, put
from tree.errors import StoreUnavailable
from tree.snapshot import SemanticTree
from tree.store.replica import TreeReplica
from tree.store.snapshots import Snapshots


@pytest.fixture
async def newest(room, keys, open_store) -> TreeReplica:
    """It knows of version 1 while version 2 is there."""
    store = open_store()
    await store.commit([put("a")], base=0)
    empty = partial(SemanticTree.empty, SPACE, SETTINGS)
    newest = TreeReplica(room.client, keys, Snapshots(room.client, keys, 1), empty)
    async with newest.lock:
        await newest.refresh()
    await store.commit([put("b")], base=1)
    return newest


async def test_a_reader_to_whom_nothing_is_left_waits_for_what_is_there(newest):
    async with newest.lock:
        reader = asyncio.create_task(newest.recent())
        await asyncio.sleep(0)  # it asks for the head now
        newest.known = None
        done, _ = await asyncio.wait([reader], timeout=0.2)
        assert not done, "there is no version before"
    assert (await reader).tree.version == 2


async def test_whoever_waits_for_what_is_closed_is_told_to_come_again(newest):
    newest.known = None
    async with newest.lock, asyncio.timeout(PATIENCE_S):
        reader = asyncio.create_task(newest.recent())
        while not reader.done():
            await newest.aclose()
            await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="retry"):
        await reader
