"""What can go wrong with a model, by whose fault it is."""

from typing import Literal

Flaw = Literal["wrong_format", "repeated", "out_of_range", "missing"]


class ModelError(Exception):
    """A model gave no answer that can be used."""


class ModelUnavailable(ModelError):
    """The provider's fault, and passing: an outage, a limit, a timeout. Degrades the answer.

    `retry_after_s` is how long to wait before another try may help; None when it will not.
    `asked` is False when no call was made at all.
    """

    def __init__(
        self,
        reason: str,
        *,
        retry_after_s: float | None = None,
        timed_out: bool = False,
        asked: bool = True,
    ) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.timed_out = timed_out
        self.asked = asked


class InvalidReply(ModelError):
    """The model's fault: a reply from which nothing can be taken. Another try may do better."""

    def __init__(self, reason: str, flaw: Flaw = "wrong_format") -> None:
        super().__init__(reason)
        self.flaw: Flaw = flaw


class ModelRejected(ModelError):
    """Our fault: a wrong key, an unknown model, a request that the endpoint does not take.

    Never degrades an answer: a wrong key must not look like an outage.
    """


class UnsupportedReplyMode(ModelRejected):
    """The endpoint does not take this form of reply."""
