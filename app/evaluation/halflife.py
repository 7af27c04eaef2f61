"""`HalfLifeStudy`: which half-life of counts, and which weights of events, suit a data set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from app.evaluation.choices import HALF_LIVES_DAYS, Protocol
from app.evaluation.protocols import Split
from app.evaluation.report import ResultRow
from app.evaluation.studies import StudyInput
from app.evaluation.trials import Trial
from app.settings import Settings

_POPULARITY = (0.025, 0.1, 0.4, 1.0)
_COOCCURRENCE = (0.0, 5.0, 10.0)  # besides that of the settings
_METRIC = "ndcg@20"


@dataclass(frozen=True, slots=True)
class FadingChoice:
    """A half-life in days, 0 for none, and what counts and pairs weigh."""

    half_life_days: float
    popularity_weight: float
    cooccurrence_weight: float

    @property
    def system(self) -> str:
        """The system of the evaluation with this choice."""
        return (
            f"embedded:half_life_days={self.half_life_days:.6g},"
            f"popularity_weight={self.popularity_weight:g},"
            f"cooccurrence_weight={self.cooccurrence_weight:g}"
        )


@dataclass
class HalfLifeStudy:
    """Chooses on one half of the users, and measures the choice on the other.

    First half-life and popularity together, then co-occurrence: popularity of the last hours is
    worth more than that of all time, and what others had long ago may be worth less. Every user is
    asked at the time of their target (see Replay). `add` takes the row of each trial.
    """

    given: StudyInput
    settings: Settings = field(default_factory=Settings)
    half_lives: Sequence[float] = HALF_LIVES_DAYS
    chosen: FadingChoice | None = None
    gain: ResultRow | None = None  # of the choice on the other half, against no fading at all
    _tried: dict[FadingChoice, float] = field(default_factory=dict)
    _last: FadingChoice | None = None

    @property
    def plain(self) -> FadingChoice:
        """No fading, and the weights of the settings."""
        return FadingChoice(0, self.settings.popularity_weight, self.settings.cooccurrence_weight)

    def trials(self) -> Iterator[Trial]:
        """The trials; each depends on the rows of those before it. Raises DataError."""
        training, cases = self.given.split(Protocol.LEAVE_LAST_OUT)
        first, second = (training, cases[::2]), (training, cases[1::2])
        weights = sorted({*_POPULARITY, self.plain.popularity_weight})
        tried = [self.plain]
        tried += [
            replace(self.plain, half_life_days=days, popularity_weight=weight)
            for days in self.half_lives
            for weight in weights
        ]
        for choice in dict.fromkeys(tried):
            yield self._trial(choice, first, "first")
        for weight in _COOCCURRENCE:
            yield self._trial(replace(self._best, cooccurrence_weight=weight), first, "first")
        self.chosen = self._best
        for choice in dict.fromkeys((self.plain, self.chosen)):
            yield self._trial(choice, second, "second")

    def add(self, row: ResultRow) -> None:
        """Take the row of the newest trial."""
        if self._last is None:
            return
        if row.run.settings["half"] == "first":
            self._tried[self._last] = row.metrics[_METRIC].value
        elif self._last == self.chosen:
            self.gain = row

    @property
    def is_better(self) -> bool:
        """Whether the choice is better than no fading on users that it was not chosen on."""
        against = self.gain.against.values() if self.gain is not None else ()
        return any(one[_METRIC].difference.low > 0 for one in against)

    @property
    def _best(self) -> FadingChoice:
        """The best choice so far; of equals, the one that was tried first."""
        return max(self._tried, key=lambda choice: self._tried[choice])

    def _trial(self, choice: FadingChoice, split: Split, half: str) -> Trial:
        self._last = choice
        settings = {"readers": self.given.users, "half": half} | self.given.common_settings()
        return Trial("halflife", Protocol.LEAVE_LAST_OUT, choice.system, split, settings)
