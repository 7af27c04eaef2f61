"""`KnownTexts`: a text model that is asked only for texts that it was not asked for before."""

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from app.embedders.account import EmbeddingAccount, current_account
from app.embedders.batches import batches
from tree.errors import EmbedderUnavailable
from tree.vectors import FloatArray, unit_rows


class TextModel(Protocol):
    """A function from texts to vectors."""

    def vectors(self, texts: Sequence[str], timeout_s: float | None = None) -> FloatArray:
        """float32[texts, width], of any length. There is at least one text, and none is blank.

        For `timeout_s` see Embedder. Called from several threads. Raises EmbedderUnavailable.
        """
        ...


class KnownTexts:
    """See TextModel. Only the directions of vectors are kept."""

    def __init__(
        self, model: TextModel, name: str, probe: FloatArray, account: EmbeddingAccount
    ) -> None:
        """`probe`: see KeptVectors."""
        self._model = model
        self._name = name
        self._probe = probe
        self._account = account

    def vectors(self, texts: Sequence[str], timeout_s: float | None = None) -> FloatArray:
        """See TextModel. What the model has answered is kept, also when a later call fails."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        kept = self._account.kept
        distinct = list(dict.fromkeys(texts))
        identity = "" if kept is None else kept.identity(self._name, self._probe)
        known = {} if kept is None else kept.get(identity, distinct, len(self._probe))
        self._account.count(reused=len(known))
        missing = [text for text in distinct if text not in known]
        for some in batches(missing):  # one call of an endpoint: what is paid for is kept
            left = None if deadline is None else deadline - time.monotonic()
            rows = self._model.vectors(some, left)
            self._account.count(asked=len(some))
            found = dict(zip(some, _finite_units(rows), strict=True))
            known |= found if kept is None else kept.put(identity, found)
        self._account.count(refused=[text for text in distinct if not known[text].any()])
        if len({len(known[text]) for text in distinct}) > 1:
            raise EmbedderUnavailable(f"{self._name} answers with vectors of different widths")
        return np.stack([known[text] for text in texts])


def known_texts(model: TextModel, name: str, probe: FloatArray) -> TextModel:
    """The model, asked only for new texts where there is an account: see `counting`."""
    account = current_account()
    return model if account is None else KnownTexts(model, name, probe, account)


def _finite_units(rows: FloatArray) -> FloatArray:
    if not np.isfinite(rows).all():
        raise EmbedderUnavailable("the model answers with values that are not finite numbers")
    return unit_rows(rows)
