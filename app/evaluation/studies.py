"""The studies: which trials answer which question. Each figure of the paper has one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TypedDict

from app.evaluation import protocols
from app.evaluation.case import Case, Training
from app.evaluation.choices import CUTOFFS, DIVERSITIES, PER_LEAF, SHARES, SIZES, Protocol
from app.evaluation.dataset import Dataset
from app.evaluation.growth import resized
from app.evaluation.protocols import Split
from app.evaluation.report.rows import Scalar
from app.evaluation.trials import Trial
from prompts import PERSPECTIVES

_EFFORTS = ("economy", "balanced", "quality")
_TOKEN_READERS = 20
_PAPER_READERS = 500  # §4.1


class _Common(TypedDict):
    seed: int
    readers: int | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What all studies need to know: of which data, of how many readers, with which seed.

    `leaves` gives the leaf of every item in the tree of the catalogue: the paper's protocol cuts
    them. `source` and `target` are domains; empty for the two with the most events.
    """

    data: Dataset
    readers: int | None = 1_000
    seed: int = 0
    leaves: Callable[[], dict[str, str]] = dict
    source: str = ""
    target: str = ""
    natural: bool = False

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
                self.leaves(),
                seed=self.seed,
                readers=min(self.readers or _PAPER_READERS, _PAPER_READERS),
            ),
            Protocol.IMPRESSIONS: lambda: protocols.impressions(self.data, **common),
            Protocol.EXCLUSION: lambda: protocols.exclusion(self.data, **common),
            Protocol.COLDSTART: lambda: protocols.coldstart(
                self.data, **common, natural=self.natural
            ),
            Protocol.CROSSDOMAIN: lambda: protocols.crossdomain(
                self.data, self.source, self.target, **common
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
        settings: dict[str, Scalar] = {"readers": self.readers}
        if protocol is Protocol.CROSSDOMAIN:
            settings |= {"source": self.source, "target": self.target}
        if protocol is Protocol.COLDSTART:
            settings["natural"] = self.natural
        return [
            Trial(study, protocol, system, split, settings, cutoffs=tuple(cutoffs))
            for system in systems
        ]


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
        replace(
            trial,
            varied=f"share={share:g}",
            parameters={"training_share": share},
        )
        for trial, share in product(learned, shares)
    ]


def k(asked: Asked, systems: Sequence[str], per_leaf: Sequence[int] = PER_LEAF) -> list[Trial]:
    """Quality by the length of the list; of the paper's search, by items per leaf (figure 6)."""
    trials = asked.trials("k", Protocol.LEAVE_LAST_OUT, systems, cutoffs=CUTOFFS)
    for trial in [trial for trial in trials if _name(trial.system) == "paper"]:
        trials.remove(trial)
        trials += [
            replace(trial, varied=f"k={items}", parameters={"k": items}) for items in per_leaf
        ]
    return trials


def prompts(asked: Asked, systems: Sequence[str]) -> list[Trial]:
    """The four perspectives from which a model can be asked (figure 7)."""
    trials = asked.trials("prompts", Protocol.LEAVE_LAST_OUT, systems)
    return [
        replace(
            trial,
            varied=f"perspective={perspective}",
            parameters={"perspective": perspective},
        )
        for trial, perspective in product(trials, PERSPECTIVES)
    ]


def tokens(asked: Asked, sizes: Sequence[int] = SIZES) -> Iterator[Trial]:
    """What prompts cost, by stage, as the catalogue grows (figure 8).

    Larger catalogues than the data's are made up of it, smaller ones are samples. The same
    readers are asked, of the history that the smallest catalogue has.
    """
    split = protocols.leave_last_out(asked.data, seed=asked.seed, readers=asked.readers)
    systems = [f"beam:effort={effort}" for effort in _EFFORTS]
    for size in sizes:
        items = resized(asked.data.items, size, seed=asked.seed)
        held = {item.id for item in items}
        cases = [case for case in (_within(case, held) for case in split[1]) if case]
        for system in [*systems, "paper", "flat"]:
            yield Trial(
                "tokens",
                Protocol.LEAVE_LAST_OUT,
                system,
                (Training(items, ()), cases[:_TOKEN_READERS]),
                {"readers": asked.readers},
                {"catalogue_size": size},
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
        varied += [
            replace(
                trial,
                varied=f"diversity={diversity:g}",
                parameters={"diversity": diversity},
            )
            for diversity in diversities
        ]
    return varied


def coldstart(asked: Asked, systems: Sequence[str]) -> list[Trial]:
    """How little a system needs to know of a reader (ProLLM4Rec): by length of history."""
    return asked.trials("coldstart", Protocol.COLDSTART, systems)


def crossdomain(asked: Asked, systems: Sequence[str]) -> list[Trial]:
    """From the history in one domain to items of another (LLM-Rec)."""
    return asked.trials("crossdomain", Protocol.CROSSDOMAIN, systems)


def _within(case: Case, held: set[str]) -> Case | None:
    """A case in a catalogue that lacks some items; None where nothing is left to be told."""
    history = tuple(item for item in case.question.history if item in held)
    if not history:
        return None
    return replace(case, question=replace(case.question, history=history))


def _name(system: str) -> str:
    return system.partition(":")[0]
