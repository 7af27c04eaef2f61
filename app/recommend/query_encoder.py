"""`QueryEncoder`: the vectors of the words in requests."""

import logging
from collections.abc import Sequence

from app.embedders import EmbedderCache
from app.llm import AnswerDegraded, Degraded
from app.recommend.request import RecommendRequest
from app.recommend.resolve import RequestVectors, TextVectors, titles_of, wishes_of
from app.throttled_log import ThrottledLog
from tree.errors import EmbedderUnavailable
from tree.passage import Passage, Text
from tree.snapshot import SemanticTree
from tree.vectors import Int8Matrix

logger = logging.getLogger(__name__)

_SHARE = 0.5  # of a request's time, at most: the rest is for the answer


class QueryEncoder:
    """Encodes words in the space of a tree, and gives up after `timeout_s`."""

    def __init__(self, embedders: EmbedderCache, timeout_s: float) -> None:
        self._embedders = embedders
        self._timeout_s = timeout_s
        self._log = ThrottledLog(logger)

    async def encode_request(
        self, tree: SemanticTree, request: RecommendRequest
    ) -> tuple[RequestVectors, Degraded | None]:
        """The vectors of a request's words, or why there are none.

        Items have their vectors in the tree: without words, the answer is that of the history.
        Raises AnswerDegraded where the request does not allow that.
        """
        titles, wishes = titles_of(request), wishes_of(request)
        words: list[Text] = [*titles, *map(_wish, wishes)]
        try:
            rows = await self._encode(tree, request, words)
        except EmbedderUnavailable as error:
            if request.on_degraded == "error":
                raise AnswerDegraded("embedder_unavailable") from error
            self._log.warning("the words of requests are left out: %s", error)
            return RequestVectors(), "embedder_unavailable"
        return RequestVectors(
            dict(zip(titles, rows[: len(titles)], strict=True)),
            dict(zip(wishes, rows[len(titles) :], strict=True)),
        ), None

    async def encode(
        self, tree: SemanticTree, request: RecommendRequest, texts: Sequence[str]
    ) -> TextVectors:
        """The vectors of words for what a user wants. Raises EmbedderUnavailable."""
        rows = await self._encode(tree, request, [_wish(text) for text in texts])
        return dict(zip(texts, rows, strict=True))

    async def _encode(
        self,
        tree: SemanticTree,
        request: RecommendRequest,
        texts: Sequence[Text],
    ) -> Int8Matrix | list[Int8Matrix]:
        if not texts:
            return []
        wait_s = min(self._timeout_s, _SHARE * request.timeout_ms / 1000)
        return await self._embedders.encode_interactive(tree.space, texts, wait_s)


def _wish(text: str) -> Passage:
    return Passage(text, is_wish=True)
