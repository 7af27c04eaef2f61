"""Filters: columns say what records say, are kept up, and stay within their memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from operator import ge, gt, le, lt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from app.embedders import LexicalEmbedder
from app.recommend.columns import COLUMN_BYTES
from app.recommend.fields import ColumnMemory, Fields, FilterTooLarge
from app.recommend.filters import Condition, Filter
from tree.edits import PutItem
from tree.errors import StoreUnavailable
from tree.item import Item, moment, normalise
from tree.node import ROOT, TreeSettings
from tree.snapshot import SemanticTree
from tree.store.memory import MemoryTreeStore
from tree.vectors import DIMENSIONS

# Few values that are easily taken for each other.
_WORDS = ["slow", "Slow", " slow ", "ﬁne", "fine", "straße", "STRASSE", "1", "true", "2020", ""]
_WHOLE = [0, 1, 2, -1, 2**53, 2**53 + 1, 2**53 + 2, -(2**53) - 1, 2**63, 10**30, 10**400]
_BROKEN = [0.0, -0.0, 1.0, 1.5, float(2**53), float(2**63), 1e30, 5e-324, 1.7e308]
_DATES = ["2020-01-01T00:00:00Z", "2020-01-01T01:00:00+01:00", "2020-01-01T00:00:00.000001Z"]
_FIELDS = ["a", "b", "title", "keywords", "domain", "hidden", "popularity", "nowhere"]

_words, _whole, _broken = (st.sampled_from(some) for some in (_WORDS, _WHOLE, _BROKEN))
_scalars = st.one_of(_words, _whole, _broken, st.booleans())
_bounds = st.one_of(_words, _whole, _broken)
_moment = TypeAdapter(datetime)
_dates = st.sampled_from(_DATES)


@st.composite
def _items(draw) -> list[Item]:
    values = st.one_of(_scalars, st.lists(_words, max_size=3).map(tuple))
    return [
        Item(
            id=f"i{number}",
            title=draw(st.sampled_from(["Slow", "fine", "2020"])),
            domain=draw(st.sampled_from(["", "Books", "books"])),
            keywords=tuple(draw(st.lists(st.sampled_from(["slow", "ﬁne"]), max_size=2))),
            attributes=draw(st.dictionaries(st.sampled_from("ab"), values, max_size=2)),
            popularity=draw(st.sampled_from([None, 0.0, 1.0, 1e18])),
            hidden=draw(st.booleans()),
            published_at=draw(st.none() | _dates),
        )
        for number in range(draw(st.integers(1, 6)))
    ]


@st.composite
def _conditions(draw) -> Condition:
    dated = draw(st.integers(0, 4)) == 0
    field = "published_at" if dated else draw(st.sampled_from(_FIELDS))
    same, bound = (_dates, _dates) if dated else (_scalars, _bounds)
    tests = {
        "eq": same, "ne": same, "in": st.lists(same, min_size=1, max_size=5),
        "gt": bound, "gte": bound, "lt": bound, "lte": bound,
    }  # fmt: skip
    names = draw(st.lists(st.sampled_from(sorted(tests)), min_size=1, max_size=2, unique=True))
    return Condition.model_validate({"field": field} | {name: draw(tests[name]) for name in names})


_filters = st.builds(
    Filter,
    all=st.lists(_conditions(), max_size=2),
    any=st.lists(_conditions(), max_size=2),
    none=st.lists(_conditions(), max_size=2),
)


async def test_columns_know_the_values_of_records_apart():
    """Every kind of value, against every test with every value."""
    values: list[Any] = [*_WORDS, *_WHOLE, *_BROKEN, True, False, (), ("slow", "2020"), ("ﬁne",)]
    items = [Item(id=f"i{at}", title="T", attributes={"a": one}) for at, one in enumerate(values)]
    items += [
        Item(id=f"d{at}", title="T", published_at=_moment.validate_python(one))
        for at, one in enumerate(_DATES)
    ]
    wanted = [*_WORDS, *_WHOLE, *_BROKEN, True, False]
    asked = [{"field": "a", name: one} for one in wanted for name in ("eq", "ne")]
    asked += [{"field": "a", "in": [one, *wanted[:3]]} for one in wanted]
    orders = ("gt", "gte", "lt", "lte")
    asked += [{"field": "a", name: one} for one in wanted[:-2] for name in orders]
    asked += [
        {"field": "published_at", name: one} for one in _DATES for name in ("eq", "ne", *orders)
    ]
    store, memory = _store(), ColumnMemory(2**20)
    tree, fields = await _put(store, items), Fields(store, memory)
    for one in asked:
        test = Filter(all=[Condition.model_validate(one)])
        passing = (await fields.passing(tree, test)).rows
        for item in items:
            assert passing[tree.row(item.id)] == test.holds(item) == _plainly(test, item), (
                one,
                item.attributes,
            )
    await fields.aclose()
    memory.close()


@given(items=_items(), later=_items(), asked=st.lists(_filters, min_size=1, max_size=4))
@settings(deadline=None, max_examples=40)
def test_columns_say_what_records_say(items, later, asked):
    async def compare() -> None:
        store, memory = _store(), ColumnMemory(2**20)
        fields = Fields(store, memory)
        for some in (items, later):  # the second time they are updated: new rows
            tree = await _put(store, some)
            records = await store.items([item.id for item in items + later])
            for one in asked:
                passing = (await fields.passing(tree, one)).rows
                for item_id, item in records.items():
                    assert passing[tree.row(item_id)] == one.holds(item) == _plainly(one, item)
        await fields.aclose()
        memory.close()

    asyncio.run(compare())


class _Watched(MemoryTreeStore):
    """A store that notes which records are read, and reads none while it is held."""

    def __init__(self) -> None:
        super().__init__(space=LexicalEmbedder().space, settings=TreeSettings(leaf_capacity=200))
        self.read: list[str] = []
        self.broken = False
        self.free = asyncio.Event()
        self.free.set()

    async def records(self, ids):
        await self.free.wait()
        if self.broken:
            raise StoreUnavailable("it is broken")
        self.read += ids
        return await super().records(ids)


@asynccontextmanager
async def _opened(store: MemoryTreeStore, limit_bytes: int = 2**20) -> AsyncIterator[Fields]:
    memory = ColumnMemory(limit_bytes)
    fields = Fields(store, memory)
    yield fields
    await fields.aclose()
    memory.close()


def _year(value: int, field: str = "year") -> Filter:
    return Filter(all=[Condition(field=field, eq=value)])


async def test_a_field_is_read_once_and_then_only_what_is_new():
    store = _Watched()
    items = [Item(id=f"i{n}", title="T", attributes={"year": n % 2}) for n in range(10)]
    tree = await _put(store, items)
    async with _opened(store) as fields:
        store.free.clear()
        impatient = asyncio.create_task(fields.passing(tree, _year(1)))
        others = [asyncio.create_task(fields.passing(tree, _year(n % 2))) for n in range(5)]
        await asyncio.sleep(0)
        impatient.cancel()  # as a deadline does: the reading goes on for the others
        store.free.set()
        counts = [int((await one).rows.sum()) for one in others]
        assert counts == [5] * 5
        assert sorted(store.read) == sorted(item.id for item in items)
        store.read.clear()
        newer = await _put(store, [Item(id="i0", title="T", attributes={"year": 1})])
        assert int((await fields.passing(newer, _year(1))).rows[newer.row("i0")]) == 1
        assert (await fields.passing(tree, _year(0))).rows[tree.row("i2")]
        assert store.read == ["i0"]


async def test_a_reading_that_fails_goes_on_with_the_next_request():
    store = _Watched()
    tree = await _put(
        store, [Item(id=f"i{n}", title="T", attributes={"year": 1}) for n in range(9)]
    )
    async with _opened(store) as fields:
        store.broken = True
        with pytest.raises(StoreUnavailable):
            await fields.passing(tree, _year(1))
        store.broken = False
        assert (await fields.passing(tree, _year(1))).rows.all()


async def test_the_tree_of_a_rebuild_is_read_anew():
    store = _Watched()
    old = await _put(store, [Item(id=f"i{n}", title="T", attributes={"year": n}) for n in range(9)])
    async with _opened(store) as fields:
        await fields.passing(old, _year(1))
        new = await store.replace(old, base=old.version)
        assert new.rows is not old.rows
        await _put(store, [Item(id="i1", title="T", attributes={"year": 5})])
        newest = await store.load()
        passing = (await fields.passing(newest, _year(5))).rows
        assert set(newest.rows.ids(passing.nonzero()[0])) == {"i1", "i5"}
        assert (await fields.passing(old, _year(1))).rows[old.row("i1")]  # asked before


async def test_a_field_that_nothing_has_is_told_and_costs_no_reading():
    store = _Watched()
    tree = await _put(store, [Item(id="a", title="T", attributes={"year": 1, "price": 2.5})])
    async with _opened(store) as fields:
        passing = await fields.passing(tree, _year(1, "yaer"))
        assert passing.unknown == ("no item has the field 'yaer': did you mean 'year'?",)
        assert not passing.rows.any()
        store.read.clear()
        for number in range(200):
            assert not (await fields.passing(tree, _year(1, f"x{number}"))).rows.any()
        assert store.read == []
        assert (await fields.passing(tree, Filter(all=[Condition(field="title", eq="t")]))).rows[0]


async def test_columns_stay_within_their_memory():
    store = _Watched()
    words: dict[str, Any] = {f"f{n}": f"{n}" for n in range(4)}
    tree = await _put(store, [Item(id=f"i{n}", title="T", attributes=words) for n in range(50)])
    column = COLUMN_BYTES + 50 * 12
    async with _opened(store, 3 * column) as fields:
        for name in ("f0", "f1", "f0", "f2", "f0"):
            assert int((await fields.passing(tree, _eq(name))).rows.sum()) == 50
        assert len(store.read) == 3 * 50
        await fields.passing(tree, _eq("f3"))  # f1 makes room: it was asked for longest ago
        await fields.passing(tree, _eq("f0"))
        assert len(store.read) == 4 * 50
        with pytest.raises(FilterTooLarge, match="FILTER_MEMORY_MB"):
            await fields.passing(tree, Filter(all=[*map(_condition, words)]))
        read = len(store.read)
        with pytest.raises(FilterTooLarge):
            await fields.passing(tree, Filter(all=[*map(_condition, words)]))
        assert len(store.read) == read


async def test_fields_that_nothing_has_leave_little_behind():
    """Where items have more names of attributes than are remembered, all are looked for."""
    store = _Watched()
    names = [f"name{n}" for n in range(64 * 160)]
    rows: list[dict[str, Any]] = [
        dict.fromkeys(names[at : at + 64], 1) for at in range(0, len(names), 64)
    ]
    items = [Item(id=f"i{n}", title="T", attributes=row) for n, row in enumerate(rows)]
    tree = await _put(store, items)
    memory = ColumnMemory(2**30)
    fields = Fields(store, memory)
    known = memory.table(tree.rows).columns
    await fields.passing(tree, _year(1, "name7"))
    for start in range(0, 6_000, 150):
        unknown = [Condition(field=f"unknown{n}", ne=1) for n in range(start, start + 150)]
        asked = Filter(all=unknown[:50], any=unknown[50:100], none=unknown[100:])
        assert not (await fields.passing(tree, asked)).rows.any()
    assert len(known) <= 2_000
    store.read.clear()
    assert int((await fields.passing(tree, _year(1, "name7"))).rows.sum()) == 1
    await fields.passing(tree, asked)
    assert store.read == []
    await fields.aclose()
    memory.close()


async def test_what_does_not_fit_is_remembered_of_some():
    store = _Watched()
    tree = await _put(store, [Item(id="i", title="T", keywords=("a",) * 64)])
    memory = ColumnMemory(COLUMN_BYTES)
    fields = Fields(store, memory)
    for own in range(250):
        asked = Filter(any=[Condition(field="keywords", eq="a"), Condition(field=f"x{own}", eq=1)])
        with pytest.raises(FilterTooLarge):
            await fields.passing(tree, asked)
    assert len(memory.table(tree.rows).refused) <= 100
    await fields.aclose()
    memory.close()


def _condition(name: str) -> Condition:
    return Condition(field=name, eq=name[1:])


def _eq(name: str) -> Filter:
    return Filter(all=[_condition(name)])


def _plainly(asked: Filter, item: Item) -> bool:
    """The rules of filters, as plainly as they can be written down."""

    def same(value, wanted) -> bool:
        if isinstance(value, str) and isinstance(wanted, str):
            return normalise(value) == normalise(wanted)
        return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted

    def comparable(value, bound) -> bool:
        return not isinstance(value, bool) and isinstance(value, str) == isinstance(bound, str)

    def holds(condition: Condition) -> bool:
        own = condition.field in Item.model_fields
        value = getattr(item, condition.field) if own else item.attributes.get(condition.field)
        read = moment if condition.field == "published_at" else lambda b: b
        many = value if isinstance(value, tuple) else () if value is None else (value,)
        asked: dict[str, Any] = {
            name: [read(one) for one in test] if isinstance(test, list) else read(test)
            for name, test in condition.model_dump(exclude_unset=True, exclude={"field"}).items()
        }
        orders = {"gt": gt, "gte": ge, "lt": lt, "lte": le}
        return all(
            any(same(one, test) for one in many) if name == "eq"
            else not any(same(one, test) for one in many) if name == "ne"
            else any(same(one, wanted) for one in many for wanted in test) if name == "any_of"
            else any(comparable(one, test) and orders[name](one, test) for one in many)
            for name, test in asked.items()
        )  # fmt: skip

    return (
        all(map(holds, asked.all))
        and (not asked.any or any(map(holds, asked.any)))
        and not any(map(holds, asked.none))
    )


def _store() -> MemoryTreeStore:
    return MemoryTreeStore(space=LexicalEmbedder().space, settings=TreeSettings(leaf_capacity=50))


async def _put(store: MemoryTreeStore, items: list[Item]) -> SemanticTree:
    edits = [
        PutItem(item.id, ROOT, bytes(DIMENSIONS), item.domain, record=item.record())
        for item in items
    ]
    return await store.commit(edits, base=(await store.load()).version)
