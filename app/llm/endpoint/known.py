"""`KnownEndpoint`: what has been learned about an endpoint and a model; all processes share it."""

import logging
from contextlib import suppress
from hashlib import sha256

import msgspec

from app.llm.endpoint.dialect import GROWTH, Dialect
from app.storage.documents import Documents
from tree.errors import StoreUnavailable

logger = logging.getLogger(__name__)

_KEPT_S = 604_800  # after this, what was refused is tried again


class _KnownDialect(msgspec.Struct, frozen=True):
    dialect: Dialect = Dialect()
    routes: frozenset[str] = frozenset()


class KnownEndpoint:
    """The dialect of one model at one endpoint, and the routes that have answered.

    Kept for a week in `documents`, if given; without the store, this process learns it anew.
    """

    def __init__(self, model: str, address: str = "", documents: Documents | None = None) -> None:
        self._model = model
        self._id = sha256(f"{address}\0{model}\0chat".encode()).hexdigest()[:32]
        self._documents = documents
        self._found = _KnownDialect()
        self._loaded = documents is None

    @property
    def dialect(self) -> Dialect:
        """What it accepts."""
        return self._found.dialect

    @property
    def has_answered(self) -> bool:
        """Whether any call has been answered."""
        return bool(self._found.routes)

    def works(self, route: str) -> bool:
        """Whether a call to this route has been answered: then the settings are right."""
        return route in self._found.routes

    async def load(self) -> None:
        """Read once what was learned before."""
        if self._loaded or self._documents is None:
            return
        self._loaded = True
        with suppress(StoreUnavailable, msgspec.DecodeError):  # of another release
            stored = await self._documents.get("endpoint", self._id)
            if stored is not None:
                before = msgspec.json.decode(stored, type=_KnownDialect)
                dialect = before.dialect.joined(Dialect(), self._found.dialect)
                self._found = _KnownDialect(dialect, before.routes | self._found.routes)

    async def learn(self, route: str, before: Dialect, found: Dialect) -> None:
        """Note that the endpoint has accepted a call in the dialect `found`."""
        dialect = self.dialect if before == found else self.dialect.joined(before, found)
        known = _KnownDialect(dialect, self._found.routes | {route})
        if known == self._found:
            return
        if dialect != self.dialect:
            told = ", ".join(dialect.words()) or "all parameters"
            logger.info("%s is asked from now on with: %s", self._model, told)
        await self._keep(known)

    async def restore(self, dialect: Dialect) -> None:
        """Note that the endpoint accepts a dialect with fewer changes."""
        await self._keep(msgspec.structs.replace(self._found, dialect=dialect))

    async def grow(self, room: int) -> bool:
        """Give the model more room than `room`, in which it did not answer; False if there is none.

        Concurrent calls that had the same room grow it once.
        """
        dialect = self.dialect
        if dialect.room > room:
            return True
        if room * GROWTH > dialect.most_room:
            return False
        more = dialect.with_room(room * GROWTH)
        logger.info(
            "%s spent all tokens on thinking: it gets %d times as many", self._model, more.room
        )
        await self._keep(msgspec.structs.replace(self._found, dialect=more))
        return True

    async def shrink(self, room: int) -> None:
        """Give the model less room than `room`, unless another call has changed it."""
        if self.dialect.room == room > 1:
            less = self.dialect.with_room(room // GROWTH)
            logger.info("%s needs less: it gets %d times as many tokens", self._model, less.room)
            await self._keep(msgspec.structs.replace(self._found, dialect=less))

    async def _keep(self, known: _KnownDialect) -> None:
        self._found = known
        if self._documents is not None:
            with suppress(StoreUnavailable):  # the next process learns it itself
                content = msgspec.json.encode(known)
                await self._documents.put("endpoint", self._id, content, _KEPT_S)
