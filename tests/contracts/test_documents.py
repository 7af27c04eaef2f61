"""Every implementation of Documents keeps, lists and forgets alike."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from app.storage.documents import Documents, MemoryDocuments
from app.storage.keys import DocumentKeys, DocumentKind
from app.storage.redis_documents import RedisDocuments
from tree.errors import CorruptSnapshot

ODD_ID = 'a/b {x}:at: *?[] "quoted" \U0001f600'


@pytest.fixture(params=["embedded_url", "tcp_url", "memory"])
def server_url(request):
    return None if request.param == "memory" else request.getfixturevalue(request.param)


@pytest.fixture
async def documents(server_url, open_room) -> AsyncIterator[Documents]:
    if server_url is None:
        yield MemoryDocuments()
    else:
        async with open_room(server_url) as room:
            yield RedisDocuments(room.client, prefix=room.prefix)


async def listed(documents: Documents, kind) -> dict[str, bytes]:
    return {document_id: data async for document_id, data in documents.list(kind)}


async def test_a_document_is_kept_by_kind_and_id(documents):
    await documents.put("job", ODD_ID, b"{}", 60)
    await documents.put("job", "second", b"2", 60)
    await documents.put("trace", ODD_ID, b"trace", 60)
    await documents.put("catalog", "books", b"permanent", None)

    assert await documents.get("job", ODD_ID) == b"{}"
    assert await documents.get("trace", ODD_ID) == b"trace"
    assert await documents.get("trace", "second") is None
    assert await listed(documents, "job") == {ODD_ID: b"{}", "second": b"2"}
    assert await listed(documents, "catalog") == {"books": b"permanent"}


async def test_put_replaces_and_put_new_does_not(documents):
    assert await documents.put_new("job", "a", b"1", 60)
    assert not await documents.put_new("job", "a", b"2", 60)
    assert await documents.get("job", "a") == b"1"
    await documents.put("job", "a", b"3", 60)
    assert await listed(documents, "job") == {"a": b"3"}


async def test_delete_says_whether_there_was_one(documents):
    await documents.put("catalog", "books", b"1", None)
    assert await documents.delete("catalog", "books")
    assert not await documents.delete("catalog", "books")
    assert await listed(documents, "catalog") == {}


async def test_swap_replaces_and_removes_only_what_it_was_told(documents):
    await documents.put("catalog", "books", b"1", None)
    assert not await documents.swap("catalog", "books", b"0", b"2")
    assert not await documents.swap("catalog", "films", b"1", b"2")
    assert not await documents.swap("catalog", "books", None, b"2"), "it is not damaged"
    assert await documents.swap("catalog", "books", b"1", b"2")
    assert await listed(documents, "catalog") == {"books": b"2"}
    assert not await documents.swap("catalog", "books", b"1", None)
    assert await documents.swap("catalog", "books", b"2", None)
    assert await documents.get("catalog", "books") is None
    assert await documents.ids("catalog") == []


async def test_the_last_to_expire_is_listed_first(documents):
    for number in range(450):
        await documents.put("trace", str(number), b"", 1_000 + number)
    order = [int(document_id) async for document_id, _ in documents.list("trace")]
    assert order == sorted(range(450), reverse=True)


async def test_an_expired_document_is_gone_everywhere(documents):
    await documents.put("job", "short", b"1", 0.02)
    await documents.put("job", "long", b"2", 60)
    deadline = time.monotonic() + 5
    while await documents.get("job", "short") is not None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
    assert await listed(documents, "job") == {"long": b"2"}
    assert not await documents.delete("job", "short")
    assert await documents.put_new("job", "short", b"again", 60)


@pytest.mark.parametrize(("kind", "ttl_s"), [("job", None), ("trace", 0), ("catalog", 60)])
async def test_a_ttl_must_fit_its_kind(documents, kind, ttl_s):
    with pytest.raises(ValueError, match=f"documents of kind '{kind}'"):
        await documents.put(kind, "a", b"", ttl_s)
    with pytest.raises(ValueError, match=f"documents of kind '{kind}'"):
        await documents.put_new(kind, "a", b"", ttl_s)
    assert await documents.get(kind, "a") is None


async def test_a_damaged_document_is_not_taken_for_a_whole_one(embedded_url, open_room, caplog):
    async with open_room(embedded_url) as room:
        documents = RedisDocuments(room.client, prefix=room.prefix)
        kinds: tuple[tuple[DocumentKind, float | None], ...] = (("job", 60), ("catalog", None))
        for kind, ttl_s in kinds:
            await documents.put(kind, "whole", b"1", ttl_s)
            await documents.put(kind, "damaged", b"2", ttl_s)
            key = DocumentKeys(kind, room.prefix).document("damaged")
            await room.client.setrange(key, 4, b"3")
        await documents.put("catalog", "lost", b"4", None)
        await room.client.unlink(DocumentKeys("catalog", room.prefix).document("lost"))
        await documents.put("catalog", "unlisted", b"5", None)
        await room.client.zrem(DocumentKeys("catalog", room.prefix).index, "unlisted")

        assert await documents.get("job", "damaged") is None
        assert await listed(documents, "job") == {"whole": b"1"}
        assert "the job document 'damaged' is damaged: it counts as gone" in caplog.text
        with pytest.raises(CorruptSnapshot, match="the catalog document 'damaged' is damaged"):
            await documents.get("catalog", "damaged")
        assert (await listed(documents, "catalog")).keys() == {"whole"}
        assert "the catalog document 'damaged' is damaged: it is left out" in caplog.text
        looked = [found async for found in documents.flaws()]
        assert sum(count for count, _ in looked) == 5
        assert {flaw for _, flaws in looked for flaw in flaws} == {
            "the job document 'damaged' is damaged",
            "the catalog document 'damaged' is damaged",
            "the catalog document 'lost' is missing",
            "the catalog document 'unlisted' is in no list",
        }
        assert set(await documents.ids("catalog")) == {"whole", "damaged", "lost"}
        assert not await documents.swap("catalog", "whole", None, b"6")
        assert await documents.swap("catalog", "damaged", None, b"6")
        assert await documents.get("catalog", "damaged") == b"6"
