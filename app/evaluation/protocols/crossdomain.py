"""`crossdomain`: what readers of one domain take from another."""

from collections import Counter

from app.evaluation.case import Case, Question, Training
from app.evaluation.choices import DomainBy
from app.evaluation.dataset import DataError, Dataset, Reader
from app.evaluation.protocols.sampling import Split, sample, some, training_before
from tree.item import Item, normalise


def crossdomain(
    data: Dataset,
    source: str = "",
    target: str = "",
    *,
    seed: int = 0,
    readers: int | None = None,
    min_history: int = 2,
    by: DomainBy = DomainBy.DOMAIN,
) -> Split:
    """The last event in the domain `target`, from those in `source` before it.

    Unless named, `source` is the domain with the most events and `target` the one with the next
    most. Candidates are the items of the target domain. Events elsewhere are not told, but excluded
    from the answer like all that was seen. Of who is asked, trained systems see the history that
    they are told; of others, everything (so ask a part, or nobody links the two).

    Raises DataError where the data have no such domains.
    """
    domains = {item.id: _domain(item, by) for item in data.items}
    source, target = _two(data, domains, source, target)
    held = {
        reader.id: position
        for reader in data.readers
        if (position := _last(reader, domains, target)) is not None
    }
    told = {
        reader.id: tuple(i for i in reader.history[: held[reader.id]] if domains[i] == source)
        for reader in data.readers
        if reader.id in held
    }
    able = [r for r in data.readers if len(told.get(r.id, ())) >= max(min_history, 1)]
    asked = sample(able, readers, seed)
    candidates = tuple(item.id for item in data.items if domains[item.id] == target)
    cases = [
        Case(
            Question(
                reader.id,
                told[reader.id],
                reader.profile,
                candidates,
                frozenset(reader.history[: held[reader.id]]).difference(told[reader.id]),
            ),
            frozenset(reader.history[held[reader.id] : held[reader.id] + 1]),
            f"{source} → {target}",
        )
        for reader in asked
    ]
    lacking = f"no reader has {min_history} events in {source!r} before one in {target!r}"
    training = training_before(data, {reader.id: 0 for reader in asked})
    known = [
        Reader(r.id, told[r.id], _times(r, held[r.id], domains, source), r.profile) for r in asked
    ]
    return Training(training.items, [*training.readers, *known]), some(cases, data, lacking)


def _domain(item: Item, by: DomainBy) -> str:
    broadest = item.categories[0] if item.categories else ""
    return normalise(item.domain if by is DomainBy.DOMAIN else broadest)


def _two(data: Dataset, domains: dict[str, str], source: str, target: str) -> tuple[str, str]:
    events = Counter(domains[each] for reader in data.readers for each in reader.history)
    events.pop("", None)
    busiest = sorted(events, key=lambda domain: (-events[domain], domain))
    found = ", ".join(f"{domain!r}" for domain in busiest[:20]) or "none"
    source, target = normalise(source), normalise(target)
    rest = [domain for domain in busiest if domain not in {source, target}]
    source = source or (rest.pop(0) if rest else "")
    target = target or (rest.pop(0) if rest else "")
    for domain in (source, target):
        if domain not in events:
            raise DataError(
                f"{data.name}: a study across domains needs two of them with events; expected "
                f"{domain!r} or two others, found {found}."
                if domain
                else f"{data.name}: expected events in two domains, found {found}."
            )
    if source == target:
        raise DataError(f"{data.name}: expected two different domains, both are {source!r}.")
    return source, target


def _last(reader: Reader, domains: dict[str, str], target: str) -> int | None:
    """Where the last event in the domain stands."""
    positions = range(len(reader.history) - 1, -1, -1)
    return next((at for at in positions if domains[reader.history[at]] == target), None)


def _times(reader: Reader, end: int, domains: dict[str, str], source: str) -> tuple[float, ...]:
    return tuple(
        time
        for time, each in zip(reader.times[:end], reader.history[:end], strict=False)
        if domains[each] == source
    )
