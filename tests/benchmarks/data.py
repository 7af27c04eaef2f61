"""Catalogues and histories to measure on: real ones where they are, made-up ones for size."""

import gzip
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tree.item import Item

FOLDER = Path(os.environ.get("UNILLMREC_BENCH_DATA", Path(__file__).parents[3] / "shared" / "data"))
NAMES = ("amazon_cds", "amazon_games", "mind", "ml_latest_small")


def available() -> list[str]:
    """The real catalogues that are there."""
    return [name for name in NAMES if (FOLDER / name / "items.jsonl.gz").exists()]


def real_items(name: str) -> list[Item]:
    """All items of a real catalogue; fields that `Item` lacks become attributes."""
    with gzip.open(FOLDER / name / "items.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [Item.model_validate_json(json.dumps(_adapted(json.loads(line)))) for line in lines]


def _adapted(row: dict[str, object]) -> dict[str, object]:
    extra = {key: row.pop(key) for key in list(row) if key not in Item.model_fields}
    return {**row, "attributes": extra} if extra else row


def histories(name: str, count: int, *, seed: int = 0, least: int = 5) -> list[list[str]]:
    """Item ids of `count` readers with `least` events, oldest first, after a seeded shuffle."""
    longest: dict[str, list[str]] = {}
    with gzip.open(FOLDER / name / "histories.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            history = row["history"]
            if len(history) >= least and len(history) > len(longest.get(row["user_id"], ())):
                longest[row["user_id"]] = history
    readers = list(longest.values())
    random.Random(seed).shuffle(readers)
    return readers[:count]


def synthetic_items(count: int, *, seed: int = 0, described: bool = False) -> Iterator[Item]:
    """Titles of 3 to 7 made-up words from 2,000 themes, with a category path of 2 levels.

    Words follow a power law, as real ones do. `described` adds text up to about 300 bytes.
    """
    rng = np.random.default_rng(seed)
    syllables = [a + b for a in "bcdfghjklmnprstvwz" for b in ("a", "e", "i", "o", "u", "ar", "en")]
    words = ["".join(rng.choice(syllables, rng.integers(2, 5))) for _ in range(40_000)]
    ranks = np.minimum(rng.zipf(1.3, (2_000, 40)), len(words)) - 1
    themes = np.where(rng.random((2_000, 40)) < 0.25, ranks, rng.integers(0, 40_000, (2_000, 40)))
    popular = np.minimum(rng.zipf(1.2, count), 2_000) - 1
    lengths = rng.integers(3, 8, count)
    picks = rng.integers(0, 40, (count, 30))
    for number in range(count):
        theme = int(popular[number])
        title = " ".join(words[w] for w in themes[theme, picks[number, : lengths[number]]])
        text = " ".join(words[w] for w in themes[theme, picks[number]]) if described else ""
        yield Item(
            id=f"item-{number}",
            title=title.capitalize(),
            description=text[: 300 - len(title)],
            categories=(f"Field {theme % 40}", f"Theme {theme}"),
            domain="synthetic",
        )
