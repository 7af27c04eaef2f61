"""What goes wrong with a call, as errors of this package."""

import logging
import re
from http import HTTPStatus

import httpx2
import openai

from app.llm.endpoint.dialect import hints_at_form
from app.llm.endpoint.refusals import Fault, Refusal
from app.llm.errors import InvalidReply, ModelError, ModelRejected, ModelUnavailable

logger = logging.getLogger(__name__)

_BACKOFF_S = 0.25
_REFUSING_PICTURES = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_FOUND,  # OpenRouter: "No endpoints found that support image input"
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.NOT_IMPLEMENTED,
)
_ABOUT_PICTURES = re.compile(r"image|multi-?modal|mmproj|vision|content part")
# Not in the words of the endpoint, which may quote the prompt.
_OF_ONE_PROMPT = (Fault.PROMPT, Fault.TOO_LONG, Fault.REPLY)
_THIS_PROMPT = "it does not take this prompt"
_HINTS = {
    HTTPStatus.UNAUTHORIZED: "check the key",
    HTTPStatus.FORBIDDEN: "check the key, and what it may use",
    HTTPStatus.NOT_FOUND: "check the address (most end with /v1) and the name of the model",
}


def refusal_of(error: openai.APIStatusError, key: str) -> Refusal:
    """What the endpoint said."""
    answer = error.response
    asked = str(answer.request.url)
    return Refusal.of(answer.status_code, answer.headers, answer.content, key=key, asked=asked)


def may_be_accepted_otherwise(refusal: Refusal, *, probe: bool) -> bool:
    """Whether the same call may be accepted in another form."""
    if refusal.fault in (Fault.PARAMETERS, Fault.TOO_LONG):
        return True
    return probe and refusal.status == HTTPStatus.INTERNAL_SERVER_ERROR


def about_pictures(refusal: Refusal) -> bool:
    """Whether the same turn may be accepted without its pictures.

    Each provider has its own words, so the words of a 4xx do not count. llama.cpp answers 500.
    """
    if refusal.status in _REFUSING_PICTURES:
        return True
    about = _ABOUT_PICTURES.search(refusal.text)
    return refusal.status == HTTPStatus.INTERNAL_SERVER_ERROR and about is not None


def refuses_form(refusal: Refusal, *, known: bool) -> bool:
    """Whether the form of the reply is refused; `known`: it has been accepted before."""
    if refusal.fault is not Fault.PARAMETERS:
        return False
    unnamed = not known and refusal.status < HTTPStatus.INTERNAL_SERVER_ERROR
    return unnamed or hints_at_form(refusal.text)


def error_of(refusal: Refusal, *, works: bool) -> ModelError:
    """The error for a refusal. When the endpoint `works`, what it refuses now is an outage."""
    fault, reason = refusal.fault, f"the endpoint answers {refusal.named}"
    if fault is Fault.PARAMETERS and refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        fault = Fault.BUSY
    if fault in _OF_ONE_PROMPT or (fault is Fault.PARAMETERS and works):
        told = "the reply has not the form asked for" if fault is Fault.REPLY else _THIS_PROMPT
        return InvalidReply(f"the endpoint answers {refusal.brief}: {told}")
    if fault is Fault.BUSY or (fault is Fault.PAGE and works):
        wait_s = refusal.retry_after_s
        return ModelUnavailable(reason, retry_after_s=_BACKOFF_S if wait_s is None else wait_s)
    if fault is Fault.MONEY:
        return ModelUnavailable(f"the account at the endpoint is used up: {reason}")
    if works:
        return ModelUnavailable(reason)
    return ModelRejected(f"{reason}; {_advice(refusal)}")


def _advice(refusal: Refusal) -> str:
    if refusal.fault is Fault.MOVED:
        where = f" to {refusal.moved_to}" if refusal.moved_to else ""
        return f"it has moved{where}: set its new address, redirects are not followed"
    if refusal.fault is Fault.PAGE:
        return "that is a page for people: check the address, most end with /v1"
    if refusal.fault is Fault.MODEL:
        return "check the name of the model"
    for status, hint in _HINTS.items():
        if refusal.status == status:
            return hint
    return "check its address, the key and the model"


def connection_failure(error: openai.OpenAIError) -> ModelUnavailable | ModelRejected:
    """The error for a call that got no answer."""
    cause = error.__cause__ or error
    # aiohttp's transport reports a refused connection as a timeout.
    refused = isinstance(cause, httpx2.ConnectTimeout)
    if isinstance(error, openai.APITimeoutError) and not refused:
        return ModelUnavailable("the model did not answer in time", timed_out=True)
    if isinstance(error, openai.APIConnectionError):
        logger.info("no connection: %s", cause)
        return ModelUnavailable("no connection to the model", retry_after_s=_BACKOFF_S)
    return ModelRejected(f"the client refuses the call: {type(error).__name__}")


def translated(
    error: openai.OpenAIError, name: str, key: str, *, works: bool = False
) -> ModelError:
    """The error of this package for one of the client, which is logged."""
    if isinstance(error, openai.APIStatusError):
        found = error_of(refusal_of(error, key), works=works)
    else:
        found = connection_failure(error)
    logger.warning("%s: %s", name, found)
    return found
