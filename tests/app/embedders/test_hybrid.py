"""The hybrid embedder: wishes find what they mean, and names are still found."""

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from app.embedders import Embedder, HybridEmbedder, LexicalEmbedder, embedder_for, first_space
from tree.errors import EmbedderUnusable
from tree.passage import Passage
from tree.vectors import DIMENSIONS, cosines, inverse_norms

ITEMS = {
    "chiller": "A haunted house terrifies a young family; chilling suspense without gore",
    "race": "NASCAR racing season highlights on video tape",
    "animals": "Madagascar: zoo animals stranded on an island, a cheerful cartoon",
    "romance": "Two strangers fall in love on a train through Vienna",
    "cable": "Gold-plated HDMI cable, two metres, braided",
    "clubs": "Set of golf irons for beginners with graphite shafts",
    "soup": "Cookbook of simple soups and stews for cold evenings",
    "jazz": "Live jazz quartet with saxophone and double bass",
}
WISHES = {
    "scary but not bloody": "chiller",
    "a dad who likes golf": "clubs",
    "something to warm me up in winter that I can cook": "soup",
    "music with a sax for a calm night": "jazz",
    "a romantic story": "romance",
}
TEXTS = [f"{text}, volume {n}" for n in range(20) for text in ITEMS.values()]


@pytest.fixture(scope="module", params=["unfitted", "fitted"])
def embedder(request: pytest.FixtureRequest) -> HybridEmbedder:
    return HybridEmbedder() if request.param == "unfitted" else HybridEmbedder.fit(TEXTS)


def wishes_of(embedder: Embedder, words: list[str]) -> np.ndarray:
    return embedder.encode([Passage(text, is_wish=True) for text in words])


def similarity(embedder: HybridEmbedder, wishes: list[str], texts: list[str]) -> np.ndarray:
    """float32[texts, wishes]"""
    rows = embedder.encode(texts)
    return cosines(rows, inverse_norms(rows), wishes_of(embedder, wishes))


def test_a_wish_finds_what_it_means(embedder: HybridEmbedder) -> None:
    found = similarity(embedder, list(WISHES), list(ITEMS.values())).argmax(axis=0)
    assert [list(ITEMS)[at] for at in found] == list(WISHES.values())


def test_spelling_alone_does_not_find_it() -> None:
    spelling = LexicalEmbedder.fit(TEXTS)
    rows = spelling.encode(list(ITEMS.values()))
    found = cosines(rows, inverse_norms(rows), wishes_of(spelling, list(WISHES))).argmax(axis=0)
    assert [list(ITEMS)[at] for at in found] != list(WISHES.values())


def test_a_name_that_no_table_knows_is_found_by_its_spelling(embedder: HybridEmbedder) -> None:
    texts = [*ITEMS.values(), "Zyxomma quokkaria, second edition"]
    assert similarity(embedder, ["zyxomma"], texts).argmax() == len(ITEMS)


def test_items_weigh_spelling_and_meaning_alike_and_wishes_more_meaning() -> None:
    embedder = HybridEmbedder.fit(TEXTS)
    words = ["Live jazz quartet", "an evening with a saxophone"]
    for rows, spelling in ((embedder.encode(words), 0.5), (wishes_of(embedder, words), 0.15)):
        squares = rows.astype(float) ** 2
        share = squares[:, :96].sum(axis=1) / squares.sum(axis=1)
        assert share == pytest.approx(spelling, abs=0.01)


def test_a_text_has_one_vector_in_any_company(embedder: HybridEmbedder) -> None:
    together = embedder.encode(TEXTS)
    assert together.shape == (len(TEXTS), DIMENSIONS)
    assert np.array_equal(together[::-1], embedder.encode(TEXTS[::-1]))
    assert np.array_equal(together[7], embedder.encode([TEXTS[7]])[0])
    assert np.array_equal(together[7], embedder.encode([f"  {TEXTS[7].upper()}\n"])[0])


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_nothing_is_zero(embedder: HybridEmbedder, text: str) -> None:
    assert not embedder.encode([text]).any()
    assert not wishes_of(embedder, [text]).any()


def test_the_state_goes_there_and_back(embedder: HybridEmbedder) -> None:
    again = embedder_for(embedder.space)
    assert again.population == embedder.population == (0 if not embedder.space.state else 160)
    assert np.array_equal(again.encode(TEXTS), embedder.encode(TEXTS))
    assert np.array_equal(wishes_of(again, TEXTS), wishes_of(embedder, TEXTS))


def test_the_same_texts_give_the_same_space() -> None:
    one, other = HybridEmbedder.fit(TEXTS), HybridEmbedder.fit(TEXTS)
    assert one.space == other.space
    assert HybridEmbedder.fit(TEXTS[8:]).space.fingerprint != one.space.fingerprint
    assert len(one.space.state) < 4_000_000


def test_items_and_wishes_may_be_encoded_together(embedder: HybridEmbedder) -> None:
    text = "An evening with a saxophone"
    together = embedder.encode([text, Passage(text, is_wish=True)])
    assert np.array_equal(together[:1], embedder.encode([text]))
    assert np.array_equal(together[1:], wishes_of(embedder, [text]))
    assert not np.array_equal(together[0], together[1])


def test_other_word_vectors_than_those_it_was_fitted_with_are_refused() -> None:
    space = HybridEmbedder.fit(TEXTS).space
    other = msgspec.msgpack.encode(["another table", *msgspec.msgpack.decode(space.state)[1:]])
    with pytest.raises(EmbedderUnusable, match="wordllama"):
        HybridEmbedder(replace(space, state=other)).encode(["a text"])


@pytest.mark.parametrize("texts", [[], [""], ["one text"], TEXTS[:63]])
def test_too_little_to_fit_to_leaves_it_unfitted(texts: list[str]) -> None:
    assert HybridEmbedder.fit(texts).space == first_space("hybrid") == HybridEmbedder().space


def test_first_items_have_the_space_of_their_embedder() -> None:
    assert first_space("lexical") == LexicalEmbedder().space
    assert first_space("openai:any") == first_space("a kind of a later release")


def test_the_line_of_an_item_makes_it_mean_more_than_its_title():
    embedder = HybridEmbedder()
    title, line = "Model K-7", "a light rain jacket for long walks in the mountains"
    wish = Passage("something to wear when hiking in bad weather", is_wish=True)
    bare, told, wished = embedder.encode([title, Passage(title, line), wish])
    scale = inverse_norms(np.stack([bare, told]))
    before, after = cosines(np.stack([bare, told]), scale, wished[None])[:, 0]
    assert after > before + 0.1
    assert np.array_equal(embedder.encode([Passage(title, "")])[0], bare)
