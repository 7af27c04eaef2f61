"""Protocols that hold out the last event of a reader."""

from collections.abc import Mapping, Sequence
from random import Random

from app.evaluation.case import Case, Question
from app.evaluation.dataset import Dataset, Reader
from app.evaluation.protocols.sampling import Split, bucket_of, sample, some, training_before


def leave_last_out(
    data: Dataset,
    *,
    seed: int = 0,
    readers: int | None = None,
    min_events: int = 5,
    given_candidates: bool = False,
) -> Split:
    """The last event of each reader, over the whole catalogue.

    Trained systems see no last event of anyone who could have been asked, so they learn the same
    however many `readers` are. With `given_candidates` the candidates are the data set's own, and
    readers without any are not asked; a target that is not among them is missed.
    """
    able = _able(data, min_events)
    asked = [reader for reader in able if reader.candidates or not given_candidates]
    cases = [
        _case(reader, candidates=reader.candidates if given_candidates else None)
        for reader in sample(asked, readers, seed)
    ]
    lacking = f"no reader has {min_events} events" + (" and candidates" * given_candidates)
    return training_before(data, _ends(able)), some(cases, data, lacking)


def paper(
    data: Dataset,
    leaves: Mapping[str, str],
    *,
    seed: int = 0,
    readers: int | None = 500,
    history_limit: int = 50,
    leaf_limit: int = 50,
    min_events: int = 5,
) -> Split:
    """The paper's protocol (§4.1), without its leak.

    `leaves` says in which leaf of the tree each item is. From a leaf with more than `leaf_limit`
    items as many are drawn, by the seed and before anyone looks at a target: a target that was not
    drawn is missed. The released code puts the targets in first. Events older than the last
    `history_limit` are not told, but excluded from the answer like all that was seen.
    """
    able = _able(data, min_events)
    candidates = _capped(data, leaves, leaf_limit, seed)
    cases = [
        _case(reader, history_limit, candidates=candidates)
        for reader in sample(able, readers, seed)
    ]
    lacking = f"no reader has {min_events} events"
    return training_before(data, _ends(able)), some(cases, data, lacking)


def exclusion(
    data: Dataset,
    *,
    seed: int = 0,
    readers: int | None = None,
    share: float = 0.5,
    min_events: int = 5,
) -> Split:
    """A share of the catalogue is excluded; asked are readers whose last event is of the rest.

    Which items are excluded depends on the seed alone.
    """
    ids = sorted(item.id for item in data.items)
    excluded = frozenset(sample(ids, round(share * len(ids)), seed))
    able = _able(data, min_events)
    asked = [reader for reader in able if reader.history[-1] not in excluded]
    cases = [_case(reader, excluded=excluded) for reader in sample(asked, readers, seed)]
    lacking = f"no reader has {min_events} events, the last of them not excluded"
    return training_before(data, _ends(able)), some(cases, data, lacking)


def _able(data: Dataset, min_events: int) -> list[Reader]:
    return [reader for reader in data.readers if len(reader.history) >= max(min_events, 2)]


def _ends(readers: Sequence[Reader]) -> dict[str, int]:
    return {reader.id: len(reader.history) - 1 for reader in readers}


def _case(
    reader: Reader,
    history_limit: int | None = None,
    *,
    candidates: tuple[str, ...] | None = None,
    excluded: frozenset[str] = frozenset(),
) -> Case:
    told = reader.history[:-1]
    if history_limit is not None and len(told) > history_limit:
        excluded |= frozenset(told[:-history_limit])
        told = told[-history_limit:]
    question = Question(reader.id, told, reader.profile, candidates, excluded)
    return Case(question, frozenset(reader.history[-1:]), bucket_of(len(told)))


def _capped(
    data: Dataset, leaves: Mapping[str, str], leaf_limit: int, seed: int
) -> tuple[str, ...]:
    """At most `leaf_limit` items of each leaf, in the order of the catalogue."""
    members: dict[str, list[str]] = {}
    for item in data.items:
        if item.id in leaves:
            members.setdefault(leaves[item.id], []).append(item.id)
    kept: set[str] = set()
    for leaf, ids in members.items():
        kept.update(
            Random(f"{seed}/{leaf}").sample(sorted(ids), leaf_limit)
            if len(ids) > leaf_limit
            else ids
        )
    return tuple(item.id for item in data.items if item.id in kept)
