"""Who gets which variant: the same users as long as shares allow it, and as many as shares say."""

from collections import Counter

import pytest

from app.variants import CONTROL, InvalidVariants, UnknownVariant, Variant, Variants, allocated

USERS = [f"user {number}" for number in range(20_000)]


def variants(**shares: float) -> dict[str, Variant]:
    return {name: Variant(share=share) for name, share in shares.items()}


def who(some: dict[str, Variant], experiment: str = "") -> list[str]:
    chosen = Variants(some, experiment)
    return [chosen.chosen(None, user) for user in USERS]


def test_shares_are_kept_and_every_process_agrees():
    found = who(variants(bold=0.3, calm=0.05))
    counts = Counter(found)
    for name, share in (("bold", 0.3), ("calm", 0.05), (CONTROL, 0.65)):
        assert counts[name] / len(USERS) == pytest.approx(share, abs=0.01)
    assert who(variants(bold=0.3, calm=0.05)) == found


def test_a_changed_share_moves_as_few_users_as_possible():
    first = allocated(variants(bold=0.1, calm=0.2), {})
    more = allocated(variants(bold=0.3, calm=0.2), first)
    moved = Counter(pair for pair in zip(who(first), who(more), strict=True) if len({*pair}) == 2)
    assert list(moved) == [(CONTROL, "bold")]
    assert moved.total() / len(USERS) == pytest.approx(0.2, abs=0.01)
    less = allocated(variants(calm=0.15, new=0.1), more)
    moved = Counter(pair for pair in zip(who(more), who(less), strict=True) if len({*pair}) == 2)
    assert {pair for pair in moved if pair[0] == "calm"} <= {("calm", "new"), ("calm", CONTROL)}
    assert not [pair for pair in moved if pair[1] == "calm"]
    again = allocated(variants(bold=0.1, calm=0.2), allocated(first, first))
    assert who(again) == who(first), "the same shares change nothing"


def test_another_experiment_shuffles_all_users():
    some = variants(bold=0.5)
    first, second = who(some, "spring"), who(some, "autumn")
    both = sum(a == b == "bold" for a, b in zip(first, second, strict=True))
    assert both / len(USERS) == pytest.approx(0.25, abs=0.02)


def test_without_a_user_shares_hold_by_request():
    chosen = Variants(variants(bold=0.4))
    counts = Counter(chosen.chosen(None, None) for _ in range(5_000))
    assert counts["bold"] / 5_000 == pytest.approx(0.4, abs=0.05)
    assert chosen.chosen("bold", "user 1") == "bold"
    assert chosen.chosen(CONTROL, "user 1") == CONTROL
    with pytest.raises(UnknownVariant, match="has default, bold"):
        chosen.chosen("brave", None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bold": 0.7, "calm": 0.4},
        {CONTROL: 0.5},
        {f"v{number}": 0.01 for number in range(11)},
    ],
    ids=["too much", "the control", "too many"],
)
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(InvalidVariants):
        allocated(variants(**wrong), {})
