"""`History`: the past of a user as prompts show it."""

import msgspec

from prompts import LINE_CHARS, both_ends, numbered, one_line, phrase

_CATEGORY_CHARS = 80
_WISH_CHARS = 500


class History(msgspec.Struct, frozen=True):
    """The latest choices, latest first, the categories before them, and the wishes in words."""

    choices: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    wishes: tuple[str, ...] = ()

    def lines(self) -> str:
        """One numbered line per choice, and one for the categories."""
        if not self.choices:
            return phrase("nothing")
        listed = numbered([both_ends(title) for title in self.choices], LINE_CHARS)
        if not self.categories:
            return listed
        before = "; ".join(one_line(name, _CATEGORY_CHARS) for name in self.categories)
        return f"{listed}\n{phrase('categories_before', categories=before)}"

    def wish(self) -> str:
        """One line per wish."""
        lines = [one_line(wish, _WISH_CHARS) for wish in self.wishes]
        return "\n".join(f"- {line}" for line in lines) or phrase("nothing")

    @property
    def is_empty(self) -> bool:
        return not self.choices and not self.wishes
