"""How many texts a second the embedders encode on one core, in processor time."""

import time
from collections.abc import Iterator

from app.embedders import Embedder, EmbedderCache
from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tree.errors import EmbedderUnusable

_LEAST = {"lexical": 25_000, "hybrid": 20_000, "hybrid+minilm": 400}
_TIMES = 5  # the best counts: nothing but other work on the machine makes one slower
_MODEL_TEXTS = 1_000


def real() -> Iterator[Figure]:
    """Titles of games, by each embedder that is installed."""
    titles = [item.title for item in data.real_items("amazon_games")]
    for name, least in _LEAST.items():
        some = titles if "+" not in name else titles[:_MODEL_TEXTS]
        try:
            embedder = EmbedderCache().fit(name, some, len(some))
        except EmbedderUnusable:
            continue  # its extra is not installed
        yield Figure(f"{name}: titles a second", _per_second(embedder, some), "", "≥", least)


def _per_second(embedder: Embedder, texts: list[str]) -> float:
    embedder.encode(texts)
    best = 0.0
    for _ in range(_TIMES):
        began = time.process_time()
        embedder.encode(texts)
        best = max(best, len(texts) / (time.process_time() - began))
    return best
