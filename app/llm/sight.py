"""`Sighted`: pictures go to models that accept them; other models get the text alone."""

import logging
import time
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256

from app.llm.chat import ChatModel, Message, Picture, Reply, Text, Turn
from app.llm.errors import InvalidReply, ModelError, ModelUnavailable, PicturesRefused
from app.storage.documents import Documents
from tree.worker import SingleFlight, result_of

logger = logging.getLogger(__name__)

_TTL_S = 86_400
_SEES, _BLIND = b"sees", b"blind"
# 64 × 64 green pixels: some models refuse pictures with fewer than 28 pixels to a side.
_GREEN = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAATUlEQVR42u3PQQ0AAAgEoNPk"
    "RreBfzdoQGXyWicCAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICArcFYVwBAL949tEAAAAA"
    "SUVORK5CYII="
)
_QUESTION = Message("user", "Which colour is this picture?", (Picture("The picture:", _GREEN),))


class Sighted:
    """See ChatModel. Shows pictures only to a model that accepts them.

    Whether it does is asked once with a tiny picture, and stored for a day under the name of the
    endpoint and the model. A turn with pictures that such a model refuses (one may be broken) is
    asked again without them. The caller closes it.
    """

    def __init__(
        self, model: ChatModel, documents: Documents, endpoint: str = "", *, timeout_s: float = 20.0
    ) -> None:
        self._model = model
        self._documents = documents
        self._key = sha256(f"{endpoint}\0{model.name}\0pictures".encode()).hexdigest()
        self._timeout_s = timeout_s
        self._known: bool | None = None
        self._known_until = 0.0
        self._probe = SingleFlight("asking a model whether it sees", self._found, ModelError)

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def room(self) -> int:
        return self._model.room

    async def aclose(self) -> None:
        """End a probe that is running; the model stays open."""
        await self._probe.aclose()

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel. Raises StoreUnavailable too."""
        if not turn.pictures:
            return await self._model.complete(turn)
        deadline = time.monotonic() + turn.timeout_s
        if await self.sees(turn.timeout_s):
            try:
                return await self._model.complete(_until(deadline, turn))
            except PicturesRefused as error:
                logger.info("%s is asked again without pictures: %s", self.name, error)
        return await self._model.complete(_until(deadline, turn).without_pictures())

    async def sees(self, timeout_s: float) -> bool:
        """Whether the model accepts pictures.

        All callers share one probe, which continues when a caller has waited `timeout_s`. Raises
        ModelUnavailable, ModelRejected, StoreUnavailable.
        """
        if self._known is None or time.monotonic() >= self._known_until:
            try:
                self._known = await result_of(self._probe.begin(), timeout_s)
                self._known_until = time.monotonic() + _TTL_S
            except TimeoutError as error:
                raise ModelUnavailable("the model has not answered yet", timed_out=True) from error
        return self._known

    async def _found(self) -> bool:
        stored = await self._documents.get("mode", self._key)
        if stored in (_SEES, _BLIND):
            return stored == _SEES
        probe = Turn((_QUESTION,), Text(), 100, self._timeout_s, probe=True)
        try:
            await self._model.complete(probe)
            sees = True
        except InvalidReply:  # it has read the picture, and says nothing useful about it
            sees = True
        except PicturesRefused:
            # Where the text alone is refused too, something else is wrong.
            with suppress(InvalidReply):
                await self._model.complete(probe.without_pictures())
            sees = False
        await self._documents.put("mode", self._key, _SEES if sees else _BLIND, _TTL_S)
        logger.info("%s %s pictures", self.name, "accepts" if sees else "refuses")
        return sees


def _until(deadline: float, turn: Turn) -> Turn:
    return replace(turn, timeout_s=max(0.0, deadline - time.monotonic()))
