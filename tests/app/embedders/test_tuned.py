"""Spaces whose vectors an adapter changes."""

import re

import numpy as np
import pytest

from app.embedders import (
    NAME_PATTERN,
    Adapter,
    EmbedderCache,
    HybridEmbedder,
    base_of,
    factors_of,
    is_tuned,
    refitted,
    tuned,
)
from app.rank_weights import RankWeights
from tree.passage import Passage
from tree.vectors import unit_rows

WORDS = ["lamp", "chair", "drill", "novel", "kettle", "guitar", "tent", "boots", "clock", "scarf"]
TEXTS = [f"{one} {other} set" for one in WORDS for other in WORDS if one != other]


@pytest.fixture(scope="module")
def base():
    return HybridEmbedder.fit(TEXTS)


@pytest.fixture(scope="module")
def vectors(base):
    return unit_rows(base.encode(TEXTS).astype(np.float32))


def some_map(seed: int = 0):
    rng = np.random.default_rng(seed)
    return (np.eye(256) + rng.normal(0, 0.02, (256, 256))).astype(np.float32)


def test_a_tuned_space_changes_vectors_of_items(base, vectors):
    space = tuned(base.space, Adapter.of(some_map(), vectors), 90)
    assert is_tuned(space)
    assert base_of(space) == base.space
    embedder = EmbedderCache().of(space)
    found = unit_rows(embedder.encode(TEXTS).astype(np.float32))
    wanted = unit_rows(vectors @ some_map())
    assert (found * wanted).sum(axis=1).min() > 0.999
    assert embedder.population == 90
    assert embedder.is_fast


def test_wishes_rank_changed_items_as_before(base, vectors):
    space = tuned(base.space, Adapter.of(some_map(), vectors), 90)
    wishes = [Passage(f"a {word} for my mother", is_wish=True) for word in WORDS]
    embedder = EmbedderCache().of(space)
    items = unit_rows(embedder.encode(TEXTS).astype(np.float32))
    after = unit_rows(embedder.encode(wishes).astype(np.float32)) @ items.T
    before = unit_rows(base.encode(wishes).astype(np.float32)) @ vectors.T
    for one, other in zip(after, before, strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.99


def test_texts_without_content_stay_zero(base, vectors):
    space = tuned(base.space, Adapter.of(some_map(), vectors), 90)
    assert not EmbedderCache().of(space).encode(["", Passage("", is_wish=True)]).any()


def test_each_state_has_a_fingerprint_of_its_own(base, vectors):
    one, other = (Adapter.of(some_map(seed), vectors) for seed in range(2))
    space = tuned(base.space, one, 90)
    names = {
        each.fingerprint for each in (space, tuned(base.space, other, 90), refitted(space, 91))
    }
    assert len(names) == 3
    assert tuned(base.space, one, 90) == space
    assert EmbedderCache().of(refitted(space, 91)).population == 91


def test_no_setting_names_a_tuned_embedder():
    assert not re.match(NAME_PATTERN, "tuned")


def test_factors_of_weights_belong_to_the_space(base, vectors):
    space = tuned(base.space, Adapter.of(some_map(), vectors), 90, {"exact_words": 2.0})
    assert factors_of(space) == {"exact_words": 2.0}
    assert factors_of(refitted(space, 91)) == {"exact_words": 2.0}
    assert factors_of(base.space) == {}
    weights = RankWeights(exact_words=0.75).times(factors_of(space))
    assert weights == RankWeights(exact_words=1.5)
