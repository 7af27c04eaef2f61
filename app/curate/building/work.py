"""The tasks of a build: functions of their arguments alone, wherever they run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from app.curate.building.crop import Crop, Reading
from tree.build import Branch, Keys, Members, Plot, Shaper, common_names, leaf_members
from tree.edits import NodeSpec
from tree.embedders import EmbedderCache, fitted
from tree.item import normalise
from tree.labels import Labeller, label_text
from tree.node import Space, TreeSettings
from tree.store.wire import read_item
from tree.vectors import DIMENSIONS, Int8Matrix, facets

Records = dict[str, bytes]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_embedders = EmbedderCache(size=1)


@dataclass(frozen=True, slots=True)
class Ground:
    """What the shape of a tree follows from, beside the vectors."""

    keys: Keys
    names: Callable[[str], str]
    settings: TreeSettings

    @classmethod
    def of(cls, crop: Crop, settings: TreeSettings) -> "Ground":
        """That of a whole catalogue."""
        keys = [tuple(map(normalise, path)) for path in crop.paths]
        names = common_names(crop.paths, keys, np.bincount(crop.path, minlength=len(keys)))
        distinct = Keys.of(keys)
        return cls(Keys(distinct.codes[crop.path], distinct.table), names, settings)

    def shaper(self, crop: Crop) -> Shaper:
        """Who shapes the plots of the crop."""
        return Shaper(crop.vectors, self.keys, self.settings, self.names)


def _on_one_thread(task: Callable[_P, _T]) -> Callable[_P, _T]:
    """BLAS splits sums by its number of threads: not the same bits everywhere."""

    @wraps(task)
    def limited(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with threadpool_limits(limits=1):
            return task(*args, **kwargs)

    return limited


def fit_space(sample: Records, population: int, settings: TreeSettings) -> Space:
    """The vector space of a catalogue, from some of its records."""
    return fitted(settings.embedder, texts_of(sample), population, seed=settings.seed).space


def texts_of(records: Records) -> list[str]:
    """What an embedder reads of some records. Raises CorruptSnapshot."""
    return [read_item(*record).text for record in records.items()]


def fit_labeller(sample: Records) -> Labeller:
    """The vocabulary of a catalogue, from some of its records."""
    return Labeller([label_text(read_item(*record)) for record in sample.items()])


@_on_one_thread
def read(space: Space | None, labeller: Labeller, records: Records) -> Reading:
    """What a build keeps of some records; without a space no vectors. Raises CorruptSnapshot."""
    items = [read_item(*record) for record in records.items()]
    vectors = np.zeros((0, DIMENSIONS), np.int8)
    if space is not None:
        vectors = _embedders.of(space).encode([item.text for item in items])
    return Reading.of(items, vectors, labeller.count(map(label_text, items)))


@_on_one_thread
def split(crop: Crop, ground: Ground, plot: Plot) -> list[Plot]:
    """See Shaper."""
    return ground.shaper(crop).split(plot)


@_on_one_thread
def grow(crop: Crop, ground: Ground, plot: Plot) -> tuple[Branch, Int8Matrix]:
    """The node of a plot with all below it, and the facets of its leaves."""
    branch = ground.shaper(crop).grow(plot)
    return branch, np.stack([facets(crop.vectors[leaf]) for leaf in leaf_members(branch)])


def name_children(
    labeller: Labeller,
    crop: Crop,
    inside: Members,
    bounds: npt.NDArray[np.int64],
    labels: Sequence[str],
) -> list[tuple[str, str]]:
    """See Labeller.names: of siblings that hold the items `inside`."""
    return labeller.names(crop.terms.take(inside), bounds, labels, inside, crop.titles.__getitem__)


def label(
    labeller: Labeller, crop: Crop, specs: list[NodeSpec], members: list[Members]
) -> list[NodeSpec]:
    """See Labeller.label: a tree or subtree."""
    return labeller.label(specs, members, crop.terms, crop.titles.__getitem__)
