"""How many tokens a text will take: known after a call, estimated before it."""

import re
import threading
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiktoken import Encoding

_PER_MESSAGE = 4  # the chat format's own tokens (OpenAI cookbook, "How to count tokens")

# A documented estimate for when no vocabulary can be had: 1.25 tokens per word, group of up to
# three digits, or sign; 0.6 per character of other scripts. Against o200k_base on four
# catalogues: 12 % too high for film titles, 8 % too low for games.
_PIECE = re.compile(r"[A-Za-z]+|\d{1,3}|[!-/:-@\[-`{-~]")
_OTHER = re.compile(r"[^\x00-\x7f]")
_PER_PIECE, _PER_OTHER = 1.25, 0.6


class Vocabulary:
    """tiktoken's encoding, fetched in the background: it downloads on first use and may fail."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._encoding: Encoding | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def encoding(self) -> "Encoding | None":
        """The encoding once it is there. Never waits."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._fetch, daemon=True)
                    self._thread.start()
        return self._encoding

    def ready(self, timeout_s: float) -> bool:
        """Wait for it, at most so long; whether it is there."""
        if self.encoding is None and self._thread is not None:
            self._thread.join(timeout_s)
        return self._encoding is not None

    def tokens_of(self, text: str) -> int:
        """Counted where there is an encoding, else estimated. Never waits."""
        encoding = self.encoding
        return _guess(text) if encoding is None else _counted(encoding, text)

    def _fetch(self) -> None:
        try:
            import tiktoken

            self._encoding = tiktoken.get_encoding(self._name)
        except Exception:  # noqa: BLE001 - whatever it is, the estimate takes over
            self._encoding = None


vocabulary = Vocabulary("o200k_base")


def estimated_tokens(*texts: str) -> int:
    """Tokens of a conversation of these messages: by tiktoken where it can be had."""
    return sum(vocabulary.tokens_of(text) + _PER_MESSAGE for text in texts)


@lru_cache(maxsize=256)  # system parts and the slates at the top of a tree come again and again
def _counted(encoding: "Encoding", text: str) -> int:
    return len(encoding.encode_ordinary(text))


def _guess(text: str) -> int:
    pieces = len(_PIECE.findall(text))
    others = 0 if text.isascii() else len(_OTHER.findall(text))
    return round(_PER_PIECE * pieces + _PER_OTHER * others)
