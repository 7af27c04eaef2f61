"""The lexical embedder: the same bits twice, any script, and its state there and back."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from app.embedders import LexicalEmbedder, embedder_for, fit_sample
from tree.errors import EmbedderUnusable
from tree.node import Space
from tree.vectors import DIMENSIONS, cosines, inverse_norms, quantise

ROOT = str(Path(__file__).parents[3])
THEMES = {
    "kart": "Mario Kart racing game for the Nintendo console, karts and shells",
    "jazz": "Jazz quartet with saxophone and double bass, recorded live in Paris",
    "tax": "Parliament votes on income tax reform after a long debate",
    "soup": "Slow tomato soup with basil, garlic and olive oil",
}
TEXTS = [f"{text} volume {n} part {n % 7}" for n in range(40) for text in THEMES.values()]
ODD = [
    "\U0001f600\U0001f3ae",
    "שלום עולם",
    "مرحبا بالعالم",
    "日本語のゲーム",
    "Ünïcödé",
    "a\nb\tc",
    "x" * 20_000,
]


@pytest.fixture(scope="module", params=["unfitted", "fitted"])
def embedder(request) -> LexicalEmbedder:
    return LexicalEmbedder() if request.param == "unfitted" else LexicalEmbedder.fit(TEXTS)


def test_rows_are_int8_one_per_text(embedder):
    vectors = embedder.encode([*TEXTS, *ODD])
    assert vectors.shape == (len(TEXTS) + len(ODD), DIMENSIONS)
    assert vectors.dtype == np.int8
    assert (np.abs(vectors[: len(TEXTS)].astype(int)).max(axis=1) == 127).all()
    assert embedder.encode([]).shape == (0, DIMENSIONS)


def test_a_text_has_one_vector_in_any_company(embedder):
    together = embedder.encode(TEXTS)
    assert np.array_equal(together, embedder.encode(TEXTS))
    assert np.array_equal(together[::-1], embedder.encode(TEXTS[::-1]))
    for number in (0, 1, 77):
        assert np.array_equal(together[number], embedder.encode([TEXTS[number]])[0])


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_nothing_is_zero(embedder, text):
    assert not embedder.encode([text]).any()


def test_every_script_has_a_direction():
    vectors = LexicalEmbedder().encode(ODD)
    assert vectors.any(axis=1).all()
    near = cosines(vectors, inverse_norms(vectors), vectors)
    assert near[~np.eye(len(ODD), dtype=bool)].max() < 0.6
    similar = LexicalEmbedder().encode(["日本語のゲーム", "日本語のゲーム機", "中国菜"])
    mark = cosines(similar, inverse_norms(similar), similar[:1])[:, 0]
    assert mark[1] > 0.4 > mark[2]


def test_vectors_are_those_of_scikit_learn():
    """Catalogues keep vectors whose n-grams it has hashed."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.preprocessing import normalize

    def grams(text: str) -> list[str]:
        names = re.findall(r"\b\w+\b", text.lower())
        names += list(map(" ".join, pairwise(names)))
        padded = [f" {word} " for word in text.lower().split()]
        letters = [word[at : at + size] for word in padded for size in (3, 4, 5)
                   for at in range(len(word) - size + 1)]  # fmt: skip
        return letters + 3 * [f"\0{name}" for name in names]

    texts = [*TEXTS[:20], *ODD, "", "?"]
    hashed = HashingVectorizer(
        analyzer=grams, n_features=2**14, alternate_sign=False, norm=None, dtype=np.float32
    ).transform(texts)
    hashed.data = np.log(hashed.data) + 1
    signs = np.random.default_rng(0).integers(0, 2, (2**14, DIMENSIONS), np.int8)
    expected = normalize(hashed) @ (signs.astype(np.float32) * 2 - 1)
    assert np.array_equal(LexicalEmbedder().encode(texts), quantise(expected))


def test_a_theme_is_near_itself(embedder):
    texts, queries = embedder.encode(TEXTS), embedder.encode(list(THEMES.values()))
    near = cosines(texts, inverse_norms(texts), queries)
    assert near.argmax(axis=1).tolist() == [0, 1, 2, 3] * 40


def test_the_state_goes_there_and_back(embedder):
    space = embedder.space
    copy = embedder_for(Space(space.embedder, space.fingerprint, bytes(space.state)))
    assert copy.space == space
    assert copy.population == embedder.population
    assert np.array_equal(copy.encode(TEXTS + ODD), embedder.encode(TEXTS + ODD))


def test_the_same_texts_fit_the_same_embedder():
    space = LexicalEmbedder.fit(TEXTS).space
    assert space == LexicalEmbedder.fit(TEXTS).space
    assert space.fingerprint != LexicalEmbedder.fit(TEXTS[:-1]).space.fingerprint
    assert space.fingerprint != LexicalEmbedder().space.fingerprint


def test_another_process_gets_the_same_bits():
    """Nothing hangs on the seed of Python's hashes or on the number of cores."""
    code = (
        "import json, sys; from app.embedders import LexicalEmbedder;"
        "texts = json.load(sys.stdin);"
        "sys.stdout.buffer.write(LexicalEmbedder.fit(texts).encode(texts).tobytes())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        input=json.dumps(TEXTS).encode(),
        env=os.environ | {"PYTHONHASHSEED": "4", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": ROOT},
    )
    assert other.stdout == LexicalEmbedder.fit(TEXTS).encode(TEXTS).tobytes()


def test_another_thread_gets_the_same_bits():
    """A limit that a thread has set, as the service's did, keeps all others from setting one."""
    expected = LexicalEmbedder.fit(TEXTS).space
    with threadpool_limits(2, "blas"), ThreadPoolExecutor(1) as others:
        assert others.submit(LexicalEmbedder.fit, TEXTS).result().space == expected


@pytest.mark.parametrize(
    "texts", [[], [""], ["", ""], ["one"], ["same"] * 30, ["a b", "b c"]], ids=repr
)
def test_catalogues_too_small_to_fit(texts):
    embedder = LexicalEmbedder.fit(texts)
    vectors = embedder.encode([*texts, "one"])
    assert vectors.shape == (len(texts) + 1, DIMENSIONS)
    assert embedder_for(embedder.space).space == embedder.space


def test_an_embedder_of_another_build_is_named():
    with pytest.raises(EmbedderUnusable, match="'other'"):
        embedder_for(Space("other", "other-x"))


@pytest.mark.parametrize("count", [0, 1, 20_000, 20_001, 59_999])
def test_a_sample_is_an_even_stride(count):
    sample = [int(text) for text in fit_sample([str(n) for n in range(count)])]
    assert len(sample) <= 20_000
    assert len({b - a for a, b in pairwise(sample)}) <= 1
    assert sample[:1] == [0] * bool(count)
    assert len(sample) >= min(count, 10_000)


def test_half_a_surrogate_pair_is_read_as_any_other_character():
    embedder = LexicalEmbedder.fit(TEXTS)
    broken = embedder.encode(["\ud800golf clubs", "golf \udfff clubs"])
    assert broken.any(axis=1).all()
