"""Catalogues of any size that look like a given one, to see what grows with the catalogue."""

import random
from collections.abc import Sequence

from tree.item import Item


def resized(items: Sequence[Item], size: int, *, seed: int = 0) -> list[Item]:
    """A seeded sample of the items, or the items and as many made-up ones as are missing.

    A made-up item has the first half of the title of one item and the second half of that of
    another with the same broadest category, and the rest of the first: so lines stay about as
    long, and words as frequent, as they are.
    """
    draw = random.Random(f"{seed}/{size}")
    if size <= len(items):
        kept = sorted(draw.sample(range(len(items)), size))
        return [items[at] for at in kept]
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
