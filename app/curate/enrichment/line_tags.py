"""Tags: a few words of each title that tell the items of one question apart."""

import re
from collections import Counter
from collections.abc import Sequence

from tree.item import normalise

_WORD = re.compile(r"\w+")
_WORDS = 3  # of a tag
_WORD_CHARS = 16  # titles of some scripts are one word


def words_of(text: str) -> list[str]:
    """The words of a text as they are compared."""
    return _WORD.findall(normalise(text))


def tags_of(titles: Sequence[str], texts: Sequence[str] = ()) -> list[str | None]:
    """A tag per title; None where an earlier title has the same one.

    A tag is the first word of its title, with up to two rarer ones where others begin alike; of
    equal titles it has words of their `texts`.
    """
    split = [_short_words(title) for title in titles]
    longer = [_short_words(text) for text in texts] or split
    counts = Counter(word for words in split for word in set(words))
    text_counts = Counter(word for words in longer for word in set(words))
    taken: set[str] = set()
    tags: list[str | None] = []
    for words, more in zip(split, longer, strict=True):
        tag = _tag(words, counts)
        if tag in taken:
            tag = _tag([*words[:1], *more], text_counts)
        tags.append(None if tag in taken else tag)
        taken.add(tag)
    return tags


def repeats(tag: str, said: str) -> bool:
    """Whether a model has copied a tag: with other signs, or with more words around it."""
    wanted, found = words_of(tag), words_of(said)
    return found == wanted or (bool(wanted) and set(wanted) <= set(found))


def _short_words(text: str) -> list[str]:
    return [word[:_WORD_CHARS] for word in words_of(text)]


def _tag(words: Sequence[str], counts: Counter[str]) -> str:
    if not words:
        return "-"
    first = words[0]
    if counts[first] == 1 or len(words) == 1:
        return first
    places = sorted(range(1, len(words)), key=lambda at: (counts[words[at]], at))
    chosen = sorted(places[: _WORDS - 1])
    return " ".join([first, *(words[at] for at in chosen if words[at] != first)])
