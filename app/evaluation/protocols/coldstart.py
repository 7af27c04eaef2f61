"""`coldstart`: how little a system needs to know of a reader."""

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random

from app.evaluation.case import Case, Question, Training
from app.evaluation.dataset import DataError, Dataset, Reader
from app.evaluation.protocols.last_out import leave_last_out
from app.evaluation.protocols.sampling import BUCKETS, Split, sample, some, training_before
from tree.item import Item

_MOST_INTERESTS = 3


def coldstart(
    data: Dataset,
    *,
    seed: int = 0,
    readers: int | None = None,
    natural: bool = False,
    min_readers: int = 100,
) -> Split:
    """The last event, by length of history: 0 with a profile sentence, 1, 2–4, 5–9, 10–49, 50+.

    Every bucket asks for the same readers, with their history cut to its newest events, so that
    buckets compare; the events cut off are excluded from the answer like all that was seen. The
    longest bucket is the last that at least `min_readers` readers fill (or that as many as fill
    any, if the data have fewer). Trained systems see nothing of who is asked (so
    ask a part of the readers, or nothing is left to learn from).

    `natural` asks for readers who did as much of themselves instead: `readers` of each bucket, each
    with their whole history. The bucket 0 then has only those whom the data give a sentence.

    Without a sentence in the data, the bucket 0 gets one that names the categories of the history
    before the target.
    """
    return _natural(data, seed, readers) if natural else _cut(data, seed, readers, min_readers)


def interests(items: Sequence[Item]) -> str:
    """A sentence that names the most frequent categories of the items; empty if they have none."""
    counts = Counter(" › ".join(item.categories[:2]) for item in items if item.categories)
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    names = [name for name, _ in ranked[:_MOST_INTERESTS]]
    return f"Interested in: {'; '.join(names)}." if names else ""


def _cut(data: Dataset, seed: int, count: int | None, min_readers: int) -> Split:
    items = {item.id: item for item in data.items}
    sentences = {
        reader.id: reader.profile or interests([items[each] for each in reader.history[:-1]])
        for reader in data.readers
    }
    told = any(sentences.values())
    able = [r for r in data.readers if len(r.history) > 1 and (sentences[r.id] or not told)]
    if not able:
        raise DataError(f"{data.name}: nobody can be asked: no reader has two events.")
    longest = _longest(able, min_readers)
    least = BUCKETS[longest][1]
    asked = sample([r for r in able if len(r.history) > least], count, seed)
    cases = [
        _shortened(reader, bucket, sentences, seed)
        for bucket in range(0 if told else 1, longest + 1)
        for reader in asked
    ]
    ends = {reader.id: 0 for reader in asked}
    return training_before(data, ends), some(cases, data, "no reader has two events")


def _longest(readers: Sequence[Reader], min_readers: int) -> int:
    """The last bucket that enough readers fill."""
    enough = min(min_readers, len(readers))
    return max(
        position
        for position, (_, fewest, _) in enumerate(BUCKETS)
        if sum(len(reader.history) > fewest for reader in readers) >= enough
    )


def _shortened(reader: Reader, bucket: int, sentences: Mapping[str, str], seed: int) -> Case:
    name, fewest, most = BUCKETS[bucket]
    known = reader.history[:-1]
    length = len(known)
    if most is not None:
        length = Random(f"{seed}/{name}/{reader.id}").randint(fewest, min(most, len(known)))
    start = len(known) - length
    question = Question(
        reader.id,
        known[start:],
        reader.profile if length else sentences[reader.id],
        excluded=frozenset(known[:start]),
    )
    return Case(question, frozenset(reader.history[-1:]), name)


def _natural(data: Dataset, seed: int, count: int | None) -> Split:
    training, cases = leave_last_out(data, seed=seed, min_events=2)
    buckets: dict[str, list[Case]] = {name: [] for name, _, _ in BUCKETS}
    alone = [reader for reader in data.readers if len(reader.history) == 1 and reader.profile]
    for reader in sample(alone, count, seed):
        question = Question(reader.id, (), reader.profile)
        buckets["0"].append(Case(question, frozenset(reader.history), "0"))
    for case in cases:
        buckets[case.bucket].append(case)
    hidden = {reader.id for reader in alone}
    seen = [reader for reader in training.readers if reader.id not in hidden]
    return Training(training.items, seen), [
        case for bucket in buckets.values() for case in bucket[:count]
    ]
