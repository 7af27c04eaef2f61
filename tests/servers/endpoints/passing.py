"""Kinds of endpoints with trouble that passes, and those whose address or key is wrong."""

from tests.servers.endpoints.answerer import Json
from tests.servers.endpoints.kind import Asked, Kind, Sent, at_first, every, troubled, unless
from tests.servers.endpoints.wording import openai_error


def _error(message: str, code: object) -> Json:
    return {"error": {"message": message, "code": code}}


def _key(asked: Asked) -> bool:
    return asked.headers.get("authorization") == "Bearer key-of-the-test"


def _outage(name: str, source: str, *sent: Sent) -> Kind:
    return Kind(name, source, (troubled(*sent),), outcome="outage")


_RATE = "Rate limit exceeded: free-models-per-min."
_DATE = {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}  # is over

AT_TIMES = (
    Kind(
        "429-at-the-probe",
        "any provider: the first call of a start meets a limit",
        (at_first(1, Sent(openai_error("Rate limit reached"), 429, {"retry-after": "0.1"})),),
        mode="json_schema",
    ),
    Kind(
        "error-in-200-at-the-probe",
        "OpenRouter: 200 with choices null and an error 429",
        (at_first(1, Sent({"choices": None, **_error(_RATE, 429)})),),
        mode="json_schema",
    ),
    Kind(
        "error-in-200",
        "OpenRouter: the same now and then",
        (every(4, Sent(_error("Provider returned error", 502))),),
    ),
    Kind(
        "error-in-choice",
        "OpenRouter: the error stands in the choice",
        (
            every(
                4,
                Sent(
                    {
                        "choices": [
                            {
                                "error": {"code": 502, "message": "Upstream error"},
                                "finish_reason": "error",
                                "message": {"role": "assistant", "content": ""},
                            }
                        ]
                    }
                ),
            ),
        ),
    ),
    Kind(
        "base-resp",
        "MiniMax: 200, choices null and base_resp with a code of its own",
        (
            every(
                4,
                Sent(
                    {
                        "choices": None,
                        "base_resp": {"status_code": 1002, "status_msg": "rate limit"},
                    }
                ),
            ),
        ),
    ),
    Kind(
        "retry-after-date",
        "gateways: Retry-After as a date",
        (every(4, Sent(openai_error("Too many requests"), 429, _DATE)),),
    ),
    Kind(
        "retry-after-ms",
        "Azure: retry-after-ms",
        (every(4, Sent(openai_error("Too many requests"), 429, {"retry-after-ms": "40"})),),
    ),
    Kind(
        "cloud-page",
        "Cloudflare before an endpoint: a page with status 520 now and then",
        (every(4, Sent("<html>520: Web server is returning an unknown error", 520)),),
    ),
)

OUTAGES = (
    _outage(
        "402-later",
        "OpenRouter, DeepSeek: the account is empty",
        Sent(_error("Insufficient Balance", "invalid_request_error"), 402),
    ),
    _outage(
        "403-later",
        "OpenRouter: the limit of a key",
        Sent(_error("Key limit exceeded (total limit).", 403), 403),
    ),
    _outage(
        "401-later",
        "providers that check keys against a store that is down",
        Sent(openai_error("Unable to validate the key"), 401),
    ),
    _outage(
        "404-later",
        "OpenRouter: no provider has the model at the moment",
        Sent(_error("No endpoints found for any/model.", 404), 404),
    ),
    _outage(
        "424-later",
        "Bedrock, Hugging Face: the model is not ready",
        Sent({"message": "Model is not ready for inference."}, 424),
    ),
    _outage(
        "credit-later",
        "Anthropic: 400 where the credit is used up",
        Sent(
            {
                "type": "error",
                "error": {
                    "type": "invalid_request_error",
                    "message": "Your credit balance is too low to access the Anthropic API. "
                    "Please go to Plans & Billing to upgrade or purchase credits.",
                },
            },
            400,
        ),
    ),
    _outage(
        "quota-later",
        "OpenAI: 429 insufficient_quota",
        Sent(
            openai_error(
                "You exceeded your current quota, please check your plan and billing details.",
                None,
                "insufficient_quota",
            ),
            429,
        ),
    ),
    _outage("503-later", "servers that load a model", Sent(_error("Loading model", 503), 503)),
    _outage(
        "page-later",
        "a proxy whose server is down: a page with status 200",
        Sent("<!doctype html><title>Maintenance</title>", media="text/html"),
    ),
)

ADDRESSES = (
    Kind("base-with-path", "people who set the whole URL", base="/v1/chat/completions"),
    Kind("base-with-slash", "people who end the URL with a slash", base="/v1/"),
    Kind(
        "key-with-line-end",
        "keys from a file: a line end after the key",
        (unless(_key, 401, openai_error("Incorrect API key provided")),),
        key="key-of-the-test\n",
    ),
    Kind(
        "wrong-key",
        "OpenAI: 401 at the start",
        (
            unless(
                lambda _: False, 401, openai_error("Incorrect API key provided: key-of-the-test")
            ),
        ),
        outcome="refused",
        words="Incorrect API key provided",
    ),
    Kind(
        "unknown-model",
        "Ollama: 404 at the start",
        (
            unless(
                lambda _: False, 404, _error('model "any" not found, try pulling it first', None)
            ),
        ),
        outcome="refused",
        words="try pulling it first",
    ),
    Kind(
        "redirect",
        "a server that has moved: 308",
        (lambda _: Sent("", 308, {"location": "https://new.example/v1/chat/completions"}),),
        outcome="refused",
        words="https://new.example/v1/chat/completions",
    ),
)

KINDS = (*AT_TIMES, *OUTAGES, *ADDRESSES)
