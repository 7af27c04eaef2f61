"""What a refusal says, and what it is about."""

import json
from email.utils import formatdate
from time import time

import pytest

from app.llm.endpoint.refusals import Fault, Refusal, wait_of


def refusal(status: int, body: object, **headers: str) -> Refusal:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return Refusal.of(status, headers, content, key="sk-123456")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "No  way,\nsk-123456"}}, "No way, …"),
        ({"error": "No way"}, "No way"),
        ([{"error": {"message": "No way"}}], "No way"),
        ({"detail": "No way"}, "No way"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "No way", "input": "a prompt"}]}, "No way"),
        ({"message": {"detail": [{"msg": "No way"}]}}, "No way"),
        ({"errors": [{"message": "No"}, {"message": "way"}]}, "No; way"),
        ("<html><title>No</title><p>way</p></html>", "No way"),
        ("No way", "No way"),
        ("\ufeff{\"error\": \"No way\"}", "No way"),
        ("", ""),
        ("[" * 60_000, "[" * 299 + "…"),
        ({"error": {"message": "key Bearer abcdefgh is bad"}}, "key Bearer … is bad"),
    ],
)  # fmt: skip
def test_what_was_said_is_one_line_without_the_key(body: object, words: str) -> None:
    assert refusal(400, body).words == words


@pytest.mark.parametrize(
    ("status", "said", "fault"),
    [
        (401, "Invalid API key", Fault.KEY),
        (402, "Insufficient Balance", Fault.MONEY),
        (400, "Your credit balance is too low to access the Anthropic API.", Fault.MONEY),
        (429, {"error": {"code": "insufficient_quota", "message": "…"}}, Fault.MONEY),
        (403, {"error": {"message": "Access denied: Arrearage"}}, Fault.MONEY),
        (429, "You exceeded your current quota, please check your plan", Fault.BUSY),
        (424, "Failed dependency", Fault.BUSY),
        (529, "overloaded_error", Fault.BUSY),
        (500, "Internal Server Error", Fault.BUSY),
        (404, 'model "qwen2.5:7b" not found, try pulling it first', Fault.MODEL),
        (400, "The model `llama3-70b-8192` has been decommissioned", Fault.MODEL),
        (404, "Not Found", Fault.OTHER),
        (403, "Forbidden", Fault.OTHER),
        (400, "Unsupported parameter: temperature", Fault.PARAMETERS),
        (400, "", Fault.PARAMETERS),
        (404, "No endpoints found that can handle the requested parameters.", Fault.PARAMETERS),
        (500, "System role not supported", Fault.PARAMETERS),
        (400, "input tokens exceed the configured limit", Fault.TOO_LONG),
        (422, "`inputs` tokens + `max_new_tokens` must be <= 2048", Fault.TOO_LONG),
        (400, "Output data may contain inappropriate content.", Fault.PROMPT),
        (400, {"error": {"code": "json_validate_failed"}}, Fault.REPLY),
        (400, "Could not finish the message because max_tokens or model output limit was reached",
         Fault.ROOM),
        (302, "", Fault.MOVED),
    ],
)  # fmt: skip
def test_a_refusal_is_about_one_thing(status: int, said: object, fault: Fault) -> None:
    assert refusal(status, said).fault is fault


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after-ms": "150", "retry-after": "9"}, 0.15),
        ({"retry-after": "86400"}, 60.0),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], wait_s: float) -> None:
    assert wait_of(headers) == wait_s


@pytest.mark.parametrize(("in_s", "least", "most"), [(40, 1.0, 40.0), (86_400, 60.0, 60.0)])
def test_until_when_to_wait(in_s: int, least: float, most: float) -> None:
    wait_s = wait_of({"retry-after": formatdate(time() + in_s, usegmt=True)})
    assert wait_s is not None
    assert least <= wait_s <= most


@pytest.mark.parametrize(
    "given",
    ["", "soon", "-1", "nan", "inf", "Wed, 99 Foo", formatdate(0, usegmt=True), "9" * 400],
)
def test_a_wait_that_says_nothing_usable(given: str) -> None:
    assert wait_of({"retry-after": given}) is None
