"""A backup is one version of everything; a restore brings it back elsewhere, or changes nothing."""

import asyncio
import json
import random
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from app.api.transfer import exported
from app.attribution import today
from app.backup import ArchiveReader, BadArchive, Restore, RestoreRefused, backup_pieces
from app.catalogs import Catalog, CatalogSettings
from app.cli import commands
from app.composition import Services, services
from app.embedders import EmbedderCache
from app.jobs import JobReport
from app.recommend import RecommendRequest
from app.settings import Settings
from app.storage.attribution import ShownList
from app.storage.feedback import Event, User, Visit
from tests.commands import DEMO, DEMO_ITEMS, serving
from tests.tree.store.support import same
from tree.item import Item
from tree.node import Space
from tree.place import plan
from tree.snapshot import SemanticTree
from tree.store.keys import CatalogKeys

USERS = 40


@asynccontextmanager
async def opened(url: str, prefix: str, folder: Path) -> AsyncIterator[Services]:
    settings = Settings(
        redis_url=url, key_prefix=prefix, data_dir=folder, build_processes=1, popularity_weight=0.1
    )
    async with services(settings) as parts:
        yield parts


async def written(parts: Services, file: Path) -> Path:
    with file.open("wb") as target:
        async for piece in backup_pieces(parts.catalogs, JobReport.unwatched()):
            target.write(piece)
    return file


async def restored(parts: Services, file: Path, **more: Any) -> dict[str, int]:
    archive = ArchiveReader(file)
    restore = Restore(archive, parts.catalogs, **more)
    try:
        return await restore.run(JobReport.unwatched())
    finally:
        archive.close()


async def stocked(parts: Services, items: list[Item], tree: SemanticTree) -> Catalog:
    """A catalogue with a locked label, events and users."""
    settings = CatalogSettings(seed=3, language="de")
    catalog, _ = await parts.catalogs.create("shop", settings)
    await catalog.store.stage(items)
    await catalog.store.replace(tree, base=0, staging_seq=await catalog.store.staging_seq())
    await catalog.curator.rename(tree.root.children[0], "Chosen by hand", locked=True)
    await catalog.apply_batch([], [items[0].id])
    chance = random.Random(7)
    ids = [item.id for item in items]
    for user in range(USERS):
        picked = chance.sample(ids, 8)
        await catalog.feedback.record(
            [Event(f"e{user}.{at}", f"user {user}", one, at) for at, one in enumerate(picked)]
        )
    await catalog.feedback.put_user(
        "by hand", User((Visit(ids[3], 7),), "likes deserts", {"age": 7})
    )
    labels = ("bold", "beam", "economy", "home", "no")
    await catalog.attributor.store.keep(ShownList("r", today(), 3, labels, 1, ids[:3]), 60)
    return catalog


async def answers(catalog: Catalog, items: list[Item]) -> list[list[tuple]]:
    """What is recommended, to several users."""
    found = []
    asked: list[dict[str, Any]] = [
        {"history": [{"item_id": item.id} for item in items[at : at + 9 : 3]]} for at in (5, 600)
    ]
    asked += [{"user_id": "user 3"}, {"instruction": "a quiet planet"}]
    for one in asked:
        request = RecommendRequest.model_validate({**one, "limit": 20, "timeout_ms": 60_000})
        answer = await catalog.recommender.recommend(request)
        found.append([(item.item_id, item.score, tuple(item.path)) for item in answer.items])
    return found


async def remembered(catalog: Catalog) -> list[str]:
    entries = [repr(entry) async for some in catalog.feedback.entries() for entry in some]
    tallies = catalog.attributor.store.entries(today())
    return sorted(entries) + sorted([repr(entry) async for some in tallies for entry in some])


async def test_what_is_restored_elsewhere_is_the_same(
    embedded_url, server_url, open_room, demo_items, demo_tree, tmp_path
):
    async with (
        open_room(embedded_url) as here,
        open_room(server_url) as there,
        opened(embedded_url, here.prefix, tmp_path) as source,
        opened(server_url, there.prefix, tmp_path) as target,
    ):
        shop = await stocked(source, demo_items, demo_tree)
        await shop.store.stage([Item(id="waits", title="Waits for its place")])
        await source.documents.put("key", "ulr_1", b"\x00 hashes only", None)
        file = await written(source, tmp_path / "backup.zip")
        assert await restored(target, file, names={"shop": "first"}) == {
            "first": len(demo_items) - 1
        }
        assert await target.documents.get("key", "ulr_1") is None
        assert await restored(target, file) == {"default": 0, "shop": len(demo_items) - 1}
        assert await target.documents.get("key", "ulr_1") == b"\x00 hashes only"

        copy = await target.catalogs.get("shop")
        theirs = await copy.store.load()
        assert copy.settings == shop.settings_of(theirs)
        ours = (await shop.store.load()).at_version(theirs.version)
        assert same(ours, theirs)
        assert [n.label for n in theirs.walk() if n.locked] == ["Chosen by hand"]
        assert [line async for line in exported(copy)] == [line async for line in exported(shop)]
        assert [ids async for ids in copy.store.staged_ids()] == [["waits"]]
        assert await remembered(copy) == await remembered(shop)
        assert len(await remembered(copy)) > USERS
        assert await answers(copy, demo_items) == await answers(shop, demo_items)

        with pytest.raises(RestoreRefused, match="'shop' holds items or users already"):
            await restored(target, file)
        await restored(target, file, names={"shop": "other"})
        assert len(await (await target.catalogs.get("other")).store.load()) == len(theirs)
        await copy.curator.put([Item(id="later", title="Written later")])
        await restored(target, file, overwrite=True)
        again = await (await target.catalogs.get("shop")).store.load()
        assert "later" not in again
        assert len(again) == len(theirs)


async def test_a_catalogue_of_another_width_is_served_and_restored(
    embedded_url, open_room, demo_items, tmp_path
):
    space = Space("lexical", "narrow", dimensions=64)
    items = demo_items[:40]
    vectors = EmbedderCache().of(space).encode([item.text for item in items])
    draft = SemanticTree.empty(space)
    draft = draft.apply(plan(draft, items, vectors))
    async with (
        open_room(embedded_url) as here,
        open_room(embedded_url) as there,
        opened(embedded_url, here.prefix, tmp_path) as source,
        opened(embedded_url, there.prefix, tmp_path) as target,
    ):
        shop, _ = await source.catalogs.create("shop", CatalogSettings())
        await shop.store.stage(items)
        seq = await shop.store.staging_seq()
        await shop.store.replace(draft, base=0, staging_seq=seq)
        await shop.curator.put([demo_items[50]])
        await restored(target, await written(source, tmp_path / "narrow.zip"))
        copy = await target.catalogs.get("shop")
        tree = await copy.store.load()
        assert tree.space == space
        assert tree.rows.dimensions == 64
        assert len(tree) == 41
        request = RecommendRequest.model_validate(
            {"history": [{"item_id": items[0].id}], "limit": 5}
        )
        for catalog in (shop, copy):
            assert len((await catalog.recommender.recommend(request)).items) == 5


async def test_a_backup_beside_writers_is_of_one_version(
    embedded_url, open_room, demo_items, demo_tree, tmp_path
):
    """Two items are always written together: neither is ever ahead, and texts fit the vectors."""
    async with (
        open_room(embedded_url) as room,
        opened(embedded_url, room.prefix, tmp_path) as parts,
    ):
        shop = await stocked(parts, demo_items, demo_tree)
        stop, rounds = asyncio.Event(), 0

        async def write(name: str) -> None:
            nonlocal rounds
            chance = random.Random(name)
            while not stop.is_set():
                rounds += 1
                number = chance.randrange(9)
                text = f"{chance.choice(demo_items).title} {rounds}"
                pair = [Item(id=f"{name}{side}{number}", title=text) for side in "ab"]
                await shop.curator.apply_batch(pair, [chance.choice(demo_items).id])

        async with asyncio.TaskGroup() as writers:
            for name in "xyz":
                writers.create_task(write(name))
            files = [await written(parts, tmp_path / f"{n}.zip") for n in range(3)]
            stop.set()
        assert rounds > 30
        for number, file in enumerate(files):
            await restored(parts, file, names={"shop": f"copy{number}"})
            copy = await parts.catalogs.get(f"copy{number}")
            tree = await copy.store.load()
            ids = list(tree.item_ids())
            items = await copy.store.items(ids)
            assert items.keys() == set(ids)
            for one in (one for one in ids if one[1] == "a" and one[0] in "xyz"):
                assert items[one].title == items[one.replace("a", "b")].title
            vectors = parts.embedders.of(tree.space).encode([items[one].text for one in ids])
            held = tree.rows.vectors[np.array([tree.row(one) for one in ids], np.int64)]
            assert np.array_equal(vectors, held)


async def test_a_damaged_catalogue_is_left_out_by_name_and_can_be_replaced(
    embedded_url, open_room, demo_items, demo_tree, tmp_path
):
    async with (
        open_room(embedded_url) as room,
        opened(embedded_url, room.prefix, tmp_path) as parts,
    ):
        shop = await stocked(parts, demo_items, demo_tree)
        whole = await written(parts, tmp_path / "whole.zip")
        await room.client.hset(CatalogKeys(shop.id, room.prefix).head, "versions", b"[]")
        async with opened(embedded_url, room.prefix, tmp_path) as later:  # has nothing in memory
            archive = ArchiveReader(await written(later, tmp_path / "rest.zip"))
            archive.close()
            assert archive.manifest.catalogs.keys() == {"default"}
            assert "list of versions" in archive.manifest.left_out["shop"]
            with pytest.raises(RestoreRefused, match="holds items or users already"):
                await restored(later, whole)
            await restored(later, whole, names={"shop": "shop"}, overwrite=True)
            tree = await (await later.catalogs.get("shop")).store.load()
            assert len(tree) == len(demo_items) - 1


async def test_a_damaged_or_cut_file_is_refused_whatever_the_place(
    embedded_url, open_room, demo_items, demo_tree, tmp_path
):
    async with (
        open_room(embedded_url) as room,
        opened(embedded_url, room.prefix, tmp_path) as parts,
    ):
        await stocked(parts, demo_items, demo_tree)
        whole = (await written(parts, tmp_path / "backup.zip")).read_bytes()
        before = sorted([key async for key in room.client.scan_iter(match=f"{room.prefix}*")])
        file, chance = tmp_path / "damaged.zip", random.Random(1)
        contents = _contents(tmp_path / "backup.zip")
        spoilt = 0
        for at in sorted(chance.sample(range(len(whole)), 60)):
            for damaged in (
                whole[:at],
                whole[:at] + bytes([whole[at] ^ (1 << chance.randrange(8))]) + whole[at + 1 :],
            ):
                file.write_bytes(damaged)
                try:
                    ArchiveReader(file).close()
                except BadArchive as error:
                    spoilt += "damaged.zip" in str(error)
                else:  # a date, or something else that says nothing
                    assert _contents(file) == contents
        assert spoilt > 100
        file.write_bytes(whole[:-1000])
        with pytest.raises(BadArchive, match="it was cut off"):
            await restored(parts, file, names={"shop": "copy"})
        after = sorted([key async for key in room.client.scan_iter(match=f"{room.prefix}*")])
        assert after == before


def _contents(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_another_zip_and_a_newer_backup_are_told_apart(tmp_path):
    file = tmp_path / "other.zip"
    for manifest, said in (
        (None, "it has no manifest"),
        ({"format": "else"}, "no backup of this service"),
        ({"format": "unillmrec-backup", "format_version": 2}, "restore it with the release"),
        ({"format": "unillmrec-backup", "format_version": 1}, "flaws"),
    ):
        with zipfile.ZipFile(file, "w") as archive:
            if manifest is not None:
                archive.writestr("manifest.json", json.dumps(manifest))
        with pytest.raises(BadArchive, match=said):
            ArchiveReader(file)


def test_commands_back_up_restore_and_forget_beside_a_service(tmp_path, monkeypatch):
    folder, other, file = tmp_path / "data", tmp_path / "other", tmp_path / "backup.zip"
    user = "user-to-be-forgotten"

    def asked(where: Path, *arguments: object) -> Result:
        monkeypatch.setenv("UNILLMREC_DATA_DIR", str(where))
        return CliRunner().invoke(commands, [*map(str, arguments)])

    def done(where: Path, *arguments: object) -> dict:
        return json.loads(asked(where, *arguments, "--json").stdout)

    with serving(folder) as (url, _), httpx2.Client(base_url=f"{url}/v1/catalogs/default") as api:
        assert done(folder, "import", DEMO)["state"] == "succeeded"
        assert api.put(f"/users/{user}", json={"profile": "likes sand"}).is_success
        facts = done(folder, "backup", file)["catalogs"]["default"]
        assert (facts["items"], facts["users"]) == (DEMO_ITEMS, 1)
        assert file.stat().st_mode & 0o777 == 0o600
        streamed = tmp_path / "streamed.zip"
        streamed.write_bytes(api.get(f"{url}/v1/backup").content)
        assert _contents(streamed).keys() == _contents(file).keys()
        assert done(folder, "restore", streamed, "--check")["catalogs"] == {"default": DEMO_ITEMS}
        one = ("--check", "--catalog", "default")
        assert done(folder, "restore", file, *one)["catalogs"] == {"default": DEMO_ITEMS}
        refused = asked(folder, "restore", file, "--check", "--catalog", "nowhere")
        assert (refused.exit_code, "has no catalogue 'nowhere'" in refused.stderr) == (1, True)
        refused = asked(folder, "restore", file)
        assert refused.exit_code == 1
        assert "--catalog default=NEW, or add --overwrite" in refused.stderr
        assert done(folder, "restore", file, "-c", "default=copy")["catalogs"] == {
            "copy": DEMO_ITEMS
        }
        body = {"history": [{"item_id": "book-dune"}]}
        first, second = (
            api.post(f"{url}/v1/catalogs/{name}/recommend", json=body).json()["items"]
            for name in ("default", "copy")
        )
        assert first == second

        for name in ("default", "copy"):
            assert api.delete(f"{url}/v1/catalogs/{name}/users/{user}").is_success
        assert user.encode() in _stored(folder)
        assert done(folder, "compact") == {"compacted": True}
        assert user.encode() not in _stored(folder)

    cut = tmp_path / "cut.zip"
    cut.write_bytes(file.read_bytes()[:-40])
    refused = asked(other, "restore", cut)
    assert refused.exit_code == 1
    assert "is not a whole backup" in refused.stderr
    assert not other.exists()
    assert done(other, "restore", file)["catalogs"] == {"default": DEMO_ITEMS}


def _stored(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in (folder / "appendonlydir").iterdir())
