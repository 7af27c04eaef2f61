"""The kinds `lexical` and `hybrid`, which every service has."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from app.embedders.hybrid import HybridEmbedder
from app.embedders.lexical import LexicalEmbedder
from tree.errors import EmbedderUnusable
from tree.node import Space
from tree.passage import Text


@dataclass(frozen=True, slots=True)
class BuiltInKind:
    """See EmbedderKind: an embedder that needs nothing from outside."""

    name: str
    embedder: type[LexicalEmbedder] | type[HybridEmbedder]
    takes_model: ClassVar[bool] = False
    is_local: ClassVar[bool] = True

    @property
    def first_space(self) -> Space:
        """See EmbedderKind."""
        return self.embedder().space

    def fit(
        self,
        model: str,  # noqa: ARG002
        texts: Sequence[Text],
        population: int,
        *,
        seed: int,
    ) -> LexicalEmbedder | HybridEmbedder:
        """See EmbedderKind."""
        return self.embedder.fit(texts, population=population, seed=seed)

    def open(self, space: Space) -> LexicalEmbedder | HybridEmbedder:
        """See EmbedderKind."""
        return self.embedder(space)

    def check(self, model: str, timeout_s: float | None) -> None:  # noqa: ARG002
        """See EmbedderKind."""
        try:
            self.embedder().encode(["a test"])
        except ImportError as error:
            raise EmbedderUnusable(
                f"the {self.name} embedder lacks a library: {error}; install the packages of "
                "requirements.lock"
            ) from error

    def close(self) -> None:
        """See EmbedderKind."""


LEXICAL = BuiltInKind("lexical", LexicalEmbedder)
HYBRID = BuiltInKind("hybrid", HybridEmbedder)
