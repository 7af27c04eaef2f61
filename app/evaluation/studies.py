"""The studies: each compares systems along one parameter, as a figure of the paper does."""

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
from app.evaluation.report.result_row import Scalar
from app.evaluation.systems import UnknownSystem
from app.evaluation.trials import Trial
from prompts import PERSPECTIVES

_EFFORTS = ("economy", "balanced")
_TOKEN_USERS = 20
_TOKEN_FEWEST = 5
_TOKEN_HISTORY = 10  # as many as the service shows to a model
_PAPER_USERS = 500  # §4.1
_FEWEST_TOPICS = 2


class _Common(TypedDict):
    seed: int
    users: int | None


@dataclass(frozen=True, slots=True)
class StudyInput:
    """What all studies need: the data, the number of users, the seed.

    `leaves` gives the leaf of each item in the service's tree; the paper's protocol uses it for a
    catalogue without categories. `source` and `target` are domains, determined `by` a field of the
    items; empty for the two with the most events; with `unseen`, nobody's events in the target
    domain are learned from. `min_rating` was used when `data` were read.
    """

    data: Dataset
    users: int | None = 1_000
    seed: int = 0
    leaves: Callable[[], dict[str, str]] = dict
    source: str = ""
    target: str = ""
    natural: bool = False
    by: DomainBy = DomainBy.DOMAIN
    unseen: bool = False
    min_rating: float | None = None

    def split(self, protocol: Protocol) -> Split:
        """The data, split by a protocol. Raises DataError where the protocol needs other data."""
        common: _Common = {"seed": self.seed, "users": self.users}
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
                users=self._user_limit(protocol),
            ),
            Protocol.IMPRESSIONS: lambda: protocols.impressions(self.data, **common),
            Protocol.EXCLUSION: lambda: protocols.exclusion(self.data, **common),
            Protocol.COLDSTART: lambda: protocols.coldstart(
                self.data, **common, natural=self.natural
            ),
            Protocol.COLD_ITEMS: lambda: protocols.cold_items(self.data, **common),
            Protocol.CROSSDOMAIN: lambda: protocols.crossdomain(
                self.data, self.source, self.target, by=self.by, unseen=self.unseen, **common
            ),
            Protocol.COMPLEMENT: lambda: protocols.complement(self.data, self._groups(), **common),
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
        """One trial per system, all on the same split."""
        split = self.split(protocol)
        settings = {"readers": self._user_limit(protocol)} | self.common_settings()
        if protocol is Protocol.CROSSDOMAIN:
            settings |= {"source": self.source, "target": self.target, "by": self.by}
            settings |= {"unseen": True} if self.unseen else {}
        if protocol is Protocol.COLDSTART:
            settings["natural"] = self.natural
        return [
            Trial(study, protocol, system, split, settings, cutoffs=tuple(cutoffs))
            for system in systems
        ]

    def common_settings(self) -> dict[str, Scalar]:
        """The settings that are the same for every protocol."""
        return {} if self.min_rating is None else {"min_rating": self.min_rating}

    def _user_limit(self, protocol: Protocol) -> int | None:
        """The largest number of users; None for all."""
        if protocol is Protocol.PAPER:
            return min(self.users or _PAPER_USERS, _PAPER_USERS)
        return self.users

    def _groups(self) -> Mapping[str, str]:
        """The subcategory of each item; its leaf in our tree where the data have fewer than two."""
        topics = topics_of(self.data.items)
        if len(set(topics)) < _FEWEST_TOPICS:
            return self.leaves()
        return {
            item.id: "\0".join(topic) for item, topic in zip(self.data.items, topics, strict=True)
        }

    def _paper_leaves(self) -> Mapping[str, str]:
        """The subcategory of each item, as in the paper (§3.1.4), or its leaf in our tree."""
        topics = topics_of(self.data.items)
        ours = {} if all(topics) else self.leaves()
        return {
            item.id: "\0".join(topic) or f"\0{ours.get(item.id, '')}"
            for item, topic in zip(self.data.items, topics, strict=True)
        }


@dataclass(frozen=True, slots=True)
class EmptyStudyInput(StudyInput):
    """Input without data: trials have systems and no cases.

    With it, wrong names of systems are found before any file is read.
    """

    data: Dataset = field(default_factory=lambda: Dataset("", (), (), Skipped(), {}))

    def split(self, protocol: Protocol) -> Split:  # noqa: ARG002
        """An empty split."""
        return Training((), ()), []


def compare(study_input: StudyInput, protocol: Protocol, systems: Sequence[str]) -> list[Trial]:
    """Compares systems on one protocol (table 2 of the paper)."""
    return study_input.trials("compare", protocol, systems)


def training(
    study_input: StudyInput,
    systems: Sequence[str],
    zero_shot: Sequence[str],
    shares: Sequence[float] = SHARES,
) -> list[Trial]:
    """How much training data others need to reach the systems that need none (figure 4)."""
    trials = study_input.trials("training", Protocol.LEAVE_LAST_OUT, [*zero_shot, *systems])
    fixed, learned = trials[: len(zero_shot)], trials[len(zero_shot) :]
    return fixed + [
        _with_parameter(trial, "share", share, "training_share")
        for trial, share in product(learned, shares)
    ]


def k(
    study_input: StudyInput, systems: Sequence[str], per_leaf: Sequence[int] = PER_LEAF
) -> list[Trial]:
    """Quality by length of the list, and by items per leaf for the system `paper` (figure 6)."""
    trials = study_input.trials("k", Protocol.LEAVE_LAST_OUT, systems, cutoffs=CUTOFFS)
    for trial in [trial for trial in trials if _name(trial.system) == "paper"]:
        trials.remove(trial)
        trials += [_with_parameter(trial, "k", items) for items in per_leaf]
    return trials


def prompts(study_input: StudyInput, systems: Sequence[str]) -> list[Trial]:
    """The four perspectives of the prompts (figure 7)."""
    trials = study_input.trials("prompts", Protocol.LEAVE_LAST_OUT, systems)
    return [
        _with_parameter(trial, "perspective", perspective)
        for trial, perspective in product(trials, PERSPECTIVES)
    ]


def tokens(study_input: StudyInput, sizes: Sequence[int] = SIZES) -> Iterator[Trial]:
    """Tokens of prompts, by stage and size of the catalogue (figure 8).

    Larger catalogues have made-up items, smaller ones are samples; each is part of the next larger.
    Every size has the same users with the same history: users with five events come first, and
    the smallest catalogue takes the items of their newest events before any other item.
    """
    _, eligible = study_input.split(Protocol.LEAVE_LAST_OUT)
    cases = sorted(eligible, key=lambda case: len(case.query.history) < _TOKEN_FEWEST)
    cases = cases[:_TOKEN_USERS]
    histories = [case.query.history[: -_TOKEN_HISTORY - 1 : -1] for case in cases]
    first = [item for layer in zip_longest(*histories) for item in layer if item is not None]
    smallest = resized(study_input.data.items, min(sizes), seed=study_input.seed, first=first)
    available = {item.id for item in smallest}
    cases = [case for case in (_restricted(case, available) for case in cases) if case]
    systems = [f"beam:effort={effort}" for effort in _EFFORTS]
    for size in sizes:
        items = resized(study_input.data.items, size, seed=study_input.seed, first=first)
        for system in [*systems, "walk", "paper", "flat"]:
            yield Trial(
                "tokens",
                Protocol.LEAVE_LAST_OUT,
                system,
                (Training(items, ()), cases),
                {"readers": _TOKEN_USERS, "among": study_input.users, "smallest": min(sizes)}
                | study_input.common_settings(),
                {"catalogue_size": size},
                measured=False,
            )


def topics(
    study_input: StudyInput, systems: Sequence[str], diversities: Sequence[float] = DIVERSITIES
) -> list[Trial]:
    """Topics of answers and of histories (§3.6, figure 9), by diversity."""
    trials = study_input.trials("topics", Protocol.LEAVE_LAST_OUT, systems)
    varied = []
    for trial in trials:
        if _name(trial.system) not in ("embedded", "beam"):
            varied.append(trial)
            continue
        varied += [_with_parameter(trial, "diversity", diversity) for diversity in diversities]
    return varied


def cold_items(study_input: StudyInput, systems: Sequence[str]) -> list[Trial]:
    """Quality for items that no training history has, and for the others."""
    return study_input.trials("cold-items", Protocol.COLD_ITEMS, systems)


def coldstart(study_input: StudyInput, systems: Sequence[str]) -> list[Trial]:
    """Quality by length of the history (ProLLM4Rec)."""
    return study_input.trials("coldstart", Protocol.COLDSTART, systems)


def crossdomain(study_input: StudyInput, systems: Sequence[str]) -> list[Trial]:
    """Recommends items of one domain from a history in another (LLM-Rec)."""
    return study_input.trials("crossdomain", Protocol.CROSSDOMAIN, systems)


def _restricted(case: Case, available: set[str]) -> Case | None:
    """The case with the available items of its history; None where there are none."""
    history = [item for item in case.query.history if item in available][-_TOKEN_HISTORY:]
    if not history:
        return None
    return replace(case, query=replace(case.query, history=tuple(history)))


def _with_parameter(trial: Trial, name: str, value: float | str, axis: str = "") -> Trial:
    """The trial with a parameter set. Raises UnknownSystem where the system names it already."""
    _, _, given = trial.system.partition(":")
    if name in {part.partition("=")[0].strip() for part in given.split(",")}:
        raise UnknownSystem(
            f"{trial.system!r}: the study {trial.study!r} varies {name} itself; leave it out"
        )
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return replace(trial, varied=f"{name}={text}", parameters={axis or name: value})


def _name(system: str) -> str:
    return system.partition(":")[0]
