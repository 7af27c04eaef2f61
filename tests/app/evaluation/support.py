"""Rows of the formats, and what writes them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.evaluation.dataset import Dataset

Write = Callable[[str, bytes], Path]


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def item(name: str, **fields: Any) -> dict[str, object]:
    return {"id": name, "title": f"Title {name}", **fields}


ITEMS = lines(*(item(name, categories=["c"]) for name in "abcdef"))
HISTORY = {"user_id": "u", "history": ["a", "b", "c"]}


def histories(data: Dataset) -> dict[str, tuple[str, ...]]:
    return {user.id: user.history for user in data.users}


def news(name: str, entities: str = "[]") -> str:
    cells = [name, "sports", "soccer", f'A "title" {name}', "An abstract", "url", entities, "[]"]
    return "\t".join(cells) + "\n"


META_2014 = (
    "{'asin': 'A1', 'title': 'Tom &amp; Jerry\\'s', 'categories': [['Movies', 'Cartoons'], ['TV']],"
    " 'description': 'A <b>cat</b> \\\\d', 'salesRank': {'Movies': 7}, 'brand': 'MGM'}\n"
    "{'asin': 'A2', 'categories': [['Movies']]}\n"
    "{'asin': 'A3', 'title': 'Third', 'categories': [['Movies']]}\n"
)


def review_2014(user: str, asin: str, time: int, rating: float = 5.0) -> dict[str, object]:
    return {
        "reviewerID": user,
        "asin": asin,
        "overall": rating,
        "unixReviewTime": time,
        "helpful": [0, 1],
        "reviewText": "…",
    }
