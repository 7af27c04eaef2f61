"""The kinds `hybrid+…`: spelling beside the vectors of a text model."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from app.embedders import EmbedderCache, EndpointAddress, EndpointTimes, embedder_for
from app.embedders.hybrid_model import HybridModelEmbedder, HybridModelKind
from app.embedders.text_model import TextModelKind
from tests.servers.hostile import MODEL, HostileServer, embedding_of
from tree.errors import EmbedderUnavailable, EmbedderUnusable
from tree.passage import Passage
from tree.vectors import DIMENSIONS, FloatArray, cosines, inverse_norms

TEXTS = [f"{what} number {n}" for n in range(40) for what in ("soup", "lamp", "rake", "novel")]
MEANING = slice(96, DIMENSIONS)


WORDS = {"soup": 0, "meal": 0, "lamp": 1, "light": 1, "rake": 2, "garden": 2, "novel": 3}


class Topics:
    """See TextModel: knows of each word which of some topics it belongs to, in any language."""

    def __init__(self, width: int, turned: bool = False) -> None:
        self.width = width
        self.turned = turned
        self.gone = False
        self.read: list[str] = []

    def vectors(self, texts: Sequence[str], timeout_s: float | None = None) -> FloatArray:
        if self.gone:
            raise EmbedderUnavailable("the model is gone")
        assert texts
        assert all(text.strip() for text in texts)
        self.read += texts
        found = np.full((len(texts), self.width), 0.01, np.float32)
        for row, text in zip(found, texts, strict=True):
            for word in text.lower().split():
                topic = WORDS.get(word, sum(word.encode()) % (self.width - 4) + 4)
                row[-1 - topic if self.turned else topic] += 3 if word in WORDS else 0.5
        return found


def kind_of(model: Topics) -> HybridModelKind:
    return HybridModelKind(TextModelKind("topics", lambda _: model, is_local=True))


@pytest.fixture(params=[64, 160, 384], ids=lambda width: f"{width} dimensions")
def model(request: pytest.FixtureRequest) -> Topics:
    return Topics(request.param)


@pytest.fixture
def embedder(model: Topics) -> HybridModelEmbedder:
    return kind_of(model).fit("m", TEXTS, 1_000, seed=0)


def similar(embedder: HybridModelEmbedder, wish: str, passages: Sequence[Any]) -> np.ndarray:
    rows = embedder.encode(passages)
    wishes = embedder.encode([Passage(wish, is_wish=True)])
    return cosines(rows, inverse_norms(rows), wishes)[:, 0]


def test_a_wish_finds_what_it_means_and_what_it_spells(embedder):
    texts = ["A rake of steel", "Lamp", "Soup", "Zyxomma"]
    assert similar(embedder, "something for the garden", texts).argmax() == 0
    assert similar(embedder, "a light", texts).argmax() == 1
    assert similar(embedder, "zyxomma", texts).argmax() == 3


def test_meaning_counts_more_for_a_wish_and_more_than_in_hybrid(embedder):
    words = "soup number three"
    rows = embedder.encode([words, Passage(words, is_wish=True)]).astype(float) ** 2
    shares = rows[:, MEANING].sum(axis=1) / rows.sum(axis=1)
    assert shares == pytest.approx([0.7, 0.9], abs=0.01)


def test_the_line_counts_as_much_as_the_text_and_is_read_apart(model, embedder):
    long = "soup " * 30
    bare, told = embedder.encode([long, Passage(long, "for the garden")])
    assert model.read[-2:] == [long, "for the garden"]
    soup, garden = embedder.encode(["soup", "garden"]).astype(np.float32)[:, MEANING]
    before, after = (row.astype(np.float32)[MEANING] for row in (bare, told))
    assert abs(before @ garden) < 0.2 * (before @ soup)
    assert after @ garden > 0.4 * (after @ soup)


def test_blank_texts_are_not_sent_and_have_no_vector(model, embedder):
    embedder.encode(["a first text, after which the model is known"])
    model.read.clear()
    rows = embedder.encode(["", " \n", Passage("", is_wish=True), "soup", Passage(" ", "a lamp")])
    assert rows.any(axis=1).tolist() == [False, False, False, True, True]
    assert model.read == ["soup", "a lamp"]
    assert embedder.encode([]).shape == (0, DIMENSIONS)


def test_the_state_goes_there_and_back(model, embedder):
    again = embedder_for(embedder.space, [kind_of(model)])
    assert embedder.space.embedder == "hybrid+topics"
    assert again.population == 1_000
    assert not again.is_fast
    assert np.array_equal(again.encode(TEXTS), embedder.encode(TEXTS))
    assert kind_of(model).fit("m", TEXTS, 1_000, seed=0).space == embedder.space


def test_a_few_texts_are_enough_to_begin_with(model):
    few = kind_of(model).fit("m", TEXTS[:5], 5, seed=0)
    assert similar(few, "a light", ["Soup", "Lamp"]).argmax() == 1


def test_another_model_in_its_place_is_refused(model, embedder):
    other = embedder_for(embedder.space, [kind_of(Topics(model.width, turned=True))])
    with pytest.raises(EmbedderUnusable, match="'topics:m' is not the model"):
        other.encode(["soup"])
    narrower = embedder_for(embedder.space, [kind_of(Topics(32))])
    with pytest.raises(EmbedderUnusable, match="is not the model"):
        narrower.encode(["soup"])


def test_an_outage_is_an_outage(model, embedder):
    model.gone = True
    with pytest.raises(EmbedderUnavailable, match="gone"):
        embedder.encode(["soup"])


@pytest.fixture
def endpoint(hostile_server: HostileServer) -> Iterator[EmbedderCache]:
    address = EndpointAddress(hostile_server.base_url, "sk-a-secret")
    with closing(EmbedderCache(address, times=EndpointTimes(pause_s=0.5, fair_s=0.2))) as found:
        yield found


async def test_an_endpoint_is_asked_for_what_the_words_mean(endpoint, hostile_server):
    name = f"hybrid+openai:{MODEL}"
    await endpoint.check(name, 30)
    space = (await endpoint.fit_in_thread(name, TEXTS, len(TEXTS))).space
    assert space.embedder == "hybrid+openai"
    rows = await endpoint.encode_interactive(space, ["soup", "lamp"], 30)
    exact = np.stack([embedding_of(text) for text in ("soup", "lamp")])
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    meant = rows[:, MEANING].astype(np.float32)
    meant /= np.linalg.norm(meant, axis=1, keepdims=True)
    assert float(meant[0] @ meant[1]) == pytest.approx(float(exact[0] @ exact[1]), abs=0.15)
