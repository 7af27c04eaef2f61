"""`AdapterLearner`: a linear map under which items that users have together come close."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from app.tuning.examples import Rows
from tree.vectors import FloatArray

_RANK = 64  # 160 learned known items no better, and new ones worse (games, December 2026)
_REACH = 3  # steps between the two items of a pair, which weighs 1/distance
_BATCH = 512  # pairs; half of that where there are few
_FEW_PAIRS = 100_000
_DRAWN = 2  # times as many further items, that a batch is told apart from
_TEMPERATURE = 0.2  # .1 learned known items better and new ones worse
_RATE = 3e-3
# Of log q of the sampled softmax. With all of it the map learns how popular items are: on films it
# doubled the recall of known items, and lost half of that of new ones. With none it gained nothing.
_POPULARITY = 0.5
_STEPS = 300, 1_500
_PAIRS_PER_STEP = 500
_BETAS = 0.9, 0.999

Floats = npt.NDArray[np.float32]


class AdapterLearner:
    """Learns x → x ∘ d + (x V) Uᵀ: a weight for each dimension, and a map of low rank.

    The loss is that of contrastive learning (InfoNCE; van den Oord et al. 2018): of a pair of items
    that a user had shortly after one another, the second is to be told by the first from those of
    all other pairs of the batch and from items that are drawn by the root of their counts. Their
    frequency among these is corrected in part (Yi et al. 2019). By Adam (Kingma & Ba 2015).
    """

    def __init__(
        self,
        vectors: FloatArray,
        histories: Sequence[Rows],
        *,
        seed: int = 0,
        steps: int | None = None,
        rate: float = _RATE,
    ) -> None:
        """`vectors` have length 1; `histories` hold positions in them, oldest first.

        Without `steps`, as many as the number of pairs is worth.
        """
        self._vectors = vectors
        self._rng = np.random.default_rng(seed)
        self._first, self._second, weights = _pairs(histories)
        self.pairs = len(self._first)
        self._batch = _BATCH if self.pairs >= _FEW_PAIRS else _BATCH // 2
        self._by_weight = np.cumsum(weights / weights.sum())
        counts = np.bincount(np.concatenate(histories), minlength=len(vectors))
        drawn = np.sqrt(counts)
        drawn /= drawn.sum()
        self._by_count = np.cumsum(drawn)
        paired = np.bincount(self._second, weights, len(vectors)) / weights.sum()
        with np.errstate(divide="ignore"):
            expected = self._batch * (paired + _DRAWN * drawn)
            self._frequency = np.log(expected).astype(np.float32)
        width = vectors.shape[1]
        rank = min(_RANK, width)
        small = self._rng.normal(0, 0.02, (2, width, rank)).astype(np.float32)
        self._parameters = [np.ones(width, np.float32), small[0], small[1]]
        self._adam = _Adam(self._parameters)
        self._rate = rate
        self.steps = steps or int(np.clip(self.pairs // _PAIRS_PER_STEP, *_STEPS))

    def learn(self, at_once: int = 50) -> Iterator[int]:
        """Learn in steps; yields how many were taken, again and again, until all are."""
        for start in range(0, self.steps, at_once):
            taken = min(at_once, self.steps - start)
            for step in range(start, start + taken):
                self._step(1 - step / self.steps)
            yield taken

    @property
    def matrix(self) -> FloatArray:
        """float32[dimensions, dimensions]: what a vector is multiplied with."""
        scale, up, down = self._parameters
        found: FloatArray = np.diag(scale) + down @ up.T
        return found

    def _step(self, share_left: float) -> None:
        first, second, pool = self._drawn()
        x, y = self._vectors[first], self._vectors[pool]
        from_x, from_y = self._mapped(x), self._mapped(y)
        scores: Floats = from_x[0] @ from_y[0].T / np.float32(_TEMPERATURE)
        scores -= np.float32(_POPULARITY) * self._frequency[pool]
        own = np.arange(len(first))
        same = (pool == second[:, None]) | (pool == first[:, None])
        same[own, own] = False
        scores[same] = -np.inf  # the right answer once more, or the question itself
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        scores[own, own] -= 1
        scores /= np.float32(len(first) * _TEMPERATURE)
        of_x = self._gradients(x, *from_x, scores @ from_y[0])
        of_y = self._gradients(y, *from_y, scores.T @ from_x[0])
        gradients = [one + other for one, other in zip(of_x, of_y, strict=True)]
        self._adam.step(gradients, self._rate * share_left)

    def _drawn(self) -> tuple[Rows, Rows, Rows]:
        """The two items of some pairs, and all items that the second one is told apart from."""
        last = len(self._first) - 1
        at = np.minimum(np.searchsorted(self._by_weight, self._rng.random(self._batch)), last)
        last = len(self._vectors) - 1
        more = np.minimum(
            np.searchsorted(self._by_count, self._rng.random(_DRAWN * self._batch)), last
        )
        second = self._second[at]
        return self._first[at], second, np.concatenate([second, more.astype(np.int32)])

    def _mapped(self, vectors: Floats) -> tuple[Floats, Floats]:
        """The vectors after the map, of length 1, and their lengths before that."""
        scale, up, down = self._parameters
        mapped = vectors * scale + (vectors @ down) @ up.T
        lengths: Floats = np.linalg.norm(mapped, axis=1, keepdims=True) + np.float32(1e-9)
        return mapped / lengths, lengths

    def _gradients(
        self, vectors: Floats, mapped: Floats, lengths: Floats, given: Floats
    ) -> list[Floats]:
        """Of each parameter, from those of the mapped vectors."""
        _, up, down = self._parameters
        inner = (given - mapped * (given * mapped).sum(axis=1, keepdims=True)) / lengths
        return [(inner * vectors).sum(axis=0), inner.T @ (vectors @ down), vectors.T @ (inner @ up)]


class _Adam:
    def __init__(self, parameters: Sequence[Floats]) -> None:
        self._parameters = parameters
        self._means = [np.zeros_like(one) for one in parameters]
        self._squares = [np.zeros_like(one) for one in parameters]
        self._steps = 0

    def step(self, gradients: Sequence[Floats], rate: float) -> None:
        """Change the parameters, in place."""
        self._steps += 1
        first, second = (np.float32(1 - beta**self._steps) for beta in _BETAS)
        for at, gradient in enumerate(gradients):
            parameter, mean, square = self._parameters[at], self._means[at], self._squares[at]
            mean += np.float32(1 - _BETAS[0]) * (gradient - mean)
            square += np.float32(1 - _BETAS[1]) * (gradient * gradient - square)
            parameter -= np.float32(rate) * (mean / first) / (np.sqrt(square / second) + 1e-8)


def _pairs(histories: Sequence[Rows]) -> tuple[Rows, Rows, npt.NDArray[np.float64]]:
    """The items of all pairs that are at most so many steps apart, and what each pair weighs."""
    firsts, seconds, weights = [], [], []
    for distance in range(1, _REACH + 1):
        some = [history for history in histories if len(history) > distance]
        firsts += [history[:-distance] for history in some]
        seconds += [history[distance:] for history in some]
        weights += [np.full(sum(len(each) - distance for each in some), 1 / distance)]
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(weights)
