"""One text or one habit of an endpoint holds up no other text: what is refused is found."""

from collections.abc import Iterator
from contextlib import closing
from itertools import repeat

import numpy as np
import pytest

from app.embedders import EmbedderCache, EndpointAddress
from app.embedders.openai_model import EmbeddingEndpoint
from tests.app.embedders.conftest import PROBES, serve_shop, store_of
from tests.servers.hostile import MODEL, Behaviour, HostileServer, embedding_of
from tree.errors import EmbedderUnavailable, EmbedderUnusable
from tree.item import Item

TEXTS = [f"{thing} number {n}" for n in range(150) for thing in ("soup", "jazz")]


@pytest.fixture
def endpoint(hostile_server: HostileServer) -> Iterator[EmbeddingEndpoint]:
    with closing(EmbeddingEndpoint(EndpointAddress(hostile_server.base_url, "sk-key"))) as endpoint:
        yield endpoint


def calls(server: HostileServer) -> list[int]:
    """The sizes of all calls, without those of probes."""
    return [len(body["input"]) for body in server.requests if body["input"][0] not in PROBES]


def expected(texts: list[str]) -> np.ndarray:
    return np.stack([embedding_of(text) for text in texts])


# -- a text that makes the endpoint fail


def test_a_text_that_the_endpoint_fails_on_is_found(endpoint, hostile_server, caplog):
    hostile_server.poison = "xyzzy"
    texts = [*TEXTS[:40], "xyzzy soup", *TEXTS[40:]]
    rows = endpoint.open(MODEL).vectors(texts)
    assert not rows[40].any()
    assert np.array_equal(np.delete(rows, 40, axis=0), expected(TEXTS))
    assert "refuses one: the endpoint answers 500" in caplog.text
    assert "xyzzy" not in caplog.text
    assert len(calls(hostile_server)) < 60


def test_who_waits_has_the_other_texts_too(endpoint, hostile_server):
    hostile_server.poison = "xyzzy"
    rows = endpoint.open(MODEL).vectors(["soup", "xyzzy soup", "jazz"], 10.0)
    assert rows.any(axis=1).tolist() == [True, False, True]


def test_a_text_of_which_only_a_part_is_at_fault_is_cut(endpoint, hostile_server):
    hostile_server.poison = "xyzzy"
    long = "soup of the day " * 40 + "xyzzy"
    [row] = endpoint.open(MODEL).vectors([long])
    assert np.array_equal(row, embedding_of(long[: len(long) // 2]))


def test_an_answer_without_numbers_is_no_outage_where_others_have_them(endpoint, hostile_server):
    """Ollama and llama.cpp compute NaN for some texts."""
    hostile_server.play([Behaviour.NO_NUMBERS, *[Behaviour.BROKEN] * 3, Behaviour.WELL_FORMED])
    rows = endpoint.open(MODEL).vectors(["soup", "jazz"])
    assert np.array_equal(rows, expected(["soup", "jazz"]))


def test_an_outage_refuses_no_text(hostile_server):
    hostile_server.play(repeat(Behaviour.BROKEN))
    address = EndpointAddress(hostile_server.base_url, "sk-key")
    with closing(EmbeddingEndpoint(address, tries=5)) as endpoint:
        with pytest.raises(EmbedderUnavailable, match="answers 500") as failure:
            endpoint.open(MODEL).vectors(TEXTS[:100])
        assert not isinstance(failure.value, EmbedderUnusable)
        assert calls(hostile_server) == [100] * 4  # once without base64; then a harmless text
        hostile_server.play(repeat(Behaviour.BROKEN, 4))  # it ends within the tries
        assert endpoint.open(MODEL).vectors(TEXTS[:100]).any(axis=1).all()


async def test_an_import_names_the_items_whose_texts_are_refused(paid, demo_items, caplog):
    paid.server.poison = "xyzzy"
    xyzzy = Item(id="c", title="A xyzzy title", domain="films")
    job = await paid.imported([*demo_items, xyzzy])
    assert job.state == "succeeded", job
    assert job.result["items"] == len(demo_items) + 1
    assert job.result["embeddings"]["refused_items"] == ["c"]
    assert "refuses the texts of 1 items" in caplog.text
    assert "xyzzy title" not in caplog.text
    paid.server.requests.clear()
    rebuilt = await paid.rebuilt()
    assert rebuilt.result["embeddings"]["refused_items"] == ["c"]  # told, and not asked again
    assert paid.texts_asked() == []


async def test_a_single_write_of_such_a_text_succeeds(paid, demo_items):
    await paid.imported(demo_items)
    paid.server.poison = "xyzzy"
    await paid.curator.put([Item(id="c", title="A xyzzy title", domain="films")])
    tree = await paid.store.load()
    assert not tree.rows.vectors[tree.row("c")].any()


async def test_a_refused_text_is_asked_for_again_after_a_day(paid, demo_items):
    paid.server.poison = "xyzzy"
    await paid.imported([*demo_items, Item(id="c", title="A xyzzy title", domain="films")])
    paid.server.poison = "(nothing)"
    await paid.curator.ask_refused_again()
    tree = await paid.store.load()
    assert not tree.rows.vectors[tree.row("c")].any()  # not before a day has passed
    async for key in paid.room.client.scan_iter(match=f"{paid.room.prefix}:*:vector:*"):
        if await paid.room.client.ttl(key) <= 86_400:
            await paid.room.client.unlink(key)
    paid.server.requests.clear()
    await paid.curator.ask_refused_again()
    tree = await paid.store.load()
    assert tree.rows.vectors[tree.row("c")].any()
    assert [text.strip() for text in paid.texts_asked()] == ["A xyzzy title"]
    paid.server.requests.clear()
    await paid.curator.ask_refused_again()
    assert paid.server.requests == []  # nothing is left to ask for


# -- what an endpoint takes


@pytest.mark.parametrize("status", [400, 413, 422, 429])
def test_a_limit_of_texts_is_found_and_kept(endpoint, hostile_server, status):
    hostile_server.most_texts = (40, status)
    model = endpoint.open(MODEL)
    assert np.array_equal(model.vectors(TEXTS), expected(TEXTS))
    hostile_server.requests.clear()
    assert np.array_equal(model.vectors(TEXTS), expected(TEXTS))
    assert len(calls(hostile_server)) <= 300 / 20
    assert max(calls(hostile_server)) <= 40


def test_one_text_that_is_too_long_is_no_limit_of_texts(endpoint, hostile_server):
    hostile_server.longest = 130
    model = endpoint.open(MODEL)
    assert model.vectors([*TEXTS[:20], "soup " * 50]).any(axis=1).all()
    hostile_server.requests.clear()
    model.vectors(TEXTS[:200])
    assert calls(hostile_server) == [200]


def test_an_endpoint_without_base64_is_asked_for_text(endpoint, hostile_server):
    hostile_server.base64 = False
    model = endpoint.open(MODEL)
    assert np.allclose(model.vectors(TEXTS), expected(TEXTS))
    hostile_server.requests.clear()
    assert np.allclose(model.vectors(TEXTS), expected(TEXTS))
    assert sum(calls(hostile_server)) == len(TEXTS)


async def test_what_was_learned_outlives_the_process(room, hostile_server):
    hostile_server.most_texts, hostile_server.base64 = (40, 413), False
    for is_first in (True, False):
        hostile_server.requests.clear()
        address = EndpointAddress(hostile_server.base_url, "sk-key")
        embedders = EmbedderCache(address, store=store_of(room))
        with closing(embedders):
            space = (await embedders.fit_in_thread(f"openai:{MODEL}", TEXTS, 300)).space
            await embedders.encode_batch(space, TEXTS)
        refused = [n for n in calls(hostile_server) if n > 40]
        assert bool(refused) == is_first
        formats = {"encoding_format" in body for body in hostile_server.requests}
        assert (True in formats) == is_first


async def test_a_busy_endpoint_is_not_asked_in_ever_smaller_calls(endpoint, hostile_server):
    hostile_server.play(repeat(Behaviour.BUSY, 9))
    assert endpoint.open(MODEL).vectors(TEXTS).any(axis=1).all()
    hostile_server.requests.clear()
    endpoint.open(MODEL).vectors(TEXTS)
    assert min(calls(hostile_server)[:-1]) >= 16


async def test_another_process_knows_the_refused_texts(paid, demo_items, tmp_path):
    paid.server.poison = "xyzzy"
    await paid.imported([*demo_items, Item(id="c", title="A xyzzy title", domain="films")])
    paid.server.requests.clear()
    async with serve_shop(paid.room, paid.server, tmp_path / "other") as other:
        used = ((await other.rebuilt()).result or {})["embeddings"]
    assert isinstance(used, dict)
    assert used["refused"] == 1
    assert paid.texts_asked() == []


async def test_a_part_of_its_own_does_not_hide_a_refused_text(
    embedded_url, open_room, hostile_server, tmp_path, demo_items
):
    """The vector of such an item is not zero: its spelling is known."""
    name = f"hybrid+openai:{MODEL}"
    hostile_server.poison = "xyzzy"
    async with (
        open_room(embedded_url) as room,
        serve_shop(room, hostile_server, tmp_path, embedder=name) as shop,
    ):
        first = await shop.imported(
            [*demo_items, Item(id="c", title="A xyzzy title", domain="films")]
        )
        assert first.state == "succeeded", first
        shop.server.requests.clear()
        job = await shop.rebuilt()
        assert shop.texts_asked() == []
        used = (job.result or {})["embeddings"]
        assert isinstance(used, dict)
        assert used["refused_items"] == ["c"]
        hostile_server.poison = "(nothing)"
        async for key in room.client.scan_iter(match=f"{room.prefix}:*:vector:*"):
            if await room.client.ttl(key) <= 86_400:
                await room.client.unlink(key)
        before = await shop.store.load()
        then = before.rows.vectors[before.row("c")].copy()
        assert then.any()
        await shop.curator.ask_refused_again()
        after = await shop.store.load()
        assert not np.array_equal(after.rows.vectors[after.row("c")], then)
