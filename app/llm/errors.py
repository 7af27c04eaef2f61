"""Errors of models, by whose fault they are."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from app.llm.chat import TokenUsage

ReplyFlaw = Literal["wrong_format", "repeated", "out_of_range", "missing"]


class ModelError(Exception):
    """A model gave no usable answer."""


class ModelUnavailable(ModelError):
    """The provider's fault, for a time: an outage, a limit, a timeout. Degrades the answer.

    `retry_after_s` is how long to wait before a retry; None when a retry will not help. `asked`
    is False when no call was made.
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


class NoReplyMode(ModelUnavailable):
    """The model answers, but in no reply mode that can be used: waiting does not help.

    It degrades an answer as an outage does.
    """

    def __init__(self) -> None:
        super().__init__("the model answers, but in no reply mode that can be used")


class InvalidReply(ModelError):
    """The model's fault: a reply with nothing usable in it. A retry may help."""

    def __init__(self, reason: str, flaw: ReplyFlaw = "wrong_format") -> None:
        super().__init__(reason)
        self.flaw: ReplyFlaw = flaw


class AnsweredWithError(InvalidReply):
    """The endpoint answers 200 with an error in place of a reply.

    `code` is the status that it names, and `kind` its code where that is a word. `words` are the
    endpoint's own: they may hold keys and prompts.
    """

    def __init__(self, words: str, code: int | None, kind: str | None) -> None:
        named = ", ".join(str(one) for one in (code, kind) if one is not None)
        super().__init__(f"the endpoint answers with an error{f' ({named[:60]})' if named else ''}")
        self.words = words
        self.code = code
        self.kind = kind


class SpentOnThinking(InvalidReply):
    """The model spent all tokens of its reply on thinking.

    With `more_room`, it is asked with more from now on: see `ChatModel.room`. `usage` is what the
    call took, if the provider reports it.
    """

    def __init__(self, usage: "TokenUsage | None", *, more_room: bool) -> None:
        super().__init__("the model spent all tokens on thinking, and gave no answer")
        self.usage = usage
        self.more_room = more_room


class ModelRejected(ModelError):
    """Our fault: a wrong key, an unknown model, a request that the endpoint rejects.

    Never degrades an answer: a wrong key must not look like an outage. Once a model has answered,
    the same words of its endpoint are an outage: the settings are right.
    """


class UnsupportedReplyMode(ModelRejected):
    """The endpoint does not support this form of reply.

    `perhaps`: it failed without saying why, which may be an outage.
    """

    def __init__(self, reason: str, *, perhaps: bool = False) -> None:
        super().__init__(reason)
        self.perhaps = perhaps


class NoBatchApi(ModelRejected):
    """The endpoint has no batch API: calls can only be made one by one."""

    def __init__(
        self, reason: str = "the endpoint has no batch API (/v1/files and /v1/batches)"
    ) -> None:
        super().__init__(f"{reason}: make the calls one by one, without --batch-api")


class BatchGone(ModelRejected):
    """The endpoint does not know a batch, or has removed its files."""


class PicturesRefused(ModelRejected):
    """The endpoint rejects a turn with pictures, and may accept the same turn without them."""
