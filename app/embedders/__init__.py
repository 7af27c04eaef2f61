"""From text to int8 vectors, by embedders of several kinds.

A name chooses an embedder: `KIND`, or `KIND:MODEL` for a text model. Only this folder knows the
kinds: `app.embedders.kinds` lists them.
"""

from app.embedders.account import EmbeddingAccount, counting, counting_for, name_refused
from app.embedders.adapter import Adapter
from app.embedders.cache import EmbedderCache, fit_sample, sample_stride
from app.embedders.embedder import Embedder, EmbedderKind
from app.embedders.embedder_store import EmbedderStore
from app.embedders.hybrid import HybridEmbedder
from app.embedders.kinds import (
    BUILT_IN,
    DEFAULT_EMBEDDER,
    NAME_PATTERN,
    embedder_for,
    first_space,
)
from app.embedders.lexical import LexicalEmbedder
from app.embedders.openai_model import EndpointAddress, EndpointTimes
from app.embedders.spending import EmbedderUsage, Spending
from app.embedders.tuned import base_of, factors_of, is_tuned, refitted, tuned

__all__ = [
    "BUILT_IN",
    "DEFAULT_EMBEDDER",
    "NAME_PATTERN",
    "Adapter",
    "Embedder",
    "EmbedderCache",
    "EmbedderKind",
    "EmbedderStore",
    "EmbedderUsage",
    "EmbeddingAccount",
    "EndpointAddress",
    "EndpointTimes",
    "HybridEmbedder",
    "LexicalEmbedder",
    "Spending",
    "base_of",
    "counting",
    "counting_for",
    "embedder_for",
    "factors_of",
    "first_space",
    "fit_sample",
    "is_tuned",
    "name_refused",
    "refitted",
    "sample_stride",
    "tuned",
]
