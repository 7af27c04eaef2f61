"""Columns and their index, over versions."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from tree.rows import ALIVE, Columns, Rows
from tree.vectors import DIMENSIONS

ODD = [
    "a/b/c",
    "\U0001f600",
    "👩‍👩‍👧",
    "שלום",
    "日本",
    " ",
    "é",
    "e\u0301",
    "x" * 256,
    "\ud800",
    "0",
]


def found(rows: Rows, item_id: str, version: int, size: int) -> int:
    """The row of an item that is there."""
    row = rows.find(item_id, version, size)
    assert row is not None
    return row


def columns(ids: Iterable[str], value: int = 1) -> Columns:
    ids = list(ids)
    count = len(ids)
    return Columns(
        ids,
        np.full((count, DIMENSIONS), value, np.int8),
        np.full(count, value, np.float32),
        np.full(count, np.inf),
        np.zeros(count, bool),
        [f"domain {value}"] * count,
    )


def test_ids_come_back_as_they_went():
    rows = Rows(DIMENSIONS)
    numbers = rows.append(columns(ODD), 7)
    rows.publish(1, 0, ())
    assert [rows.id(row) for row in numbers] == ODD
    assert [rows.find(item_id, 1, rows.size) for item_id in ODD] == numbers.tolist()
    assert rows.find("nobody", 1, rows.size) is None
    assert rows.find("", 1, rows.size) is None


def test_every_version_finds_its_own_row():
    rows = Rows(DIMENSIONS)
    rows.append(columns(["x", "y"]), 0)
    rows.publish(1, 0, ())
    for version in range(2, 30):
        since = rows.size
        rows.append(columns(["x"], version), 0)
        rows.publish(version, since, [found(rows, "x", version - 1, since)])
    last = rows.size
    rows.publish(30, last, [found(rows, "x", 29, last)])
    sizes = [2, *range(3, 31)]
    for version, size in enumerate(sizes, 1):
        row = rows.find("x", version, size)
        assert rows.vectors[row, 0] == version
        assert rows.find("y", version, size) == 1
    assert rows.find("x", 30, last) is None
    assert rows.dead == 29


def test_rows_that_were_never_published_are_forgotten():
    rows = Rows(DIMENSIONS, 2)
    rows.append(columns(["x", "y"]), 0)
    rows.publish(1, 0, ())
    rows.append(columns(["z", "x", "\U0001f600" * 50], 2), 0)
    rows.truncate(2)
    assert rows.size == 2
    assert rows.find("z", 1, 2) is None
    assert rows.find("x", 1, 2) == 0
    numbers = rows.append(columns(["w"], 3), 0)
    rows.publish(2, 2, ())
    assert rows.id(int(numbers[0])) == "w"
    assert rows.find("w", 2, 3) == 2
    assert rows.find("w", 1, 2) is None


def test_truncating_to_nothing():
    rows = Rows(DIMENSIONS)
    rows.append(columns(["x"]), 0)
    rows.truncate(0)
    rows.append(columns(["y"]), 0)
    rows.publish(1, 0, ())
    assert rows.id(0) == "y"
    assert rows.find("x", 1, 1) is None


def test_columns_survive_growth():
    rows = Rows(DIMENSIONS, 1)
    expected = []
    for value in range(1, 100):
        since = rows.size
        rows.append(columns([f"{value}-{n}" for n in range(value)], value), value)
        rows.publish(value, since, ())
        expected += [value] * value
    assert rows.vectors[: rows.size, 5].tolist() == expected
    assert rows.leaf[: rows.size].tolist() == expected
    assert rows.popularity[: rows.size].tolist() == expected
    assert [rows.domains[code] for code in rows.domain[: rows.size]] == [
        f"domain {value}" for value in expected
    ]
    assert (rows.died[: rows.size] == ALIVE).all()


def test_the_index_is_merged_while_it_grows():
    """Past 4,096 new ids the small index goes into the large one; both answer alike."""
    rows = Rows(DIMENSIONS)
    rows.append(columns(map(str, range(3_000))), 0)
    rows.publish(1, 0, ())
    for version in range(2, 12):
        since = rows.size
        fresh = map(str, range(3_000 + 900 * (version - 2), 3_000 + 900 * (version - 1)))
        rows.append(columns([*fresh, "5"], version), 0)
        rows.publish(version, since, [found(rows, "5", version - 1, since)])
    for number in range(0, 12_000, 7):
        assert rows.find(str(number), 11, rows.size) == (
            number + max(0, (number - 3_000) // 900)
        ), number
    assert rows.vectors[rows.find("5", 11, rows.size), 0] == 11
    assert rows.find("5", 1, 3_000) == 5


class Namesake(str):
    """Ids whose hashes are all the same, as two ids in 2**64 may be."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 7


class Clashing(Rows):
    def id(self, row: int) -> str:
        return Namesake(super().id(row))

    def ids(self, rows: np.ndarray) -> list[str]:
        return list(map(Namesake, super().ids(rows)))


@pytest.mark.parametrize("ids", [["a", "b", "c"], ["c", "a", "b"]])
def test_ids_of_one_hash_are_told_apart(ids):
    rows = Clashing(DIMENSIONS)
    rows.append(columns(ids), 0)
    rows.publish(1, 0, ())
    assert [rows.find(Namesake(name), 1, 3) for name in ids] == [0, 1, 2]
    assert rows.find(Namesake("d"), 1, 3) is None
    rows.append(columns(["b"], 2), 0)
    rows.publish(2, 3, [found(rows, Namesake("b"), 1, 3)])
    assert rows.find(Namesake("b"), 2, 4) == 3
    assert rows.find(Namesake("b"), 1, 3) == ids.index("b")


def test_moved_rows_keep_their_facts():
    rows = Rows(DIMENSIONS)
    rows.append(columns(["x", "y"], 4), 1)
    rows.publish(1, 0, ())
    moved = rows.move(np.array([1], np.int32), 9)
    rows.publish(2, 2, [1])
    assert rows.find("y", 2, 3) == moved[0] == 2
    assert (rows.leaf[2], rows.popularity[2], rows.vectors[2, 0]) == (9, 4, 4)
    assert rows.find("y", 1, 2) == 1


def test_rows_hold_more_domains_than_two_bytes_can_number():
    rows, names = Rows(DIMENSIONS), [f"domain {number}" for number in range(70_000)]
    numbers = rows.append(replace(columns(names), domains=names), 0)
    rows.publish(1, 0, ())
    assert rows.columns(numbers[::-1]).domains == names[::-1]


def test_domains_of_rows_that_were_never_published_are_forgotten():
    rows = Rows(DIMENSIONS)
    rows.append(columns(["x"], 1), 0)
    rows.publish(1, 0, ())
    rows.append(columns(["y"], 2), 0)
    rows.truncate(1)
    assert rows.domains == ["domain 1"]
    numbers = rows.append(columns(["z"], 3), 0)
    rows.append(columns(["y"], 2), 0)
    rows.publish(2, 1, ())
    assert rows.columns(numbers).domains == ["domain 3"]
    assert rows.domains == ["domain 1", "domain 3", "domain 2"]
