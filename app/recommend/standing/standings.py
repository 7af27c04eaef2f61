"""`Standings`: the standing of the model in one catalogue, and when it is examined again."""

import logging
import time
from contextlib import suppress

import msgspec

from app.llm import ModelError
from app.recommend.standing.examination import Examiner
from app.recommend.standing.standing import Standing
from app.storage.documents import Documents
from app.storage.feedback import Feedback
from app.storage.leases import Leases
from tree.errors import StoreUnavailable, TreeError
from tree.store.keys import name_of
from tree.store.protocol import ReadableStore
from tree.worker import Background

logger = logging.getLogger(__name__)

DAY_S = 86_400.0
_STORED_S = 7 * DAY_S  # longer than a day, so that a start does not begin without a standing
_LEASE = "examination"  # one for all: an endpoint has one examination at a time
_LEASE_S = 120.0  # renewed after every few slates
_READ_S, _UNKNOWN_S = 30.0, 2.0  # until the store is read again, with and without a standing
_FAILED_S = 600.0  # until the next try, when an examination has decided nothing
_EARLY_SLATES = 4  # of a running examination, from which its marks count
_HISTORIES = 60


class Standings:
    """The standing of the model in one catalogue. It is kept in the store, for all processes.

    Until the first examination has shown something, a model has its configured weight: a good one
    is not held up, and a weak one does harm for the time of its first four replies.
    """

    def __init__(
        self,
        catalog_id: str,
        documents: Documents,
        store: ReadableStore,
        feedback: Feedback,
        examiner: Examiner,
    ) -> None:
        self._catalog = name_of(catalog_id)
        self._catalog_id = catalog_id
        self._documents = documents
        self._store = store
        self._feedback = feedback
        self.examiner = examiner
        self._leases = Leases(documents)
        self._standing: Standing | None = None
        self._early: Standing | None = None  # of an examination that is running
        self._heard_slates = 0  # of the last examination
        self._read_at = self._next_at = 0.0  # by time.monotonic()
        self._is_wanted = False
        self._examination = Background("the examination of a model")

    @property
    def known(self) -> Standing | None:
        """The standing as this process knows it."""
        return self._standing or self._early

    async def current(self) -> Standing | None:
        """The standing that counts for a request; None while nothing is known."""
        self._is_wanted = True
        if time.monotonic() >= self._read_at:
            with suppress(StoreUnavailable):  # what was known counts
                self._standing = await self.stored()
        return self.known

    async def stored(self) -> Standing | None:
        """The stored standing, which may be some days old. Raises StoreUnavailable."""
        data = await self._documents.get("standing", self._document)
        try:
            found = None if data is None else msgspec.json.decode(data, type=Standing)
        except msgspec.DecodeError:  # of another release
            found = None
        self._read_at = time.monotonic() + (_UNKNOWN_S if found is None else _READ_S)
        return found

    async def keep(self, found: Standing) -> None:
        """Store the result of an examination; it counts from now on. Raises StoreUnavailable."""
        data = msgspec.json.encode(found)
        await self._documents.put("standing", self._document, data, _STORED_S)
        self._standing, self._next_at = found, time.monotonic() + DAY_S
        self._read_at = time.monotonic() + _READ_S

    def keep_examined(self, *, is_used: bool = False) -> None:
        """Begin an examination where one is due; called every now and then.

        `is_used` says that the catalogue was in use before this start: others are not examined
        before they are asked for.
        """
        self._is_wanted |= is_used
        if self._is_wanted and not len(self._examination) and time.monotonic() >= self._next_at:
            self._examination.start(self._keep_examined())

    async def examined(self) -> Standing | None:
        """Wait for an examination that is running; the standing after it."""
        await self._examination.settled()
        return self.known

    async def aclose(self) -> None:
        """End an examination that is running; the next process begins it again."""
        await self._examination.aclose()

    @property
    def _document(self) -> str:
        return f"{self._catalog_id}/{self.examiner.fingerprint}"

    async def _keep_examined(self) -> None:
        self._next_at = time.monotonic() + _FAILED_S
        self._standing = await self.stored()
        if self._standing is not None and time.time() - self._standing.at < DAY_S:
            self._next_at = time.monotonic() + DAY_S + self._standing.at - time.time()
        elif not await self._leases.take(_LEASE, self._catalog_id, _LEASE_S):
            self._next_at = time.monotonic() + _UNKNOWN_S
        else:
            try:
                await self._examine()
            finally:
                self._early = None
                await self._leases.release(_LEASE, self._catalog_id, _LEASE_S)

    async def _examine(self) -> None:
        before, self._heard_slates = self._standing, 0
        try:
            tree = await self._store.load()
            histories = await self._feedback.histories(_HISTORIES)
            day = int(time.time() // DAY_S)
            found = await self.examiner.examine(tree, histories, day, self._heard)
        except (ModelError, TreeError) as error:
            logger.warning("the model's standing in %s is not examined: %s", self._catalog, error)
            return
        if found is not None:
            await self.keep(found)
            _log(self._catalog, before, found)
        elif self._heard_slates:
            self._next_at = time.monotonic() + DAY_S
            logger.warning(
                "the model has its configured weight in %s for a day: the tokens of an examination "
                "were enough for %d slates only (a model that thinks needs more of them)",
                self._catalog,
                self._heard_slates,
            )

    async def _heard(self, so_far: Standing) -> None:
        await self._leases.renew(_LEASE, self._catalog_id, _LEASE_S)
        self._heard_slates = so_far.slates
        if so_far.slates >= _EARLY_SLATES:
            self._early = so_far


def _log(catalog: str, before: Standing | None, now: Standing) -> None:
    if not now.is_asked:
        logger.warning(
            "the model %s does not rank items of %s any more until it is examined again: %s",
            now.model,
            catalog,
            now.line(),
        )
    elif before is None or not before.is_asked:
        logger.info(
            "the model %s ranks items of %s with %.0f %% of its weight: %s",
            now.model,
            catalog,
            100 * now.factor,
            now.line(),
        )
