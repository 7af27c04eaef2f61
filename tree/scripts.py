"""Text of any script as words with blanks between them."""

import re

from tree.item import normalise

# Scripts that are written without blanks: Thai and Lao, Myanmar, Khmer, Kana, Han.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)


def spaced(text: str) -> str:
    """The normalised text, where text without blanks is a row of overlapping pairs of characters.

    Pairs are how such text is searched without a dictionary: two characters are a word, or the
    border of two words, which is rare enough to tell texts apart.
    """
    text = normalise(text)
    return text if text.isascii() else _UNSPACED.sub(_pairs, text)


def _pairs(run: re.Match[str]) -> str:
    characters = run[0]
    pairs = (characters[at : at + 2] for at in range(max(1, len(characters) - 1)))
    return f" {' '.join(pairs)} "
