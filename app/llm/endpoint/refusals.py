"""`Refusal`: what an endpoint said instead of an answer, in any wording, and what it is about."""

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import mktime_tz, parsedate_tz
from enum import StrEnum, auto
from http import HTTPStatus
from urllib.parse import urljoin, urlsplit

from app.llm.endpoint.dialect import hinted, hints_at_form
from app.llm.errors import AnsweredWithError

_MOST_READ = 65_536  # characters of a body
_MOST_MATCHED = 4_000  # some quote the whole prompt
_MOST_SAID = 300
_LONGEST_WAIT_S = 60.0
_SHORTEST_KEY = 4
_ECHOES = frozenset({"input", "ctx", "failed_generation", "url", "request_id", "user_id", "stack"})
_SAID = frozenset({"message", "msg", "detail", "error", "error_description", "reason", "title"})

_PASSING = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
)
_OF_PARAMETERS = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)
_SOMETIMES_OF_PARAMETERS = (
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.NOT_IMPLEMENTED,
)
_OF_PROMPT = (
    *_OF_PARAMETERS,
    HTTPStatus.FORBIDDEN,  # OpenRouter's moderation
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.INTERNAL_SERVER_ERROR,
)

_MONEY = re.compile(
    r"insufficient[_ ](?:quota|balance|funds|credits?)|credit balance|payment[_ ]required"
    r"|more credits|out of credits|arrearage|in arrears|spending limit"
)
_TOO_LONG = re.compile(
    r"context[_ ](?:length|window|size)|maximum context|max_model_len|reduce the length"
    r"|(?:prompt|input|request) (?:is )?too (?:long|large)|too many (?:input |prompt )?tokens"
    r"|longer than the m|input tokens? (?:count )?exceed|string_above_max_length"
    r"|`inputs` tokens"
)
_FILTERED = re.compile(
    r"content[_ ]?filter|content[_ ](?:management )?policy|responsible ?ai|\bsafety\b|\bflagged\b"
    r"|moderation|inappropriate content|data_?inspection|sensitive (?:words|content)"
)
_ABOUT_REPLY = re.compile(r"json_validate_failed|failed to generate json|output_parse_failed")
_SPENT = re.compile(r"could not finish the message because max_tokens")
_ABOUT_MODEL = re.compile(
    r"model[^\n]{0,120}(?:not (?:found|exist|loaded|available|deployed)|n[o']t exist|no longer"
    r"|decommissioned|deprecated|unloaded)|(?:unknown|no such|not a valid) model"
    r"|deployment[^\n]{0,60}not exist|invalid model\b"
)
_PARAMETERS = re.compile(r"\bparameters?\b")
_TAG = re.compile(r"<[^<>]{0,400}>")
_BEARER = re.compile(r"(?i)bearer\s+\S{4,200}")
_VARYING = re.compile(r"\S{0,60}\d\S{0,60}")


class Fault(StrEnum):
    """What a refusal is about."""

    PARAMETERS = auto()
    """Something in the form of the call; the same prompt may be accepted in another form."""
    PROMPT = auto()
    TOO_LONG = auto()
    REPLY = auto()
    """The model's reply had not the form asked for."""
    ROOM = auto()
    """All tokens of the reply were spent on thinking."""
    KEY = auto()
    MODEL = auto()
    MONEY = auto()
    MOVED = auto()
    PAGE = auto()
    """A page for people, of status 200."""
    BUSY = auto()
    OTHER = auto()

    @property
    def is_of_call(self) -> bool:
        """Whether another call may be accepted: the key, the model and the account are right."""
        return self not in {Fault.KEY, Fault.MODEL, Fault.MONEY, Fault.MOVED, Fault.PAGE}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is none.

    `words` are the endpoint's own: one line of bounded length, without the key. `text` is all that
    it said, in lower case, to be matched.
    """

    status: int
    words: str = ""
    text: str = ""
    code: str | None = None
    retry_after_s: float | None = None
    moved_to: str | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        *,
        key: str = "",
        asked: str = "",
    ) -> "Refusal":
        """The refusal in an HTTP answer; `asked` is the address of the call."""
        said, beside, code = _read(body)
        location = headers.get("location")
        return cls(
            status,
            _one_line("; ".join(dict.fromkeys(said)) or " ".join(beside), key),
            " ".join([*beside, *said])[:_MOST_MATCHED].lower(),
            code,
            wait_of(headers),
            _place(urljoin(asked, location)) if location else None,
        )

    @classmethod
    def of_answer(cls, error: AnsweredWithError, key: str = "") -> "Refusal":
        """The refusal in an answer of status 200."""
        kind = error.kind if error.kind and not error.kind.isdecimal() else None
        text = f"{kind or ''} {error.words}"[:_MOST_MATCHED].lower()
        status = error.code if error.code in range(300, 600) else _status_of(text)
        return cls(status or HTTPStatus.BAD_REQUEST, _one_line(error.words, key), text, kind)

    @property
    def brief(self) -> str:
        """The status, and the code if there is one: the words may quote a prompt."""
        return f"{self.status} ({self.code})" if self.code else str(self.status)

    @property
    def named(self) -> str:
        """The same with the words."""
        return f"{self.brief}: {self.words}" if self.words else self.brief

    @property
    def fault(self) -> Fault:
        """What it is about."""
        for fault, holds in _FAULTS:
            if holds(self):
                return fault
        return Fault.OTHER

    def repeats(self, other: "Refusal | None") -> bool:
        """Whether it says the same as another one; numbers and ids may differ."""
        if other is None or self.status != other.status:
            return False
        return _VARYING.sub("", self.text) == _VARYING.sub("", other.text)


def _is_moved(one: Refusal) -> bool:
    return HTTPStatus.MULTIPLE_CHOICES <= one.status < HTTPStatus.BAD_REQUEST


def _is_about_money(one: Refusal) -> bool:
    return one.status == HTTPStatus.PAYMENT_REQUIRED or _MONEY.search(one.text) is not None


def _is_about_model(one: Refusal) -> bool:
    statuses = (*_OF_PARAMETERS, HTTPStatus.NOT_FOUND)
    if one.status not in statuses or hinted(one.text) or hints_at_form(one.text):
        return False
    return _ABOUT_MODEL.search(one.text) is not None


def _is_about_parameters(one: Refusal) -> bool:
    if one.status in _OF_PARAMETERS:
        return True
    if one.status not in _SOMETIMES_OF_PARAMETERS:
        return False
    return bool(hinted(one.text)) or hints_at_form(one.text) or bool(_PARAMETERS.search(one.text))


# The first that holds.
_FAULTS = (
    (Fault.PAGE, lambda one: one.status == HTTPStatus.OK),
    (Fault.MOVED, _is_moved),
    (Fault.MONEY, _is_about_money),
    (Fault.KEY, lambda one: one.status == HTTPStatus.UNAUTHORIZED),
    (Fault.BUSY, lambda one: one.status in _PASSING),
    (Fault.ROOM, lambda one: _SPENT.search(one.text) is not None),
    (Fault.REPLY, lambda one: _ABOUT_REPLY.search(one.text) is not None),
    (Fault.TOO_LONG, lambda one: one.status in _OF_PROMPT and bool(_TOO_LONG.search(one.text))),
    (Fault.TOO_LONG, lambda one: one.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (Fault.PROMPT, lambda one: one.status in _OF_PROMPT and bool(_FILTERED.search(one.text))),
    (Fault.MODEL, _is_about_model),
    (Fault.PARAMETERS, _is_about_parameters),
    (Fault.BUSY, lambda one: one.status >= HTTPStatus.INTERNAL_SERVER_ERROR),
    (Fault.BUSY, lambda one: one.status == HTTPStatus.FAILED_DEPENDENCY),
)


# What an error of status 200 without a number is about: the first that its words name.
_STATUSES = (
    (HTTPStatus.TOO_MANY_REQUESTS, re.compile(r"rate.?limit|too many requests|throttl")),
    (HTTPStatus.UNAUTHORIZED, re.compile(r"api.?key|unauthori[sz]ed|authenticat|login fail")),
    (HTTPStatus.SERVICE_UNAVAILABLE, re.compile(r"overload|unavailable|time.?out|busy|try again")),
    (HTTPStatus.INTERNAL_SERVER_ERROR, re.compile(r"internal|server.?error|upstream")),
)


def _status_of(text: str) -> HTTPStatus | None:
    return next((status for status, words in _STATUSES if words.search(text)), None)


def wait_of(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait before a retry, as the endpoint says; None where it says nothing usable."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            wait_s = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(wait_s) and wait_s >= 0:
            return min(wait_s, _LONGEST_WAIT_S)
    try:
        date = parsedate_tz(headers.get("retry-after", "")[:100])
        wait_s = mktime_tz(date) - time.time() if date is not None else -1.0
    except (ValueError, OverflowError):
        return None
    return min(wait_s, _LONGEST_WAIT_S) if wait_s >= 0 else None


# -- reading


def _read(body: bytes) -> tuple[list[str], list[str], str | None]:
    """What a body says, what stands beside it (names of parameters first), and its code."""
    text = body[:_MOST_READ].decode("utf-8-sig", "replace").strip()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return ([_TAG.sub(" ", text[:_MOST_MATCHED])] if text else []), [], None
    said: list[str] = []
    beside: list[str] = []
    codes: list[str] = []
    for keys, value in _leaves(found, ()):
        last = keys[-1] if keys else ""
        if last == "code":
            codes.append(value)
        if last in {"param", "loc"}:
            beside.insert(0, value)
        elif last in _SAID or not keys:
            said.append(value)
        else:
            beside.append(value)
    code = next((one[:60] for one in codes if not one.isdecimal()), None)
    return said, beside, code


def _leaves(
    value: object, keys: tuple[str, ...], depth: int = 0
) -> Iterator[tuple[tuple[str, ...], str]]:
    """The texts in a value, each with the keys above it; places in lists are left out."""
    if depth > 8:
        return
    match value:
        case dict():
            for key, one in value.items():
                if key not in _ECHOES:
                    yield from _leaves(one, (*keys, str(key)), depth + 1)
        case list():
            if keys and keys[-1] == "loc":
                yield keys, ".".join(map(str, value))
                return
            for one in value[:20]:
                yield from _leaves(one, keys, depth + 1)
        case str():
            yield keys, value
        case int():
            yield keys, str(value)


def _one_line(text: str, key: str) -> str:
    line = without_key(" ".join(text[:_MOST_MATCHED].split()), key)
    return line if len(line) <= _MOST_SAID else f"{line[: _MOST_SAID - 1]}…"


def without_key(text: str, key: str) -> str:
    """The text without a key."""
    shown = text.replace(key, "…") if len(key) >= _SHORTEST_KEY else text
    return _BEARER.sub("Bearer …", shown)


def _place(address: str) -> str:
    """An address without credentials and query, which may hold secrets."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:_MOST_SAID]
