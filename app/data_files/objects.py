"""Decoding of JSON rows."""

import re
from typing import TypeVar

import msgspec

from app.data_files.files import DataFile

_Value = TypeVar("_Value")


def decoded(decoder: "msgspec.json.Decoder[_Value]", row: bytes, file: DataFile) -> _Value | None:
    """The decoded row, or None for a malformed one, which is counted."""
    try:
        return decoder.decode(row)
    except UnicodeDecodeError as error:
        file.undecodable(error)
    except msgspec.ValidationError as error:
        file.malformed(mismatch(error))
    except (msgspec.DecodeError, RecursionError):
        file.malformed("not JSON")
    return None


def mismatch(error: msgspec.ValidationError) -> str:
    """The reason of an error, with the field; positions in lists are left out."""
    return re.sub(r"\[\d+\]", "[…]", str(error))
