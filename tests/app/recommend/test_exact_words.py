"""Names, model numbers and series are found by their very words, however large the catalogue."""

import asyncio

import numpy as np
import pytest

from app.embedders import EmbedderCache
from app.recommend import RecommendConfig, Recommender, RecommendRequest, SimilarRequest
from app.settings import Settings
from tests.app.conftest import Shop, built
from tree.item import Item
from tree.snapshot import SemanticTree
from tree.terms import read_terms

LAMPS = 300
ENDS = [f"{vowel}{end}" for vowel in "aeiou" for end in ("", "r", "n", "l", "s", "t")]
PATHS = {
    "a full scan": {},
    "a beam search": {"exact_scan_items": 0, "beam_leaves": 1, "beam_breadth": 1},
}


WORDS = [f"{start}{end}" for start in ("lum", "vor", "kan", "sil") for end in ENDS]


def model(number: int) -> str:
    return f"ZX{number * 37 % 10_000}"


def lamp(number: int) -> Item:
    """A lamp whose vector tells little of its model number, among so many other words."""
    words = np.random.default_rng(number).choice(WORDS, 60)
    text = f"A lamp like the others: {' '.join(words[:30])} {model(number)} {' '.join(words[30:])}"
    return Item(
        id=f"lamp-{number}", title="Desk lamp", description=text, attributes={"number": number}
    )


CATALOGUE = [
    *(lamp(number) for number in range(LAMPS)),
    *(
        Item(id=f"book-{n}", title=f"Tales of Zorblax {n}", description=text)
        for n, text in enumerate(
            [
                "A knight rides out.",
                "Storms over the sea.",
                "The last harvest.",
                "Letters from a prison.",
            ]
        )
    ),
    *(
        Item(id=f"film-{n}", title=f"Evening number {n}", description=f"A quiet film about {n}.")
        for n in range(60)
    ),
]


@pytest.fixture(scope="module")
def tree() -> SemanticTree:
    return asyncio.run(built(CATALOGUE))


@pytest.fixture
async def filled(shop: Shop, tree: SemanticTree) -> Shop:
    await shop.store.stage(CATALOGUE)
    await shop.store.replace(tree, base=0)
    return shop


def recommender(shop: Shop, **settings: object) -> Recommender:
    config = RecommendConfig.of(Settings.model_validate(settings))
    return Recommender("shop", shop.store, shop.documents, EmbedderCache(), config)


async def first(recommender: Recommender, **fields: object) -> str:
    request = RecommendRequest.model_validate({"limit": 3, "diversity": 0, **fields})
    return (await recommender.recommend(request)).items[0].item_id


@pytest.mark.parametrize("settings", PATHS.values(), ids=PATHS)
async def test_a_model_number_finds_its_item(filled: Shop, settings: dict[str, object]):
    chain = recommender(filled, **settings)
    for number in range(0, LAMPS, 20):
        wish = f"a lamp like the {model(number).lower()}, please"
        assert await first(chain, instruction=wish) == f"lamp-{number}"


@pytest.mark.parametrize("settings", PATHS.values(), ids=PATHS)
async def test_a_model_number_finds_its_item_beside_a_history(
    filled: Shop, settings: dict[str, object]
):
    history = [{"item_id": f"film-{n}"} for n in range(5)]
    found = await first(
        recommender(filled, **settings), history=history, instruction=f"lamp {model(123)}"
    )
    assert found == "lamp-123"


async def test_a_filter_with_few_items_leaves_words_in_force(filled: Shop):
    some = {"all": [{"field": "number", "lt": 10}]}
    wish = f"desk lamp {model(7)}"
    assert await first(recommender(filled), instruction=wish, filter=some) == "lamp-7"
    other = f"desk lamp {model(70)}"
    assert await first(recommender(filled), instruction=other, filter=some) != "lamp-70"


@pytest.mark.parametrize("settings", PATHS.values(), ids=PATHS)
async def test_a_series_goes_on(filled: Shop, settings: dict[str, object]):
    chain = recommender(filled, **settings)
    for history in ([{"item_id": "book-1"}], [{"title": "The Zorblax encyclopedia"}]):
        request = RecommendRequest.model_validate({"history": history, "limit": 4, "diversity": 0})
        ids = {item.item_id for item in (await chain.recommend(request)).items}
        assert len(ids & {f"book-{n}" for n in range(4)}) >= 3


async def test_an_item_is_similar_to_others_of_its_series(filled: Shop):
    answer = await recommender(filled).similar(SimilarRequest(item_id="book-2", limit=3))
    assert answer is not None
    assert {item.item_id for item in answer.items} == {"book-0", "book-1", "book-3"}


async def test_a_word_that_is_not_wanted_finds_nothing(filled: Shop):
    wish = "a quiet film, no Zorblax"
    assert (await first(recommender(filled), instruction=wish)).startswith("film")


@pytest.mark.parametrize("settings", PATHS.values(), ids=PATHS)
async def test_what_was_written_after_the_build_is_found_by_its_newest_words(
    filled: Shop, settings: dict[str, object]
):
    chain = recommender(filled, **settings)
    await filled.curator.put([Item(id="new", title="Desk lamp Quombat", description="Warm light.")])
    assert await first(chain, instruction="the lamp quombat") == "new"
    await filled.curator.put([Item(id="new", title="Desk lamp Vexil", description="Warm light.")])
    assert await first(chain, instruction="the lamp vexil") == "new"
    assert await first(chain, instruction="quombat for film evenings") != "new"
    await filled.curator.delete(["new"])
    assert await first(chain, instruction="the lamp vexil") != "new"


async def test_an_item_keeps_its_words_wherever_it_is_moved(filled: Shop):
    await filled.curator.put([lamp(number) for number in range(1_000, 1_100)])
    tree = await filled.store.load()
    rows = np.concatenate([leaf.rows for leaf in tree.leaves()])
    assert len(rows) == len(CATALOGUE) + 100
    assert (read_terms(tree.rows.words.terms[rows])[1] > 0).any(axis=1).all()
