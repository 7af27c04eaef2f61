"""`Breaker`: who cannot wait does not, while an endpoint fails."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from app.llm.errors import InvalidReply, ModelUnavailable

_FAILURES, _PAUSE_S = 3, 5.0
_FAIR_S = 0.9  # an endpoint that does not answer within this has failed


class Breaker:
    """After several failures in a row of those who have no time, a pause for them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._failures = 0
        self._last_failure = 0.0
        self._closed_until = 0.0

    @contextmanager
    def watching(self, timeout_s: float | None) -> Iterator[None]:
        """Raises ModelUnavailable in the pause, but for who has time, whose failures are nobody
        else's concern either. Every answer ends the pause."""
        began = time.monotonic()
        if timeout_s is not None:
            self._enter(began)
        try:
            yield
        except (ModelUnavailable, InvalidReply) as error:
            late = isinstance(error, ModelUnavailable) and error.timed_out
            if timeout_s is not None and not (late and timeout_s < _FAIR_S):
                self._note_failure(began)
            raise
        self._failures = 0

    def _enter(self, now: float) -> None:
        with self._lock:
            if self._failures < _FAILURES:
                return
            if now < self._closed_until:
                raise ModelUnavailable(
                    f"it failed {self._failures} times in a row: pausing", asked=False
                )
            self._closed_until = now + _PAUSE_S  # this one tries, the others wait for it

    def _note_failure(self, began: float) -> None:
        """Once for calls that were under way together."""
        with self._lock:
            if began >= self._last_failure:
                self._last_failure = time.monotonic()
                self._failures += 1
                self._closed_until = self._last_failure + _PAUSE_S
