"""Protocols: the cases they make, and that no target is visible to a system, whatever the data."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from app.evaluation.case import Case, Training
from app.evaluation.dataset import DataError, Dataset, DatasetUser, Impression, Skipped
from app.evaluation.protocols import (
    BUCKETS,
    DomainBy,
    Split,
    bucket_of,
    cold_items,
    coldstart,
    complement,
    crossdomain,
    exclusion,
    impressions,
    leave_last_out,
    paper,
    temporal,
    training_share,
)
from tree.item import Item

Protocol = Callable[[Dataset, int], Split]


def item(number: int) -> Item:
    return Item(
        id=str(number),
        title=f"Title {number}",
        domain=("books", "films")[number % 2],
        categories=(("fiction", "fact")[number // 2 % 2], f"sort {number % 3}"),
    )


ITEMS = [item(number) for number in range(200)]
SORTS = {one.id: one.categories[-1] for one in ITEMS}


def dataset(users: Sequence[DatasetUser], items: int = 40) -> Dataset:
    return Dataset("made", ITEMS[:items], users, Skipped(), {})


def user(name: str, history: Sequence[int | str], **fields: Any) -> DatasetUser:
    return replace(DatasetUser(name, tuple(map(str, history))), **fields)


def leaves(data: Dataset) -> dict[str, str]:
    return {each.id: str(int(each.id) % 3) for each in data.items}


@st.composite
def users(draw: st.DrawFn, name: str) -> DatasetUser:
    """Any user: times or none, and things shown of which later events were chosen."""
    history = st.lists(st.integers(0, 39), min_size=1, max_size=25, unique=True)
    ids = tuple(map(str, draw(history)))
    times: tuple[float, ...] = ()
    if draw(st.booleans()):
        seconds = st.lists(st.integers(0, 30), min_size=len(ids), max_size=len(ids))
        times = tuple(map(float, sorted(draw(seconds))))
    shown = []
    for _ in range(draw(st.integers(0, 3))):
        seen_before = draw(st.integers(0, len(ids)))
        chosen = frozenset(ids[seen_before : seen_before + draw(st.integers(0, 2))])
        others = draw(st.sets(st.integers(0, 39).map(str), max_size=5))
        shown.append(Impression(tuple(sorted(chosen | others)), chosen, seen_before))
    profile = draw(st.sampled_from(["", "A sentence."]))
    return DatasetUser(name, ids, times, profile, tuple(shown), ids[-1:])


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    count = draw(st.integers(1, 8))
    return dataset([draw(users(str(number))) for number in range(count)])


PROTOCOLS: dict[str, Protocol] = {
    "leave_last_out": lambda data, seed: leave_last_out(data, seed=seed, users=3, min_events=2),
    "paper": lambda data, seed: paper(
        data, leaves(data), seed=seed, users=3, history_limit=4, leaf_limit=5, min_events=2
    ),
    "exclusion": lambda data, seed: exclusion(data, seed=seed, min_events=2),
    "temporal": lambda data, seed: temporal(data, seed=seed, quantile=0.5),
    "temporal, next": lambda data, seed: temporal(data, seed=seed, quantile=0.3, only_next=True),
    "impressions": lambda data, seed: impressions(data, seed=seed, min_history=0),
    "coldstart": lambda data, seed: coldstart(data, seed=seed, users=3, min_users=2),
    "coldstart, natural": lambda data, seed: coldstart(data, seed=seed, users=2, natural=True),
    "complement": lambda data, seed: complement(data, SORTS, seed=seed, users=3, min_events=2),
    "crossdomain": lambda data, seed: crossdomain(data, seed=seed, users=3, min_history=1),
    "crossdomain, categories": lambda data, seed: crossdomain(
        data, "fact", "fiction", seed=seed, min_history=2, by=DomainBy.CATEGORY
    ),
}


@given(data=datasets(), seed=st.integers(0, 3))
def test_no_query_contains_a_target(data: Dataset, seed: int) -> None:
    for name, protocol in PROTOCOLS.items():  # to draw a dataset takes longer than all of them
        note(name)
        assert_targets_are_hidden(protocol, data, seed)


def assert_targets_are_hidden(protocol: Protocol, data: Dataset, seed: int) -> None:
    try:
        training, cases = protocol(data, seed)
    except DataError:
        return
    assert cases
    assert protocol(data, seed) == (training, cases)
    whole = {each.id: each for each in data.users}
    learnt = {each.id: each for each in training.users}
    assert len(learnt) == len(training.users)
    for case in cases:
        query = case.query
        assert case.targets
        assert case.targets <= set(whole[query.user].history)
        assert not case.targets & {*query.history, *query.excluded}
        visible = learnt.get(query.user)
        if visible:
            assert not case.targets & set(visible.history)
            assert not any(case.targets & each.chosen for each in visible.impressions)
            assert not visible.candidates
    for each in training.users:
        assert each.history
        assert len(each.times) in {0, len(each.history)}
        assert set(each.history) <= set(whole[each.id].history)


def able(data: Dataset, events: int) -> bool:
    return any(len(each.history) >= events for each in data.users)


def swapped(user: DatasetUser) -> DatasetUser:
    """The same user, had they done something else at last."""
    other = next(str(n) for n in range(40) if str(n) not in user.history)
    last = user.history[-1]

    def instead(ids: frozenset[str]) -> frozenset[str]:
        return frozenset(other if each == last else each for each in ids)

    shown = tuple(replace(each, chosen=instead(each.chosen)) for each in user.impressions)
    return replace(user, history=(*user.history[:-1], other), impressions=shown)


BLIND: dict[str, Protocol] = {
    name: PROTOCOLS[name] for name in ("leave_last_out", "paper", "coldstart")
}


@given(data=datasets().filter(lambda data: able(data, 2)), seed=st.integers(0, 3))
def test_another_target_changes_neither_queries_nor_training(data: Dataset, seed: int) -> None:
    for name, protocol in BLIND.items():
        note(name)
        assert_blind(protocol, data, seed)


def assert_blind(protocol: Protocol, data: Dataset, seed: int) -> None:
    training, cases = protocol(data, seed)
    asked = {case.query.user for case in cases}
    changed = [swapped(each) if each.id in asked else each for each in data.users]
    other_training, other_cases = protocol(dataset(changed), seed)
    assert [case.query for case in other_cases] == [case.query for case in cases]
    assert [case.targets for case in other_cases] != [case.targets for case in cases]
    assert other_training == training


@given(seed=st.integers(0, 50))
def test_another_choice_changes_no_candidates(seed: int) -> None:
    shown = tuple("23456")
    queries = [
        impressions(
            dataset(
                [
                    user(
                        "u",
                        ["0", "1", chosen],
                        impressions=(Impression(shown, frozenset({chosen}), 2),),
                    )
                ]
            ),
            seed=seed,
        )[1][0].query
        for chosen in shown
    ]
    assert len(set(queries)) == 1
    assert sorted(queries[0].candidates or ()) == sorted(shown)


# leave-last-out


def test_a_complement_is_of_another_category_than_the_newest_items() -> None:
    groups = {"1": "a", "2": "b", "3": "a", "4": "c", "5": ""}
    histories = ["1124", "4124", "2111", "3113", "1215"]
    data = dataset([user(history, history) for history in histories])
    chosen = {
        newest: {
            case.query.user for case in complement(data, groups, newest=newest, min_events=4)[1]
        }
        for newest in (2, 3)
    }
    assert chosen == {2: {"1124", "4124"}, 3: {"1124"}}
    training, [case] = complement(data, groups, newest=3, min_events=4)
    assert (case.query.history, case.targets) == (("1", "1", "2"), {"4"})
    assert {len(each.history) for each in training.users} == {3}


def test_leave_last_out_samples_by_a_seeded_shuffle() -> None:
    data = dataset([user(str(n), range(n, n + 5)) for n in range(30)] + [user("few", "1234")])
    training, cases = leave_last_out(data, seed=1, users=10)
    more_training, more = leave_last_out(data, seed=1, users=20)
    assert [case.query.user for case in cases] == [c.query.user for c in more[:10]]
    assert training == more_training
    assert leave_last_out(data, seed=2, users=10)[1] != cases
    for case in cases:
        first = int(case.query.user)
        assert case.query.history == tuple(str(n) for n in range(first, first + 4))
        assert case.targets == {str(first + 4)}
        assert case.query.candidates is None
        assert case.bucket == "2–4"
    assert {each.id: len(each.history) for each in training.users} == {
        **{str(n): 4 for n in range(30)},
        "few": 4,
    }
    with pytest.raises(DataError, match="made: no case is left: no user has 6 events"):
        leave_last_out(data, min_events=6)


def test_given_candidates_may_lack_the_target() -> None:
    data = dataset([user("u", range(5), candidates=("7", "8")), user("v", range(5))])
    (case,) = leave_last_out(data, given_candidates=True)[1]
    assert case.query.candidates == ("7", "8")
    assert case.targets == {"4"}


# the paper's


def test_paper_limits_leaves_without_knowing_targets() -> None:
    data = dataset([user(str(n), [*range(20), 20 + n]) for n in range(20)])
    _, cases = paper(data, leaves(data), history_limit=6, leaf_limit=5)
    candidates = cases[0].query.candidates
    assert candidates is not None
    counts = [sum(int(each) % 3 == leaf for each in candidates) for leaf in range(3)]
    assert counts == [5, 5, 5]
    assert all(case.query.candidates is candidates for case in cases)
    assert all(case.query.history == tuple(map(str, range(14, 20))) for case in cases)
    assert all(case.query.excluded == set(map(str, range(14))) for case in cases)
    missed = [case for case in cases if not case.targets & set(candidates)]
    assert 0 < len(missed) < len(cases)
    _, others = paper(data, leaves(data), seed=1, history_limit=6, leaf_limit=5)
    assert others[0].query.candidates != candidates


def test_paper_has_500_users_and_candidates_of_leaves() -> None:
    data = dataset([user(str(n), range(6)) for n in range(600)])
    _, cases = paper(data, {"3": "a", "9": "a", "1": "b"})
    assert len(cases) == 500
    assert cases[0].query.candidates == ("1", "3", "9")


# times and impressions


def test_temporal_splits_all_users_at_one_time() -> None:
    data = dataset(
        [
            user("before", "12", times=(1.0, 2.0)),
            user("both", "3456", times=(3.0, 4.0, 5.0, 6.0)),
            user("after", "78", times=(5.0, 6.0)),
            user("untimed", "12"),
        ]
    )
    training, (case,) = temporal(data, quantile=0.5)
    assert case.query.history == ("3", "4")
    assert case.targets == {"5", "6"}
    assert {each.id: each.history for each in training.users} == {
        "before": ("1", "2"),
        "both": ("3", "4"),
    }
    (case,) = temporal(data, quantile=0.5, only_next=True)[1]
    assert case.targets == {"5"}


@given(data=datasets(), quantile=st.floats(0.05, 0.95))
def test_temporal_hides_later_events(data: Dataset, quantile: float) -> None:
    try:
        training, cases = temporal(data, quantile=quantile)
    except DataError:
        return
    moments = {each.id: dict(zip(each.history, each.times, strict=True)) for each in training.users}
    latest = max(max(times.values()) for times in moments.values())
    whole = {each.id: dict(zip(each.history, each.times)) for each in data.users}  # noqa: B905
    for case in cases:
        times = whole[case.query.user]
        assert min(times[each] for each in case.targets) > latest
        assert max(times[each] for each in case.query.history) <= latest


def test_temporal_needs_times() -> None:
    with pytest.raises(DataError, match="needs the time of each event; expected timestamps"):
        temporal(dataset([user("u", range(9))]))


def test_impressions_take_the_last_choice() -> None:
    shown = (
        Impression(("4", "5"), frozenset("4"), 2),
        Impression(("1", "6", "7", "8"), frozenset("7"), 3),
        Impression(("9",), frozenset("9"), 4),  # no choice
    )
    training, (case,) = impressions(dataset([user("u", "12479", impressions=shown)]))
    assert case.query.history == ("1", "2", "4")
    assert set(case.query.candidates or ()) == {"6", "7", "8"}
    assert case.targets == {"7"}
    assert training.users == [user("u", "124", impressions=shown[:1])]
    with pytest.raises(DataError, match="expected impressions, or another protocol"):
        impressions(dataset([user("u", range(9))]))


# cold start


def cold(users: int, length: int) -> Dataset:
    return dataset([user(f"r{n}", range(n, n + length)) for n in range(users)], items=200)


def test_coldstart_shortens_the_history_of_the_same_users() -> None:
    training, cases = coldstart(cold(120, 61), users=25)
    asked: dict[str, list[Case]] = {}
    for case in cases:
        asked.setdefault(case.bucket, []).append(case)
    assert list(asked) == [name for name, _, _ in BUCKETS]
    names = [case.query.user for case in asked["0"]]
    assert len(set(names)) == 25
    for bucket, of_bucket in asked.items():
        assert [case.query.user for case in of_bucket] == names
        for case, full in zip(of_bucket, asked["50+"], strict=True):
            query = case.query
            assert bucket_of(len(query.history)) == bucket
            assert full.query.history[-len(query.history) or 60 :] == query.history
            assert query.excluded | {*query.history} == {*full.query.history}
            assert case.targets == full.targets
            assert bool(query.profile) == (bucket == "0")
    assert len({len(case.query.history) for case in asked["10–49"]}) > 5
    assert not {each.id for each in training.users} & set(names)
    assert len(training.users) == 95


def test_coldstart_has_no_bucket_beyond_the_data() -> None:
    _, cases = coldstart(cold(120, 8), users=10)
    assert {case.bucket for case in cases} == {"0", "1", "2–4", "5–9"}


def test_a_profile_never_names_a_category_of_the_target_only() -> None:
    data = dataset([user("u", [0, 4, 8, 2])])  # fiction, fiction, fiction, and fact
    _, cases = coldstart(data)
    assert cases[0].query.profile == (
        "Interested in: fiction › sort 0; fiction › sort 1; fiction › sort 2."
    )
    given_one = dataset([user("u", [0, 4, 8, 2], profile="Reads novels.")])
    assert {case.query.profile for case in coldstart(given_one)[1]} == {"Reads novels."}


def test_natural_buckets_have_whole_histories() -> None:
    data = dataset(
        [user(f"{size}-{n}", range(size)) for size in (1, 2, 4, 8, 20) for n in range(5)]
        + [user("described", [7], profile="Likes 7.")]
    )
    training, cases = coldstart(data, natural=True, users=3)
    assert [case.bucket for case in cases] == (
        ["0"] + ["1"] * 3 + ["2–4"] * 3 + ["5–9"] * 3 + ["10–49"] * 3
    )
    assert cases[0].query.profile == "Likes 7."
    assert all(not case.query.excluded for case in cases)
    assert "described" not in {each.id for each in training.users}


# across domains


def test_crossdomain_has_history_and_target_in_two_domains() -> None:
    # Even items are books, odd ones films.
    mixed = [user(f"m{n}", [0, 2, 1, 4, 6, 8, 3, 10]) for n in range(4)]
    data = dataset([*mixed, user("books", [0, 2, 4, 6, 8, 10]), user("few", [0, 1])])
    training, cases = crossdomain(data, users=2)
    assert len(cases) == 2
    for case in cases:
        assert case.query.history == ("0", "2", "4", "6", "8")
        assert case.targets == {"3"}
        assert case.query.excluded == {"1"}
        assert set(case.query.candidates or ()) == {str(n) for n in range(1, 40, 2)}
        assert case.bucket == "books → films"
    asked = {case.query.user for case in cases}
    for each in training.users:
        full = next(other for other in data.users if other.id == each.id)
        assert each.history == (cases[0].query.history if each.id in asked else full.history)
    _, back = crossdomain(data, "Films ", "books", min_history=2)
    assert {case.query.history for case in back} == {("1", "3")}
    assert {tuple(case.targets) for case in back} == {("10",)}


def test_crossdomain_errors_name_the_domains() -> None:
    data = dataset([user("u", [0, 2, 4, 6, 8, 10])])
    with pytest.raises(DataError, match="expected events in two domains, found 'books'"):
        crossdomain(data)
    with pytest.raises(DataError, match="one of them 'music', found 'books'"):
        crossdomain(data, "music")
    with pytest.raises(DataError, match="both are 'books'"):
        crossdomain(data, "books", "books")


def test_crossdomain_can_hide_a_domain_from_training() -> None:
    mixed = [user(f"m{n}", [0, 2, 1, 4, 6, 8, 3, 10]) for n in range(4)]
    training, cases = crossdomain(dataset([*mixed, user("films", [1, 3])]), users=2, unseen=True)
    assert len(training.users) == 4
    assert {int(each) % 2 for known in training.users for each in known.history} == {0}
    assert {tuple(case.targets) for case in cases} == {("3",)}


def test_new_items_are_in_no_training_history() -> None:
    data = dataset([user(f"u{n}", [(n * 7 + m * 3) % 40 for m in range(6)]) for n in range(80)])
    training, cases = cold_items(data, users=9)
    trained = {each for known in training.users for each in known.history}
    kinds = {
        kind: [case for case in cases if case.bucket == kind]
        for kind in ("known items", "new items")
    }
    assert len(kinds["known items"]) == 9
    assert kinds["new items"]
    assert not trained & {each for case in kinds["new items"] for each in case.targets}
    assert len(trained) == 34  # of 40
    last = {known.id: known.history[-1] for known in data.users}
    assert all(case.targets == {last[case.query.user]} for case in cases)
    assert all(last[known.id] not in known.history for known in training.users)


# exclusion, and shares of the training


def test_exclusion_excludes_half_of_the_catalogue() -> None:
    data = dataset([user(str(n), [(n + m) % 40 for m in range(6)]) for n in range(40)])
    _, cases = exclusion(data)
    excluded = cases[0].query.excluded
    assert len(excluded) == 20
    assert len(cases) == 20
    assert all(case.query.excluded is excluded for case in cases)
    assert any(set(case.query.history) & excluded for case in cases)
    assert exclusion(data, seed=1)[1][0].query.excluded != excluded


@given(
    count=st.integers(1, 60),
    shares=st.lists(st.integers(1, 100).map(lambda part: part / 100), min_size=2),
    seed=st.integers(0, 5),
)
def test_a_smaller_share_is_part_of_a_larger(count: int, shares: list[float], seed: int) -> None:
    training = Training([], [user(str(n), [n]) for n in range(count)])
    parts = [training_share(training, share, seed).users for share in sorted(shares)]
    for smaller, larger in pairwise(parts):
        assert 1 <= len(smaller) <= len(larger)
        assert [each for each in larger if each in smaller] == smaller
    assert training_share(training, 1.0, seed) == training


@pytest.mark.parametrize("share", [0, -0.1, 1.1])
def test_other_shares_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        training_share(Training([], []), share)
