"""Labels for nodes, without a model: the terms that tell a node from its siblings.

Class-based TF-IDF (Grootendorst 2022, BERTopic): the score of a term for a node is the share of its
items that have it, times log(1 + A / f), where f is the count of the term over all siblings and A
the average count of terms per sibling. There is no list of stop words, so any language works.
"""

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from msgspec import structs

from tree.edits import NodeSpec, Relabel
from tree.item import Item, normalise
from tree.node import ROOT, Node
from tree.snapshot import SemanticTree

Members = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]

_MOST_TERMS = 2**16
_SAMPLE = 100_000
_IN_LABEL, _IN_SIGNPOST, _EXEMPLARS = 3, 3, 2  # phrases, phrases, titles
_CANDIDATES = 60  # terms looked at for a node
_EXTENSION = 0.6  # least share of a term's score for a longer term to replace it
_LONGEST = 5  # words of a phrase
_GOOD = 0.45  # least share of the best term's score for a term of the label
_LIFT = 1.2  # least ratio of its frequency to that in all siblings
_TITLE = 60  # characters

_MARKUP = re.compile(r"</?[a-zA-Z][^>]*>?")  # feeds cut titles in the middle of a tag
_TOKEN = re.compile(r"\w+(?:['’&-]\w+)*|[^\w\s]")


def label_text(item: Item) -> str:
    """The text from which labels are made; no pair of words spans two of its parts."""
    return " | ".join((_plain(item.title), *item.keywords, *item.categories))


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
    """The vocabulary of a catalogue, and the labels that it gives to nodes."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Learn the terms from the `label_text`s of a catalogue (an even stride of many)."""
        sample = texts[:: max(1, -(-len(texts) // _SAMPLE))]
        present: Counter[str] = Counter()
        spellings: dict[str, Counter[str]] = defaultdict(Counter)
        for text in sample:
            present.update(set(_terms(text.lower())))
            for word in _TOKEN.findall(text):
                spellings[word.lower()][word] += 1
        particles = _particles(present, spellings, len(sample))
        rare = 2 if len(sample) > 1_000 else 1
        kept = sorted(
            (
                term
                for term, count in present.items()
                if count >= rare and particles.isdisjoint((term.split(" ")[0], term.split(" ")[-1]))
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

        `specs` come parents first, their leaves in the order of `members`, which are positions in
        `rows`; `title` gives the title at a position. Existing labels stay; siblings differ. The
        first spec keeps its signpost. O(terms · depth): some 10 µs an item.
        """
        order = np.concatenate(members)
        ordered = rows.take(order)
        spans = _spans(specs, [len(inside) for inside in members])
        known = {spec.id: spec for spec in specs}
        known[specs[0].id] = structs.replace(specs[0], label=specs[0].label or "All items")
        for spec in specs:
            if not spec.children:
                continue
            start, stop = spans[spec.id]
            bounds = np.array([start, *(spans[child][1] for child in spec.children)]) - start
            children = [known[child] for child in spec.children]
            names = self.names(
                ordered.span(start, stop), bounds, [c.label for c in children], order[start:], title
            )
            for child, (label, signpost) in zip(children, names, strict=True):
                if not child.locked:
                    known[child.id] = structs.replace(child, label=label, signpost=signpost)
        return [known[spec.id] for spec in specs]

    def names(
        self,
        rows: TermRows,
        bounds: npt.NDArray[np.int64],
        labels: Sequence[str],
        positions: Members,
        title: Callable[[int], str],
        taken: Iterable[str] = (),
    ) -> list[tuple[str, str]]:
        """Label and signpost of some siblings: sibling i has the rows bounds[i] … bounds[i + 1].

        Labels in `labels` that are not empty stay; the others differ from them and from `taken`.
        The title of a row is `title(positions[row])`.
        """
        lengths = np.diff(rows.ends, prepend=0)
        present = np.bincount(rows.terms, minlength=len(self._words)) > 0
        columns, place = present.nonzero()[0], (present.cumsum(dtype=np.int32) - 1)[rows.terms]
        sibling = np.arange(len(labels), dtype=np.int32).repeat(np.diff(bounds)).repeat(lengths)
        shape = len(labels), len(columns)
        counts = np.bincount(sibling * shape[1] + place, minlength=shape[0] * shape[1])
        scores = _scores(counts.reshape(shape), np.diff(bounds))
        phrases = [self._phrases(score, columns) for score in scores]
        weight = np.zeros(shape)
        for at, chosen in enumerate(phrases):
            for phrase in chosen:
                weight[at, phrase.terms] = scores[at, phrase.terms]
        number = np.repeat(np.arange(len(lengths)), lengths)
        sums = np.bincount(number, weight[sibling, place], len(lengths)) / np.sqrt(4 + lengths)
        known = {normalise(label) for label in (*labels, *taken) if label}
        names = []
        for at, label in enumerate(labels):
            span = slice(bounds[at], bounds[at + 1])
            titles = _exemplars(sums[span], positions[span], title)
            words = [self._shown(phrase.words) for phrase in phrases[at]]
            good = sum(phrase.score >= _GOOD * phrases[at][0].score for phrase in phrases[at])
            name = label or _distinct(words, min(good, _IN_LABEL), titles, known)
            known.add(normalise(name))
            more = ", ".join([word for word in words if word not in name][:_IN_SIGNPOST])
            names.append((name, " — e.g. ".join(filter(None, (more, "; ".join(titles))))))
        return names

    def _phrases(self, score: _Floats, columns: npt.NDArray[np.int64]) -> list["_Phrase"]:
        """The best terms of a node, best first; overlapping terms become one phrase.

        "Smash", "Super Smash" and "Smash Bros" are one phrase: a longer term replaces its own
        words, and extends a term that it overlaps, unless it is much rarer.
        """
        phrases: list[_Phrase] = []
        for term in np.argsort(-score, kind="stable")[:_CANDIDATES].tolist():
            if score[term] <= 0:
                break
            words = self._words[columns[term]]
            overlapping = [phrase for phrase in phrases if not set(words).isdisjoint(phrase.words)]
            if not overlapping:
                phrases.append(_Phrase(float(score[term]), words, [term]))
            elif score[term] >= _EXTENSION * overlapping[0].score:
                joined = _joined(overlapping[0].words, words)
                if all(set(other.words) <= set(joined) for other in overlapping):
                    overlapping[0].words = joined
                    overlapping[0].terms.append(term)
                    phrases = [phrase for phrase in phrases if phrase not in overlapping[1:]]
        return phrases[: _IN_LABEL + _IN_SIGNPOST + 1]

    def _shown(self, words: Sequence[str]) -> str:
        """A phrase in its usual spelling; the first letter is a capital."""
        spelt = " ".join(self._spelt[word] for word in words)
        return spelt if spelt != spelt.lower() else spelt[:1].upper() + spelt[1:]


@dataclass(slots=True, eq=False)
class _Phrase:
    score: float  # of its best term
    words: tuple[str, ...]
    terms: list[int]  # the columns it is made of, best first


def _joined(own: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """Both as one phrase when one contains the other or continues its end; otherwise `own`."""
    if set(own) <= set(other):
        return other
    for first, second in ((own, other), (other, own)):
        for overlap in range(min(len(first), len(second)) - 1, 0, -1):
            whole = first + second[overlap:]
            if first[-overlap:] == second[:overlap] and len(set(whole)) == len(whole) <= _LONGEST:
                return whole
    return own


def relabel(tree: SemanticTree, nodes: Iterable[int], items: Mapping[str, Item]) -> list[Relabel]:
    """New labels for a few nodes of a tree, for example after a split; locked nodes keep theirs.

    A leaf is compared with its sibling leaves by the items of all of them, which must be in
    `items`. An inner node is labelled by its largest children. A node that stands for a category
    keeps its label. Nodes whose label and signpost stay the same are left out.
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
    inside = [
        [items[item_id] for item_id in tree.item_ids(leaf.id) if item_id in items]
        for leaf in leaves
    ]
    known = [item for group in inside for item in group]
    texts = [label_text(item) for item in known]
    often = Counter(normalise(child.label) for child in children)
    labeller = Labeller(texts)
    names = labeller.names(
        labeller.count(texts),
        np.cumsum([0, *map(len, inside)]),
        ["" if n.id in wanted and not _own_category(n, often) else n.label for n in leaves],
        np.arange(len(known)),
        lambda position: known[position].title if known[position].is_shown() else "",
        [child.label for child in children if not child.is_leaf],
    )
    return {n.id: name for n, name in zip(leaves, names, strict=True) if n.id in wanted}


def _inner_name(
    tree: SemanticTree, node: Node, fresh: Mapping[int, tuple[str, str]]
) -> tuple[str, str]:
    def label_of(other: Node) -> str:
        return fresh[other.id][0] if other.id in fresh else other.label

    siblings = tree.children(tree.node(node.parent)) if node.parent is not None else []
    largest = sorted(tree.children(node), key=lambda child: (-child.count, child.id))
    words = list(dict.fromkeys(label_of(child).split(", ")[0] for child in largest))
    label = node.label
    if not _own_category(node, Counter(normalise(sibling.label) for sibling in siblings)):
        taken = {normalise(label_of(other)) for other in siblings if other.id != node.id}
        label = _distinct(words, _IN_LABEL, [], taken)
    return label, ", ".join([word for word in words if word not in label][:_IN_SIGNPOST])


def _own_category(node: Node, often: Mapping[str, int]) -> bool:
    return bool(node.key and node.label) and often[normalise(node.label)] == 1


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
    """Short words without meaning: frequent lower-case ones, and "It" or "My" (not "DS")."""
    written = written_small = 0
    for word, counts in spellings.items():
        if word.isalpha():
            written += counts.total()
            written_small += counts[word]
    share = 0.005 if written_small < written / 2 else 0.03
    found = set()
    for word, counts in spellings.items():
        tiny = len(word) == 2 and word.isascii() and counts[word.upper()] < counts.total() / 2
        small = len(word) <= 4 and word.isalpha() and counts[word] >= 0.15 * counts.total()
        if tiny or (small and present.get(word, 0) >= share * texts):
            found.add(word)
    return found


def _plain(title: str) -> str:
    return " ".join(_MARKUP.sub(" ", title).split())


def _spans(specs: Sequence[NodeSpec], sizes: Sequence[int]) -> dict[int, tuple[int, int]]:
    """The rows of every node, when the rows of the leaves are in sequence."""
    spans: dict[int, tuple[int, int]] = {}
    ends = np.cumsum([0, *sizes]).tolist()
    for spec in reversed(specs):
        if spec.children:
            spans[spec.id] = (spans[spec.children[0]][0], spans[spec.children[-1]][1])
        else:
            stop = ends.pop()
            spans[spec.id] = (ends[-1], stop)
    return spans


def _scores(counts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> _Floats:
    """float64[siblings, terms]: how well a term describes one sibling and not the others."""
    everywhere = counts.sum(axis=0)
    share = counts / np.maximum(sizes, 1)[:, None]
    average = counts.sum() / len(counts)
    told_apart = share >= _LIFT * everywhere / max(1, sizes.sum())
    supported = counts >= np.minimum(2, sizes)[:, None]
    scores: _Floats = share * np.log1p(average / np.maximum(everywhere, 1))
    return np.where(told_apart & supported, scores, 0.0)


def _exemplars(scores: _Floats, positions: Members, title: Callable[[int], str]) -> list[str]:
    """Titles of the items with the highest scores for the terms of the label; different ones."""
    titles: dict[str, str] = {}
    for row in np.argsort(-scores, kind="stable")[: 8 * _EXEMPLARS].tolist():
        if whole := _plain(title(int(positions[row]))):
            titles.setdefault(normalise(whole), _shortened(whole))
        if len(titles) == _EXEMPLARS:
            break
    return list(titles.values())


def _shortened(title: str) -> str:
    """Both ends of a long title: series share their beginning, editions their end."""
    if len(title) <= _TITLE:
        return title
    return f"{title[: _TITLE * 2 // 3].rstrip()} … {title[-_TITLE // 3 + 3 :].lstrip()}"


def _distinct(words: Sequence[str], preferred: int, titles: Sequence[str], taken: set[str]) -> str:
    """A label that no sibling has: some words, with a title if needed, in the end with a number."""
    for count in range(max(1, preferred), len(words) + 1):
        label = ", ".join(words[:count])
        if normalise(label) not in taken:
            return label
    usual = ", ".join(words[:preferred])
    for title in titles:
        label = f"{usual}: {title}" if usual else title
        if normalise(label) not in taken:
            return label
    label, number = usual or "Various", 2
    while normalise(label) in taken:
        label, number = f"{usual or 'Various'} ({number})", number + 1
    return label
