"""Catalogues of any size, made from a given one, to measure what grows with the catalogue."""

import random
from collections.abc import Sequence

from tree.item import Item


def resized(
    items: Sequence[Item], size: int, *, seed: int = 0, first: Sequence[str] = ()
) -> list[Item]:
    """`size` items: a seeded sample, or all items and as many made-up ones as are missing.

    With one seed, a smaller catalogue is part of every larger one. The ids `first` are taken
    before the sample is drawn, so that users keep a history in small catalogues.

    A made-up item is a copy of one item; the second half of its title comes from another item of
    the same broadest category. So the length of lines and the frequency of words stay about the
    same. Returns no items for no items.
    """
    if size <= len(items) or not items:
        return [items[at] for at in sorted(_order(items, first, seed)[:size])]
    draw = random.Random(f"{seed}/made-up")
    by_category: dict[str, list[int]] = {}
    for at, item in enumerate(items):
        by_category.setdefault(item.categories[0] if item.categories else "", []).append(at)
    made = []
    for number in range(size - len(items)):
        one = items[draw.randrange(len(items))]
        similar = by_category[one.categories[0] if one.categories else ""]
        words, others = one.title.split(), items[draw.choice(similar)].title.split()
        title = " ".join([*words[: (len(words) + 1) // 2], *others[len(others) // 2 :]])
        made.append(one.model_copy(update={"id": f"made-up/{number}", "title": title[:1_000]}))
    return [*items, *made]


def _order(items: Sequence[Item], first: Sequence[str], seed: int) -> list[int]:
    """The positions of the items, in the order in which they are taken."""
    row = {item.id: at for at, item in enumerate(items)}
    rest = list(range(len(items)))
    random.Random(f"{seed}/sample").shuffle(rest)
    return list(dict.fromkeys([*(row[id_] for id_ in first if id_ in row), *rest]))
