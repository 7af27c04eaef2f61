"""`Trained`: neural recommenders, trained on the CPU. Nobody else imports torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from app.evaluation.case import Question
from app.evaluation.systems.scored import Progress, Scored, Scores, library

if TYPE_CHECKING:
    from app.evaluation.systems.trained.loop import Limits, Network

Architecture = Literal["sasrec", "nrms", "fm", "deepfm"]


class Trained(Scored):
    """See `networks` for the architectures and `loop` for how they are trained.

    Readers who were not in the training are scored from their histories alone.
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
        """Train, on all but a slice of the readers on which it is seen when to stop."""
        from app.evaluation.systems.trained import loop, networks

        loop.begin(self.seed)
        self._network = networks.made(self._architecture, self._items)
        limits: Limits = loop.Limits(self._epochs, self._seconds)
        self.epochs_trained = loop.train(
            self._network,
            self._histories,
            limits,
            self.seed,
            lambda done: self._progress(self.name, done),
        )

    def score(self, questions: Sequence[Question]) -> Scores:
        """See Scored."""
        from app.evaluation.systems.trained import loop

        histories = [self._known(question.history) for question in questions]
        scores = np.full((len(questions), len(self._items)), -np.inf, np.float32)
        told = [at for at, history in enumerate(histories) if history]
        if told and self._network is not None:
            scores[told] = loop.scores(self._network, [histories[at] for at in told])
        return scores
