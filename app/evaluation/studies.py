"""The studies: which trials answer which question. Each figure of the paper has one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product, zip_longest
from typing import TypedDict

from app.evaluation import protocols
from app.evaluation.case import Case, Training
from app.evaluation.choices import (
    CUTOFFS,
    DIVERSITIES,
    PER_LEAF,
    SHARES,
    SIZES,
    DomainBy,
    Protocol,
)
from app.evaluation.dataset import Dataset, Skipped
from app.evaluation.growth import resized
from app.evaluation.metrics import topics_of
from app.evaluation.protocols import Split
from app.evaluation.report.rows import Scalar
from app.evaluation.systems import UnknownSystem
from app.evaluation.trials import Trial
from prompts import PERSPECTIVES

_EFFORTS = ("economy", "balanced", "quality")
_TOKEN_READERS = 20
_TOKEN_FEWEST = 5
_TOKEN_HISTORY = 10  # as many as make up a need
_PAPER_READERS = 500  # §4.1


class _Common(TypedDict):
    seed: int
    readers: int | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What all studies need to know: of which data, of how many readers, with which seed.

    `leaves` gives the leaf of every item in the tree of the catalogue: the paper's protocol, which
    cuts leaves, takes it for items that have no categories. `source` and `target` are domains,
    told apart `by` what items state of them; empty for the two with the most events. Of `data`
    only events with `min_rating` were read.
    """

    data: Dataset
    readers: int | None = 1_000
    seed: int = 0
    leaves: Callable[[], dict[str, str]] = dict
    source: str = ""
    target: str = ""
    natural: bool = False
    by: DomainBy = DomainBy.DOMAIN
    min_rating: float | None = None

    def split(self, protocol: Protocol) -> Split:
        """Raises DataError where the data do not have what the protocol needs."""
        common: _Common = {"seed": self.seed, "readers": self.readers}
        made: dict[Protocol, Callable[[], Split]] = {
            Protocol.LEAVE_LAST_OUT: lambda: protocols.leave_last_out(self.data, **common),
            Protocol.CANDIDATES: lambda: protocols.leave_last_out(
                self.data, **common, given_candidates=True
            ),
            Protocol.TEMPORAL: lambda: protocols.temporal(self.data, **common),
            Protocol.PAPER: lambda: protocols.paper(
                self.data,
                self._paper_leaves(),
                seed=self.seed,
                readers=self._most(protocol),
            ),
            Protocol.IMPRESSIONS: lambda: protocols.impressions(self.data, **common),
            Protocol.EXCLUSION: lambda: protocols.exclusion(self.data, **common),
            Protocol.COLDSTART: lambda: protocols.coldstart(
                self.data, **common, natural=self.natural
            ),
            Protocol.CROSSDOMAIN: lambda: protocols.crossdomain(
                self.data, self.source, self.target, by=self.by, **common
            ),
        }
        return made[protocol]()

    def trials(
        self,
        study: str,
        protocol: Protocol,
        systems: Sequence[str],
        *,
        cutoffs: Sequence[int] = (10, 20),
    ) -> list[Trial]:
        """One for each system, on one split."""
        split = self.split(protocol)
        settings = {"readers": self._most(protocol)} | self.told()
        if protocol is Protocol.CROSSDOMAIN:
            settings |= {"source": self.source, "target": self.target, "by": self.by}
        if protocol is Protocol.COLDSTART:
            settings["natural"] = self.natural
        return [
            Trial(study, protocol, system, split, settings, cutoffs=tuple(cutoffs))
            for system in systems
        ]

    def told(self) -> dict[str, Scalar]:
        """What matters under every protocol."""
        return {} if self.min_rating is None else {"min_rating": self.min_rating}

    def _most(self, protocol: Protocol) -> int | None:
        """How many readers are asked at most."""
        if protocol is Protocol.PAPER:
            return min(self.readers or _PAPER_READERS, _PAPER_READERS)
        return self.readers

    def _paper_leaves(self) -> Mapping[str, str]:
        """Every item's subcategory, as in the paper (§3.1.4), or its leaf in our tree."""
        topics = topics_of(self.data.items)
        ours = {} if all(topics) else self.leaves()
        return {
            item.id: "\0".join(topic) or f"\0{ours.get(item.id, '')}"
            for item, topic in zip(self.data.items, topics, strict=True)
        }


@dataclass(frozen=True, slots=True)
class Draft(Asked):
    """A study before there are data: its trials have systems and no cases.

    So a wrong name is told before anything is read.
    """

    data: Dataset = field(default_factory=lambda: Dataset("", (), (), Skipped(), {}))

    def split(self, protocol: Protocol) -> Split:  # noqa: ARG002
        """Nobody is asked."""
        return Training((), ()), []


def compare(asked: Asked, protocol: Protocol, systems: Sequence[str]) -> list[Trial]:
    """Systems side by side (the paper's table 2)."""
    return asked.trials("compare", protocol, systems)


def training(
    asked: Asked, systems: Sequence[str], zero_shot: Sequence[str], shares: Sequence[float] = SHARES
) -> list[Trial]:
    """How much training data it takes to catch up with those who need none (figure 4)."""
    trials = asked.trials("training", Protocol.LEAVE_LAST_OUT, [*zero_shot, *systems])
    fixed, learned = trials[: len(zero_shot)], trials[len(zero_shot) :]
    return fixed + [
        _set(trial, "share", share, "training_share") for trial, share in product(learned, shares)
    ]


def k(asked: Asked, systems: Sequence[str], per_leaf: Sequence[int] = PER_LEAF) -> list[Trial]:
    """Quality by the length of the list; of the paper's search, by items per leaf (figure 6)."""
    trials = asked.trials("k", Protocol.LEAVE_LAST_OUT, systems, cutoffs=CUTOFFS)
    for trial in [trial for trial in trials if _name(trial.system) == "paper"]:
        trials.remove(trial)
        trials += [_set(trial, "k", items) for items in per_leaf]
    return trials


def prompts(asked: Asked, systems: Sequence[str]) -> list[Trial]:
    """The four perspectives from which a model can be asked (figure 7)."""
    trials = asked.trials("prompts", Protocol.LEAVE_LAST_OUT, systems)
    return [
        _set(trial, "perspective", perspective)
        for trial, perspective in product(trials, PERSPECTIVES)
    ]


def tokens(asked: Asked, sizes: Sequence[int] = SIZES) -> Iterator[Trial]:
    """What prompts cost, by stage, as the catalogue grows (figure 8).

    Larger catalogues than the data's are made up of it, smaller ones are samples, each a part of
    the next larger. The same readers are asked at every size, if there are enough such as did five
    things, of the same history: their newest events, as many as the smallest catalogue holds,
    which takes those before any other item.
    """
    _, able = asked.split(Protocol.LEAVE_LAST_OUT)
    cases = sorted(able, key=lambda case: len(case.question.history) < _TOKEN_FEWEST)
    cases = cases[:_TOKEN_READERS]
    told = [case.question.history[: -_TOKEN_HISTORY - 1 : -1] for case in cases]
    first = [item for layer in zip_longest(*told) for item in layer if item is not None]
    smallest = resized(asked.data.items, min(sizes), seed=asked.seed, first=first)
    held = {item.id for item in smallest}
    cases = [case for case in (_within(case, held) for case in cases) if case]
    systems = [f"beam:effort={effort}" for effort in _EFFORTS]
    for size in sizes:
        items = resized(asked.data.items, size, seed=asked.seed, first=first)
        for system in [*systems, "paper", "flat"]:
            yield Trial(
                "tokens",
                Protocol.LEAVE_LAST_OUT,
                system,
                (Training(items, ()), cases),
                {"readers": _TOKEN_READERS, "among": asked.readers, "smallest": min(sizes)}
                | asked.told(),
                {"catalogue_size": size},
                measured=False,
            )


def topics(
    asked: Asked, systems: Sequence[str], diversities: Sequence[float] = DIVERSITIES
) -> list[Trial]:
    """Topics of what is answered and of what was read (§3.6, figure 9), by diversity."""
    trials = asked.trials("topics", Protocol.LEAVE_LAST_OUT, systems)
    varied = []
    for trial in trials:
        if _name(trial.system) not in ("embedded", "beam"):
            varied.append(trial)
            continue
        varied += [_set(trial, "diversity", diversity) for diversity in diversities]
    return varied


def coldstart(asked: Asked, systems: Sequence[str]) -> list[Trial]:
    """How little a system needs to know of a reader (ProLLM4Rec): by length of history."""
    return asked.trials("coldstart", Protocol.COLDSTART, systems)


def crossdomain(asked: Asked, systems: Sequence[str]) -> list[Trial]:
    """From the history in one domain to items of another (LLM-Rec)."""
    return asked.trials("crossdomain", Protocol.CROSSDOMAIN, systems)


def _within(case: Case, held: set[str]) -> Case | None:
    """A case in a catalogue that lacks some items; None where nothing is left to be told."""
    history = [item for item in case.question.history if item in held][-_TOKEN_HISTORY:]
    if not history:
        return None
    return replace(case, question=replace(case.question, history=tuple(history)))


def _set(trial: Trial, name: str, value: float | str, axis: str = "") -> Trial:
    """The trial with a parameter that the study varies. Raises UnknownSystem if it has it."""
    _, _, given = trial.system.partition(":")
    if name in {part.partition("=")[0].strip() for part in given.split(",")}:
        raise UnknownSystem(
            f"{trial.system!r}: the study {trial.study!r} varies {name} itself; leave it out"
        )
    said = f"{value:g}" if isinstance(value, float) else str(value)
    return replace(trial, varied=f"{name}={said}", parameters={axis or name: value})


def _name(system: str) -> str:
    return system.partition(":")[0]
