"""`History`: the past of a user as prompts show it."""

import msgspec

from prompts import LINE_CHARS, both_ends, numbered, one_line, phrase

_CATEGORY_CHARS = 80
_WISH_CHARS = 500


class History(msgspec.Struct, frozen=True):
    """The latest choices, latest first, the categories before them, and the wishes in words.

    `disliked` are the titles that the user disliked last; it is unset where there are none, so that
    seeds and names of stored documents are those of a history without them.
    """

    choices: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    wishes: tuple[str, ...] = ()
    disliked: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET

    def lines(self) -> str:
        """One numbered line per choice, one for the categories, and one for dislikes."""
        lines = [phrase("nothing")]
        if self.choices:
            lines = [numbered([both_ends(title) for title in self.choices], LINE_CHARS)]
            if self.categories:
                before = "; ".join(one_line(name, _CATEGORY_CHARS) for name in self.categories)
                lines.append(phrase("categories_before", categories=before))
        if self.dislikes:
            titles = "; ".join(both_ends(title) for title in self.dislikes)
            lines.append(phrase("need_disliked", titles=titles))
        return "\n".join(lines)

    @property
    def dislikes(self) -> tuple[str, ...]:
        """The titles that the user disliked last, the latest first."""
        return self.disliked or ()

    def wish(self) -> str:
        """One line per wish."""
        lines = [one_line(wish, _WISH_CHARS) for wish in self.wishes]
        return "\n".join(f"- {line}" for line in lines) or phrase("nothing")

    @property
    def is_empty(self) -> bool:
        return not self.choices and not self.wishes
