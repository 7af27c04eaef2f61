"""The embedder of an endpoint: over a real server, and over one that fails in every way."""

import asyncio
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import repeat

import numpy as np
import pytest

from app.embedders import Embedder, EmbedderCache, EndpointAddress, EndpointTimes
from app.embedders.openai_model import EmbeddingEndpoint
from app.settings import Settings
from tests.servers import llama
from tests.servers.hostile import MODEL, Behaviour, HostileServer, embedding_of
from tree.errors import EmbedderUnavailable, EmbedderUnusable
from tree.node import Space
from tree.vectors import DIMENSIONS, cosines, inverse_norms

KEY = "sk-a-secret"
TIMES = EndpointTimes(pause_s=0.5, fair_s=0.2)
TEXTS = [f"{thing} for {who} number {n}" for n in range(40) for thing in ("soup", "jazz")
         for who in ("children", "poets")]  # fmt: skip


@pytest.fixture
def endpoint(hostile_server: HostileServer) -> Iterator[EmbeddingEndpoint]:
    address = EndpointAddress(hostile_server.base_url, KEY)
    with closing(EmbeddingEndpoint(address, times=TIMES)) as endpoint:
        yield endpoint


@pytest.fixture
def embedders(hostile_server: HostileServer) -> Iterator[EmbedderCache]:
    address = EndpointAddress(hostile_server.base_url, KEY)
    with closing(EmbedderCache(address, times=TIMES)) as embedders:
        yield embedders


@pytest.fixture
def embedder(embedders: EmbedderCache) -> Embedder:
    return embedders.fit(f"openai:{MODEL}", TEXTS, 500)


# -- a real server


@pytest.fixture(scope="module")
def real(llama_embeddings_url: str) -> Iterator[EmbedderCache]:
    with closing(EmbedderCache(EndpointAddress(llama_embeddings_url))) as embedders:
        yield embedders


def test_a_real_server_embeds_a_catalogue(real):
    embedder = real.fit(f"openai:{llama.MODEL}", TEXTS, 500)
    vectors = embedder.encode([*TEXTS, "", " \n"])
    assert vectors.shape == (len(TEXTS) + 2, DIMENSIONS)
    assert vectors.any(axis=1).tolist() == [True] * len(TEXTS) + [False] * 2
    near = cosines(vectors[:-2], inverse_norms(vectors[:-2]), embedder.encode(TEXTS[7:8]))
    assert near.argmax() == 7
    again = real.of(Space("openai", "there and back", bytes(embedder.space.state)))
    assert again.population == 500
    assert np.array_equal(again.encode(TEXTS), vectors[:-2])


def test_a_text_that_is_too_long_for_a_real_server_is_cut_alone(real):
    embedder = real.fit(f"openai:{llama.MODEL}", TEXTS, 500)
    long = "tomato soup " * 5_000  # llama.cpp takes 512 tokens
    together = embedder.encode([*TEXTS, long])
    assert together.any(axis=1).all()
    assert np.array_equal(together[-1:], embedder.encode([long]))
    assert np.array_equal(together[:-1], embedder.encode(TEXTS))


# -- a server of which all is known


def test_cosines_are_those_of_the_model(embedder):
    exact = np.stack([embedding_of(text) for text in TEXTS])
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    vectors = embedder.encode(TEXTS)
    near = cosines(vectors, inverse_norms(vectors), vectors)
    assert np.abs(near - exact @ exact.T).max() < 0.03


def test_many_texts_go_in_few_calls_and_come_back_in_order(embedder, hostile_server):
    texts = [f"{text} of {n}" for n in range(9) for text in TEXTS]
    hostile_server.counts.clear()
    many = embedder.encode(texts)
    assert hostile_server.counts.total() == -(-len(texts) // 256) + 1  # 1,024 are one turn
    assert max(len(body["input"]) for body in hostile_server.requests) <= 257
    for at in (0, 255, 256, len(texts) - 1):
        assert np.array_equal(embedder.encode([texts[at]])[0], many[at])


def test_what_says_nothing_is_not_asked_for(embedder, hostile_server):
    hostile_server.counts.clear()
    assert not embedder.encode(["", " ", "\n"]).any()
    assert not hostile_server.counts


def test_a_text_has_the_same_vector_in_any_company_though_it_is_too_long(embedder, hostile_server):
    hostile_server.longest = 900
    texts = [*TEXTS, "a long story of soup " * 90, *TEXTS]
    vectors = embedder.encode(texts)
    assert np.array_equal(vectors[len(TEXTS)], embedder.encode([texts[len(TEXTS)]])[0])
    assert np.array_equal(vectors[: len(TEXTS)], vectors[len(TEXTS) + 1 :])
    assert vectors.any(axis=1).all()


def test_an_endpoint_that_takes_no_text_at_all_is_named(embedder, hostile_server):
    hostile_server.longest = 2
    with pytest.raises(EmbedderUnusable, match="accepts no text"):
        embedder.encode(["something longer than that"])


def test_a_text_that_is_refused_says_nothing_and_holds_up_nobody(embedder, hostile_server, caplog):
    expected = embedder.encode(TEXTS)
    hostile_server.unwanted = "secret"
    private = [*TEXTS[:50], f"my secret, {KEY}", *TEXTS[50:]]
    vectors = embedder.encode(private)
    assert not vectors[50].any()
    assert np.array_equal(np.delete(vectors, 50, axis=0), expected)
    assert "(content_filter)" in caplog.text
    assert "secret" not in caplog.text


def test_a_refusal_of_every_text_says_nothing_of_them_or_the_key(embedder, hostile_server, caplog):
    hostile_server.unwanted = ""
    with pytest.raises(
        EmbedderUnusable, match=r"accepts no text: 400 \(content_filter\)"
    ) as failure:
        embedder.encode([f"my words {n}" for n in range(300)])
    for said in (str(failure.value), caplog.text):
        assert KEY not in said
        assert "my words" not in said


MENDED = (
    Behaviour.BUSY, Behaviour.BUSY_RETRY_SOON, Behaviour.BROKEN, Behaviour.UNAVAILABLE,
    Behaviour.RESET, Behaviour.HALF_BODY, Behaviour.HTML, Behaviour.FEWER_VECTORS,
    Behaviour.NO_NUMBERS, Behaviour.UNEVEN_WIDTHS,
)  # fmt: skip


@pytest.mark.parametrize("behaviour", MENDED)
def test_who_has_time_waits_for_a_good_answer(embedder, hostile_server, behaviour):
    expected = embedder.encode(TEXTS)
    hostile_server.counts.clear()
    hostile_server.play([behaviour, behaviour])
    assert np.array_equal(embedder.encode(TEXTS), expected)
    assert hostile_server.counts == {behaviour: 2, Behaviour.WELL_FORMED: 1}


def test_answers_in_another_order_are_put_in_order(embedder, hostile_server):
    expected = embedder.encode(TEXTS)
    hostile_server.play([Behaviour.OTHER_ORDER])
    assert np.array_equal(embedder.encode(TEXTS), expected)


def test_a_lasting_outage_ends_in_words(hostile_server):
    hostile_server.play(repeat(Behaviour.BROKEN))
    with closing(
        EmbeddingEndpoint(EndpointAddress(hostile_server.base_url, KEY), tries=4)
    ) as endpoint:
        model = endpoint.open(MODEL)
        with pytest.raises(EmbedderUnavailable, match="the endpoint answers 500"):
            model.vectors(TEXTS)
    assert hostile_server.counts == {Behaviour.BROKEN: 5}  # one of them without base64


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (Behaviour.UNAUTHORIZED, "401"),
        (Behaviour.UNKNOWN_MODEL, "404"),
        (Behaviour.OUT_OF_QUOTA, "used up"),
        (Behaviour.MOVED, "it has moved"),
    ],
)
def test_what_no_try_mends_is_told_at_once(endpoint, hostile_server, behaviour, said):
    hostile_server.play(repeat(behaviour))
    with pytest.raises(EmbedderUnavailable, match=said) as failure:
        endpoint.open(MODEL).vectors(["my private words"])
    ours = behaviour is not Behaviour.OUT_OF_QUOTA
    assert isinstance(failure.value, EmbedderUnusable) == ours
    assert KEY not in str(failure.value)
    assert "private" not in str(failure.value)
    assert hostile_server.counts.total() == 1
    assert hostile_server.followed == []  # texts and keys go nowhere else


def test_another_model_in_its_place_is_refused(embedders, embedder, hostile_server):
    state = bytes(embedder.space.state)
    for number, behaviour in enumerate((Behaviour.OTHER_WIDTH, Behaviour.WELL_FORMED)):
        other = embedders.of(Space("openai", f"new {number}", state))
        hostile_server.play([behaviour])
        if behaviour is Behaviour.OTHER_WIDTH:
            with pytest.raises(EmbedderUnusable, match="not the model"):
                other.encode(["soup"])
        else:
            assert other.encode(["soup"]).any()


# -- somebody waits


async def test_who_waits_hears_in_time_and_then_at_once(embedders, embedder, hostile_server):
    hostile_server.play(repeat(Behaviour.HANG))
    for number in range(3):
        began = time.monotonic()
        with pytest.raises(EmbedderUnavailable):
            await embedders.encode_interactive(embedder.space, [f"words {number}"], 0.3)
        assert time.monotonic() - began < 1.3
    deadline = time.monotonic() + 20
    while True:
        await asyncio.sleep(0.1)  # the thread hears of its own timeout after its caller does
        began = time.monotonic()
        with pytest.raises(EmbedderUnavailable, match=r"pausing|within") as failure:
            await embedders.encode_interactive(embedder.space, ["more words"], 1.0)
        if "pausing" in str(failure.value):
            break
        assert time.monotonic() < deadline
    assert time.monotonic() - began < 0.5
    hostile_server.play([])
    deadline = time.monotonic() + 20
    while True:
        try:
            assert (await embedders.encode_interactive(embedder.space, ["words again"], 1.0)).any()
            break
        except EmbedderUnavailable:
            assert time.monotonic() < deadline


@pytest.mark.parametrize("behaviour", [Behaviour.DRIP, Behaviour.HANG])
def test_an_answer_that_does_not_end_is_given_up_in_its_thread(endpoint, hostile_server, behaviour):
    model = endpoint.open(MODEL)
    hostile_server.play(repeat(behaviour))
    began = time.monotonic()
    for number in range(3):
        with pytest.raises(EmbedderUnavailable, match=r"within 0\.3 s"):
            model.vectors([f"words {number}"], 0.3)
    assert time.monotonic() - began < 3
    with pytest.raises(EmbedderUnavailable, match="pausing"):
        model.vectors(["more words"], 0.3)


async def test_a_check_ends_though_the_answer_does_not(embedders, hostile_server):
    hostile_server.play(repeat(Behaviour.DRIP))
    began = time.monotonic()
    with pytest.raises(EmbedderUnavailable) as failure:
        await embedders.check(f"openai:{MODEL}", 1.0)
    assert not isinstance(failure.value, EmbedderUnusable)
    assert time.monotonic() - began < 3


def test_who_waits_for_many_texts_has_them_read_side_by_side(endpoint, hostile_server):
    hostile_server.together = 3
    texts = [f"{text} of {n}" for n in range(4) for text in TEXTS]
    vectors = endpoint.open(MODEL).vectors(texts, 10.0)
    assert len(vectors) == len(texts)
    assert hostile_server.counts == {Behaviour.WELL_FORMED: 3}


def test_closing_ends_what_is_under_way(hostile_server):
    hostile_server.play(repeat(Behaviour.HANG))
    endpoint = EmbeddingEndpoint(EndpointAddress(hostile_server.base_url, KEY))
    model = endpoint.open(MODEL)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(model.vectors, ["words"])
        deadline = time.monotonic() + 10
        while not hostile_server.counts:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        endpoint.close()
        with pytest.raises(EmbedderUnavailable, match="closed"):
            asking.result(10)
    with pytest.raises(EmbedderUnavailable, match="closed"):
        model.vectors(["words"])


async def test_a_failure_that_passes_soon_is_waited_for(embedders, embedder, hostile_server):
    hostile_server.play([Behaviour.BUSY_RETRY_SOON])
    expected = embedder.encode(["soup"])
    hostile_server.play([Behaviour.BUSY_RETRY_SOON])
    assert np.array_equal(
        await embedders.encode_interactive(embedder.space, ["soup"], 5.0), expected
    )


async def test_words_that_come_again_are_known(embedders, embedder, hostile_server):
    said = ["soup for poets", "jazz", "soup for poets"]
    first = await embedders.encode_interactive(embedder.space, said, 5.0)
    assert np.array_equal(first[0], first[2])
    hostile_server.counts.clear()
    assert np.array_equal(await embedders.encode_interactive(embedder.space, said, 5.0), first)
    assert (await embedders.encode_interactive(embedder.space, [], 5.0)).shape == (0, DIMENSIONS)
    assert not hostile_server.counts


async def test_nobody_listens():
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    embedders = EmbedderCache(EndpointAddress(f"http://127.0.0.1:{port}/v1"))
    with closing(embedders), pytest.raises(EmbedderUnavailable, match="no connection") as failure:
        await embedders.check("openai:any", 1.0)
    assert not isinstance(failure.value, EmbedderUnusable)


# -- access


async def test_without_an_endpoint_it_says_what_to_set(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    embedders, says = EmbedderCache(Settings().embedder_endpoint), "UNILLMREC_EMBEDDER_BASE_URL"
    with closing(embedders), pytest.raises(EmbedderUnusable, match=says):
        await embedders.check("openai:any", 1.0)


@pytest.mark.parametrize(
    ("elsewhere", "own_key", "sent"),
    [
        (False, None, "of the chat"),
        (False, "of the embedder", "of the embedder"),
        (True, None, "none"),
        (True, "of the embedder", "of the embedder"),
    ],
)
def test_a_key_goes_only_where_it_was_given_for(hostile_server, elsewhere, own_key, sent):
    settings = Settings(
        llm_base_url="http://127.0.0.1:1/v1" if elsewhere else hostile_server.base_url,
        llm_api_key="of the chat",
        embedder_base_url=hostile_server.base_url if elsewhere else None,
        embedder_api_key=own_key,
    )
    with closing(EmbeddingEndpoint(settings.embedder_endpoint)) as endpoint:
        endpoint.open(MODEL).vectors(["soup"])
    assert hostile_server.keys == {sent}


def test_tokens_are_counted(endpoint):
    model = endpoint.open(MODEL)
    model.vectors(["three small words", "two more"])
    assert endpoint.spending.usage[MODEL].tokens == 5
