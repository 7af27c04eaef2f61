"""Protocols that need more than the order of events: their times, or what was shown."""

from bisect import bisect_right
from random import Random

import numpy as np

from app.evaluation.case import Case, Question
from app.evaluation.dataset import DataError, Dataset, Impression, Reader
from app.evaluation.protocols.sampling import Split, bucket_of, sample, some, training_before


def temporal(
    data: Dataset,
    *,
    seed: int = 0,
    readers: int | None = None,
    quantile: float = 0.8,
    min_history: int = 1,
    only_next: bool = False,
) -> Split:
    """What readers do after a moment, from what everyone did up to it.

    The moment is that by which a share `quantile` of all events were over. Targets are all later
    events of a reader, or the next one. Readers whose events have no times play no part. A reader
    has each item once, at its last event: something done before and after the moment is a target,
    and no part of the history.

    Raises DataError where there are no times.
    """
    timed = [reader for reader in data.readers if reader.times]
    if not timed:
        raise DataError(
            f"{data.name}: a temporal split needs the time of each event; expected timestamps in "
            f"the data, or another protocol."
        )
    moment = float(
        np.quantile(
            np.concatenate([reader.times for reader in timed]), quantile, method="inverted_cdf"
        )
    )
    ends = {reader.id: bisect_right(reader.times, moment) for reader in timed}
    able = [r for r in timed if min_history <= ends[r.id] < len(r.history)]
    cases = [
        _case(reader, ends[reader.id], ends[reader.id] + 1 if only_next else None)
        for reader in sample(able, readers, seed)
    ]
    untimed = {reader.id: 0 for reader in data.readers if not reader.times}
    lacking = f"no reader has {min_history} events up to that moment, and one after it"
    return training_before(data, ends | untimed), some(cases, data, lacking)


def impressions(
    data: Dataset, *, seed: int = 0, readers: int | None = None, min_history: int = 1
) -> Split:
    """Which of the items that were shown a reader chose, at the last time they chose any.

    Candidates are the items shown but not seen before, shuffled: their order in the files may tell
    of the choice. Trained systems see nothing that anyone who could be asked did from then on.

    Raises DataError where the data do not say what was shown.
    """
    if not any(reader.impressions for reader in data.readers):
        raise DataError(
            f"{data.name}: the data do not say what was shown; expected impressions, or another "
            f"protocol."
        )
    last = {reader.id: shown for reader in data.readers if (shown := _last_choice(reader))}
    able = [r for r in data.readers if r.id in last and last[r.id].seen_before >= min_history]
    cases = [_choice(reader, last[reader.id], seed) for reader in sample(able, readers, seed)]
    ends = {name: shown.seen_before for name, shown in last.items()}
    lacking = f"no reader with {min_history} events chose something new among others"
    return training_before(data, ends), some(cases, data, lacking)


def _case(reader: Reader, end: int, until: int | None) -> Case:
    question = Question(reader.id, reader.history[:end], reader.profile)
    return Case(question, frozenset(reader.history[end:until]), bucket_of(end))


def _last_choice(reader: Reader) -> Impression | None:
    """The last impression with something new that was chosen, and something that was not."""
    for each in sorted(reader.impressions, key=lambda shown: -shown.seen_before):
        new = frozenset(each.shown).difference(reader.history[: each.seen_before])
        if new & each.chosen and new - each.chosen:
            return each
    return None


def _choice(reader: Reader, last: Impression, seed: int) -> Case:
    history = reader.history[: last.seen_before]
    candidates = sorted(frozenset(last.shown).difference(history))
    Random(f"{seed}/{reader.id}").shuffle(candidates)
    question = Question(reader.id, history, reader.profile, tuple(candidates))
    return Case(question, last.chosen.intersection(candidates), bucket_of(len(history)))
