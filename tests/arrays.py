"""What tests ask of arrays."""

from typing import Any

import numpy as np
import numpy.typing as npt


def equal(one: npt.NDArray[Any] | None, other: npt.NDArray[Any] | None) -> bool:
    """Whether both hold the same, or both are missing."""
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)
