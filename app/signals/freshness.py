"""Freshness: how new an item is, from 1 on its day towards 0."""

from collections.abc import Sequence
from datetime import datetime

import numpy as np

from tree.vectors import FloatArray

_DAY_S = 86_400


def freshness(
    published: Sequence[datetime | None], now: float, half_life_days: float
) -> FloatArray:
    """float32[items]: 2^(-age / half-life), of published dates.

    An item of the future is as fresh as one of now; one without a date has no freshness.
    """
    ages = [np.inf if at is None else max(0.0, now - at.timestamp()) for at in published]
    return np.exp2(-np.array(ages, np.float64) / (half_life_days * _DAY_S)).astype(np.float32)
