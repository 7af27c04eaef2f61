"""Catalogues of any size that look like a given one, to see what grows with the catalogue."""

import random
from collections.abc import Sequence

from tree.item import Item


def resized(
    items: Sequence[Item], size: int, *, seed: int = 0, first: Sequence[str] = ()
) -> list[Item]:
    """A seeded sample of the items, or the items and as many made-up ones as are missing.

    With one seed a smaller catalogue is a part of every larger one. The ids `first` are taken
    before any are drawn, so that readers keep a history in small samples: these hold what was read
    more often than a plain sample would.

    A made-up item has the first half of the title of one item and the second half of that of
    another with the same broadest category, and the rest of the first: so lines stay about as
    long, and words as frequent, as they are. Of nothing nothing is made.
    """
    if size <= len(items) or not items:
        return [items[at] for at in sorted(_order(items, first, seed)[:size])]
    draw = random.Random(f"{seed}/made-up")
    shelves: dict[str, list[int]] = {}
    for at, item in enumerate(items):
        shelves.setdefault(item.categories[0] if item.categories else "", []).append(at)
    made = []
    for number in range(size - len(items)):
        one = items[draw.randrange(len(items))]
        shelf = shelves[one.categories[0] if one.categories else ""]
        words, others = one.title.split(), items[draw.choice(shelf)].title.split()
        title = " ".join([*words[: (len(words) + 1) // 2], *others[len(others) // 2 :]])
        made.append(one.model_copy(update={"id": f"made-up/{number}", "title": title[:1_000]}))
    return [*items, *made]


def _order(items: Sequence[Item], first: Sequence[str], seed: int) -> list[int]:
    """In which order items are taken."""
    row = {item.id: at for at, item in enumerate(items)}
    rest = list(range(len(items)))
    random.Random(f"{seed}/sample").shuffle(rest)
    return list(dict.fromkeys([*(row[id_] for id_ in first if id_ in row), *rest]))
