"""Every format, in small files of our own making; and what is no such file."""

import csv
import gzip
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from app.evaluation.dataset import DataError, Dataset, Impression
from app.evaluation.formats import Format, load
from app.evaluation.formats.histories import seconds

Write = Callable[[str, bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file, compressed where its name says so, and tells the folder."""

    def writer(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return tmp_path

    return writer


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def item(name: str, **fields: object) -> dict[str, object]:
    return {"id": name, "title": f"Title {name}", **fields}


ITEMS = lines(*(item(name, categories=["c"]) for name in "abcdef"))
HISTORY = {"user_id": "u", "history": ["a", "b", "c"]}


def histories(data: Dataset) -> dict[str, tuple[str, ...]]:
    return {reader.id: reader.history for reader in data.readers}


# plain


@pytest.mark.parametrize("end", ["", ".gz"])
def test_plain(write: Write, end: str) -> None:
    write(f"items.jsonl{end}", lines(item("a", year=1995, domain="films"), item("b"), item("c")))
    folder = write(f"histories.jsonl{end}", lines({**HISTORY, "profile": "Likes a."}))
    data = load(folder)
    assert data.name == folder.name
    assert [(each.id, each.title, each.domain) for each in data.items] == [
        ("a", "Title a", "films"),
        ("b", "Title b", ""),
        ("c", "Title c", ""),
    ]
    (reader,) = data.readers
    assert (reader.id, reader.history, reader.times) == ("u", ("a", "b", "c"), ())
    assert reader.profile == "Likes a."
    assert not data.skipped.counts
    assert data.checksums == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()
    }


def test_plain_orders_by_time_and_keeps_the_last_event_of_an_item(write: Write) -> None:
    write("items.jsonl", ITEMS)
    row = {
        "user_id": 7,
        "history": ["a", "b", "a", "c"],
        "timestamps": [30, 10, 40, "1970-01-01T00:00:20"],
        "ratings": [1, 2, 3, 4],
    }
    folder = write("histories.jsonl", lines(row))
    (reader,) = load(folder).readers
    assert (reader.id, reader.history, reader.times) == ("7", ("b", "c", "a"), (10, 20, 40))
    (reader,) = load(folder, min_rating=3).readers
    assert (reader.history, reader.times) == (("c", "a"), (20, 40))


def test_plain_impressions_and_rows_that_repeat_a_history(write: Write) -> None:
    write("items.jsonl", ITEMS)
    folder = write(
        "histories.jsonl",
        lines(
            {
                "user_id": "u",
                "history": ["a", "b"],
                "time": "11/13/2019 5:53:12 PM",
                "impression": [["e", 1], ["c", 0], ["gone", 0]],
            },
            {
                "user_id": "u",
                "history": ["a", "b"],
                "time": "11/13/2019 5:53:12 AM",
                "impressions": [[["d", 1], ["c", 0]], [["f", 0]]],
                "candidates": ["c", "gone", "d"],
            },
        ),
    )
    data = load(folder)
    (reader,) = data.readers
    assert reader.history == ("a", "b", "d", "e")
    morning = seconds("2019-11-13T05:53:12Z")
    assert reader.times == (morning, morning, morning, morning + 12 * 3600)
    assert reader.impressions == (
        Impression(("d", "c"), frozenset("d"), 2),
        Impression(("f",), frozenset(), 3),
        Impression(("e", "c"), frozenset("e"), 3),
    )
    assert reader.candidates == ("c", "d")
    assert sum(data.skipped.counts.values()) == 2


# MIND


def news(name: str, entities: str = "[]") -> str:
    cells = [name, "sports", "soccer", f'A "title" {name}', "An abstract", "url", entities, "[]"]
    return "\t".join(cells) + "\n"


def test_mind(write: Write) -> None:
    entities = json.dumps([{"Label": "FIFA", "WikidataId": "Q1"}, {"Label": "FIFA"}])
    write("news.tsv", (news("N1", entities) + "".join(map(news, ["N2", "N3", "N4"]))).encode())
    folder = write(
        "behaviors.tsv",
        b"1\tU1\t11/15/2019 8:00:00 AM\tN1 N2 N9\tN3-0 N4-1\n"
        b"2\tU1\t11/14/2019 8:00:00 AM\tN1 N2 N9\tN3-1 N4-0\n"
        b"3\tU2\t11/11/2019 8:00:00 AM\t\tN3-1\n"
        b"4\tU3\t11/11/2019 9:00:00 AM\tN3\tN1 N2\n",
    )
    write("entity_embedding.vec", b"Q1\t0.5\n")
    data = load(folder)
    first = data.items[0]
    assert (first.title, first.categories) == ('A "title" N1', ("sports", "soccer"))
    assert (first.description, first.keywords, first.domain) == ("An abstract", ("FIFA",), "news")
    assert histories(data) == {
        "U1": ("N1", "N2", "N3", "N4"),
        "U2": ("N3",),
        "U3": ("N3",),
    }
    start = seconds("2019-11-11T08:00:00Z")
    day = 24 * 3600
    assert data.readers[0].times == (start, start, start + 3 * day, start + 4 * day)
    assert [(each.shown, each.seen_before) for each in data.readers[0].impressions] == [
        (("N3", "N4"), 2),
        (("N3", "N4"), 3),
    ]
    assert data.skipped.counts == {
        "event of an item that the catalogue lacks": 2,
        "impression without labels": 1,
    }
    assert data.skipped.first["impression without labels"] == "behaviors.tsv:4"


# Amazon

META_2014 = (
    "{'asin': 'A1', 'title': 'Tom &amp; Jerry\\'s', 'categories': [['Movies', 'Cartoons'], ['TV']],"
    " 'description': 'A <b>cat</b> \\\\d', 'salesRank': {'Movies': 7}, 'brand': 'MGM'}\n"
    "{'asin': 'A2', 'categories': [['Movies']]}\n"
    "{'asin': 'A3', 'title': 'Third', 'categories': [['Movies']]}\n"
)


def review_2014(user: str, asin: str, time: int, rating: float = 5.0) -> dict[str, object]:
    return {
        "reviewerID": user,
        "asin": asin,
        "overall": rating,
        "unixReviewTime": time,
        "helpful": [0, 1],
        "reviewText": "…",
    }


def test_amazon_2014(write: Write) -> None:
    write("meta_Movies_and_TV.json.gz", META_2014.encode())
    folder = write(
        "reviews_Movies_and_TV_5.json.gz",
        lines(
            review_2014("U", "A3", 20),
            review_2014("U", "A1", 10, 2.0),
            review_2014("U", "A2", 30),
        ),
    )
    data = load(folder)
    assert [each.id for each in data.items] == ["A1", "A3"]
    first = data.items[0]
    assert (first.title, first.categories) == ("Tom & Jerry's", ("Movies", "Cartoons"))
    assert (first.description, first.domain) == ("A cat \\d", "Movies and TV")
    assert (first.keywords, first.popularity) == (("MGM",), None)
    assert histories(data) == {"U": ("A1", "A3")}
    assert data.readers[0].times == (10, 20)
    assert set(data.skipped.first.values()) == {
        "meta_Movies_and_TV.json.gz:2",
        "reviews_Movies_and_TV_5.json.gz:3",
    }
    assert histories(load(folder, min_rating=4)) == {"U": ("A3",)}


def test_amazon_2018(write: Write) -> None:
    write(
        "meta_Games.json",
        lines(
            {
                "asin": "A1",
                "title": "One",
                "category": ["Video Games", "PC", "</span></span>"],
                "description": ["First.", "Second."],
                "main_cat": "Games",
            },
            {"asin": "A2", "title": "var x; getTime()", "category": []},
            {"asin": "A3", "title": "Three", "category": [], "description": [], "feature": ["F"]},
        ),
    )
    folder = write(
        "Games.json",
        lines(review_2014("U", "A1", 2), review_2014("U", "A3", 1), {"reviewerID": "U"}),
    )
    data = load(folder)
    assert [(each.categories, each.description) for each in data.items] == [
        (("Video Games", "PC"), "First. Second."),
        ((), "F"),
    ]
    assert histories(data) == {"U": ("A3", "A1")}
    assert data.skipped.counts["a review without user, item or time"] == 1


def test_amazon_2023_and_readers_of_two_categories(write: Write) -> None:
    for category in ("Books", "Video_Games"):
        write(
            f"meta_{category}.jsonl.gz",
            lines(
                {
                    "parent_asin": f"{category}-1",
                    "title": "One",
                    "main_category": "All",
                    "categories": [],
                    "description": [],
                    "features": ["f1", "f2"],
                    "store": "S",
                    "rating_number": 99,
                }
            ),
        )
        folder = write(
            f"{category}.jsonl.gz",
            lines(
                {
                    "user_id": "U",
                    "asin": "variant",
                    "parent_asin": f"{category}-1",
                    "rating": 4.0,
                    "timestamp": 1_588_687_728_923 - len(category),
                    "title": "a headline",
                }
            ),
        )
    data = load(folder)
    assert {each.id: (each.domain, each.categories) for each in data.items} == {
        "Books-1": ("Books", ("All",)),
        "Video_Games-1": ("Video Games", ("All",)),
    }
    assert data.items[0].description == "f1 f2"
    assert data.items[0].popularity is None
    assert histories(data) == {"U": ("Video_Games-1", "Books-1")}
    assert data.readers[0].times[1] == pytest.approx(1_588_687_728.918)


# MovieLens


def test_movielens_csv(write: Write) -> None:
    write(
        "movies.csv",
        b"\xef\xbb\xbfmovieId,title,genres\n"
        b'1,"American President, The (1995)",Comedy|Drama\n'
        b"2,Heat (1995),Drama\r\n"
        b"3,None (2000),(no genres listed)\n",
    )
    write(
        "tags.csv",
        b"userId,movieId,tag,timestamp\n1,1,Politics,5\n2,1,politics ,5\n2,1,a first,5\n",
    )
    write("links.csv", b"movieId,imdbId,tmdbId\n1,2,3\n")
    folder = write(
        "ratings.csv",
        b"userId,movieId,rating,timestamp\n1,2,4.0,20\n1,1,0.5,10\n2,3,5.0,1\n2,9,5.0,2\n2,x\n",
    )
    data = load(folder)
    assert [(each.title, each.categories, each.keywords) for each in data.items] == [
        ("American President, The (1995)", ("Drama", "Comedy"), ("politics", "a first")),
        ("Heat (1995)", ("Drama",), ()),
        ("None (2000)", (), ()),
    ]
    assert histories(data) == {"1": ("1", "2"), "2": ("3",)}
    assert data.skipped.first == {
        "event of an item that the catalogue lacks": "ratings.csv:5",
        "not 4 columns": "ratings.csv:6",
    }
    assert histories(load(folder, min_rating=3.5)) == {"1": ("2",), "2": ("3",)}


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_movielens_dat(write: Write, encoding: str) -> None:
    movies = "1::Cité des enfants perdus, La (1995)::Sci-Fi\n2::Heat (1995)::Action|Crime\n"
    write("movies.dat", movies.encode(encoding))
    folder = write("ratings.dat", b"1::2::5::978300760\n1::1::3::978300761\n")
    data = load(folder)
    assert data.items[0].title == "Cité des enfants perdus, La (1995)"
    assert histories(data) == {"1": ("2", "1")}
    assert data.readers[0].times == (978300760, 978300761)


# detection


def test_files_are_recognised_by_their_rows_where_names_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "catalogue.txt").write_bytes(ITEMS)
    (tmp_path / "people.txt").write_bytes(lines(HISTORY))
    (tmp_path / "notes.txt").write_text("nothing to see\n", encoding="utf-8")
    assert histories(load(tmp_path)) == {"u": ("a", "b", "c")}
    named = [tmp_path / "people.txt", tmp_path / "catalogue.txt"]
    assert histories(load(named)) == {"u": ("a", "b", "c")}
    with pytest.raises(DataError, match=r"notes.txt:1: it looks like none of the formats"):
        load([*named, tmp_path / "notes.txt"])


def test_a_folder_of_two_formats_needs_a_word(write: Write) -> None:
    write("items.jsonl", ITEMS)
    write("histories.jsonl", lines(HISTORY))
    write("movies.dat", b"1::Heat (1995)::Action\n")
    folder = write("ratings.dat", b"1::1::5::978300760\n")
    with pytest.raises(DataError, match="holds plain and movielens; say which"):
        load(folder)
    assert histories(load(folder, Format.MOVIELENS)) == {"1": ("1",)}
    assert histories(load(folder, Format.PLAIN)) == {"u": ("a", "b", "c")}


def test_parts_of_a_data_set_in_two_folders(write: Write) -> None:
    for part, user in (("train", b"U1"), ("dev", b"U2")):
        write(f"{part}/news.tsv", (news("N1") + news(f"N{len(part)}")).encode())
        folder = write(f"{part}/behaviors.tsv", b"1\t" + user + b"\t11/15/2019 8:00:00 AM\tN1\t\n")
    data = load([folder / "train", folder / "dev"])
    assert histories(data) == {"U1": ("N1",), "U2": ("N1",)}
    assert [each.id for each in data.items] == ["N1", "N5", "N3"]
    assert set(data.checksums) == {
        f"{part}/{name}" for part in ("train", "dev") for name in ("news.tsv", "behaviors.tsv")
    }
    assert data.skipped.first == {"item id seen before": "dev/news.tsv:1"}


# bad input


def refused(path: Path | Sequence[Path], format: Format | None = None) -> str:
    with pytest.raises(DataError) as caught:
        load(path, format)
    return str(caught.value)


def test_missing(tmp_path: Path, write: Write) -> None:
    assert "nowhere: no such file or folder; expected" in refused(tmp_path / "nowhere")
    assert "incomplete; found nothing known; expected items.jsonl" in refused(tmp_path)
    folder = write("items.jsonl", ITEMS)
    message = refused(folder)
    assert "found items.jsonl: the plain format (items)" in message
    assert "expected items.jsonl and histories.jsonl (plain)" in message


@pytest.mark.parametrize("content", [b"", b"\n  \n"])
@pytest.mark.parametrize("name", ["histories.jsonl", "histories.jsonl.gz"])
def test_empty(write: Write, name: str, content: bytes) -> None:
    write("items.jsonl", ITEMS)
    message = refused(write(name, content))
    assert message.startswith(f"{name}:1: the file is empty; expected a reader per line")


def test_cut_off(write: Write) -> None:
    many = lines(*({"user_id": str(n), "history": ["a", "b"]} for n in range(5_000)))
    write("items.jsonl", ITEMS)
    folder = write("histories.jsonl.gz", many)
    file = folder / "histories.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-2_000])
    message = refused(folder)
    place, _, rest = message.partition(": ")
    assert int(place.removeprefix("histories.jsonl.gz:")) > 100
    assert rest.startswith("the gzip file ends in the middle; expected all of it: a reader per")


def test_damaged(write: Write) -> None:
    write("items.jsonl", ITEMS)
    folder = write("histories.jsonl.gz", lines(HISTORY))
    file = folder / "histories.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    assert "the gzip file is damaged" in refused(folder)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("items.jsonl", ITEMS + '{"id": "é", "title": "t"}'.encode("latin-1"), 7),
        ("items.jsonl", ITEMS.decode().encode("utf-16"), 1),
        ("movies.csv", "movieId,title,genres\n1,Cité,Drama\n".encode("latin-1"), 2),
        ("news.tsv", (news("N1") + news("Né")).encode("latin-1"), 2),
    ],
)
def test_another_encoding(write: Write, name: str, content: bytes, line: int) -> None:
    write("histories.jsonl", lines(HISTORY))
    write("ratings.csv", b"userId,movieId,rating,timestamp\n1,1,4.0,20\n")
    write("behaviors.tsv", b"1\tU\t11/15/2019 8:00:00 AM\tN1\t\n")
    message = refused(write(name, content))
    assert message.startswith(f"{name}:{line}: ")
    assert "UTF-" in message
    assert "; expected " in message
    assert message.endswith(", in UTF-8.")


@pytest.mark.parametrize(
    ("name", "content", "line", "looks"),
    [
        ("items.jsonl", news("N1").encode(), 1, "MIND (items)"),
        ("items.jsonl", META_2014.encode(), 1, "Amazon reviews (items)"),
        ("items.jsonl", b"\x89PNG\r\n" + bytes(500), 1, None),
        ("histories.jsonl", ITEMS, 1, "the plain format (items)"),
        ("histories.jsonl", b"1::2::5::978300760\n", 1, "MovieLens (events)"),
        ("news.tsv", ITEMS, 1, "the plain format (items)"),
        ("behaviors.tsv", news("N1").encode(), 1, "MIND (items)"),
        ("movies.csv", b"1::Heat (1995)::Action\n", 1, "MovieLens (items)"),
        ("ratings.csv", b"userId,movieId,tag,timestamp\n1,2,x,3\n", 1, "MovieLens (tags)"),
        ("ratings.dat", lines(HISTORY), 1, "the plain format (events)"),
        ("meta_X.json", b"\n" + lines({"reviewerID": "U", "asin": "A"})[:-3], 2, None),
        ("reviews_X.json", lines(HISTORY), 1, "the plain format (events)"),
    ],
)
def test_another_format(
    write: Write, name: str, content: bytes, line: int, looks: str | None
) -> None:
    valid = {
        "items.jsonl": ITEMS,
        "histories.jsonl": lines(HISTORY),
        "news.tsv": news("N1").encode(),
        "behaviors.tsv": b"1\tU\t11/15/2019 8:00:00 AM\tN1\t\n",
        "movies.csv": b"movieId,title,genres\n1,Heat,Drama\n",
        "ratings.csv": b"userId,movieId,rating,timestamp\n1,1,4.0,20\n",
        "movies.dat": b"1::Heat::Drama\n",
        "ratings.dat": b"1::1::5::978300760\n",
        "meta_X.json": META_2014.encode(),
        "reviews_X.json": lines(review_2014("U", "A1", 1)),
    }
    pair = next(
        {one, other}
        for one, other in zip(list(valid)[::2], list(valid)[1::2], strict=True)
        if name in {one, other}
    )
    for each in pair - {name}:
        write(each, valid[each])
    message = refused(write(name, content))
    assert message.startswith(f"{name}:{line}: ")
    assert "; expected " in message
    assert message.endswith(f" It looks like {looks}." if looks else ".")


def test_a_named_file_of_another_format(write: Write) -> None:
    folder = write("news.tsv", news("N1").encode())
    message = refused([folder / "news.tsv"], Format.PLAIN)
    assert "news.tsv:1: it looks like MIND (items); expected plain: items.jsonl" in message


def test_rows_that_make_no_sense_are_counted(write: Write) -> None:
    write(
        "items.jsonl",
        ITEMS
        + b'{"id": "g"}\n{"id": "h", "title": " "}\n[1]\nno json\n'
        + lines(item("a"), item("i", categories="not a list")),
    )
    folder = write(
        "histories.jsonl",
        lines(
            HISTORY,
            {"user_id": "empty", "history": []},
            {"user_id": "stranger", "history": ["x", "y"]},
            {"user_id": "v", "history": ["a", "x"]},
            {"history": ["a"]},
            {"user_id": "w", "history": "a"},
            {"user_id": "w", "history": ["a"], "impression": [["a", 0], ["b", 0.5]]},
            {"user_id": "w", "history": ["a"], "impression": [["a", None], ["b", 0]]},
            {"user_id": "w", "history": ["a", "b"], "timestamps": [1]},
            {"user_id": "w", "history": ["a"], "timestamps": ["soon"]},
        )
        + b'{"user_id": "w", "hist',
    )
    data = load(folder)
    assert histories(data) == {"u": ("a", "b", "c"), "v": ("a",)}
    assert len(data.items) == 6
    nobody = "reader without any event of an item in the catalogue"
    unknown = "event of an item that the catalogue lacks"
    assert (data.skipped.counts[nobody], data.skipped.first[nobody]) == (2, "histories.jsonl:2")
    assert (data.skipped.counts[unknown], data.skipped.first[unknown]) == (3, "histories.jsonl:3")
    first = data.skipped.first
    assert first["no item: title: Field required"] == "items.jsonl:7"
    assert first["not JSON"] == "items.jsonl:10"
    assert first["item id seen before"] == "items.jsonl:11"
    assert first["not as many timestamps as events in history"] == "histories.jsonl:9"
    assert data.skipped.counts["not JSON"] == 2
    labels = "at `$.impression[…][…]`"
    assert [reason for reason in first if reason.endswith(labels)] == [
        f"Expected `int`, got `float` - {labels}",
        f"Expected `int`, got `null` - {labels}",
    ]
    assert sum(data.skipped.counts.values()) == 5 + 1 + 2 + 3 + 7


def test_nothing_left_says_why(write: Write) -> None:
    write("items.jsonl", ITEMS)
    message = refused(write("histories.jsonl", lines({"user_id": "u", "history": ["x"]})))
    assert message.startswith(
        "histories.jsonl: expected an event of one of the items, found none: 1 ×"
    )
    assert "first at histories.jsonl:1" in message


def test_progress_counts_the_bytes_of_the_files(write: Write) -> None:
    write("items.jsonl", ITEMS)
    many = lines(*({"user_id": str(n), "history": ["a"] * 50} for n in range(10_000)))
    folder = write("histories.jsonl", many)
    told: list[tuple[int, int]] = []
    load(folder, on_progress=lambda done, total: told.append((done, total)))
    size = len(ITEMS) + len(many)
    assert told[-1] == (size, size)
    assert len(told) > 2
    assert told == sorted(told)


def test_hostile_rows_do_no_harm(write: Write) -> None:
    write("meta_X.json", META_2014.encode() + b"{'asin': " + b"[" * 5_000 + b"\n{'asin': f()}\n")
    write("items.jsonl", ITEMS + b'{"id": ' + b"[" * 100_000 + b"\n")
    write("histories.jsonl", lines(HISTORY, {"user_id": "w", "history": ["a"], "time": 1e308}))
    folder = write("reviews_X.json", lines(review_2014("U", "A1", 1)))
    assert len(load(folder, Format.AMAZON).items) == 2
    assert len(load(folder, Format.PLAIN).items) == 6


def test_a_quote_that_never_ends(write: Write, tmp_path: Path) -> None:
    with (tmp_path / "movies.csv").open("w", encoding="utf-8") as file:
        csv.writer(file).writerows([["movieId", "title", "genres"], ["1", "Heat", "Drama"]])
        file.write('2,"' + "x" * 200_000 + "\n")
    write("ratings.csv", b"userId,movieId,rating,timestamp\n1,1,4.0,20\n")
    assert "movies.csv:3: field larger than field limit" in refused(tmp_path)
