"""What an item may be."""

import json
import sys
import time
import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tree.item import Item, normalise

BARE = {"id": "x", "title": "Title"}

BAD: dict[str, dict[str, object]] = {
    "no id": {"id": None},
    "empty id": {"id": ""},
    "blank id": {"id": " \t"},
    "long id": {"id": "x" * 257},
    "id with a null byte": {"id": "a\x00b"},
    "a number as id": {"id": 5},
    "no title": {"title": None},
    "blank title": {"title": "   "},
    "long title": {"title": "x" * 1_001},
    "a number as title": {"title": 5},
    "a null byte in the description": {"description": "a\x00"},
    "long description": {"description": "x" * 20_001},
    "categories as one text": {"categories": "Games"},
    "a blank category": {"categories": ["Games", " "]},
    "a number as category": {"categories": [5]},
    "17 categories": {"categories": [str(n) for n in range(17)]},
    "65 keywords": {"keywords": [str(n) for n in range(65)]},
    "an unknown field": {"colour": "red"},
    "an attribute as object": {"attributes": {"a": {}}},
    "an attribute as list of numbers": {"attributes": {"a": [1]}},
    "a long attribute": {"attributes": {"a": "x" * 2_001}},
    "a long attribute in a list": {"attributes": {"a": ["x", "x" * 2_001]}},
    "a blank attribute name": {"attributes": {" ": 1}},
    "65 attributes": {"attributes": {str(n): 1 for n in range(65)}},
    "negative popularity": {"popularity": -1},
    "popularity as text": {"popularity": "7"},
    "a time without a zone": {"expires_at": "2026-01-01T00:00:00"},
    "no time": {"expires_at": "tomorrow"},
    "hidden as text": {"hidden": "yes"},
    "hidden as number": {"hidden": 1},
}


@pytest.mark.parametrize("fields", BAD.values(), ids=BAD)
def test_bad_items_are_refused(fields):
    with pytest.raises(ValidationError):
        Item.model_validate_json(json.dumps(BARE | fields))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
@pytest.mark.parametrize("field", ['"popularity": {}', '"attributes": {{"a": {}}}'])
def test_numbers_must_be_finite(field, number):
    with pytest.raises(ValidationError):
        Item.model_validate_json('{"id": "x", "title": "t", ' + field.format(number) + "}")


def test_half_a_character_is_refused():
    with pytest.raises(ValidationError):
        Item(id="x", title="\ud83d")
    with pytest.raises(ValidationError):
        Item.model_validate_json('{"id": "x", "title": "\\ud83d"}')


def test_null_means_absent():
    nothing = {field: None for field in Item.model_fields if field not in BARE}
    assert Item.model_validate_json(json.dumps(BARE | nothing)) == Item.model_validate(BARE)


def test_an_item_comes_back_from_its_record():
    item = Item(
        id="a/b \U0001f600",
        title=" Zelda ",
        description="A\nlong story",
        categories=("Games", "Nintendo DS"),
        keywords=("kart",),
        domain="games",
        attributes={"players": 4, "price": 9.5, "used": True, "tags": ("a", "b"), "by": "N"},
        image_url="https://example.org/x.png",
        popularity=12.0,
        published_at=datetime(2026, 1, 1, tzinfo=UTC),
        expires_at=datetime(2027, 1, 1, tzinfo=UTC),
        hidden=True,
    )
    assert item.title == "Zelda"
    assert Item.model_validate_json(item.record()) == item


def test_a_record_holds_no_defaults():
    assert json.loads(Item.model_validate(BARE).record()) == BARE


def test_items_do_not_change():
    with pytest.raises(ValidationError):
        Item.model_validate(BARE).title = "Other"  # type: ignore[misc]


def test_the_text_is_what_is_said_of_it():
    item = Item(id="x", title="T", categories=("C",), keywords=("K",), description="D")
    assert item.text == "T C K D"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("News", "news"),
        ("Ｎｅｗｓ", "news"),
        ("  Video   Games\n", "video games"),
        ("Straße", "STRASSE"),
        ("Ame\u0301lie", "AMÉLIE"),
        ("ﬁlm", "film"),
        ("a\u00a0b\u3000c", "A B C"),
    ],
)
def test_names_that_mean_the_same_are_the_same(one, other):
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(("one", "other"), [("C", "C++"), ("Pop", "K-Pop"), ("a b", "ab")])
def test_names_that_differ_stay_apart(one, other):
    assert normalise(one) != normalise(other)


@given(st.text(max_size=200))
def test_names_are_folded_by_unicode(name):
    wanted = unicodedata.normalize("NFKC", name).casefold().split()
    assert normalise(name) == " ".join(wanted)


@pytest.mark.parametrize(
    "marks", ["\u0301\u0316", "\uff9e\u0301", "\u0f73\u0f71", "\U0001e944\u0316"]
)
@pytest.mark.parametrize("before", ["a", "", "日本語" * 100])
def test_marks_without_end_take_no_time(marks, before):
    name = before + "".join(mark * 10_000 for mark in marks)
    began = time.thread_time()
    folded = normalise(name)
    assert time.thread_time() - began < 0.1
    assert folded == normalise(before + marks[0] * 30)
    assert normalise(name + " Ｂ") == f"{folded} b"


def test_as_many_marks_as_text_may_have_are_kept():
    name = "日本語" * 10 + "q" + "\u0301" * 15 + "\u0316" * 15
    assert normalise(name) == unicodedata.normalize("NFKC", name)


def test_all_marks_are_known():
    beyond = map(chr, range(0x20000, sys.maxunicode + 1))
    assert not any(unicodedata.combining(unicodedata.normalize("NFKD", c)[0]) for c in beyond)


def test_records_of_earlier_releases_are_read():
    long = {"attributes": {"a": ["x" * 60_000]}}
    record = json.dumps(BARE | long).encode()
    assert Item.stored(record).attributes == {"a": ("x" * 60_000,)}


def test_the_key_is_domain_and_path():
    assert Item.model_validate(BARE).key == ("",)
    item = Item(id="x", title="t", domain=" Shop ", categories=("A", "b", "A"))
    assert item.key == ("shop", "a", "b", "a")
