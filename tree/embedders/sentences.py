"""The kind `sentence-transformers`, an optional extra: text models from a folder or a model hub.

Only this module imports that library.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Condition, Lock
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import ThreadpoolController

from tree.embedders.model import ModelKind
from tree.errors import EmbedderUnusable
from tree.vectors import FloatArray

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SENTENCES = "sentence-transformers"

_BATCH = 16  # for so long does a single text wait beside many

_opened: dict[str, "SentenceModel"] = {}
_opening = Lock()


class SentenceModel:
    """See TextModel: a model in the memory of this process.

    It computes on one thread: four that wait for each other on busy cores take 540 ms for a text
    that one reads in 13 ms, and four times as long for 64 (MiniLM, 2026-11).
    """

    def __init__(self, network: "SentenceTransformer") -> None:
        self._network = network
        self._threads = ThreadpoolController()
        self._turns = _Turns()  # its tokenizer is not for several threads at once

    def vectors(self, texts: Sequence[str], timeout_s: float | None = None) -> FloatArray:  # noqa: ARG002
        """See TextModel. A few texts do not wait until many have been read."""
        rows = []
        for start in range(0, len(texts), _BATCH):
            with self._turns.next(), self._threads.limit(limits=1, user_api="openmp"):
                some = list(texts[start : start + _BATCH])
                found = self._network.encode(some, batch_size=_BATCH, show_progress_bar=False)
            rows.append(np.array(found, np.float32).reshape(len(some), -1))
        return np.concatenate(rows)


class _Turns:
    """One at a time, in the order of arrival.

    Who releases a Lock and takes it again at once is before all who wait for it.
    """

    def __init__(self) -> None:
        self._moved = Condition()
        self._given = 0
        self._done = 0

    @contextmanager
    def next(self) -> Iterator[None]:
        with self._moved:
            mine, self._given = self._given, self._given + 1
            self._moved.wait_for(lambda: self._done == mine)
        try:
            yield
        finally:
            with self._moved:
                self._done += 1
                self._moved.notify_all()


def opened(model: str) -> SentenceModel:
    """The model from a folder, or of a name on the hub; one for all who ask.

    Nothing is downloaded where `HF_HUB_OFFLINE` is set. Raises EmbedderUnusable.
    """
    with _opening:
        if model not in _opened:
            _opened[model] = SentenceModel(_loaded(model))
        return _opened[model]


SENTENCE_MODELS = ModelKind(SENTENCES, opened, anywhere=True)


def _loaded(model: str) -> "SentenceTransformer":
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar
    except ModuleNotFoundError as error:
        raise EmbedderUnusable(
            f"{error.name} is not installed: pip install 'unillmrec[sentence-transformers]'"
        ) from error
    disable_progress_bar()  # it would write over ours
    try:
        return SentenceTransformer(model)
    except Exception as error:  # the hub's client raises what its transport does
        raise EmbedderUnusable(
            f"the model {model!r} is not at hand ({_first_line(error)}): give a folder that "
            "SentenceTransformer.save has written, or a name on the hub that is in the cache or "
            "can be downloaded"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
