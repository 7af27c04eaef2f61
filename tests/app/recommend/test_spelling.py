"""Hints for names that nobody knows: useful for people, and cheap whatever is asked."""

import random
import time

import pytest

from app.recommend.spelling import all_hinted


def _shuffled(letters: str, seed: int) -> str:
    return "".join(random.Random(seed).sample(letters, len(letters)))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("yaer", ": did you mean 'year'?"),
        ("filmss", ": did you mean 'films'?"),
        ("colour", ": did you mean 'color' or 'colors'?"),
        ("quite something else", ""),
        ("year" * 11, ""),
    ],
)
def test_what_looks_like_a_name_is_told(name, hint):
    known = [
        "films",
        "year",
        "color",
        "colors",
        "",
        "year" * 12,
        *(f"field_{n}_{n % 7}" for n in range(10_000)),
    ]
    assert all_hinted("no", [name], known) == (f"no {name!r}{hint}",)


@pytest.mark.parametrize("letters", ["ab" * 20, "abcdefghij" * 4, "ab" * 100])
def test_names_that_are_hard_to_compare_take_no_time(letters):
    known = [_shuffled(letters, seed) for seed in range(10_000)]
    unknown = [_shuffled(letters, -1 - seed) + "!" for seed in range(150)]
    began = time.thread_time()
    assert len(all_hinted("no", unknown, known)) == 150
    assert time.thread_time() - began < 0.2


def test_nothing_is_compared_once_nobody_waits():
    said = all_hinted("no", ["yaer", "filmss"], ["year", "films"], lambda: True)
    assert said == ("no 'yaer'", "no 'filmss'")
    answers = iter([False, True])
    assert all_hinted("no", ["yaer"], ["year"], lambda: next(answers, True)) == ("no 'yaer'",)
