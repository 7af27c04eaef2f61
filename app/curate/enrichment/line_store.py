"""`LineStore`: lines that a model has written, by what they were written from."""

import asyncio
from collections.abc import Collection, Mapping

from app.storage.documents import Documents

_TTL_S = 400 * 86_400.0  # a catalogue that is imported once a year finds its lines again
_AT_ONCE = 200


class LineStore:
    """Keeps each line under a digest of what it was written from, so that none is paid twice.

    An item that was deleted, or whose text goes back to what it was, finds its line here. Lines
    are shared by all catalogues, and expire some 13 months after they were written.
    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def get_many(self, digests: Collection[str]) -> dict[str, str]:
        """The lines that are known, by their digests."""
        found: dict[str, str] = {}
        wanted = list(dict.fromkeys(digests))
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            lines = await asyncio.gather(*(self._documents.get("line", one) for one in some))
            found.update(
                (digest, line.decode())
                for digest, line in zip(some, lines, strict=True)
                if line is not None
            )
        return found

    async def put_many(self, lines: Mapping[str, str]) -> None:
        """Keep lines by their digests. They are durable when this returns."""
        waiting = list(lines.items())
        for start in range(0, len(waiting), _AT_ONCE):
            await asyncio.gather(
                *(
                    self._documents.put("line", digest, line.encode(), _TTL_S)
                    for digest, line in waiting[start : start + _AT_ONCE]
                )
            )
