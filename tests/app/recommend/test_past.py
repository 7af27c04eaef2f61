"""What the types of events in a history do to the lists of its user."""

import numpy as np
import pytest

from app.event_types import EVENT_TYPES, EventRules, EventType
from app.rank_weights import RankWeights
from app.ranking import EmbeddedRanker, Need
from app.recommend import RecommendRequest
from app.recommend.context import history_of
from app.recommend.past import past_of
from app.recommend.resolve import RequestVectors, resolve_request
from tree.vectors import cosines

RULES = EventRules()


def ask(*history: tuple[str, str | None], **fields) -> RecommendRequest:
    entries = [{"item_id": item, "type": kind} for item, kind in history]
    return RecommendRequest.model_validate({"history": entries, "limit": 40} | fields)


async def listed(demo, *history: tuple[str, str | None], **fields) -> list[str]:
    asked = ask(*history, **{"diversity": 0, **fields})
    return [item.item_id for item in (await demo.recommender.recommend(asked)).items]


def test_each_thing_counts_once_by_the_strongest_that_the_user_did():
    past = past_of(
        ask(
            *[("a", "purchase"), ("b", "view"), ("c", "dislike"), ("d", "impression")],
            *[("a", "view"), ("e", "like"), ("e", "dislike"), ("f", "dislike"), ("f", "like")],
        ),
        RULES,
    )
    assert [(one.entry.item_id, one.weight) for one in past.liked] == [
        *[("f", 1), ("a", 1), ("b", 0.25)]
    ]
    assert [one.entry.item_id for one in past.disliked] == ["e", "c"]
    assert past.had == ["b", "a", "f"]
    assert past.hidden == ["c", "a", "e", "f"]


@pytest.mark.parametrize(
    ("fields", "hidden"),
    [
        ({}, ["bought", "bad"]),
        ({"exclude_history": True}, ["bought", "seen", "shown", "bad"]),
        ({"exclude_history": False}, ["bad"]),
        ({"task": "search", "instruction": "x"}, ["bad"]),
        (
            {"task": "search", "instruction": "x", "exclude_history": True},
            ["bought", "seen", "shown", "bad"],
        ),
    ],
)
def test_what_is_left_out(fields, hidden):
    history = [("bought", None), ("seen", "view"), ("shown", "impression"), ("bad", "dislike")]
    assert past_of(ask(*history, **fields), RULES).hidden == hidden


def test_a_catalogue_says_what_its_types_mean():
    own = {"view": EventType(weight=-0.5), "own": EventType(weight=0.3)}
    rules = EventRules({**EVENT_TYPES, **own})
    past = past_of(ask(("a", "view"), ("b", "own"), ("c", "gone")), rules)
    assert [one.entry.item_id for one in past.disliked] == ["a"]
    assert [(one.entry.item_id, one.weight) for one in past.liked] == [("b", 0.3)]
    assert past.hidden == ["a"]


async def test_a_viewed_item_stays_in_the_list_and_is_not_first_for_its_own_sake(demo):
    viewed = await listed(demo, ("book-dune", None), ("film-solaris", "view"))
    assert "book-dune" not in viewed
    assert "film-solaris" in viewed
    one = await listed(demo, ("film-solaris", "view"))
    assert one[0] != "film-solaris"
    assert "film-solaris" not in await listed(demo, ("film-solaris", "view"), exclude_history=True)


async def test_the_weight_of_a_type_is_the_share_of_its_item(demo):
    tree = await demo.store.load()
    asked = ask(("book-dune", "view"), ("film-alien", "purchase"))
    need = resolve_request(tree, asked, RequestVectors(), RankWeights(), 10).need
    assert [(one.source, round(one.weight, 4)) for one in need.directions] == [
        *[("film-alien", 0.8), ("book-dune", 0.2)]
    ]


async def test_a_dislike_is_never_shown(demo):
    liked = ("book-dune", "like")
    bad = (await listed(demo, liked))[0]
    assert bad not in await listed(demo, liked, (bad, "dislike"))
    assert bad not in await listed(demo, liked, (bad, "dislike"), exclude_history=False)
    assert bad not in await listed(demo, (bad, "dislike"))


async def test_a_dislike_lowers_what_is_nearer_to_it_than_to_what_is_liked(demo):
    tree = await demo.store.load()
    rows = np.arange(tree.size, dtype=np.int32)
    ranker = EmbeddedRanker(8, 50_000, 200, 96)

    def need(*history: tuple[str, str]) -> Need:
        return resolve_request(tree, ask(*history), RequestVectors(), RankWeights(), 10).need

    liked, both = need(("book-dune", "like")), need(("book-dune", "like"), ("film-heat", "dislike"))
    lost = ranker.scores(tree, liked, rows) - ranker.scores(tree, both, rows)
    assert (lost >= 0).all()
    disliked, dune = tree.row("film-heat"), tree.row("book-dune")
    assert lost.argmax() == disliked
    assert lost[dune] == 0
    near, far = (
        cosines(tree.rows.vectors, tree.rows.scale, one.vectors[:1])[:, 0]
        for one in (need(("film-heat", "like")), liked)
    )
    assert np.allclose(lost, 0.5 * np.maximum(near - far + 0.2, 0), atol=1e-5)


async def test_disliked_titles_stand_in_prompts_and_only_there(demo):
    tree = await demo.store.load()

    async def told(*history: tuple[str, str | None]):
        asked = ask(*history)
        resolved = resolve_request(tree, asked, RequestVectors(), RankWeights(), 10)
        return await history_of(asked, tree, resolved, demo.store)

    history = await told(("book-dune", None), ("film-alien", "dislike"))
    assert (history.choices, history.dislikes) == (("Dune",), ("Alien",))
    assert history.lines() == "1. Dune\nDid not like: Alien"
    plain = await told(("book-dune", None))
    assert plain.lines() == "1. Dune"
    assert plain.dislikes == ()


async def test_an_unknown_type_in_a_history_is_told(demo):
    answer = await demo.recommender.recommend(ask(("book-dune", "wave")))
    (warning,) = answer.warnings
    assert warning.code == "unknown_event_type"
    assert "'wave'" in warning.message
