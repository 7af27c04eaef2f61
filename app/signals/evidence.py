"""Evidence: what weights of pairs and counts of users are worth in a score.

Accounts can be made up, and few users say little. So

- a pair counts by w² / (w + ½): what one user adds is taken with caution;
- a pair is worth at most so much, and the less the less alike its two items are: many accounts
  that had both cannot carry an item to people who look for something else;
- a pair that one user alone may have made (at most one whole) is worth a fifth of that at most;
- an item that one user had is no neighbour of any other, and a popular one counts in full;
- for popularity, n users count as n² / (n + 3).

Figures by simulated attacks and by small samples of users: `make bench ARGS=attacks`. All numbers
here were chosen in December 2026 on other users than those figures are of. What was tried instead:
subtracting one whole from every pair, or counting pairs of two users only, costs a tenth of the
recall on video games and on news; a bound alike for all pairs costs .02 of NDCG on games where it
holds attackers off; a bound on the sum over the history, or a norm in its place, costs more.
"""

import numpy as np
import numpy.typing as npt

from tree.vectors import FloatArray

_Floats = npt.NDArray[np.floating]

# Exponents of the counts of the two items. The item of the history is normalised more strongly than
# the other, so that popular items keep an advantage.
_OF_HISTORY, _OF_OTHER = 0.75, 0.25
_CAUTION = 0.5
_BOUND = 0.01  # of a pair of unlike items
_BOUND_ALIKE = 0.1  # what is added to it for the same item twice
_OF_ONE_USER = 0.2
_FEW_USERS = 3.0
_ALL = 0.999


def of_pairs(
    weights: _Floats, count: float, counts: _Floats, alike: _Floats, shrinkage: float
) -> npt.NDArray[np.float64]:
    """What pairs of one item with others are worth, at least 0.

    From the `weights` of the pairs in wholes, the `count` of users of the one item and the `counts`
    of the others, and how `alike` they are to it (cosines):

        c = w² / (w + ½) / ((count + shrinkage)^¾ · (counts + shrinkage)^¼)
        b = 0.01 + 0.1 · max(0, alike), a fifth of it where w is at most 1
        b · tanh(c / b) · (1 - 1 / counts)
    """
    others = np.maximum(counts, 1.0)
    mass = (max(count, 1.0) + shrinkage) ** _OF_HISTORY * (others + shrinkage) ** _OF_OTHER
    raw = weights**2 / (weights + _CAUTION) / mass
    bound = _BOUND + _BOUND_ALIKE * np.maximum(alike, 0.0)
    bound = np.where(weights <= 1.0, _OF_ONE_USER * bound, bound)
    found: npt.NDArray[np.float64] = bound * np.tanh(raw / bound) * (1.0 - 1.0 / others)
    return found


def of_counts(counts: FloatArray) -> FloatArray:
    """How many users count for the popularity of items that so many users had."""
    return counts * (counts / (counts + np.float32(_FEW_USERS)))


def of_rising(faded: FloatArray, all_time: FloatArray) -> FloatArray:
    """How many users count for what rises now: those beyond an item's share in the long run.

    Of an item that n users ever had, n times the share of all counts that has not faded would be
    left if it were as popular as ever. Where nothing has faded, what is popular counts.
    """
    share = float(faded.sum(dtype=np.float64) / max(float(all_time.sum(dtype=np.float64)), 1e-9))
    usual = np.float32(share) * all_time if share < _ALL else np.float32(0)
    return of_counts(np.maximum(faded - usual, np.float32(0)))
