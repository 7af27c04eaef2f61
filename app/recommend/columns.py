"""`Column`: the values of one field over the rows of a tree, tested all at once.

Each value is stored with the number of its row. So a row may have no value, one or several, and a
field that few items have takes hardly any memory. Memory per value: a number 12 B, a text 12 B (a
hash of it), a boolean 5 B. A column for comparisons of texts by order has the texts, too: 4 B a
value and some 160 B for each distinct text. An empty column takes 1.6 kB.

A test takes one pass over the values: of 100 million of them some 0.3 s of a core, against a list
of a thousand words 0.5 s, of a thousand numbers 5 s; comparisons by order take 0.2 µs for each
distinct text.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from app.recommend.filters import Beyond, Condition, Filter, OneOf, Scalar, ValueTest
from tree.item import normalise
from tree.rows import IntArray

Mask: TypeAlias = npt.NDArray[np.bool_]

_EXACT = 2**53  # whole numbers beyond have no float64 of their own
_SIEVE = 2**16
_WORD_BYTES, _ODD_BYTES = 160, 120
COLUMN_BYTES = 1_600  # of an empty one
_Type = TypeVar("_Type", bound=np.generic)


class _Values(Generic[_Type]):
    """Growing values and their rows, which never go down. One writer, any number of readers."""

    def __init__(self, kind: type[_Type]) -> None:
        self.count = 0
        self._rows: IntArray = np.zeros(0, np.int32)
        self._values: npt.NDArray[_Type] = np.zeros(0, kind)

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes + self._values.nbytes

    def extend(self, rows: Sequence[int], values: Sequence[float]) -> None:
        count = self.count + len(rows)
        if count > len(self._rows):
            room = max(count, count + count // 8)
            self._rows = _grown(self._rows, self.count, room)
            self._values = _grown(self._values, self.count, room)
        self._rows[self.count : count] = rows
        self._values[self.count : count] = np.array(values, self._values.dtype)
        self.count = count

    def below(self, size: int) -> tuple[IntArray, npt.NDArray[_Type]]:
        """Those of the rows below `size`."""
        count = self.count  # before the arrays, which may be replaced by longer ones
        rows, values = self._rows[:count], self._values[:count]
        stop = int(np.searchsorted(rows, size))
        return rows[:stop], values[:stop]


class Column:
    """The values of one field. One thread adds rows, in their order; any number test them.

    With `ordered` it serves comparisons of words by their order, and nothing else.
    """

    def __init__(self, *, ordered: bool = False) -> None:
        self.height = 0  # rows that were read
        self.used = 0  # on a clock that says which one was used last
        self.nbytes = COLUMN_BYTES  # about
        self._ordered = ordered
        self._numbers = _Values(np.float64)
        self._texts = _Values(np.int64)  # hashes of normalised words
        self._flags = _Values(np.bool_)
        self._odd: list[tuple[int, int]] = []  # rows and whole numbers beyond ± 2^53
        self._spelled = _Values(np.int32)  # codes of words
        self._words: list[str] = []
        self._codes: dict[str, int] = {}
        self._letters = 0

    @property
    def is_empty(self) -> bool:
        """Whether no row so far has a value."""
        return self.nbytes == COLUMN_BYTES

    def add(self, pairs: Iterable[tuple[int, Scalar]]) -> None:
        """Add rows, each with one value, after the rows that were added before."""
        texts: list[tuple[int, str]] = []
        flags: list[tuple[int, bool]] = []
        numbers: list[tuple[int, float]] = []
        for row, value in pairs:
            if isinstance(value, str):
                texts.append((row, value))
            elif isinstance(value, bool):
                flags.append((row, value))
            elif isinstance(value, float) or -_EXACT <= value <= _EXACT:
                numbers.append((row, value))
            elif not self._ordered:
                self._odd.append((row, value))
        rows = [row for row, _ in texts]
        if self._ordered:
            self._spelled.extend(rows, [self._code(text) for _, text in texts])
        else:
            self._texts.extend(rows, [hash(normalise(text)) for _, text in texts])
            for kept, some in ((self._flags, flags), (self._numbers, numbers)):
                kept.extend([row for row, _ in some], [value for _, value in some])
        self.nbytes = self._measured()

    def _measured(self) -> int:
        plain = (self._numbers, self._texts, self._flags, self._spelled)
        words = len(self._words) * _WORD_BYTES + self._letters
        odd = len(self._odd) * _ODD_BYTES
        return COLUMN_BYTES + sum(one.nbytes for one in plain) + odd + words

    def _code(self, word: str) -> int:
        code = self._codes.get(word)
        if code is None:
            self._words.append(word)
            code = self._codes[word] = len(self._words) - 1
            self._letters += len(word)
        return code

    def having(self, test: ValueTest, size: int) -> Iterable[IntArray]:
        """The rows below `size` with a value that passes; some come more than once."""
        if self._ordered:
            yield self._in_order(test, size)
            return
        for values, passes in ((self._numbers, _passing_numbers), (self._texts, _passing_texts),
                               (self._flags, _passing_flags)):  # fmt: skip
            rows, some = values.below(size)
            if len(rows):
                yield rows[passes(test, some)]
        if self._odd:
            yield np.array([r for r, value in self._odd if r < size and test.has(value)], np.int32)

    def _in_order(self, test: ValueTest, size: int) -> IntArray:
        rows, codes = self._spelled.below(size)
        passing = np.fromiter(map(test.has, self._words), np.bool_)
        return rows[passing[codes]] if len(rows) else rows


def key_of(field: str, test: ValueTest) -> tuple[str, bool]:
    """The key of the column for a test: the name of the field, and whether words are in order."""
    return field, isinstance(test, Beyond) and isinstance(test.bound, str)


def keys_of(asked: Filter) -> set[tuple[str, bool]]:
    """The keys of the columns that a filter needs."""
    return {key_of(one.field, test) for one in asked.conditions for test, _ in one.tests}


class Abandoned(Exception):
    """The request that needs the result has ended."""


def passing(
    asked: Filter,
    columns: Mapping[tuple[str, bool], Column],
    size: int,
    over: Callable[[], bool] = lambda: False,
) -> Mask:
    """bool[size]: the rows that pass a filter, by the columns that it needs.

    Raises Abandoned once it is `over`.
    """

    def holds(condition: Condition) -> Mask:
        result = np.ones(size, np.bool_)
        for test, passes in condition.tests:
            if over():
                raise Abandoned
            hit = np.zeros(size, np.bool_)
            for rows in columns[key_of(condition.field, test)].having(test, size):
                hit[rows] = True
            result &= hit if passes else ~hit
        return result

    result = np.ones(size, np.bool_)
    for condition in asked.all:
        result &= holds(condition)
    if asked.any:
        one_of = np.zeros(size, np.bool_)
        for condition in asked.any:
            one_of |= holds(condition)
        result &= one_of
    for condition in asked.none:
        result &= ~holds(condition)
    return result


def _passing_numbers(test: ValueTest, values: npt.NDArray[Any]) -> Mask:
    if isinstance(test, OneOf):
        return _one_of(values, [low for one in test.numbers if (low := _least(one)) == _most(one)])
    if not isinstance(test, Beyond) or isinstance(test.bound, str):
        return np.zeros(len(values), np.bool_)
    match test.sign:
        case ">":
            return values > _most(test.bound)
        case ">=":
            return values >= _least(test.bound)
        case "<":
            return values < _least(test.bound)
        case "<=":
            return values <= _most(test.bound)


def _passing_texts(test: ValueTest, values: npt.NDArray[Any]) -> Mask:
    wanted = list(map(hash, test.texts)) if isinstance(test, OneOf) else []
    if len(wanted) <= 1:
        return _one_of(values, wanted)
    sieve = np.zeros(_SIEVE, np.bool_)  # nearly all are left out by a look at the last bits
    sieve[np.array(wanted, np.int64) & _SIEVE - 1] = True
    result: Mask = sieve[values & _SIEVE - 1]
    result[result] = _one_of(values[result], wanted)
    return result


def _passing_flags(test: ValueTest, values: npt.NDArray[Any]) -> Mask:
    return _one_of(values, list(test.flags) if isinstance(test, OneOf) else [])


def _one_of(values: npt.NDArray[Any], wanted: Sequence[float]) -> Mask:
    if not wanted:
        return np.zeros(len(values), np.bool_)
    known = np.sort(np.array(wanted, values.dtype))
    if len(known) == 1:
        return values == known[0]
    places = np.searchsorted(known, values)
    places[places == len(known)] = 0
    return known[places] == values


def _least(bound: int | float) -> float:
    """The least float64 that is not below `bound`."""
    near = _near(bound)
    return near if near >= bound else math.nextafter(near, math.inf)


def _most(bound: int | float) -> float:
    """The greatest float64 that is not above `bound`."""
    near = _near(bound)
    return near if near <= bound else math.nextafter(near, -math.inf)


def _near(bound: int | float) -> float:
    try:
        return float(bound)
    except OverflowError:
        return math.inf if bound > 0 else -math.inf


def _grown(array: npt.NDArray[_Type], count: int, room: int) -> npt.NDArray[_Type]:
    larger = np.empty(room, array.dtype)
    larger[:count] = array[:count]
    return larger
