"""`EndpointLimits`: what an endpoint accepts, as far as calls have found out; kept for a week."""

import logging
from hashlib import sha256
from threading import Lock

import msgspec

from app.embedders.batches import TEXTS_PER_CALL
from app.embedders.embedder_store import EmbedderStore

_KEPT_S = 604_800  # after this, what was refused is tried again

logger = logging.getLogger(__name__)


class _Limits(msgspec.Struct, frozen=True):
    most_texts: int = TEXTS_PER_CALL
    base64: bool = True


class EndpointLimits:
    """The limits of one model at one endpoint, for all processes. Thread-safe."""

    def __init__(self, name: str, address: str, store: EmbedderStore | None = None) -> None:
        self._name = name
        self._id = sha256(f"{address}\0{name}".encode()).hexdigest()[:32]
        self._store = store
        self._lock = Lock()
        self._stored: _Limits | None = None
        self._found = _Limits()

    @property
    def most_texts(self) -> int:
        """How many texts one call may have."""
        return self._found.most_texts

    @property
    def base64(self) -> bool:
        """Whether vectors may be asked for in base64, which is a third of their size as text."""
        return self._found.base64

    def note_most_texts(self, most: int) -> None:
        """Note that larger calls are refused."""
        with self._lock:
            if most < self._found.most_texts:
                logger.info("%s gets at most %d texts in a call from now on", self._name, most)
                self._found = msgspec.structs.replace(self._found, most_texts=most)

    def note_no_base64(self) -> None:
        """Note that calls that ask for base64 are refused."""
        with self._lock:
            logger.info("%s is asked for vectors as text from now on", self._name)
            self._found = msgspec.structs.replace(self._found, base64=False)

    def load(self) -> None:
        """Read what was found out before, once. Called from a thread."""
        if self._store is None or self._stored is not None:
            return
        content = self._store.wait(self._store.documents.get("endpoint", self._id))
        try:
            stored = msgspec.json.decode(content or b"{}", type=_Limits)
        except msgspec.DecodeError:  # of another release
            stored = _Limits()
        with self._lock:
            self._stored = stored
            self._found = _Limits(
                max(1, min(stored.most_texts, self._found.most_texts)),
                stored.base64 and self._found.base64,
            )

    def save(self) -> None:
        """Store what was found out since. Called from a thread."""
        if self._store is None or self._found == self._stored:
            return
        self._stored = found = self._found
        content = msgspec.json.encode(found)
        self._store.wait(self._store.documents.put("endpoint", self._id, content, _KEPT_S))
