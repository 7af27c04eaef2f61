"""What is no data set: which file, which line, and what was expected there."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from app.evaluation.dataset import DataError
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


def refused(path: Path | Sequence[Path], format: DataFormat | None = None) -> str:
    with pytest.raises(DataError) as caught:
        load(path, format)
    return str(caught.value)


def test_missing(tmp_path: Path, write: Write) -> None:
    assert "nowhere: no such file or folder; expected" in refused(tmp_path / "nowhere")
    assert "incomplete; found nothing known; expected items.jsonl" in refused(tmp_path)
    folder = write("items.jsonl", ITEMS)
    message = refused(folder)
    assert "found items.jsonl: the plain format (items)" in message
    assert "expected items.jsonl and histories.jsonl or events" in message


@pytest.mark.parametrize("content", [b"", b"\n  \n"])
@pytest.mark.parametrize("name", ["histories.jsonl", "histories.jsonl.gz"])
def test_empty(write: Write, name: str, content: bytes) -> None:
    write("items.jsonl", ITEMS)
    message = refused(write(name, content))
    assert message.startswith(f"{name}:1: the file is empty; expected a user per line")


def test_cut_off(write: Write) -> None:
    many = lines(*({"user_id": str(n), "history": ["a", "b"]} for n in range(5_000)))
    write("items.jsonl", ITEMS)
    folder = write("histories.jsonl.gz", many)
    file = folder / "histories.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-2_000])
    message = refused(folder)
    place, _, rest = message.partition(": ")
    assert int(place.removeprefix("histories.jsonl.gz:")) > 100
    assert rest.startswith("the gzip file ends in the middle; expected all of it: a user per")


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
        ("histories.jsonl", news("N1").encode(), 1, "MIND (items)"),
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
    message = refused([folder / "news.tsv"], DataFormat.PLAIN)
    assert "news.tsv:1: it looks like MIND (items); expected plain: items.jsonl" in message


def test_rows_malformed_are_counted(write: Write) -> None:
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
    no_event = "user with no event of an item in the catalogue"
    unknown = "event of an item that the catalogue lacks"
    assert (data.skipped.counts[no_event], data.skipped.first[no_event]) == (2, "histories.jsonl:2")
    assert (data.skipped.counts[unknown], data.skipped.first[unknown]) == (3, "histories.jsonl:3")
    first = data.skipped.first
    assert first["invalid item: title: Field required"] == "items.jsonl:7"
    assert first["not JSON"] == "items.jsonl:10"
    assert first["item id seen before"] == "items.jsonl:11"
    assert first["the number of timestamps is not that of events in history"] == "histories.jsonl:9"
    assert data.skipped.counts["not JSON"] == 2
    labels = "at `$.impression[…][…]`"
    assert [reason for reason in first if reason.endswith(labels)] == [
        f"Expected `int`, got `float` - {labels}",
        f"Expected `int`, got `null` - {labels}",
    ]
    assert sum(data.skipped.counts.values()) == 5 + 1 + 2 + 3 + 7


def test_an_empty_data_set_gives_the_reasons(write: Write) -> None:
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
    reports: list[tuple[int, int]] = []
    load(folder, on_progress=lambda done, total: reports.append((done, total)))
    size = len(ITEMS) + len(many)
    assert reports[-1] == (size, size)
    assert len(reports) > 2
    assert reports == sorted(reports)


def test_hostile_rows_are_harmless(write: Write) -> None:
    write("meta_X.json", META_2014.encode() + b"{'asin': " + b"[" * 5_000 + b"\n{'asin': f()}\n")
    write("items.jsonl", ITEMS + b'{"id": ' + b"[" * 100_000 + b"\n")
    write("histories.jsonl", lines(HISTORY, {"user_id": "w", "history": ["a"], "time": 1e308}))
    folder = write("reviews_X.json", lines(review_2014("U", "A1", 1)))
    assert len(load(folder, DataFormat.AMAZON).items) == 2
    assert len(load(folder, DataFormat.PLAIN).items) == 6


def test_an_open_quote_costs_its_own_row(write: Write) -> None:
    write(
        "movies.csv",
        b'movieId,title,genres\n1,"Heat, The",Drama\n2,"Never closed,Drama\n'
        b'3,"In two\nlines",Drama\n4,Last,Drama\n5,"Too" late,Drama\n6,"' + b"x" * 200_000 + b"\n",
    )
    ratings = b"userId,movieId,rating,timestamp\n1,1,4.0,20\n1,4,4.0,30\n"
    data = load(write("ratings.csv", ratings))
    assert [each.title for each in data.items] == ["Heat, The", "Last"]
    quote = "a quote that is not closed in its line, or has text after it"
    assert data.skipped.counts == {
        quote: 3,
        "not 3 columns": 1,
        "longer than 131,072 characters": 1,
    }
    assert data.skipped.first[quote] == "movies.csv:3"
