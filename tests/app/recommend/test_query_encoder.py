"""The words of a request: titles in the history are items, the others are wishes."""

import numpy as np

from app.embedders import EmbedderCache, HybridEmbedder
from app.recommend import RecommendRequest
from app.recommend.query_encoder import QueryEncoder
from tree.node import TreeSettings
from tree.passage import Passage
from tree.snapshot import SemanticTree


async def test_a_title_that_is_the_wish_too_has_both_vectors() -> None:
    embedder = HybridEmbedder()
    tree = SemanticTree.empty(embedder.space, TreeSettings(embedder="hybrid"))
    text = "A wizard school"
    request = RecommendRequest.model_validate({"history": [{"title": text}], "instruction": text})
    vectors, degraded = await QueryEncoder(EmbedderCache(), 2.0).encode_request(tree, request)
    assert degraded is None
    item, wish = embedder.encode([text, Passage(text, is_wish=True)])
    assert np.array_equal(vectors.titles[text], item)
    assert np.array_equal(vectors.wishes[text], wish)
    assert not np.array_equal(item, wish)
