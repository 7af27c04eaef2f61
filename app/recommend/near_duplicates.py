"""`NearDuplicates`: items that are one thing in another size, colour, edition or packaging."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from app.recommend.filters import values_of
from app.recommend.form_words import QUANTITY, says_only_form, without_edition
from tree.item import Item, normalise

_LONGEST_TITLE = 400  # characters; a longer one is compared as a whole
_DESCRIPTION_CHARS = 600  # that are compared word by word
_TELLING_DESCRIPTION = 80  # characters; a shorter one is shared by different things
_ALIKE = 0.5  # share of common words, of two texts about one thing
_SAME_TITLE = 0.75  # the same of two titles with the same description
_ORDERED = 4  # words; in a longer title their order tells nothing

# What differs between two things of one title, if both have it.
_TELLING_ATTRIBUTES = (
    "artist", "artists", "author", "authors", "band", "brand", "composer", "creator", "director",
    "episode", "maker", "manufacturer", "number", "season", "volume", "year",
)  # fmt: skip

_BREAK = re.compile(
    r"([()\[\]{}【】〔〕「」『』|;]|\s[-–—/~]+\s|[,、](?=\s|$)|:(?=\s|$)|\s[-–—](?=\w)|(?<=\w)[–—]\s)"
)
_OPENING = "([{【〔「『"
_IGNORED = str.maketrans("", "", "™℠®©")
_APOSTROPHES = str.maketrans("", "", "'’‘`´")
_WORD = re.compile(r"[a-z0-9]+[+#]*")


class NearDuplicates:
    """Items so far, each a thing of its own, to find the one that another item repeats.

    Two items are near-duplicates if they have the same domain, no telling attribute with
    different values (artist, brand, year …), and

    - the same title without what `title_key` leaves out, while the rest of their texts agrees
      (categories, keywords, description; a text that one of them lacks agrees with any), or
    - the same description of 80 characters or more, and titles that have three quarters of their
      words in common, among them all numbers.

    Vectors are not compared: those of different titles may be equal, as they are rounded.
    """

    def __init__(self) -> None:
        self._by_title: dict[tuple[str, str], list[_Thing]] = {}
        self._by_description: dict[tuple[str, str], list[_Thing]] = {}

    def find(self, item: Item) -> int | None:
        """The place of the first item so far that this one is a near-duplicate of."""
        one = _Thing(item, -1)
        for other in self._by_title.get(one.title_key, ()):
            if not _contradict(item, other.item) and _agree(one, other):
                return other.place
        for other in self._by_description.get(one.description_key, ()):
            if not _contradict(item, other.item) and _titles_alike(item.title, other.item.title):
                return other.place
        return None

    def add(self, item: Item, place: int) -> None:
        """Add an item that repeats none of the others."""
        one = _Thing(item, place)
        self._by_title.setdefault(one.title_key, []).append(one)
        if len(item.description) >= _TELLING_DESCRIPTION:
            self._by_description.setdefault(one.description_key, []).append(one)


@dataclass(frozen=True)
class _Thing:
    item: Item
    place: int

    @property
    def title_key(self) -> tuple[str, str]:
        return normalise(self.item.domain), title_key(self.item.title)

    @property
    def description_key(self) -> tuple[str, str]:
        return normalise(self.item.domain), self.item.description

    @cached_property
    def rest(self) -> frozenset[str]:
        """The words of all texts but the title, without those that name only a form."""
        item = self.item
        texts = (*item.categories, *item.keywords, item.description[:_DESCRIPTION_CHARS])
        return frozenset(word for text in texts for word in _telling_words(text))


@lru_cache(16_384)
def title_key(title: str) -> str:
    """What a title says about the thing itself, normalised: near-duplicates have the same key.

    Left out are case, punctuation, quantities with a unit ("500 ml", "2-pack"), parts that name
    only a size, colour, platform, format or edition, and, from five words on, their order. Other
    numbers always stay: they tell the parts of a series from each other.
    """
    text = normalise(title.translate(_IGNORED))
    if len(text) > _LONGEST_TITLE:
        return text
    kept: list[list[str]] = []
    pieces = _BREAK.split(text)
    for mark, part in zip(["", *pieces[1::2]], pieces[::2], strict=True):
        words = _words(QUANTITY.sub(" ", part))
        opened = mark in _OPENING if mark else False
        if (kept or opened) and says_only_form(words, looks=mark != ":"):
            continue
        if not kept and not any(word.isalpha() for word in words):
            words = _words(part)
        if words := list(without_edition(words)):
            kept.append(words)
    if sum(map(len, kept)) > _ORDERED:
        kept = [unit for words in kept for unit in _with_numbers(words)]
    return " ".join(sorted(" ".join(words) for words in kept)) or text


def _with_numbers(words: Sequence[str]) -> list[list[str]]:
    """Each word with the numbers after it: "season 2, volume 1" is not "season 1, volume 2"."""
    units: list[list[str]] = []
    for word in words:
        if units and word.isdigit():
            units[-1].append(word)
        else:
            units.append([word])
    return units


def _words(text: str) -> list[str]:
    """The words of a normalised text: runs of letters, marks and digits."""
    text = text.translate(_APOSTROPHES)
    if text.isascii():
        return _WORD.findall(text)
    return "".join(letter if _is_part_of_word(letter) else " " for letter in text).split()


def _is_part_of_word(letter: str) -> bool:
    # Vowel signs of Indian scripts are marks, not letters.
    return letter.isalnum() or letter in "+#" or unicodedata.category(letter).startswith("M")


@lru_cache(1_024)
def _telling_words(text: str) -> Sequence[str]:
    words = _words(normalise(text))
    return () if says_only_form(words, looks=True) else words


def _contradict(one: Item, other: Item) -> bool:
    """Whether both have an attribute that tells two things apart, with different values."""
    if not one.attributes or not other.attributes:
        return False
    for name in _TELLING_ATTRIBUTES:
        left, right = _values(one, name), _values(other, name)
        if left and right and not left & right:
            return True
    return False


def _values(item: Item, name: str) -> set[str]:
    return {normalise(str(value)) for value in values_of(item.attributes.get(name))}


def _agree(one: _Thing, other: _Thing) -> bool:
    """Whether what the items have beside their titles is about one thing."""
    left, right = one.rest, other.rest
    return not left or not right or len(left & right) >= _ALIKE * len(left | right)


def _titles_alike(one: str, other: str) -> bool:
    left, right = set(title_key(one).split()), set(title_key(other).split())
    if _numbers(left) != _numbers(right):
        return False
    return len(left & right) >= _SAME_TITLE * max(len(left), len(right))


def _numbers(words: Iterable[str]) -> set[str]:
    return {word for word in words if any(letter.isdigit() for letter in word)}
