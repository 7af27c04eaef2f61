"""`WritingModel`: a model that writes text, asked in the strongest reply mode that it takes."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from app.llm.ask import CallContext, ask
from app.llm.chat import Reply, Turn
from app.llm.errors import ModelRejected, ModelUnavailable, UnsupportedReplyMode
from app.llm.ledger import StageModel
from app.llm.models import Models, works
from app.llm.slates import ReplyMode

_LONGEST_PAUSE_S = 3.0
_WEAKER = {
    ReplyMode.JSON_SCHEMA: ReplyMode.JSON_OBJECT,
    ReplyMode.JSON_OBJECT: ReplyMode.TEXT,
}

_T = TypeVar("_T")


class WritesNoText(Exception):
    """The endpoint answers with numbers only."""


class WritingModel:
    """One model of a service that writes text, such as labels or lines."""

    def __init__(self, models: Models, model: StageModel) -> None:
        self._models = models
        self._model = model
        self._mode: ReplyMode | None = None
        self._mute = False
        self._finding = asyncio.Lock()

    async def ask(
        self,
        context: CallContext,
        turn_of: Callable[[ReplyMode], Turn],
        read: Callable[[ReplyMode, Reply], _T],
    ) -> _T:
        """The value that `read` returns for the reply. Raises as `app.llm.ask`, and WritesNoText.

        The model may take less than those that rank: then it is asked in a weaker mode.
        """
        while True:
            mode = await self.mode()

            def value(reply: Reply, mode: ReplyMode = mode) -> _T:
                return read(mode, reply)

            try:
                return await ask(context, turn_of(mode), value)
            except UnsupportedReplyMode:
                if mode not in _WEAKER:
                    raise
                if self._mode is mode:
                    self._mode = _WEAKER[mode]

    async def mode(self) -> ReplyMode:
        """The mode in which it is asked next. Raises as `ask`."""
        async with self._finding:
            if self._mode is None and not self._mute:
                mode = await self._models.reply_mode()
                decides = mode in (ReplyMode.DECISIONS, ReplyMode.PREDICATES)
                self._mute = decides and not await self._writes(mode.for_text)
                self._mode = mode.for_text
            if self._mode is None or self._mute:
                raise WritesNoText
            return self._mode

    async def _writes(self, mode: ReplyMode) -> bool:
        """Whether the model writes text: an endpoint for decisions may write none."""
        try:
            return await works(self._model.model, mode, self._models.timeout_s)
        except ModelRejected:
            return False


class Patience:
    """How long work waits for the end of an outage of its model."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._down_since: float | None = None
        self.answers = 0

    def answered(self) -> None:
        """Note that the model has answered."""
        self.answers += 1
        self._down_since = None

    async def waited(self, error: ModelUnavailable) -> bool:
        """Wait a moment for the end of an outage; False when it has lasted too long."""
        now = time.monotonic()
        self._down_since = self._down_since or now
        left = self._down_since + self._patience_s - now
        if left <= 0:
            return False
        pause = max(error.retry_after_s or 0.0, min(_LONGEST_PAUSE_S, self._patience_s / 10))
        await asyncio.sleep(min(pause, left))
        return True
