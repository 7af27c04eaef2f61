"""The embedder `minilm`: the real model, where the extra is installed (`make test-extras`)."""

import os
import threading

import numpy as np
import pytest

from app.embedders import EmbedderCache
from app.embedders import minilm as module
from tree.errors import EmbedderUnusable
from tree.passage import Passage
from tree.vectors import cosines, inverse_norms, unit_rows

ITEMS = {
    "chiller": "A haunted house terrifies a young family; chilling suspense without gore",
    "race": "NASCAR racing season highlights on video tape",
    "animals": "Madagascar: zoo animals stranded on an island, a cheerful cartoon",
    "cable": "Gold-plated HDMI cable, two metres, braided",
    "clubs": "Set of irons for beginners with graphite shafts",
    "soup": "Cookbook of simple broths and stews for cold evenings",
}
WISHES = {
    "scary but not bloody": "chiller",
    "a dad who likes golf": "clubs",
    "something to warm me up in winter that I can cook": "soup",
}
TEXTS = [f"{text}, volume {n}" for n in range(20) for text in ITEMS.values()]


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    return module.opened("")


def test_its_vectors_are_those_of_the_published_model(model):
    """The first values of what sentence-transformers computes, in floats, for this sentence."""
    [found] = unit_rows(model.vectors(["This is an example sentence"]))
    published = [0.0677, 0.0635, 0.0487, 0.0793, 0.0374, 0.0027, 0.0394, -0.0071]
    assert found[:8] == pytest.approx(published, abs=0.03)
    assert found.shape == (384,)


def test_a_text_has_one_vector_in_any_company(model):
    together = model.vectors(TEXTS)
    assert np.array_equal(together[7], model.vectors([TEXTS[7]])[0])
    assert np.array_equal(together[::-1], model.vectors(TEXTS[::-1]))


def test_a_long_text_is_cut(model):
    words = " ".join(["teapot"] * 300)
    assert np.array_equal(model.vectors([words])[0], model.vectors([words + " rocket"])[0])


def test_threads_get_the_same_vectors(model):
    alone = model.vectors(TEXTS[:20])
    found: dict[int, np.ndarray] = {}

    def encode(number: int) -> None:
        found[number] = model.vectors(TEXTS[:20])

    threads = [threading.Thread(target=encode, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[number], alone) for number in range(4))


@pytest.mark.parametrize("name", ["minilm", "hybrid+minilm"])
def test_a_wish_finds_what_it_means(model, name):
    embedder = EmbedderCache().fit(name, TEXTS, len(TEXTS))
    rows = embedder.encode(list(ITEMS.values()))
    wishes = embedder.encode([Passage(wish, is_wish=True) for wish in WISHES])
    found = cosines(rows, inverse_norms(rows), wishes).argmax(axis=0)
    assert [list(ITEMS)[at] for at in found] == list(WISHES.values())


def test_the_graph_is_made_once_and_without_a_cache_too(model, tmp_path, monkeypatch):
    graph = module._content(*module._GRAPH)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with module._made(graph) as first:
        made = first.stat()
        assert first.is_relative_to(tmp_path)
    with module._made(graph) as again:
        assert (again, again.stat().st_mtime_ns) == (first, made.st_mtime_ns)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with module._made(graph) as elsewhere:
        assert elsewhere.stat().st_size == made.st_size
    assert not elsewhere.exists()
    assert os.listdir(tmp_path / "cache" / "unillmrec") == [first.name]


def test_without_the_extra_it_says_what_to_install():
    for library in ("onnxruntime", "onnx"):
        try:
            __import__(library)
        except ImportError:
            break
    else:
        pytest.skip("the extra is installed")
    with pytest.raises(EmbedderUnusable, match=r"pip install '\.\[minilm\]'"):
        EmbedderCache().fit("minilm", TEXTS, len(TEXTS))
