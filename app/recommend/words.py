"""`WordReader`: the vectors of what requests say in words."""

import logging
import time
from collections.abc import Sequence

from app.llm import AnswerDegraded, Degraded
from app.recommend.need import Words, words_of
from app.recommend.request import RecommendRequest
from tree.embedders import EmbedderCache
from tree.errors import EmbedderUnavailable
from tree.snapshot import SemanticTree

logger = logging.getLogger(__name__)

_QUIET_S = 30.0  # between warnings: an outage is met by every request
_SHARE = 0.5  # of a request's time, at most: an answer takes some, too


class WordReader:
    """Reads words in the space of a tree, and gives up after `timeout_s`."""

    def __init__(self, embedders: EmbedderCache, timeout_s: float) -> None:
        self._embedders = embedders
        self._timeout_s = timeout_s
        self._quiet_until = 0.0

    async def said(
        self, tree: SemanticTree, asked: RecommendRequest
    ) -> tuple[Words, Degraded | None]:
        """What a request says, or why that is left out.

        Items have their vectors in the tree: without words, the answer is that of the history.
        Raises AnswerDegraded when that is not wanted.
        """
        try:
            return await self.read(tree, asked, words_of(asked)), None
        except EmbedderUnavailable as error:
            if asked.on_degraded == "error":
                raise AnswerDegraded("embedder_unavailable") from error
            if time.monotonic() >= self._quiet_until:
                self._quiet_until = time.monotonic() + _QUIET_S
                logger.warning("the words of requests are left out: %s", error)
            return {}, "embedder_unavailable"

    async def read(
        self, tree: SemanticTree, asked: RecommendRequest, texts: Sequence[str]
    ) -> Words:
        """The vectors of some texts. Raises EmbedderUnavailable."""
        if not texts:
            return {}
        patience_s = min(self._timeout_s, _SHARE * asked.timeout_ms / 1000)
        vectors = await self._embedders.soon(tree.space, texts, patience_s)
        return dict(zip(texts, vectors, strict=True))
