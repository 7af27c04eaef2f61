"""`OpenAIChat`: any OpenAI-compatible endpoint through the official client."""

import asyncio
import logging
import re
from collections.abc import Mapping
from http import HTTPStatus

import httpx2
import openai
from openai import AsyncOpenAI, DefaultAioHttpClient

from app.llm.chat import Decisions, Reply, Turn
from app.llm.chat_body import chat_body, decision_body
from app.llm.completion import read_completion
from app.llm.decision_reply import read_decision
from app.llm.errors import (
    InvalidReply,
    ModelRejected,
    ModelUnavailable,
    PicturesRefused,
    UnsupportedReplyMode,
)

logger = logging.getLogger(__name__)

_BACKOFF_S = 0.25
_PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
_OPTIONAL = ("temperature", "seed", "max_tokens", "logprobs", "response_format")
_REFUSING = r"(?:unsupported|not supported|does not support|unknown|unrecognized|not permitted)"
_COMPLAINT = re.compile(
    rf"{_REFUSING}\W+(?:\w+\W+){{0,3}}?({'|'.join(_OPTIONAL)})\b"
    rf"|\b({'|'.join(_OPTIONAL)})\b\W+(?:\w+\W+){{0,3}}?{_REFUSING}",
    re.IGNORECASE,
)
_ABOUT_PROMPT = ("context_length_exceeded", "exceed_context_size_error", "content_filter")
_UNACCEPTABLE = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
_REFUSING_PICTURES = (
    *_UNACCEPTABLE,
    HTTPStatus.NOT_FOUND,  # OpenRouter: "No endpoints found that support image input"
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.NOT_IMPLEMENTED,
)
_ABOUT_PICTURES = re.compile(r"image|multi-?modal|mmproj|vision|content part", re.IGNORECASE)
_MESSAGE_READ = 4_000  # characters of an error; some quote the whole prompt
_SHORTEST_KEY = 4


def connect(base_url: str | None, api_key: str | None) -> AsyncOpenAI:
    """A client for an endpoint; no connection is made yet. The caller closes it.

    The transport is aiohttp: a third of the CPU time of the default one. Retries are made by
    `ask`, which knows the request's deadline and budget. Redirects are not followed: they could
    send keys and prompts to any address.
    """
    return AsyncOpenAI(
        base_url=base_url,
        api_key=api_key or "none",  # local servers accept any key, and the client requires one
        max_retries=0,
        timeout=60,
        http_client=DefaultAioHttpClient(follow_redirects=False),
    )


class OpenAIChat:
    """See ChatModel. The caller owns and closes `client`.

    Replies are decoded into our own small structs: 1 ms of CPU per call, against 3 ms with the
    client's models and 5 ms with its `parse`.
    """

    def __init__(self, client: AsyncOpenAI, model: str) -> None:
        self._client = client
        self._name = model
        self._works = False  # after its first answer, a 400 is about one prompt
        self._refused: frozenset[str] = frozenset()  # parameters that this endpoint rejects

    @property
    def name(self) -> str:
        return self._name

    def body_of(self, turn: Turn) -> dict[str, object]:
        """What a turn sends, without the parameters that the endpoint has rejected so far."""
        return chat_body(self._name, turn, self._refused)

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel. Learns which optional parameters the endpoint rejects."""
        try:
            async with asyncio.timeout(turn.timeout_s):  # the client's own timeout is per read
                while True:
                    try:
                        reply = await self._once(turn)
                        self._works = True
                        return reply
                    except openai.APIStatusError as error:
                        self._sort_out(error, turn)
        except TimeoutError as error:
            raise _timed_out(turn.timeout_s) from error
        except openai.OpenAIError as error:
            key = self._client.api_key
            raise translated(error, self._name, key, about_prompt=self._works) from error
        except (ValueError, UnicodeError) as error:
            raise ModelRejected("the address or the key of the endpoint cannot be used") from error

    def _sort_out(self, error: openai.APIStatusError, turn: Turn) -> None:
        """Return if a call without a refused parameter may work. Raises what is wrong otherwise."""
        parameter = _refused_parameter(error)
        if parameter is None or parameter in self._refused:
            if turn.pictures and _may_be_about_pictures(error):
                raise PicturesRefused(f"the endpoint answers {error.status_code}") from error
            raise error
        if parameter in ("response_format", "logprobs"):
            raise UnsupportedReplyMode(f"the endpoint does not support {parameter}") from error
        self._refused |= {parameter}

    async def _once(self, turn: Turn) -> Reply:
        if isinstance(turn.form, Decisions):
            body = decision_body(self._name, turn.messages, turn.form)
            content = await self._post("/decisions", body, turn.timeout_s)
            return read_decision(content, turn.form)
        content = await self._post("/chat/completions", self.body_of(turn), turn.timeout_s)
        return read_completion(content)

    async def _post(self, path: str, body: Mapping[str, object], timeout_s: float) -> bytes:
        response = await self._client.post(
            path, cast_to=httpx2.Response, body=body, options={"timeout": timeout_s}
        )
        return response.content


# -- what goes wrong


def translated(
    error: openai.OpenAIError, name: str, key: str, *, about_prompt: bool
) -> ModelUnavailable | ModelRejected | InvalidReply:
    """The error of this package for one of the client.

    Its message is our own: that of a provider may hold keys, prompts and addresses. With
    `about_prompt`, a rejection concerns this prompt, as the endpoint has accepted others.
    """
    if isinstance(error, openai.APIStatusError):
        message = _without_key(" ".join(error.message.split())[:500], key)
        logger.warning("%s: the endpoint answers %d: %s", name, error.status_code, message)
        return _of_status(error, about_prompt=about_prompt)
    cause = error.__cause__ or error
    # aiohttp's transport reports a refused connection as a timeout.
    refused = isinstance(cause, httpx2.ConnectTimeout)
    if isinstance(error, openai.APITimeoutError) and not refused:
        return ModelUnavailable("the model did not answer in time", timed_out=True)
    if isinstance(error, openai.APIConnectionError):
        logger.warning("%s: no connection: %s", name, cause)
        return ModelUnavailable("no connection to the model", retry_after_s=_BACKOFF_S)
    return ModelRejected(f"the client refuses the call: {type(error).__name__}")


def _of_status(
    error: openai.APIStatusError, *, about_prompt: bool
) -> ModelUnavailable | ModelRejected | InvalidReply:
    status, code = error.status_code, error.code
    named = f"{status} ({code})" if isinstance(code, str) else str(status)
    if code == "insufficient_quota":
        return ModelUnavailable("the account at the endpoint is used up")
    if status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ModelUnavailable(f"the endpoint answers {named}", retry_after_s=_wait(error))
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return ModelRejected(f"the endpoint answers {named}: it has moved; set its new address")
    if code in _ABOUT_PROMPT or error.type in _ABOUT_PROMPT:
        return InvalidReply(f"the endpoint does not take this prompt: {named}")
    if about_prompt and status in _UNACCEPTABLE:  # it accepts other prompts
        return InvalidReply(f"the endpoint does not take this prompt: {named}")
    return ModelRejected(f"the endpoint answers {named}: check its address, the key and the model")


def _timed_out(timeout_s: float) -> ModelUnavailable:
    return ModelUnavailable(f"no answer from the model within {timeout_s:.1f} s", timed_out=True)


def _wait(error: openai.APIStatusError) -> float:
    """Seconds to wait before a retry: `Retry-After` of the endpoint, or our own."""
    given = error.response.headers.get("retry-after", "")
    try:
        wait = float(given)
    except ValueError:  # missing, or a date, which no model endpoint sends
        return _BACKOFF_S
    return wait if wait >= 0 else _BACKOFF_S


def _without_key(text: str, key: str) -> str:
    return text.replace(key, "…") if len(key) >= _SHORTEST_KEY else text


def _refused_parameter(error: openai.APIStatusError) -> str | None:
    """The optional parameter that a 400 is about; None when it is about something else."""
    if error.status_code != HTTPStatus.BAD_REQUEST:
        return None
    if error.param in _OPTIONAL:
        return error.param
    found = _COMPLAINT.search(error.message[:_MESSAGE_READ])
    return found[1] or found[2] if found else None


def _may_be_about_pictures(error: openai.APIStatusError) -> bool:
    """Whether the same turn may be accepted without its pictures.

    Each provider has its own words, so the words of a 4xx do not count. llama.cpp answers 500.
    """
    if error.status_code in _REFUSING_PICTURES:
        return True
    about = _ABOUT_PICTURES.search(error.message[:_MESSAGE_READ])
    return error.status_code == HTTPStatus.INTERNAL_SERVER_ERROR and about is not None
