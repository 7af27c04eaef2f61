"""`Circuit`: calls to an endpoint that keeps failing fail at once."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from app.llm.errors import ModelError, ModelUnavailable

logger = logging.getLogger(__name__)


class Circuit:
    """Counts failures; after `failures` in a row, calls fail at once for `pause_s`.

    After each pause one call is tried, so an outage costs one caller a timeout every `pause_s`.
    Only errors of the types `counted` are failures; any other answer ends the pause. A timeout
    below `fair_s` is not counted, and concurrent failures count as one. Thread-safe.
    """

    def __init__(
        self,
        name: str,
        *,
        failures: int,
        pause_s: float,
        fair_s: float,
        counted: tuple[type[ModelError], ...] = (ModelUnavailable,),
    ) -> None:
        self._name = name
        self._limit = failures
        self._pause_s = pause_s
        self._fair_s = fair_s
        self._counted = counted
        self._lock = Lock()
        self._failures = 0
        self._last_failure = 0.0
        self._closed_until = 0.0

    @contextmanager
    def watching(self, timeout_s: float) -> Iterator[None]:
        """Watch a call with this timeout. Raises ModelUnavailable during a pause."""
        began = time.monotonic()
        self._enter(began)
        try:
            yield
        except ModelError as error:
            if isinstance(error, self._counted):
                self._note(error, timeout_s, began)
            else:
                self._failures = 0  # the endpoint answers, though not usefully
            raise
        self.answered()

    def answered(self) -> None:
        """Note that the endpoint has answered."""
        if self._failures >= self._limit:
            logger.warning("%s answers again", self._name)
        self._failures = 0

    def _enter(self, now: float) -> None:
        with self._lock:
            if self._failures < self._limit:
                return
            if now < self._closed_until:
                raise ModelUnavailable(
                    f"it failed {self._failures} times in a row: pausing", asked=False
                )
            self._closed_until = now + self._pause_s  # this call is tried, the others still fail

    def _note(self, error: ModelError, timeout_s: float, began: float) -> None:
        if isinstance(error, ModelUnavailable):
            hurried = error.timed_out and timeout_s < self._fair_s
            if hurried or not error.asked:
                return
        with self._lock:
            if began < self._last_failure:
                return
            self._last_failure = time.monotonic()
            self._failures += 1
            if self._failures >= self._limit:
                self._closed_until = self._last_failure + self._pause_s
                logger.warning("%s is not asked for %.0f s: %s", self._name, self._pause_s, error)
