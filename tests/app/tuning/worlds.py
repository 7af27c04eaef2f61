"""A made-up world in which it is certain what an adapter should learn."""

from itertools import product

import numpy as np
import numpy.typing as npt

from tests.app.conftest import built
from tree.item import Item
from tree.snapshot import SemanticTree
from tree.vectors import FloatArray, Int8Matrix, quantise, unit_rows

THINGS = (
    "lamp", "chair", "drill", "novel", "kettle", "guitar", "tent", "boots", "clock", "scarf",
    "ladder", "mirror", "basket", "camera", "pillow", "bicycle", "violin", "hammer", "carpet",
    "jacket",
)  # fmt: skip
COLOURS = ("red", "blue", "green", "white", "black", "brown")
MAKERS = ("Adler", "Brandt", "Corvo", "Delta", "Egede", "Falk", "Gruber", "Holm")
STUFFS = ("oak", "steel", "glass", "linen", "leather", "marble", "wool")
SIZES = ("small", "large", "narrow", "tall", "round")
COLOURED_ITEMS = [
    Item(
        id=f"{colour}-{thing}-{maker}",
        title=f"{SIZES[at % 5]} {colour} {STUFFS[at % 7]} {thing} {maker}",
    )
    for at, (colour, thing, maker) in enumerate(product(COLOURS, THINGS, MAKERS))
]
ITEMS, TASTES, WIDTH = 240, 6, 24


def vectors_of_tastes(seed: int = 0) -> tuple[npt.NDArray[np.int64], Int8Matrix]:
    """The taste of every item, and vectors in which a taste is faint among other things."""
    rng = np.random.default_rng(seed)
    tastes = rng.integers(0, TASTES, ITEMS)
    vectors = rng.normal(0, 1, (ITEMS, WIDTH)).astype(np.float32)
    vectors[:, :TASTES] = 0.6 * np.eye(TASTES, dtype=np.float32)[tastes]
    return tastes, quantise(unit_rows(vectors))


def histories_by_taste(
    tastes: npt.NDArray[np.int64], users: int = 600, seed: int = 0
) -> list[npt.NDArray[np.int32]]:
    """Each user has items of one taste."""
    rng = np.random.default_rng(seed)
    return [
        rng.permutation(np.flatnonzero(tastes == rng.integers(TASTES)))[:8].astype(np.int32)
        for _ in range(users)
    ]


def histories_by_chance(users: int = 600, seed: int = 0) -> list[npt.NDArray[np.int32]]:
    """Users have any items."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(ITEMS)[:8].astype(np.int32) for _ in range(users)]


def units(vectors: Int8Matrix) -> FloatArray:
    """The vectors with length 1."""
    return unit_rows(vectors.astype(np.float32))


async def wordless_tree() -> SemanticTree:
    """A tree of as many items, whose words are all different."""
    return await built([Item(id=f"i{at}", title=f"word{at}") for at in range(ITEMS)])


def coloured_histories(*, by_colour: bool, users: int = 1_000) -> list[list[str]]:
    """Users have things of one colour, or any things."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(users):
        colour = COLOURS[rng.integers(len(COLOURS))]
        some = [item.id for item in COLOURED_ITEMS if not by_colour or item.id.startswith(colour)]
        found.append(rng.permutation(some)[:7].tolist())
    return found
