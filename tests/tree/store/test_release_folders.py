"""What earlier releases have stored is served by this one, and nothing of it is lost."""

import json
import zipfile
from pathlib import Path

import pytest

from app.composition import services
from app.settings import Settings
from tests.commands import serving
from tests.tree.store import release_folder as release


def within(stored: object, found: object) -> bool:
    """Whether all that was answered is answered again; fields may have been added since."""
    if isinstance(stored, dict) and isinstance(found, dict):
        return stored.keys() <= found.keys() and all(
            within(value, found[name]) for name, value in stored.items()
        )
    if isinstance(stored, list) and isinstance(found, list):
        return len(stored) == len(found) and all(map(within, stored, found))
    return stored == found


def lines(text: str) -> list:
    """A JSON document, or one a line."""
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    "file", sorted(release.HERE.glob("release_*.zip")), ids=lambda file: file.stem
)
async def test_a_folder_of_an_earlier_release_is_served(file: Path, tmp_path: Path):
    with zipfile.ZipFile(file) as archive:
        archive.extractall(tmp_path)
    answers = json.loads((tmp_path / release.ANSWERS).read_bytes())
    async with services(Settings(data_dir=tmp_path)) as parts:
        waiting = await parts.catalogs.get("waiting")
        assert [ids async for ids in waiting.store.staged_ids()] == [["waits"]]
    with (
        serving(tmp_path, **release.ENVIRONMENT) as (url, _),
        release.client(url) as service,
        release.client(url, answers["key"]) as page,
    ):
        for path, text in answers["read"].items():
            found = service.get(path).raise_for_status().text
            assert within(lines(text), lines(found)), path
        for question, told in zip(release.QUESTIONS, answers["recommended"], strict=True):
            answer = release.recommended(page, question)
            assert answer["tree_version"] == told["tree_version"]
            assert len(answer["items"]) == len(told["items"])
            # What few users had together counts less than it did: the order of a history changes.
            kept = len(set(answer["items"]) & set(told["items"]))
            assert kept >= (5 if question.keys() & {"history", "user_id"} else 10)
        assert page.get(f"{release.SHOP}/items/i0").status_code == 403
        event = {"event_id": "new", "user_id": "u3", "item_id": "i3", "type": "purchase"}
        sent = service.post(f"{release.SHOP}/events", json={"events": [event]}).json()
        assert sent["results"][0]["status"] == "repeated"
        release.finished(service, service.post(f"{release.SHOP}/tree/versions/1:activate"))
        activated = service.get(f"{release.SHOP}/tree/versions").json()["versions"][0]
        assert activated["active"]
        assert activated["items"] == release.ITEMS
        waits = service.get(f"{release.WAITING}/items/waits").raise_for_status().json()
        assert waits["title"] == "Waits for its place"
