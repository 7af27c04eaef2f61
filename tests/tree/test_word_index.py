"""The rows that have a word, by the index and by looking at every row."""

import numpy as np
import pytest

from tree.item import Item
from tree.terms import ROW_BYTES, WordShares, bucket_of, idf, read_terms, terms_of
from tree.word_index import WordIndex, WordQuery

EVERYTHING = 10**9


def texts(count: int, seed: int) -> list[str]:
    """Texts whose words are as uneven as those of a language."""
    random = np.random.default_rng(seed)
    return [
        " ".join(f"w{n}" for n in random.zipf(1.4, 1 + seed % 20) % 5_000) for _ in range(count)
    ]


def matrix(count: int, seed: int = 0) -> np.ndarray:
    items = [Item(id="x", title=text) for text in texts(min(count, 2_000), seed)]
    return np.resize(terms_of(items, WordShares.none().idf), (count, ROW_BYTES))


def filled(*counts: int) -> WordIndex:
    """An index with that many rows from each commit."""
    index = WordIndex(8)
    size = 0
    for seed, count in enumerate(counts):
        index.put(size, size + count, matrix(count, seed + 3))
        size += count
        index.publish(size)
    return index


def query(index: WordIndex, size: int, words: int = 40) -> WordQuery:
    buckets, weights = read_terms(index.terms[:size])
    some = np.random.default_rng(size).choice(np.unique(buckets[weights > 0]), words)
    buckets = np.unique(np.append(some, np.uint32(bucket_of("no item has this"))))
    return WordQuery(buckets, np.arange(1, len(buckets) + 1).astype(np.float32))


def plainly(index: WordIndex, wanted: WordQuery, size: int) -> dict[int, float]:
    worth = dict(zip(wanted.buckets.tolist(), wanted.values.tolist(), strict=True))
    buckets, weights = read_terms(index.terms[:size])
    sums = {
        row: sum(worth.get(b, 0) for b, w in zip(*pair, strict=True) if w)
        for row, pair in enumerate(zip(buckets.tolist(), weights.tolist(), strict=True))
    }
    return {row: total for row, total in sums.items() if total}


@pytest.mark.parametrize(
    "counts",
    [[0], [1], [200], [300], [70_000], [300, 5, 5, 250, 1, 700], [400] * 12, [100] * 9],
    ids=str,
)
def test_an_index_finds_what_a_look_at_every_row_finds(counts: list[int]):
    index, size = filled(*counts), sum(counts)
    for seen in {size, size // 2}:  # a reader of an older version sees fewer rows
        if not seen:
            continue
        wanted = query(index, seen)
        rows, sums = index.matches(wanted, seen, EVERYTHING)
        assert dict(zip(rows.tolist(), sums.tolist(), strict=True)) == plainly(index, wanted, seen)
        assert (np.diff(rows) > 0).all()
        assert index.covered(wanted, rows).tolist() == sums.tolist()


def test_no_words_and_no_rows_match_nothing():
    for index, size in [(filled(300), 300), (WordIndex(8), 0)]:
        for wanted in (WordQuery.none(), WordQuery(np.array([5], np.uint32), np.ones(1, "f4"))):
            rows, sums = index.matches(wanted, size, EVERYTHING)
            assert rows.tolist() == sums.tolist() == []
            assert index.weighted(wanted, np.arange(size)).tolist() == [0] * size


def test_a_bounded_query_reads_the_rare_words():
    index = filled(5_000)
    rare, common = bucket_of("rare"), bucket_of("w1")
    index.put(5_000, 5_001, terms_of([Item(id="x", title="rare w1")], WordShares.none().idf))
    index.publish(5_001)
    values = np.ones(2, np.float32)
    wanted = WordQuery(np.array(sorted([rare, common]), np.uint32), values)
    assert len(index.matches(wanted, 5_001, EVERYTHING)[0]) > 1_000
    index.put(5_001, 5_400, matrix(399, 9))
    index.publish(5_400)
    rows, sums = index.matches(wanted, 5_400, 100)
    assert rows[sums > 0].tolist() == [5_000]


def test_rows_without_terms_are_not_found():
    index = WordIndex(4)
    index.put(0, 300, None)
    index.put(300, 600, matrix(300, 4))
    index.publish(600)
    wanted = query(index, 600)
    assert index.matches(wanted, 600, EVERYTHING)[0].min() >= 300
    assert read_terms(index.terms[:300])[1].sum() == 0


def test_rows_that_were_removed_before_they_were_published_are_gone():
    index = WordIndex(4)
    index.put(0, 300, matrix(300, 4))
    index.publish(300)
    index.put(300, 310, terms_of([Item(id="x", title="gone")] * 10, WordShares.none().idf))
    index.put(300, 305, None)  # the next batch, in their place
    index.publish(305)
    wanted = WordQuery(np.array([bucket_of("gone")], np.uint32), np.ones(1, np.float32))
    assert len(index.matches(wanted, 305, EVERYTHING)[0]) == 0


@pytest.mark.parametrize("counts", [[100], [5_000, 100, 100, 100]], ids=str)
def test_a_word_is_as_telling_as_few_rows_have_it(counts: list[int]):
    index, size = filled(*counts), sum(counts)
    buckets, weights = read_terms(index.terms[:size])
    distinct, count = np.unique(buckets[weights > 0], return_counts=True)
    expected = idf((count / size).astype(np.float32), size)
    assert index.idf(distinct, size) == pytest.approx(expected, abs=1e-4)
    unknown = index.idf(np.array([bucket_of("no item has this")], np.uint32), size)
    assert unknown[0] >= expected.max()


def test_a_word_that_is_known_to_be_common_stays_so_though_no_item_keeps_it():
    common = WordShares.counted(["the cup", "the pot"]).common()
    index = WordIndex(4, common)
    the, pot, rare = (
        index.idf(np.array([bucket_of(word)], np.uint32), 0)[0] for word in ("the", "pot", "rare")
    )
    assert the < pot < rare


def test_a_million_terms_take_few_bytes():
    index = WordIndex(70_000)
    index.put(0, 70_000, matrix(70_000, 19))
    index.publish(70_000)
    held = index.terms.nbytes + sum(
        part.buckets.nbytes + part.ends.nbytes + part.rows.nbytes for part in index._segments
    )
    assert held / 70_000 <= 100
    assert index.terms.shape == (70_000, ROW_BYTES)


def test_dead_rows_do_not_count():
    alive, all_rows = filled(400), filled(400)
    all_rows.put(400, 1_000, matrix(600, 8))
    all_rows.publish(1_000)
    all_rows.publish(1_000, np.arange(400, 700))
    all_rows.put(1_000, 1_001, None)
    all_rows.publish(1_001, np.arange(700, 1_001))
    distinct = np.unique(read_terms(all_rows.terms[:1_000])[0])
    assert all_rows.shares(distinct, 1_001).tolist() == alive.shares(distinct, 400).tolist()
    assert all_rows.idf(distinct, 1_001).tolist() == alive.idf(distinct, 400).tolist()
