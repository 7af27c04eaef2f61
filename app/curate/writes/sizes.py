"""How much work a write is."""

from collections.abc import Sequence

from tree.item import Item

COMMIT_ITEMS = 1_000  # the most that one caller brings into one commit
SMALL_ITEMS = 8  # the most that are planned on the event loop: more would hold it up
_SMALL_CHARS = 8_000  # of their texts: more would take longer than 12 ms to encode


def have_long_texts(items: Sequence[Item]) -> bool:
    """Whether to encode the texts of these items would hold up the event loop."""
    return sum(len(item.text) for item in items) > _SMALL_CHARS
