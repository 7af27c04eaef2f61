"""Items and branches as lines of a prompt, short but distinct."""

from collections.abc import Sequence

from prompts import LINE_CHARS, both_ends, one_line, phrase
from tree.item import Item
from tree.node import Node

_FILL = 52  # a shorter title is extended with other fields to about this length
_BRANCH_LEVELS = 2
_BRANCH_CHARS = 56
_EXEMPLARS = " — e.g. "
_DASH = " — "


def item_line(item: Item) -> str:
    """The title; after a short one, those keywords and categories that fit.

    Without any, what the item is in plain words, or how its description begins.
    """
    title = both_ends(item.title)
    room = _FILL - len(title)
    extra: list[str] = []
    for words in (*item.keywords[:3], *item.categories[-1:]):
        if len(words) + 2 <= room and words.casefold() not in title.casefold():
            extra.append(words)
            room -= len(words) + 2
    if not extra and room > _FILL // 3:
        if item.line is not None:
            extra = [one_line(item.line.text, LINE_CHARS - len(title) - len(_DASH))]
        elif item.description:
            extra = [one_line(item.description, room)]
    return f"{title}{_DASH}{', '.join(extra)}" if extra else title


def branch_line(path: Sequence[Node]) -> str:
    """The last labels of a branch's path, and the words that tell it from its siblings."""
    names = " › ".join(node.label for node in path[-_BRANCH_LEVELS:])
    terms = path[-1].signpost.split(_EXEMPLARS)[0] if path else ""
    return one_line(f"{names}: {terms}" if terms else names, _BRANCH_CHARS)


def need_lines(
    interests: Sequence[tuple[str, float]],
    recent: Sequence[str],
    wishes: Sequence[str],
    avoid: Sequence[str],
    disliked: Sequence[str] = (),
) -> str:
    """The description of a person that comes last in every prompt."""
    lines = []
    if interests:
        numbered = (
            f"{number}. {one_line(name, 80)} ({round(100 * weight)} %)"
            for number, (name, weight) in enumerate(interests, 1)
        )
        lines.append(phrase("need_interests", interests="\n".join(numbered)))
    if recent:
        titles = "\n".join(f"- {both_ends(title)}" for title in recent)
        lines.append(phrase("need_recent", titles=titles))
    if disliked:
        titles = "; ".join(both_ends(title) for title in disliked)
        lines.append(phrase("need_disliked", titles=titles))
    lines += [phrase("need_wish", wish=one_line(wish, 500)) for wish in wishes]
    if avoid:
        lines.append(phrase("need_avoid", avoid="; ".join(one_line(word, 80) for word in avoid)))
    return "\n".join(lines) or phrase("need_unknown")
