"""What a model says of items that does as it is told, and what has to hold of lines."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from app.budget import Budget
from app.curate import OwnerSettings
from app.curate.enrichment.enrichment import Enrichment
from app.curate.enrichment.line_writer import Lines, LineWriter, Task
from app.llm import STAGES, ChatModel, Models, Price, ReplyMode, StageModel
from app.llm.ask import FREE
from app.llm.batches import BatchApi
from app.settings import Settings
from app.storage.documents import Documents
from tree.item import Item

PRICE = Price(input_usd=2.0, output_usd=8.0)
MANY = 10**12


def items_of(prompt: str) -> dict[int, tuple[str, str]]:
    """The tags and texts of a question by their numbers."""
    listed = prompt.split("\n\nItems:\n", maxsplit=1)[1]
    found = re.findall(r"^(\d+)\. \[([^\]]+)\] (.+)$", listed, re.MULTILINE)
    assert len(listed.splitlines()) == len(found)
    return {int(number): (tag, text) for number, tag, text in found}


def title_in(text: str) -> str:
    return text.split(" — ", maxsplit=1)[0]


def line_of(title: str) -> str:
    """The line of an item: it has the title, so that a wrong place shows."""
    plain = " ".join(re.findall(r"\w+", title))[:120]
    return f"This is about {plain}, which people enjoy at home in the evening with their friends."


def lines_json(prompt: str) -> str:
    if "\n\nItems:\n" not in prompt:  # whether it sees
        return "green"
    lines = [
        {"n": number, "tag": tag, "line": line_of(title_in(text))}
        for number, (tag, text) in items_of(prompt).items()
    ]
    return json.dumps({"lines": lines})


def lines_text(prompt: str) -> str:
    lines = json.loads(lines_json(prompt))["lines"]
    return "\n".join(f"{one['n']} [{one['tag']}]: {one['line']}" for one in lines)


def models_of(
    chat: ChatModel,
    documents: Documents,
    *,
    mode: ReplyMode = ReplyMode.JSON_SCHEMA,
    price: Price = FREE,
    batches: BatchApi | None = None,
) -> Models:
    stages = dict.fromkeys(STAGES, StageModel(chat, price))
    lines = StageModel(chat, price)
    return Models(stages, documents, mode, 5.0, "here", lines=lines, line_batches=batches)


def writer_of(chat: ChatModel, documents: Documents, **options: Any) -> LineWriter:
    catalog = options.pop("catalog", "")
    models = models_of(chat, documents, **options)
    return LineWriter(models, documents, timeout_s=5.0, catalog=catalog)


def task_of(writer: LineWriter, holder: str = "job", **options: Any) -> Task:
    budget = Budget(MANY, MANY, options.pop("cost_usd", float("inf")))
    language, guidance = options.pop("language", "en"), options.pop("guidance", "")
    return writer.task(holder, language, guidance, budget, **options)


async def written(writer: LineWriter, items: Iterable[Item], **options: Any) -> Lines:
    lines = Lines()
    await writer.write(task_of(writer, **options), list(items), lines)
    return lines


def assert_right(lines: Mapping[str, Any], items: Iterable[Item]) -> None:
    """Every line is the one of its own item."""
    titles = {item.id: item.title for item in items}
    for item_id, line in lines.items():
        assert line.text == line_of(titles[item_id])


def enrichment_of(
    shop: Any, models: Models, owner: OwnerSettings | None = None, **settings: Any
) -> Enrichment:
    """As a curator makes it, in a process of its own."""
    return Enrichment(
        shop.store,
        shop.curator._set_lines,
        models,
        Settings(**settings),
        owner or OwnerSettings(),
        patience_s=0.3,
    )
