"""Phrases: short texts that are filled in with exactly their variables."""

import re
from importlib.resources import files

import pytest

import prompts
from prompts import PromptError, phrase

VARIABLES = {
    "picks_json": {"wanted"},
    "picks_json_interests": {"wanted"},
    "picks_text": {"wanted"},
    "picks_text_interests": {"wanted"},
    "letter": set(),
    "decide": set(),
    "choice": set(),
    "choice_interest": {"number"},
    "predicate": {"number"},
    "topics_json": set(),
    "topics_text": set(),
    "titles_json": {"wanted"},
    "titles_text": {"wanted"},
    "need_interests": {"interests"},
    "need_recent": {"titles"},
    "need_disliked": {"titles"},
    "need_wish": {"wish"},
    "need_avoid": {"avoid"},
    "need_unknown": set(),
    "owner_guidance": {"guidance"},
    "owner_objective": {"objective"},
    "categories_before": {"categories"},
    "nothing": set(),
    "signs_json": {"wanted"},
    "signs_text": {"wanted"},
    "name_stays": {"label"},
    "group_items": {"titles"},
    "group_holds": {"names"},
    "lines_json": {"wanted"},
    "lines_text": {"wanted"},
    "picture_of": {"number", "tag"},
}


def test_every_phrase_is_tested_here() -> None:
    text = files(prompts).joinpath("phrases.md").read_text(encoding="utf-8")
    assert re.findall(r"^== (\w+) ==$", text, re.MULTILINE) == list(VARIABLES)


@pytest.mark.parametrize("name", VARIABLES)
def test_a_phrase_is_filled_in_with_exactly_its_variables(name: str) -> None:
    said = phrase(name, **{variable: f"<{variable}>" for variable in VARIABLES[name]})
    assert all(said.count(f"<{variable}>") == 1 for variable in VARIABLES[name])
    assert said == said.strip() != ""
    assert "$" not in said
    assert "== " not in said


@pytest.mark.parametrize("name", ["absent", "", "system", "Picks_json", "picks_json "])
def test_an_unknown_phrase_is_refused(name: str) -> None:
    with pytest.raises(PromptError, match="no phrase"):
        phrase(name)


def test_a_missing_variable_is_refused() -> None:
    with pytest.raises(PromptError, match=r"phrase picks_json: wants \['wanted'\], got \[\]"):
        phrase("picks_json")


def test_an_extra_variable_is_refused() -> None:
    with pytest.raises(PromptError, match=r"wants \[\], got \['wanted'\]"):
        phrase("letter", wanted=3)


@pytest.mark.parametrize(
    "title", ["$wish", "${wish}", "{wish}", "$need", "$", "$$", "%s", "\\1", "== letter =="]
)
def test_a_title_that_looks_like_a_template_stays_inert(title: str) -> None:
    assert phrase("need_wish", wish=f"{title}; Dune") == f"Asks for: {title}; Dune"


def test_a_number_is_taken_as_it_is() -> None:
    assert phrase("predicate", number=12).startswith("Number 12 ")


@pytest.mark.parametrize("name", ["picks_json", "picks_text"])
def test_interests_change_how_picks_are_asked_for(name: str) -> None:
    assert phrase(name, wanted=5) != phrase(f"{name}_interests", wanted=5)
