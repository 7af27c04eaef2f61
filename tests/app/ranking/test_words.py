"""What the words of a need add to scores by vectors: here the vectors are random."""

import numpy as np
import pytest

from app.ranking import Direction, EmbeddedRanker, Interest, Need, WordMix, words_of
from tree import place
from tree.item import Item
from tree.node import Space, TreeSettings
from tree.snapshot import SemanticTree
from tree.vectors import DIMENSIONS, Int8Matrix

SPACE = Space("lexical", "print")
TITLES = [f"common words of every title and {name}" for name in ("tea", "pot", "cup", "tin")]


def random_vectors(count: int) -> Int8Matrix:
    return np.random.default_rng(1).integers(-100, 100, (count, DIMENSIONS), dtype=np.int8)


@pytest.fixture(scope="module")
def tree() -> SemanticTree:
    """Two hundred items in many leaves; every fourth title ends alike."""
    items = [Item(id=str(n), title=f"{TITLES[n % 4]} number{n}") for n in range(200)]
    tree = SemanticTree.empty(SPACE, TreeSettings(leaf_capacity=8, fan_out=4))
    return tree.apply(place.plan(tree, items, random_vectors(200)))


def ranker(mix: WordMix = WordMix(), scanned: int = 1_000) -> EmbeddedRanker:  # noqa: B008
    return EmbeddedRanker(8.0, scanned, 2, 2, mix)


def rows(tree: SemanticTree, ids: list[int]) -> list[int]:
    return [row for row in tree.rows_of(list(map(str, ids))) if row is not None]


def need(tree: SemanticTree, history: list[int] = [], wish: str = "") -> Need:  # noqa: B006
    """A need whose vector is that of item 5, whatever its words are."""
    [row] = rows(tree, [5])
    items = [(one, 1.0) for one in rows(tree, history)]
    share = 0.5 if wish and history else 1.0
    return Need(
        (Interest("x", 1.0),),
        (Direction(tree.rows.vectors[row], 1.0, 0, "5"),),
        words=words_of(tree, items, share, [wish] if wish else []),
    )


async def ranked(
    tree: SemanticTree,
    one: EmbeddedRanker,
    wanted: Need,
    left_out: list[int] = [],  # noqa: B006
) -> tuple[list[str], list[float]]:
    allowed = np.ones(tree.size, bool)
    allowed[rows(tree, [5, *left_out])] = False
    found = await one.rank(tree, wanted, allowed, 20)
    return tree.rows.ids(found.rows), found.scores.tolist()


@pytest.mark.parametrize("scanned", [1_000, 0], ids=["full scan", "beam search"])
async def test_a_wish_finds_the_item_that_has_its_rare_word(tree: SemanticTree, scanned: int):
    plain, _ = await ranked(tree, ranker(scanned=scanned), need(tree))
    for number in (0, 77, 199):
        wished = need(tree, wish=f"some of the common words and Number{number}")
        found, scores = await ranked(tree, ranker(scanned=scanned), wished)
        assert found[0] == str(number)
        assert found[1] == plain[0]
        assert scores[0] > 0.5
        off, _ = await ranked(tree, ranker(WordMix().times(0), scanned), wished)
        assert off == plain
    unknown, scores = await ranked(tree, ranker(scanned=scanned), need(tree, wish="elephant"))
    assert unknown == plain


async def test_the_rarer_word_of_two_decides(tree: SemanticTree):
    found, _ = await ranked(tree, ranker(), need(tree, wish="tea or number6"))
    assert found[0] == "6"
    both, _ = await ranked(tree, ranker(), need(tree, wish="tea number8"))
    assert both[0] == "8"


async def test_a_model_number_outweighs_words_around_it_that_are_as_rare(tree: SemanticTree):
    more = [
        Item(id="300", title="Please find me online"),
        Item(id="301", title="Lamp XK-9 TRA708T"),
    ]
    tree = tree.apply(place.plan(tree, more, random_vectors(2)))
    found, _ = await ranked(tree, ranker(), need(tree, wish="please find me TRA708t online"))
    assert found[0] == "301"


async def test_the_better_of_two_wishes_counts(tree: SemanticTree):
    words = words_of(tree, [], 1.0, ["number9", "number10 of every title"])
    one = need(tree)
    found, _ = await ranked(tree, ranker(), Need(one.interests, one.directions, words=words))
    assert set(found[:2]) == {"9", "10"}


@pytest.mark.parametrize("scanned", [1_000, 0], ids=["full scan", "beam search"])
async def test_a_history_mixes_ranks_and_keeps_similarities(tree: SemanticTree, scanned: int):
    plain, similarities = await ranked(tree, ranker(), need(tree), [1])
    found, scores = await ranked(tree, ranker(scanned=scanned), need(tree, [1]), [1])
    alike = [item for item in found if int(item) % 4 == 1]  # they share the word pot
    assert plain[0] in found[:4]
    assert len(alike) > len([item for item in plain if int(item) % 4 == 1])
    if scanned:
        assert scores == similarities
    assert scores == sorted(scores, reverse=True)


async def test_a_title_from_elsewhere_counts_like_an_item(tree: SemanticTree):
    words = words_of(tree, [("Number123 revisited", 1.0)], 1.0, [])
    one = need(tree)
    found, _ = await ranked(tree, ranker(), Need(one.interests, one.directions, words=words))
    assert "123" in found[:2]


async def test_what_is_not_allowed_has_no_rank(tree: SemanticTree):
    wanted = need(tree, [1])
    found, _ = await ranked(tree, ranker(), wanted, [1])
    left_out = [1, *map(int, found[:3])]
    again, scores = await ranked(tree, ranker(), wanted, left_out)
    assert not {"5", *map(str, left_out)} & set(again)
    assert set(again[:10]) <= set(found)
    _, similarities = await ranked(tree, ranker(), need(tree), left_out)
    assert scores == similarities


async def test_a_name_outweighs_a_history(tree: SemanticTree):
    found, _ = await ranked(tree, ranker(), need(tree, [1, 9, 13], wish="number42"))
    assert found[0] == "42"


async def test_words_alone_serve_a_need_without_vectors(tree: SemanticTree):
    words = words_of(tree, [], 1.0, ["number31"])
    for scanned in (1_000, 0):
        found, _ = await ranked(tree, ranker(scanned=scanned), Need(words=words))
        assert found[0] == "31"


def test_scores_of_some_rows_are_those_of_the_search(tree: SemanticTree):
    wanted = need(tree, wish="number3 and number4")
    some = np.array(rows(tree, [4, 8, 3, 5]), np.int32)
    every = ranker().scores(tree, wanted, np.arange(tree.size, dtype=np.int32))
    assert ranker().scores(tree, wanted, some).tolist() == every[some].tolist()
    assert len(ranker().scores(tree, wanted, some[:0])) == 0
