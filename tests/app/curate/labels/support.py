"""What a model that does as it is told says of groups, and what has to hold of labels."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from typing import Any

import msgspec

from app.curate.labels.label_writer import LabelWriter
from app.jobs import JobReport
from app.llm import (
    STAGES,
    ChatModel,
    Models,
    Price,
    Reply,
    ReplyMode,
    StageModel,
)
from app.llm.ask import FREE
from app.llm.wrappers import Cached
from app.settings import Settings
from app.storage.documents import Documents
from tree import inspect
from tree.item import normalise
from tree.node import ROOT
from tree.snapshot import SemanticTree

PRICE = Price(input_usd=2.0, output_usd=8.0)
_PATIENCE_S = 0.3
_DEADLINE_S = 20


def groups_of(prompt: str) -> dict[int, str]:
    """The groups of a question by their numbers."""
    listed = prompt.split("\n\nNeighbours", maxsplit=1)[0]
    found = re.findall(r"^(\d+)\. (.+)$", listed, re.MULTILINE)
    assert listed.count("\n") == len(found)
    return {int(number): line for number, line in found}


def titled(line: str) -> str:
    return f"New {re.split(': | — |, ', line.replace(' (name stays)', ''))[0]}"[:80]


def signs_json(prompt: str) -> str:
    """What a model says that does as it is told, but for own names."""
    signs = [
        {"n": number, "title": titled(line), "signpost": f"What {titled(line)[:60]} has inside"}
        for number, line in groups_of(prompt).items()
    ]
    return json.dumps({"signs": signs})


def signs_text(prompt: str) -> str:
    signs = json.loads(signs_json(prompt))["signs"]
    return "\n".join(f"- **{s['n']}**: {s['title']} | {s['signpost']}" for s in signs)


def labels_by(
    chat: ChatModel,
    documents: Documents,
    *,
    mode: ReplyMode | None = ReplyMode.JSON_SCHEMA,
    price: Price = FREE,
    patience_s: float = _PATIENCE_S,
    **settings: Any,
) -> LabelWriter:
    """As the service makes them, in a process of its own."""
    writer = StageModel(Cached(chat, documents, 60, "here"), price)
    stages = dict.fromkeys(STAGES, StageModel(chat, price))
    models = Models(stages, documents, mode, 5.0, "here", labels=writer)
    return LabelWriter(models, Settings(**settings), "en", patience_s=patience_s)


async def written(shop, labels: LabelWriter, tree: SemanticTree, nodes=None, max_cost_usd=None):
    return await labels.write(
        tree, nodes, shop.store.items, labels.budget(max_cost_usd), JobReport.unwatched()
    )


def inner(tree: SemanticTree) -> list[int]:
    return [node.id for node in tree.walk() if not node.is_leaf]


def renumbered(tree: SemanticTree) -> SemanticTree:
    """The same tree with other node ids."""
    parts = tree.parts()
    specs = [
        msgspec.structs.replace(
            spec,
            id=spec.id + 500 if spec.id != ROOT else ROOT,
            children=tuple(child + 500 for child in spec.children),
        )
        for spec in parts.specs
    ]
    return SemanticTree.assemble(
        specs,
        parts.columns,
        parts.leaf_sizes,
        version=tree.version,
        settings=tree.settings,
        space=tree.space,
        next_node=tree.next_node + 500,
    )


def assert_told_apart(tree: SemanticTree) -> None:
    assert inspect.violations(tree) == []
    for node in tree.walk():
        names = [normalise(child.label) for child in tree.children(node)]
        assert len(set(names)) == len(names)


async def eventually(condition: Callable[..., object]) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not (value := condition()) or (asyncio.iscoroutine(value) and not await value):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def said(*signs: tuple[object, object, object]) -> Reply:
    named = [{"n": n, "title": title, "signpost": signpost} for n, title, signpost in signs]
    return Reply(json.dumps({"signs": named}))
