"""Items as lines of a prompt."""

from app.recommend.prompt_lines import item_line
from prompts import LINE_CHARS
from tree.item import Item
from tree.item_line import ItemLine

LINE = ItemLine("A film about toys that come alive when nobody looks; for families.")


def shown(**fields: object) -> tuple[str, str]:
    """The line of an item, without and with a line of its own."""
    item = Item.model_validate({"id": "a", "title": "Toy Story", **fields})
    return item_line(item), item_line(item.with_line(LINE))


def test_what_an_item_is_follows_a_title_that_nothing_else_explains():
    assert shown() == ("Toy Story", f"Toy Story — {LINE.text}")
    described = shown(description="In a world where toys are living things, a cowboy doll")
    assert described[0].startswith("Toy Story — In a world")
    assert described[1] == f"Toy Story — {LINE.text}"


def test_other_titles_are_shown_as_without_a_line():
    for fields in ({"keywords": ["toys"]}, {"title": "A long title of a film about many toys"}):
        without, with_line = shown(**fields)
        assert without == with_line


def test_no_line_of_a_prompt_is_too_long():
    long = Item(id="a", title="Toy").with_line(ItemLine("word " * 79))
    assert len(item_line(long)) <= LINE_CHARS
