"""Times as people write them."""

import pytest

from app.data_files.values import seconds

DAY = 1_795_996_800.0  # 2026-11-30


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-11-30", DAY),
        ("20261130", DAY),
        ("2026-11-30T01:00:00+01:00", DAY),
        ("1795996800", DAY),
        (1_795_996_800_000, DAY),
        (5, 5.0),
        ("978300760", 978_300_760.0),
    ],
)
def test_a_time(written: float | str, expected: float) -> None:
    assert seconds(written) == expected


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (20_261_130, "a date as a number"),
        ("20261399", "not a time"),
        (1_795_996_800_000_000, "microseconds"),
        (float("nan"), "finite"),
        ("yesterday", "not a time"),
    ],
)
def test_no_time(written: float | str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        seconds(written)
