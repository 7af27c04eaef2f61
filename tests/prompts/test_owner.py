"""What an owner says is one bounded line, and nothing where nothing was said."""

import pytest

from prompts import GUIDANCE_CHARS, OBJECTIVE_CHARS, owner_note


@pytest.mark.parametrize("nothing", ["", "  ", "\n\u200b"])
def test_an_owner_who_says_nothing_adds_nothing(nothing: str) -> None:
    assert owner_note(nothing, nothing) == ""


def test_each_part_is_a_line_of_its_own() -> None:
    guidance = owner_note("Outdoor gear.\nMost are beginners.")
    assert guidance == "The owner of the catalogue says of it: Outdoor gear. Most are beginners."
    objective = owner_note("", "Prefer $lasting things.")
    assert objective.endswith(": Prefer $lasting things.")
    assert owner_note("Outdoor gear.\nMost are beginners.", "Prefer $lasting things.") == (
        f"{guidance}\n{objective}"
    )


def test_a_part_is_cut_to_its_length() -> None:
    long = owner_note("g" * 2 * GUIDANCE_CHARS, "o" * 2 * OBJECTIVE_CHARS)
    guidance, objective = long.split("\n")
    assert guidance.endswith(" " + "g" * (GUIDANCE_CHARS - 1) + "…")
    assert objective.endswith(" " + "o" * (OBJECTIVE_CHARS - 1) + "…")
