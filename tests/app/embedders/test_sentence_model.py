"""The embedder `sentence-transformers`, with a tiny model of random weights from a folder."""

import json
import threading
from typing import Any

import numpy as np
import pytest

from app.embedders import EmbedderCache, embedder_for
from app.embedders.sentence_model import SentenceModel
from tree.errors import EmbedderUnavailable, EmbedderUnusable
from tree.node import Space
from tree.vectors import DIMENSIONS, cosines, inverse_norms

TEXTS = [f"tomato soup number {n} with {w}" for n in range(30) for w in ("basil", "rice", "fish")]


def write_model(folder, width: int, seed: int = 0) -> str:
    """A BERT of two layers that has never learned anything."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    sentences = pytest.importorskip("sentence_transformers")
    folder.mkdir()
    words = sorted({word for text in TEXTS for word in text.split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    torch.manual_seed(seed)
    shape = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=width, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=2 * width, initializer_range=0.5,
    )  # fmt: skip
    transformers.BertModel(shape).save_pretrained(folder / "raw")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder / "raw")
    sentences.SentenceTransformer(str(folder / "raw")).save(str(folder / "model"))
    return str(folder / "model")


@pytest.fixture(scope="module", params=[64, 320], ids=["narrower", "wider"])
def model(request, tmp_path_factory) -> str:
    return write_model(tmp_path_factory.mktemp("sentences") / "a", request.param)


@pytest.fixture(scope="module")
def embedder(model):
    return EmbedderCache().fit(f"sentence-transformers:{model}", TEXTS, 1_000)


def test_rows_are_int8_one_per_text(embedder):
    vectors = embedder.encode(["tomato soup", "", " ", "rice"])
    assert vectors.shape == (4, DIMENSIONS)
    assert vectors.dtype == np.int8
    assert vectors.any(axis=1).tolist() == [True, False, False, True]
    assert embedder.encode([]).shape == (0, DIMENSIONS)
    assert embedder.population == 1_000


def test_cosines_are_those_of_the_model(embedder, model):
    sentences = pytest.importorskip("sentence_transformers")
    exact = sentences.SentenceTransformer(model).encode(TEXTS, normalize_embeddings=True)
    vectors = embedder.encode(TEXTS)
    near = cosines(vectors, inverse_norms(vectors), vectors)
    assert np.abs(near - exact @ exact.T).max() < 0.03


def test_the_state_goes_there_and_back(embedder):
    space = embedder.space
    copy = EmbedderCache().of(Space(space.embedder, space.fingerprint, bytes(space.state)))
    assert copy.space == space
    assert copy.population == embedder.population
    assert np.array_equal(copy.encode(TEXTS), embedder.encode(TEXTS))


def test_another_model_in_its_place_is_refused(tmp_path):
    first, other = write_model(tmp_path / "a", 64), write_model(tmp_path / "b", 64, seed=1)
    space = EmbedderCache().fit(f"sentence-transformers:{first}", TEXTS, 90).space
    moved = Space(space.embedder, "another", space.state.replace(first.encode(), other.encode()))
    with pytest.raises(EmbedderUnavailable, match="not the model"):
        embedder_for(moved).encode(["rice"])


def test_a_model_that_is_not_there_is_named(tmp_path):
    pytest.importorskip("sentence_transformers")
    with pytest.raises(EmbedderUnavailable, match="is not available"):
        EmbedderCache().fit(f"sentence-transformers:{tmp_path / 'nothing'}", TEXTS, 90)


def test_a_folder_that_holds_no_model_is_named(tmp_path):
    pytest.importorskip("sentence_transformers")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "none"}), encoding="utf-8")
    with pytest.raises(EmbedderUnavailable, match="is not available"):
        EmbedderCache().fit(f"sentence-transformers:{tmp_path}", TEXTS, 90)


def test_without_the_library_it_says_what_to_install():
    try:
        import sentence_transformers  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(EmbedderUnavailable, match=r"pip install '.\[sentence-transformers\]"):
            EmbedderCache().fit("sentence-transformers:any", TEXTS, 90)


@pytest.mark.parametrize("name", ["openai", "sentence-transformers", "sentence-transformers:", ""])
def test_unknown_names(name):
    with pytest.raises(EmbedderUnusable, match="unknown embedder"):
        EmbedderCache().fit(name, TEXTS, 90)


class Network:
    """Takes 2 ms for a call, and notes what it has read."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.busy = threading.Event()

    def encode(self, texts: list[str], **_: Any) -> np.ndarray:
        self.busy.set()
        threading.Event().wait(0.002)
        self.read += texts
        return np.ones((len(texts), 4), np.float32)


def test_a_single_text_waits_for_no_more_than_a_few_of_many():
    network = Network()
    model = SentenceModel(network)
    many = threading.Thread(target=model.vectors, args=(["one of many"] * 16_000,))
    many.start()
    network.busy.wait()
    for number in range(20):
        before = len(network.read)
        model.vectors([f"single {number}"])
        assert network.read.index(f"single {number}") - before <= 64
    many.join()
    assert len(network.read) == 16_020
