"""Ids and times as people write them: in files, in requests and in the bodies of beacons."""

import math
import re
from datetime import UTC, datetime

_MILLISECONDS = 1e11  # larger numbers are milliseconds; as seconds, this is the year 5138
_MICROSECONDS = 1e14  # and larger ones are neither; as milliseconds, this is the year 5138
_DATE = re.compile(r"(19|20)\d{6}", re.ASCII)  # 20261130; as seconds, it would be of August 1970
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)

EXPECTED_TIME = "expected seconds or milliseconds since 1970, or ISO 8601"


def seconds(value: float | str) -> float:
    """Seconds since the epoch, from a number (seconds or milliseconds) or a text.

    A text is a number, ISO 8601, or like "11/13/2019 5:53:12 AM" (MIND); without a time zone it
    is UTC. Microseconds and nanoseconds are refused: as milliseconds they would be of the far
    future. Raises ValueError.
    """
    if isinstance(value, str):
        text = value.strip()
        if _DATE.fullmatch(text):
            return _from_text(text)
        if _NUMBER.fullmatch(text):
            return _from_number(float(text))
        return _from_text(text)
    return _from_number(value)


def _from_number(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"not a finite number: {EXPECTED_TIME}")
    if _DATE.fullmatch(f"{value:.0f}"):
        raise ValueError(f"a date as a number: {EXPECTED_TIME}")
    if abs(value) >= _MICROSECONDS:
        raise ValueError(f"microseconds or a smaller unit: {EXPECTED_TIME}")
    return value / 1_000 if abs(value) > _MILLISECONDS else float(value)


def _from_text(text: str) -> float:
    try:
        if "/" in text:
            time = datetime.strptime(text, "%m/%d/%Y %I:%M:%S %p").replace(tzinfo=UTC)
        else:
            time = datetime.fromisoformat(text.removesuffix(" UTC"))
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"not a time: {EXPECTED_TIME}") from None


def id_text(value: object) -> str:
    """An id as text; a whole number is one too. Raises ValueError."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError("expected a text or a whole number")
