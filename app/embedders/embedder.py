"""`Embedder`: text into the vector space of one tree; `EmbedderKind` makes embedders."""

from collections.abc import Sequence
from typing import Protocol

from tree.node import Space
from tree.passage import Text
from tree.vectors import Int8Matrix


class Embedder(Protocol):
    """Text into the vector space of one tree."""

    @property
    def space(self) -> Space:
        """What has to be stored to get the same embedder back."""
        ...

    @property
    def population(self) -> int:
        """How many items the catalogue had when this embedder was fitted; 0 for unfitted."""
        ...

    @property
    def is_fast(self) -> bool:
        """Whether a few texts can be encoded on the event loop, without a thread."""
        ...

    def encode(
        self,
        texts: Sequence[Text],
        *,
        timeout_s: float | None = None,
    ) -> Int8Matrix:
        """int8[len(texts), dimensions], one row per text, zero for a text without known content.

        A remote embedder fails after `timeout_s`; a local one ignores it. Raises
        EmbedderUnavailable.
        """
        ...


class EmbedderKind(Protocol):
    """Makes the embedders of one kind, which is the first part of their names."""

    @property
    def name(self) -> str: ...

    @property
    def takes_model(self) -> bool:
        """Whether names are `KIND:MODEL`. Otherwise `model` is empty in all methods."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether embedders compute on this machine, so that any process can have them.

        Others need an address and a key that only this process has.
        """
        ...

    @property
    def first_space(self) -> Space:
        """The space of a catalogue's first items, before there is anything to fit to."""
        ...

    def fit(self, model: str, texts: Sequence[Text], population: int, *, seed: int) -> Embedder:
        """An embedder for a catalogue of `population` items, of which `texts` may be a sample.

        Raises EmbedderUnavailable.
        """
        ...

    def open(self, space: Space) -> Embedder:
        """The embedder that made the vectors of `space`. Models are opened at the first use."""
        ...

    def check(self, model: str, timeout_s: float | None) -> None:
        """Encode something. Raises EmbedderUnavailable, and EmbedderUnusable for wrong settings."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...
