"""`Outages`: how often models have failed and why; one line in the log for each outage."""

import logging
import time
from collections import Counter
from collections.abc import Mapping

from app.llm.errors import ModelError, ModelUnavailable, SpentOnThinking

logger = logging.getLogger(__name__)

_QUIET_S = 30.0  # after a line: a limit of calls in a minute fails some calls and answers others


class Outages:
    """The failures of models in this process, by model and reason, for `/metrics`.

    A reason is a status of HTTP, `timeout`, `connection` or `thinking`.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._open: dict[str, bool] = {}  # models in an outage; whether the log says so
        self._logged: dict[tuple[str, str], float] = {}

    @property
    def counts(self) -> Mapping[tuple[str, str], int]:
        """How often each model has failed, by reason."""
        return self._counts

    def failed(self, model: str, reason: str, error: ModelError) -> None:
        """Count a failure; log the first of an outage, with the words of the endpoint."""
        self._counts[model, reason] += 1
        if isinstance(error, SpentOnThinking) and error.more_room:
            return
        now = time.monotonic()
        passing = isinstance(error, ModelUnavailable)
        again = passing and model in self._open and (model, reason) in self._logged
        if again or now - self._logged.get((model, reason), -_QUIET_S) < _QUIET_S:
            if passing:
                self._open.setdefault(model, False)
            return
        self._logged[model, reason] = now
        if passing:
            self._open[model] = True
        logger.warning("%s: %s", model, error)

    def answered(self, model: str) -> None:
        """Note that a model has answered: its outage is over."""
        if self._open.pop(model, False):
            logger.warning("%s answers again", model)
