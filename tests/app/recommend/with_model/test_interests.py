"""Every interest of a reader is served."""

import numpy as np

from app.recommend.rerank import every_interest


def test_the_best_of_an_interest_that_is_missing_comes_last_among_the_first() -> None:
    judged = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.0], [0.1, 0.6], [0.0, 0.5]], np.float32)
    order = np.array([0, 1, 2, 3, 4])
    assert every_interest(order, judged, 3).tolist() == [0, 1, 3, 2, 4]
    assert every_interest(order, judged, 4).tolist() == [0, 1, 2, 3, 4]
    assert every_interest(order[::-1], judged, 2).tolist() == [3, 0, 4, 2, 1]


def test_more_interests_than_places_change_nothing() -> None:
    judged = np.eye(3, dtype=np.float32)
    assert every_interest(np.array([2, 1, 0]), judged, 2).tolist() == [2, 1, 0]


def test_fewer_candidates_than_places_stay_in_order() -> None:
    judged = np.array([[0.9, 0.1], [0.8, 0.2]], np.float32)
    assert every_interest(np.array([1, 0]), judged, 10).tolist() == [1, 0]
