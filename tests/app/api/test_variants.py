"""Variants over HTTP: set, kept to by users, named by requests, and told by answers."""

from collections import Counter

import pytest

from tests.app.api.support import assert_problem, pointers

BOLD = {"share": 0.4, "diversity": 0.7, "strategy": "embedded", "weights": {"exact_words": 0}}


def asked(api, films: str, **request) -> dict:
    reply = api.post(f"{films}/recommend", json={"limit": 2, **request})
    assert reply.status_code == 200, reply.text
    return reply.json()


def used(api, films: str, answer: dict) -> dict:
    trace = api.get(f"{films}/recommendations/{answer['recommendation_id']}").json()
    assert trace["variant"] == answer["variant"]
    return trace["weights"]


def test_a_user_stays_in_a_variant_and_gets_its_settings(api, films):
    assert asked(api, films)["variant"] == "default"
    settings = api.patch(films, json={"variants": {"bold": BOLD}}).json()["settings"]
    assert settings["variants"]["bold"]["slots"] == [[0, 4_000]]
    first = {f"u{n}": asked(api, films, user_id=f"u{n}")["variant"] for n in range(60)}
    assert Counter(first.values()).keys() == {"bold", "default"}
    assert {user: asked(api, films, user_id=user)["variant"] for user in first} == first

    weights = used(api, films, asked(api, films, variant="bold"))
    assert (weights["diversity"], weights["exact_words"]) == (0.7, 0)
    own = asked(api, films, variant="bold", diversity=0.2, weights={"exact_words": 2})
    weights = used(api, films, own)
    assert (weights["diversity"], weights["exact_words"]) == (0.2, 2)
    weights = used(api, films, asked(api, films, variant="default"))
    assert (weights["diversity"], weights["exact_words"]) == (0.1, 1)

    both = api.patch(films, json={"variants": {"calm": {"share": 0.1}}}).json()["settings"]
    assert both["variants"]["bold"] == settings["variants"]["bold"]
    assert both["variants"]["calm"]["slots"] == [[4_000, 5_000]]
    left = api.patch(films, json={"variants": {"bold": None}}).json()["settings"]["variants"]
    assert list(left) == ["calm"]
    assert api.patch(films, json={"variants": None}).json()["settings"]["variants"] == {}


def test_an_unknown_variant_is_refused_with_the_names_there_are(api, films):
    assert api.patch(films, json={"variants": {"bold": BOLD}}).status_code == 200
    reply = api.post(f"{films}/recommend", json={"variant": "brave"})
    assert "default, bold" in assert_problem(reply, 422, "unknown_variant")["detail"]


def test_a_patch_of_a_variant_keeps_what_it_does_not_name(api, catalog):
    def patched(**changes) -> dict:
        reply = api.patch(catalog, json={"variants": {"bold": changes}})
        assert reply.status_code == 200, reply.text
        bold = reply.json()["settings"]["variants"]["bold"]
        bold["weights"] = {
            name: by for name, by in (bold["weights"] or {}).items() if by is not None
        }
        return bold

    first = patched(**BOLD | {"weights": {"exact_words": 0, "wish_weight": 0.3}})
    assert patched(share=0.3) == {**first, "share": 0.3, "slots": [[0, 3_000]]}
    assert patched(weights={"exact_words": None})["weights"] == {"wish_weight": 0.3}
    assert patched(weights={"history_decay": 0.9})["weights"] == {
        "wish_weight": 0.3,
        "history_decay": 0.9,
    }
    left = patched(weights=None, strategy=None)
    assert (left["weights"], left["strategy"], left["diversity"]) == ({}, None, 0.7)
    reply = api.patch(catalog, json={"variants": {"bold": {"share": None}}})
    assert pointers(assert_problem(reply, 422, "invalid_request")) == ["/variants/bold/share"]
    shown = api.get(catalog).json()["settings"]["variants"]
    again = api.patch(catalog, json={"variants": shown}).json()["settings"]["variants"]
    assert again == shown, "what is answered may be sent back"


@pytest.mark.parametrize(
    ("variants", "pointer"),
    [
        ({"a": {"share": 0.6}, "b": {"share": 0.5}}, "/variants"),
        ({"default": {"share": 0.6}}, "/variants"),
        ({"a": {"share": 1.6}}, "/variants/a/share"),
        ({"a": {}}, "/variants/a/share"),
        ({"a": {"share": 0.1, "weights": {"wish_weight": 2}}}, "/variants/a/weights/wish_weight"),
        ({"A b": {"share": 0.1}}, "/variants/A b/[key]"),
    ],
)
def test_variants_that_cannot_be_are_refused(api, catalog, variants, pointer):
    reply = api.patch(catalog, json={"variants": variants})
    assert pointers(assert_problem(reply, 422, "invalid_request")) == [pointer]
