"""A backup of a real catalogue beside writers, and a restore of it elsewhere, compared."""

import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from app.api.transfer import exported
from app.backup import ArchiveReader, Restore, backup_pieces
from app.catalog import Catalog
from app.composition import Services, services
from app.jobs import JobReport
from app.recommend import RecommendRequest
from app.settings import Settings
from app.storage.feedback import Event
from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tree.item import Item

_NAME = "amazon_games"
_USERS = 20_000
_ASKED = 50
_AT_ONCE = 1_000
_WRITERS = 3


def real() -> Iterator[Figure]:
    """Times, sizes, and how much differs in the end."""
    with tempfile.TemporaryDirectory() as folder:
        yield from asyncio.run(_measured(Path(folder)))


@asynccontextmanager
async def _opened(folder: Path) -> AsyncIterator[tuple[Services, Catalog]]:
    async with services(Settings(data_dir=folder)) as parts:
        yield parts, await parts.catalogs.get("default")


async def _measured(folder: Path) -> list[Figure]:
    quiet, busy = folder / "quiet.zip", folder / "busy.zip"
    async with _opened(folder / "here") as (parts, shop):
        items, users = data.real_items(_NAME), data.histories(_NAME, _USERS)
        await _fill(parts, shop, items, users)
        asked = users[:_ASKED]
        quiet_s = await _back_up(parts, quiet)
        before = await _content(shop, asked)
        waits, busy_s = await _beside_writers(parts, shop, items, busy)
    async with _opened(folder / "there") as (parts, _):
        restore_s = await _restore(parts, quiet)
        copy = await parts.catalogs.get("default")
        differences = sum(
            (before[name] - found).total() + (found - before[name]).total()
            for name, found in (await _content(copy, asked)).items()
        )
        await _restore(parts, busy)
        torn = await _torn(parts, await parts.catalogs.get("default"))
    return [
        Figure(f"backup of {len(items):,} items and {len(users):,} users", quiet_s, "s"),
        Figure("size of the file", quiet.stat().st_size / 1e6, "MB"),
        Figure("restore into an empty store", restore_s, "s"),
        Figure("what differs then: items, users, counts, labels, answers", differences, "", "=", 0),
        Figure(f"backup beside {len(waits):,} writes", busy_s, "s"),
        Figure("longest of these writes", max(waits), "s"),
        Figure("texts that do not fit their place, halves of writes", torn, "", "=", 0),
    ]


async def _fill(parts: Services, shop: Catalog, items: list[Item], users: list[list[str]]) -> None:
    for start in range(0, len(items), _AT_ONCE):
        await shop.store.stage(items[start : start + _AT_ONCE])
    await parts.jobs.wait((await shop.curator.start_rebuild()).id)
    tree = await shop.store.load()
    for node in tree.root.children[:3]:
        await shop.curator.rename(node, f"Chosen by hand {node}", locked=True)
    events = [
        Event(f"{user}.{at}", f"user {user}", item, at)
        for user, history in enumerate(users)
        for at, item in enumerate(history)
    ]
    for start in range(0, len(events), _AT_ONCE):
        await shop.feedback.record(events[start : start + _AT_ONCE])


async def _back_up(parts: Services, file: Path) -> float:
    began = time.perf_counter()
    with file.open("wb") as target:
        async for piece in backup_pieces(parts.catalogs, JobReport.unwatched()):
            target.write(piece)
    return time.perf_counter() - began


async def _beside_writers(
    parts: Services, shop: Catalog, items: list[Item], file: Path
) -> tuple[list[float], float]:
    """How long each write took, and the backup."""
    done, waits = asyncio.Event(), list[float]()

    async def write(name: int) -> None:
        chance = random.Random(name)
        while not done.is_set():
            number, text = chance.randrange(500), f"{chance.choice(items).title} {len(waits)}"
            pair = [Item(id=f"pair {name} {number} {side}", title=text) for side in "ab"]
            began = time.perf_counter()
            await shop.apply_batch(pair, [chance.choice(items).id])
            waits.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as writers:
        for name in range(_WRITERS):
            writers.create_task(write(name))
        took_s = await _back_up(parts, file)
        done.set()
    return waits, took_s


async def _restore(parts: Services, file: Path) -> float:
    began = time.perf_counter()
    archive = ArchiveReader(file)
    restore = Restore(archive, parts.catalogs, overwrite=True)
    await restore.run(JobReport.unwatched())
    archive.close()
    return time.perf_counter() - began


async def _content(shop: Catalog, asked: list[list[str]]) -> dict[str, Counter[str]]:
    """Everything of a catalogue that can be compared, and what it answers."""
    tree = await shop.store.load()
    answers = []
    for history in asked:
        taken = [{"item_id": item_id} for item_id in history[-10:]]
        request = RecommendRequest.model_validate({"history": taken, "timeout_ms": 60_000})
        answer = await shop.recommender.recommend(request)
        answers.append(repr([(item.item_id, item.score) for item in answer.items]))
    return {
        "items": Counter([repr(lines) async for lines in exported(shop)]),
        "nodes": Counter(repr(tree.spec(node)) for node in tree.walk()),
        "feedback": Counter([repr(one) async for some in shop.feedback.entries() for one in some]),
        "answers": Counter(answers),
    }


async def _torn(parts: Services, shop: Catalog) -> int:
    tree = await shop.store.load()
    ids = list(tree.item_ids())
    items = await shop.store.items(ids)
    texts = parts.embedders.of(tree.space).encode([items[one].text for one in ids])
    rows = tree.rows.vectors[np.array([tree.row(one) for one in ids], np.int64)]
    misfits = int(np.any(texts != rows, axis=1).sum())
    firsts = [one for one in ids if one.startswith("pair ") and one.endswith(" a")]
    others = [items.get(f"{one[:-1]}b") for one in firsts]
    halves = [
        one
        for one, other in zip(firsts, others, strict=True)
        if other is None or other.title != items[one].title
    ]
    return misfits + len(halves)
