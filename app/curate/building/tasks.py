"""The tasks of a build: functions without side effects, which run in any process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.curate.building.columns import ItemColumns
from app.embedders import EmbedderCache
from tree.blas import use_one_blas_thread
from tree.build import Branch, Keys, Members, Partition, Shaper, common_names, leaf_members
from tree.edits import NodeSpec
from tree.item import normalise
from tree.labels import Labeller, label_text
from tree.node import Space, TreeSettings
from tree.passage import Passage
from tree.store.encoding import read_item
from tree.terms import ROW_BYTES, WordShares, terms_of
from tree.vectors import Int8Matrix, centroids

StoredRecords = dict[str, bytes]
"""Items as the store holds them, by id."""

_embedders = EmbedderCache(size=1)


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What determines the shape of a tree, besides the vectors."""

    keys: Keys
    names: Callable[[str], str]
    settings: TreeSettings

    @classmethod
    def of(cls, columns: ItemColumns, settings: TreeSettings) -> "BuildContext":
        """The context of a whole catalogue."""
        keys = [tuple(map(normalise, path)) for path in columns.paths]
        counts = np.bincount(columns.path, minlength=len(keys))
        names = common_names(columns.paths, keys, counts)
        distinct = Keys.of(keys)
        return cls(Keys(distinct.codes[columns.path], distinct.table), names, settings)

    def shaper(self, columns: ItemColumns) -> Shaper:
        """The shaper of that catalogue."""
        return Shaper(columns.vectors, self.keys, self.settings, self.names)


def fit_space(sample: StoredRecords, population: int, settings: TreeSettings) -> Space:
    """The vector space of a catalogue, from some of its records."""
    passages = passages_of(sample)
    return _embedders.fit(settings.embedder, passages, population, seed=settings.seed).space


def passages_of(records: StoredRecords) -> list[Passage]:
    """What an embedder reads of some records. Raises CorruptSnapshot."""
    return [read_item(*record).passage for record in records.items()]


def fit_labeller(sample: StoredRecords) -> Labeller:
    """The vocabulary of a catalogue, from some of its records."""
    return Labeller([label_text(read_item(*record)) for record in sample.items()])


def count_words(sample: StoredRecords) -> WordShares:
    """How common each word of a catalogue is, by some of its records."""
    return WordShares.counted(passage.whole for passage in passages_of(sample))


def read(
    space: Space | None, labeller: Labeller, words: WordShares | None, records: StoredRecords
) -> ItemColumns:
    """The columns of some records; without a space no vectors, without `words` no words.

    Raises CorruptSnapshot.
    """
    use_one_blas_thread()
    items = [read_item(*record) for record in records.items()]
    vectors = np.zeros((0, 0), np.int8)
    if space is not None:
        vectors = _embedders.of(space).encode([item.passage for item in items])
    terms = np.zeros((0, ROW_BYTES), np.uint8) if words is None else terms_of(items, words.idf)
    return ItemColumns.of(items, vectors, labeller.count(map(label_text, items)), terms)


def split(columns: ItemColumns, context: BuildContext, partition: Partition) -> list[Partition]:
    """See Shaper."""
    use_one_blas_thread()
    return context.shaper(columns).split(partition)


def grow(
    columns: ItemColumns, context: BuildContext, partition: Partition
) -> tuple[Branch, Int8Matrix]:
    """The node of a partition with all below it, and the centroids of its leaves."""
    use_one_blas_thread()
    branch = context.shaper(columns).grow(partition)
    return branch, np.stack([centroids(columns.vectors[leaf]) for leaf in leaf_members(branch)])


def name_children(
    labeller: Labeller,
    columns: ItemColumns,
    inside: Members,
    bounds: npt.NDArray[np.int64],
    labels: Sequence[str],
) -> list[tuple[str, str]]:
    """See Labeller.names: of siblings that hold the items `inside`."""
    terms = columns.terms.take(inside)
    return labeller.names(terms, bounds, labels, inside, columns.titles.__getitem__)


def label(
    labeller: Labeller, columns: ItemColumns, specs: list[NodeSpec], members: list[Members]
) -> list[NodeSpec]:
    """See Labeller.label: a tree or subtree."""
    return labeller.label(specs, members, columns.terms, columns.titles.__getitem__)
