"""Names for nodes, without a model: the terms that tell a node from its siblings.

Class-based TF-IDF (Grootendorst 2022, BERTopic): a term counts for a node by the share of its
items that have it, times log(1 + A / f), where f is how often the siblings have it together and
A how many terms they hold on average. No list of stop words, so that any language will do:
what is everywhere tells nothing apart.
"""

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from tree.edits import NodeSpec, Relabel
from tree.item import Item, normalise
from tree.snapshot import ROOT, Node, SemanticTree

Members = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]

_MOST_TERMS = 2**16
_SAMPLE = 100_000
_IN_LABEL = 3
_IN_SIGNPOST = 3
_EXEMPLARS = 2
_CANDIDATES = 60  # terms looked at for a node
_KINDRED = 0.6  # of a term's score: what a longer one with the same words needs
_WORTH = 0.45  # of the best term's score: what a term of the label needs
_LIFT = 1.2  # times more frequent than among all siblings
_TITLE = 60  # characters

_TOKEN = re.compile(r"\w+(?:['’&-]\w+)*|[^\w\s]")


def label_text(item: Item) -> str:
    """What a label is made from; no pair of words spans two of the parts."""
    return " | ".join((item.title, *item.keywords, *item.categories))


@dataclass(frozen=True, slots=True)
class TermRows:
    """Which terms of the vocabulary each text has: row i is `terms[ends[i - 1] : ends[i]]`."""

    terms: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]

    @classmethod
    def joined(cls, batches: Sequence["TermRows"]) -> "TermRows":
        """The rows of all batches, in order."""
        if not batches:
            return cls(np.zeros(0, np.int32), np.zeros(0, np.int64))
        before = np.cumsum([0, *(len(batch.terms) for batch in batches)])
        ends = [batch.ends + start for batch, start in zip(batches, before[:-1], strict=True)]
        return cls(np.concatenate([batch.terms for batch in batches]), np.concatenate(ends))

    def take(self, order: Members) -> "TermRows":
        """The rows `order`, in that order."""
        starts = np.concatenate([[0], self.ends])[order]
        lengths = self.ends[order] - starts
        ends = np.cumsum(lengths)
        shift = np.repeat(starts - (ends - lengths), lengths)
        return TermRows(self.terms[shift + np.arange(len(shift))], ends)

    def span(self, start: int, stop: int) -> "TermRows":
        """The rows from `start` to before `stop`."""
        first = int(self.ends[start - 1]) if start else 0
        last = int(self.ends[stop - 1]) if stop else 0
        return TermRows(self.terms[first:last], self.ends[start:stop] - first)


class Labeller:
    """The vocabulary of a catalogue, and the names it gives to nodes."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Learn the terms from the texts of a catalogue, or from an even stride through them."""
        sample = texts[:: max(1, -(-len(texts) // _SAMPLE))]
        present: Counter[str] = Counter()
        spellings: dict[str, Counter[str]] = defaultdict(Counter)
        for text in sample:
            present.update(set(_terms(text.lower())))
            for word in _TOKEN.findall(text):
                spellings[word.lower()][word] += 1
        dull = _particles(present, spellings, len(sample))
        rare = 2 if len(sample) > 1_000 else 1
        kept = sorted(
            (
                term
                for term, count in present.items()
                if count >= rare and dull.isdisjoint((term.split(" ")[0], term.split(" ")[-1]))
            ),
            key=lambda term: (-present[term], term),
        )[:_MOST_TERMS]
        self._numbers = {term: number for number, term in enumerate(kept)}
        self._words = [tuple(term.split(" ")) for term in kept]
        self._spelt = {
            word: min(spellings[word], key=lambda w: (-spellings[word][w], w))
            for word in {word for words in self._words for word in words}
        }

    def count(self, texts: Iterable[str]) -> TermRows:
        """The terms of some texts (see `label_text`), one row each."""
        terms, ends = array("i"), array("q")
        numbers = self._numbers
        for text in texts:
            found = {numbers[term] for term in _terms(text.lower()) if term in numbers}
            terms.extend(sorted(found))
            ends.append(len(terms))
        return TermRows(np.frombuffer(terms, np.int32), np.frombuffer(ends, np.int64))

    def label(
        self,
        specs: Sequence[NodeSpec],
        members: Sequence[Members],
        rows: TermRows,
        title: Callable[[int], str],
    ) -> list[NodeSpec]:
        """The specs of a whole tree or subtree with label and signpost.

        `specs` come parents first, their leaves in the order of `members`, which are positions
        in `rows`; `title` gives the title at a position. A label that is there already stays;
        siblings never have the same. The signpost of the first spec is left as it is.
        O(terms · depth): some 10 µs an item.
        """
        order = np.concatenate(members)
        ordered = rows.take(order)
        spans = _spans(specs, [len(inside) for inside in members])
        known = {spec.id: spec for spec in specs}
        first = specs[0]
        known[first.id] = msgspec.structs.replace(first, label=first.label or "All items")
        for spec in specs:
            if not spec.children:
                continue
            start, stop = spans[spec.id]
            bounds = np.array([start, *(spans[child][1] for child in spec.children)]) - start
            names = self._names(
                ordered.span(start, stop),
                bounds,
                [known[child].label for child in spec.children],
                lambda row, start=start: title(int(order[start + row])),  # type: ignore[misc]
            )
            for child, (label, signpost) in zip(spec.children, names, strict=True):
                known[child] = msgspec.structs.replace(known[child], label=label, signpost=signpost)
        return [known[spec.id] for spec in specs]

    def _names(
        self,
        rows: TermRows,
        bounds: npt.NDArray[np.int64],
        labels: Sequence[str],
        title: Callable[[int], str],
    ) -> list[tuple[str, str]]:
        """Label and signpost of some siblings: sibling i has the rows bounds[i] … bounds[i + 1]."""
        lengths = np.diff(rows.ends, prepend=0)
        sibling = np.repeat(np.arange(len(labels)), np.diff(bounds))
        columns, place = _compacted(rows.terms, len(self._numbers))
        owner = np.repeat(sibling, lengths)
        shape = (len(labels), len(columns))
        counts = np.bincount(owner * len(columns) + place, minlength=shape[0] * shape[1])
        scores = _scores(counts.reshape(shape), np.diff(bounds))
        phrases = [self._phrases(score, columns) for score in scores]
        weight = np.zeros(shape)
        for at, chosen in enumerate(phrases):
            for phrase in chosen:
                weight[at, phrase.term] = scores[at, phrase.term]
        taken = {normalise(label) for label in labels if label}
        number = np.repeat(np.arange(len(lengths)), lengths)
        marks = np.bincount(number, weight[owner, place], len(lengths)) / np.sqrt(4 + lengths)
        names = []
        for at, label in enumerate(labels):
            titles = _exemplars(marks[bounds[at] : bounds[at + 1]], int(bounds[at]), title)
            words = [self._shown(phrase.words) for phrase in phrases[at]]
            good = sum(phrase.score >= _WORTH * scores[at].max() for phrase in phrases[at])
            name = label or _distinct(words, min(good, _IN_LABEL), titles, taken)
            taken.add(normalise(name))
            more = [word for word in words if word not in name][:_IN_SIGNPOST]
            names.append(
                (name, " — e.g. ".join(filter(None, (", ".join(more), "; ".join(titles)))))
            )
        return names

    def _phrases(self, score: _Floats, columns: npt.NDArray[np.int64]) -> list["_Phrase"]:
        """The best terms of a node, best first; those that overlap grow together.

        "Smash", "Super Smash" and "Smash Bros" are one phrase: a longer term takes the place of
        the words it is made of, and continues what it overlaps, unless it is much rarer.
        """
        phrases: list[_Phrase] = []
        for term in np.argsort(-score, kind="stable")[:_CANDIDATES].tolist():
            if score[term] <= 0:
                break
            words = self._words[columns[term]]
            rivals = [phrase for phrase in phrases if not phrase.words.isdisjoint(words)]
            if not rivals:
                phrases.append(_Phrase(term, float(score[term]), _Words(words)))
            elif score[term] >= _KINDRED * rivals[0].score:
                rest = set(words).union(*(rival.words for rival in rivals))
                joined = rivals[0].words.joined(words)
                if rest <= set(joined):
                    rivals[0].words = joined
                    phrases = [phrase for phrase in phrases if phrase not in rivals[1:]]
        return phrases[: _IN_LABEL + _IN_SIGNPOST + 1]

    def _shown(self, words: Sequence[str]) -> str:
        """A phrase as people write it; the first letter is a capital."""
        spelt = " ".join(self._spelt[word] for word in words)
        return spelt if spelt != spelt.lower() else spelt[:1].upper() + spelt[1:]


class _Words(tuple[str, ...]):
    """The words of a phrase, in order."""

    __slots__ = ()

    def isdisjoint(self, words: Sequence[str]) -> bool:
        return not any(word in self for word in words)

    def joined(self, words: Sequence[str]) -> "_Words":
        """Both in one where one holds the other or goes on where the other ends; else itself."""
        own, other = tuple(self), tuple(words)
        if _holds(other, own):
            return _Words(other)
        for first, second in ((own, other), (other, own)):
            for overlap in range(min(len(first), len(second)) - 1, 0, -1):
                if first[-overlap:] == second[:overlap]:
                    return _Words(first + second[overlap:])
        return self


@dataclass(slots=True, eq=False)
class _Phrase:
    term: int  # the column of its best term
    score: float
    words: _Words


def _holds(whole: tuple[str, ...], part: tuple[str, ...]) -> bool:
    return any(
        whole[start : start + len(part)] == part for start in range(len(whole) - len(part) + 1)
    )


def relabel(tree: SemanticTree, nodes: Iterable[int], items: Mapping[str, Item]) -> list[Relabel]:
    """New names for a few nodes of a tree, as after a split; locked ones keep theirs.

    A leaf is told from its sibling leaves by the items of all of them, which must be in `items`;
    an inner node is named by its largest children. What stands for a category of its own keeps
    the label. Nothing is returned for a node whose name would not change.
    """
    wanted = [tree.node(node) for node in dict.fromkeys(nodes) if node != ROOT]
    wanted = sorted((n for n in wanted if not n.locked), key=lambda n: (n.height, n.id))
    fresh: dict[int, tuple[str, str]] = {}
    parents = {node.parent: None for node in wanted if node.is_leaf and node.parent is not None}
    for parent in parents:
        fresh |= _leaf_names(tree, tree.node(parent), {n.id for n in wanted}, items)
    for node in wanted:
        if not node.is_leaf:
            fresh[node.id] = _inner_name(tree, node, fresh)
    return [
        Relabel(node.id, *fresh[node.id])
        for node in wanted
        if fresh[node.id] != (node.label, node.signpost)
    ]


def _leaf_names(
    tree: SemanticTree, parent: Node, wanted: set[int], items: Mapping[str, Item]
) -> dict[int, tuple[str, str]]:
    """Label and signpost of the wanted leaves of a parent."""
    children = tree.children(parent)
    leaves = [child for child in children if child.is_leaf]
    inside = [[items[item_id] for item_id in tree.item_ids(leaf.id)] for leaf in leaves]
    known = [item for group in inside for item in group]
    texts = [label_text(item) for item in known]
    labeller = Labeller(texts)
    often = Counter(normalise(child.label) for child in children)
    kept = [
        leaf.label if leaf.id not in wanted or _own_category(leaf, often) else "" for leaf in leaves
    ]
    names = labeller._names(
        labeller.count(texts),
        np.cumsum([0, *map(len, inside)]),
        kept,
        lambda row: known[row].title,
    )
    others = {normalise(child.label) for child in children if not child.is_leaf}
    found = {}
    for leaf, (label, signpost) in zip(leaves, names, strict=True):
        if leaf.id in wanted:
            distinct = label if normalise(label) not in others else f"{label} ({leaf.id})"
            found[leaf.id] = (distinct, signpost)
    return found


def _own_category(node: Node, often: Counter[str]) -> bool:
    return bool(node.key and node.label) and often[normalise(node.label)] == 1


def _inner_name(
    tree: SemanticTree, node: Node, fresh: Mapping[int, tuple[str, str]]
) -> tuple[str, str]:
    siblings = tree.children(tree.node(node.parent)) if node.parent is not None else []
    often = Counter(normalise(sibling.label) for sibling in siblings)
    largest = sorted(tree.children(node), key=lambda child: (-child.count, child.id))
    words = list(dict.fromkeys(fresh.get(c.id, (c.label,))[0].split(", ")[0] for c in largest))
    if _own_category(node, often):
        return node.label, ", ".join(words[:_IN_SIGNPOST])
    taken = {normalise(fresh.get(s.id, (s.label,))[0]) for s in siblings if s.id != node.id}
    label = _distinct(words, _IN_LABEL, [], taken)
    return label, ", ".join([word for word in words if word not in label][:_IN_SIGNPOST])


def _terms(text: str) -> list[str]:
    """Words, and pairs of words with at most a very short one between them; no bare numbers."""
    terms: list[str] = []
    before = beyond = ""
    for token in _TOKEN.findall(text):
        if len(token) < 2 and not (token.isdigit() and before):
            before = beyond = ""
            continue
        if not token.isdigit():
            terms.append(token)
        if before:
            terms.append(f"{before} {token}")
        if beyond and len(before) <= 3:
            terms.append(f"{beyond} {before} {token}")
        before, beyond = ("", "") if token.isdigit() else (token, before)
    return terms


def _particles(
    present: Mapping[str, int], spellings: Mapping[str, Counter[str]], texts: int
) -> set[str]:
    """Short, frequent words that are written small where others are not: "of", "und", "les"."""
    small = {word: counts[word] / counts.total() for word, counts in spellings.items()}
    written = sum(counts.total() for word, counts in spellings.items() if word.isalpha())
    written_small = sum(counts[word] for word, counts in spellings.items() if word.isalpha())
    share = 0.005 if written_small < written / 2 else 0.03
    return {
        word
        for word, portion in small.items()
        if portion >= 0.15
        and len(word) <= 4
        and word.isalpha()
        and present.get(word, 0) >= share * texts
    }


def _spans(specs: Sequence[NodeSpec], sizes: Sequence[int]) -> dict[int, tuple[int, int]]:
    """The rows of every node, when those of the leaves follow one another."""
    spans: dict[int, tuple[int, int]] = {}
    stop = sum(sizes)
    left = list(sizes)
    for spec in reversed(specs):
        if spec.children:
            spans[spec.id] = (spans[spec.children[0]][0], spans[spec.children[-1]][1])
        else:
            spans[spec.id] = (stop - left[-1], stop)
            stop -= left.pop()
    return spans


def _compacted(
    terms: npt.NDArray[np.int32], size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The terms that occur, and which of them each entry is."""
    seen = np.zeros(size, bool)
    seen[terms] = True
    return np.flatnonzero(seen), (np.cumsum(seen) - 1)[terms]


def _scores(counts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> _Floats:
    """float64[siblings, terms]: how well a term stands for one sibling and not for the others."""
    everywhere = counts.sum(axis=0)
    share = counts / sizes[:, None]
    average = counts.sum() / len(counts)
    told_apart = share >= _LIFT * everywhere / sizes.sum()
    supported = counts >= np.minimum(2, sizes)[:, None]
    scores: _Floats = share * np.log1p(average / np.maximum(everywhere, 1))
    return np.where(told_apart & supported, scores, 0.0)


def _exemplars(marks: _Floats, start: int, title: Callable[[int], str]) -> list[str]:
    titles: dict[str, str] = {}
    for row in np.argsort(-marks, kind="stable")[: 4 * _EXEMPLARS].tolist():
        whole = " ".join(title(start + row).split())
        titles.setdefault(normalise(whole), _cut(whole))
        if len(titles) == _EXEMPLARS:
            break
    return list(titles.values())


def _cut(title: str) -> str:
    """Both ends of a long title: series share their beginning, editions their end."""
    if len(title) <= _TITLE:
        return title
    return f"{title[: _TITLE * 2 // 3].rstrip()} … {title[-_TITLE // 3 + 3 :].lstrip()}"


def _distinct(words: Sequence[str], wished: int, titles: Sequence[str], taken: set[str]) -> str:
    """A label of about `wished` words that no sibling has; a number where nothing else helps."""
    words = words or titles or ["Various"]
    for count in range(max(1, wished), len(words) + 1):
        label = ", ".join(words[:count])
        if normalise(label) not in taken:
            return label
    label, number = ", ".join(words[: max(1, wished)]), 2
    while normalise(f"{label} ({number})") in taken:
        number += 1
    return f"{label} ({number})"
