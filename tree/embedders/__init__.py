"""From text to int8 vectors, by an embedder that a name chooses.

`lexical` needs nothing. `KIND:MODEL` is a text model: `sentence-transformers:MODEL` one from a
folder or a hub; other kinds are brought along by whoever has access to them.
"""

from tree.embedders.cache import (
    EmbedderCache,
    embedder_for,
    fit_sample,
    fitted,
    sample_stride,
)
from tree.embedders.lexical import LexicalEmbedder
from tree.embedders.model import Embedder, ModelEmbedder, ModelKind, TextModel
from tree.embedders.sentences import SENTENCES

__all__ = [
    "SENTENCES",
    "Embedder",
    "EmbedderCache",
    "LexicalEmbedder",
    "ModelEmbedder",
    "ModelKind",
    "TextModel",
    "embedder_for",
    "fit_sample",
    "fitted",
    "sample_stride",
]
