"""A whole tree from items: domain, then the given categories, then balanced clusters.

The imbalance of a catalogue must not survive: in the paper's tree one MIND leaf holds 11.7 % of all
items. So a category level is only used while every child can be split into full leaves within the
depth limit and the vectors of the items agree with it. Otherwise the group is cut into near-equal
clusters (see `clustering`). Groups too small for a leaf share one.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from tree.blas import use_one_blas_thread
from tree.clustering import balanced_parts, packed_parts, unit
from tree.edits import NodeSpec
from tree.node import ROOT, TreeSettings
from tree.vectors import FloatArray, Int8Matrix, quantise

Members = npt.NDArray[np.int64]
Key = tuple[str, ...]

FILL = 0.9  # of a leaf after a build: room for a few inserts before it must split
_SHARE_BELOW = 0.5  # of a leaf: smaller categories share one
_COHERENT = 0.7  # of the items nearest to their own category's centroid (see `_agrees`)
_COHERENCE_SAMPLE = 20_000
_MOST_NAMES = 2_000  # of one level; with more they are not categories but authors or brands
_NO_MORE = "\0"  # where a key ends; no name of an item may hold it
_BEYOND_KEYS = 1_000  # a depth that no key has: below a cluster, categories no longer count
_TILE = 65_536  # rows converted to float32 at a time
_NO_MEMBERS: Members = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Keys:
    """The normalised keys of many items: item i has `table[codes[i]]`."""

    codes: npt.NDArray[np.int32]
    table: Sequence[Key]

    @classmethod
    def of(cls, keys: Iterable[Key]) -> "Keys":
        known: dict[Key, int] = {}
        codes = np.fromiter((known.setdefault(key, len(known)) for key in keys), np.int32)
        return cls(codes, list(known))


@dataclass(slots=True)
class Branch:
    """A node under construction; `members` are positions in the input of `grow`, for a leaf."""

    members: Members
    names: tuple[str, ...] = ()  # the categories it stands for, largest first; () for a cluster
    key: Key = ()
    children: list["Branch"] = field(default_factory=list)


def grow(
    vectors: Int8Matrix,
    keys: Sequence[Key],
    settings: TreeSettings,
    *,
    names: Callable[[str], str] = str,
    levels: int | None = None,
    depth: int = 0,
    progress: Callable[[int], None] = lambda _placed: None,
) -> Branch:
    """The shape of a tree over `vectors`, whose items have the normalised `keys`.

    `names` gives the usual spelling of a key component. `levels` limits the depth (by default that
    of the whole tree). `depth` is the number of key components of this subtree's parent. `progress`
    is called with the number of items that have got their leaf.

    The same input and settings give the same shape, bit for bit.
    """
    if levels is None:
        levels = settings.depth_limit(len(vectors))
    shaper = Shaper(vectors, Keys.of(keys), settings, names)
    use_one_blas_thread()
    return shaper.grow(Partition(np.arange(len(vectors)), depth, levels), progress)


def leaf_target(settings: TreeSettings) -> int:
    """Items per leaf that a build aims at."""
    return max(1, int(settings.leaf_capacity * FILL))


def levels_needed(items: int, settings: TreeSettings) -> int:
    """Levels below a node that holds `items`, when clusters are cut evenly."""
    if items <= settings.leaf_capacity:
        return 0
    leaves, levels = math.ceil(items / leaf_target(settings)), 1
    while settings.fan_out**levels < leaves:
        levels += 1
    return levels


def number(top: Branch, first_id: int, *, top_id: int | None = None) -> tuple[list[NodeSpec], int]:
    """Specs without items and labels for `top` and all below it, parents first; the next id.

    Leaves come in the order of `leaf_members`.
    """
    ids: dict[int, int] = {}
    branches = list(_preorder(top))
    next_id = first_id
    for branch in branches:
        if branch is top and top_id is not None:
            ids[id(branch)] = top_id
        else:
            ids[id(branch)] = next_id
            next_id += 1
    specs = [
        NodeSpec(
            ids[id(branch)],
            label=", ".join(branch.names[:3]),
            key=branch.key,
            children=tuple(ids[id(child)] for child in branch.children),
        )
        for branch in branches
    ]
    return specs, next_id


def number_whole(top: Branch) -> tuple[list[NodeSpec], int]:
    """`number` for a tree of its own: the root first."""
    return number(top, ROOT + 1, top_id=ROOT)


def leaf_members(top: Branch) -> list[Members]:
    """The members of every leaf, in the order of `number`."""
    return [branch.members for branch in _preorder(top) if not branch.children]


def _preorder(top: Branch) -> list[Branch]:
    branches, pending = [], [top]
    while pending:
        branch = pending.pop()
        branches.append(branch)
        pending.extend(reversed(branch.children))
    return branches


@dataclass(frozen=True, slots=True)
class Partition:
    """Items that are to become one node and what is below it."""

    members: Members
    depth: int  # how many key components all of them share
    levels: int  # most levels below it
    names: tuple[str, ...] = ()
    key: Key = ()


class Shaper:
    """Decides how a partition of the items is split into children.

    A result depends on the partition alone: any order and any process give the same tree.
    The caller limits BLAS to one thread.
    """

    def __init__(
        self,
        vectors: Int8Matrix,
        keys: Keys,
        settings: TreeSettings,
        names: Callable[[str], str] = str,
    ) -> None:
        """See `grow`."""
        self._vectors = vectors
        self._keys = keys
        self._settings = settings
        self._names = names
        self._leaf_target = leaf_target(settings)

    def grow(
        self, partition: Partition, progress: Callable[[int], None] = lambda _placed: None
    ) -> Branch:
        """The node of a partition with all that is below it."""
        parts = self.split(partition)
        if not parts:
            progress(len(partition.members))
            return Branch(partition.members, partition.names, partition.key)
        return Branch(
            _NO_MEMBERS,
            partition.names,
            partition.key,
            [self.grow(part, progress) for part in parts],
        )

    def split(self, partition: Partition) -> list[Partition]:
        """The partitions of its children, in order; none for a leaf."""
        members, depth = partition.members, partition.depth
        if len(members) <= self._settings.leaf_capacity:
            return []
        while (
            (shared := self._groups(members, depth)) and len(shared) == 1 and _NO_MORE not in shared
        ):
            depth += 1
        return self._by_category(shared, depth, partition.levels) or [
            Partition(part, _BEYOND_KEYS, partition.levels - 1)
            for part in self._by_content(members)
        ]

    def _groups(self, members: Members, depth: int) -> dict[str, Members]:
        """Members by their key component at `depth`, `_NO_MORE` where the key is shorter.

        Groups come in the order of their first members.
        """
        codes, first, owner = np.unique(
            self._keys.codes[members], return_index=True, return_inverse=True
        )
        keys = [self._keys.table[code] for code in codes.tolist()]
        parts = [key[depth] if depth < len(key) else _NO_MORE for key in keys]
        numbers: dict[str, int] = {}
        for at in np.argsort(first).tolist():
            numbers.setdefault(parts[at], len(numbers))
        group = np.array([numbers[part] for part in parts])[owner]
        bounds = np.cumsum(np.bincount(group))[:-1]
        inside = np.split(members[np.argsort(group, kind="stable")], bounds)
        return dict(zip(numbers, inside, strict=True))

    def _by_category(self, groups: dict[str, Members], depth: int, levels: int) -> list[Partition]:
        """Children that follow the categories; none where that would leave the tree too deep."""
        if not 1 < len(groups) <= _MOST_NAMES or (depth > 0 and not self._agrees(groups)):
            return []
        bundles = self._bundled(groups)
        sizes = [sum(len(groups[name]) for name in bundle) for bundle in bundles]
        deepest = max(levels_needed(size, self._settings) for size in sizes)
        if len(bundles) == 1 or deepest > levels - 1:
            return []
        children = []
        for bundle in bundles:
            inside = np.sort(np.concatenate([groups[name] for name in bundle]))
            names = tuple(self._names(name) for name in bundle if name not in ("", _NO_MORE))
            if len(bundle) == 1 and bundle[0] != _NO_MORE:
                key = self._keys.table[self._keys.codes[inside[0]]][: depth + 1]
                children.append(Partition(inside, depth + 1, levels - 1, names, key))
            else:
                children.append(Partition(inside, depth, levels - 1, names))
        return children

    def _agrees(self, groups: dict[str, Members]) -> bool:
        """Whether the items of a category lie together in the vector space too.

        Where they do not, following the names scatters what is alike: the first genre of a film
        (.57 agree; news .98, music .97) costs a beam of 20 leaves ten points of recall.
        """
        members = list(groups.values())
        centroids = unit(np.stack([self._mean(group) for group in members]))
        stride = 1 + sum(map(len, members)) // _COHERENCE_SAMPLE
        at_home = seen = 0
        for own, group in enumerate(members):
            nearest = (unit(self._vectors[group[::stride]]) @ centroids.T).argmax(axis=1)
            at_home += int((nearest == own).sum())
            seen += len(nearest)
        return at_home >= _COHERENT * seen

    def _bundled(self, groups: dict[str, Members]) -> list[list[str]]:
        """Names of the groups that make one child each, largest group first in every bundle."""
        fan_out, capacity = self._settings.fan_out, self._settings.leaf_capacity
        order = sorted(groups, key=lambda name: (-len(groups[name]), name))
        small = [name for name in order if len(groups[name]) < capacity * _SHARE_BELOW]
        bundles = [[name] for name in order[: len(order) - len(small)]]
        if small:
            shares = math.ceil(sum(len(groups[name]) for name in small) / self._leaf_target)
            bundles += self._packed([[name] for name in small], groups, shares)
        if len(bundles) > fan_out:
            bundles = self._packed(bundles, groups, fan_out)
        return bundles

    def _packed(
        self, bundles: list[list[str]], groups: dict[str, Members], parts: int
    ) -> list[list[str]]:
        members = [np.concatenate([groups[name] for name in bundle]) for bundle in bundles]
        centroids = quantise(np.stack([self._mean(inside) for inside in members]))
        weights = np.array([len(inside) for inside in members])
        packed: dict[int, list[str]] = defaultdict(list)
        for label, bundle in zip(
            packed_parts(centroids, weights, parts).tolist(), bundles, strict=True
        ):
            packed[label] += bundle
        return list(packed.values())

    def _by_content(self, members: Members) -> list[Members]:
        leaves = math.ceil(len(members) / self._leaf_target)
        height = levels_needed(len(members), self._settings)
        parts = min(self._settings.fan_out, math.ceil(leaves ** (1 / height) - 1e-9))
        seed = self._settings.seed * 1_000_003 + len(members)
        labels = balanced_parts(self._vectors, parts, seed, rows=members)
        return [members[labels == part] for part in range(parts)]

    def _mean(self, members: Members) -> FloatArray:
        total = np.zeros((1, self._vectors.shape[1]), np.float32)
        for start in range(0, len(members), _TILE):
            rows = self._vectors[members[start : start + _TILE]].astype(np.float32)
            total = np.concatenate([total, rows]).sum(axis=0, keepdims=True)
        return total[0] / np.float32(len(members))


def common_names(
    paths: Sequence[tuple[str, ...]],
    keys: Sequence[Key],
    counts: Sequence[int] | npt.NDArray[np.int64] | None = None,
) -> Callable[[str], str]:
    """The most frequent spelling of every normalised key component.

    `paths` and their `keys` may be distinct ones with the `counts` of their items.
    """
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for path, key, count in zip(
        paths, keys, np.ones(len(keys), int) if counts is None else counts, strict=True
    ):
        for name, part in zip(path, key, strict=True):
            spellings[part][name] += int(count)
    best = {
        part: min(counts, key=lambda name: (-counts[name], name))
        for part, counts in spellings.items()
    }
    return partial(_spelled, best)  # no lambda: it is sent to other processes


def _spelled(best: Mapping[str, str], part: str) -> str:
    return titled(best.get(part, part))


def titled(name: str) -> str:
    """`name` with a capital first letter, as a label is written."""
    return name[:1].upper() + name[1:]
