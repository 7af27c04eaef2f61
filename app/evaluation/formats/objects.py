"""JSON rows as values."""

import re
from typing import TypeVar

import msgspec

from app.evaluation.formats.files import Source

_Value = TypeVar("_Value")


def decoded(decoder: "msgspec.json.Decoder[_Value]", row: bytes, source: Source) -> _Value | None:
    """The row, or None where it is not what the decoder expects, which is counted."""
    try:
        return decoder.decode(row)
    except UnicodeDecodeError as error:
        raise source.undecodable(error) from error
    except msgspec.ValidationError as error:
        source.malformed(mismatch(error))
    except (msgspec.DecodeError, RecursionError):
        source.malformed("not JSON")
    return None


def mismatch(error: msgspec.ValidationError) -> str:
    """What was expected, and of which field: the same text for every position in a list."""
    return re.sub(r"\[\d+\]", "[…]", str(error))
