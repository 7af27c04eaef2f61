"""`Trained`: neural recommenders, trained on the CPU. Only this package imports torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from app.evaluation.case import Query
from app.evaluation.systems.scoring_baseline import Progress, Scores, ScoringBaseline, library

if TYPE_CHECKING:
    from app.evaluation.systems.trained.loop import Limits, Network

Architecture = Literal["sasrec", "nrms", "fm", "deepfm"]


class Trained(ScoringBaseline):
    """A neural network; see `networks` for the architectures and `loop` for the training.

    Users need no training data: they are scored from their histories.
    """

    def __init__(
        self,
        name: str,
        architecture: Architecture,
        *,
        epochs: int = 50,
        seconds: float = 900,
        share: float = 1.0,
        seed: int = 0,
        progress: Progress = lambda _, __: None,
    ) -> None:
        super().__init__(name, share=share, seed=seed)
        library("torch", "baselines")
        if architecture == "sasrec":
            library("cornac", "baselines")
        self._architecture = architecture
        self._epochs = epochs
        self._seconds = seconds
        self._progress = progress
        self._network: Network | None = None
        self.epochs_trained = 0

    def learn(self) -> None:
        """Train on most users; the others decide when to stop."""
        from app.evaluation.systems.trained import loop, networks

        loop.begin(self.seed)
        self._network = networks.network_of(self._architecture, self._items)
        limits: Limits = loop.Limits(self._epochs, self._seconds)
        self.epochs_trained = loop.train(
            self._network,
            self._histories,
            limits,
            self.seed,
            lambda done: self._progress(self.name, done),
        )

    def score(self, queries: Sequence[Query]) -> Scores:
        """See ScoringBaseline."""
        from app.evaluation.systems.trained import loop

        histories = [self._known(query.history) for query in queries]
        scores = np.full((len(queries), len(self._items)), -np.inf, np.float32)
        known = [at for at, history in enumerate(histories) if history]
        if known and self._network is not None:
            scores[known] = loop.scores(self._network, [histories[at] for at in known])
        return scores
