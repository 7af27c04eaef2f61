"""Which lines of a reply are used: plain ones, in the right language, each about its own item."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Literal

from app.curate.enrichment.line_language import is_other_language
from app.curate.enrichment.line_prompt import LINE_CHARS, LineQuestion, SaidLine
from app.curate.enrichment.line_tags import repeats, words_of
from prompts import one_line
from tree.scripts import spaced

Refusal = Literal[
    "missing", "mixed_up", "not_plain", "too_long", "too_short", "other_language", "copied"
]
"""Why a line is not used: there was none; it belongs to another item; it has markup, addresses or
signs; its length; its language; another item has the same line."""

_LEAST_WORDS = 4
_FOREIGN_WORDS = 2  # that only one other item has, of a line without a word of its own item
_FOREIGN_SHARE = 3  # times as many as of its own item, of any line
_FEW = 4  # foreign words that a line may have by chance
# Lines that slid to the next item though their tags are right: some lines around fit the items
# beside them better. Of 3,686 goods in the order of their titles .1 % of right lines are refused
# and all that slid; of films with genres only, in random order, 3 % and 99 % (2026-12).
_AROUND = 3
_BETTER, _BETTER_BY = 1.2, 3.0
_LEAST_LINES = 5
_MANY_STRANGERS = 0.3  # of a reply that is not used at all
_STEM = 5  # characters that tell words apart: "camera" and "cameras" are one
_LEAST_STEM = 3
_ALIKE_TITLES = 0.5  # Jaccard similarity of titles that may share a line
_WRITTEN_AS_WORDS = 0.7  # least share of letters, digits and blanks
_NO_PLAIN_TEXT = re.compile(r"[<>{}|\\`\[\]]|://|\bwww\.|\*\*|__", re.IGNORECASE)
_QUOTES = ('""', "''", "“”", "„“", "«»", "‘’", "「」")


@dataclass(slots=True)
class Checked:
    """The usable lines of a reply by the numbers of their items; why the others have none."""

    lines: dict[int, str] = field(default_factory=dict)
    refused: dict[int, Refusal] = field(default_factory=dict)


def checked(question: LineQuestion, said: Sequence[SaidLine]) -> Checked:
    """The lines to use. Never one of which it is doubtful what item it is about."""
    found = Checked()
    by_number: dict[int, list[SaidLine]] = defaultdict(list)
    for line in said:
        by_number[line.n].append(line)
    words = _Words([item.text for item in question.items])
    first = {number: lines[0].line for number, lines in by_number.items()}
    strangers = words.strangers(first)
    for number, item in enumerate(question.items, 1):
        lines = by_number.get(number, [])
        if not lines:
            found.refused[number] = "missing"
        elif (
            len({line.line for line in lines}) > 1
            or not repeats(item.tag, lines[0].tag)
            or number in strangers
        ):
            found.refused[number] = "mixed_up"
        else:
            text, why = plain_line(lines[0].line)
            if why is None and is_other_language(text, question.language):
                why = "other_language"
            if why is None:
                found.lines[number] = text
            else:
                found.refused[number] = why
    _refuse_copies(question, found)
    return found


def plain_line(text: str) -> tuple[str, Refusal | None]:
    """The line without quotes and emphasis, and why it cannot be used.

    Odd text is refused and not corrected: lines are shown in prompts and on pages.
    """
    text = re.sub(
        r"[ \t]+", " ", unicodedata.normalize("NFC", text[: 4 * LINE_CHARS]).strip(" *_#")
    )
    if text[:1] + text[-1:] in _QUOTES and len(text) > 2:
        text = text[1:-1].strip()
    if len(text) > LINE_CHARS:
        return text, "too_long"
    if _NO_PLAIN_TEXT.search(text) or one_line(text, LINE_CHARS) != text:
        return text, "not_plain"
    words = sum(c.isalnum() or c == " " or unicodedata.category(c)[0] == "M" for c in text)
    if words < _WRITTEN_AS_WORDS * len(text) or not any(map(str.isalpha, text)):
        return text, "not_plain"
    return text, "too_short" if len(spaced(text).split()) < _LEAST_WORDS else None


class _Words:
    """The words of the items of a question, by which a line can be told to be about another one."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._of = [_stems(text) for text in texts]
        counts = Counter(word for words in self._of for word in words)
        self._weights = {word: log(len(texts) / count) for word, count in counts.items()}
        self._only_of = {
            word: at for at, words in enumerate(self._of) for word in words if counts[word] == 1
        }

    def strangers(self, lines: Mapping[int, str]) -> set[int]:
        """The numbers of lines that seem to be about another item; of all, where they are many."""
        numbers = {number for number in lines if 1 <= number <= len(self._of)}
        found = self._slid({number: lines[number] for number in numbers})
        found |= {number for number in numbers if self._is_of_another(number, lines[number])}
        return numbers if len(found) > _MANY_STRANGERS * len(numbers) else found

    def _is_of_another(self, number: int, line: str) -> bool:
        """Whether a line has several words that only one other item has."""
        said = _stems(line)
        own = len(said & self._of[number - 1])
        others = Counter(self._only_of[word] for word in said if word in self._only_of)
        del others[number - 1]
        most = max(others.values(), default=0)
        return most >= _FOREIGN_WORDS if not own else most >= max(_FEW, _FOREIGN_SHARE * own)

    def _slid(self, lines: Mapping[int, str]) -> set[int]:
        """The numbers of lines that, with those around them, fit the items beside them better."""
        if len(lines) < _LEAST_LINES:
            return set()
        numbers = sorted(lines)
        stems = [_stems(lines[number]) for number in numbers]
        own = [self._fit(said, number) for said, number in zip(stems, numbers, strict=True)]
        found = set()
        for step in (-1, 1):
            beside = [self._fit(s, n + step) for s, n in zip(stems, numbers, strict=True)]
            for at, number in enumerate(numbers):
                around = slice(max(0, at - _AROUND), at + _AROUND + 1)
                if sum(beside[around]) > _BETTER * sum(own[around]) + _BETTER_BY:
                    found.add(number)
        return found

    def _fit(self, said: set[str], number: int) -> float:
        """How many words a line shares with an item, rare ones more."""
        if not 1 <= number <= len(self._of):
            return 0.0
        return sum(self._weights[word] for word in said & self._of[number - 1])


def _stems(text: str) -> set[str]:
    return {word[:_STEM] for word in words_of(spaced(text)) if len(word) >= _LEAST_STEM}


def _refuse_copies(question: LineQuestion, found: Checked) -> None:
    """Items of one line have alike titles, or all of them lose it: it is unknown whose it is."""
    numbers: Mapping[str, list[int]] = defaultdict(list)
    for number, text in found.lines.items():
        numbers[" ".join(words_of(text))].append(number)
    for same in numbers.values():
        titles = [set(words_of(question.items[number - 1].title)) for number in same]
        if any(len(titles[0] & t) < _ALIKE_TITLES * len(titles[0] | t) for t in titles[1:]):
            for number in same:
                del found.lines[number]
                found.refused[number] = "copied"
