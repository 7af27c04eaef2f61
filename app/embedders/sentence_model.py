"""The kind `sentence-transformers`, an optional extra: text models from a folder or a model hub.

Only this module imports that library.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Condition, Lock
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import ThreadpoolController

from app.embedders.text_model import TextModelKind
from tree.errors import EmbedderUnusable
from tree.vectors import FloatArray

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BATCH = 16  # texts; a single text waits for one batch

_opened: dict[str, "SentenceModel"] = {}
_opening = Lock()


class SentenceModel:
    """See TextModel: a model in the memory of this process.

    It computes on one thread. With four threads on busy cores a text takes 540 ms instead of 13 ms,
    and 64 texts four times as long (MiniLM, 2026-11).
    """

    def __init__(self, network: "SentenceTransformer") -> None:
        self._network = network
        self._threads = ThreadpoolController().select(user_api="openmp")
        self._turns = _Turns()  # its tokenizer is not thread-safe

    def vectors(self, texts: Sequence[str], timeout_s: float | None = None) -> FloatArray:  # noqa: ARG002
        """See TextModel. A call with few texts waits for one batch of another call, not for all."""
        rows = []
        for start in range(0, len(texts), _BATCH):
            with self._turns.next(), self._threads.limit(limits=1):
                batch = list(texts[start : start + _BATCH])
                found = self._network.encode(batch, batch_size=_BATCH, show_progress_bar=False)
            rows.append(np.array(found, np.float32).reshape(len(batch), -1))
        return np.concatenate(rows)


class _Turns:
    """One caller at a time, in the order of arrival.

    With a Lock, a caller that releases it and takes it again would get it before all that wait.
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
    """The model in a folder, or of a name on the hub; one object for all callers.

    Nothing is downloaded if `HF_HUB_OFFLINE` is set. Raises EmbedderUnusable.
    """
    with _opening:
        if model not in _opened:
            _opened[model] = SentenceModel(_loaded(model))
        return _opened[model]


SENTENCE_TRANSFORMERS = TextModelKind("sentence-transformers", opened, is_local=True)


def _loaded(model: str) -> "SentenceTransformer":
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar
    except ModuleNotFoundError as error:
        raise EmbedderUnusable(
            f"{error.name} is not installed. In a checkout: pip install '.[sentence-transformers]'"
        ) from error
    disable_progress_bar()  # it would overwrite ours
    try:
        return SentenceTransformer(model)
    except Exception as error:  # the hub's client passes on errors of its transport
        raise EmbedderUnusable(
            f"the model {model!r} is not available ({_first_line(error)}): give a folder that "
            "SentenceTransformer.save has written, or a name on the hub that is in the cache or "
            "can be downloaded"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
