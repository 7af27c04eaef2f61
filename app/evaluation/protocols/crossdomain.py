"""`crossdomain`: recommend items of one domain from a history in another."""

from collections import Counter

from app.evaluation.case import Case, Query, Training
from app.evaluation.choices import DomainBy
from app.evaluation.dataset import DataError, Dataset, DatasetUser
from app.evaluation.protocols.sampling import Split, non_empty, sample, training_before, without
from tree.item import Item, normalise


def crossdomain(
    data: Dataset,
    source: str = "",
    target: str = "",
    *,
    seed: int = 0,
    users: int | None = None,
    min_history: int = 2,
    by: DomainBy = DomainBy.DOMAIN,
    unseen: bool = False,
) -> Split:
    """The target is the last event in the domain `target`, the history earlier ones in `source`.

    By default `source` is the domain with the most events, `target` the one with the second most.
    Candidates are the items of the target domain. Earlier events in other domains are not part of
    the history, but excluded from the answer. The training data contain this history of the sampled
    users and all events of the others, so sample a part: only others connect the domains. With
    `unseen`, they contain no events in the target domain.

    Raises DataError where the data have no such domains.
    """
    domains = {item.id: _domain(item, by) for item in data.items}
    source, target = _two_domains(data, domains, source, target)
    ends = {
        user.id: position
        for user in data.users
        if (position := _last(user, domains, target)) is not None
    }
    histories = {
        user.id: tuple(i for i in user.history[: ends[user.id]] if domains[i] == source)
        for user in data.users
        if user.id in ends
    }
    eligible = [r for r in data.users if len(histories.get(r.id, ())) >= max(min_history, 1)]
    chosen = sample(eligible, users, seed)
    candidates = tuple(item.id for item in data.items if domains[item.id] == target)
    cases = [
        Case(
            Query(
                user.id,
                histories[user.id],
                user.profile,
                candidates,
                frozenset(user.history[: ends[user.id]]).difference(histories[user.id]),
            ),
            frozenset(user.history[ends[user.id] : ends[user.id] + 1]),
            f"{source} → {target}",
        )
        for user in chosen
    ]
    lacking = f"no user has {min_history} events in {source!r} before one in {target!r}"
    training = training_before(data, {user.id: 0 for user in chosen})
    known = [
        DatasetUser(r.id, histories[r.id], _times(r, ends[r.id], domains, source), r.profile)
        for r in chosen
    ]
    others = training.users
    if unseen:
        hidden = frozenset(item for item, domain in domains.items() if domain == target)
        others = [some for user in others if (some := without(user, hidden)).history]
    return Training(training.items, [*others, *known]), non_empty(cases, data, lacking)


def _domain(item: Item, by: DomainBy) -> str:
    broadest = item.categories[0] if item.categories else ""
    return normalise(item.domain if by is DomainBy.DOMAIN else broadest)


def _two_domains(
    data: Dataset, domains: dict[str, str], source: str, target: str
) -> tuple[str, str]:
    events = Counter(domains[each] for user in data.users for each in user.history)
    events.pop("", None)
    largest = sorted(events, key=lambda domain: (-events[domain], domain))
    found = ", ".join(f"{domain!r}" for domain in largest[:20]) or "none"
    source, target = normalise(source), normalise(target)
    rest = [domain for domain in largest if domain not in {source, target}]
    source = source or (rest.pop(0) if rest else "")
    target = target or (rest.pop(0) if rest else "")
    for domain in (source, target):
        if domain not in events:
            raise DataError(
                f"{data.name}: expected events in two domains, one of them {domain!r}, "
                f"found {found}."
                if domain
                else f"{data.name}: expected events in two domains, found {found}."
            )
    if source == target:
        raise DataError(f"{data.name}: expected two different domains, both are {source!r}.")
    return source, target


def _last(user: DatasetUser, domains: dict[str, str], target: str) -> int | None:
    """The position of the last event in the domain."""
    positions = range(len(user.history) - 1, -1, -1)
    return next((at for at in positions if domains[user.history[at]] == target), None)


def _times(user: DatasetUser, end: int, domains: dict[str, str], source: str) -> tuple[float, ...]:
    return tuple(
        time
        for time, each in zip(user.times[:end], user.history[:end], strict=False)
        if domains[each] == source
    )
