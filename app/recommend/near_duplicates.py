"""`NearDuplicates`: items that are one thing in another size, colour, edition or packaging."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from app.recommend.filters import field_of, values_of
from app.recommend.form_words import OPENING_MEASURE, QUANTITY, says_only_form, without_edition
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
    """Items so far, each a thing of its own, to fold the items that repeat one of them.

    Two items are near-duplicates if they have the same domain, no telling attribute with
    different values (artist, brand, year …), and

    - the same title without what `title_key` leaves out, while the rest of their texts agrees
      (categories, keywords, description; a text that one of them lacks agrees with any), or
    - the same description of 80 characters or more, and titles that have three quarters of their
      words in common, among them all numbers.

    The items of one thing that have a telling attribute have a value of it in common: an item
    without a brand does not bring two brands together.

    With `group_by`, items that have this field are not folded with items that lack it: each group
    has an item of its own.

    Vectors are not compared: those of different titles may be equal, as they are rounded.
    """

    def __init__(self, group_by: str | None = None) -> None:
        self._group_by = group_by
        self._by_title: dict[_Key, list[_Thing]] = {}
        self._by_description: dict[_Key, list[_Thing]] = {}

    def fold(self, item: Item) -> int | None:
        """The place of the first item so far that this one is a near-duplicate of, or None.

        What is folded later behind the same item must agree with this one, too.
        """
        one = _Thing(item, -1)
        for other in self._by_title.get(self._key(item, title_key(item.title)), ()):
            if not _contradict(one, other) and _agree(one, other):
                return other.joined_by(one)
        for other in self._by_description.get(self._key(item, item.description), ()):
            if not _contradict(one, other) and _titles_alike(item.title, other.item.title):
                return other.joined_by(one)
        return None

    def add(self, item: Item, place: int) -> None:
        """Add an item that repeats none of the others."""
        one = _Thing(item, place)
        self._by_title.setdefault(self._key(item, title_key(item.title)), []).append(one)
        if len(item.description) >= _TELLING_DESCRIPTION:
            self._by_description.setdefault(self._key(item, item.description), []).append(one)

    def _key(self, item: Item, text: str) -> "_Key":
        grouped = self._group_by is not None and any(
            value != "" for value in values_of(field_of(item, self._group_by))
        )
        return normalise(item.domain), text, grouped


_Key = tuple[str, str, bool]


@dataclass(frozen=True)
class _Thing:
    item: Item
    place: int

    @cached_property
    def telling(self) -> dict[str, set[str]]:
        """Of each telling attribute, the values that all items of this thing have in common."""
        found = {name: _values(self.item, name) for name in _TELLING_ATTRIBUTES}
        return {name: values for name, values in found.items() if values}

    def joined_by(self, other: "_Thing") -> int:
        """The place, after the values of another item of this thing have narrowed the own ones."""
        for name, values in other.telling.items():
            self.telling[name] = self.telling.get(name, values) & values
        return self.place

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
    numbers always stay: they tell the parts of a series from each other. So does a measure that
    begins the title: "5 Feet Apart".
    """
    text = normalise(title.translate(_IGNORED))
    if len(text) > _LONGEST_TITLE:
        return text
    kept: list[list[str]] = []
    pieces = _BREAK.split(text)
    for mark, part in zip(["", *pieces[1::2]], pieces[::2], strict=True):
        opening = OPENING_MEASURE.match(part) if not mark else None
        start = opening.end() if opening else 0
        words = _words(part[:start] + QUANTITY.sub(" ", part[start:]))
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


def _contradict(one: _Thing, other: _Thing) -> bool:
    """Whether both have an attribute that tells two things apart, with different values."""
    return any(
        name in other.telling and not values & other.telling[name]
        for name, values in one.telling.items()
    )


def _values(item: Item, name: str) -> set[str]:
    values = values_of(item.attributes.get(name))
    return {normalise(str(value)) for value in values if value != ""}


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
