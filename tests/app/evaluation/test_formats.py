"""Every format, in small files of our own making."""

import hashlib
import json
from pathlib import Path

import pytest

from app.data_files import seconds
from app.evaluation.dataset import DataError, Impression
from app.evaluation.formats import DataFormat, load
from tests.app.evaluation.support import (
    HISTORY,
    ITEMS,
    META_2014,
    Write,
    histories,
    item,
    lines,
    news,
    review_2014,
)

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
    (user,) = data.users
    assert (user.id, user.history, user.times) == ("u", ("a", "b", "c"), ())
    assert user.profile == "Likes a."
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
    (user,) = load(folder).users
    assert (user.id, user.history, user.times) == ("7", ("b", "c", "a"), (10, 20, 40))
    (user,) = load(folder, min_rating=3).users
    assert (user.history, user.times) == (("c", "a"), (20, 40))


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
    (user,) = data.users
    assert user.history == ("a", "b", "d", "e")
    morning = seconds("2019-11-13T05:53:12Z")
    month = 30 * 86_400  # by which a history without times is dated back
    assert user.times == (morning - month, morning, morning, morning + 12 * 3600)
    assert user.impressions == (
        Impression(("d", "c"), frozenset("d"), 2),
        Impression(("f",), frozenset(), 3),
        Impression(("e", "c"), frozenset("e"), 3),
    )
    assert user.candidates == ("c", "d")
    assert sum(data.skipped.counts.values()) == 2


def test_plain_events_of_a_table(write: Write) -> None:
    write("items.jsonl", lines(item("1"), item("2"), item("3")))
    folder = write(
        "events.csv",
        b"User ID;Product-ID;Date;rating\nu;2;2020-01-02;5\nu;1;2020-01-01;3\nu;9;2020-01-01;3\n"
        b"v;3;1577836800000;1\nv;3;1577836800000000;1\n",
    )
    data = load(folder)
    assert histories(data) == {"u": ("1", "2"), "v": ("3",)}
    assert data.users[1].times == (seconds("2020-01-01"),)
    assert data.skipped.first == {
        "event of an item that the catalogue lacks": "events.csv:4",
        "at: microseconds or a smaller unit: expected seconds or milliseconds since 1970, or ISO "
        "8601": "events.csv:6",
    }
    assert histories(load(folder, min_rating=4)) == {"u": ("2",)}


# MIND


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
    assert data.users[0].times == (start, start, start + 3 * day, start + 4 * day)
    assert [(each.shown, each.seen_before) for each in data.users[0].impressions] == [
        (("N3", "N4"), 2),
        (("N3", "N4"), 3),
    ]
    assert data.skipped.counts == {
        "event of an item that the catalogue lacks": 2,
        "impression without labels": 1,
    }
    assert data.skipped.first["impression without labels"] == "behaviors.tsv:4"


# Amazon


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
    assert list(data.users[0].times) == [10, 20]
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
    assert data.skipped.counts["item_id: missing"] == 1


def test_amazon_2023_and_users_of_two_categories(write: Write) -> None:
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
    assert data.users[0].times[1] == pytest.approx(1_588_687_728.918)


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
    write("users.dat", b"1::F::1::10::48067\n2::M::56::16::70072\n")
    folder = write("ratings.dat", b"1::2::5::978300760\n1::1::3::978300761\n")
    data = load(folder)
    assert data.items[0].title == "Cité des enfants perdus, La (1995)"
    assert histories(data) == {"1": ("2", "1")}
    assert data.users[0].times == (978300760, 978300761)


def test_movielens_columns_in_another_order(write: Write) -> None:
    write("movies.csv", b"title,movieId,year,genres\nHeat (1995),2,1995,Drama\n")
    folder = write("ratings.csv", b"timestamp,user,movieId,rating,note\n20,1,2,4.0,x\n")
    data = load(folder)
    assert (data.items[0].title, histories(data)) == ("Heat (1995)", {"1": ("2",)})
    assert data.users[0].times == (20,)


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


def test_a_folder_of_two_formats_is_refused(write: Write) -> None:
    write("items.jsonl", ITEMS)
    write("histories.jsonl", lines(HISTORY))
    write("movies.dat", b"1::Heat (1995)::Action\n")
    folder = write("ratings.dat", b"1::1::5::978300760\n")
    with pytest.raises(DataError, match="holds plain and movielens; say which"):
        load(folder)
    assert histories(load(folder, DataFormat.MOVIELENS)) == {"1": ("1",)}
    assert histories(load(folder, DataFormat.PLAIN)) == {"u": ("a", "b", "c")}


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
