"""The weight that follows from marks."""

import pytest

from app.recommend.standing.standing import Standing, factor_of, mean_and_error


def test_the_mean_has_its_standard_error():
    mean, error = mean_and_error([0.2, 0.8, 0.4, 1.0])
    assert mean == pytest.approx(0.6)
    assert error == pytest.approx(0.36515 / 2, abs=1e-4)


def test_equal_marks_are_not_certain():
    assert mean_and_error([1.0] * 4)[1] > mean_and_error([1.0] * 16)[1] > 0


@pytest.mark.parametrize(
    ("accuracy", "error", "factor"),
    [(0.5, 0.05, 0), (0.59, 0.05, 0), (0.3, 0.01, 0), (0.95, 0.04, 1), (1.0, 0.05, 1)],
)
def test_a_model_at_chance_has_no_weight_and_one_that_knows_has_all(accuracy, error, factor):
    assert factor_of(accuracy, error) == factor


def test_the_weight_grows_with_what_is_certain():
    factors = [factor_of(accuracy / 100, 0.04) for accuracy in range(50, 100)]
    assert factors == sorted(factors)
    assert factor_of(0.7, 0.08) < factor_of(0.7, 0.04) < 1


def test_a_standing_says_what_was_found():
    standing = Standing("of", "m", 20, 0.53, 0.05, 0.8, 0.0, 19_000, 0.0, 0.0)
    assert not standing.is_asked
    assert "of 20 slates it put 53% ± 5% of the pairs into the right order" in standing.line()
