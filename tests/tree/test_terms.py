"""The words that an item keeps beside its vector."""

import numpy as np
import pytest

from tree.item import Item
from tree.item_line import ItemLine
from tree.terms import (
    ROW_BYTES,
    TERMS_PER_ITEM,
    WordShares,
    bucket_of,
    buckets_of,
    idf,
    read_terms,
    terms_of,
    words_of,
)

FILLER = "and the of with for a in this new more from our you your is it as at"


def item(title: str, description: str = "") -> Item:
    return Item(id=title, title=title, description=description)


def kept(matrix: np.ndarray) -> list[set[int]]:
    buckets, weights = read_terms(matrix)
    return [set(row[there].tolist()) for row, there in zip(buckets, weights > 0, strict=True)]


def shares() -> WordShares:
    texts = [f"{FILLER} text {number}" for number in range(300)]
    return WordShares.counted(texts)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Dune: Part Two", ["dune", "part", "two"]),
        ("XK-2000/b", ["xk", "2000", "b"]),
        ("ÉCOLE Straße", ["école", "strasse"]),
        ("日本語", ["日本", "本語"]),
        ("\U0001f600 - !", []),
        ("", []),
    ],
)
def test_words_are_normalised(text: str, words: list[str]):
    assert words_of(text) == words
    assert buckets_of(text).tolist() == sorted(map(bucket_of, words))


def test_a_long_text_keeps_its_rarest_words_and_those_of_the_title():
    rare = [f"rare{number}" for number in range(20)]
    long = item("Quixote the 7", f"{FILLER} {FILLER} {' '.join(rare)} {FILLER}")
    [words] = kept(terms_of([long], shares().idf))
    assert len(words) == TERMS_PER_ITEM
    assert {bucket_of("quixote"), bucket_of("7")} <= words
    assert not words & {bucket_of(word) for word in FILLER.split()}


def test_a_short_text_keeps_every_word():
    items = [item("Dune"), item("The Left Hand of Darkness", "the winter"), item("!!!")]
    assert kept(terms_of(items, shares().idf)) == [
        {bucket_of(word) for word in words_of(one.text)} for one in items
    ]
    assert terms_of([], shares().idf).shape == (0, ROW_BYTES)


def test_a_word_that_is_repeated_in_a_short_text_weighs_more():
    matrix = terms_of([item("tea tea tea"), item("tea", FILLER * 3)], shares().idf)
    buckets, weights = read_terms(matrix)
    often, once = (weights[row][buckets[row] == bucket_of("tea")][0] for row in range(2))
    assert 0 < once < often
    expected = 3 * 2.5 / (3 + 1.5 * (0.25 + 0.75 * 3 / 40))
    assert often == pytest.approx(expected, rel=0.1)


def test_terms_do_not_depend_on_the_other_items():
    items = [item(f"title {number}", f"{FILLER} word{number} {number * 7}") for number in range(50)]
    together = terms_of(items, shares().idf)
    apart = np.concatenate([terms_of([one], shares().idf) for one in items])
    assert np.array_equal(together, apart)


def test_shares_of_words():
    counted = WordShares.counted(["tea tea cup", "tea", "", "pot"])
    wanted = np.array([bucket_of(word) for word in ("tea", "pot", "coffee")], np.uint32)
    assert counted.of(wanted).tolist() == [0.5, 0.25, 0]
    assert counted.population == 4
    rarer = counted.idf(wanted)
    assert rarer[0] < rarer[1] < rarer[2]
    assert WordShares.none().of(wanted).tolist() == [0, 0, 0]
    assert np.isfinite(WordShares.none().idf(wanted)).all()


def test_common_words_are_kept_and_come_back_as_they_were_stored():
    common = shares().common()
    assert set(common.buckets.tolist()) == {bucket_of(word) for word in f"{FILLER} text".split()}
    back = WordShares.unpacked(common.packed(), common.population)
    assert np.array_equal(back.buckets, common.buckets)
    assert np.array_equal(back.shares, common.shares)
    assert len(WordShares.unpacked(b"", 0).buckets) == 0
    with pytest.raises(ValueError, match="multiple"):
        WordShares.unpacked(b"12345", 3)


def test_idf_is_that_of_bm25():
    found = idf(np.array([0, 0.5, 1], np.float32), 10)
    assert found == pytest.approx([np.log(1 + 10.5 / 0.5), np.log(2), np.log(1 + 0.5 / 10.5)])


def test_the_words_of_a_line_count_and_a_name_in_the_title_stays():
    line = ItemLine("A quiet film about beekeeping on a roof, for beginners; goes with honey")
    told = item("Zxqv 2").with_line(line)
    (words,) = kept(terms_of([told], shares().idf))
    assert {bucket_of(word) for word in ("zxqv", "2", "beekeeping", "roof")} <= words
    plain = item("Zxqv 2")
    (words,) = kept(terms_of([plain], shares().idf))
    assert words == {bucket_of("zxqv"), bucket_of("2")}
