"""`ThrottledLog`: limits how often warnings that many requests cause are logged."""

import logging
import time


class ThrottledLog:
    """Logs a warning, unless the last one is less than `pause_s` ago."""

    def __init__(self, logger: logging.Logger, pause_s: float = 30.0) -> None:
        self._logger = logger
        self._pause_s = pause_s
        self._paused_until = 0.0

    def warning(self, message: str, error: Exception) -> None:
        """Log `message`; `%s` in it is replaced by the error."""
        now = time.monotonic()
        if now >= self._paused_until:
            self._paused_until = now + self._pause_s
            self._logger.warning(message, error)
