"""Ids of recommendations, which tell that this service has made them."""

import hmac
from base64 import urlsafe_b64encode
from secrets import token_urlsafe

_PREFIX = "rec_"
_RANDOM_BYTES = 12  # 16 characters
_MARK_CHARS = 6


def new_list_id(catalog_id: str) -> str:
    """An id that nobody can guess."""
    start = _PREFIX + token_urlsafe(_RANDOM_BYTES)
    return start + _mark(catalog_id, start)


def is_list_id(catalog_id: str, list_id: str) -> bool:
    """Whether `new_list_id` made it for this catalogue, so that it has expired if it is unknown."""
    start, mark = list_id[:-_MARK_CHARS], list_id[-_MARK_CHARS:]
    return start.startswith(_PREFIX) and hmac.compare_digest(mark, _mark(catalog_id, start))


def _mark(catalog_id: str, start: str) -> str:
    """A part of the id that follows from the rest; the id of a catalogue is shown to nobody."""
    digest = hmac.digest(catalog_id.encode(), start.encode(), "sha256")
    return urlsafe_b64encode(digest)[:_MARK_CHARS].decode()
