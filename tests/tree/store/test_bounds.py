"""Nothing in the store grows for ever: logs, snapshots, documents and their indices."""

import time
from collections import Counter
from datetime import date

import pytest

from app.storage.attribution import ShownList
from app.storage.feedback import Event, User
from app.storage.keys import (
    ATTRIBUTION_ROLES,
    DOCUMENT_KINDS,
    FEEDBACK_ROLES,
    VECTOR_ROLES,
    DocumentKeys,
    classify,
    document_lifetime,
)
from app.storage.redis_attribution import RedisAttribution
from app.storage.redis_documents import RedisDocuments
from app.storage.redis_feedback import RedisFeedback
from app.storage.vectors import RedisVectors
from tests.tree.store.support import put
from tree.edits import DropItem
from tree.item import Item
from tree.redis.keys import Lifetime
from tree.store.keys import TREE_ROLES
from tree.store.protocol import Checkpoint
from tree.store.redis_store import LOG_ENTRIES

KINDS = sorted(DOCUMENT_KINDS)
EXPIRING = [kind for kind in KINDS if document_lifetime(kind) is Lifetime.EXPIRING]
HOUR_S = 3_600


async def test_the_log_stays_short_whatever_is_committed(room, keys, open_store):
    """Each batch is long enough to have the log compacted behind it."""
    store, longest = open_store(), 0
    for number in range(0, 24, 2):
        await store.commit([DropItem("nobody") for _ in range(LOG_ENTRIES + 1)], base=number)
        await store.commit([put("a")], base=number + 1)
        await store.aclose()
        longest = max(longest, await room.client.xlen(keys.log))
    assert 0 < longest <= 6
    found = [key async for key in room.client.scan_iter(match=keys.snapshot("*"), count=1_000)]
    assert len(found) > 3
    assert len([key for key in found if await room.client.ttl(key) == -1]) == 1


@pytest.mark.parametrize("kind", EXPIRING)
async def test_an_index_forgets_what_has_expired(room, kind):
    documents = RedisDocuments(room.client, prefix=room.prefix)
    index = DocumentKeys(kind, room.prefix).index
    await documents.put(kind, "long ago", b"1", 60)
    await room.client.zadd(index, {"long ago": time.time() - HOUR_S - 1})
    await documents.put(kind, "now", b"2", 60)
    assert await room.client.zrange(index, 0, -1) == [b"now"]


@pytest.mark.parametrize("kind", EXPIRING)
async def test_an_index_ends_after_the_last_of_its_documents(room, kind):
    documents = RedisDocuments(room.client, prefix=room.prefix)
    index = DocumentKeys(kind, room.prefix).index
    await documents.put(kind, "long", b"1", 5 * HOUR_S)
    await documents.put(kind, "short", b"2", 0.5)
    assert 6 * HOUR_S - 60 < await room.client.ttl(index) <= 6 * HOUR_S + 2
    await documents.put("catalog", "books", b"stays", None)
    assert await room.client.ttl(DocumentKeys("catalog", room.prefix).index) == -1


async def test_every_declared_key_comes_about_and_lasts_as_long_as_it_may(room, keys, open_store):
    """A role that is declared and never written would be one that the leak check never sees."""
    store, documents = open_store(), RedisDocuments(room.client, prefix=room.prefix)
    await store.stage([Item(id="b", title="Title")], Checkpoint("import", b"line 1"))
    await store.commit([put("a")], base=0)
    for kind in KINDS:
        stays = document_lifetime(kind) is Lifetime.PERMANENT
        await documents.put(kind, "one", b"{}", None if stays else 60)
    await room.client.set(keys.compacting, b"", ex=60)
    feedback = RedisFeedback(room.client, "books", prefix=room.prefix)
    await feedback.put_user("u", User(profile="likes sand"))
    await feedback.record([Event(item, "u", item, at, "view") for at, item in enumerate("abc")])
    await feedback.forget_items(["c"])
    await feedback.add_document("u", "trace one", 60)
    attribution = RedisAttribution(room.client, "books", prefix=room.prefix)
    labels = ("default", "beam", "economy", "home", "no")
    await attribution.keep(ShownList("r", date(2026, 12, 1), 0, labels, 1, ["a"]), 60)
    vectors = RedisVectors(room.client, "books", prefix=room.prefix)
    await vectors.put({"a text": b"1"}, 60)
    await vectors.add_refused(["a"], 60)

    seen: Counter[tuple[str, str]] = Counter()
    async with store.bulk_write_lease():
        async for key in room.client.scan_iter(match=f"{room.prefix}:*", count=1_000):
            tag, lifetime = classify(key.decode(), room.prefix)
            seen[tag, key.decode().split("}:")[1].partition(":")[0]] += 1
            assert (await room.client.ttl(key) == -1) == (lifetime is not Lifetime.EXPIRING)
    wanted = {
        ("books", role) for role in TREE_ROLES | FEEDBACK_ROLES | ATTRIBUTION_ROLES | VECTOR_ROLES
    }
    wanted |= {(f"document.{kind}", role) for kind in KINDS for role in ("at", "index")}
    assert seen.keys() == wanted
