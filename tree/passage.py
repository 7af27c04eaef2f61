"""`Passage`: what an embedder reads."""

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias


class Passage(NamedTuple):
    """The text of an item, or words for what a user wants.

    `line` says in plain words what the item is, for whom and what for; where somebody or a model
    has written that, it tells more than the item's own text. People say what a thing is for in
    other words than its text does, so an embedder may weigh meaning more for a wish.
    """

    text: str
    line: str = ""
    is_wish: bool = False

    @property
    def whole(self) -> str:
        """All words, for what does not tell a text from its line."""
        return f"{self.text} {self.line}" if self.line else self.text


Text: TypeAlias = str | Passage
"""A plain string is the text of an item without a line."""


def passages_of(texts: Iterable[Text]) -> list[Passage]:
    """The same texts, all as passages."""
    return [Passage(text) if isinstance(text, str) else text for text in texts]


def whole_texts(texts: Iterable[Text]) -> list[str]:
    """All words of each text."""
    return [text if isinstance(text, str) else text.whole for text in texts]
