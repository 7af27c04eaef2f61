"""Wishes in words: the file, the catalogue that they look into, and the figures of all together."""

import gzip

import pytest

from app.evaluation.case import Case, Query
from app.evaluation.choices import LeftOut
from app.evaluation.dataset import DataError, Dataset, DatasetUser, Impression, Skipped
from app.evaluation.excerpt import excerpt
from app.evaluation.formats.enrichments import with_enrichments
from app.evaluation.formats.wishes import Wish, by_data, read_ids, read_wishes
from app.evaluation.metrics import CatalogStatistics, SystemMetrics
from app.evaluation.protocols import known_item
from app.evaluation.systems import EvalContext, systems
from app.settings import Settings
from tests.app.evaluation.support import lines
from tree.item import Item

ITEMS = [
    Item(id="a", title="Rake", description="for leaves", keywords=("garden",), categories=("Out",)),
    Item(id="b", title="Teapot", keywords=("kitchen",)),
    Item(id="c", title="Lamp"),
]
USERS = [
    DatasetUser(
        "u", ("a", "b", "c"), (1.0, 2.0, 3.0), impressions=(Impression(("a",), frozenset("a"), 0),)
    ),
    DatasetUser("v", ("b",), candidates=("b", "c")),
]


def dataset(items=ITEMS) -> Dataset:
    return Dataset("shop", items, USERS, Skipped(), {})


def test_both_forms_are_read_and_bad_rows_are_counted(tmp_path):
    file = tmp_path / "wishes.jsonl.gz"
    rows = lines(
        {"data": "shop", "item_id": 7, "wish": "to tidy the lawn"},
        {"query": "warm drinks", "item_ids": ["b", "c", "b"]},
        {"wish": "for nobody"},
        {"item_id": "a"},
        {"item_id": "a", "wish": "  "},
        {"item_id": "a", "wish": "w" * 4_001},
    )
    file.write_bytes(gzip.compress(rows + b"{broken\n"))
    found = read_wishes(file)
    assert list(found.rows) == [
        Wish("to tidy the lawn", ("7",), "shop"),
        Wish("warm drinks", ("b", "c")),
    ]
    assert sum(found.skipped.counts.values()) == 5
    assert "wishes.jsonl.gz:3" in found.skipped.first.values()
    assert list(found.checksums) == ["wishes.jsonl.gz"]


@pytest.mark.parametrize("content", [b"", b"no json\n", lines({"id": "a", "title": "an item"})])
def test_a_file_without_a_wish_is_an_error(tmp_path, content):
    file = tmp_path / "wishes.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"wishes\.jsonl:1: .*a wish per line"):
        read_wishes(file)


def test_wishes_are_for_the_folder_of_their_name(tmp_path):
    shop, news = tmp_path / "shop", tmp_path / "news"
    for folder in (shop, news):
        folder.mkdir()
    file = tmp_path / "wishes.jsonl"
    file.write_bytes(
        lines(
            {"data": "shop", "item_id": "a", "wish": "one"},
            {"data": "news", "item_id": "b", "wish": "two"},
            {"item_id": "c", "wish": "three"},
        )
    )
    wishes = read_wishes(file)

    def words(*folders):
        groups = by_data(wishes, file, folders)
        return {folder: [wish.words for wish in rows] for folder, rows in groups.items()}

    assert words() == {shop: ["one"], news: ["two"], tmp_path: ["three"]}
    assert words(shop) == {shop: ["one", "three"]}
    assert words(news, shop) == {news: ["two"], shop: ["one"]}
    (tmp_path / "films").mkdir()
    (tmp_path / "music").mkdir()
    with pytest.raises(DataError, match="no wish is for films, music; found 1 for 'shop'"):
        words(tmp_path / "films", tmp_path / "music")


def test_ids_may_stand_alone_or_in_objects(tmp_path):
    file = tmp_path / "ids.txt"
    file.write_bytes(b"a\n" + lines({"item_id": "b", "text": "a line"}, {"item_id": 3}))
    assert read_ids(file)[0] == {"a", "b", "3"}
    file.write_bytes(b'a\n{"id": "b"}\n')
    with pytest.raises(DataError, match=r"ids\.txt:2: not an object with an item_id"):
        read_ids(file)


def test_an_excerpt_has_the_kept_items_and_their_events_only():
    cut = excerpt(dataset(), {"a", "c", "elsewhere"})
    assert [item.id for item in cut.items] == ["a", "c"]
    [user] = cut.users
    assert (user.history, user.times, user.impressions) == (("a", "c"), (1.0, 3.0), ())
    with pytest.raises(DataError, match="none of its items"):
        excerpt(dataset(), {"elsewhere"})


def test_fields_can_be_left_out_of_the_text():
    bare = excerpt(dataset(), without=list(LeftOut))
    assert [item.text.strip() for item in bare.items] == ["Rake", "Teapot", "Lamp"]
    assert "leaves" in excerpt(dataset(), without=[LeftOut.KEYWORDS]).items[0].text
    assert excerpt(dataset()).items is ITEMS


def test_each_wish_is_a_case_with_the_items_of_the_catalogue():
    data = dataset()
    training, cases = known_item(
        data, [Wish("one", ("a",)), Wish("two", ("b", "gone")), Wish("three", ("gone",))]
    )
    assert [(case.query.wish, case.targets) for case in cases] == [("one", {"a"}), ("two", {"b"})]
    assert all(not case.query.history and case.query.candidates is None for case in cases)
    assert data.skipped.counts == {"wish for items that the catalogue lacks": 1}
    assert list(training.users) == USERS, "a wish is no event"
    with pytest.raises(DataError, match="no case is left"):
        known_item(data, [Wish("three", ("gone",))])


def test_a_wish_may_be_of_a_user_who_had_the_item_later():
    data = dataset()
    wishes = [Wish("one", ("a",)), Wish("two", ("b", "c")), Wish("three", ("gone",))]
    training, cases = known_item(data, wishes, with_history=True)
    assert [(c.query.wish, c.query.history, c.targets) for c in cases] == [
        ("two", ("a",), {"b", "c"})
    ]
    assert [user.id for user in training.users] == ["v"], "what they had next is the target"
    assert set(data.skipped.counts) == {
        "wish for items that no user had after another one",
        "wish for items that the catalogue lacks",
    }


async def test_a_task_is_a_parameter_and_a_search_needs_a_wish():
    name = "embedded:task=search"
    training, cases = known_item(dataset(), [Wish("a teapot", ("b",))])
    [system] = systems([name], EvalContext(Settings()))
    await system.fit(training)
    assert await system.rank([cases[0].query], 1) == [["b"]]
    with pytest.raises(DataError, match=f"{name}: a search needs wishes"):
        await system.rank([Query("u", ("a",))], 1)
    await system.aclose()


@pytest.mark.parametrize("name", ["bm25", "semantic", "semantic:embedder=tfidf", "embedded"])
async def test_systems_read_the_wish(name, demo_items):
    words = "a detective hunts a murderer in Victorian London"
    target = Item(id="wanted", title="Fog", description=words)
    training, cases = known_item(dataset([*demo_items, target]), [Wish(words, ("wanted",))])
    [system] = systems([name], EvalContext(Settings()))
    await system.fit(training)
    [answer] = await system.rank([case.query for case in cases], 5)
    await system.aclose()
    assert answer[0] == "wanted"


def test_pooled_figures_are_those_of_all_cases_together():
    def cases(prefix: str, count: int) -> list[Case]:
        return [
            Case(Query(f"{prefix}{n}", (), wish="w"), frozenset({f"{prefix}{n % 5}"}), prefix)
            for n in range(count)
        ]

    def answers(prefix: str, count: int) -> list[list[str]]:
        return [[f"{prefix}{(n * n) % 5}", f"{prefix}{n % 3}"] for n in range(count)]

    def measured(asked, answered, names):
        items = [Item(id=f"{name}{n}", title="t") for name in names for n in range(5)]
        return SystemMetrics.of(asked, answered, CatalogStatistics.of(items, ()), (1, 2))

    x, y = (cases("x", 12), answers("x", 12)), (cases("y", 30), answers("y", 30))
    pooled = SystemMetrics.pooled({"x": measured(*x, "x"), "y": measured(*y, "y")})
    together = measured(x[0] + y[0], x[1] + y[1], "xy")
    one, other = pooled.summary(seed=3), together.summary(seed=3)
    for name in ("recall@1", "recall@2", "ndcg@2", "mrr@2", "coverage@2"):
        assert one.metrics[name] == other.metrics[name], name
    assert one.buckets["y"]["recall@2"] == other.buckets["y"]["recall@2"]
    assert one.cases == {"x": 12, "y": 30}
    assert 0 < one.metrics["recall@1"].value < 1
    difference = pooled.against(pooled, seed=3)["recall@2"].difference
    assert (difference.value, difference.low, difference.high, difference.cases) == (0, 0, 0, 42)


def test_items_get_the_lines_of_a_file(tmp_path):
    file = tmp_path / "enrichments.jsonl.gz"
    rows = lines(
        {"item_id": "a", "text": " To gather leaves "},
        {"item_id": "nobody", "text": "For all"},
        {"item_id": "b", "text": "<b>Tea</b>"},
        {"item_id": "c"},
    )
    file.write_bytes(gzip.compress(rows))
    data = with_enrichments(dataset(), file)
    assert [item.passage.line for item in data.items] == ["To gather leaves", "", ""]
    assert [item.passage.text for item in data.items] == [item.text for item in ITEMS]
    assert sum(data.skipped.counts.values()) == 3
    assert list(data.checksums) == [f"lines of {file.name}"]
    kept = excerpt(data, {"a"}, [LeftOut.KEYWORDS]).items
    assert [item.passage.line for item in kept] == ["To gather leaves"]

    file.write_bytes(lines({"item_id": "nobody", "text": "For all"}))
    with pytest.raises(DataError, match="no line is for an item of shop"):
        with_enrichments(dataset(), file)
