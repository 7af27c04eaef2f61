"""Which texts can be the line of an item, and how an item keeps its line."""

import pytest

from tree.item import Item
from tree.item_line import InvalidLine, ItemLine, line_text

BOOTS = Item(id="b", title="Boots", description="of leather", categories=("Shoes", "Men"))


@pytest.mark.parametrize(
    "given",
    [
        "For long walks in rain; goes with wool socks.",
        "Für lange Wanderungen",
        "雨の日の散歩に",
        "Screws of 3 < 5 mm & nuts, 2 * 4 pieces",
        "A film (1995) about friendship - for families",
        "x" * 400,
    ],
)
def test_plain_text_is_a_line(given):
    assert line_text(f"  {given}\n") == given


def test_a_line_is_stored_in_one_form_of_unicode():
    assert line_text("Fu\u0308r alle") == "F\u00fcr alle"


@pytest.mark.parametrize(
    ("given", "flaw"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("x" * 401, "401 characters"),
        ("x" * 10_000, "10,000 characters"),
        ("a\nb", "line breaks"),
        ("a\x00b", "line breaks"),
        ("a\u2028b", "line breaks"),
        ("a\ud800b", "line breaks"),
        ("a\u202eb", "direction"),
        ("<b>Boots</b>", "markup"),
        ("Boots <img src=x>", "markup"),
        ("Boots &amp; socks", "markup"),
        ("[Boots](http://example.com)", "markup"),
        ("**Boots** for rain", "markup"),
        ("```Boots```", "markup"),
        ("# Boots", "markup"),
        ("- Boots", "markup"),
        ("1. Boots", "markup"),
        ("12345 !?", "letters"),
    ],
)
def test_other_text_is_not(given, flaw):
    with pytest.raises(InvalidLine, match=flaw):
        line_text(given)


def test_a_record_keeps_the_line_and_an_item_without_one_is_stored_as_before():
    assert Item.stored(BOOTS.record()) == BOOTS
    assert b"enrichment" not in BOOTS.record()
    told = BOOTS.with_line(ItemLine('For "walks"', "model", BOOTS.content_digest))
    assert Item.stored(told.record()) == told
    assert told.content() == BOOTS.content() == BOOTS.record()
    assert (told.passage.line, BOOTS.passage.line) == ('For "walks"', "")
    assert told.with_line(None) == BOOTS != told


def test_an_attribute_may_have_the_name_of_the_line():
    odd = BOOTS.model_copy(update={"attributes": {"enrichment": "x", "z": '"enrichment":{}'}})
    assert Item.stored(odd.record()) == odd
    assert Item.stored(odd.with_line(ItemLine("For walks")).record()).line == ItemLine("For walks")


def test_a_damaged_line_is_a_damaged_record():
    with pytest.raises(ValueError, match="enrichment"):
        Item.stored(BOOTS.record()[:-1] + b',"enrichment":{"text":5}}')


def test_a_line_of_a_model_leaves_with_the_content_that_it_is_about():
    model = BOOTS.with_line(ItemLine("For walks", "model", BOOTS.content_digest))
    owner = BOOTS.with_line(ItemLine("For walks"))
    dearer = Item.stored(BOOTS.record()).model_copy(update={"attributes": {"price": 5}})
    other = BOOTS.model_copy(update={"title": "Shoes"})
    assert dearer.keeping_line_of(model).line == model.line
    assert other.keeping_line_of(model).line is None
    assert other.keeping_line_of(owner).line == owner.line
    assert model.keeping_line_of(owner).line == model.line
    assert other.keeping_line_of(None) is other
