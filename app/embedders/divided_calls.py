"""`DividedCalls`: calls of an endpoint that are repeated, or divided where texts are refused."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from app.embedders.endpoint_limits import EndpointLimits
from app.llm.errors import InvalidReply, ModelRejected, ModelUnavailable
from tree.vectors import FloatArray

logger = logging.getLogger(__name__)

TRIES = 9  # they bridge an outage of about 25 seconds
HARMLESS = "a test"  # every endpoint that accepts texts accepts this one
_TRIES_WITH_DEADLINE = 3
_FAULTS, _FAULTS_IN_HURRY = (
    3,
    1,
)  # of a call, until a harmless text tells whether its texts cause it
_LIMITED = 3  # refusals of a call of many texts as too many, until it is divided
_LEAST_LIMITED = 16  # texts; a limit of calls in a minute is not met with more calls
_FEWEST_CHARS = 100
_CALL_S = 60.0  # of one call without a deadline
_ALL_TRIES_S = 180.0  # of one call with all its tries
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 60.0


class TextsRefused(Exception):
    """The endpoint rejects these texts: their content, their length or number, or any text.

    `limit`: the least number of texts that may be the limit that this is about, 0 for none.
    """

    def __init__(self, reason: str, limit: int = 1) -> None:
        super().__init__(reason)
        self.limit = limit


class ServerFault(ModelUnavailable):
    """The endpoint fails: an outage, or some of the texts make it fail."""


class RateLimited(ModelUnavailable):
    """The endpoint has been asked for too much, lately or in this one call."""


@dataclass(frozen=True, slots=True)
class _FoundRows:
    """The vectors of some texts, in order; `whole`: as one call, uncut, has answered them."""

    parts: list[FloatArray]
    whole: bool = False


class DividedCalls:
    """Repeats a call while that may help; divides it where its texts may be what is wrong.

    Some endpoints fail with 500 for one text and answer all others. The text is found by halving
    the call, as long as a harmless text is answered; otherwise it is an outage.
    """

    def __init__(
        self,
        name: str,
        call: Callable[[list[str], float], Awaitable[FloatArray]],
        limits: EndpointLimits,
        tries: int = TRIES,
    ) -> None:
        """`call` makes one call with a timeout. It raises ModelError, and TextsRefused."""
        self._name = name
        self._call = call
        self._limits = limits
        self._tries = tries
        self._looking = asyncio.Lock()
        self._answers = False  # then it is asked in a form that it takes

    async def vectors(self, texts: list[str], deadline: float) -> list[FloatArray]:
        """The vectors of some texts, in parts; zero for a text that is refused on its own.

        Only texts that are too long for the model are cut: the vector of a text does not depend on
        the other texts of its call. Raises ModelError.
        """
        return (await self._answer(texts, deadline)).parts

    async def _answer(
        self, texts: list[str], deadline: float, *, suspect: bool = False
    ) -> _FoundRows:
        """`suspect`: these texts are part of a call that was refused."""
        if len(texts) > self._limits.most_texts:
            return await self._divided(texts, self._limits.most_texts, deadline, suspect)
        with_base64 = self._limits.base64
        try:
            rows = await self._asked(texts, deadline, suspect)
            self._answers = True
            return _FoundRows([rows], whole=True)
        except TextsRefused as error:
            if with_base64 and await self._refuses_base64(deadline):
                return await self._answer(texts, deadline)
            if half := len(texts) // 2:
                found = await self._divided(texts, len(texts) - half, deadline, suspect=True)
                if found.whole and error.limit:
                    self._limits.note_most_texts(max(half, error.limit))
                return _FoundRows(found.parts)
            if len(texts[0]) >= 2 * _FEWEST_CHARS:
                shorter = [texts[0][: len(texts[0]) // 2]]
                return _FoundRows((await self._answer(shorter, deadline, suspect=True)).parts)
            return _FoundRows([await self._zero_vector(error, deadline)])

    async def _divided(
        self, texts: list[str], size: int, deadline: float, suspect: bool
    ) -> _FoundRows:
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        found = [await self._answer(part, deadline, suspect=suspect) for part in parts]
        rows = [part for answer in found for part in answer.parts]
        return _FoundRows(rows, whole=all(answer.whole for answer in found))

    async def _refuses_base64(self, deadline: float) -> bool:
        """Whether the endpoint takes a harmless text only where it is not asked for base64."""
        async with self._looking:
            if self._answers or not self._limits.base64:
                return not self._limits.base64
            with suppress(TextsRefused):
                await self._asked([HARMLESS], deadline, suspect=False)
                self._answers = True
                return False
            self._limits.note_no_base64()
            return True

    async def _zero_vector(self, refused: TextsRefused, deadline: float) -> FloatArray:
        """A zero vector, for a single text that the endpoint refuses.

        Raises ModelRejected when every text is refused.
        """
        try:
            accepted = await self._asked([HARMLESS], deadline, suspect=False)
        except TextsRefused as error:
            raise ModelRejected(f"the endpoint accepts no text: {error}") from error
        logger.warning("%s accepts other texts, but refuses one: %s", self._name, refused)
        return np.zeros_like(accepted)

    async def _asked(self, texts: list[str], deadline: float, suspect: bool) -> FloatArray:
        """The vectors of one call, repeated while that may help and there is time.

        Raises TextsRefused also where these texts make the endpoint fail.
        """
        has_deadline = deadline != np.inf
        most = min(_TRIES_WITH_DEADLINE, self._tries) if has_deadline else self._tries
        in_hurry = has_deadline or (suspect and len(texts) > 1)
        deadline = min(deadline, time.monotonic() + _ALL_TRIES_S)
        wait, faults, limited = _FIRST_WAIT_S, 0, 0
        for tries in range(1, most + 1):
            try:
                if faults < (_FAULTS_IN_HURRY if in_hurry else _FAULTS):
                    return await self._once(texts, deadline)
                await self._once([HARMLESS], deadline)  # fails in an outage
                return await self._again(texts, deadline)
            except (ModelUnavailable, InvalidReply) as error:
                faults += isinstance(error, ServerFault | InvalidReply)
                limited += isinstance(error, RateLimited)
                if limited == _LIMITED and len(texts) > 1:
                    raise TextsRefused(str(error), _LEAST_LIMITED) from error
                pause = _pause_s(error, wait)
                if tries == most or pause is None or time.monotonic() + pause >= deadline:
                    raise
                await asyncio.sleep(pause)
                wait *= 2
        raise AssertionError("the last try returns or raises")

    async def _again(self, texts: list[str], deadline: float) -> FloatArray:
        """One more call of texts that made the endpoint fail, which has answered another text."""
        try:
            return await self._once(texts, deadline)
        except (ServerFault, InvalidReply) as error:
            raise TextsRefused(str(error), limit=0) from error

    async def _once(self, texts: list[str], deadline: float) -> FloatArray:
        return await self._call(texts, min(_CALL_S, deadline - time.monotonic()))


def _pause_s(error: ModelUnavailable | InvalidReply, wait_s: float) -> float | None:
    """How long to wait before the next try; None where no try will help."""
    if isinstance(error, InvalidReply):
        return min(wait_s, _LONGEST_WAIT_S)
    if not error.timed_out and error.retry_after_s is None:
        return None
    return min(max(error.retry_after_s or 0.0, wait_s), _LONGEST_WAIT_S)
